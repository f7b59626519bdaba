"""Sound that came after the chunk it belongs to was closed: told as one gap, not packet by packet. Pure."""

from __future__ import annotations

_WORTH_TELLING_NS = 50_000_000


class LateSound:
    """Adds up neighbouring packets that were refused."""

    def __init__(self) -> None:
        self._begin_ns = self._end_ns = 0

    def refused(self, begin_ns: int, end_ns: int) -> None:
        """Count a packet, by its capture time."""
        if not self._end_ns:
            self._begin_ns = begin_ns
        self._end_ns = max(self._end_ns, end_ns)

    def take(self) -> tuple[int, int] | None:
        """(begin, length) of what was refused since the last call; None when it is not worth a word."""
        begin_ns, length_ns = self._begin_ns, self._end_ns - self._begin_ns
        self._begin_ns = self._end_ns = 0
        return (begin_ns, length_ns) if length_ns >= _WORTH_TELLING_NS else None
