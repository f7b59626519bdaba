"""Keys of `[[recorder.trigger]]`, and what must hold between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from msrecd.config.kinds import Duration, Flag, Number, Text
from msrecd.config.problems import Report
from msrecd.config.tables import ListOf, key

if TYPE_CHECKING:
    from msrecd.config.recorder_model import Recorder

_PART = Number(minimum=0, maximum=1, fractions=True)
_POINT = ListOf(item=_PART, min_items=2, max_items=2, form="a point [x, y]")
_POLYGON = ListOf(
    item=_POINT, min_items=3, max_items=64, form="a polygon of 3 to 64 points, like [[0, 0], [1, 0], [1, 1]]"
)
_OF_MOTION = ("sensitivity", "mask")
_OF_SOUND = ("band", "threshold_db")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """[[recorder.trigger]]: what makes the recorder begin by itself."""

    kind: Literal["motion", "sound"] = key(
        Text(choices=("motion", "sound")), "What it looks for: an object that moves, or a sound."
    )
    sensitivity: float | None = key(
        Number(minimum=0, maximum=1, fractions=True),
        "motion: 1 notices most, 0 only what is large or stands out.",
        default=None,
        default_doc="`0.5`",
    )
    mask: tuple[tuple[tuple[float, ...], ...], ...] = key(
        ListOf(item=_POLYGON, max_items=16, form="at most 16 polygons, like [[[0, 0], [1, 0], [1, 1]]]"),
        "motion: polygons whose inside counts, as lists of points [x, y] in parts of the frame: [0, 0] is the upper "
        "left corner, [1, 1] the lower right one.",
        default=(),
        default_doc="none: the whole frame counts",
    )
    band: tuple[float, ...] = key(
        ListOf(
            item=Number(minimum=1, maximum=200_000, fractions=True),
            min_items=2,
            max_items=2,
            form="the lowest and the highest frequency in Hz, like [200, 8000]",
        ),
        "sound: lowest and highest frequency that counts, in Hz.",
        default=(),
        default_doc="`[200, 8000]`",
    )
    threshold_db: float | None = key(
        Number(minimum=1, maximum=60, fractions=True),
        "sound: how far the band must stand above its running background, in dB.",
        default=None,
        default_doc="`12`",
    )
    hold_s: float = key(
        Duration(minimum=0, maximum=3600), "Recorded on for so long after what it looks for has ended.", default=10.0
    )
    max_per_hour: int = key(
        Number(minimum=1, maximum=3600),
        "It begins at most so many recordings within 60 minutes; what it finds beyond that is an event, no recording."
        " A restart of the daemon changes nothing of that, one of the machine does.",
        default=60,
    )
    protect: bool = key(
        Flag(), "Protect what it records from being deleted for the limits (`recordings protect`).", default=False
    )


def check_triggers(triggers: Sequence[Trigger], recorder: Recorder, at: str, report: Report) -> None:
    """Report what does not go together."""
    for number, trigger in enumerate(triggers):
        here = f"{at}[{number}]"
        for name in _OF_SOUND if trigger.kind == "motion" else _OF_MOTION:
            if getattr(trigger, name) not in (None, ()) and not report.concerns(f"{here}.{name}"):
                report.add(f"{here}.{name}", f'is not for kind = "{trigger.kind}"; remove it')
        wanted, word = (recorder.video, "video") if trigger.kind == "motion" else (recorder.audio, "audio")
        if recorder.source is None and wanted is False and not report.concerns(f"{here}.kind"):
            report.add(f"{here}.kind", f'"{trigger.kind}" needs {word}')
        for i, polygon in enumerate(trigger.mask):
            if not report.concerns(f"{here}.mask") and not _encloses_something(polygon):
                report.add(f"{here}.mask[{i}]", "encloses nothing of the frame; its points must lie around some of it")
        if trigger.band and trigger.band[0] >= trigger.band[-1] and not report.concerns(f"{here}.band"):
            report.add(f"{here}.band", "takes the lower frequency first")


def _encloses_something(polygon: Sequence[Sequence[float]]) -> bool:
    """Whether a point of a fine grid over the frame lies inside, by the even-odd rule."""
    across, down = 160, 120  # finer than the blocks that are looked at
    rows = {int(y * down) for _, y in polygon}
    for row in range(min(rows), min(max(rows) + 1, down)):
        y = (row + 0.5) / down
        crossed = sorted(
            x1 + (x2 - x1) * (y - y1) / (y2 - y1)
            for (x1, y1), (x2, y2) in zip(polygon, (*polygon[1:], polygon[0]), strict=True)
            if (y1 > y) != (y2 > y)
        )
        if any(
            round(left * across) < round(right * across)
            for left, right in zip(crossed[::2], crossed[1::2], strict=True)
        ):
            return True
    return False
