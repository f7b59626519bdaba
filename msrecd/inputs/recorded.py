"""Chunks read again, for exports and thumbnails: in a confined process, for a card may have been elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from msrecd.inputs.address import Address, SourceOptions
from msrecd.inputs.reader import Reader
from msrecd.libav.values import Demuxed, StreamInfo


class RecordedFile:
    """A file that is read from its begin, several times if need be. Belongs to one thread.

    Raises (from the constructor and from `packets`):
        LibavError: it cannot be read, or has ended the process that reads it.
    """

    KEPT_BYTES = 4 << 20  # of the begin, which is looked at more than once

    def __init__(self, path: Path) -> None:
        self._address = Address(scheme="file", opened=str(path.absolute()), shown=path.name)
        self._reader = Reader(self._address, SourceOptions())
        self.streams: Sequence[StreamInfo] = self._reader.description.streams
        self._coming = self._packets()
        self._kept: list[Demuxed] = []
        self._kept_bytes = 0

    def packets(self, indexes: Sequence[int]) -> Iterator[Demuxed]:
        """Those of these streams, from the begin on."""
        if self._kept_bytes > self.KEPT_BYTES:  # it has gone too far to be kept
            self._reader.close()
            self._reader = Reader(self._address, SourceOptions())
            self._coming, self._kept, self._kept_bytes = self._packets(), [], 0
        at = 0
        while True:
            if at < len(self._kept):
                packet = self._kept[at]
                at += 1
            else:
                following = next(self._coming, None)
                if following is None:
                    return
                packet = following
                if self._kept_bytes <= self.KEPT_BYTES:
                    self._kept.append(packet)
                    at += 1
                    self._kept_bytes += len(packet.data) + 100
                    if self._kept_bytes > self.KEPT_BYTES:
                        self._kept, at = [], 0
            if packet.stream in indexes:
                yield packet

    def _packets(self) -> Iterator[Demuxed]:
        for batch in self._reader.batches([info.index for info in self.streams]):
            yield from batch

    def close(self) -> None:
        self._reader.close()
