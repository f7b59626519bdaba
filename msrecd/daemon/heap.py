"""Heap: returns freed memory to the system.

glibc returns only the end of its heap. After a disk has stalled for half a minute, some 25 MB of packets are freed and
stay with the process for good, which matters on a board with 512 MB. A smaller mmap threshold would return each packet
at once and cost up to a tenth of the CPU time of recording; trimming once a minute costs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from msrecd.daemon import health

log = logging.getLogger(__name__)

_WORTH_BYTES = 8 << 20


def is_worth(now_bytes: int, least_bytes: int) -> bool:
    """Whether so much more is resident than at the least that trimming may return some of it. Pure."""
    return now_bytes >= least_bytes + _WORTH_BYTES


def trim() -> None:
    """malloc_trim(3); does nothing where the C library has none."""
    import ctypes  # here: a third of a megabyte that most runs never need

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
        """Trim if it is worth it; call it about once a minute."""
        now = self._resident()
        if now is None:
            return
        if self._least is not None and is_worth(now, self._least):
            self._trim()
            after = self._resident() or now
            log.debug("memory: %.1f MiB, %.1f after trimming", now / 2**20, after / 2**20)
            self._least = after  # what is left is in use
        else:
            self._least = now if self._least is None else min(self._least, now)
