"""What the tokens of an overlay mean for a frame."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from msrecd.clock import NS
from msrecd.clock.wall import WallTime
from msrecd.recorder.settings import RecorderSettings

_TENTH_NS = NS // 10


def with_overlay(settings: RecorderSettings, device: str, walltime: WallTime) -> RecorderSettings:
    """The settings, with a function in place of the text of an overlay."""
    overlay = settings.options.get("overlay")
    if overlay is None:
        return settings
    text = text_of(str(overlay["text"]), device, settings.name, walltime)
    return replace(settings, options={**settings.options, "overlay": {**overlay, "text": text}})


def text_of(template: str, device: str, recorder: str, walltime: WallTime) -> Callable[[int], str]:
    """A function from a frame's capture time (CLOCK_MONOTONIC, ns) to its text; for any thread.

    A clock that is not trusted shows no date: it gives the boot and the time since the machine was started instead.
    """
    names = template.replace("{device}", device).replace("{recorder}", recorder)

    def text(at_ns: int) -> str:
        stamp = walltime.stamp(at_ns)
        boot = f"boot{stamp.boot:04d}"
        if stamp.trusted:
            seconds, rest = divmod(stamp.utc_ns, NS)
            here = time.localtime(seconds)
            date, clock = time.strftime("%Y-%m-%d", here), time.strftime("%H:%M:%S", here)
        else:
            seconds, rest = divmod(at_ns, NS)
            date = boot
            clock = f"+{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        clock += f".{rest // _TENTH_NS}"
        return names.replace("{date}", date).replace("{time}", clock).replace("{boot}", boot)

    return text
