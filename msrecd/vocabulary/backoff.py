"""How long to wait before the next attempt."""

from __future__ import annotations

import os
from collections.abc import Callable

STABLE_S = 60.0
SETTLED_S = 5.0
_MAX_DOUBLINGS = 16


def uniform(low: float, high: float) -> float:
    """A random number between the two. The module `random` would cost 0.2 MB of memory for little more than this."""
    return low + (high - low) * int.from_bytes(os.urandom(4), "big") / 0xFFFFFFFF


class BackOff:
    """Delays that double: `first_s`, twice that, …, at most `limit_s` (which may be changed at any time).

    With `spread`, a delay is drawn between a quarter of `first_s` and twice the doubled delay, so that a fleet does
    not come back in step after its broker restarted.
    """

    def __init__(
        self, first_s: float = 1.0, limit_s: float = 60.0, *, spread: Callable[[float, float], float] | None = None
    ) -> None:
        self._first_s = first_s
        self.limit_s = limit_s
        self._spread = spread
        self._doublings = 0

    def next_s(self, lasted_s: float | None = None) -> float:
        """The delay after an attempt that failed (None) or a connection that lasted `lasted_s` seconds.

        One that lasted a minute starts the delays again; one that lasted a few seconds keeps them short. One that
        ended at once lets them grow: two clients with one id evict each other that way.
        """
        if lasted_s is not None and lasted_s >= STABLE_S:
            self._doublings = 0
        elif lasted_s is not None and lasted_s >= SETTLED_S:
            self._doublings = min(self._doublings, 1)
        delay_s = self._first_s * 2.0**self._doublings
        self._doublings = min(self._doublings + 1, _MAX_DOUBLINGS)
        if self._spread is None:
            return min(self.limit_s, delay_s)
        longest_s = min(self.limit_s, 2 * delay_s)
        return self._spread(min(self._first_s, longest_s) / 4, longest_s)

    def reset(self) -> None:
        """Begin with `first_s` again."""
        self._doublings = 0
