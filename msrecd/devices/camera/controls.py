"""Camera controls: W3C names and units on one side, libcamera's on the other. Pure.

W3C: https://www.w3.org/TR/image-capture/. libcamera: src/libcamera/control_ids_core.yaml. Both mappings start from
`Picamera2.camera_controls`, name -> (min, max, default): a control that is not there is not supported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

Range = tuple[Any, Any, Any]
Rectangle = tuple[int, int, int, int]
FacingMode = Literal["user", "environment", "left", "right"]

_SAME_UNIT = {
    "brightness": "Brightness",
    "contrast": "Contrast",
    "saturation": "Saturation",
    "sharpness": "Sharpness",
    "exposure_compensation": "ExposureValue",
    "color_temperature": "ColourTemperature",
}
_EXPOSURE_US = 100  # W3C counts the exposure time in units of 100 µs
_ISO_AT_GAIN_1 = 100
_FARTHEST_M = 100.0  # focus distances beyond that, infinity included
_LARGEST_ZOOM = 16.0
_AF_MANUAL, _AF_AUTO, _AF_CONTINUOUS = 0, 1, 2
_FOCUS_MODES = {"continuous": _AF_CONTINUOUS, "manual": _AF_MANUAL, "single-shot": _AF_AUTO}  # the default first
_AF_TRIGGER_START = 0
_LOCATIONS: dict[int, FacingMode] = {0: "user", 1: "environment"}  # 2 is "external"


def capabilities(camera_controls: Mapping[str, Range]) -> dict[str, Any]:
    """Controls under their W3C names in snake_case: (min, max, default), or the modes that can be chosen."""
    found: dict[str, Any] = {}
    for ours, theirs in _SAME_UNIT.items():
        if theirs in camera_controls:
            found[ours] = _numbers(camera_controls[theirs])
    if "ExposureTime" in camera_controls:
        low, high, default = _numbers(camera_controls["ExposureTime"])
        found["exposure_time"] = (low / _EXPOSURE_US, high / _EXPOSURE_US, default / _EXPOSURE_US)
        found["exposure_mode"] = ("continuous", "manual")
    if "AnalogueGain" in camera_controls:
        low, high, default = _numbers(camera_controls["AnalogueGain"])
        found["iso"] = (low * _ISO_AT_GAIN_1, high * _ISO_AT_GAIN_1, default * _ISO_AT_GAIN_1)
    if "AwbEnable" in camera_controls:
        found["white_balance_mode"] = ("continuous", "manual")
    if "AfMode" in camera_controls:
        highest = int(camera_controls["AfMode"][1])
        found["focus_mode"] = tuple(name for name, value in _FOCUS_MODES.items() if value <= highest)
    if "LensPosition" in camera_controls:
        low, high, default = _numbers(camera_controls["LensPosition"])
        found["focus_distance"] = (_metres(high), _metres(low), _metres(default))
    zoom = _zoom(camera_controls)
    if zoom > 1.0:
        found["zoom"] = (1.0, zoom, 1.0)
        found["pan"] = found["tilt"] = (-1.0, 1.0, 0.0)
    return found


def to_libcamera(
    settings: Mapping[str, Any], camera_controls: Mapping[str, Range], *, streams: int = 1
) -> dict[str, Any]:
    """libcamera's controls for W3C settings; values are brought into range, what the camera lacks is left out.

    `camera_controls` must be those after `configure()`: before it libcamera announces ranges that belong to no sensor
    (ipa_base.cpp, ipaControls: exposures up to 66 666 µs, a crop of 65535x65535).

    Giving an exposure time, an ISO value, a colour temperature or a focus distance without its mode means: manual.
    """
    controls: dict[str, Any] = {}
    for ours, theirs in _SAME_UNIT.items():
        if settings.get(ours) is not None and theirs in camera_controls:
            controls[theirs] = _clamp(settings[ours], camera_controls[theirs])
    controls |= _exposure(settings, camera_controls)
    controls |= _white_balance(settings, camera_controls)
    controls |= _focus(settings, camera_controls)
    crop = _crop(settings, camera_controls)
    if crop is not None:
        controls["ScalerCrop"] = crop
        if "ScalerCrops" in camera_controls:  # preferred by libcamera where picamera2 has set it (pipeline_base.cpp)
            controls["ScalerCrops"] = [crop] * streams
    controls |= frame_duration(settings.get("frame_rate"), camera_controls, settings.get("slowest_frame_rate"))
    return controls


def autofocus(
    settings: Mapping[str, Any],
    camera_controls: Mapping[str, Range],
    mode: str | None = None,
    distance: float | None = None,
) -> dict[str, Any]:
    """Settings with a focus: what they say themselves, else `mode` and `distance` of the camera, else continuous.

    libcamera's own default is a lens that stands at one metre (af.cpp); rpicam-vid has continuous autofocus as well.
    """
    if "AfMode" not in camera_controls or settings.get("focus_mode") or settings.get("focus_distance") is not None:
        return dict(settings)
    if mode == "manual" or (mode is None and distance is not None):
        return {**settings, "focus_mode": "manual", "focus_distance": distance}
    return {**settings, "focus_mode": "continuous"}


def exposure_s(settings: Mapping[str, Any]) -> float | None:
    """The fixed exposure that is asked for, in seconds; None while the automatic decides."""
    time = settings.get("exposure_time")
    if time is None or settings.get("exposure_mode") == "continuous":
        return None
    return float(time) * _EXPOSURE_US / 1e6


def frame_duration(
    frame_rate: float | None, camera_controls: Mapping[str, Range], slowest: float | None = None
) -> dict[str, Any]:
    """A frame rate as `FrameDurationLimits` (µs): fixed, or down to `slowest` where the light wants longer exposures.

    Not brought into the range given: that is of the sensor mode which happens to be set, often the slowest one.
    libcamera holds it within the range of the mode that comes.
    """
    if not frame_rate or "FrameDurationLimits" not in camera_controls:
        return {}
    duration = round(1_000_000 / frame_rate)
    return {"FrameDurationLimits": (duration, round(1_000_000 / slowest) if slowest else duration)}


def facing_mode(location: int | None) -> FacingMode | None:
    """From libcamera's property Location."""
    return None if location is None else _LOCATIONS.get(location)


def _exposure(settings: Mapping[str, Any], camera_controls: Mapping[str, Range]) -> dict[str, Any]:
    controls: dict[str, Any] = {}
    mode = settings.get("exposure_mode")
    time, iso = settings.get("exposure_time"), settings.get("iso")
    if mode == "continuous":
        if "AeEnable" in camera_controls:
            controls["AeEnable"] = True
        return controls
    if time is not None and "ExposureTime" in camera_controls:
        controls["ExposureTime"] = round(_clamp(time * _EXPOSURE_US, camera_controls["ExposureTime"]))
    if iso is not None and "AnalogueGain" in camera_controls:
        controls["AnalogueGain"] = _clamp(iso / _ISO_AT_GAIN_1, camera_controls["AnalogueGain"])
    if mode == "manual" and not controls and "AeEnable" in camera_controls:
        controls["AeEnable"] = False  # stay at what the automatic has found
    return controls


def _white_balance(settings: Mapping[str, Any], camera_controls: Mapping[str, Range]) -> dict[str, Any]:
    if "AwbEnable" not in camera_controls:
        return {}
    mode = settings.get("white_balance_mode")
    if mode == "continuous":
        return {"AwbEnable": True}
    if mode in {"manual", "none"} or settings.get("color_temperature") is not None:
        return {"AwbEnable": False}
    return {}


def _focus(settings: Mapping[str, Any], camera_controls: Mapping[str, Range]) -> dict[str, Any]:
    if "AfMode" not in camera_controls:
        return {}
    mode, distance = settings.get("focus_mode"), settings.get("focus_distance")
    if mode is None and distance is not None:
        mode = "manual"  # LensPosition is ignored in the other modes
    if mode not in _FOCUS_MODES:
        return {}
    controls: dict[str, Any] = {"AfMode": _FOCUS_MODES[mode]}
    if mode == "single-shot":
        controls["AfTrigger"] = _AF_TRIGGER_START
    if mode == "manual" and distance is not None and "LensPosition" in camera_controls:
        dioptres = 0.0 if distance >= _FARTHEST_M else 1.0 / max(distance, 1e-3)
        controls["LensPosition"] = float(_clamp(dioptres, camera_controls["LensPosition"]))
    return controls


def _crop(settings: Mapping[str, Any], camera_controls: Mapping[str, Range]) -> Rectangle | None:
    """The part of the sensor for `zoom` (1: all), `pan` and `tilt` (-1 … 1: left to right, bottom to top)."""
    zoom = settings.get("zoom")
    if "ScalerCrop" not in camera_controls or zoom is None:
        return None
    zoom = min(max(1.0, float(zoom)), _zoom(camera_controls))
    x, y, full_width, full_height = camera_controls["ScalerCrop"][1]
    width, height = math.floor(full_width / zoom), math.floor(full_height / zoom)
    pan = min(1.0, max(-1.0, float(settings.get("pan") or 0.0)))
    tilt = min(1.0, max(-1.0, float(settings.get("tilt") or 0.0)))
    left = x + round((full_width - width) * (1 + pan) / 2)
    top = y + round((full_height - height) * (1 - tilt) / 2)
    return (left, top, width, height)


_FOCUS_STATES = ("idle", "scanning", "focused", "failed")  # libcamera's AfState


def figures(metadata: Mapping[str, Any]) -> dict[str, float | str]:
    """What the metadata of a frame say of it; see Source.figures. What is not there, or no number, is left out."""
    found: dict[str, float | str] = {}
    for theirs, ours, factor, digits in (
        ("FocusFoM", "focus_figure", 1, 0),
        ("ExposureTime", "exposure_time", 1 / _EXPOSURE_US, 1),
        ("AnalogueGain", "iso", _ISO_AT_GAIN_1, 0),
        ("ColourTemperature", "color_temperature", 1, 0),
        ("Lux", "lux", 1, 1),
    ):
        value = metadata.get(theirs)
        if isinstance(value, int | float) and math.isfinite(value):
            found[ours] = round(value * factor, digits)
    lens, state = metadata.get("LensPosition"), metadata.get("AfState")
    if isinstance(lens, int | float) and math.isfinite(lens):
        found["focus_distance"] = _metres(lens)
    if isinstance(state, int) and 0 <= state < len(_FOCUS_STATES):  # picamera2's enumeration is one of integers
        found["focus_state"] = _FOCUS_STATES[state]
    return found


def _zoom(camera_controls: Mapping[str, Range]) -> float:
    if "ScalerCrop" not in camera_controls:
        return 1.0
    smallest, largest, _ = camera_controls["ScalerCrop"]
    if not smallest[2] or not smallest[3]:
        return 1.0
    return float(round(min(largest[2] / smallest[2], largest[3] / smallest[3], _LARGEST_ZOOM), 2))


def _numbers(found: Range) -> tuple[float, float, float]:
    """Numbers in place of None, which libcamera gives for a control without a default."""
    low, high, default = found
    low = 0 if low is None else low
    high = low if high is None else high
    return low, high, low if default is None else min(max(default, low), high)


def _clamp(value: float, found: Range) -> float:
    low, high, _ = _numbers(found)
    return min(max(value, low), high)


def _metres(dioptres: float) -> float:
    return round(min(_FARTHEST_M, 1.0 / dioptres), 3) if dioptres > 0 else _FARTHEST_M
