"""PCM as float32 arrays at a rate of one's own, on the line of its times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msrecd.flow.units import AudioFormat
from msrecd.libav.common import layout_of
from msrecd.libav.encoders import _sound
from msrecd.libav.resampler import TimeResampler

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class FloatResampler:
    """Interleaved PCM in, float32 arrays (channels, frames) out; frame n lies n / sample_rate after the first one.

    The source's clock may be off by some hundred ppm: the resampler follows the times that it is told.
    """

    def __init__(self, source: AudioFormat, sample_rate: int) -> None:
        """
        Raises:
            LibavError: libav cannot resample between these rates.
        """
        self._source = source
        self._layout = layout_of(source.channels)
        self._resampler = TimeResampler(source, self._layout, "fltp", sample_rate)

    def push(self, pcm: bytes, at_ns: int) -> list[NDArray[np.float32]]:
        """What is ready once PCM that begins `at_ns` after the first sample of all has come."""
        return [_array(frame) for frame in self._resampler.push(_sound(self._source, self._layout, pcm), at_ns)]

    def flush(self) -> list[NDArray[np.float32]]:
        """What the filter still holds; it takes no more."""
        return [_array(frame) for frame in self._resampler.flush()]


def _array(frame: Any) -> NDArray[np.float32]:
    array: NDArray[np.float32] = frame.to_ndarray()
    return array
