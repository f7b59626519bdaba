"""The form of the constraints `video` and `audio` take, before any device is asked. Pure.

Whether a device can meet them only shows when it is opened.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from msrecd.config.hints import quoted_number, unknown_key
from msrecd.config.kinds import BadValueError, Schema, shown
from msrecd.config.problems import Report, suggestion
from msrecd.vocabulary.constraints import PROPERTIES, SELECTING, ValueType

_RANGE = ("min", "max", "exact", "ideal")
_CHOICE = ("exact", "ideal")
LABEL = "label"  # of `device_id`: the device that carries this label


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """MediaTrackConstraints (https://w3c.github.io/mediacapture-main/#dom-mediatrackconstraints), or true or false.

    What `get_user_media` takes is accepted, but for constraints of the other kind and unknown names, which it ignores:
    in a file they can only be mistakes. `device_id = { label = … }` is an addition of the configuration.
    """

    kind: Literal["video", "audio"]
    example_text: str
    suffix: str = ""

    def read(self, value: object, path: str, report: Report) -> bool | dict[str, Any]:
        if isinstance(value, bool):
            return value
        if not isinstance(value, dict):
            raise BadValueError(f"takes true, false or a table like {self.example_text}, not {shown(value)}")
        self._check_set(value, path, report, is_advanced=False)
        return value

    def _check_set(self, table: object, path: str, report: Report, *, is_advanced: bool) -> None:
        if not isinstance(table, dict):
            report.add(path, f"takes a table of constraints, not {shown(table)}")
            return
        known = PROPERTIES[self.kind]
        other: Literal["video", "audio"] = "audio" if self.kind == "video" else "video"
        for name, value in table.items():
            at = f"{path}.{name}"
            if name == "advanced" and not is_advanced:
                if not isinstance(value, list):
                    report.add(at, f"takes an array of tables, not {shown(value)}")
                    continue
                for i, entry in enumerate(value):
                    self._check_set(entry, f"{at}[{i}]", report, is_advanced=True)
            elif name in known:
                may_require = is_advanced or name in SELECTING
                has_label = name == "device_id" and not is_advanced
                _check_value(value, known[name], at, report, may_require=may_require, has_label=has_label)
            elif name in PROPERTIES[other]:
                report.add(at, f"is a constraint of {other}")
            else:
                report.add(at, f"unknown constraint{unknown_key(name, [*known, 'advanced'], report.elsewhere)}")

    def schema(self) -> Schema:
        basic = {name: _schema(value_type) for name, value_type in PROPERTIES[self.kind].items()}
        advanced = {"type": "object", "additionalProperties": False, "properties": basic}
        labelled = {"device_id": {"anyOf": [*basic["device_id"]["anyOf"], _LABEL_SCHEMA]}}
        table = {
            "type": "object",
            "additionalProperties": False,
            "properties": basic | labelled | {"advanced": {"type": "array", "items": advanced}},
        }
        return {"oneOf": [{"type": "boolean"}, table]}

    def describe(self) -> str:
        return "true, false, or a table of constraints"

    def example(self) -> bool:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceId:
    """A device by its id, or by its label as `{ label = … }`."""

    suffix: str = ""

    def read(self, value: object, path: str, report: Report) -> str | dict[str, Any]:
        if isinstance(value, str) and value:
            return value
        if isinstance(value, dict) and LABEL in value:
            _check_label(value, path, report)
            return value
        raise BadValueError(f"takes {self.describe()}, not {shown(value)}")

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "string", "minLength": 1}, _LABEL_SCHEMA]}

    def describe(self) -> str:
        return "a device id, or { label = ... }"

    def example(self) -> str:
        return ""


def _check_value(
    value: object, value_type: ValueType, path: str, report: Report, *, may_require: bool, has_label: bool
) -> None:
    forms = _RANGE if value_type.is_numeric else _CHOICE
    if not isinstance(value, dict):
        _check_bare(value, value_type, path, forms, report)
        return
    if has_label and LABEL in value:
        _check_label(value, path, report)
        return
    for form, part in value.items():
        at = f"{path}.{form}"
        if form not in forms:
            report.add(at, f"unknown key{suggestion(form, (*forms, LABEL) if has_label else forms)}")
        elif form != "ideal" and not may_require:
            report.add(at, f"cannot be required where a device is still to be chosen; write ideal instead of {form}")
        else:
            _check_bare(part, ValueType.DOUBLE if form in ("min", "max") else value_type, at, forms, report)
    if value_type.is_numeric and not report.concerns(path):
        _check_range(value, path, report)


def _check_bare(value: object, value_type: ValueType, path: str, forms: tuple[str, ...], report: Report) -> None:
    if value_type.takes(value):
        return
    # Of a form like `min` the value itself is wrong; in its place a table would be wrong, too.
    table = "" if path.rpartition(".")[2] in forms else f", or a table with {', '.join(forms)}"
    advice = quoted_number(value) if value_type.is_numeric else ""
    report.add(path, f"takes {value_type.wanted}{table}, not {shown(value)}{advice}")


def _check_label(value: Mapping[str, object], path: str, report: Report) -> None:
    if not isinstance(value[LABEL], str) or not value[LABEL]:
        report.add(f"{path}.{LABEL}", f"takes a device's label as `msrecd devices` shows it, not {shown(value[LABEL])}")
    for form in value:
        if form != LABEL:
            report.add(f"{path}.{form}", "cannot stand together with label; remove one of them")


def _check_range(value: Mapping[str, float], path: str, report: Report) -> None:
    low, high = value.get("min", -math.inf), value.get("max", math.inf)
    exact = value.get("exact")
    if low > high:
        report.add(path, f"min {low} is greater than max {high}")
    elif exact is not None and not isinstance(exact, bool) and not low <= exact <= high:
        report.add(path, f"exact {exact} is outside of min and max")


_LABEL_SCHEMA: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": [LABEL],
    "properties": {LABEL: {"type": "string", "minLength": 1}},
}


def _schema(value_type: ValueType) -> Schema:
    types: list[Schema] = [
        *([{"type": "number"}] if value_type.is_numeric else []),
        *([{"type": "string"}] if value_type.takes_strings else []),
        *([{"type": "array", "items": {"type": "string"}}] if value_type is ValueType.STRING else []),
        *([{"type": "boolean"}] if value_type.takes_booleans else []),
    ]
    value: Schema = types[0] if len(types) == 1 else {"anyOf": types}
    forms = _RANGE if value_type.is_numeric else _CHOICE
    limits = {form: {"type": "number"} if form in ("min", "max") else value for form in forms}
    return {"anyOf": [value, {"type": "object", "additionalProperties": False, "properties": limits}]}
