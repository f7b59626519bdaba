"""Black in real time: what a disabled or muted track of frames records.

https://www.w3.org/TR/mediacapture-streams/#track-muted: "a muted or disabled MediaStreamTrack renders either silence,
black frames, or a zero-information-content equivalent".
"""

from __future__ import annotations

import threading
from dataclasses import replace

from msrecd.clock import NS, SYSTEM_CLOCK, Clock
from msrecd.flow.encoded import EncodingRequest, StreamParameters
from msrecd.flow.feed import Feed
from msrecd.flow.source import Source, SourceThread
from msrecd.flow.units import Packet, VideoFormat, VideoFrame
from msrecd.vocabulary.nal import PARAMETER_SETS, is_parameter_set, join, length_size, parameter_sets, split

_DEFAULT_FRAME_RATE = 5.0  # for tracks without a rate of their own
_LONGEST_BACKLOG_NS = 5 * NS


class BlankSource(Source):
    """Black frames on the monotonic clock, while somebody looks.

    They begin at `since_ns`, which may have passed: opening an encoder takes a while, and the hole would be seen.
    """

    def __init__(self, format: VideoFormat, *, since_ns: int = 0, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(label="blank")
        self.kind = "video"
        self._format = format
        self._clock = clock
        self._since_ns = since_ns
        self._feed: Feed[VideoFrame] = Feed(self._demand)
        self._thread: SourceThread | None = None

    @property
    def format(self) -> VideoFormat:
        return self._format

    def raw(self) -> Feed[VideoFrame]:
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
        pixels = format.width * format.height
        black = bytes([16]) * pixels + bytes([128]) * (2 * ((format.width + 1) // 2) * ((format.height + 1) // 2))
        period = round(NS / (format.frame_rate or _DEFAULT_FRAME_RATE))
        at_ns = max(self._since_ns, self._clock.monotonic_ns() - _LONGEST_BACKLOG_NS)
        while not self._clock.wait_until(at_ns, stopping):
            self._feed.put(VideoFrame(pts_ns=at_ns, format=format, data=black))
            at_ns += period


def blank_for(
    parameters: StreamParameters, request: EncodingRequest, *, since_ns: int = 0, clock: Clock = SYSTEM_CLOCK
) -> tuple[BlankSource, EncodingRequest]:
    """A black source, and the request by which it is encoded like the stream it stands in for."""
    width, height = parameters.width or request.width, parameters.height or request.height
    rate = request.frame_rate or parameters.frame_rate or _DEFAULT_FRAME_RATE
    black = VideoFormat(width=width, height=height, frame_rate=rate)
    return BlankSource(black, since_ns=since_ns, clock=clock), replace(
        request, codec=parameters.codec, width=width, height=height, frame_rate=rate
    )


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
        return replace(packet, data=join(units, self._to), units=())
