"""What moves between threads: raw frames and blocks, encoded packets. Times in ns of CLOCK_MONOTONIC.

A unit is never changed once it is made: many threads hold it. Units are not frozen by their type all the same, because
making a frozen one takes twice as long, and there are thousands a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["audio", "video"]
Rotation = Literal[0, 90, 180, 270]
ColorRange = Literal["limited", "full"]

UNSPECIFIED = 2  # the code point of ITU-T H.273 for primaries, transfer and matrix that were not named


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """How the samples of a video stream are to be shown; the defaults say nothing, and nothing is written of them.

    rotation: degrees clockwise by which a frame must be turned to stand upright.
    pixel_aspect: width and height of a pixel, (16, 11) for instance; (1, 1) for square ones.
    color_range: "limited" (16 to 235), "full" (0 to 255), None where the source does not say.
    color_primaries, color_transfer, color_matrix: code points of ITU-T H.273, as libav and all containers count them.
    """

    rotation: Rotation = 0
    pixel_aspect: tuple[int, int] = (1, 1)
    color_range: ColorRange | None = None
    color_primaries: int = UNSPECIFIED
    color_transfer: int = UNSPECIFIED
    color_matrix: int = UNSPECIFIED


UPRIGHT = Presentation()


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFormat:
    """Shape of raw frames.

    pixel_format: libav's name; "rgb24" (H x W x 3, packed) or "yuv420p" (planes Y, U, V, no padding).
    frame_rate: nominal frames a second; None where frames come at any time (canvas).
    """

    width: int
    height: int
    pixel_format: str = "yuv420p"
    frame_rate: float | None = None
    presentation: Presentation = UPRIGHT


@dataclass(slots=True, kw_only=True, eq=False)
class VideoFrame:
    """One raw frame; pts_ns is the start of its exposure."""

    pts_ns: int
    format: VideoFormat
    data: bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioFormat:
    """Shape of PCM: interleaved, little endian, `sample_format` libav's name ("s16" or "s32").

    layout: libav's name of the channel layout ("5.1", "quad", …); "" for the usual one of so many channels.
    bits: significant bits of a sample, the upper ones ("s32" of a 24-bit card: 24); 0: all of them.
    """

    sample_rate: int
    channels: int
    sample_format: Literal["s16", "s32"] = "s16"
    layout: str = ""
    bits: int = 0

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return self.channels * (2 if self.sample_format == "s16" else 4)


@dataclass(slots=True, kw_only=True, eq=False)
class AudioBlock:
    """Some PCM.

    pts_ns: when the first sample was captured, as the hardware's clock tells it (may jitter; consumers smooth it).
    samples: per channel.
    lost_before: samples known to be lost between the block before and this one (an overrun).
    """

    pts_ns: int
    format: AudioFormat
    samples: int
    data: bytes
    lost_before: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class Packet:
    """One encoded unit: an access unit of video, a codec frame of audio.

    discontinuity: something was lost between the packet before and this one.
    units: bytes of the NAL units in data, each behind a start code of four bytes, where the source knows them.
    """

    pts_ns: int
    dts_ns: int
    duration_ns: int
    is_keyframe: bool
    data: bytes | memoryview
    discontinuity: bool = False
    units: tuple[int, ...] = ()
