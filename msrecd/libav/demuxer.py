"""Inputs: files, network streams, and what a single key frame says."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import pkgutil
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import av
import av.error
from av.container.input import InputContainer

from msrecd.libav.adts import AdtsError, audio_specific_config, without_header
from msrecd.libav.colors import presentation_in, presentation_of_stream
from msrecd.libav.common import MAX_PIXELS, NO_PROBING, NS, Writer, close_quietly, plain, put_template_packet
from msrecd.libav.headers import without_flac_sums
from msrecd.libav.rawtimes import shown, timed
from msrecd.libav.values import Demuxed, LibavError, StreamInfo, Times, is_described
from msrecd.libav.words import hear
from msrecd.vocabulary.formats import CONTAINER_OF_SUFFIX

# Suffix -> libav's demuxer, where the header of the file describes all streams.
_DESCRIBED_BY_HEADER: dict[str, str] = {".mov": "mov"} | {
    suffix: one.demuxer for suffix, one in CONTAINER_OF_SUFFIX.items() if one.demuxer is not None
}
# What may be opened at all: libav knows some 350 demuxers, and most of them have never seen a hostile file.
_FILE_FORMATS = (
    "mov,matroska,webm,mpegts,mpeg,avi,flv,h264,hevc,obu,ivf,m4v,mjpeg,nut,wav,w64,flac,ogg,mp3,aac,loas,ac3,eac3,"
    "aiff,caf,amr,yuv4mpegpipe"
)
# Their streams show up while packets are read, which PyAV before 15 answers with a free() of what is not its own.
_LATE_STREAMS = ("flv", "live_flv", "mpeg")
_KNOWS_LATE_STREAMS = int(av.__version__.partition(".")[0]) >= 15
_LATE_SUFFIXES = (".flv", ".f4v", ".mpg", ".mpeg", ".vob")
_FORMATS = {
    "file": _FILE_FORMATS,
    "http": f"{_FILE_FORMATS},mpjpeg,hls,image2pipe,jpeg_pipe",
    "rtsp": "rtsp,sdp,rtp",
    "rtmp": "flv,live_flv",
    "srt": "mpegts",
    "udp": "mpegts,rtp,sdp",
}
_PROTOCOLS = {
    "file": "file,pipe",
    "http": "http,https,tls,tcp,crypto,data",
    "rtsp": "rtsp,rtsps,rtp,srtp,tcp,udp,tls,http",
    "rtmp": "rtmp,tcp",
    "srt": "srt",
    "udp": "udp,rtp",
}
_DECODERS = (
    "h264,hevc,vp8,vp9,libvpx,libvpx-vp9,av1,libdav1d,mjpeg,mpeg1video,mpeg2video,mpeg4,h263,rawvideo,prores,"
    "aac,aac_fixed,aac_latm,opus,libopus,flac,vorbis,mp3,mp3float,mp2,mp2float,ac3,eac3,alac,amrnb,amrwb,"
    "g722,adpcm_g722,g726,adpcm_g726,g726le,adpcm_g726le,"
    "pcm_alaw,pcm_mulaw,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_u8,pcm_s8,pcm_f32le,pcm_f32be"
)
_WITHOUT_TIMES = ("h264", "hevc", "m4v", "obu")  # raw streams: a frame after the other
_SHOWS_ITS_COLORS = ("h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "mpeg4", "mpeg2video")
KEY_FRAME_S = 20.0  # how long a live stream that was joined between two key frames is read for its parameter sets
_SETS_IN_KEY_FRAMES = ("h264", "hevc")
_UNTIL_KEY_FRAME = {"analyzeduration": str(int(KEY_FRAME_S * 1e6)), "probesize": str(32 << 20)}
_JPEGS = ("mpjpeg", "mjpeg", "jpeg_pipe", "image2pipe")
_MOST_ENTRIES = 1 << 20  # of an index, some hours of frames
_WAIT_FOR_CONFIG = 400  # packets until an AAC stream with headers in its packets must have shown one


class _Losses:
    """Hears libav say that packets of RTP over UDP did not come; it marks nothing that is built from the others."""

    def __init__(self) -> None:
        self.heard = False
        hear(self._hear)

    def _hear(self, message: str) -> None:
        self.heard = self.heard or "missed" in message


class _HiddenSound:
    """What of a stream of sound is decoded and not heard: what an edit list hides, and the priming of its encoder.

    What the header of Opus says to skip (RFC 7845, 4.2) comes with the stream, for the header says so wherever it goes.
    """

    def __init__(self, stream: Any) -> None:
        context = stream.codec_context
        self._rate = context.sample_rate or 48000
        self._until_ns: int | None = None
        self._skipped_anyway_ns = 0
        head = bytes(context.extradata or b"")
        if context.name in ("opus", "libopus") and len(head) >= 12:
            self._skipped_anyway_ns = int.from_bytes(head[10:12], "little") * NS // 48000

    def of(self, packet: Any, pts_ns: int | None, duration_ns: int) -> tuple[bool, int]:
        """(whether all of a packet is hidden, how much of its beginning is)."""
        if pts_ns is None:
            return packet.is_discard, 0
        if hasattr(packet, "has_sidedata") and packet.has_sidedata(
            "skip_samples"
        ):  # AV_PKT_DATA_SKIP_SAMPLES: from the beginning, from the end, reasons
            (samples,) = struct.unpack_from("<I", bytes(packet.get_sidedata("skip_samples")))
            self._until_ns = pts_ns + samples * NS // self._rate
        if self._until_ns is None or pts_ns >= self._until_ns:
            return packet.is_discard, 0
        hidden_ns = self._until_ns - pts_ns
        return 0 < duration_ns <= hidden_ns - self._skipped_anyway_ns, hidden_ns


def load_rest() -> None:
    """Load what PyAV loads when it meets its first stream of a kind: for a process that may open no file later."""
    for module in pkgutil.walk_packages(av.__path__, "av.", onerror=lambda name: None):
        if not module.name.endswith(("datasets", "__main__")):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)


class _TransportRefused(LibavError):
    """The camera does not want RTP over this transport."""


def _refuses_transport(exc: BaseException) -> bool:
    """461 Unsupported Transport, or what cameras answer in its place: 400, 405, 501, another transport than asked."""
    if isinstance(exc, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError, av.error.HTTPNotFoundError)):
        return False
    return _errno(exc) in (errno.EPROTONOSUPPORT, errno.ENOSYS) or isinstance(
        exc, (av.error.HTTPClientError, av.error.HTTPServerError, av.error.InvalidDataError)
    )


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
        if not _KNOWS_LATE_STREAMS and (scheme == "rtmp" or Path(url).suffix.lower() in _LATE_SUFFIXES):
            raise LibavError(f"RTMP, FLV and MPEG-PS need PyAV 15 or later; this machine has {av.__version__}")
        options = _options(scheme, timeout_s, self.transport)
        format = _DESCRIBED_BY_HEADER.get(Path(url).suffix.lower()) if scheme == "file" else None
        if scheme == "file" and not Path(url).is_file():
            raise LibavError("is no regular file")
        if scheme == "file" and Path(url).suffix.lower() == ".sdp":
            raise LibavError("it describes a stream of RTP and is none; use the rtsp: URL of the camera")
        if format is None or not self._open_quickly(url, format, options):
            try:
                self._open(url, options, _raw_format(url) if scheme == "file" and format is None else None)
            except _TransportRefused:
                if transport != "auto":
                    raise
                self.transport = "udp"
                self._open(url, _options(scheme, timeout_s, "udp"))
        name = self._format
        self.is_live = scheme not in ("file", "http", "https") or (scheme != "file" and self._is_endless(name))
        if self.is_live and self._waits_for_key_frame():
            close_quietly(self._container)
            self._open(url, {**_options(scheme, timeout_s, self.transport), **_UNTIL_KEY_FRAME})
        if scheme in ("http", "https") and not self.is_live and not self._pending:
            self._read_ahead()  # so that it is not opened in vain, again and again
        if not self.is_live:
            self.streams = [replace(info, needs_hidden=self._needs_hidden(info)) for info in self.streams]
        self.times: Times = _times(scheme, name, self.is_live)
        self._restamp = name in _WITHOUT_TIMES

    def _read_ahead(self) -> None:
        """
        Raises:
            LibavError: not one packet can be read.
        """
        try:
            self._pending.extend(islice(self._demuxed(), 1))
        except LibavError:
            close_quietly(self._container)
            raise

    def _waits_for_key_frame(self) -> bool:
        """Whether a stream of frames was joined between two key frames: parameter sets come with the next one."""
        if "video" not in (self._kinds or ("video",)):
            return False
        contexts: list[Any] = [
            s.codec_context for s in self._container.streams if s.type == "video" and not _is_still(s)
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
            refused = "rtsp_transport" in options and _refuses_transport(exc)
            raise (_TransportRefused if refused else LibavError)(self._explained(exc)) from None  # PyAV's holds the URL
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
        if stream.type == "video" and _is_still(stream):
            return
        try:
            config = self._config_of_adts(stream) if _may_be_adts(stream) else None
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
        number = _errno(exc)
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
        losses = _Losses() if has_reports and self.transport == "udp" else None
        sound = {stream.index: _HiddenSound(stream) for stream in streams if stream.type == "audio"}
        damaged = 0  # frames that may lack something: the one that comes with the message, and the next
        for index, packet in self._timed(streams):
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
                _wall_ns(packet) if has_reports else None,
                is_damaged,
                is_hidden,
                hidden_ns,
            )

    def _all(self) -> Iterator[Any]:
        while self._pending:
            yield self._pending.popleft()
        yield from self._demuxed()

    def _timed(self, streams: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """(index of its stream, packet): a packet that libav's filter has timed has lost its stream."""
        reordered = next((s for s in streams if self._format == "avi" and s.codec_context.name == "h264"), None)
        if self._restamp:
            for packet in timed(streams[0], self._all()):
                yield streams[0].index, packet
        elif reordered is None:
            for packet in self._all():
                yield packet.stream.index, packet
        else:
            yield from self._shown(reordered)

    def _shown(self, stream: Any) -> Iterator[tuple[int, Any]]:
        """All packets; those of this stream with the times at which they are shown, which AVI does not know."""
        others: deque[Any] = deque()

        def own() -> Iterator[Any]:
            for packet in self._all():
                if packet.stream.index == stream.index:
                    yield packet
                else:
                    others.append(packet)

        for packet in shown(stream, own()):
            until = packet.dts * stream.time_base  # libav's filter gives frames when it has seen what follows them
            while others and (others[0].dts or 0) * others[0].time_base <= until:
                other = others.popleft()
                yield other.stream.index, other
            yield stream.index, packet
        for other in others:
            yield other.stream.index, other

    def rewind(self) -> None:
        """Go back to the beginning."""
        self._pending.clear()
        try:
            self._container.seek(self._container.start_time or 0)
        except av.error.FFmpegError as exc:
            raise LibavError(f"cannot go back to the beginning: {plain(exc)}") from None

    def close(self) -> None:
        close_quietly(self._container)


def _options(scheme: str, timeout_s: float, transport: str) -> dict[str, str]:
    family = {"https": "http", "rtsps": "rtsp"}.get(scheme, scheme)
    microseconds = str(int(timeout_s * 1e6))
    formats = _FORMATS.get(family, "").split(",")
    options = {
        "format_whitelist": ",".join(name for name in formats if _KNOWS_LATE_STREAMS or name not in _LATE_STREAMS),
        "protocol_whitelist": _PROTOCOLS.get(family, ""),
        "codec_whitelist": _DECODERS,
        "max_pixels": str(MAX_PIXELS),
    }
    if family == "file":
        return options
    options["analyzeduration"] = "500000"  # the same facts as with libav's 5 s, and a second earlier
    if family == "rtsp":
        options["timeout"] = microseconds
        options["rtsp_transport"] = transport
        options["allowed_media_types"] = "video+audio"
    elif family == "udp":
        options |= {"timeout": microseconds, "fifo_size": "28672", "overrun_nonfatal": "1"}
    else:
        options["rw_timeout"] = microseconds
    if family == "http":
        options["follow"] = "1"
        options["max_redirects"] = "0"  # inputs/redirects.py follows them, where they may be followed
    return options


def _raw_format(path: str) -> str | None:
    """libav takes a raw stream for something else when it is short; its name says what it is."""
    return {".h264": "h264", ".264": "h264", ".h265": "hevc", ".265": "hevc", ".hevc": "hevc"}.get(
        Path(path).suffix.lower()
    )


def _times(scheme: str, format: str, is_live: bool) -> Times:
    if scheme in ("rtsp", "rtsps") or format in ("rtp", "sdp"):
        return "rtp"
    if is_live and format in (*_JPEGS, *_WITHOUT_TIMES):
        return "arrival"
    return "presentation" if "matroska" in format else "container"


def _is_still(stream: Any) -> bool:
    """A cover, or another picture that accompanies sound."""
    disposition = stream.disposition
    return bool(disposition & (type(disposition).attached_pic | type(disposition).timed_thumbnails))


def _may_be_adts(stream: Any) -> bool:
    context = getattr(stream, "codec_context", None)
    return stream.type == "audio" and context is not None and context.name == "aac" and not context.extradata


def _wall_ns(packet: Any) -> int | None:
    """The sender's wall clock at this packet: libav's AVProducerReferenceTime, from RTCP sender reports.

    PyAV gives it from version 15 on; before, streams lie to each other as they arrive.
    """
    if not hasattr(packet, "has_sidedata") or not packet.has_sidedata("prft"):
        return None
    (microseconds,) = struct.unpack_from("=q", bytes(packet.get_sidedata("prft")))
    return int(microseconds) * 1000


_EXPLAINED: tuple[tuple[Callable[[BaseException], bool], str], ...] = (
    (lambda exc: isinstance(exc, av.error.HTTPUnauthorizedError), "it refused the user name or password (401)"),
    (lambda exc: isinstance(exc, av.error.HTTPForbiddenError), "access is forbidden (403)"),
    (lambda exc: isinstance(exc, av.error.HTTPNotFoundError), "it has no such stream (404): check the path"),
    (lambda exc: isinstance(exc, av.error.HTTPClientError), "it refused the request (4xx)"),
    (lambda exc: isinstance(exc, av.error.HTTPServerError), "it failed to answer (5xx)"),
    (lambda exc: isinstance(exc, av.error.ProtocolNotFoundError), "libav on this machine cannot read this kind of URL"),
    (lambda exc: isinstance(exc, av.error.DemuxerNotFoundError), "libav on this machine cannot read this format"),
    (lambda exc: isinstance(exc, av.error.InvalidDataError), "what came is no media that is known"),
    (lambda exc: _errno(exc) == errno.ECONNREFUSED, "connection refused: is it on, and is the port right?"),
    (lambda exc: _errno(exc) in (errno.EHOSTUNREACH, errno.ENETUNREACH), "not reachable from this network"),
    (lambda exc: _errno(exc) in (errno.ETIMEDOUT, errno.EAGAIN), "no answer in time"),
    (lambda exc: _errno(exc) in (errno.ECONNRESET, errno.EPIPE), "it closed the connection"),
    (lambda exc: _errno(exc) == errno.EPROTONOSUPPORT, "it refused this transport: try another `transport`"),
    (lambda exc: _errno(exc) == errno.EACCES, "reading it is not permitted"),
    (lambda exc: _errno(exc) == errno.EIO, "the connection failed: check the address and the network"),
)


def _errno(exc: BaseException) -> int | None:
    return getattr(exc, "errno", None)


def explain(exc: BaseException) -> str:
    """What an error of libav's means for somebody who wants to read this input; never holds the address."""
    for fits, words in _EXPLAINED:
        if fits(exc):
            return words
    number = _errno(exc)
    if number is not None and 0 < number < 200:
        return os.strerror(number).lower()
    return str(getattr(exc, "strerror", None) or type(exc).__name__)


def stream_info_of_annexb(key_frame: bytes, codec: str = "h264", extradata: bytes | None = None) -> StreamInfo:
    """What a raw H.264 (or "hevc") key frame with in-band parameter sets says about its stream; `extradata` in place
    of what libav takes out of it.

    Raises:
        LibavError: there are no parameter sets in it.
    """
    try:
        container = av.open(io.BytesIO(key_frame), format=codec)
    except (av.error.FFmpegError, ValueError) as exc:
        raise LibavError(f"not a {codec} key frame with parameter sets: {plain(exc)}") from exc
    try:
        info = stream_info(container.streams[0], extradata)
    finally:
        close_quietly(container)
    if info is None or not info.width:
        raise LibavError(f"not a {codec} key frame with parameter sets")
    return info


def stream_info(stream: Any, extradata: bytes | None = None) -> StreamInfo | None:
    """The facts of a stream; `extradata` in place of the container's.

    Raises:
        LibavError: it is sound or video, and its facts are not known.
    """
    context = getattr(stream, "codec_context", None)
    if stream.type not in ("video", "audio"):
        return None
    if context is None:
        raise LibavError("its codec is not known")
    codec = context.codec.canonical_name if hasattr(context.codec, "canonical_name") else context.name
    # A muxer divides by these.
    if stream.type == "audio" and not (context.sample_rate > 0 and context.layout.nb_channels > 0):
        raise LibavError(f"nothing is known of its {codec} sound")
    if stream.type == "video" and not (context.width > 0 and context.height > 0):
        raise LibavError(f"nothing is known of its {codec} frames")
    if not extradata:
        extradata = bytes(context.extradata or b"")
    if codec == "flac":
        extradata = without_flac_sums(extradata)
    common: dict[str, Any] = {
        "index": stream.index,
        "codec": {"libvpx-vp9": "vp9", "libdav1d": "av1"}.get(codec, codec),
        "extradata": extradata,
        "header": _description_of(stream, extradata),
    }
    if stream.type == "video":
        rate = stream.average_rate or stream.guessed_rate
        return StreamInfo(
            kind="video",
            width=context.width,
            height=context.height,
            frame_rate=float(rate) if rate else None,
            reorder_depth=2 if context.has_b_frames else 0,
            presentation=presentation_of_stream(stream),
            **common,
        )
    layout = context.layout.name
    return StreamInfo(
        kind="audio",
        sample_rate=context.sample_rate,
        channels=len(context.layout.channels),
        frame_samples=int(getattr(context, "frame_size", 0) or 0),
        layout=layout if not layout[:1].isdigit() or "." in layout else "",  # "3 channels" is no layout
        bits=_bits_of(codec, extradata),
        **common,
    )


def _bits_of(codec: str, extradata: bytes) -> int:
    """Significant bits of a sample where there are more than 16; 0 otherwise."""
    if codec.startswith(("pcm_s24", "pcm_s32", "pcm_f32")):
        return 24 if "24" in codec else 32
    if codec == "flac" and len(extradata) >= 34:  # STREAMINFO, RFC 9639, 8.2
        bits = ((extradata[-22] & 1) << 4 | extradata[-21] >> 4) + 1
        return bits if bits > 16 else 0
    return 0


def _description_of(stream: Any, extradata: bytes) -> bytes:
    try:
        return _described_in("nut", stream, extradata)
    except LibavError:
        return _described_in("matroska", stream, extradata)  # NUT knows neither ALAC nor ProRes


def _described_in(format: str, stream: Any, extradata: bytes) -> bytes:
    """
    Raises:
        LibavError: this format does not take the stream.
    """
    description = bytearray()
    container = av.open(Writer(description.extend), "w", format=format)
    try:
        twin = container.add_stream_from_template(stream, opaque=True)
        if extradata != bytes(stream.codec_context.extradata or b""):
            twin.codec_context.extradata = extradata
        container.start_encoding()
        put_template_packet(container, twin, extradata)
    except (av.error.FFmpegError, ValueError) as exc:
        raise LibavError(f"cannot describe the {stream.type} stream: {plain(exc)}") from exc
    finally:
        close_quietly(container)
    return bytes(description)
