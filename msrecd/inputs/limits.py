"""How much of an input the program takes in a second: what comes faster waits, or is left out."""

from __future__ import annotations

import os

from msrecd.clock import NS
from msrecd.libav.values import MAX_PIXELS

# Twice what a camera of 4096x2160 gives at 60 frames a second, and more packets than any container has streams for.
PACKETS_A_SECOND = 20_000
BYTES_A_SECOND = 64 << 20
PIXELS_A_SECOND = 600_000_000
_PIXEL_BYTES = 30  # an encoder holds some twenty frames of one and a half bytes a pixel
_SHARE = 6  # of the board's memory, for the largest encoder of an input


def pixels_that_fit(memory_bytes: int) -> int:
    """Pixels of a frame that may be decoded and encoded again: no input may fill the board by naming a large size.

    2.9 megapixels with 512 MiB, 5.9 with 1 GiB, and from 3 GiB on all that are decoded at all.
    """
    return min(MAX_PIXELS, memory_bytes // _SHARE // _PIXEL_BYTES)


def board_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Allowance:
    """So much a second; what was not used is kept for `burst_s` seconds. Belongs to one thread."""

    def __init__(self, a_second: float, *, burst_s: float = 2.0) -> None:
        self._a_second = a_second
        self._most = a_second * burst_s
        self._left = self._most
        self._at_ns: int | None = None

    def take(self, amount: float, now_ns: int) -> float:
        """Use some; how many seconds to wait before more is used, 0 as a rule."""
        self._refill(now_ns)
        self._left -= amount
        return max(0.0, -self._left / self._a_second)

    def try_take(self, amount: float, now_ns: int) -> bool:
        """Use some if it is there."""
        self._refill(now_ns)
        if amount > self._left:
            return False
        self._left -= amount
        return True

    def _refill(self, now_ns: int) -> None:
        if self._at_ns is not None:
            self._left = min(self._most, self._left + (now_ns - self._at_ns) / NS * self._a_second)
        self._at_ns = now_ns
