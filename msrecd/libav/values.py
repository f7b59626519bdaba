"""What goes in and out of the adaptors, and what can be said of it without libav."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from msrecd.flow.units import UNSPECIFIED, UPRIGHT, Kind, Presentation

Times: TypeAlias = Literal[
    "container", "presentation", "rtp", "rtp_aligned", "arrival"
]  # what those of an input are worth
MAX_PIXELS = 4096 * 4096  # of a frame that is decoded: more than a camera's has


class LibavError(Exception):
    """libav refused or failed; the message is libav's."""


class NoMedia(LibavError):
    """What came is in none of the formats that may be opened."""


@dataclass(slots=True, eq=False)
class Encoded:
    """One packet as an encoder gave it; pts in ns (video) or in samples (audio)."""

    data: bytes
    pts: int
    dts: int
    duration: int
    is_keyframe: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """One stream of an opened input, as its container describes it.

    reorder_depth: frames that are decoded before the first one is shown, as far as libav tells; 0 for none or unknown.
    needs_hidden: an edit list hides frames that shown ones refer to. comes_with_next: libav gives a frame when the next
    one has begun, so it is read that much later than it came.
    """

    index: int
    kind: Kind
    codec: str
    extradata: bytes
    header: bytes
    width: int = 0
    height: int = 0
    frame_rate: float | None = None
    presentation: Presentation = UPRIGHT
    sample_rate: int = 0
    channels: int = 0
    layout: str = ""
    bits: int = 0
    frame_samples: int = 0
    reorder_depth: int = 0
    needs_hidden: bool = False
    comes_with_next: bool = False


@dataclass(slots=True, eq=False)
class Demuxed:
    """One packet of an input; times in ns of the input's own time line, None where the container has none.

    sender_ns: the sender's wall clock (UTC) at pts_ns, where RTCP sender reports tell it. is_damaged: data are missing.
    is_hidden: an edit list says that it is decoded and not shown. hidden_ns: so much of its beginning, of sound.
    units: bytes of its NAL units, each behind a start code of four bytes, where that is known.
    """

    stream: int
    data: bytes | memoryview
    pts_ns: int | None
    dts_ns: int | None
    duration_ns: int
    is_keyframe: bool
    sender_ns: int | None = None
    is_damaged: bool = False
    is_hidden: bool = False
    hidden_ns: int = 0
    units: tuple[int, ...] = ()


def is_described(info: StreamInfo) -> bool:
    """Whether a stream is known well enough to be passed through or decoded."""
    if info.codec in ("h264", "hevc", "av1", "aac", "opus", "flac") and not info.extradata:
        return False
    if info.kind == "video":
        return info.width > 0 and info.frame_rate is not None and info.frame_rate < 500
    return info.sample_rate > 0 and info.channels > 0


def decoded_presentation(known: Presentation, *, is_full: bool, matrix: int) -> Presentation:
    """How a decoded frame is to be shown once it is 8-bit YUV of limited range.

    Args:
        known: what the container says; the frame's own matrix counts for more.
    """
    is_named = is_full or known.color_range is not None
    return replace(
        known,
        color_range="limited" if is_named else None,
        color_matrix=matrix if matrix != UNSPECIFIED else known.color_matrix,
    )


def encoder_sample_rate(codec: str, source_rate: int) -> int:
    """The rate an encoder works at for a source's rate (Opus knows five, AAC thirteen)."""
    if codec == "opus":
        return 48000
    if codec == "aac":
        rates = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
        return source_rate if source_rate in rates else 48000
    return source_rate


def scaled(value: int, scale: tuple[int, int]) -> int:
    """value times a fraction, rounded; fractions.Fraction costs microseconds a packet."""
    numerator, denominator = scale
    return (value * numerator + denominator // 2) // denominator
