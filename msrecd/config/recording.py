"""Tables of a `[[recorder]]` that say how more than one recording is made of its inputs: filters, snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msrecd.config.kinds import Number, Report, Text, key

FILTERS = ("highpass", "lowpass", "notch", "gain", "mono")
DEFAULT_NOTCH_Q = 10.0
_NEEDS = {"highpass": "frequency", "lowpass": "frequency", "notch": "frequency", "gain": "gain_db", "mono": None}


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
