"""SoundBlocks: the pieces of a played sound, which come a batch at a time, as one block. Belongs to one thread."""

from __future__ import annotations

from collections.abc import Callable

from msrecd.clock import MS, NS
from msrecd.flow.units import AudioBlock, AudioFormat

_JOINS_NS = MS  # containers round their times to a millisecond
_LONGEST_NS = 300 * MS


class SoundBlocks:
    """Gathers PCM that joins; gives it when told to, when a piece does not join, and when there is much of it.

    The pieces of a file are some 20 ms long and a batch of them comes at once: as many blocks would cost every consumer
    as many calls, for nothing.
    """

    def __init__(self, format: AudioFormat, put: Callable[[AudioBlock], None]) -> None:
        self._format = format
        self._frame_bytes = format.frame_bytes
        self._ns_per_byte = NS / (format.sample_rate * self._frame_bytes)
        self._put = put
        self._parts: list[bytes] = []
        self._begin_ns = 0
        self._end_ns = 0.0

    def add(self, pts_ns: int, pcm: bytes) -> None:
        """Take the PCM that begins at `pts_ns`."""
        if not pcm:
            return
        if self._parts and not -_JOINS_NS <= pts_ns - self._end_ns <= _JOINS_NS:
            self.give()
        if not self._parts:
            self._begin_ns = pts_ns
            self._end_ns = pts_ns
        self._parts.append(pcm)
        self._end_ns += len(pcm) * self._ns_per_byte
        if self._end_ns - self._begin_ns >= _LONGEST_NS:
            self.give()

    def give(self) -> None:
        """Put what is gathered, if anything is."""
        if not self._parts:
            return
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._put(
            AudioBlock(pts_ns=self._begin_ns, format=self._format, samples=len(data) // self._frame_bytes, data=data)
        )

    def forget(self) -> None:
        """Nobody wants what is gathered."""
        self._parts.clear()
