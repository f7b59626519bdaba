"""What a device can be set to: capabilities and the candidates of SelectSettings, from its description. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from msrecd.devices.base import DeviceDescription, VideoMode
from msrecd.flow.units import AudioFormat, VideoFormat
from msrecd.media.constraints import Choices, ConstraintSets, Settings, Space

RESIZE_MODES = ("none", "crop-and-scale")
_ANY_RATE_DRIVERS = frozenset({"libcamera"})  # the sensor's frame duration is set in microseconds
MODE_OF = {  # a value that only counts while its mode is "manual"
    "exposure_time": "exposure_mode",
    "iso": "exposure_mode",
    "color_temperature": "white_balance_mode",
    "focus_distance": "focus_mode",
}
_RATIO_DENOMINATOR = 1000
_LARGE_MODE_PIXELS = 4_200_000


def capabilities(device: DeviceDescription) -> dict[str, Any]:
    """What a device can do, as get_capabilities reports it: ranges, lists of choices, ids as strings."""
    ids: dict[str, Any] = {"device_id": device.device_id, "group_id": device.group_id}
    if device.kind == "audio":
        return ids | {
            "sample_rate": _range(device.sample_rates),
            "sample_size": _range(device.sample_sizes),
            "channel_count": _range(device.channel_counts),
            "latency": _range(device.latency_s),
            "echo_cancellation": [False],
            "auto_gain_control": [False],
            "noise_suppression": [False],
        }
    width = max((mode.width for mode in device.video_modes), default=1)
    height = max((mode.height for mode in device.video_modes), default=1)
    rate = max((mode.frame_rate for mode in device.video_modes), default=0.0)
    return ids | {
        "width": {"min": 1, "max": width},
        "height": {"min": 1, "max": height},
        "aspect_ratio": {"min": 1 / height, "max": float(width)},
        "frame_rate": {"min": 0.0, "max": rate},
        "facing_mode": [device.facing_mode] if device.facing_mode else [],
        "resize_mode": list(RESIZE_MODES),
        **{name: _control_capability(control) for name, control in device.controls.items()},
    }


def device_space(device: DeviceDescription, opened: VideoFormat | AudioFormat | None = None) -> Space:
    """What can be chosen of a device; `opened` is the format in which it already runs, which limits the choice."""
    ids = [Choices(options=({"device_id": device.device_id},)), Choices(options=({"group_id": device.group_id},))]
    if device.kind == "audio":
        return [*ids, *_audio_dimensions(device, opened if isinstance(opened, AudioFormat) else None)]
    modes, any_rate = device.video_modes, device.driver in _ANY_RATE_DRIVERS
    if isinstance(opened, VideoFormat):
        nominal = opened.frame_rate or max((mode.frame_rate for mode in modes), default=30.0)
        modes, any_rate = (VideoMode(width=opened.width, height=opened.height, frame_rate=nominal),), False
    if device.facing_mode is not None:
        ids.append(Choices(options=({"facing_mode": device.facing_mode},)))
    return [*ids, FrameModes(modes=modes, any_rate=any_rate), *_control_dimensions(device.controls)]


def _audio_dimensions(device: DeviceDescription, opened: AudioFormat | None) -> Iterator[Choices | Continuous]:
    if opened is None:
        yield _choices("sample_rate", device.sample_rates)
        yield _choices("channel_count", device.channel_counts)
        yield _choices("sample_size", device.sample_sizes)
    else:
        yield _choices("sample_rate", [opened.sample_rate])
        yield _choices("channel_count", [opened.channels])
        deep = [size for size in device.sample_sizes if size > 16] or [32]
        yield _choices("sample_size", [16] if opened.sample_format == "s16" else deep[:1])
    low, high = device.latency_s
    yield Continuous(name="latency", low=low, high=high, default=low)
    for name in ("echo_cancellation", "auto_gain_control", "noise_suppression"):
        yield _choices(name, [False])


def _choices(name: str, values: Iterable[Any]) -> Choices:
    return Choices(options=tuple({name: value} for value in values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuous:
    """A number within a range."""

    name: str
    low: float
    high: float
    default: float

    def candidates(self, sets: ConstraintSets) -> Sequence[Settings]:
        inside = (number for number in sets.numbers(self.name) if self.low <= number <= self.high)
        return [{self.name: value} for value in dict.fromkeys((self.default, *inside, self.low, self.high))]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameModes:
    """Size, rate and resize mode of a camera, which depend on one another.

    With resize_mode "none" the native modes, with "crop-and-scale" every size below them; rates are the native ones
    divided by whole numbers, or any lower one where the device takes any (`any_rate`).
    https://w3c.github.io/mediacapture-main/#dfn-resizemode
    """

    modes: tuple[VideoMode, ...]
    any_rate: bool = False

    def candidates(self, sets: ConstraintSets) -> Sequence[Settings]:
        """Preferred first: native, the default mode, the shape of the mode, large, fast."""
        ranked: dict[tuple[Any, ...], tuple[tuple[float, ...], Settings]] = {}
        for index, mode in enumerate(self.modes):
            rates = list(self._rates(mode, sets))
            for width, height in _sizes(mode, sets):
                native = (width, height) == (mode.width, mode.height)
                distortion = abs(math.log(width * mode.height / (height * mode.width)))
                for rate in rates:
                    for resize_mode in RESIZE_MODES if native else RESIZE_MODES[1:]:
                        rank = (resize_mode != "none", index, distortion, -width * height, -rate)
                        key = (width, height, rate, resize_mode)
                        if key not in ranked or rank < ranked[key][0]:
                            ranked[key] = (rank, _mode_settings(width, height, rate, resize_mode))
        return [settings for _, settings in sorted(ranked.values(), key=lambda entry: entry[0])]

    def _rates(self, mode: VideoMode, sets: ConstraintSets) -> Iterator[float]:
        wanted = [rate for rate in sets.numbers("frame_rate") if 0 < rate <= mode.frame_rate]
        yield mode.frame_rate
        if self.any_rate:
            yield from (float(rate) for rate in dict.fromkeys(wanted) if rate != mode.frame_rate)
            return
        divisors = {
            d for rate in wanted for d in (math.floor(mode.frame_rate / rate), math.ceil(mode.frame_rate / rate))
        }
        yield from (mode.frame_rate / divisor for divisor in sorted(divisors | {2}) if divisor > 1)


def _mode_settings(width: int, height: int, rate: float, resize_mode: str) -> Settings:
    return {
        "width": width,
        "height": height,
        "aspect_ratio": width / height,
        "frame_rate": rate,
        "resize_mode": resize_mode,
    }


def _sizes(mode: VideoMode, sets: ConstraintSets) -> Iterator[tuple[int, int]]:
    widths = _within(sets.numbers("width"), mode.width)
    heights = _within(sets.numbers("height"), mode.height)
    ratios = [
        Fraction(ratio).limit_denominator(_RATIO_DENOMINATOR) for ratio in sets.numbers("aspect_ratio") if ratio > 0
    ]
    yield mode.width, mode.height
    for width in widths:
        yield width, _even(width * mode.height / mode.width, mode.height)
        yield from ((width, height) for height in heights)
    for height in heights:
        yield _even(height * mode.width / mode.height, mode.width), height
    for ratio in (ratio for ratio in ratios if ratio > 0):
        for width in widths:
            yield width, min(max(round(width / ratio), 1), mode.height)
        for height in heights:
            yield min(max(round(height * ratio), 1), mode.width), height
        times = min(mode.width // ratio.numerator, mode.height // ratio.denominator)
        if times >= 1:
            yield ratio.numerator * times, ratio.denominator * times
            even = times - times % 2
            if even:
                yield ratio.numerator * even, ratio.denominator * even


def _within(numbers: Iterable[float], native: int) -> list[int]:
    """Whole numbers between 1 and the native one to look at, the native one included."""
    wanted = (whole for number in numbers for whole in (math.floor(number), math.ceil(number)))
    return list(dict.fromkeys((native, *(number for number in wanted if 1 <= number <= native))))


def _even(number: float, native: int) -> int:
    """The nearest even number that fits, as chroma subsampling likes it."""
    return max(min(2 * round(number / 2), native), 1)


def opening_settings(device: DeviceDescription, settings: Settings) -> dict[str, Any]:
    """Settings to open a device with: those of the native mode that selected ones are made of.

    So a camera that is opened for a small picture runs in the same mode as for a large one, sees the same section, and
    can be shared by somebody who wants more. But not in one of more than 4 megapixels where a smaller one will do: a
    Raspberry Pi has no memory for that.
    """
    rate = settings.get("frame_rate")
    if device.kind == "audio" or rate is None:
        return dict(settings)
    width, height = settings["width"], settings["height"]
    any_rate = device.driver in _ANY_RATE_DRIVERS

    def suits(mode: VideoMode) -> bool:
        if settings["resize_mode"] == "none" and (width, height) != (mode.width, mode.height):
            return False
        times = mode.frame_rate / rate
        fits_rate = times >= 1 if any_rate else math.isclose(times, max(round(times), 1), rel_tol=1e-6)
        return width <= mode.width and height <= mode.height and fits_rate

    def order(mode: VideoMode) -> tuple[bool, float]:
        is_large = mode.width * mode.height > _LARGE_MODE_PIXELS
        return is_large, abs(math.log(width * mode.height / (height * mode.width)))

    mode = min(filter(suits, device.video_modes), key=order, default=None)
    if mode is None:
        return dict(settings)
    native = {"width": mode.width, "height": mode.height, "aspect_ratio": mode.width / mode.height}
    return {**settings, **native, "frame_rate": rate if any_rate else mode.frame_rate, "resize_mode": "none"}


def _control_dimensions(controls: Mapping[str, Any]) -> Iterator[Choices | Continuous]:
    for name, control in controls.items():
        if _is_range(control):
            low, high, default = control
            yield Continuous(name=name, low=low, high=high, default=default)
        else:
            yield _choices(name, control)


def _control_capability(control: Any) -> Any:
    if _is_range(control):
        return {"min": control[0], "max": control[1]}
    return list(control)


def _is_range(control: Any) -> bool:
    return len(control) == 3 and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in control
    )


def with_modes(settings: Settings, controls: Mapping[str, Any], mentioned: frozenset[str]) -> dict[str, Any]:
    """Settings in which modes and values agree: who asks for an exposure time means manual exposure.

    Values that an automatic decides at present are left out, as nobody knows them.
    """
    agreed = dict(settings)
    for name, mode in MODE_OF.items():
        if name in mentioned and name in agreed and mode not in mentioned and "manual" in controls.get(mode, ()):
            agreed[mode] = "manual"
    for name, mode in MODE_OF.items():
        if name in agreed and agreed.get(mode, "manual") != "manual":
            del agreed[name]
    return agreed


def _range(values: Iterable[float]) -> dict[str, float]:
    known = tuple(values)
    return {"min": min(known), "max": max(known)}
