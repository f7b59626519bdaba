"""Sound: how far the energy in a band stands above what is usual there. Arithmetic, with a state; one thread at a time.

The band is looked at in eight parts, each with a running background. What all parts do together and slowly (a gust of
wind, rain that grows) moves the background; what one of them does, or all of them at once, stands above it. A look is
the median of four short spectra: a rain drop that clicks is shorter than that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from msrecd.triggers.decide import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NS = 1_000_000_000
_LOOK_S = 0.045  # length of a look, at most
_SPECTRA = 4  # of a look
_PARTS = 8
_SETTLING_S = 1.0
_LEARN_S = 10.0  # of the background of a part
_LEARN_LOUD_S = 60.0  # while something stands above it
_GUST = 72.0  # a gust raises the background by so many dB a second, divided by the threshold
_CALM = 40.0  # and it falls by so many
_SILENCE = 1e-12  # power of digital silence: -120 dBFS


def holds_band(band: tuple[float, float], rate: int) -> bool:
    """Whether sound of this sample rate has anything of a band."""
    return band[0] < rate / 2


class SoundDetector:
    """Gives the dB above the background for each look of some 40 ms."""

    def __init__(self, *, band: tuple[float, float], threshold_db: float) -> None:
        """
        Args:
            band: from and to in Hz; what lies above half the sample rate is not there, and scores nothing.
            threshold_db: what the samples are compared with.
        """
        self._band = band
        self._threshold_db = threshold_db
        self._rate = 0
        self._rest: NDArray[np.float32] = np.zeros((0, 1), np.float32)

    def _begin(self, rate: int, channels: int) -> None:
        self._rate = rate
        self._size = max(128, 2 ** int(np.log2(rate * _LOOK_S)))
        self._look_s = self._size / rate
        length = self._size // _SPECTRA
        self._window = np.hanning(length).astype(np.float32)[None, :, None]
        low, high = (round(edge * length / rate) for edge in self._band)
        top = length // 2
        low = min(max(1, low), top - 1)
        high = min(max(low + 1, high), top)
        edges = np.unique(np.round(np.linspace(low, high, _PARTS + 1)).astype(int))
        self._edges = edges[:-1]
        self._low, self._high = low, high
        self._rest = np.zeros((0, channels), np.float32)
        self._settling: list[NDArray[np.float64]] = []
        self._background: NDArray[np.float64] | None = None
        self._gust = 0.0

    def listen(self, sound: NDArray[np.int16] | NDArray[np.int32], rate: int, at_ns: int) -> Iterator[Sample]:
        """The looks that a block of sound completes.

        Args:
            sound: shape (samples, channels), int16 or int32.
            rate: samples a second of each channel.
            at_ns: of the first sample, CLOCK_MONOTONIC.
        """
        if rate != self._rate or sound.shape[1] != self._rest.shape[1]:
            self._begin(rate, sound.shape[1])
        scale = 1 / 32768 if sound.dtype == np.int16 else 1 / 2147483648
        waiting = len(self._rest)
        waves = np.concatenate((self._rest, sound.astype(np.float32) * np.float32(scale)))
        done = 0
        while done + self._size <= len(waves):
            look = waves[done : done + self._size].reshape(_SPECTRA, -1, waves.shape[1])
            spectra = np.fft.rfft(look * self._window, axis=1)[:, self._low : self._high]
            done += self._size
            power = (spectra.real**2 + spectra.imag**2).mean(axis=2)
            look_at_ns = at_ns + (done - waiting) * _NS // rate
            score = self._score(power) if holds_band(self._band, rate) else 0.0
            yield Sample(look_at_ns, round(score, 2), self._threshold_db)
        self._rest = waves[done:]

    def _score(self, power: NDArray[np.float64]) -> float:
        """power: of the band, shape (spectra, frequencies)."""
        parts = _middle(np.add.reduceat(power, self._edges - self._low, axis=1))
        whole = _middle(power.sum(axis=1))
        levels = 10 * np.log10(np.append(parts, whole) / self._size**2 + _SILENCE)
        if self._background is None:
            self._settling.append(levels)
            if len(self._settling) * self._look_s >= _SETTLING_S:
                self._background = np.median(np.array(self._settling), axis=0)
                self._settling = []
            return 0.0
        above = levels - self._background
        self._follow_gust(float(_middle(above[:-1])))
        score = float(above[-1]) - self._gust
        rate = self._look_s / (_LEARN_LOUD_S if score >= self._threshold_db / 2 else _LEARN_S)
        self._background += rate * np.clip(above, -6.0, 6.0)
        self._gust -= rate * self._gust
        return max(0.0, score)

    def _follow_gust(self, common: float) -> None:
        most = _GUST / max(1.0, self._threshold_db) * self._look_s
        self._gust += min(max(common - self._gust, -_CALM * self._look_s), most)


def _middle(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The median along the first axis; np.median takes ten times as long for so few."""
    half = len(values) // 2
    ranked = np.sort(values, axis=0)
    return np.asarray(ranked[half] if len(values) % 2 else (ranked[half - 1] + ranked[half]) / 2)
