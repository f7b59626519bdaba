"""When packets are dropped because the consumer does not take the blobs. Pure; belongs to one thread."""

from __future__ import annotations


class Shedding:
    """Drops from any packet on when too much waits, and comes back at a cut point when half of it is gone.

    What is dropped is the rest of a group of pictures and whole groups, so the file stays decodable.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.since_ns: int | None = None

    def is_idle(self, waiting_bytes: int) -> bool:
        """Whether there is nothing to decide: nothing is being dropped, nor has to be."""
        return self.since_ns is None and waiting_bytes <= self._max_bytes

    def decide(self, waiting_bytes: int, pts_ns: int, *, is_cut_point: bool) -> tuple[bool, int | None]:
        """(whether this packet is dropped, begin of the gap that ends with it)."""
        if self.since_ns is None:
            if self.is_idle(waiting_bytes):
                return False, None
            self.since_ns = pts_ns
            return True, None
        if is_cut_point and self.may_end(waiting_bytes):
            since_ns, self.since_ns = self.since_ns, None
            return False, since_ns
        return True, None

    def may_end(self, waiting_bytes: int) -> bool:
        return waiting_bytes < self._max_bytes // 2
