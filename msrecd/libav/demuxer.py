"""Inputs: files, network streams, and what a single key frame says."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import av.error
from av.container.input import InputContainer

from msrecd.libav.common import NO_PROBING, NS, Writer, close_quietly, plain, put_template_packet
from msrecd.libav.values import Demuxed, LibavError, StreamInfo, is_described
from msrecd.vocabulary.formats import CONTAINER_OF_SUFFIX

# Suffix -> libav's demuxer, where the header of the file describes all streams.
_DESCRIBED_BY_HEADER: dict[str, str] = {".mov": "mov"} | {
    suffix: one.demuxer for suffix, one in CONTAINER_OF_SUFFIX.items() if one.demuxer is not None
}


class Demuxer:
    """An opened file or network stream. Belongs to one thread.

    Raises:
        LibavError: it cannot be opened or read; the message says why.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self._timeout_s = timeout_s
        self.streams: list[StreamInfo] = []
        format = _DESCRIBED_BY_HEADER.get(Path(url).suffix.lower()) if Path(url).is_file() else None
        if format is None or not self._open_quickly(url, format):
            self._open(url, {})

    def _open_quickly(self, url: str, format: str) -> bool:
        """What the container's header says is enough for most files; probing tries all demuxers and decodes pictures,
        which costs megabytes. False: it was not enough, or the file's name lies.
        """
        try:
            self._open(url, NO_PROBING, format)
        except LibavError:
            return False
        if self.streams and all(map(is_described, self.streams)):
            return True
        close_quietly(self._container)
        return False

    def _open(self, url: str, options: dict[str, str], format: str | None = None) -> None:
        if url.startswith(("rtsp://", "rtsps://")):
            options = {"rtsp_transport": "tcp", "timeout": str(int(self._timeout_s * 1e6))}
        limits = (self._timeout_s, self._timeout_s)
        try:
            self._container: InputContainer = av.open(url, "r", format=format, options=options, timeout=limits)
        except (av.error.FFmpegError, ValueError, OSError) as exc:
            raise LibavError(f"cannot open {url}: {plain(exc)}") from exc
        try:
            described = [stream_info(stream) for stream in self._container.streams]
        except LibavError:
            close_quietly(self._container)
            raise
        self.streams = [info for info in described if info is not None]

    def packets(self, indexes: Sequence[int]) -> Iterator[Demuxed]:
        """The packets of the given streams until the end of the input."""
        streams: list[Any] = [self._container.streams[index] for index in indexes]
        # A packet of a demuxer counts as its stream does; asking each packet makes a fraction every time.
        scales = {stream.index: (stream.time_base * NS).as_integer_ratio() for stream in streams}
        pictures = {stream.index for stream in streams if stream.type == "video"}
        try:
            for packet in self._container.demux(*streams):
                if packet.size == 0:
                    continue
                index = packet.stream.index
                scale_n, scale_d = scales[index]
                pts, dts = packet.pts, packet.dts
                yield Demuxed(
                    index,
                    memoryview(packet) if index in pictures else bytes(packet),  # what is large is not copied
                    None if pts is None else pts * scale_n // scale_d,
                    None if dts is None else dts * scale_n // scale_d,
                    (packet.duration or 0) * scale_n // scale_d,
                    bool(packet.is_keyframe),
                )
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, ValueError, OSError) as exc:
            raise LibavError(plain(exc)) from exc

    def rewind(self) -> None:
        """Go back to the beginning."""
        try:
            self._container.seek(self._container.start_time or 0)
        except av.error.FFmpegError as exc:
            raise LibavError(f"cannot go back to the beginning: {plain(exc)}") from exc

    def close(self) -> None:
        close_quietly(self._container)


def stream_info_of_annexb(key_frame: bytes, codec: str = "h264") -> StreamInfo:
    """What a raw H.264 (or "hevc") key frame with in-band parameter sets says about its stream.

    Raises:
        LibavError: there are no parameter sets in it.
    """
    try:
        container = av.open(io.BytesIO(key_frame), format=codec)
    except (av.error.FFmpegError, ValueError) as exc:
        raise LibavError(f"not a {codec} key frame with parameter sets: {plain(exc)}") from exc
    try:
        info = stream_info(container.streams[0])
    finally:
        close_quietly(container)
    if info is None or not info.width:
        raise LibavError(f"not a {codec} key frame with parameter sets")
    return info


def stream_info(stream: Any) -> StreamInfo | None:
    context = getattr(stream, "codec_context", None)
    if context is None or stream.type not in ("video", "audio"):
        return None
    codec = context.codec.canonical_name if hasattr(context.codec, "canonical_name") else context.name
    extradata = bytes(context.extradata or b"")
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
            **common,
        )
    return StreamInfo(
        kind="audio",
        sample_rate=context.sample_rate,
        channels=len(context.layout.channels),
        frame_samples=int(getattr(context, "frame_size", 0) or 0),
        **common,
    )


def _description_of(stream: Any, extradata: bytes) -> bytes:
    description = bytearray()
    container = av.open(Writer(description.extend), "w", format="nut")
    try:
        twin = container.add_stream_from_template(stream, opaque=True)
        container.start_encoding()
        put_template_packet(container, twin, extradata)
    except (av.error.FFmpegError, ValueError) as exc:
        raise LibavError(f"cannot describe the {stream.type} stream: {plain(exc)}") from exc
    finally:
        close_quietly(container)
    return bytes(description)
