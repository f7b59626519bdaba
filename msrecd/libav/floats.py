"""PCM as float32 arrays at a rate of one's own, on the line of its times; and fixed filters on it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av.error
from av.filter.graph import Graph

from msrecd.flow.units import AudioFormat
from msrecd.libav.common import layout_of, plain
from msrecd.libav.encoders import _sound
from msrecd.libav.resampler import TimeResampler
from msrecd.libav.values import LibavError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class FloatResampler:
    """Interleaved PCM in, libav frames of float32 out; sample n lies n / sample_rate after the first one.

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

    def push(self, pcm: bytes, at_ns: int) -> list[Any]:
        """What is ready once PCM that begins `at_ns` after the first sample of all has come."""
        return list(self._resampler.push(_sound(self._source, self._layout, pcm), at_ns))

    def flush(self) -> list[Any]:
        """What the filter still holds; it takes no more."""
        return list(self._resampler.flush())


def float_array(frame: Any) -> NDArray[np.float32]:
    """A frame of a FloatResampler as (channels, frames)."""
    array: NDArray[np.float32] = frame.to_ndarray()
    return array


@dataclass(frozen=True, slots=True)
class FixedFilters:
    """Arithmetic that does not change.

    mix: for each channel that comes out, the part of each one that goes in.
    filters: of second order, one behind the other: (b0, b1, b2, a1, a2) with a0 = 1; the same for all channels.
    """

    mix: tuple[tuple[float, ...], ...]
    filters: tuple[tuple[float, float, float, float, float], ...]


class FilteredPcm:
    """Frames of a FloatResampler in, arrays of 16 bits (channels, frames) out, sample for sample, in one go."""

    def __init__(self, what: FixedFilters, sample_rate: int) -> None:
        """
        Raises:
            LibavError: this libav cannot do it.
        """
        self.channels = len(what.mix)
        before = len(what.mix[0])
        steps = [
            ("biquad", f"b0={b0!r}:b1={b1!r}:b2={b2!r}:a0=1:a1={a1!r}:a2={a2!r}:precision=f64")
            for b0, b1, b2, a1, a2 in what.filters
        ]
        if what.mix != _unity(before):
            rows = [
                f"c{row}=" + "+".join(f"{part!r}*c{column}" for column, part in enumerate(parts))
                for row, parts in enumerate(what.mix)
            ]
            pan = ("pan", "|".join([layout_of(self.channels), *rows]).replace("+-", "-"))
            steps.insert(0 if self.channels <= before else len(steps), pan)
        try:
            self._graph = Graph()
            if hasattr(self._graph, "threads"):  # not in PyAV 14
                self._graph.threads = 1  # else it wakes one for each channel
            self._buffer = self._graph.add_abuffer(
                sample_rate=sample_rate, format="fltp", layout=layout_of(before), time_base=Fraction(1, sample_rate)
            )
            last = self._buffer
            for name, arguments in [*steps, ("aformat", "sample_fmts=s16"), ("abuffersink", None)]:
                filter = self._graph.add(name, arguments)
                last.link_to(filter)
                last = filter
            self._sink = last
            self._graph.configure()
        except (av.error.FFmpegError, ValueError) as exc:
            raise LibavError(f"no filters for sound: {plain(exc)}") from exc

    def push(self, frame: Any) -> list[NDArray[np.int16]]:
        """What comes out for a frame.

        Raises:
            LibavError: libav fails.
        """
        pieces: list[NDArray[np.int16]] = []
        try:
            self._buffer.push(frame)
            while True:
                part: Any = self._sink.pull()
                pieces.append(part.to_ndarray().reshape(-1, self.channels).T)
        except (av.error.BlockingIOError, av.error.EOFError):
            return pieces
        except (av.error.FFmpegError, ValueError) as exc:
            raise LibavError(f"filtering sound failed: {plain(exc)}") from exc


def _unity(channels: int) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(row == column) for column in range(channels)) for row in range(channels))


__all__ = ["FilteredPcm", "FixedFilters", "FloatResampler", "float_array"]
