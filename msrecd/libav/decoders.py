"""Decoders: packets of one stream to frames or PCM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import av
import av.error
from av.audio.resampler import AudioResampler
from av.video.frame import VideoFrame as _AVVideoFrame

from msrecd.libav.common import MAX_PIXELS, NS_BASE, close_quietly, layout_of, open_template, plain
from msrecd.libav.values import LibavError


class VideoDecoder:
    """Decodes Demuxed or encoded packets of one stream to frames. Belongs to one thread.

    Raises:
        LibavError: the header is none, or (from `decode`) a packet cannot be decoded.
    """

    def __init__(self, header: bytes, max_pixels: int = MAX_PIXELS) -> None:
        self._template = open_template(header)
        self._context: Any = self._template.streams[0].codec_context
        # One frame of 8192x8704 costs a decoder with its threads 2 GiB, and 17 KB of file are enough to ask for it.
        self._context.options = {"max_pixels": str(max_pixels)}

    def decode(self, data: bytes | memoryview, pts_ns: int) -> list[tuple[int, _AVVideoFrame]]:
        """Frames that became ready, with their pts in ns."""
        packet = av.Packet(cast(bytes, data))
        packet.pts = packet.dts = pts_ns
        packet.time_base = NS_BASE
        try:
            return [(frame.pts or 0, frame) for frame in self._context.decode(packet)]
        except av.error.FFmpegError as exc:
            raise LibavError(plain(exc)) from exc

    def flush(self) -> list[tuple[int, _AVVideoFrame]]:
        """The frames that are still in it; a key frame may follow."""
        try:
            return [(frame.pts or 0, frame) for frame in self._context.decode(None)]
        except av.error.FFmpegError:
            return []
        finally:
            self._context.flush_buffers()

    def close(self) -> None:
        """Free the decoder with its threads and frames."""
        self._context = None
        close_quietly(self._template)


class AudioDecoder:
    """Decodes packets of one stream to interleaved PCM, "s16" or "s32". Belongs to one thread.

    channels, layout, sample_rate: of the PCM, whatever the packets turn out to have.

    Raises:
        LibavError: the header is none, or (from `decode`) a packet cannot be decoded.
    """

    def __init__(
        self,
        header: bytes,
        sample_format: Literal["s16", "s32"] = "s16",
        *,
        channels: int,
        sample_rate: int,
        layout: str = "",
    ) -> None:
        self._template = open_template(header)
        self._context: Any = self._template.streams[0].codec_context
        self._frame_bytes = channels * (2 if sample_format == "s16" else 4)
        self._wanted = {"format": sample_format, "layout": layout_of(channels, layout), "rate": sample_rate}
        self._resampler: AudioResampler | None = None
        self._comes: tuple[object, ...] = ()

    def decode(self, data: bytes | memoryview) -> bytes:
        """The PCM of one packet; empty while the decoder fills."""
        packet = av.Packet(cast(bytes, data))
        pcm = bytearray()
        try:
            for frame in self._context.decode(packet):
                comes = (frame.format.name, frame.layout.name, frame.sample_rate)
                if self._resampler is None or comes != self._comes:  # a stream may change, and its header may lie
                    self._resampler, self._comes = AudioResampler(**cast(Any, self._wanted)), comes
                frame.pts = None
                for block in self._resampler.resample(frame):
                    pcm += memoryview(block.planes[0])[: block.samples * self._frame_bytes]
        except (av.error.FFmpegError, ValueError) as exc:
            raise LibavError(plain(exc)) from exc
        return bytes(pcm)

    def close(self) -> None:
        """Free the decoder."""
        self._context = None
        close_quietly(self._template)


@dataclass(frozen=True, slots=True)
class FlacFrame:
    """One frame of a FLAC file: its size as it lies there, samples of a channel, the PCM as FLAC's MD5 counts it."""

    size: int
    samples: int
    pcm: bytes


def flac_frames(path: str) -> Iterator[FlacFrame]:
    """Decode a FLAC file frame by frame; blocking.

    Raises:
        LibavError: it is none, or is damaged.
    """
    try:
        with av.open(path, "r", format="flac") as container:
            stream = container.streams.audio[0]
            for packet in container.demux(stream):
                for frame in stream.codec_context.decode(packet):
                    channels = len(frame.layout.channels)
                    pcm = bytes(memoryview(frame.planes[0])[: frame.samples * channels * _bytes_of(frame.format.name)])
                    yield FlacFrame(packet.size, frame.samples, _packed(pcm) if frame.format.name == "s32" else pcm)
    except (av.error.FFmpegError, ValueError, IndexError) as exc:
        raise LibavError(plain(exc)) from exc


def _bytes_of(sample_format: str) -> int:
    return 4 if sample_format == "s32" else 2


def _packed(pcm: bytes) -> bytes:
    """24 bits in the upper part of 32 as three bytes, little endian."""
    packed = bytearray(len(pcm) // 4 * 3)
    packed[0::3], packed[1::3], packed[2::3] = pcm[1::4], pcm[2::4], pcm[3::4]
    return bytes(packed)
