"""Encoders: one opened encoder each, with a header that describes its stream to muxers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
from av.audio.frame import AudioFrame as _AVAudioFrame
from av.container.output import OutputContainer
from av.video.frame import VideoFrame as _AVVideoFrame

from msrecd.flow.units import UPRIGHT, AudioFormat, Presentation
from msrecd.libav.colors import converted, describe, encoded_presentation
from msrecd.libav.common import (
    GLOBAL_HEADER,
    US_BASE,
    Writer,
    close_quietly,
    layout_of,
    plain,
    put_template_packet,
)
from msrecd.libav.headers import without_opus_delay
from msrecd.libav.resampler import TimeResampler
from msrecd.libav.values import Encoded, LibavError, encoder_sample_rate, scaled

_TYPE_I = 1

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
    "pcm_s24le": ("pcm_s24le",),
    "pcm_s32le": ("pcm_s32le",),
}
PCM_BYTES: Mapping[str, int] = {"pcm_s16le": 2, "pcm_s24le": 3, "pcm_s32le": 4}  # of a sample of one channel
_MOST_CHANNELS: Mapping[str, int] = {"aac": 8, "opus": 8, "flac": 8}
_OPUS_LIMIT = 256_000  # bits a second of each channel; libopus refuses more
_AV1_LIMIT = 100_000_000  # bits a second; SVT-AV1 refuses more


def encoder_for(codec: str) -> str | None:
    """The libav encoder that this build has for a codec, None without one."""
    for name in _ENCODERS.get(codec, ()):
        try:
            av.codec.Codec(name, "w")
        except (ValueError, av.error.FFmpegError):
            continue
        return name
    return None


def most_channels(codec: str) -> int:
    """How many channels the encoder of a codec takes."""
    return _MOST_CHANNELS.get(codec, 255)


def nominal_rate(frame_rate: float) -> Fraction:
    """A frame rate as encoders take it, however slow; the frames' own times tell it exactly."""
    if frame_rate < 1:
        return Fraction(1, round(1 / frame_rate))
    return Fraction(frame_rate).limit_denominator(1001)


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
        presentation: Presentation = UPRIGHT,
    ) -> None:
        """
        Args:
            presentation: of the frames that come; full range is converted to limited, everything else kept.
        """
        name = encoder_for(codec)
        if name is None:
            raise LibavError(f"this libav build has no encoder for {codec}")
        self.name = name
        self.codec = codec
        self.width, self.height = width, height
        self._pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        self.presentation = encoded_presentation(presentation, codec)
        self._times: dict[int, int] = {}
        self._scale: tuple[int, int] | None = None  # of the packets' times, in µs
        self._container: OutputContainer | None = None
        self._stream: Any = None
        try:
            description = bytearray()
            self._container = av.open(Writer(description.extend), "w", format="nut")
            rate = nominal_rate(frame_rate)
            self._stream = self._container.add_stream(name, rate=rate, options=dict(options or {}))
            self._set_up(self._stream.codec_context, bit_rate, constant_bit_rate, threads)
            with _ordinary_threads():
                self._container.start_encoding()
            self.extradata = bytes(self._stream.codec_context.extradata or b"")
            put_template_packet(self._container, self._stream, self.extradata)
        except (av.error.FFmpegError, ValueError, TypeError, OverflowError) as exc:
            self.close()
            what = f"{width}x{height} at {frame_rate:g} fps"
            raise LibavError(f"{name} cannot encode {what}: {plain(exc)}") from _freed(exc)
        self.header = bytes(description)  # a NUT file that describes the stream

    def _set_up(self, context: Any, bit_rate: int, constant_bit_rate: bool, threads: int) -> None:
        context.width, context.height, context.pix_fmt = self.width, self.height, self._pixel_format
        context.time_base = US_BASE
        context.gop_size = 1 << 15 if self.codec != "mjpeg" else 1  # key frames are asked for one by one
        context.max_b_frames = 0
        context.thread_count = threads or min(4, os.cpu_count() or 1)
        if bit_rate and self.codec == "av1":
            bit_rate = min(bit_rate, _AV1_LIMIT)
        if bit_rate:
            context.bit_rate = bit_rate
            if constant_bit_rate:
                context.rc_max_rate = bit_rate
        describe(context, self.presentation)
        context.flags |= GLOBAL_HEADER

    def encode(self, frame: _AVVideoFrame, pts_ns: int, *, key_frame: bool = False) -> list[Encoded]:
        """Encode one frame; pts_ns must rise from call to call."""
        pts_us = pts_ns // 1000
        self._times[pts_us] = pts_ns
        frame = converted(frame, self._pixel_format, self.width, self.height)
        frame.pts = pts_us
        frame.time_base = US_BASE
        frame.pict_type = _TYPE_I if key_frame else 0
        return self._collect(frame)

    def flush(self) -> list[Encoded]:
        """What the encoder still holds; it takes no more frames."""
        return self._collect(None)

    def _collect(self, frame: _AVVideoFrame | None) -> list[Encoded]:
        encoded = []
        for packet in _packets(self.name, self._stream, frame):
            if self._scale is None:
                self._scale = (packet.time_base / US_BASE).as_integer_ratio()
            pts_us = scaled(packet.pts, self._scale)
            pts_ns = self._times.pop(pts_us, pts_us * 1000)
            encoded.append(Encoded(bytes(packet), pts_ns, pts_ns, 0, bool(packet.is_keyframe)))
        if len(self._times) > 64:  # frames that the encoder swallowed
            for known in sorted(self._times)[:-32]:
                del self._times[known]
        return encoded

    def close(self) -> None:
        """Free the encoder with its threads and frames, now and not when somebody collects garbage; idempotent."""
        container, self._container, self._stream = self._container, None, None
        if container is not None:
            close_quietly(container)


class AudioEncoder:
    """One opened audio encoder, fed with interleaved PCM by absolute sample number. Belongs to one thread.

    follows_times: the PCM is resampled, by at most 1000 ppm, so that its samples lie where `at_ns` says.

    Raises:
        LibavError: the build has no such encoder, or it refuses the parameters.
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
        self.channels = source.channels
        self.layout = source.layout
        self.bits = _bits_of(codec, source)
        self._layout = layout_of(source.channels, source.layout, codec=codec)
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
        self._resampler: TimeResampler | None = None
        self._container: OutputContainer | None = None
        self._stream: Any = None
        try:
            self._container = av.open(Writer(description.extend), "w", format="nut")
            self._stream = self._open(self._container, options, bit_rate)
            if codec == "opus":  # NUT has checksums, and the pre-skip has to be changed
                description.clear()
                # Without random numbers: one of 1500 would have in them what `without_opus_delay` looks for.
                options_of_twin = {"fflags": "+bitexact"}
                twin = av.open(Writer(description.extend), "w", format="matroska", options=options_of_twin)
                try:
                    self._open(twin, options, bit_rate)
                finally:
                    close_quietly(twin)
            if follows_times:
                self._resampler = TimeResampler(
                    source, self._layout, self._stream.codec_context.format.name, self.sample_rate
                )
        except LibavError:
            self.close()
            raise
        except (av.error.FFmpegError, ValueError, TypeError, OverflowError) as exc:
            self.close()
            what = f"{source.channels} channels at {self.sample_rate} Hz"
            raise LibavError(f"{name} cannot encode {what}: {plain(exc)}") from _freed(exc)
        self.extradata = bytes(self._stream.codec_context.extradata or b"")
        self.frame_samples = int(self._stream.codec_context.frame_size or 0)
        self.header = bytes(description)  # a small file that describes the stream
        if codec == "opus":
            self.header = without_opus_delay(self.header)
            self.extradata = self.extradata[:10] + b"\0\0" + self.extradata[12:]

    def _open(self, container: OutputContainer, options: Mapping[str, str], bit_rate: int) -> Any:
        stream: Any = container.add_stream(self.name, rate=self.sample_rate, options=dict(options))
        context = stream.codec_context
        context.layout = self._layout
        if self._source.sample_format == "s32" and self.codec == "flac":
            context.format = "s32"  # 24 bits: libav's encoder would take the first format it knows, which is s16
        if bit_rate and self.codec in ("aac", "opus"):
            highest = _OPUS_LIMIT if self.codec == "opus" else bit_rate
            context.bit_rate = max(6000 * self._source.channels, min(bit_rate, highest * self._source.channels))
        context.flags |= GLOBAL_HEADER
        container.start_encoding()
        put_template_packet(container, stream, bytes(context.extradata or b""))
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
        encoded = []
        for packet in _packets(self.name, self._stream, frame):
            if self._scale is None:
                self._scale = (packet.time_base * self.sample_rate).as_integer_ratio()
            duration = scaled(packet.duration or 0, self._scale) or self.frame_samples
            pts = scaled(packet.pts, self._scale)
            encoded.append(Encoded(bytes(packet), pts, pts, duration, True))
        return encoded

    def close(self) -> None:
        """Free the encoder, now and not when somebody collects garbage; idempotent."""
        self._resampler = None
        container, self._container, self._stream = self._container, None, None
        if container is not None:
            close_quietly(container)


def _packets(name: str, stream: Any, frame: _AVVideoFrame | _AVAudioFrame | None) -> list[Any]:
    """What the encoder gives for a frame (None: for the end), without the empty packets that some give."""
    try:
        packets = stream.encode(frame)
    except (av.error.FFmpegError, ValueError) as exc:
        raise LibavError(f"{name}: {exc}") from exc
    return [packet for packet in packets if packet.pts is not None and packet.size]


def _freed(exc: Exception) -> Exception:
    """Without its traceback, whose frames would keep the failed encoder and its threads for as long as the error."""
    return exc.with_traceback(None)


def _bits_of(codec: str, source: AudioFormat) -> int:
    """Bits of a sample that reach the file; 0 where the codec has no such thing."""
    if codec == "flac":
        return 24 if source.sample_format == "s32" else 16
    return 8 * PCM_BYTES.get(codec, 0)


def _sound(format: AudioFormat, layout: str, pcm: bytes) -> _AVAudioFrame:
    """A libav frame of interleaved PCM."""
    frame = _AVAudioFrame(format=format.sample_format, layout=layout, samples=len(pcm) // format.frame_bytes)
    plane = frame.planes[0]
    if plane.buffer_size > len(pcm):
        pcm = pcm + bytes(plane.buffer_size - len(pcm))
    plane.update(pcm)
    frame.sample_rate = format.sample_rate
    return frame


@contextmanager
def _ordinary_threads() -> Iterator[None]:
    """Undo what SVT-AV1 does when root opens it: it and who called it would run before all else of the machine."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if (os.sched_getscheduler(0), policy) == (os.SCHED_FIFO, os.SCHED_OTHER):
            for thread in Path("/proc/self/task").iterdir():
                with suppress(OSError):  # it has ended
                    if os.sched_getscheduler(int(thread.name)) == os.SCHED_FIFO:
                        os.sched_setscheduler(int(thread.name), policy, parameters)
