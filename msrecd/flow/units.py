"""What moves between threads: raw frames and blocks, encoded packets. Times in ns of CLOCK_MONOTONIC.

Nobody changes a unit once it is made: many threads hold it. Units are not frozen by their type all the same, because
making a frozen one takes twice as long, and there are thousands a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["audio", "video"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFormat:
    """Shape of raw pictures.

    pixel_format: libav's name; "rgb24" (H x W x 3, packed) or "yuv420p" (planes Y, U, V, no padding).
    frame_rate: nominal frames a second; None where pictures come when they come (canvas).
    """

    width: int
    height: int
    pixel_format: str = "yuv420p"
    frame_rate: float | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class VideoFrame:
    """One raw picture; pts_ns is the start of its exposure."""

    pts_ns: int
    format: VideoFormat
    data: bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioFormat:
    """Shape of PCM: interleaved, little endian, `sample_format` libav's name ("s16" or "s32")."""

    sample_rate: int
    channels: int
    sample_format: Literal["s16", "s32"] = "s16"

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
    """

    pts_ns: int
    dts_ns: int
    duration_ns: int
    is_keyframe: bool
    data: bytes | memoryview
    discontinuity: bool = False
