"""What triggers have begun within the last hour, kept over a restart of the daemon: a small JSON file.

It holds for the boot that it was written in, whose CLOCK_MONOTONIC goes on. After another boot an hour begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msrecd.control import statefile
from msrecd.statefolder import report_unwritable

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
Begun = Mapping[str, Mapping[int, tuple[int, ...]]]  # recorder -> number of a trigger -> CLOCK_MONOTONIC


def load(path: Path, boot_id: Path = BOOT_ID) -> Begun:
    """What is known of this boot. What is missing, damaged or of another boot is as if nothing had begun. Blocking."""
    try:
        value = statefile.load(path)
        if not isinstance(value, dict) or value["boot_id"] != boot_id.read_text().strip():
            return {}
        return {
            str(name): {int(number): tuple(int(at_ns) for at_ns in times) for number, times in triggers.items()}
            for name, triggers in value["begun_ns"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def save(path: Path, begun: Begun, boot_id: Path = BOOT_ID) -> None:
    """Write it whole. An error is logged: nothing that records depends on it. Blocking."""
    try:
        kept = {name: {str(number): times for number, times in one.items()} for name, one in begun.items()}
        statefile.save(path, {"boot_id": boot_id.read_text().strip(), "begun_ns": kept})
    except OSError as exc:
        report_unwritable(path.parent, path.name, exc)
