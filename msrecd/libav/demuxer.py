"""Inputs: files and network streams."""

from __future__ import annotations

import contextlib
import errno
import importlib
import pkgutil
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import av
import av.error
from av.container.input import InputContainer

from msrecd.libav.adts import AdtsError, audio_specific_config, without_header
from msrecd.libav.allowed import format_of_header, options_for, raw_format, refuse_unreadable
from msrecd.libav.colors import presentation_in
from msrecd.libav.common import MAX_PIXELS, NO_PROBING, NS, close_quietly, plain
from msrecd.libav.explaining import errno_of, explain, refuses_transport
from msrecd.libav.packetfacts import HiddenSound, RtpLosses, wall_ns
from msrecd.libav.rawtimes import WITHOUT_TIMES, with_times
from msrecd.libav.streamfacts import is_still, may_be_adts, stream_info
from msrecd.libav.values import Demuxed, LibavError, NoMedia, StreamInfo, Times, is_described

_SHOWS_ITS_COLORS = ("h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "mpeg4", "mpeg2video")
KEY_FRAME_S = 20.0  # how long a live stream that was joined between two key frames is read for its parameter sets
_SETS_IN_KEY_FRAMES = ("h264", "hevc")
_FRAMED_BY_PARSER = ("h264", "hevc", "mpeg4")  # of RTP: AVSTREAM_PARSE_FULL in libavformat's rtpdec_*.c
_UNTIL_KEY_FRAME = {"analyzeduration": str(int(KEY_FRAME_S * 1e6)), "probesize": str(32 << 20)}
_JPEGS = ("mpjpeg", "mjpeg", "jpeg_pipe", "image2pipe")
SNAPSHOT = "it sends one JPEG, a snapshot, and no stream: give the address of the camera's stream"
_MOST_ENTRIES = 1 << 20  # of an index, some hours of frames
_WAIT_FOR_CONFIG = 400  # packets until an AAC stream with headers in its packets must have shown one


def load_rest() -> None:
    """Load what PyAV loads when it meets its first stream of a kind: for a process that may open no file later."""
    for module in pkgutil.walk_packages(av.__path__, "av.", onerror=lambda name: None):
        if not module.name.endswith(("datasets", "__main__")):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)


class _TransportRefused(LibavError):
    """The camera does not want RTP over this transport."""


class Demuxer:
    """An opened file or network stream. Belongs to one thread.

    is_live: it cannot wait, and its end is a fault. times: what its times are worth: "container" (both kinds right),
    "presentation" (no decode times), "rtp" (presentation times, a clock for each stream until there are sender reports)
    or "arrival" (none). skipped: why streams are missing in `streams`.

    Raises:
        LibavError: it cannot be opened or read; the message says why, and does not hold the address.
    """

    def __init__(
        self, url: str, *, timeout_s: float = 10.0, transport: str = "auto", kinds: Sequence[str] = ()
    ) -> None:
        """
        Args:
            url: an absolute path, or a URL with its user information.
            timeout_s: how long libav waits for an answer.
            transport: of RTSP: auto, tcp or udp.
            kinds: of the streams that are wanted; empty: all.
        """
        self.streams: list[StreamInfo] = []
        self.skipped: list[str] = []
        self._kinds = kinds
        self._pending: deque[Any] = deque()
        self._looks_inside = False
        self._adts: set[int] = set()
        self._timeout_s = timeout_s
        self._format = ""  # until it is opened
        self._has_begun = False
        scheme = url.split("://", 1)[0].lower() if "://" in url and not url.startswith("/") else "file"
        self._scheme = scheme
        self._looks_inside = scheme == "file"  # a network input is decoded by libav's probing
        self.transport = "udp" if transport == "udp" else "tcp"
        refuse_unreadable(url, scheme)
        options = options_for(scheme, timeout_s, self.transport)
        format = format_of_header(url) if scheme == "file" else None
        if format is None or not self._open_quickly(url, format, options):
            try:
                self._open(url, options, raw_format(url) if scheme == "file" and format is None else None)
            except _TransportRefused:
                if transport != "auto":
                    raise
                self.transport = "udp"
                self._open(url, options_for(scheme, timeout_s, "udp"))
        name = self._format
        self.is_live = scheme not in ("file", "http", "https") or (scheme != "file" and self._is_endless(name))
        if self.is_live and self._waits_for_key_frame():
            close_quietly(self._container)
            self._open(url, {**options_for(scheme, timeout_s, self.transport), **_UNTIL_KEY_FRAME})
        if scheme in ("http", "https") and not self.is_live and len(self._pending) < 2:
            self._read_ahead()  # so that it is not opened in vain, again and again
        if not self.is_live:
            self.streams = [replace(info, needs_hidden=self._needs_hidden(info)) for info in self.streams]
        self.times: Times = _times(scheme, name, self.is_live)
        if self.times == "rtp":  # whose streams lie to each other as they arrive, at first
            self.streams = [replace(info, comes_with_next=info.codec in _FRAMED_BY_PARSER) for info in self.streams]

    def _read_ahead(self) -> None:
        """
        Raises:
            LibavError: not one packet can be read.
        """
        is_jpeg = self._format in _JPEGS
        try:
            self._pending.extend(islice(self._demuxed(), 2 if is_jpeg else 1))
            if is_jpeg and len(self._pending) < 2:
                raise LibavError(SNAPSHOT)
        except LibavError:
            close_quietly(self._container)
            raise

    @property
    def looks_up_names(self) -> bool:
        """Whether what comes may name hosts to be asked."""
        return self._format == "hls"

    @property
    def sends_bare_jpegs(self) -> bool:
        """Whether JPEGs come with nothing between them that libav knows: it reads the first ones for seconds then."""
        return self.is_live and self._format in _JPEGS and (self._format != "mpjpeg" or not self.streams)

    def _waits_for_key_frame(self) -> bool:
        """Whether a stream of frames was joined between two key frames: parameter sets come with the next one."""
        if "video" not in (self._kinds or ("video",)):
            return False
        contexts: list[Any] = [
            s.codec_context for s in self._container.streams if s.type == "video" and not is_still(s)
        ]
        return any(
            context is not None
            and (context.width <= 0 or (context.name in _SETS_IN_KEY_FRAMES and not context.extradata))
            for context in contexts
        )

    def _is_endless(self, name: str) -> bool:
        """Whether an HTTP answer has no end: what a camera sends, and a live playlist."""
        if self._container.duration is not None and self._container.duration > 0:
            return False
        return name in ("mpjpeg", "hls") or (self._container.size or 0) <= 0

    def _open_quickly(self, url: str, format: str, options: dict[str, str]) -> bool:
        """What the container's header says is enough for most files; probing tries all demuxers and decodes pictures,
        which costs megabytes. False: it was not enough, or the file's name lies.
        """
        try:
            self._open(url, {**options, **NO_PROBING}, format)
        except LibavError:
            return False
        if self.streams and not self.skipped and all(map(is_described, self.streams)):
            return True
        close_quietly(self._container)
        return False

    def _open(self, url: str, options: dict[str, str], format: str | None = None) -> None:
        try:
            self._container: InputContainer = av.open(
                url, "r", format=format, options=options, metadata_errors="replace"
            )
        except (av.error.FFmpegError, ValueError, OSError) as exc:
            refused = "rtsp_transport" in options and refuses_transport(exc)
            kind = NoMedia if isinstance(exc, av.error.InvalidDataError) else LibavError
            raise (_TransportRefused if refused else kind)(self._explained(exc)) from None  # PyAV's holds the URL
        self.streams, self.skipped = [], []
        self._pending.clear()
        self._format = self._container.format.name
        try:
            for stream in self._container.streams:
                self._describe(stream)
        except BaseException:
            close_quietly(self._container)
            raise

    def _describe(self, stream: Any) -> None:
        if stream.type not in ("video", "audio") or (self._kinds and stream.type not in self._kinds):
            return
        if stream.type == "video" and is_still(stream):
            return
        try:
            config = self._config_of_adts(stream) if may_be_adts(stream) else None
            info = stream_info(stream, config)
            if info is not None and self._looks_inside:
                info = self._with_first_frame(stream, info)
        except LibavError as exc:
            self.skipped.append(f"{stream.type} stream {stream.index}: {exc}")
            return
        if info is not None:
            self.streams.append(info)

    def _with_first_frame(self, stream: Any, info: StreamInfo) -> StreamInfo:
        """What only the decoder tells: how a frame is turned, its colours; the rate and the channels of HE-AAC."""
        if info.kind == "video":
            if info.width * info.height > MAX_PIXELS or info.codec not in _SHOWS_ITS_COLORS:
                return info
        elif info.codec != "aac":
            return info
        context = stream.codec_context
        context.thread_count = 1
        frames: list[Any] = []
        try:
            for number in range(1 if info.kind == "video" else 4):  # AAC begins with a packet that gives nothing
                own = self._packet(stream.index, number)
                if frames or own is None:
                    break
                frames = context.decode(av.Packet(bytes(own)) if own.is_discard else own)  # libav gives no hidden one
            if info.kind == "video":
                frames += context.decode(None)
        except (av.error.FFmpegError, ValueError) as exc:
            self.skipped.append(f"{stream.type} stream {stream.index} is not decoded: {explain(exc)}")
        if not frames:
            return info
        if info.kind == "audio":
            frame = frames[0]
            return replace(
                info,
                sample_rate=frame.sample_rate,
                channels=frame.layout.nb_channels,
                layout=frame.layout.name,
                frame_samples=frame.samples,
            )
        return replace(info, presentation=presentation_in(frames[0], context, info.presentation))

    def _packet(self, index: int, number: int) -> Any | None:
        """One of the first packets of a stream, all of which stay to be read."""
        own = [packet for packet in self._pending if packet.stream.index == index]
        packets = self._demuxed()
        while len(own) <= number and len(self._pending) < _WAIT_FOR_CONFIG:
            packet = next(packets, None)
            if packet is None:
                return None
            self._pending.append(packet)
            if packet.stream.index == index:
                own.append(packet)
        return own[number] if len(own) > number else None

    def _needs_hidden(self, info: StreamInfo) -> bool:
        """Whether an edit list begins to show frames between two key frames: by the index of the container."""
        if info.kind != "video":
            return False
        is_behind_hidden = False
        for entry in islice(self._container.streams[info.index].index_entries, _MOST_ENTRIES):
            if entry.is_discard:
                is_behind_hidden = True
            elif entry.is_keyframe:
                is_behind_hidden = False
            elif is_behind_hidden:
                return True
        return False

    def _config_of_adts(self, stream: Any) -> bytes:
        """The AudioSpecificConfig of AAC that has headers in its packets instead.

        Raises:
            LibavError: nothing of the stream comes, so nothing can be said of it.
        """
        own = self._packet(stream.index, 0)
        if own is None:
            raise LibavError("nothing of it comes")
        data = bytes(own)
        try:
            config = audio_specific_config(data)
        except AdtsError:
            return b""
        self._adts.add(stream.index)
        return config

    def _demuxed(self) -> Iterator[Any]:
        """libav's packets, without the flushing ones.

        Raises:
            LibavError: reading failed.
        """
        wanted = [s for s in self._container.streams if s.type in (self._kinds or ("video", "audio"))]
        try:
            while True:
                try:
                    for packet in self._container.demux(*wanted):
                        if packet.size:
                            self._has_begun = True
                            yield packet
                    return
                except IndexError:  # a stream that was not there at the beginning; PyAV does not know it
                    continue
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, ValueError, OSError) as exc:
            raise LibavError(self._explained(exc)) from None

    def _explained(self, exc: BaseException) -> str:
        """What an error means for this input."""
        number = errno_of(exc)
        # libav's UDP says EIO when nothing came in time.
        if number == errno.EIO and self._scheme == "udp":
            number = errno.ETIMEDOUT
        if number in (errno.ETIMEDOUT, errno.EAGAIN) and (self._format or self._scheme == "udp"):
            return f"silent for {self._timeout_s:g} s"
        if number == errno.EIO and self._format and self._scheme in ("http", "https"):
            if not self._has_begun and "mp4" in self._format:
                return (
                    "its index is at its end, and the server does not let libav go back to the beginning "
                    "(no Range requests?): put the index first (ffmpeg -movflags +faststart)"
                )
            return "the connection broke off"
        return explain(exc)

    def packets(self, indexes: Sequence[int]) -> Iterator[Demuxed]:
        """The packets of the given streams until the end of the input."""
        streams: list[Any] = [self._container.streams[index] for index in indexes]
        # A packet of a demuxer counts as its stream does; asking each packet makes a fraction every time.
        scales = {stream.index: (stream.time_base * NS).as_integer_ratio() for stream in streams}
        pictures = {stream.index for stream in streams if stream.type == "video"}
        has_reports = self.times == "rtp"
        losses = RtpLosses() if has_reports and self.transport == "udp" else None
        sound = {stream.index: HiddenSound(stream) for stream in streams if stream.type == "audio"}
        damaged = 0  # frames that may lack something: the one that comes with the message, and the next
        for index, packet in with_times(self._all(), streams, self._format):
            if index not in scales:
                continue
            scale_n, scale_d = scales[index]
            pts, dts = packet.pts, packet.dts
            is_damaged = bool(packet.is_corrupt)
            if losses is not None:
                if losses.heard:
                    losses.heard, damaged = False, 2
                if damaged and index in pictures:
                    damaged, is_damaged = damaged - 1, True
            data: bytes | memoryview = memoryview(packet) if index in pictures else bytes(packet)
            if index in self._adts:
                data = without_header(data)
            pts_ns = None if pts is None else pts * scale_n // scale_d
            is_hidden, hidden_ns = packet.is_discard, 0
            if index in sound and not self.is_live:
                is_hidden, hidden_ns = sound[index].of(packet, pts_ns, (packet.duration or 0) * scale_n // scale_d)
            yield Demuxed(
                index,
                data,
                pts_ns,
                None if dts is None else dts * scale_n // scale_d,
                (packet.duration or 0) * scale_n // scale_d,
                bool(packet.is_keyframe),
                wall_ns(packet) if has_reports else None,
                is_damaged,
                is_hidden,
                hidden_ns,
            )

    def _all(self) -> Iterator[Any]:
        while self._pending:
            yield self._pending.popleft()
        yield from self._demuxed()

    def rewind(self) -> None:
        """Go back to the beginning."""
        self._pending.clear()
        try:
            self._container.seek(self._container.start_time or 0)
        except av.error.FFmpegError as exc:
            raise LibavError(f"cannot go back to the beginning: {plain(exc)}") from None

    def close(self) -> None:
        close_quietly(self._container)


def _times(scheme: str, format: str, is_live: bool) -> Times:
    if scheme in ("rtsp", "rtsps") or format in ("rtp", "sdp"):
        return "rtp"
    if is_live and format in (*_JPEGS, *WITHOUT_TIMES):
        return "arrival"
    return "presentation" if "matroska" in format else "container"
