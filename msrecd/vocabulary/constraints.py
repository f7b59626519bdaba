"""The constrainable properties of cameras and microphones, and the form of value that each takes.

https://w3c.github.io/mediacapture-main/#constrainable-properties, names in snake_case.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal, cast

_LARGEST = 1.7e308  # above: infinity, and integers that no float can hold


class ValueType(StrEnum):
    """The value forms of the specification; a `Constrain…` dictionary each."""

    ULONG = "ULong"
    DOUBLE = "Double"
    STRING = "DOMString"
    BOOLEAN = "Boolean"
    BOOLEAN_OR_STRING = "BooleanOrDOMString"
    DOUBLE_OR_BOOLEAN = "DoubleOrBoolean"

    @property
    def is_numeric(self) -> bool:
        """Whether a constraint may name a `min` and a `max`."""
        return self in (ValueType.ULONG, ValueType.DOUBLE, ValueType.DOUBLE_OR_BOOLEAN)

    @property
    def takes_strings(self) -> bool:
        return self in (ValueType.STRING, ValueType.BOOLEAN_OR_STRING)

    @property
    def takes_booleans(self) -> bool:
        return self in (ValueType.BOOLEAN, ValueType.BOOLEAN_OR_STRING, ValueType.DOUBLE_OR_BOOLEAN)

    def takes(self, value: object) -> bool:
        """Whether this is one value, without `min`, `max`, `exact` or `ideal` around it."""
        if isinstance(value, bool):
            return self.takes_booleans
        if isinstance(value, str):
            return self.takes_strings
        if isinstance(value, int | float):
            return (
                self.is_numeric and abs(value) <= _LARGEST
            )  # neither NaN nor infinity; an int may be larger than a float
        is_list = isinstance(value, Sequence) and not isinstance(value, bytes | bytearray)
        return self is ValueType.STRING and is_list and all(isinstance(one, str) for one in cast(list[object], value))

    @property
    def wanted(self) -> str:
        """What a value must be, for messages."""
        return _WANTED[self]


_WANTED = {
    ValueType.ULONG: "a whole number",
    ValueType.DOUBLE: "a finite number",
    ValueType.STRING: "a string or a list of strings",
    ValueType.BOOLEAN: "true or false",
    ValueType.BOOLEAN_OR_STRING: "true, false or a string",
    ValueType.DOUBLE_OR_BOOLEAN: "a finite number, true or false",
}

COMMON = {"device_id": ValueType.STRING, "group_id": ValueType.STRING}
CAMERA_CONTROLS = {  # https://w3c.github.io/mediacapture-image/#mediatrackconstraintset-section
    "brightness": ValueType.DOUBLE,
    "color_temperature": ValueType.DOUBLE,
    "contrast": ValueType.DOUBLE,
    "exposure_compensation": ValueType.DOUBLE,
    "exposure_mode": ValueType.STRING,
    "exposure_time": ValueType.DOUBLE,
    "focus_distance": ValueType.DOUBLE,
    "focus_mode": ValueType.STRING,
    "iso": ValueType.DOUBLE,
    "pan": ValueType.DOUBLE_OR_BOOLEAN,
    "saturation": ValueType.DOUBLE,
    "sharpness": ValueType.DOUBLE,
    "tilt": ValueType.DOUBLE_OR_BOOLEAN,
    "torch": ValueType.BOOLEAN,
    "white_balance_mode": ValueType.STRING,
    "zoom": ValueType.DOUBLE_OR_BOOLEAN,
}
VIDEO = {
    "width": ValueType.ULONG,
    "height": ValueType.ULONG,
    "aspect_ratio": ValueType.DOUBLE,
    "frame_rate": ValueType.DOUBLE,
    "facing_mode": ValueType.STRING,
    "resize_mode": ValueType.STRING,
}
AUDIO = {
    "sample_rate": ValueType.ULONG,
    "sample_size": ValueType.ULONG,
    "echo_cancellation": ValueType.BOOLEAN_OR_STRING,
    "auto_gain_control": ValueType.BOOLEAN,
    "noise_suppression": ValueType.BOOLEAN,
    "latency": ValueType.DOUBLE,
    "channel_count": ValueType.ULONG,
}
PROPERTIES: dict[Literal["audio", "video"], dict[str, ValueType]] = {
    "video": COMMON | VIDEO | CAMERA_CONTROLS,
    "audio": COMMON | AUDIO,
}
SELECTING = frozenset(COMMON | VIDEO | AUDIO)  # what may be required where a device is still to be chosen
