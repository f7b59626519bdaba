"""Black and silence in real time: what a disabled or muted track records.

https://www.w3.org/TR/mediacapture-streams/#track-muted: "a muted or disabled MediaStreamTrack renders either silence,
black frames, or a zero-information-content equivalent".
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

from msrecd.clock import MS, NS, SYSTEM_CLOCK, Clock
from msrecd.codecs.strings import nal_units
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
    """Makes packets of one H.264 encoder fit into a stream that is described by another's parameters.

    The parameter sets go in-band before each key frame, and the packets take the form (length-prefixed or Annex B)
    that the stream has. Other codecs, and encoders with equal parameters, need nothing.
    """

    def __init__(self, own: StreamParameters, stream: StreamParameters) -> None:
        self._needed = own.codec == "h264" and own.extradata != stream.extradata
        self._prefixed = stream.extradata[:1] == b"\x01"
        self._sets = parameter_sets(own.extradata)
        self._own_prefixed = own.extradata[:1] == b"\x01"

    def adapt(self, packet: Packet) -> Packet:
        if not self._needed:
            return packet
        data = bytes(packet.data)
        units = _prefixed_units(data) if self._own_prefixed else nal_units(data)
        if packet.is_keyframe:
            units = self._sets + [unit for unit in units if unit and unit[0] & 0x1F not in (7, 8)]
        if self._prefixed:
            data = b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)
        else:
            data = b"".join(b"\0\0\0\1" + unit for unit in units)
        return Packet(
            pts_ns=packet.pts_ns,
            dts_ns=packet.dts_ns,
            duration_ns=packet.duration_ns,
            is_keyframe=packet.is_keyframe,
            data=data,
            discontinuity=packet.discontinuity,
        )


def parameter_sets(extradata: bytes) -> list[bytes]:
    """SPS and PPS out of avcC or Annex B extradata."""
    if extradata[:1] != b"\x01":
        return [unit for unit in nal_units(extradata) if unit and unit[0] & 0x1F in (7, 8)]
    sets, at = [], 6
    for count in (extradata[5] & 31, None):
        if count is None:
            count = extradata[at]
            at += 1
        for _ in range(count):
            size = int.from_bytes(extradata[at : at + 2], "big")
            sets.append(extradata[at + 2 : at + 2 + size])
            at += 2 + size
    return sets


def _prefixed_units(data: bytes) -> list[bytes]:
    units, at = [], 0
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        units.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return units
