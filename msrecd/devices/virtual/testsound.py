"""The sound of a virtual microphone, s16: a beep every second, a tone or silence; and the clock its samples fall on.

Everything is cut out of tables made once: a block costs one or two copies, whatever the sample rate.
"""

from __future__ import annotations

import math
import sys
from array import array
from enum import StrEnum

from msrecd.clock import MS, NS

BURST_NS = 100 * MS
BEEP_HZ = 1000
TONE_HZ = 440
PEAK = 10 ** (-6 / 20) * 32767  # -6 dBFS

_PPB = 1_000_000_000


class Signal(StrEnum):
    """What a virtual microphone hears."""

    BEEP = "beep"
    TONE = "tone"
    SILENCE = "silence"


class SampleTimes:
    """When each sample of a card is captured whose crystal is `ppm` too fast (+) or too slow (-); exact integers.

    Sample 0 lies at `origin_ns`; every instance is one constant speed.
    """

    def __init__(self, *, sample_rate: int, origin_ns: int, ppm: float = 0.0, first_sample: int = 0) -> None:
        self._origin_ns = origin_ns
        self._first = first_sample
        self._numerator = sample_rate * (_PPB + round(ppm * 1000))  # samples in 10^9 true seconds

    def time_of(self, sample: int) -> int:
        """Nanoseconds of CLOCK_MONOTONIC, rounded down."""
        return self._origin_ns + (sample - self._first) * NS * _PPB // self._numerator

    def sample_at_or_after(self, time_ns: int) -> int:
        """The first sample captured at or after `time_ns`."""
        return self._first - ((self._origin_ns - time_ns) * self._numerator // (NS * _PPB))

    def change_speed(self, *, sample_rate: int, ppm: float, sample: int) -> SampleTimes:
        """The times from `sample` on, at another speed."""
        return SampleTimes(sample_rate=sample_rate, origin_ns=self.time_of(sample), ppm=ppm, first_sample=sample)


class TestSound:
    """Makes interleaved little-endian s16 blocks for one signal, rate and channel count; all channels are equal."""

    __test__ = False  # not a test case, whatever pytest makes of its name

    def __init__(self, signal: Signal, *, sample_rate: int, channels: int, block_samples: int) -> None:
        self._signal = signal
        self._frame_bytes = 2 * channels
        self._silence = bytes(block_samples * self._frame_bytes)
        self._period = sample_rate // math.gcd(sample_rate, TONE_HZ)  # after so many samples the tone repeats exactly
        self._table = b""
        if signal is Signal.TONE:
            self._table = _sine(TONE_HZ, sample_rate, channels, self._period + block_samples)
        elif signal is Signal.BEEP:
            longest = BURST_NS * sample_rate // NS
            self._table = _sine(BEEP_HZ, sample_rate, channels, longest + longest // 100 + 4)  # crystals up to 1 % off

    def block(self, first: int, samples: int, times: SampleTimes) -> bytes:
        """Samples `first` to `first + samples`; `samples` is at most the `block_samples` given."""
        match self._signal:
            case Signal.TONE:
                return self._cut(first % self._period, samples)
            case Signal.BEEP:
                return self._beep(first, samples, times)
            case _:
                return self._silence[: samples * self._frame_bytes]

    def _beep(self, first: int, samples: int, times: SampleTimes) -> bytes:
        second_ns = times.time_of(first) // NS * NS
        parts: list[bytes] = []
        done = first
        while done < first + samples:
            begin = times.sample_at_or_after(second_ns)
            end = times.sample_at_or_after(second_ns + BURST_NS)
            quiet = min(begin, first + samples) - done
            if quiet > 0:
                parts.append(bytes(quiet * self._frame_bytes))
                done += quiet
            loud = min(end, first + samples) - done
            if loud > 0:
                parts.append(self._cut(done - begin, loud))
                done += loud
            second_ns += NS
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _cut(self, start: int, samples: int) -> bytes:
        return self._table[start * self._frame_bytes : (start + samples) * self._frame_bytes]


def _sine(frequency: int, sample_rate: int, channels: int, samples: int) -> bytes:
    step = 2 * math.pi * frequency / sample_rate
    table = array("h")
    for index in range(samples):
        table.extend([round(PEAK * math.sin(step * index))] * channels)
    if sys.byteorder == "big":
        table.byteswap()
    return table.tobytes()
