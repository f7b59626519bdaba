"""Modes, sizes, rates, plans and memory of a camera. Pure, but for reading /proc/meminfo."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from msrecd.devices.base import CameraProperties, VideoMode
from msrecd.devices.camera.controls import autofocus, exposure_s
from msrecd.flow.median import median

Size = tuple[int, int]
_AS_IT_IS = CameraProperties()
_HOLE = 1.75  # frames from one to the next that no jitter makes
_STEPS = 15
_READOUT_MARGIN_S = 0.0005  # lines that a sensor needs beside the exposure
_FEWEST_STEPS = 4
_USUAL_RATES = (5.0, 7.5, 10.0, 12.0, 12.5, 15.0, 20.0, 24.0, 25.0, 30.0, 50.0, 60.0, 90.0, 120.0)
_FALLBACK_RATE = 30.0
_COMMON_SIZES: tuple[Size, ...] = ((1920, 1080), (1280, 720), (640, 480))
FALLBACK_SIZES: tuple[Size, ...] = ((1280, 720), (640, 480))
_HARDWARE_MAX_SIDE = 1920  # pixels; bcm2835-v4l2-codec.c, which cuts off the rest and does not say so
_HARDWARE_MAX_BLOCKS = 8704  # of 16x16 pixels in a frame: level 4.2, the highest of bcm2835-v4l2-codec.c
HARDWARE_MAX_BIT_RATE = 25_000_000  # the driver takes no more, and does not say so
_WIDE_MODE_PIXELS = 4_200_000  # sensor modes up to this size are read out whole without much cost
_SAME_RATE = 0.05
_SAME_FIELD = 0.85
_MIB = 1 << 20
BUFFERS = 6  # picamera2's own number for video
STILL_BUFFERS = 1  # and for stills: 18 MiB each for an IMX477
_RAW_BUFFERS = 4  # of the sensor, allocated by libcamera's pipeline handler (vc4.cpp)
_CODEC_BUFFERS = 16  # for encoded frames, NUM_CAPTURE_BUFFERS of picamera2's v4l2_encoder.py
_CODEC_BUFFER, _SMALL_CODEC_BUFFER = 768 << 10, 512 << 10  # bcm2835-v4l2-codec.c: above 720p, and up to it
_SMALL_CODEC_PIXELS = 1280 * 720


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorMode:
    """A mode of the sensor: what picamera2's `sensor_modes` says of it; `crop` is the part of the sensor it reads."""

    size: Size
    frame_rate: float
    bit_depth: int
    crop: Size = (0, 0)

    def field_of(self, size: Size) -> float:
        """How many pixels of the sensor a frame of the shape of `size` shows; 0 when that is unknown."""
        width, height = self.crop
        shape = size[0] / size[1]
        return min(width, height * shape) * min(height, width / shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraFacts:
    """What was found out about a camera while it was open for that; it does not change."""

    modes: tuple[VideoMode, ...] = ()
    sensor_modes: tuple[SensorMode, ...] = ()
    controls: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StillPlan:
    """How a still of full resolution is taken; mode: of a sensor behind a Raspberry Pi's ISP."""

    size: Size
    mode: SensorMode | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraPlan:
    """How a camera is to run.

    frame_rate: the highest; None where it cannot be set. slowest_rate: the lowest, where the light decides.
    still: what its stills are made with, where they are larger than its frames.
    """

    size: Size
    frame_rate: float | None
    mode: SensorMode | None
    settings: Mapping[str, Any]
    slowest_rate: float | None = None
    hflip: bool = False
    vflip: bool = False
    still: StillPlan | None = None


def make_plan(
    settings: Mapping[str, Any], default: VideoMode, facts: CameraFacts, properties: CameraProperties = _AS_IT_IS
) -> CameraPlan:
    """Size and rate as the settings have them (the ISP scales for nothing), in the sensor mode nearest above them.

    An exposure longer than a frame lowers the rate: libcamera would cut the exposure without a word
    (agc_channel.cpp). A camera whose rate cannot be set has the rate that it has: None.
    """
    size = even((int(settings.get("width") or default.width), int(settings.get("height") or default.height)))
    asked = settings.get("frame_rate")
    mode = choose_mode(facts.sensor_modes, size, asked)
    highest = mode.frame_rate if mode is not None else default.frame_rate
    rate: float | None = min(float(asked or 30.0), highest)
    slowest = settings.get("slowest_frame_rate")
    if facts.controls and "FrameDurationLimits" not in facts.controls:
        rate = slowest = None
    exposure = exposure_s(settings)
    if rate is not None and exposure is not None and exposure + _READOUT_MARGIN_S > 1 / rate:
        rate = 1 / (exposure + _READOUT_MARGIN_S)
    if rate is not None and slowest is not None and slowest >= rate:
        slowest = None
    focused = autofocus(settings, facts.controls, properties.autofocus, properties.focus_distance)
    return CameraPlan(
        size=size,
        frame_rate=rate,
        mode=mode,
        settings={**focused, "frame_rate": rate, "slowest_frame_rate": slowest},
        slowest_rate=slowest,
        hflip=properties.is_hflipped,
        vflip=properties.is_vflipped,
        still=plan_still(facts, size),
    )


def plan_still(facts: CameraFacts, size: Size) -> StillPlan | None:
    """How the largest still is taken; None where frames of `size` are as large already, or nothing is known."""
    best = max(facts.sensor_modes, key=lambda mode: (_area(mode.size), mode.bit_depth), default=None)
    sizes = [best.size] if best is not None else [(mode.width, mode.height) for mode in facts.modes]
    largest = even(max(sizes, key=_area, default=(0, 0)))
    return StillPlan(size=largest, mode=best) if _area(largest) > _area(size) else None


def _area(size: Size) -> int:
    return size[0] * size[1]


def sensor_modes(modes: Iterable[Mapping[str, Any]]) -> list[SensorMode]:
    """Those with a size; a USB camera's entries have a format only."""
    return [
        SensorMode(
            size=tuple(mode["size"]),
            frame_rate=float(mode["fps"]),
            bit_depth=int(mode.get("bit_depth", 0)),
            crop=tuple(mode["crop_limits"][2:]) if "crop_limits" in mode else (0, 0),
        )
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
    default = next((m for m in found if m.width <= _HARDWARE_MAX_SIDE and m.frame_rate >= 29.0), found[0])
    return (default, *(mode for mode in found if mode is not default))


def choose_mode(modes: Sequence[SensorMode], size: Size, frame_rate: float | None) -> SensorMode | None:
    """The sensor mode for frames of `size`: not smaller, fast enough, the whole field of view, then the smallest.

    A mode that shows only a part of what the lens sees is taken where the whole one is too slow, or so large that
    reading it out costs more than it is worth. Where none is large enough, the largest fast one.
    """
    rate = frame_rate or 0.0
    if not modes:
        return None
    whole = max(mode.field_of(size) for mode in modes)

    def order(mode: SensorMode) -> tuple[bool, bool, bool, int, int]:
        area = mode.size[0] * mode.size[1]
        too_small = mode.size[0] < size[0] or mode.size[1] < size[1]
        too_slow = mode.frame_rate < rate * (1 - _SAME_RATE)
        is_narrow = not too_small and (mode.field_of(size) < whole * _SAME_FIELD or area > _WIDE_MODE_PIXELS)
        return (too_small, too_slow, is_narrow, -area if too_small else area, -mode.bit_depth)

    return min(modes, key=order)


def even(size: Size) -> Size:
    """Down to even numbers: 4:2:0 has half as many colours."""
    return (max(2, size[0] - size[0] % 2), max(2, size[1] - size[1] % 2))


def fits_hardware_encoder(size: Size) -> bool:
    """The V4L2 encoder of a Pi takes up to 1920 pixels a line, as many lines, and 8704 macroblocks a frame."""
    blocks = -(-size[0] // 16) * -(-size[1] // 16)
    return max(size) <= _HARDWARE_MAX_SIDE and blocks <= _HARDWARE_MAX_BLOCKS


def frame_skip(camera_rate: float | None, wanted: float | None) -> int | None:
    """n such that every n-th frame makes `wanted` frames a second; None when no whole number comes near."""
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


def needed_memory(plan: CameraPlan, *, is_hardware_encoder: bool) -> int:
    """Bytes of contiguous memory that a camera takes: its main stream, the sensor's frames, and the codec."""
    needed = buffer_bytes(plan.size, "YUV420", BUFFERS)
    if plan.mode is not None:
        width, height = plan.mode.size
        needed += -(-width * max(plan.mode.bit_depth, 8) // 8) * height * _RAW_BUFFERS
    if is_hardware_encoder:
        is_small = _area(plan.size) <= _SMALL_CODEC_PIXELS
        needed += _CODEC_BUFFERS * (_SMALL_CODEC_BUFFER if is_small else _CODEC_BUFFER)
    return needed


def needs_contiguous_memory(heaps: Path = Path("/dev/dma_heap")) -> bool:
    """Whether cameras take their buffers from CMA.

    Raspberry Pi OS links `vidbuf_cached` to the heap they are of: linux,cma up to a Pi 4; system on a Pi 5, whose
    devices map scattered memory.
    """
    return (heaps / "vidbuf_cached").resolve().name != "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContiguousMemory:
    """The kernel's contiguous memory (CMA), in bytes.

    `free` is not what can be allocated: the page cache lives in CMA too, and is moved away on demand.
    """

    total: int
    free: int


def contiguous_memory(meminfo: Path = Path("/proc/meminfo")) -> ContiguousMemory | None:
    """None where the kernel has none, or does not say."""
    try:
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        total, free = (int(fields[name].split()[0]) * 1024 for name in ("CmaTotal", "CmaFree"))
    except (OSError, KeyError, ValueError, IndexError):
        return None
    return ContiguousMemory(total=total, free=free) if total else None


def missing_memory(needed: int, memory: ContiguousMemory | None) -> str | None:
    """Why `needed` bytes of CMA can never be had, None when they may be: that only trying tells."""
    return None if memory is None or memory.total >= needed else memory_shortage(needed, memory)


def memory_shortage(needed: int, memory: ContiguousMemory | None) -> str:
    """What to tell when memory of the camera's cannot be allocated."""
    of = f", of {memory.total // _MIB} MiB in all" if memory is not None else ""
    return (
        f"the camera needs {-(-needed // _MIB)} MiB of contiguous memory (CMA){of}; choose a smaller size, close other"
        " camera programs, or give it more (dtoverlay=vc4-kms-v3d,cma-256 in /boot/firmware/config.txt)"
    )


class FrameGaps:
    """Counts the frames that never came, by the times of those that did. Belongs to one thread.

    A camera whose rate is not fixed (USB cameras in the dusk) slows down: there the usual distance of its last frames
    is what counts.
    """

    def __init__(self, frame_ns: int, *, is_fixed: bool) -> None:
        self._frame_ns = frame_ns
        self._steps: deque[int] | None = None if is_fixed else deque(maxlen=_STEPS)
        self._last_ns: int | None = None

    def missing(self, pts_ns: int) -> int:
        """How many frames are missing between the last one and that of `pts_ns`."""
        last_ns, self._last_ns = self._last_ns, pts_ns
        if last_ns is None or pts_ns <= last_ns:
            return 0
        step_ns, usual_ns = pts_ns - last_ns, self._frame_ns
        if self._steps is not None:
            if self._steps:
                usual_ns = max(usual_ns, round(median(self._steps)))
            self._steps.append(step_ns)
        return round(step_ns / usual_ns) - 1 if step_ns > usual_ns * _HOLE else 0

    def forget(self) -> None:
        """The next frame begins anew: what is missing before it is accounted for elsewhere, or was not wanted."""
        self._last_ns = None


def measured_rate(times_ns: Sequence[int]) -> float | None:
    """The frame rate of a camera by the times of some frames, a usual one where it is near; None of too few."""
    steps = [after - before for before, after in pairwise(times_ns) if after > before]
    if len(steps) < _FEWEST_STEPS:
        return None
    rate = 1e9 / median(steps)
    usual = min(_USUAL_RATES, key=lambda known: abs(known - rate))
    return usual if abs(usual - rate) <= _SAME_RATE * usual else round(rate, 2)
