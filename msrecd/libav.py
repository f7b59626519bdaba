"""The only file that imports PyAV: encoders, muxers, demuxers, decoders as thin adaptors. Policy lives elsewhere.

Rules learned the hard way and kept here:
- Outputs are never opened by path: PyAV holds the GIL while it opens, writes headers and closes, so a slow card would
  stop every thread. Muxers write into a callable of ours.
- A started output is always closed; a stream object is never touched after its container was closed (both crash).
- A muxer takes its stream description from a template read out of a tiny NUT file (`StreamParameters.header`):
  `add_stream("h264")` would open an encoder and describe that one.
Every error of libav leaves this file as LibavError.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import av.error
from av.audio.frame import AudioFrame as _AVAudioFrame
from av.audio.resampler import AudioResampler
from av.container.input import InputContainer
from av.container.output import OutputContainer
from av.filter.graph import Graph
from av.video.frame import VideoFrame as _AVVideoFrame

from msrecd.flow.units import AudioFormat, Kind, VideoFormat

NS = 1_000_000_000
_NS_BASE = Fraction(1, NS)
_US_BASE = Fraction(1, 1_000_000)
_MAX_DURATION = (1 << 31) - 1  # PyAV before 15 refuses longer ones, whatever the time base
_PICTURE_TYPE_I = 1
_GLOBAL_HEADER = 1 << 22
_FLUSH_PACKETS = 0x200
_WRITE_BUFFER = 1 << 16
# Only the decoder of FLAC may be asked: the bits of a sample, which MP4 must have, are told by nobody else.
_NO_PROBING = {"probesize": "32", "analyzeduration": "0", "codec_whitelist": "flac"}
_EBML = b"\x1a\x45\xdf\xa3"
_TOLD_BY_HEADER = {
    **dict.fromkeys((".mp4", ".m4a", ".mov"), "mov"),
    **dict.fromkeys((".mkv", ".mka", ".webm"), "matroska"),
}


class LibavError(Exception):
    """libav refused or failed; the message is libav's."""


VERSION: str = av.__version__

os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 greets on stderr otherwise: errors only

# Encoders by codec, best first. libopenh264 and the V4L2 wrappers are left out: nobody tried them here.
_ENCODERS: Mapping[str, tuple[str, ...]] = {
    "h264": ("libx264",),
    "hevc": ("libx265",),
    "vp8": ("libvpx",),
    "vp9": ("libvpx-vp9",),
    "av1": ("libsvtav1", "libaom-av1"),
    "mjpeg": ("mjpeg",),
    "aac": ("aac",),
    "opus": ("libopus",),
    "flac": ("flac",),
    "pcm_s16le": ("pcm_s16le",),
}


def encoder_for(codec: str) -> str | None:
    """The libav encoder that this build has for a codec, None without one."""
    for name in _ENCODERS.get(codec, ()):
        try:
            av.codec.Codec(name, "w")
        except (ValueError, av.error.FFmpegError):
            continue
        return name
    return None


@dataclass(frozen=True, slots=True)
class Encoded:
    """One packet as an encoder gave it; pts in ns (video) or in samples (audio)."""

    data: bytes
    pts: int
    dts: int
    duration: int
    is_keyframe: bool


@contextmanager
def _ordinary_threads() -> Iterator[None]:
    """Undo what SVT-AV1 does when root opens it: it and who called it would run before all else of the machine."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    yield
    if (os.sched_getscheduler(0), policy) != (os.SCHED_FIFO, os.SCHED_OTHER):
        return
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has ended
            if os.sched_getscheduler(int(thread.name)) == os.SCHED_FIFO:
                os.sched_setscheduler(int(thread.name), policy, parameters)


class VideoEncoder:
    """One opened video encoder. Belongs to one thread.

    Raises:
        LibavError: the build has no such encoder, or it refuses the parameters.
    """

    def __init__(
        self,
        *,
        codec: str,
        width: int,
        height: int,
        frame_rate: float,
        bit_rate: int,
        constant_bit_rate: bool = False,
        options: Mapping[str, str] | None = None,
        threads: int = 0,
    ) -> None:
        name = encoder_for(codec)
        if name is None:
            raise LibavError(f"this libav build has no encoder for {codec}")
        self.name = name
        self.codec = codec
        self.width, self.height = width, height
        self._pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        self._times: dict[int, int] = {}
        self._scale: tuple[int, int] | None = None  # of the packets' times, in µs
        self._container: OutputContainer | None = None
        try:
            description = bytearray()
            self._container = av.open(_Writer(description.extend), "w", format="nut")
            rate = Fraction(frame_rate).limit_denominator(1001)
            stream: Any = self._container.add_stream(name, rate=rate, options=dict(options or {}))
            self._stream = stream
            context = stream.codec_context
            context.width, context.height, context.pix_fmt = width, height, self._pixel_format
            context.time_base = _US_BASE
            context.gop_size = 1 << 15 if codec != "mjpeg" else 1  # key frames are asked for one by one
            context.max_b_frames = 0
            context.thread_count = threads or min(4, os.cpu_count() or 1)
            if bit_rate:
                context.bit_rate = bit_rate
                if constant_bit_rate:
                    context.rc_max_rate = bit_rate
            context.flags |= _GLOBAL_HEADER
            with _ordinary_threads():
                self._container.start_encoding()
            self.extradata = bytes(context.extradata or b"")
            _put_template_packet(self._container, stream, self.extradata)
        except (av.error.FFmpegError, ValueError, TypeError) as exc:
            raise LibavError(f"{name} cannot encode {width}x{height} at {frame_rate:g} fps: {_plain(exc)}") from exc
        self.header = bytes(description)  # a NUT file that describes the stream

    def encode(self, picture: _AVVideoFrame, pts_ns: int, *, key_frame: bool = False) -> list[Encoded]:
        """Encode one picture; pts_ns must rise from call to call."""
        pts_us = pts_ns // 1000
        self._times[pts_us] = pts_ns
        if (picture.width, picture.height, picture.format.name) != (self.width, self.height, self._pixel_format):
            picture = picture.reformat(width=self.width, height=self.height, format=self._pixel_format)
        picture.pts = pts_us
        picture.time_base = _US_BASE
        picture.pict_type = _PICTURE_TYPE_I if key_frame else 0
        return self._collect(picture)

    def flush(self) -> list[Encoded]:
        """What the encoder still holds; it takes no more pictures."""
        return self._collect(None)

    def _collect(self, picture: _AVVideoFrame | None) -> list[Encoded]:
        try:
            packets = self._stream.encode(picture)
        except (av.error.FFmpegError, ValueError) as exc:
            raise LibavError(f"{self.name}: {exc}") from exc
        encoded = []
        for packet in packets:
            if packet.pts is None or not packet.size:
                continue
            if self._scale is None:
                self._scale = (packet.time_base / _US_BASE).as_integer_ratio()
            pts_us = _scaled(packet.pts, self._scale)
            pts_ns = self._times.pop(pts_us, pts_us * 1000)
            encoded.append(Encoded(bytes(packet), pts_ns, pts_ns, 0, bool(packet.is_keyframe)))
        if len(self._times) > 64:  # pictures that the encoder swallowed
            for known in sorted(self._times)[:-32]:
                del self._times[known]
        return encoded

    def close(self) -> None:
        """Free the encoder with its threads and pictures, now and not when somebody collects garbage; idempotent."""
        container, self._container, self._stream = self._container, None, None
        if container is not None:
            _close(container)


class AudioEncoder:
    """One opened audio encoder, fed with interleaved PCM by absolute sample number. Belongs to one thread.

    follows_times: the PCM is resampled, by at most 1000 ppm, so that its samples lie where `at_ns` says.
    """

    def __init__(
        self,
        *,
        codec: str,
        source: AudioFormat,
        bit_rate: int,
        constant_bit_rate: bool = False,
        sample_rate: int = 0,
        follows_times: bool = False,
    ) -> None:
        name = encoder_for(codec)
        if name is None:
            raise LibavError(f"this libav build has no encoder for {codec}")
        self.name, self.codec = name, codec
        self._source = source
        self._layout = _layout(source.channels)
        self._time_base = Fraction(1, source.sample_rate)
        self._scale: tuple[int, int] | None = None  # of the packets' times, in samples
        self.sample_rate = sample_rate or encoder_sample_rate(codec, source.sample_rate)
        options: dict[str, str] = {}
        if codec == "aac":
            # M/S stereo costs the fast coder four times the rest when both channels are alike (27 to 37 against 7 ms of
            # CPU a second, measured with a sine); noise substitution and intensity stereo change the waveform. Temporal
            # noise shaping is a sixteenth of what the whole daemon costs.
            options |= {"aac_coder": "fast", "aac_ms": "0", "aac_pns": "0", "aac_is": "0", "aac_tns": "0"}
        if codec == "opus":
            options["vbr"] = "off" if constant_bit_rate else "on"
            # Of ten; costs 8 ms of CPU a second instead of 13, and makes no difference at the rates that are usual here
            # (WebRTC takes 5 on ARM).
            options["compression_level"] = "6"
        if codec == "flac":
            options["compression_level"] = "2"
        description = bytearray()
        self._container: OutputContainer | None = None
        try:
            self._container = av.open(_Writer(description.extend), "w", format="nut")
            self._stream: Any = self._open(self._container, options, bit_rate)
            if codec == "opus":  # NUT has checksums, and the pre-skip has to be changed
                description.clear()
                # Without random numbers: one of 1500 would have in them what `_without_opus_delay` looks for.
                options_of_twin = {"fflags": "+bitexact"}
                twin = av.open(_Writer(description.extend), "w", format="matroska", options=options_of_twin)
                try:
                    self._open(twin, options, bit_rate)
                finally:
                    _close(twin)
        except (av.error.FFmpegError, ValueError, TypeError) as exc:
            raise LibavError(
                f"{name} cannot encode {source.channels} channels at {self.sample_rate} Hz: {_plain(exc)}"
            ) from exc
        self.extradata = bytes(self._stream.codec_context.extradata or b"")
        self.frame_samples = int(self._stream.codec_context.frame_size or 0)
        self._resampler: _TimeResampler | None = None
        if follows_times:
            self._resampler = _TimeResampler(source, self._stream.codec_context.format.name, self.sample_rate)
        self.header = bytes(description)  # a small file that describes the stream
        if codec == "opus":
            self.header = _without_opus_delay(self.header)
            self.extradata = self.extradata[:10] + b"\0\0" + self.extradata[12:]

    def _open(self, container: OutputContainer, options: Mapping[str, str], bit_rate: int) -> Any:
        stream: Any = container.add_stream(self.name, rate=self.sample_rate, options=dict(options))
        context = stream.codec_context
        context.layout = self._layout
        if bit_rate and self.codec in ("aac", "opus"):
            context.bit_rate = max(bit_rate, 6000 * self._source.channels)
        context.flags |= _GLOBAL_HEADER
        container.start_encoding()
        _put_template_packet(container, stream, bytes(context.extradata or b""))
        return stream

    @property
    def follows_times(self) -> bool:
        return self._resampler is not None

    @property
    def behind_ns(self) -> float:
        """How much later than where it lies the last sample was meant to lie; 0 without resampling."""
        return 0.0 if self._resampler is None else self._resampler.behind_ns

    def encode(self, pcm: bytes, first_sample: int, *, at_ns: int = 0) -> list[Encoded]:
        """Encode PCM whose first sample has this number (at the source's rate).

        The packets' pts and duration count samples at `sample_rate`; numbers of successive calls must join.

        Args:
            at_ns: where the first sample belongs, from the first one of all; used with `follows_times`.
        """
        frame = _sound(self._source, self._layout, pcm)
        if self._resampler is None:
            frame.pts = first_sample
            frame.time_base = self._time_base
            return self._collect(frame)
        encoded = []
        for part in self._resampler.push(frame, at_ns):
            encoded += self._collect(part)
        return encoded

    def flush(self) -> list[Encoded]:
        """What the encoder still holds, the last packet padded with silence; it takes no more PCM."""
        encoded = []
        if self._resampler is not None:
            for part in self._resampler.flush():
                encoded += self._collect(part)
        return encoded + self._collect(None)

    def _collect(self, frame: _AVAudioFrame | None) -> list[Encoded]:
        try:
            packets = self._stream.encode(frame)
        except (av.error.FFmpegError, ValueError) as exc:
            raise LibavError(f"{self.name}: {exc}") from exc
        encoded = []
        for packet in packets:
            if packet.pts is None or not packet.size:
                continue
            if self._scale is None:
                self._scale = (packet.time_base * self.sample_rate).as_integer_ratio()
            duration = _scaled(packet.duration or 0, self._scale) or self.frame_samples
            pts = _scaled(packet.pts, self._scale)
            encoded.append(Encoded(bytes(packet), pts, pts, duration, True))
        return encoded

    def close(self) -> None:
        """Free the encoder with its threads and pictures, now and not when somebody collects garbage; idempotent."""
        self._resampler = None
        container, self._container, self._stream = self._container, None, None
        if container is not None:
            _close(container)


class _TimeResampler:
    """Resamples PCM so that it follows its times: libav's `aresample` with soft compensation only.

    The rate is changed by what is lacking now (1 ms: 1000 ppm), at most by 1000 ppm (1.7 cents, which no ear notices):
    of a steady error of the source's clock of 200 ppm, 0.2 ms remain. Samples are never inserted or dropped.
    """

    # Without interpolation between the filter's 1024 phases: a third less CPU, and noise far below the codec's.
    _OPTIONS = "min_comp=0.000005:max_soft_comp=0.001:comp_duration=4:min_hard_comp=1000000:linear_interp=0"

    def __init__(self, source: AudioFormat, sample_format: str, sample_rate: int) -> None:
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
                layout=_layout(source.channels),
                time_base=_NS_BASE,
            )
            filter = self._graph.add(
                "aresample", f"{sample_rate}:osf={sample_format}:flags=+res:async=1:{self._OPTIONS}"
            )
            sink = self._graph.add("abuffersink")
            buffer.link_to(filter)
            filter.link_to(sink)
            self._graph.configure()
        except (av.error.FFmpegError, ValueError) as exc:
            raise LibavError(f"cannot resample {source.sample_rate} Hz: {_plain(exc)}") from exc
        self._buffer, self._sink = buffer, sink

    def push(self, frame: _AVAudioFrame, at_ns: int) -> list[_AVAudioFrame]:
        """The sound that is ready, on a line of samples at the new rate without holes."""
        frame.pts = at_ns
        frame.time_base = _NS_BASE
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
            raise LibavError(f"resampling failed: {_plain(exc)}") from exc


def _sound(format: AudioFormat, layout: str, pcm: bytes) -> _AVAudioFrame:
    """A libav frame of interleaved PCM."""
    frame = _AVAudioFrame(format=format.sample_format, layout=layout, samples=len(pcm) // format.frame_bytes)
    plane = frame.planes[0]
    if plane.buffer_size > len(pcm):
        pcm = pcm + bytes(plane.buffer_size - len(pcm))
    plane.update(pcm)
    frame.sample_rate = format.sample_rate
    return frame


def _scaled(value: int, scale: tuple[int, int]) -> int:
    """value times a fraction, rounded; fractions.Fraction costs microseconds a packet."""
    numerator, denominator = scale
    return (value * numerator + denominator // 2) // denominator


def encoder_sample_rate(codec: str, source_rate: int) -> int:
    """The rate an encoder works at for a source's rate (Opus knows five, AAC thirteen)."""
    if codec == "opus":
        return 48000
    if codec == "aac":
        rates = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
        return source_rate if source_rate in rates else 48000
    return source_rate


class Muxer:
    """One container being written through `write`, packet by packet. Belongs to one thread; always close it.

    `write(bytes)` gets the file in order, never seeks, and must not raise (an exception would pass through C code);
    a sink that fails latches its error and is asked by the owner.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        *,
        format: str,
        headers: Sequence[bytes],
        options: Mapping[str, str] | None = None,
    ) -> None:
        templates: list[InputContainer] = []
        try:
            self._container: OutputContainer = av.open(
                _Writer(write), "w", format=format, options=dict(options or {}), buffer_size=_WRITE_BUFFER
            )
            try:
                self._container.flags |= _FLUSH_PACKETS
                self._streams: list[Any] = []
                for header in headers:
                    template = _open_template(header)
                    templates.append(template)
                    stream: Any = self._container.add_stream_from_template(template.streams[0], opaque=True)
                    if format == "mp4" and stream.codec_context.name.endswith("vp9"):
                        stream.codec_context.pix_fmt = "yuv420p"  # without it vpcC stays empty, and no browser takes it
                    if format == "mp4" and stream.codec_context.name.startswith("hevc"):
                        stream.codec_context.codec_tag = (
                            "hvc1"  # what the type says; libav's hev1 is nothing for Apple's
                        )
                    self._streams.append(stream)
                self._container.start_encoding()
            except BaseException:
                _close(self._container)
                raise
        except (av.error.FFmpegError, ValueError, TypeError) as exc:
            raise LibavError(f"cannot write {format}: {exc}") from exc
        finally:
            for template in templates:
                template.close()

    def write(
        self, stream: int, data: bytes | memoryview, *, pts_ns: int, dts_ns: int, duration_ns: int, is_keyframe: bool
    ) -> None:
        """Mux one packet; times are ns from the container's zero, dts rising per stream.

        Raises:
            LibavError: the muxer refused it; the container can only be closed now.
        """
        packet = av.Packet(cast(bytes, data))
        packet.stream = self._streams[stream]
        base, unit = (_NS_BASE, 1) if duration_ns <= _MAX_DURATION else (_US_BASE, 1000)
        packet.time_base = base
        packet.pts = pts_ns // unit
        packet.dts = dts_ns // unit
        packet.duration = min(duration_ns // unit, _MAX_DURATION)
        packet.is_keyframe = is_keyframe
        try:
            self._container.mux_one(packet)
        except (av.error.FFmpegError, ValueError) as exc:
            raise LibavError(f"muxing failed: {exc}") from exc

    def close(self) -> None:
        """Write what is pending and the trailer.

        Raises:
            LibavError: the trailer could not be written; the container is closed all the same.
        """
        try:
            self._container.close()
        except (av.error.FFmpegError, ValueError, OSError) as exc:
            raise LibavError(f"closing the container failed: {exc}") from exc


class _Writer:
    """What PyAV takes for a file: write only, so libav treats it as a stream that cannot seek."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def write(self, data: bytes) -> int:
        self._write(bytes(data))
        return len(data)


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """One stream of an opened input, as its container describes it."""

    index: int
    kind: Kind
    codec: str
    extradata: bytes
    header: bytes
    width: int = 0
    height: int = 0
    frame_rate: float | None = None
    sample_rate: int = 0
    channels: int = 0
    frame_samples: int = 0


@dataclass(frozen=True, slots=True)
class Demuxed:
    """One packet of an input; times in ns of the input's own time line, None where the container has none."""

    stream: int
    data: bytes
    pts_ns: int | None
    dts_ns: int | None
    duration_ns: int
    is_keyframe: bool
    raw: Any  # libav's packet, for Decoder


class Demuxer:
    """An opened file or network stream. Belongs to one thread.

    Raises:
        LibavError: it cannot be opened or read; the message says why.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self._timeout_s = timeout_s
        self.streams: list[StreamInfo] = []
        format = _TOLD_BY_HEADER.get(Path(url).suffix.lower()) if Path(url).is_file() else None
        if format is None or not self._open_quickly(url, format):
            self._open(url, {})

    def _open_quickly(self, url: str, format: str) -> bool:
        """What the container's header says is enough for most files; probing tries all demuxers and decodes pictures,
        which costs megabytes. False: it was not enough, or the file's name lies.
        """
        try:
            self._open(url, _NO_PROBING, format)
        except LibavError:
            return False
        if self.streams and all(map(_is_described, self.streams)):
            return True
        _close(self._container)
        return False

    def _open(self, url: str, options: dict[str, str], format: str | None = None) -> None:
        if url.startswith(("rtsp://", "rtsps://")):
            options = {"rtsp_transport": "tcp", "timeout": str(int(self._timeout_s * 1e6))}
        limits = (self._timeout_s, self._timeout_s)
        try:
            self._container: InputContainer = av.open(url, "r", format=format, options=options, timeout=limits)
        except (av.error.FFmpegError, ValueError, OSError) as exc:
            raise LibavError(f"cannot open {url}: {_plain(exc)}") from exc
        described = map(_stream_info, self._container.streams)
        self.streams = [info for info in described if info is not None]

    def packets(self, indexes: Sequence[int]) -> Iterator[Demuxed]:
        """The packets of the given streams until the end of the input."""
        streams: list[Any] = [self._container.streams[index] for index in indexes]
        try:
            for packet in self._container.demux(*streams):
                if packet.size == 0:
                    continue
                base = packet.time_base
                scale_n, scale_d = base.numerator * NS, base.denominator
                yield Demuxed(
                    packet.stream.index,
                    bytes(packet),
                    None if packet.pts is None else packet.pts * scale_n // scale_d,
                    None if packet.dts is None else packet.dts * scale_n // scale_d,
                    (packet.duration or 0) * scale_n // scale_d,
                    bool(packet.is_keyframe),
                    packet,
                )
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, ValueError, OSError) as exc:
            raise LibavError(_plain(exc)) from exc

    def rewind(self) -> None:
        """Go back to the beginning."""
        try:
            self._container.seek(self._container.start_time or 0)
        except av.error.FFmpegError as exc:
            raise LibavError(f"cannot go back to the beginning: {_plain(exc)}") from exc

    def close(self) -> None:
        _close(self._container)


class VideoDecoder:
    """Decodes Demuxed or encoded packets of one stream to pictures. Belongs to one thread."""

    def __init__(self, header: bytes) -> None:
        self._template = _open_template(header)
        self._context: Any = self._template.streams[0].codec_context

    def decode(self, data: bytes, pts_ns: int) -> list[tuple[int, _AVVideoFrame]]:
        """Pictures that became ready, with their pts in ns."""
        packet = av.Packet(data)
        packet.pts = packet.dts = pts_ns
        packet.time_base = _NS_BASE
        try:
            return [(frame.pts or 0, frame) for frame in self._context.decode(packet)]
        except av.error.FFmpegError as exc:
            raise LibavError(_plain(exc)) from exc

    def flush(self) -> list[tuple[int, _AVVideoFrame]]:
        try:
            return [(frame.pts or 0, frame) for frame in self._context.decode(None)]
        except av.error.FFmpegError:
            return []

    def close(self) -> None:
        """Free the decoder with its threads and pictures."""
        self._context = None
        _close(self._template)


class AudioDecoder:
    """Decodes packets of one stream to interleaved s16 PCM. Belongs to one thread."""

    def __init__(self, header: bytes) -> None:
        self._template = _open_template(header)
        self._context: Any = self._template.streams[0].codec_context
        self._resampler: AudioResampler | None = None

    def decode(self, data: bytes) -> bytes:
        """The PCM of one packet; empty while the decoder fills."""
        packet = av.Packet(data)
        pcm = bytearray()
        try:
            for frame in self._context.decode(packet):
                if self._resampler is None:
                    self._resampler = AudioResampler(format="s16", layout=frame.layout.name, rate=frame.sample_rate)
                frame.pts = None
                for block in self._resampler.resample(frame):
                    size = block.samples * len(block.layout.channels) * 2
                    pcm += memoryview(block.planes[0])[:size]
        except av.error.FFmpegError as exc:
            raise LibavError(_plain(exc)) from exc
        return bytes(pcm)

    def close(self) -> None:
        """Free the decoder with its threads and pictures."""
        self._context = None
        _close(self._template)


# --- pictures --------------------------------------------------------------------------------------------------------


def picture(format: VideoFormat, data: bytes | bytearray | memoryview) -> _AVVideoFrame:
    """A libav picture of packed planes."""
    frame = _AVVideoFrame(format.width, format.height, format.pixel_format)
    view = memoryview(data)
    offset = 0
    for plane in frame.planes:
        if format.pixel_format == "rgb24":
            row, rows = format.width * 3, format.height
        else:
            row, rows = plane.width, plane.height
        part = view[offset : offset + row * rows]
        offset += row * rows
        if plane.line_size == row and plane.buffer_size == row * rows:
            plane.update(cast(bytes, part))
        else:
            edge = 3 if format.pixel_format == "rgb24" else 1  # older scalers look at the pixel behind an odd row
            times = -(-(plane.line_size - row) // edge)
            lines = (bytes(part[i : i + row]) for i in range(0, row * rows, row))
            padded = b"".join((line + line[-edge:] * times)[: plane.line_size] for line in lines)
            plane.update(padded + bytes(max(0, plane.buffer_size - len(padded))))
    return frame


def planes(frame: _AVVideoFrame, pixel_format: str, *, size: tuple[int, int] | None = None) -> bytes:
    """The packed planes of a libav picture, converted to `pixel_format` and scaled to `size` (width, height)."""
    width, height = size or (frame.width, frame.height)
    if (frame.format.name, frame.width, frame.height) != (pixel_format, width, height):
        frame = frame.reformat(width=width, height=height, format=pixel_format)
    parts = []
    for plane in frame.planes:
        row = frame.width * 3 if pixel_format == "rgb24" else plane.width
        rows = frame.height if pixel_format == "rgb24" else plane.height
        view = memoryview(plane)
        if plane.line_size == row:
            parts.append(bytes(view[: row * rows]))
        else:
            parts.extend(bytes(view[i * plane.line_size : i * plane.line_size + row]) for i in range(rows))
    return b"".join(parts)


def jpeg(frame: _AVVideoFrame, *, max_width: int = 1920) -> bytes:
    """A JPEG file of one picture, scaled down to `max_width`."""
    width = min(frame.width, max_width) & ~1
    height = (frame.height * width // frame.width) & ~1
    encoder = VideoEncoder(codec="mjpeg", width=width, height=height, frame_rate=25, bit_rate=0, threads=1)
    try:
        packets = encoder.encode(frame, 0, key_frame=True) + encoder.flush()
    finally:
        encoder.close()
    if not packets:
        raise LibavError("the JPEG encoder gave nothing")
    return packets[0].data


# --- inside ----------------------------------------------------------------------------------------------------------


def stream_info_of_annexb(key_frame: bytes, codec: str = "h264") -> StreamInfo:
    """What a raw H.264 (or "hevc") key frame with in-band parameter sets says about its stream.

    Raises:
        LibavError: there are no parameter sets in it.
    """
    try:
        container = av.open(io.BytesIO(key_frame), format=codec)
    except (av.error.FFmpegError, ValueError) as exc:
        raise LibavError(f"not a {codec} key frame with parameter sets: {_plain(exc)}") from exc
    try:
        info = _stream_info(container.streams[0])
    finally:
        container.close()
    if info is None or not info.width:
        raise LibavError(f"not a {codec} key frame with parameter sets")
    return info


def _is_described(info: StreamInfo) -> bool:
    """Whether a stream is known well enough to be passed through or decoded."""
    if info.codec in ("h264", "hevc", "av1", "aac", "opus", "flac") and not info.extradata:
        return False
    if info.kind == "video":
        return info.width > 0 and info.frame_rate is not None and info.frame_rate < 500
    return info.sample_rate > 0 and info.channels > 0


def _stream_info(stream: Any) -> StreamInfo | None:
    context = getattr(stream, "codec_context", None)
    if context is None or stream.type not in ("video", "audio"):
        return None
    codec = context.codec.canonical_name if hasattr(context.codec, "canonical_name") else context.name
    extradata = bytes(context.extradata or b"")
    common: dict[str, Any] = {
        "index": stream.index,
        "codec": {"libvpx-vp9": "vp9", "libdav1d": "av1"}.get(codec, codec),
        "extradata": extradata,
        "header": _nut_from_input(stream, extradata),
    }
    if stream.type == "video":
        rate = stream.average_rate or stream.guessed_rate
        return StreamInfo(
            kind="video",
            width=context.width,
            height=context.height,
            frame_rate=float(rate) if rate else None,
            **common,
        )
    return StreamInfo(
        kind="audio",
        sample_rate=context.sample_rate,
        channels=len(context.layout.channels),
        frame_samples=int(getattr(context, "frame_size", 0) or 0),
        **common,
    )


def _template_packet(extradata: bytes) -> bytes:
    """A packet that makes a demuxer believe the stream and a decoder do nothing: an access unit delimiter."""
    if extradata[:1] == b"\x01":  # avcC or hvcC: length-prefixed
        return b"\0\0\0\2\x09\xf0"
    return b"\0\0\0\1\x09\xf0"


def _put_template_packet(container: OutputContainer, stream: Any, extradata: bytes) -> None:
    packet = av.Packet(_template_packet(extradata))
    packet.stream = stream
    packet.pts = packet.dts = 0
    packet.is_keyframe = True
    container.mux_one(packet)


def _nut_from_input(stream: Any, extradata: bytes) -> bytes:
    description = bytearray()
    container = av.open(_Writer(description.extend), "w", format="nut")
    try:
        twin = container.add_stream_from_template(stream, opaque=True)
        container.start_encoding()
        _put_template_packet(container, twin, extradata)
    except (av.error.FFmpegError, ValueError) as exc:
        raise LibavError(f"cannot describe the {stream.type} stream: {_plain(exc)}") from exc
    finally:
        _close(container)
    return bytes(description)


def _without_opus_delay(matroska: bytes) -> bytes:
    """Set the pre-skip of OpusHead and Matroska's CodecDelay to zero.

    The packets of one encoder are spread over many chunks and placed by their own times (which already allow for the
    encoder's delay), so no chunk has anything to skip.
    """
    changed = bytearray(matroska)
    head = matroska.find(b"OpusHead")
    if head >= 0:
        changed[head + 10 : head + 12] = b"\0\0"
    delay = matroska.find(b"\x56\xaa")
    if delay >= 0:
        length = matroska[delay + 2] & 0x7F
        changed[delay + 3 : delay + 3 + length] = bytes(length)
    return bytes(changed)


def _open_template(header: bytes) -> InputContainer:
    # Told the format, libav does not try all of its demuxers on it.
    format = "matroska" if header.startswith(_EBML) else "nut"
    return av.open(io.BytesIO(header), "r", format=format, options=dict(_NO_PROBING))


def _close(container: InputContainer | OutputContainer) -> None:
    try:
        container.close()
    except (av.error.FFmpegError, ValueError, OSError):
        return  # nothing of it is wanted any more


def _layout(channels: int) -> str:
    return {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")


def _plain(exc: BaseException) -> str:
    """libav's words without PyAV's decoration of numbers."""
    return str(getattr(exc, "strerror", None) or exc)


__all__ = [
    "AudioDecoder",
    "AudioEncoder",
    "Demuxed",
    "Demuxer",
    "Encoded",
    "LibavError",
    "Muxer",
    "StreamInfo",
    "VideoDecoder",
    "VideoEncoder",
    "encoder_for",
    "encoder_sample_rate",
    "jpeg",
    "picture",
    "planes",
    "stream_info_of_annexb",
]
