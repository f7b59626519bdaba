"""Chunks in memory, as rotation looks at them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msrecd.storage.retention import ChunkRef


class ListView:
    """A view of chunks in memory, in the order of recording."""

    def __init__(self, chunks: Sequence[ChunkRef]) -> None:
        self._chunks = chunks

    def total_bytes(self, recorder: str | None) -> int:
        return sum(chunk.bytes for chunk in self._chunks if recorder in (None, chunk.recorder))

    def oldest(self, recorder: str | None) -> Iterator[ChunkRef]:
        return (c for c in self._chunks if recorder in (None, c.recorder) and not c.protected)

    def aged(self, recorder: str | None, before_ns: int) -> Iterator[ChunkRef]:
        return (c for c in self.oldest(recorder) if c.trusted and c.ended_ns < before_ns)
