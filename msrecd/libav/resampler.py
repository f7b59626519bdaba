"""Sound that follows its times."""

from __future__ import annotations

from fractions import Fraction
from typing import cast

import av
import av.error
from av.audio.frame import AudioFrame as _AVAudioFrame
from av.filter.graph import Graph

from msrecd.flow.units import AudioFormat
from msrecd.libav.common import NS, NS_BASE, plain
from msrecd.libav.values import LibavError


class TimeResampler:
    """Resamples PCM so that it follows its times: libav's `aresample` with soft compensation only.

    The rate is changed by what is lacking now (1 ms: 1000 ppm), at most by 1000 ppm (1.7 cents, which no ear notices):
    of a steady error of the source's clock of 200 ppm, 0.2 ms remain. Samples are never inserted or dropped.
    """

    # Without interpolation between the filter's 1024 phases: a third less CPU, and noise far below the codec's.
    _OPTIONS = "min_comp=0.000005:max_soft_comp=0.001:comp_duration=4:min_hard_comp=1000000:linear_interp=0"

    def __init__(self, source: AudioFormat, layout: str, sample_format: str, sample_rate: int) -> None:
        self._source_rate, self._rate = source.sample_rate, sample_rate
        self._time_base = Fraction(1, sample_rate)
        self._samples = 0  # given out
        self._latency_ns: float | None = None
        self.behind_ns = 0.0
        try:
            self._graph = Graph()
            buffer = self._graph.add_abuffer(
                sample_rate=source.sample_rate,
                format=source.sample_format,
                layout=layout,
                time_base=NS_BASE,
            )
            filter = self._graph.add(
                "aresample", f"{sample_rate}:osf={sample_format}:flags=+res:async=1:{self._OPTIONS}"
            )
            sink = self._graph.add("abuffersink")
            buffer.link_to(filter)
            filter.link_to(sink)
            self._graph.configure()
        except (av.error.FFmpegError, ValueError) as exc:
            raise LibavError(f"cannot resample {source.sample_rate} Hz: {plain(exc)}") from exc
        self._buffer, self._sink = buffer, sink

    def push(self, frame: _AVAudioFrame, at_ns: int) -> list[_AVAudioFrame]:
        """The sound that is ready, on a line of samples at the new rate without holes."""
        frame.pts = at_ns
        frame.time_base = NS_BASE
        frames = self._pull(frame)
        if frames:
            end_ns = at_ns + frame.samples * NS / self._source_rate
            late_ns = end_ns - self._samples * NS / self._rate
            if self._latency_ns is None:
                self._latency_ns = late_ns  # what the filter keeps
            self.behind_ns = late_ns - self._latency_ns
        return frames

    def flush(self) -> list[_AVAudioFrame]:
        return self._pull(None)

    def _pull(self, frame: _AVAudioFrame | None) -> list[_AVAudioFrame]:
        frames: list[_AVAudioFrame] = []
        try:
            self._buffer.push(frame)
            while True:
                part = cast(_AVAudioFrame, self._sink.pull())
                part.pts = self._samples
                part.time_base = self._time_base
                self._samples += part.samples
                frames.append(part)
        except (av.error.BlockingIOError, av.error.EOFError):
            return frames
        except (av.error.FFmpegError, ValueError) as exc:
            raise LibavError(f"resampling failed: {plain(exc)}") from exc
