"""When samples were captured and how many are missing, out of a sound card's timestamps. Pure; one thread owns it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from msrecd.clock import MS, NS
from msrecd.flow.median import median

_WINDOW = 16  # blocks over which a timestamp's jitter is evened out, about a third of a second
_OLDEST_NS = 10 * NS
_FUTURE_NS = 5 * MS
_GAP_NS = 50 * MS  # an unannounced gap smaller than this is jitter
_GAP_BLOCKS = 4  # … and it must be seen in so many blocks in a row


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """When the first sample of a block was captured (CLOCK_MONOTONIC), and how many were lost before it."""

    pts_ns: int
    lost_before: int


class SampleClock:
    """Turns (timestamp, samples still unread) into the capture time of each block.

    ALSA's status says: at time `ts`, `avail` samples could be read that the application has not taken. So the sample
    after the block just read was captured at `ts - avail / rate`, and the block's first one `samples / rate` before.
    Where the card gives no usable timestamp (zero, or of the wall clock) the time of reading stands in for it.
    """

    def __init__(self, *, sample_rate: int, buffer_samples: int) -> None:
        self._rate = sample_rate
        self._buffer = buffer_samples
        self._position = 0  # samples since the first one, the lost ones included
        self._offsets: deque[int] = deque(maxlen=_WINDOW)  # capture time minus position, per block
        self._late: list[int] = []  # gaps of the last blocks, while they are too large to be jitter
        self.fallbacks = 0  # blocks stamped with the time of reading

    def stamp(self, *, now_ns: int, ts_ns: int, avail: int, samples: int, overrun: bool) -> Stamp:
        """The stamp of the block just read; `overrun`: the card stopped and was started again before this block."""
        if not self._is_usable(now_ns, ts_ns, avail):
            ts_ns, avail = now_ns, avail if 0 <= avail <= self._buffer else 0
            self.fallbacks += 1
        pts_ns = ts_ns - self._duration(avail + samples)
        lost = self._lost(pts_ns, overrun=overrun)
        if overrun or lost:
            self._offsets.clear()
            self._late.clear()
        self._position += lost
        self._offsets.append(pts_ns - self._duration(self._position))
        self._position += samples
        return Stamp(pts_ns=pts_ns, lost_before=lost)

    def _lost(self, pts_ns: int, *, overrun: bool) -> int:
        if not self._offsets:
            return 0
        gap_ns = pts_ns - self._duration(self._position) - round(median(self._offsets))
        if overrun:
            return max(0, self._samples(gap_ns))
        if gap_ns < _GAP_NS:
            self._late.clear()
            return 0
        self._late.append(gap_ns)  # nobody spoke of an overrun: believe it only when it stays
        return self._samples(min(self._late)) if len(self._late) >= _GAP_BLOCKS else 0

    def _is_usable(self, now_ns: int, ts_ns: int, avail: int) -> bool:
        return ts_ns > 0 and -_FUTURE_NS <= now_ns - ts_ns <= _OLDEST_NS and 0 <= avail <= self._buffer

    def _duration(self, samples: int) -> int:
        return samples * NS // self._rate

    def _samples(self, duration_ns: int) -> int:
        return round(duration_ns * self._rate / NS)
