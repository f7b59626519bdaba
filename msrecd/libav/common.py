"""What the adaptors share: how outputs are written, streams described, containers closed."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import av.error
from av.container.input import InputContainer
from av.container.output import OutputContainer

from msrecd.libav.headers import EBML, template_packet
from msrecd.libav.values import MAX_PIXELS, LibavError

NS = 1_000_000_000
NS_BASE = Fraction(1, NS)
US_BASE = Fraction(1, 1_000_000)
GLOBAL_HEADER = 1 << 22
# Only the decoder of FLAC may be asked: the bits of a sample, which MP4 must have, are told by nobody else.
NO_PROBING = {"probesize": "32", "analyzeduration": "0", "codec_whitelist": "flac"}


class Writer:
    """What PyAV takes for a file: write only, so libav treats it as a stream that cannot seek."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def write(self, data: bytes) -> int:
        self._write(bytes(data))
        return len(data)


def put_template_packet(container: OutputContainer, stream: Any, extradata: bytes) -> None:
    packet = av.Packet(template_packet(extradata))
    packet.stream = stream
    packet.pts = packet.dts = 0
    packet.is_keyframe = True
    container.mux_one(packet)


def open_template(header: bytes) -> InputContainer:
    """The small file that describes a stream.

    Raises:
        LibavError: it is none.
    """
    # Told the format, libav does not try all of its demuxers on it.
    format = "matroska" if header.startswith(EBML) else "nut"
    try:
        return av.open(io.BytesIO(header), "r", format=format, options=dict(NO_PROBING))
    except (av.error.FFmpegError, ValueError) as exc:
        raise LibavError(f"no description of a stream: {plain(exc)}") from exc


def close_quietly(container: InputContainer | OutputContainer) -> None:
    try:
        container.close()
    except (av.error.FFmpegError, ValueError, OSError):
        return  # nothing of it is wanted any more


# Speakers for channels that are none (a row of microphones), for AAC, which knows nothing else. None of them is the
# low-frequency one, whose band the encoder would cut.
_AAC_LAYOUTS = {3: "3.0", 4: "4.0", 5: "5.0", 6: "hexagonal", 7: "7.0", 8: "octagonal"}


def layout_of(channels: int, layout: str = "", *, codec: str = "") -> str:
    """libav's name of a channel layout; without one the channels stay in their order and none is treated specially.

    Args:
        layout: as the source names it; "" when it does not.
        codec: of the encoder that is to take it.
    """
    if layout:
        # Opus knows one place for surround channels and calls it by the names without "(side)".
        return layout.replace("(side)", "") if codec == "opus" else layout
    if channels > 2 and codec == "aac":
        return _AAC_LAYOUTS.get(channels, f"{channels} channels")
    return {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")


def plain(exc: BaseException) -> str:
    """libav's words without PyAV's decoration of numbers."""
    return str(getattr(exc, "strerror", None) or exc)


__all__ = [
    "EBML",
    "GLOBAL_HEADER",
    "MAX_PIXELS",
    "NO_PROBING",
    "NS",
    "NS_BASE",
    "US_BASE",
    "Writer",
    "close_quietly",
    "layout_of",
    "open_template",
    "plain",
    "put_template_packet",
]
