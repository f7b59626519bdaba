"""When a sample was really captured: a sound card's sample counter tied to CLOCK_MONOTONIC. Pure.

A card's crystal is off by up to some hundred ppm and each block's time stamp jitters. A loop of second order
follows the stamps: the time of a sample number is continuous and rises smoothly (its slope never leaves ± MAX_SLEW),
and converges on the stamps. Media times made from it neither jump nor drift.
"""

from __future__ import annotations

from collections import deque

from msrecd.flow.median import median

NS = 1_000_000_000

MAX_SLEW = 1000e-6  # of the nominal period; far more than any card's error, far less than an ear notices
_PROPORTIONAL = 1 / 4.0  # a deviation is worked off with a time constant of four seconds
_INTEGRAL = _PROPORTIONAL**2 / 4  # critically damped
_LARGEST = MAX_SLEW / _PROPORTIONAL  # seconds; a larger deviation is worked off no faster and teaches nothing


class SampleClock:
    """Maps sample numbers to ns; `observe` or `correct` with what the stamps say, in order."""

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._period = NS / sample_rate
        self._anchor_sample = 0
        self._anchor_ns: float | None = None
        self._origin_ns = 0
        self._rate_error = 0.0
        self._slope = 0.0
        self._drift = DriftMeter(sample_rate)
        self.deviation_ns = 0.0  # how much later than the clock says the stamps lie, averaged over a second

    @property
    def started(self) -> bool:
        return self._anchor_ns is not None

    @property
    def origin_ns(self) -> int:
        """The stamp of the first sample observed."""
        return self._origin_ns

    @property
    def drift_ppm(self) -> float:
        """How much faster (+) the card counts than its nominal rate: a robust fit over the last minutes."""
        return self._drift.early_ppm if self._drift.ppm is None else self._drift.ppm

    def time_of(self, sample: int) -> int:
        """Capture time of a sample in ns of CLOCK_MONOTONIC; before the first observation: 0."""
        if self._anchor_ns is None:
            return 0
        offset = (sample - self._anchor_sample) * self._period * (1.0 + self._slope)
        return self._origin_ns + round(self._anchor_ns + offset)

    def observe(self, sample: int, stamp_ns: int) -> None:
        """Learn that `sample` was captured at `stamp_ns`."""
        if self._anchor_ns is None:
            self._origin_ns = stamp_ns
            self._anchor_sample, self._anchor_ns = sample, 0.0
            return
        self.correct(sample, stamp_ns - self.time_of(sample))

    def correct(self, sample: int, deviation_ns: float) -> None:
        """Learn that the stamps around `sample` lie so much later than this clock says."""
        elapsed_s = (sample - self._anchor_sample) / self.sample_rate
        if self._anchor_ns is None or elapsed_s <= 0:
            return
        now = self._anchor_ns + (sample - self._anchor_sample) * self._period * (1.0 + self._slope)
        self._anchor_sample, self._anchor_ns = sample, now
        self._drift.observe(sample, now + deviation_ns)
        self.deviation_ns += (deviation_ns - self.deviation_ns) * min(1.0, elapsed_s)
        deviation_s = _clamp(deviation_ns / NS, _LARGEST)
        self._rate_error = _clamp(self._rate_error + _INTEGRAL * deviation_s * min(elapsed_s, 1.0), MAX_SLEW)
        self._slope = _clamp(self._rate_error + _PROPORTIONAL * deviation_s, MAX_SLEW)


class DriftMeter:
    """The rate of a card out of (sample, time): medians over four seconds, and the median slope of distant pairs.

    Neither a late stamp nor a row of them moves it. It looks back five minutes, so it follows the temperature.
    """

    _WINDOW_S = 4
    _WINDOWS = 75
    _LEAST = 6
    _EARLIEST_S = 8

    def __init__(self, sample_rate: int) -> None:
        self._period = NS / sample_rate
        self._window_samples = self._WINDOW_S * sample_rate
        self._begin: int | None = None
        self._errors: list[float] = []
        self._points: deque[tuple[int, float]] = deque(maxlen=self._WINDOWS)
        self.ppm: float | None = None  # None until half a minute is known
        self._zero: tuple[int, float] | None = None
        self._seen_samples = 0.0
        self._sums = [0.0] * 5  # of 1, x, y, xx, xy, for the first half minute

    @property
    def early_ppm(self) -> float:
        """A straight line through all that was observed so far; 0 before that is worth anything."""
        count, x, y, xx, xy = self._sums
        spread = count * xx - x * x
        if count < 2 or spread <= 0 or self._seen_samples < self._EARLIEST_S * self._window_samples / self._WINDOW_S:
            return 0.0
        return -(count * xy - x * y) / spread / self._period * 1e6

    def observe(self, sample: int, time_ns: float) -> None:
        """`sample` was captured at `time_ns` of any line that is continuous."""
        if self.ppm is None:
            self._add(sample, time_ns - sample * self._period)
        if self._begin is None:
            self._begin = sample
        elif sample - self._begin >= self._window_samples:
            self._points.append(((self._begin + sample) // 2, median(self._errors)))
            self._errors.clear()
            self._begin = sample
            if len(self._points) >= self._LEAST:
                self.ppm = self._fit()
        self._errors.append(time_ns - sample * self._period)

    def _add(self, sample: int, error_ns: float) -> None:
        if self._zero is None:
            self._zero = (sample, error_ns)
        at, error_ns = float(sample - self._zero[0]), error_ns - self._zero[1]
        self._seen_samples = at
        for index, term in enumerate((1.0, at, error_ns, at * at, at * error_ns)):
            self._sums[index] += term

    def _fit(self) -> float:
        points = list(self._points)
        half = len(points) // 2
        pairs = zip(points, points[half:], strict=False)
        return -median((late[1] - early[1]) / ((late[0] - early[0]) * self._period) for early, late in pairs) * 1e6


def _clamp(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))
