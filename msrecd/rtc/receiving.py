"""Tracks that a peer sends: frames as they came, for recorders that can use them, and decoded while somebody wants it.

Times: a peer's RTP clocks are placed on CLOCK_MONOTONIC by arrival, and beside each other by its sender reports, as
those of network cameras are.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from msrecd import libav
from msrecd.clock import MS, NS, SYSTEM_CLOCK
from msrecd.codecs import parameters
from msrecd.codecs.blank import Adapter
from msrecd.codecs.opus import packet_samples
from msrecd.codecs.video import VideoEncoding
from msrecd.flow.encoded import EncodedFeed, EncodingRequest, StreamParameters
from msrecd.flow.feed import Feed
from msrecd.flow.queue import UnitQueue
from msrecd.flow.source import Source, SourceThread
from msrecd.flow.units import AudioBlock, AudioFormat, Kind, Packet, VideoFormat
from msrecd.inputs.decoding import ConfinedAudioDecoder, ConfinedVideoDecoder
from msrecd.inputs.processes import ReaderError
from msrecd.libav import LibavError, StreamInfo
from msrecd.rtc.jitter import Frame, Reassembly
from msrecd.rtc.packetize import vp8_size
from msrecd.rtc.peertimes import PeerTimes
from msrecd.vocabulary.nal import is_parameter_set, nal_units

log = logging.getLogger(__name__)

SILENT_NS = 2 * NS  # a track is muted when nothing came for so long
_OPUS = AudioFormat(sample_rate=48_000, channels=2)
_CLOCK_RATE = {"video": 90_000, "audio": 48_000}
_UNKNOWN = VideoFormat(width=640, height=480)
_NO_SLICE = b"\0\0\0\1\x65\x88\x84\0"  # makes a key frame of parameter sets; a peer's own slices are not looked at here
_MOST_FAILURES = 5  # of processes that decode
_MOST_WAITING, _MOST_BYTES = 300, 16 << 20  # packets before the decoder


class ReceivedSource(Source):
    """One received track. Frames come in the thread of WebRTC; what is decoded is decoded in a thread of its own."""

    def __init__(self, kind: Kind, request_key_frame: Callable[[], None]) -> None:
        super().__init__(label=f"remote {kind}")
        self.kind = kind
        self.muted = True  # until something has come
        self.codec: str | None = None
        self._format: VideoFormat | AudioFormat = _UNKNOWN if kind == "video" else _OPUS
        self._parameters: StreamParameters | None = None
        self.request_key_frame = request_key_frame
        self.passing = self._new_passing()
        self._scaled: _Scaled | None = None
        self._decoding: _Decoding | None = None
        self._lock = threading.Lock()
        self.raw_feed: Feed[Any] = Feed(self._demand)
        self._is_over = False
        self.on_format: Callable[[], None] = lambda: None

    def _new_passing(self) -> EncodedFeed:
        return EncodedFeed(
            on_demand=self._passing_demand,
            request_key_frame=self._ask_key_frame if self.kind == "video" else None,
        )

    def _ask_key_frame(self) -> None:
        scaled = self._scaled
        if scaled is not None:
            scaled.request_key_frame()
        else:
            self.request_key_frame()

    def _passing_demand(self, wanted: bool) -> None:
        if not wanted and self._scaled is not None:
            scaled, self._scaled = self._scaled, None
            scaled.close()
            self._renew()

    @property
    def holds_last_frame(self) -> bool:
        return False

    @property
    def is_used(self) -> bool:
        """Whether somebody takes what comes."""
        return self.passing.feed.has_sinks or self.raw_feed.has_sinks

    @property
    def format(self) -> VideoFormat | AudioFormat:
        return self._format

    def raw(self) -> Feed[Any]:
        return self.raw_feed

    def native_codec(self) -> str | None:
        return self.codec

    def encoded(self, request: EncodingRequest) -> EncodedFeed | None:
        if self.codec is None or request.codec != self.codec:
            return None
        format = self._format
        if isinstance(format, VideoFormat) and (request.width, request.height) not in (
            (0, 0),
            (format.width, format.height),
        ):
            return None
        return self.passing

    def close(self) -> None:
        """All tracks of it were stopped: what comes is not decoded any more, nor given to anybody."""
        self.finish(None, by_peer=False)

    # --- in the thread of WebRTC -------------------------------------------------------------------------------------

    def put(self, codec: str, frame: Frame, pts_ns: int, duration_ns: int) -> None:
        if self._is_over:
            return
        is_new = codec != self.codec or self._parameters is None or frame.is_keyframe
        if is_new and not self._describe(codec, frame.data):
            return
        packet = Packet(
            pts_ns=pts_ns,
            dts_ns=pts_ns,
            duration_ns=duration_ns,
            is_keyframe=frame.is_keyframe,
            data=frame.data,
            discontinuity=frame.lost_before > 0,
        )
        self.stats.delivered += 1
        if self._scaled is None:
            self.passing.feed.put(packet)
        decoding = self._decoding
        if decoding is not None:
            decoding.put(packet)
        if self.muted:
            self.muted = False
            self.on_muted(False)

    def silent(self) -> None:
        """Nothing has come for a while."""
        if not self.muted and not self._is_over:
            self.muted = True
            self.on_muted(True)

    def lost(self, frames: int) -> None:
        self.stats.dropped += frames

    def _describe(self, codec: str, data: bytes) -> bool:
        """Learn what the stream is from a key frame; False: it cannot be used yet."""
        if self.kind == "audio":
            if self._parameters is None:
                self._parameters = opus_parameters()
                self.codec = codec
                if self._decoding is not None:  # begun before anything had come
                    self._decoding.describe(self._parameters)
                self.passing.set_parameters(self._parameters)
            return True
        known = video_parameters(codec, data, self._parameters)
        if known is None:
            return self._parameters is not None
        before, self._parameters, self.codec = self._parameters, known, codec
        if before is not None and (before.codec, before.width, before.height) == (codec, known.width, known.height):
            return True  # other parameter sets stand in the stream itself, where decoders look for them
        self._format = VideoFormat(width=known.width, height=known.height)
        if self._decoding is not None:
            self._decoding.describe(known)
        if before is None:
            self.passing.set_parameters(known)
        elif self._scaled is None and self.passing.feed.has_sinks:
            self._scaled = _Scaled(self, before)
        elif self._scaled is None:
            self._renew()
        self.on_format()
        return True

    def _renew(self) -> None:
        """Pass through what comes now; nobody uses what was before."""
        self.passing = self._new_passing()
        if self._parameters is not None:
            self.passing.set_parameters(self._parameters)

    def finish(self, error: BaseException | None, *, by_peer: bool = True) -> None:
        """Nothing follows. Idempotent, any thread."""
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
        decoding = self._decoding
        if self._scaled is None:  # else it ends behind what is under way
            self.passing.feed.end(error)
        if decoding is not None:
            decoding.end(error)  # it ends the feed behind what it still has
        else:
            self.raw_feed.end(error)
        if by_peer:
            self.on_ended(error)

    # --- decoding ----------------------------------------------------------------------------------------------------

    def _demand(self, wanted: bool) -> None:
        """In the thread that adds or removes."""
        with self._lock:
            if self._is_over:
                return
            if wanted:
                self._decoding = _Decoding(self)
                if self._parameters is not None:
                    self._decoding.describe(self._parameters)
            else:
                decoding, self._decoding = self._decoding, None
                if decoding is not None:
                    decoding.stop()
                return
        if self.kind == "video":
            self.request_key_frame()


class _Scaled:
    """Frames of another size than those with which a recording of the packets began, coded anew in the first size.

    A browser changes the size of what it sends with the bandwidth that it sees. Decision C13: scaled to the first size.
    It goes on when the first size comes back: what is coded anew cannot be left without losing what is under way.
    """

    def __init__(self, source: ReceivedSource, first: StreamParameters) -> None:
        self._source = source
        self._output = source.passing
        self._first = first
        self._adapter: Adapter | None = None
        request = EncodingRequest(
            kind="video", codec=first.codec, bit_rate=2_500_000, width=first.width, height=first.height
        )
        self._encoding = VideoEncoding(source.raw_feed, request, name="scaled", repeats=False)
        self._encoding.output.feed.add(self)
        # The first frame of the new size is the one that is being taken in: its decoder has to be there before it.
        source.raw_feed.add(self._encoding)
        self._encoding.start()

    def put(self, unit: Packet) -> None:
        if self._adapter is None:
            own = self._encoding.output.parameters
            if own is None:
                return
            self._adapter = Adapter(own, self._first, always=True)
        self._output.feed.put(self._adapter.adapt(unit))

    def end(self, error: BaseException | None) -> None:
        self._output.feed.end(error)

    def request_key_frame(self) -> None:
        self._encoding.output.request_key_frame(0)

    def close(self) -> None:
        self._encoding.output.feed.remove(self)
        self._encoding.close()


class _Decoding:
    """A thread that lets a confined process decode, while somebody wants raw units.

    A process that dies or hangs of a packet is started once more at the next key frame, some times.
    """

    def __init__(self, source: ReceivedSource) -> None:
        self._source = source
        self._queue: UnitQueue[Packet | StreamParameters] = UnitQueue(
            max_units=_MOST_WAITING,
            max_bytes=_MOST_BYTES,
            size=lambda unit: len(unit.data) if isinstance(unit, Packet) else 0,
        )
        self._is_broken = source.kind == "video"
        self._known: StreamParameters | None = None
        self._failures = 0
        self._video: ConfinedVideoDecoder | None = None
        self._audio: ConfinedAudioDecoder | None = None
        self._thread = SourceThread(f"decode-{source.kind}", self._run, self._failed)
        self._thread.start()

    def describe(self, known: StreamParameters) -> None:
        self._queue.put(known)

    def put(self, packet: Packet) -> None:
        if (self._is_broken and not packet.is_keyframe) or not self._queue.offer(packet):
            self._is_broken = self._source.kind == "video"
            self._source.stats.dropped += 1
        else:
            self._is_broken = False

    def end(self, error: BaseException | None) -> None:
        self._queue.end(error)

    def stop(self) -> None:
        self._thread.stopping.set()
        self._queue.nudge()

    def _failed(self, exc: Exception) -> None:
        self._close()
        if isinstance(exc, ReaderError):
            log.warning("%s is no longer decoded: %s", self._source.label, exc)
        else:
            log.error("decoding %s stopped", self._source.label, exc_info=exc)
        self._source.raw_feed.end(exc)

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            units = self._queue.take(0.5)
            for unit in units:
                self._take(unit)
            if self._queue.ended and not units:
                self._source.raw_feed.end(self._queue.error)
                break
        self._close()

    def _open(self, known: StreamParameters) -> None:
        self._close()
        self._known = known
        info = StreamInfo(
            index=0,
            kind=known.kind,
            codec=known.codec,
            extradata=known.extradata,
            header=known.header,
            width=known.width,
            height=known.height,
            sample_rate=known.sample_rate,
            channels=known.channels,
        )
        if known.kind == "video":
            self._video = ConfinedVideoDecoder(info, self._source.label)
        else:
            self._audio = ConfinedAudioDecoder(info, self._source.label)

    def _close(self) -> None:
        for decoder in (self._video, self._audio):
            if decoder is not None:
                decoder.close()
        self._video = self._audio = None

    def _take(self, unit: Packet | StreamParameters) -> None:
        try:
            if isinstance(unit, StreamParameters):
                self._open(unit)
            elif self._video is None and self._audio is None and self._known is not None:
                if unit.is_keyframe:  # after a process that ended
                    self._open(self._known)
                    self._decode(unit)
            else:
                self._decode(unit)
        except ReaderError:
            self._close()
            self._source.stats.dropped += 1
            self._failures += 1
            if self._failures > _MOST_FAILURES:
                raise
            self._source.request_key_frame()

    def _decode(self, packet: Packet) -> None:
        feed = self._source.raw_feed
        try:
            if self._video is not None:
                for frame in self._video.decode(packet.data, packet.pts_ns):
                    feed.put(frame)
            elif self._audio is not None:
                for pcm in self._audio.decode([packet.data]):
                    if pcm:
                        samples = len(pcm) // _OPUS.frame_bytes
                        feed.put(AudioBlock(pts_ns=packet.pts_ns, format=_OPUS, samples=samples, data=pcm))
        except LibavError as exc:
            self._source.stats.dropped += 1
            log.debug("%s: a packet could not be decoded: %s", self._source.label, exc)


class Incoming:
    """One receiver's packets to its source. Belongs to the thread of WebRTC."""

    def __init__(self, source: ReceivedSource, times: PeerTimes, index: int, codecs: dict[int, str]) -> None:
        """
        Args:
            times, index: the time line, and the track's place in it.
            codecs: by payload type.
        """
        self.source = source
        self._times = times
        self._index = index
        self._codecs = codecs
        self._rate = _CLOCK_RATE[source.kind]
        self._codec = ""
        self._frames: Reassembly | None = None
        self._report: tuple[int, int] | None = None  # wall time in ns, RTP time of the same moment
        self._last_raw_ns: int | None = None
        self.last_ns = SYSTEM_CLOCK.monotonic_ns()

    def report(self, wall_ns: int, rtp_time: int) -> None:
        """A sender report has come; one of all zeros says nothing (aiortc's first)."""
        if wall_ns > 0 and rtp_time:
            self._report = (wall_ns, rtp_time)

    def add(self, packet: Any) -> bool:
        """Take a packet; whether the peer is to be asked for a key frame."""
        codec = self._codecs.get(packet.payload_type)
        if codec is None:
            return False
        if self._frames is None or codec != self._codec:
            self._codec, self._frames = codec, Reassembly(self.source.kind, codec)
        frames = self._frames
        now_ns = self.last_ns = SYSTEM_CLOCK.monotonic_ns()
        dropped = frames.dropped_frames
        for frame in frames.add(packet, now_ns):
            self._give(codec, frame, frames, now_ns)
        if frames.dropped_frames != dropped:
            self.source.lost(frames.dropped_frames - dropped)
        asks, frames.needs_key_frame = frames.needs_key_frame, False
        return asks

    def _give(self, codec: str, frame: Frame, frames: Reassembly, now_ns: int) -> None:
        raw_ns = frame.rtp_time * NS // self._rate
        sender_ns = None
        if self._report is not None:
            wall_ns, rtp_time = self._report
            sender_ns = wall_ns + (frame.rtp_time - frames.times.peek(rtp_time)) * NS // self._rate
        if codec == "opus":
            duration_ns = packet_samples(frame.data) * NS // 48_000
        else:
            step_ns = 0 if self._last_raw_ns is None else raw_ns - self._last_raw_ns
            duration_ns = step_ns if 0 < step_ns < NS else 40 * MS
        self._last_raw_ns = raw_ns
        pts_ns = self._times.place(self._index, raw_ns, sender_ns, now_ns, in_use=self.source.is_used)
        self.source.put(codec, frame, pts_ns, duration_ns)


@functools.cache
def opus_parameters() -> StreamParameters:
    """Of what WebRTC sends: 48 kHz, two channels, whatever the peer's microphone has (RFC 7587)."""
    encoder = libav.AudioEncoder(codec="opus", source=_OPUS, bit_rate=64_000)
    try:
        return replace(parameters.of_audio_encoder(encoder), encoder="passthrough")
    finally:
        encoder.close()


@functools.lru_cache(maxsize=16)
def _vp8_parameters(width: int, height: int) -> StreamParameters:
    encoder = libav.VideoEncoder(codec="vp8", width=width, height=height, frame_rate=30.0, bit_rate=500_000)
    try:
        return replace(parameters.of_video_encoder(encoder, None), encoder="passthrough")
    finally:
        encoder.close()


def video_parameters(codec: str, key_frame: bytes, before: StreamParameters | None) -> StreamParameters | None:
    """What a key frame says of its stream; None when it says nothing. Only its parameter sets are looked at."""
    if codec == "vp8":
        size = vp8_size(key_frame)
        if size is None or min(size) < 1:
            return None
        return before if before is not None and size == (before.width, before.height) else _vp8_parameters(*size)
    sets = [unit for unit in nal_units(key_frame[:4096]) if is_parameter_set(unit, "h264")]
    extradata = b"".join(b"\0\0\0\1" + unit for unit in sets)
    if not extradata or (before is not None and before.extradata == extradata):
        return before
    try:
        info = libav.stream_info_of_annexb(extradata + _NO_SLICE)
    except libav.LibavError as exc:
        log.debug("parameter sets of a peer could not be read: %s", exc)
        return before
    known = parameters.camera_parameters(
        extradata + _NO_SLICE,
        codec="h264",
        width=info.width,
        height=info.height,
        frame_rate=None,
        encoder="passthrough",
    )
    return replace(known, extradata=extradata)
