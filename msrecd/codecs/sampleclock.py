"""When a sample was really captured: a sound card's sample counter tied to CLOCK_MONOTONIC. Pure.

A card's crystal is off by up to some hundred ppm and each block's time stamp jitters. A loop of second order
follows the stamps: the time of a sample number is continuous and rises smoothly (its slope never leaves ± MAX_SLEW),
and converges on the stamps. Media times made from it neither jump nor drift.
"""

from __future__ import annotations

NS = 1_000_000_000

MAX_SLEW = 1000e-6  # of the nominal period; far more than any card's error, far less than an ear notices
_PROPORTIONAL = 1 / 4.0  # a deviation is worked off with a time constant of four seconds
_INTEGRAL = _PROPORTIONAL**2 / 4  # critically damped
_JUMP_NS = 60_000_000  # a deviation that no jitter explains


class SampleClock:
    """Maps sample numbers to ns; `observe` with the stamp of each block, in order."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._period = NS / sample_rate
        self._anchor_sample = 0
        self._anchor_ns: float | None = None
        self._origin_ns = 0
        self._rate_error = 0.0
        self._slope = 0.0
        self.deviation_ns = 0.0

    @property
    def started(self) -> bool:
        return self._anchor_ns is not None

    @property
    def drift_ppm(self) -> float:
        """How much faster (+) the card counts than its nominal rate."""
        return -self._rate_error * 1e6

    def time_of(self, sample: int) -> int:
        """Capture time of a sample in ns of CLOCK_MONOTONIC; before the first observation: 0."""
        if self._anchor_ns is None:
            return 0
        offset = (sample - self._anchor_sample) * self._period * (1.0 + self._slope)
        return self._origin_ns + round(self._anchor_ns + offset)

    def missing(self, sample: int, stamp_ns: int) -> int:
        """Samples that lack (+) or are too many (-) before `sample` if captured at `stamp_ns`; 0 within jitter."""
        if self._anchor_ns is None:
            return 0
        deviation = stamp_ns - self.time_of(sample)
        if abs(deviation) < _JUMP_NS:
            return 0
        return round(deviation / self._period)

    def observe(self, sample: int, stamp_ns: int) -> None:
        """Learn that `sample` was captured at `stamp_ns`."""
        if self._anchor_ns is None:
            self._origin_ns = stamp_ns
            self._anchor_sample, self._anchor_ns = sample, 0.0
            return
        elapsed_s = (sample - self._anchor_sample) / self.sample_rate
        if elapsed_s <= 0:
            return
        now = self._anchor_ns + (sample - self._anchor_sample) * self._period * (1.0 + self._slope)
        deviation = (stamp_ns - self._origin_ns) - now
        self._anchor_sample, self._anchor_ns = sample, now
        self.deviation_ns += (deviation - self.deviation_ns) * min(1.0, elapsed_s)
        deviation_s = deviation / NS
        self._rate_error = _clamp(self._rate_error + _INTEGRAL * deviation_s * elapsed_s)
        self._slope = _clamp(self._rate_error + _PROPORTIONAL * deviation_s)


def _clamp(value: float) -> float:
    return max(-MAX_SLEW, min(MAX_SLEW, value))
