"""Decoders: packets of one stream to frames or PCM."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
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


class _Reader:
    """What PyAV takes for a file that cannot seek; the position of the descriptor belongs to others."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._at = 0

    def read(self, size: int) -> bytes:
        data = os.pread(self._fd, size, self._at)
        self._at += len(data)
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class FlacFacts:
    """What STREAMINFO says of a whole file (RFC 9639, 8.2): samples of a channel, sizes of frames, MD5 of the PCM."""

    samples: int
    smallest: int
    largest: int
    md5: bytes


def flac_facts(fd: int, alive: Callable[[], None] = lambda: None) -> FlacFacts:
    """Decode a FLAC file; blocking, a second or so for an hour. `alive` is called after each frame.

    Raises:
        LibavError: it is none, or is damaged.
    """
    digest = hashlib.md5(usedforsecurity=False)
    samples = smallest = largest = 0
    try:
        with av.open(_Reader(fd), "r", format="flac") as container:
            stream = container.streams.audio[0]
            for packet in container.demux(stream):
                for frame in stream.codec_context.decode(packet):
                    channels = len(frame.layout.channels)
                    pcm = bytes(memoryview(frame.planes[0])[: frame.samples * channels * _bytes_of(frame.format.name)])
                    digest.update(_packed(pcm) if frame.format.name == "s32" else pcm)
                    samples += frame.samples
                    smallest, largest = min(smallest or packet.size, packet.size), max(largest, packet.size)
                    alive()
    except (av.error.FFmpegError, ValueError, IndexError, OSError) as exc:
        raise LibavError(plain(exc)) from exc
    return FlacFacts(samples=samples, smallest=smallest, largest=largest, md5=digest.digest())


def _bytes_of(sample_format: str) -> int:
    return 4 if sample_format == "s32" else 2


def _packed(pcm: bytes) -> bytes:
    """24 bits in the upper part of 32 as three bytes, little endian."""
    packed = bytearray(len(pcm) // 4 * 3)
    packed[0::3], packed[1::3], packed[2::3] = pcm[1::4], pcm[2::4], pcm[3::4]
    return bytes(packed)
