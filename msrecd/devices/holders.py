"""Who has a device open, for error messages that help."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process that has a device open; `command` is "" when it cannot be told."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"{self.command} (pid {self.pid})" if self.command else f"process {self.pid}"


def who_has_open(paths: Collection[str], proc: Path = Path("/proc")) -> Holder | None:
    """Look through the open files of all processes; those of other users show only to root."""
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            has_open = any(str(link.readlink()) in paths for link in (entry / "fd").iterdir())
        except OSError:
            continue
        if has_open:
            return Holder(pid=int(entry.name), command=command_of(int(entry.name), proc))
    return None


def command_of(pid: int, proc: Path = Path("/proc")) -> str:
    """The name of the program, "" when the process is gone."""
    try:
        return (proc / str(pid) / "comm").read_text(errors="replace").strip()
    except OSError:
        return ""
