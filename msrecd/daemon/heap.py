"""What waited in memory goes back to the system once it is gone.

glibc gives back only the end of its heap. After a disk that stalled for half a minute some 25 MB of packets are freed
and stay with the process for good, which a board with 512 MB feels. A smaller threshold for mmap would give each packet
back at once and cost up to a tenth of the processor time of recording; to ask once a minute costs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from msrecd.daemon import health

log = logging.getLogger(__name__)

_WORTH_BYTES = 8 << 20


def is_worth(now_bytes: int, least_bytes: int) -> bool:
    """Whether so much more is resident than there was at the least that trimming may give something back. Pure."""
    return now_bytes >= least_bytes + _WORTH_BYTES


def trim() -> None:
    """malloc_trim(3); does nothing where the C library has none."""
    import ctypes  # a third of a megabyte, for those few who need it

    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


class Heap:
    """Belongs to one thread at a time; blocks for some milliseconds when it trims."""

    def __init__(
        self, *, resident: Callable[[], int | None] = health.anonymous_bytes, trim: Callable[[], None] = trim
    ) -> None:
        self._resident = resident
        self._trim = trim
        self._least: int | None = None

    def look(self) -> None:
        """Call it now and then."""
        now = self._resident()
        if now is None:
            return
        if self._least is not None and is_worth(now, self._least):
            self._trim()
            after = self._resident() or now
            log.debug("memory: %.1f MiB, %.1f after trimming", now / 2**20, after / 2**20)
            self._least = after  # what is left is in use: only more than that is worth another look
        else:
            self._least = now if self._least is None else min(self._least, now)
