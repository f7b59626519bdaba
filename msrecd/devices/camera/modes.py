"""Modes, sizes, plans and memory of a camera. Pure, but for reading /proc/meminfo."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msrecd.devices.base import VideoMode

Size = tuple[int, int]
_FALLBACK_RATE = 30.0
_COMMON_SIZES: tuple[Size, ...] = ((1920, 1080), (1280, 720))
FALLBACK_SIZES: tuple[Size, ...] = ((1280, 720), (640, 480))
_HARDWARE_MAX_WIDTH = 1920
_SAME_RATE = 0.05
_MIB = 1 << 20
_CMA_RESERVE = 8 * _MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorMode:
    """A mode of the sensor: what picamera2's `sensor_modes` says of it."""

    size: Size
    frame_rate: float
    bit_depth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraFacts:
    """What was found out about a camera while it was open for that; it does not change."""

    modes: tuple[VideoMode, ...] = ()
    sensor_modes: tuple[SensorMode, ...] = ()
    controls: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraPlan:
    """How a camera is to run."""

    size: Size
    frame_rate: float | None
    mode: SensorMode | None
    settings: Mapping[str, Any]


def make_plan(settings: Mapping[str, Any], default: VideoMode, facts: CameraFacts) -> CameraPlan:
    """Size and rate as the settings have them (the ISP scales for nothing), in the sensor mode nearest above them.

    A camera whose rate cannot be set has the rate that it has: None.
    """
    size = even((int(settings.get("width") or default.width), int(settings.get("height") or default.height)))
    mode = choose_mode(facts.sensor_modes, size, settings.get("frame_rate"))
    if facts.controls and "FrameDurationLimits" not in facts.controls:
        return CameraPlan(size=size, frame_rate=None, mode=mode, settings=settings)
    highest = mode.frame_rate if mode is not None else default.frame_rate
    rate = float(settings.get("frame_rate") or min(30.0, highest))
    return CameraPlan(size=size, frame_rate=min(rate, highest), mode=mode, settings=settings)


def sensor_modes(modes: Iterable[Mapping[str, Any]]) -> list[SensorMode]:
    """Those with a size; a USB camera's entries have a format only."""
    return [
        SensorMode(size=tuple(mode["size"]), frame_rate=float(mode["fps"]), bit_depth=int(mode.get("bit_depth", 0)))
        for mode in modes
        if "size" in mode and "fps" in mode
    ]


def video_modes(modes: Sequence[SensorMode], sizes: Iterable[Size], max_rate: float | None) -> tuple[VideoMode, ...]:
    """Modes, the default first: the largest that does 30 frames a second and fits the encoder, then by size.

    The common sizes that a sensor lacks are there too: the ISP makes them of a larger mode at no cost.
    `sizes`, `max_rate`: of a camera that lists sizes only.
    """
    best: dict[Size, float] = {}
    for mode in modes:
        best[mode.size] = max(mode.frame_rate, best.get(mode.size, 0.0))
    for size in _COMMON_SIZES:
        mode_above = choose_mode(modes, size, _FALLBACK_RATE)
        if mode_above is not None and mode_above.size[0] >= size[0] and mode_above.size[1] >= size[1]:
            best.setdefault(size, mode_above.frame_rate)
    if not best:
        best = dict.fromkeys(sizes, max_rate or _FALLBACK_RATE) or dict.fromkeys(FALLBACK_SIZES, _FALLBACK_RATE)
    found = sorted(
        (VideoMode(width=width, height=height, frame_rate=rate) for (width, height), rate in best.items()),
        key=lambda mode: mode.width * mode.height,
        reverse=True,
    )
    default = next((m for m in found if m.width <= _HARDWARE_MAX_WIDTH and m.frame_rate >= 29.0), found[0])
    return (default, *(mode for mode in found if mode is not default))


def choose_mode(modes: Sequence[SensorMode], size: Size, frame_rate: float | None) -> SensorMode | None:
    """The smallest mode that is not smaller than `size` and fast enough; else a slow one; else the largest fast one."""
    rate = frame_rate or 0.0
    if not modes:
        return None

    def order(mode: SensorMode) -> tuple[bool, bool, int, int]:
        too_small = mode.size[0] < size[0] or mode.size[1] < size[1]
        area = mode.size[0] * mode.size[1]
        return (too_small, mode.frame_rate < rate * (1 - _SAME_RATE), -area if too_small else area, -mode.bit_depth)

    return min(modes, key=order)


def even(size: Size) -> Size:
    """Down to even numbers: 4:2:0 has half as many colours."""
    return (max(2, size[0] - size[0] % 2), max(2, size[1] - size[1] % 2))


def fits_hardware_encoder(size: Size) -> bool:
    """The V4L2 encoder of a Pi takes up to 1920 pixels a line."""
    return size[0] <= _HARDWARE_MAX_WIDTH


def frame_skip(camera_rate: float | None, wanted: float | None) -> int | None:
    """Encode every how manieth frame for `wanted` frames a second; None when no whole number comes near."""
    if not wanted or not camera_rate:
        return 1
    ratio = camera_rate / wanted
    nearest = max(1, round(ratio))
    return nearest if abs(ratio - nearest) <= _SAME_RATE * nearest or ratio < 1 else None


def key_frame_period(frame_rate: float | None, interval_ns: int, interval_count: int) -> int:
    """Frames from one key frame to the next; a second's worth when nothing was asked, the smaller when both were."""
    rate = frame_rate or _FALLBACK_RATE
    asked = [interval_count] if interval_count else []
    if interval_ns:
        asked.append(int(interval_ns * rate / 1e9))
    return max(1, min(asked)) if asked else max(1, round(rate))


def buffer_bytes(size: Size, pixel_format: str, buffers: int) -> int:
    """What a stream takes of the contiguous memory; lines are padded to 64 bytes."""
    stride = -(-size[0] // 64) * 64
    line = stride * 3 // 2 if pixel_format == "YUV420" else stride * 3
    return line * size[1] * buffers


def needs_contiguous_memory(heaps: Path = Path("/dev/dma_heap")) -> bool:
    """Whether cameras take their buffers from CMA.

    Raspberry Pi OS links `vidbuf_cached` to the heap they are of: linux,cma up to a Pi 4; system on a Pi 5, whose
    devices map scattered memory.
    """
    return (heaps / "vidbuf_cached").resolve().name != "system"


def missing_memory(needed: int, meminfo: Path = Path("/proc/meminfo")) -> str | None:
    """Why `needed` bytes of CMA are not there, None when they are (or nobody can tell)."""
    try:
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        total, free = (int(fields[name].split()[0]) * 1024 for name in ("CmaTotal", "CmaFree"))
    except (OSError, KeyError, ValueError, IndexError):
        return None
    if total == 0 or free >= needed + _CMA_RESERVE:
        return None
    return (
        f"the camera needs {-(-needed // _MIB)} MiB of contiguous memory (CMA), "
        f"{free // _MIB} of {total // _MIB} MiB are free; choose a smaller size or close other camera programs"
    )
