"""Playing a file or a network stream as sources: one demuxing thread, one Source per stream of it.

Encoded units pass through untouched to those who want them as they are; they are decoded only while somebody wants raw
ones. A file is paced in real time; a live stream comes at its own pace.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from msrecd import libav
from msrecd.clock import NS, SYSTEM_CLOCK, Clock
from msrecd.codecs import parameters
from msrecd.codecs.opus import packet_samples
from msrecd.dom.exceptions import DOMException, NotFoundError, NotReadableError, NotSupportedError
from msrecd.flow.encoded import EncodedFeed, EncodingRequest
from msrecd.flow.feed import Feed
from msrecd.flow.source import Source, SourceThread
from msrecd.flow.units import AudioFormat, Packet, VideoFormat, VideoFrame
from msrecd.media.inputline import BATCH_NS, InputLine
from msrecd.media.soundblocks import SoundBlocks

log = logging.getLogger(__name__)

_PASSES_THROUGH = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "aac", "opus", "flac"})
LIVE_SCHEMES = ("rtsp", "rtsps", "rtp", "udp", "srt", "rtmp")


class StreamSource(Source):
    """One audio or video stream of a Playback."""

    def __init__(self, info: libav.StreamInfo, playback: Playback, label: str) -> None:
        super().__init__(label=label)
        self.kind = info.kind
        self.info = info
        self._playback = playback
        self._raw: Feed[Any] = Feed()
        self._format = _format_of(info)
        self.passing = EncodedFeed()
        self.passing.set_parameters(parameters.of_input(info))
        self._video_decoder: libav.VideoDecoder | None = None
        self._audio_decoder: libav.AudioDecoder | None = None
        self._blocks = SoundBlocks(self._format, self._raw.put) if isinstance(self._format, AudioFormat) else None

    @property
    def format(self) -> VideoFormat | AudioFormat:
        return self._format

    def raw(self) -> Feed[Any]:
        return self._raw

    def encoded(self, request: EncodingRequest) -> EncodedFeed | None:
        info = self.info
        if request.codec != info.codec or info.codec not in _PASSES_THROUGH:
            return None
        if info.kind == "video" and (request.width, request.height) not in ((0, 0), (info.width, info.height)):
            return None
        if request.frame_rate and info.frame_rate and request.frame_rate < info.frame_rate * 0.99:
            return None
        return self.passing

    def native_codec(self) -> str | None:
        return self.info.codec if self.info.codec in _PASSES_THROUGH else None

    def close(self) -> None:
        """The playback goes on for its other streams; it ends with the last one."""
        self._playback.leave(self)

    # --- in the playback's thread ------------------------------------------------------------------------------------

    def deliver(self, packet: libav.Demuxed, pts_ns: int, dts_ns: int, duration_ns: int) -> None:
        if self.passing.feed.has_sinks:
            self.passing.feed.put(
                Packet(
                    pts_ns=pts_ns,
                    dts_ns=dts_ns,
                    duration_ns=duration_ns,
                    is_keyframe=packet.is_keyframe or self.kind == "audio",
                    data=packet.data,
                )
            )
        if self._raw.has_sinks:
            self._decode(packet.data, pts_ns)
        else:
            self._forget()  # nobody wants raw units any more; the next one begins at a key frame
        self.stats.delivered += 1

    def give_gathered(self) -> None:
        """Nothing follows for a while."""
        if self._blocks is not None:
            self._blocks.give()

    def _decode(self, data: bytes | memoryview, pts_ns: int) -> None:
        try:
            if self.kind == "video":
                if self._video_decoder is None:
                    self._video_decoder = libav.VideoDecoder(self.info.header)
                for at_ns, picture in self._video_decoder.decode(data, pts_ns):
                    self._put_picture(at_ns, picture)
            else:
                if self.info.codec == "pcm_s16le":
                    pcm = bytes(data)  # is PCM already
                else:
                    if self._audio_decoder is None:
                        self._audio_decoder = libav.AudioDecoder(self.info.header)
                    pcm = self._audio_decoder.decode(data)
                if self._blocks is not None:
                    self._blocks.add(pts_ns, pcm)
        except libav.LibavError as exc:
            self.stats.dropped += 1
            log.debug("%s: a packet could not be decoded: %s", self.label, exc)

    def _put_picture(self, at_ns: int, picture: Any) -> None:
        format = VideoFormat(width=picture.width, height=picture.height, frame_rate=self.info.frame_rate)
        self._raw.put(VideoFrame(pts_ns=at_ns, format=format, data=libav.planes(picture, "yuv420p")))

    def finish(self, error: BaseException | None) -> None:
        """The input has ended."""
        if self._video_decoder is not None and self._raw.has_sinks and error is None:
            for at_ns, picture in self._video_decoder.flush():
                self._put_picture(at_ns, picture)
        self.give_gathered()
        self._forget()
        self.passing.feed.end(error)
        self._raw.end(error)

    def _forget(self) -> None:
        """What was begun is not finished."""
        if self._blocks is not None:
            self._blocks.forget()
        for decoder in (self._video_decoder, self._audio_decoder):
            if decoder is not None:
                decoder.close()
        self._video_decoder = self._audio_decoder = None


class Playback:
    """Opens an input (blocking) and plays it in a thread. `on_end(error)` is called in that thread, once."""

    def __init__(self, location: str, *, loop: bool = False, clock: Clock = SYSTEM_CLOCK) -> None:
        """
        Raises:
            NotFoundError: there is no such file.
            NotReadableError: it cannot be opened or is no media.
            NotSupportedError: no audio or video stream in it.
        """
        self.location, self.is_live = normalize(location)
        self.loop = loop
        self._clock = clock
        try:
            self._demuxer = libav.Demuxer(self.location)
        except libav.LibavError as exc:
            raise NotReadableError(str(exc)) from exc
        name = Path(urlsplit(location).path).name or location
        chosen: dict[str, StreamSource] = {}
        for info in self._demuxer.streams:
            if info.kind not in chosen and (info.kind == "audio" or info.width):
                chosen[info.kind] = StreamSource(info, self, name)
        if not chosen:
            self._demuxer.close()
            raise NotSupportedError(f"{location} has neither an audio nor a video stream that can be read")
        self.sources = list(chosen.values())
        self._left: set[StreamSource] = set()
        self._playing = threading.Event()
        self._paused_ns = 0
        self._thread: SourceThread | None = None
        self._lock = threading.Lock()
        self.on_end: Callable[[BaseException | None], None] = lambda _: None
        self._position_ns = 0

    @property
    def position_s(self) -> float:
        """Where the playback is, in seconds of the input."""
        return self._position_ns / NS

    def play(self) -> None:
        """Begin, or go on after `pause`."""
        self._playing.set()
        with self._lock:
            if self._thread is None:
                self._thread = SourceThread(f"play-{self.sources[0].label}"[:40], self._run, self._fail)
                self._thread.start()

    def pause(self) -> None:
        """Deliver nothing that comes later until `play`."""
        if self._playing.is_set():
            self._paused_ns = self._clock.monotonic_ns()
            self._playing.clear()

    def leave(self, source: StreamSource) -> None:
        """This source is wanted no more."""
        self._left.add(source)
        if len(self._left) == len(self.sources):
            self.close()

    def close(self) -> None:
        """End the thread; a network read under way may keep it for its time-out. Idempotent."""
        with self._lock:
            thread, begun = self._thread, self._thread is not None
        if thread is not None:
            thread.stopping.set()
            self._playing.set()
            if not self.is_live:
                thread.stop(5.0)
        if not begun:
            self._demuxer.close()

    def _fail(self, exc: Exception) -> None:
        error = exc if isinstance(exc, DOMException) else NotReadableError(str(exc))
        if not isinstance(exc, libav.LibavError):
            log.error("playing %s failed", self.location, exc_info=exc)
        self._finish(error)

    def _finish(self, error: BaseException | None) -> None:
        self._demuxer.close()
        for source in self.sources:
            source.finish(error)
        self.on_end(error)

    def _run(self, stopping: threading.Event) -> None:
        by_index = {source.info.index: source for source in self.sources}
        line = InputLine(self.is_live, self._clock)
        while not stopping.is_set():
            for packet in self._demuxer.packets(list(by_index)):
                if stopping.is_set() or not (self._playing.is_set() or self._wait_to_play(line, stopping)):
                    break
                source = by_index[packet.stream]
                duration_ns = _duration_ns(packet, source.info)
                times = line.place(packet, duration_ns)
                if times is None:
                    source.stats.dropped += 1
                    continue
                pts_ns, dts_ns = times
                if not self.is_live and line.is_due_later(dts_ns):
                    self._give_gathered()
                    if self._clock.wait_until(dts_ns + BATCH_NS, stopping):
                        break
                self._position_ns = packet.pts_ns or packet.dts_ns or 0
                source.deliver(packet, pts_ns, dts_ns, duration_ns)
                if self.is_live:
                    source.give_gathered()
            else:
                if self.loop and not self.is_live and not stopping.is_set():
                    self._demuxer.rewind()
                    line.continue_after_rewind()
                    continue
            break
        self._finish(None)

    def _give_gathered(self) -> None:
        for source in self.sources:
            source.give_gathered()

    def _wait_to_play(self, line: InputLine, stopping: threading.Event) -> bool:
        """Paused: wait until that is over, or what comes belongs before it; False when stopped."""
        self._give_gathered()
        while not self._playing.is_set() and line.pause(self._paused_ns):
            if self._playing.wait(0.5):
                break
            if stopping.is_set():
                return False
        line.go_on()
        return not stopping.is_set()


def _format_of(info: libav.StreamInfo) -> VideoFormat | AudioFormat:
    if info.kind == "audio":
        return AudioFormat(sample_rate=info.sample_rate, channels=info.channels)
    return VideoFormat(width=info.width, height=info.height, frame_rate=info.frame_rate)


def _duration_ns(packet: libav.Demuxed, info: libav.StreamInfo) -> int:
    """As the container says, or else (libav without probing) the packet, or what is usual."""
    if packet.duration_ns:
        return packet.duration_ns
    if info.codec == "opus" and (samples := packet_samples(packet.data)):
        return samples * NS // 48_000
    if info.kind == "video":
        return round(NS / (info.frame_rate or 25.0))
    return round((info.frame_samples or 1024) * NS / (info.sample_rate or 48000))


def normalize(location: str) -> tuple[str, bool]:
    """What libav opens, and whether it is live.

    Raises:
        NotFoundError: a local file that does not exist.
        NotReadableError: it is a folder.
        NotSupportedError: a scheme that is neither file, http(s) nor a streaming protocol.
    """
    scheme = urlsplit(location).scheme.lower()
    if scheme in LIVE_SCHEMES:
        return location, True
    if scheme in ("http", "https"):
        return location, False
    if scheme == "file":
        location = unquote(urlsplit(location).path)
    elif "://" in location:
        raise NotSupportedError(
            f"cannot play {scheme}: URLs; file, http, https and {', '.join(LIVE_SCHEMES)} are known"
        )
    if not location or not Path(location).exists():
        raise NotFoundError(f"there is no file {location or 'without a name'}")
    if Path(location).is_dir():
        raise NotReadableError(f"{location} is a folder")
    # A path that looks like a protocol of libav's must not be taken for one.
    return str(Path(location).absolute()), False
