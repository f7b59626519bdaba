"""The form of the constraints `video` and `audio` take, before any device is asked. Pure.

https://w3c.github.io/mediacapture-main/#constrainable-properties, names in snake_case. Whether a device can meet them
only shows when it is opened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from msrecd.config.hints import quoted_number, unknown_key
from msrecd.config.kinds import BadValueError, Report, Schema, shown
from msrecd.config.problems import suggestion

_COMMON = {"device_id": "text", "group_id": "text"}
VIDEO: Mapping[str, str] = {
    "width": "number",
    "height": "number",
    "aspect_ratio": "number",
    "frame_rate": "number",
    "facing_mode": "text",
    "resize_mode": "text",
    **_COMMON,
    # https://w3c.github.io/mediacapture-image/
    "brightness": "number",
    "contrast": "number",
    "saturation": "number",
    "sharpness": "number",
    "exposure_compensation": "number",
    "exposure_mode": "text",
    "exposure_time": "number",
    "iso": "number",
    "color_temperature": "number",
    "white_balance_mode": "text",
    "focus_mode": "text",
    "focus_distance": "number",
    "zoom": "number",
    "pan": "number",
    "tilt": "number",
    "torch": "flag",
}
AUDIO: Mapping[str, str] = {
    "sample_rate": "number",
    "sample_size": "number",
    "channel_count": "number",
    "latency": "number",
    "echo_cancellation": "flag",
    "auto_gain_control": "flag",
    "noise_suppression": "flag",
    **_COMMON,
}
_RANGE = ("min", "max", "exact", "ideal")
_CHOICE = ("exact", "ideal")


def check_video(table: object, path: str, report: Report) -> None:
    """Report what is not of the form of MediaTrackConstraints of a camera."""
    _check_sets(table, path, VIDEO, "audio", AUDIO, report)


def check_audio(table: object, path: str, report: Report) -> None:
    """Report what is not of the form of MediaTrackConstraints of a microphone."""
    _check_sets(table, path, AUDIO, "video", VIDEO, report)


def _check_sets(
    table: object, path: str, known: Mapping[str, str], other: str, foreign: Mapping[str, str], report: Report
) -> None:
    if not isinstance(table, dict):
        report.add(path, f"takes a table of constraints, not {shown(table)}")
        return
    for name, value in table.items():
        at = f"{path}.{name}"
        if name == "advanced" and not path.endswith("]"):
            if not isinstance(value, list):
                report.add(at, f"takes an array of tables, not {shown(value)}")
                continue
            for i, entry in enumerate(value):
                _check_sets(entry, f"{at}[{i}]", known, other, foreign, report)
        elif name in known:
            _check_value(value, known[name], at, report)
        elif name in foreign:
            # The W3C's algorithms ignore it without a word; in a file it can only be a mistake.
            report.add(at, f"is a constraint of {other}")
        else:
            report.add(at, f"unknown constraint{unknown_key(name, [*known, 'advanced'], report.elsewhere)}")


def _check_value(value: object, kind: str, path: str, report: Report) -> None:
    if not isinstance(value, dict):
        _check_bare(value, kind, path, report)
        return
    forms = _RANGE if kind == "number" else _CHOICE
    for form, part in value.items():
        if form in forms:
            _check_bare(part, kind, f"{path}.{form}", report)
        else:
            report.add(f"{path}.{form}", f"unknown key{suggestion(form, forms)}")
    if kind == "number" and not report.concerns(path):
        _check_range(value, path, report)


def _check_bare(value: object, kind: str, path: str, report: Report) -> None:
    if kind == "number":
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            report.add(
                path, f"takes a number, or a table with {', '.join(_RANGE)}, not {shown(value)}{quoted_number(value)}"
            )
    elif kind == "flag":
        if not isinstance(value, bool):
            report.add(path, f"takes true or false, not {shown(value)}")
    elif not isinstance(value, str) and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
        report.add(path, f"takes a string or an array of strings, not {shown(value)}")


def _check_range(value: Mapping[str, float], path: str, report: Report) -> None:
    low, high = value.get("min", -math.inf), value.get("max", math.inf)
    if low > high:
        report.add(path, f"min {low} is greater than max {high}")
    elif not low <= value.get("exact", max(low, min(high, 0))) <= high:
        report.add(path, f"exact {value['exact']} is outside of min and max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """MediaTrackConstraints (https://w3c.github.io/mediacapture-main/#dom-mediatrackconstraints), or true or false."""

    check: Callable[[object, str, Report], None]
    properties: Mapping[str, str]
    example_text: str
    suffix: str = ""

    def read(self, value: object, path: str, report: Report) -> bool | dict[str, Any]:
        if isinstance(value, bool):
            return value
        if not isinstance(value, dict):
            raise BadValueError(f"takes true, false or a table like {self.example_text}, not {shown(value)}")
        self.check(value, path, report)
        return value

    def schema(self) -> Schema:
        basic = {name: _CONSTRAINT_SCHEMAS[kind] for name, kind in self.properties.items()}
        advanced = {"type": "object", "additionalProperties": False, "properties": basic}
        table = {
            "type": "object",
            "additionalProperties": False,
            "properties": basic | {"advanced": {"type": "array", "items": advanced}},
        }
        return {"oneOf": [{"type": "boolean"}, table]}

    def describe(self) -> str:
        return "true, false, or a table of constraints"

    def example(self) -> bool:
        return True


def _forms(value: Schema, *, range_: bool) -> Schema:
    names = ("min", "max", "exact", "ideal") if range_ else ("exact", "ideal")
    table = {"type": "object", "additionalProperties": False, "properties": dict.fromkeys(names, value)}
    return {"anyOf": [value, table]}


_STRINGS: Schema = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_CONSTRAINT_SCHEMAS: dict[str, Schema] = {
    "number": _forms({"type": "number"}, range_=True),
    "text": _forms(_STRINGS, range_=False),
    "flag": _forms({"type": "boolean"}, range_=False),
}
