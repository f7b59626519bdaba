"""How long to wait before the next try. Pure."""

from __future__ import annotations


class BackOff:
    """1, 2, 4 … seconds, at most `limit_s` (which may be changed); starts again after `reset`."""

    def __init__(self, first_s: float = 1.0, limit_s: float = 60.0) -> None:
        self._first_s = first_s
        self.limit_s = limit_s
        self._next_s = first_s

    def next_s(self) -> float:
        wait = min(self.limit_s, self._next_s)
        self._next_s = min(self.limit_s, wait * 2)
        return wait

    def reset(self) -> None:
        self._next_s = self._first_s
