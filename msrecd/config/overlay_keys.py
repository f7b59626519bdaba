"""Keys of `recorder.overlay`, and what must hold of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from msrecd.config.kinds import Report, Text, key
from msrecd.config.problems import suggestion

TOKENS = ("time", "date", "device", "recorder", "boot")
POSITIONS = ("top-left", "top-right", "bottom-left", "bottom-right")
_TOKEN = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """[recorder.overlay]: a line of text in the frames."""

    text: str = key(
        Text(max_length=128),
        "The text, with tokens in braces: `{date}` and `{time}` of the frame's capture, in the zone of the machine, "
        "`{device}`, `{recorder}`, and the number of the `{boot}`. Letters are capitals of A to Z.",
        default="{date} {time}",
    )
    position: Literal["top-left", "top-right", "bottom-left", "bottom-right"] = key(
        Text(choices=POSITIONS), "Where it stands.", default="bottom-left"
    )


def check_overlay(overlay: Overlay, at: str, report: Report) -> None:
    """Report what cannot be drawn."""
    if report.concerns(f"{at}.text"):
        return
    for token in _TOKEN.findall(overlay.text):
        if token not in TOKENS:
            report.add(f"{at}.text", f'"{{{token}}}" is not known{suggestion(token, TOKENS)}')
    if "{" in _TOKEN.sub("", overlay.text) or "}" in _TOKEN.sub("", overlay.text):
        report.add(f"{at}.text", "has a brace without its other one")
    if not overlay.text.isascii():
        report.add(f"{at}.text", "takes letters of ASCII only")
