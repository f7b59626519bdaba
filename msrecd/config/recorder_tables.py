"""Tables of a `[[recorder]]` that say what else is made of its inputs: filters, snapshots, overlay, time-lapse."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from msrecd.config.kinds import Duration, Flag, Number, Text
from msrecd.config.problems import Report, suggestion
from msrecd.config.tables import key

FILTERS = ("highpass", "lowpass", "notch", "gain", "mono")
DEFAULT_NOTCH_Q = 10.0
_NEEDS = {"highpass": "frequency", "lowpass": "frequency", "notch": "frequency", "gain": "gain_db", "mono": None}
TOKENS = ("time", "date", "device", "recorder", "boot")
POSITIONS = ("top-left", "top-right", "bottom-left", "bottom-right")
_TOKEN = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioFilter:
    """One entry of `recorder.audio_filters`."""

    type: Literal["highpass", "lowpass", "notch", "gain", "mono"] = key(
        Text(choices=FILTERS),
        "`highpass` and `lowpass` fall by 12 dB an octave and are 3 dB down at `frequency`; `notch` takes out a tone; "
        "`gain` makes louder; `mono` is the mean of all channels.",
    )
    frequency: float | None = key(
        Number(minimum=1, maximum=384_000, fractions=True),
        "Hz; of `highpass`, `lowpass` and `notch`.",
        default=None,
        default_doc="none",
    )
    gain_db: float | None = key(
        Number(minimum=-80, maximum=80, fractions=True), "dB; of `gain`.", default=None, default_doc="none"
    )
    q: float | None = key(
        Number(minimum=0.1, maximum=1000, fractions=True),
        "How narrow a `notch` is.",
        default=None,
        default_doc=f"`{DEFAULT_NOTCH_Q:g}`",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshots:
    """recorder.snapshots: JPEG files beside the chunks, under the same retention. Empty: by command only."""

    every_s: float | None = key(
        Duration(minimum=1, maximum=366 * 86_400),
        "One each time this long has passed, the first one at once.",
        default=None,
        default_doc="none",
    )
    at: str | None = key(
        Text(max_length=256, is_time=True),
        'When, in the forms of a schedule\'s `start`: "12:00", "sunrise+1h", "*/10 * * * *".',
        default=None,
        default_doc="none",
    )
    idle: bool = key(Flag(), "Also while nothing is recorded: the camera is opened for each.", default=False)
    settle_s: float = key(
        Duration(minimum=0, maximum=60),
        "A camera that was closed has this long at most for its exposure and white balance to settle before the frame "
        "counts.",
        default=5.0,
    )
    dng: bool = key(
        Flag(),
        "Beside each JPEG, then of the sensor's full resolution, its raw frame as a DNG: of cameras at the board's own "
        "connector only; while the recorder records, each is a gap of a second or so.",
        default=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLapse:
    """recorder.time_lapse: one frame an interval, played faster than it was captured."""

    interval_s: float = key(
        Duration(minimum=1, maximum=86_400), "One frame each time this long has passed, the first one at once."
    )
    frame_rate: float = key(
        Number(minimum=1, maximum=120, fractions=True),
        "Frames a second when the file is played; bit rate and distance of key frames count in that time.",
        default=25.0,
        default_doc="`25`",
    )
    closes_camera: bool = key(
        Flag(),
        "Close the camera between frames, 15s apart at least; it opens some seconds before each, to settle.",
        default=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """[recorder.overlay]: a line of text in the frames."""

    text: str = key(
        Text(max_length=128),
        "The text, with tokens in braces: `{date}` and `{time}` of the frame's capture, in the zone of the machine, "
        "`{device}`, `{recorder}`, and the `{boot}` as names have it, like `boot0001`. Letters are capitals of A to Z.",
        default="{date} {time}",
    )
    position: Literal["top-left", "top-right", "bottom-left", "bottom-right"] = key(
        Text(choices=POSITIONS), "Where it stands.", default="bottom-left"
    )


def check_filters(filters: tuple[AudioFilter, ...], at: str, report: Report) -> None:
    """Report what an entry lacks, and what it has that says nothing."""
    for i, one in enumerate(filters):
        here = f"{at}[{i}]"
        if report.concerns(f"{here}.type"):
            continue
        needed = _NEEDS[one.type]
        for name, value in (("frequency", one.frequency), ("gain_db", one.gain_db), ("q", one.q)):
            is_wanted = name == needed or (name == "q" and one.type == "notch")
            if value is None and name == needed and not report.concerns(f"{here}.{name}"):
                report.add(f"{here}.{name}", f"is missing; a {one.type} needs it")
            elif value is not None and not is_wanted:
                report.add(f"{here}.{name}", f"says nothing of a {one.type}; remove it")


def check_overlay(overlay: Overlay, at: str, report: Report) -> None:
    """Report what cannot be drawn."""
    if report.concerns(f"{at}.text"):
        return
    for token in _TOKEN.findall(overlay.text):
        if token not in TOKENS:
            report.add(f"{at}.text", f'"{{{token}}}" is not known{suggestion(token, TOKENS)}')
    if "{" in _TOKEN.sub("", overlay.text) or "}" in _TOKEN.sub("", overlay.text):
        report.add(f"{at}.text", "has a brace without its other one")
    if not overlay.text.strip():
        report.add(f"{at}.text", "is blank; leave the overlay out")
    if not overlay.text.isascii():
        report.add(f"{at}.text", "takes letters of ASCII only")
