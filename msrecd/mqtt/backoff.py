"""How long to wait before the next attempt to connect. Pure but for the random source given to it."""

from __future__ import annotations

import os
from collections.abc import Callable

STABLE_S = 60.0
SETTLED_S = 5.0


def uniform(low: float, high: float) -> float:
    """A random number between the two; the module `random` would be another 0.2 MB for the two that a day needs."""
    return low + (high - low) * int.from_bytes(os.urandom(4), "big") / 0xFFFFFFFF


class Backoff:
    """Growing, random, bounded delays.

    Random, so that a fleet does not come back in step after its broker restarted. A connection that lasted a
    minute resets it; one that lasted a few seconds keeps the delay short; one that ended at once (two clients with
    one id evict each other that way) lets it grow on.
    """

    def __init__(self, min_s: float, max_s: float, uniform: Callable[[float, float], float]) -> None:
        self._min_s = min_s
        self._max_s = max(min_s, max_s)
        self._uniform = uniform
        self._level = 0

    def next_delay_s(self, lasted_s: float | None) -> float:
        """The wait after a connection that lasted `lasted_s` seconds, or after a failed attempt (None)."""
        if lasted_s is not None and lasted_s >= STABLE_S:
            self._level = 0
        elif lasted_s is not None and lasted_s >= SETTLED_S:
            self._level = min(self._level, 1)
        upper_s = min(self._max_s, self._min_s * 2.0 * 2.0**self._level)
        self._level = min(self._level + 1, 16)
        return self._uniform(min(self._min_s, upper_s) / 4, upper_s)
