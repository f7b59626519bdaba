"""Black and silence in real time: what a disabled or muted track records.

https://www.w3.org/TR/mediacapture-streams/#track-muted: "a muted or disabled MediaStreamTrack renders either silence,
black frames, or a zero-information-content equivalent".
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

from msrecd.clock import MS, NS, SYSTEM_CLOCK, Clock
from msrecd.codecs.nal import PARAMETER_SETS, is_parameter_set, join, length_size, parameter_sets, split
from msrecd.flow.encoded import EncodingRequest, StreamParameters
from msrecd.flow.feed import Feed
from msrecd.flow.source import Source, SourceThread
from msrecd.flow.units import AudioBlock, AudioFormat, Packet, VideoFormat, VideoFrame

_DEFAULT_FRAME_RATE = 5.0  # for tracks without a rate of their own
_BLOCK_NS = 20 * MS
_LONGEST_BACKLOG_NS = 5 * NS


class BlankSource(Source):
    """Black pictures or silent blocks on the monotonic clock, while somebody listens.

    They begin at `since_ns`, which may have passed: opening an encoder takes a while, and the hole would be seen.
    """

    def __init__(self, format: VideoFormat | AudioFormat, *, since_ns: int = 0, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(label="blank")
        self.kind = "video" if isinstance(format, VideoFormat) else "audio"
        self._format = format
        self._clock = clock
        self._since_ns = since_ns
        self._feed: Feed[Any] = Feed(self._demand)
        self._thread: SourceThread | None = None

    @property
    def format(self) -> VideoFormat | AudioFormat:
        return self._format

    def raw(self) -> Feed[Any]:
        return self._feed

    def close(self) -> None:
        self._demand(False)
        self._feed.end()

    def _demand(self, wanted: bool) -> None:
        if wanted:
            self._thread = SourceThread("blank", self._run, self._feed.end)
            self._thread.start()
        elif self._thread is not None:
            self._thread.stopping.set()
            self._thread = None

    def _run(self, stopping: threading.Event) -> None:
        format = self._format
        begin = max(self._since_ns, self._clock.monotonic_ns() - _LONGEST_BACKLOG_NS)
        if isinstance(format, VideoFormat):
            pixels = format.width * format.height
            picture = bytes([16]) * pixels + bytes([128]) * (2 * ((format.width + 1) // 2) * ((format.height + 1) // 2))
            period = round(NS / (format.frame_rate or _DEFAULT_FRAME_RATE))
            now = begin
            while not self._clock.wait_until(now, stopping):
                self._feed.put(VideoFrame(pts_ns=now, format=format, data=picture))
                now += period
        else:
            samples = format.sample_rate * _BLOCK_NS // NS
            silence = bytes(samples * format.frame_bytes)
            count = 0
            while True:
                now = begin + count * samples * NS // format.sample_rate
                self._feed.put(AudioBlock(pts_ns=now, format=format, samples=samples, data=silence))
                count += 1
                if self._clock.wait_until(now + _BLOCK_NS, stopping):
                    return


def blank_for(
    parameters: StreamParameters,
    request: EncodingRequest,
    format: VideoFormat | AudioFormat,
    *,
    since_ns: int = 0,
    clock: Clock = SYSTEM_CLOCK,
) -> tuple[BlankSource, EncodingRequest]:
    """A blank source, and the request by which it is encoded like the stream it stands in for."""
    if parameters.kind == "video":
        width, height = parameters.width or request.width, parameters.height or request.height
        rate = request.frame_rate or parameters.frame_rate or _DEFAULT_FRAME_RATE
        picture = VideoFormat(width=width, height=height, frame_rate=rate)
        return BlankSource(picture, since_ns=since_ns, clock=clock), replace(
            request, codec=parameters.codec, width=width, height=height, frame_rate=rate
        )
    if not isinstance(format, AudioFormat):
        format = AudioFormat(sample_rate=parameters.sample_rate, channels=parameters.channels)
    return BlankSource(format, since_ns=since_ns, clock=clock), replace(request, codec=parameters.codec)


class Adapter:
    """Makes packets of one H.264 or H.265 encoder fit into a stream that is described by another's parameters.

    The parameter sets go in-band before each key frame, and the packets take the form (length-prefixed or Annex B)
    that the stream has. Other codecs carry what they need in their key frames; encoders with equal parameters need
    nothing.
    """

    def __init__(self, own: StreamParameters, stream: StreamParameters, *, always: bool = False) -> None:
        """
        Args:
            own: of the encoder.
            stream: as the container describes it.
            always: also when the parameters are equal, for others were in-band before.
        """
        self._codec = own.codec
        self._needed = own.codec in PARAMETER_SETS and (always or own.extradata != stream.extradata)
        self._sets = parameter_sets(own.extradata, own.codec) if self._needed else []
        self._from, self._to = length_size(own.extradata, own.codec), length_size(stream.extradata, own.codec)

    def adapt(self, packet: Packet) -> Packet:
        if not self._needed:
            return packet
        units = split(bytes(packet.data), self._from)
        if packet.is_keyframe:
            units = self._sets + [unit for unit in units if unit and not is_parameter_set(unit, self._codec)]
        return replace(packet, data=join(units, self._to))
