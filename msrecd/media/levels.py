"""Levels of a sound track: dBFS against full-scale amplitude, ten times a second, without disturbing a recording."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass

from msrecd.flow.source import Gate, Source
from msrecd.flow.units import AudioBlock

PER_SECOND = 10
FLOOR_DBFS = -80.0
_QUEUE_LIMIT = 20


@dataclass(frozen=True, slots=True)
class Level:
    """Of a tenth of a second, by channel; rms, peak: dBFS, FLOOR_DBFS at least. clipped: samples at full scale."""

    rms: tuple[float, ...]
    peak: tuple[float, ...]
    clipped: tuple[int, ...]


class LevelMeter:
    """A sink of the raw feed: the sums are made in the source's thread, some 10 µs a block."""

    def __init__(self, source: Source, gate: Gate) -> None:
        self._source = source
        self._gate = gate
        self._loop = asyncio.get_running_loop()
        self._levels: asyncio.Queue[Level | None] = asyncio.Queue(_QUEUE_LIMIT)
        self._samples = 0
        self._squares: list[float] = []
        self._peaks: list[float] = []
        self._clipped: list[int] = []

    async def read(self) -> AsyncIterator[Level]:
        """Until the source ends.

        Raises:
            NotSupportedError: the source has encoded units only.
        """
        from msrecd import pixels  # here: numpy, for those who look at levels

        self._sums = pixels.sums_of
        feed = self._source.raw()
        await asyncio.to_thread(feed.add, self)
        try:
            while (level := await self._levels.get()) is not None:
                yield level
        finally:
            await asyncio.to_thread(feed.remove, self)

    # --- the source's thread -----------------------------------------------------------------------------------------

    def put(self, unit: AudioBlock) -> None:
        squares, peaks, clipped = self._sums(unit)
        if self._samples == 0 or len(squares) != len(self._squares):
            self._samples, self._squares, self._peaks, self._clipped = 0, squares, peaks, clipped
        else:
            self._squares = [a + b for a, b in zip(self._squares, squares, strict=True)]
            self._peaks = list(map(max, self._peaks, peaks))
            self._clipped = [a + b for a, b in zip(self._clipped, clipped, strict=True)]
        self._samples += unit.samples
        if self._samples * PER_SECOND >= unit.format.sample_rate:
            self._post(self._level())
            self._samples = 0

    def end(self, error: BaseException | None) -> None:
        self._post(None)

    def _level(self) -> Level:
        if not self._gate.is_open:
            silent = (FLOOR_DBFS,) * len(self._squares)
            return Level(silent, silent, (0,) * len(self._squares))
        return Level(
            rms=tuple(decibels(math.sqrt(square / self._samples)) for square in self._squares),
            peak=tuple(map(decibels, self._peaks)),
            clipped=tuple(self._clipped),
        )

    def _post(self, level: Level | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._queue, level)
        except RuntimeError:
            return  # the loop is closed

    def _queue(self, level: Level | None) -> None:
        if self._levels.full():
            self._levels.get_nowait()  # who comes late sees the newest
        self._levels.put_nowait(level)


def decibels(amplitude: float) -> float:
    """Of an amplitude of 0 to 1, to a hundredth."""
    return max(FLOOR_DBFS, round(20 * math.log10(amplitude), 2)) if amplitude > 0 else FLOOR_DBFS
