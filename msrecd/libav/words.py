"""What libav says while it works: in no other way it reports missing packets, and where it is about to connect to."""

from __future__ import annotations

import logging
from collections.abc import Callable

import av.logging


def hear(listener: Callable[[str], None], level: int = av.logging.WARNING) -> None:
    """Call `listener` with each of libav's messages from now on, in the thread that is inside libav, before it goes on.

    Several may listen; the most talkative level of them holds for all.
    """
    logger = logging.getLogger("libav")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.addHandler(_Listener(listener))
    av.logging.set_level(max(level, av.logging.get_level() or level))


def hear_places(listener: Callable[[str], None]) -> None:
    """Call `listener` with the address of each host that libav is about to connect to over TCP."""

    def hear_one(message: str) -> None:
        begin, _, rest = message.partition(_ATTEMPT)
        if rest and not begin:
            listener(rest.rpartition(" port ")[0])

    hear(hear_one, av.logging.VERBOSE)


_ATTEMPT = "Starting connection attempt to "


class _Listener(logging.Handler):
    def __init__(self, listener: Callable[[str], None]) -> None:
        super().__init__()
        self._listener = listener

    def emit(self, record: logging.LogRecord) -> None:
        self._listener(record.getMessage())
