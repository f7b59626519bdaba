"""What the file system under the recordings is, and what about it a person should know."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FAT_LIMIT_BYTES = (1 << 32) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A line of /proc/self/mountinfo."""

    point: str
    kind: str
    options: frozenset[str]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`code`: fat_limit, read_only, writeback, volatile, root_file_system."""

    code: str
    message: str


def parse_mountinfo(text: str) -> list[Mount]:
    """All mounts (proc(5)); mount points unescaped."""
    mounts = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, more = left.split(), right.split()
        if len(fields) >= 6 and len(more) >= 3:
            point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
            options = frozenset(fields[5].split(",")) | frozenset(more[2].split(","))
            mounts.append(Mount(point=point, kind=more[0], options=options, source=more[1]))
    return mounts


def mount_of(path: Path, mounts: list[Mount]) -> Mount | None:
    """The mount a resolved path lies in; of two at the same point the later one hides the other."""
    best: Mount | None = None
    for mount in mounts:
        inside = path == Path(mount.point) or Path(mount.point) in path.parents
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def judge(mount: Mount | None) -> list[Finding]:
    """What to report about a mount."""
    if mount is None:
        return []
    where = f"{mount.point} ({mount.kind})"
    findings = []
    if mount.kind in ("vfat", "msdos"):
        message = f"{where} holds no file of 4 GiB or more: keep chunk_max_size below 3.9 GiB"
        findings.append(Finding(code="fat_limit", message=message))
    if "ro" in mount.options:
        findings.append(Finding(code="read_only", message=f"{where} is mounted read-only"))
    if "data=writeback" in mount.options:
        message = f"{where} is mounted with data=writeback: after a power cut files may hold garbage; use data=ordered"
        findings.append(Finding(code="writeback", message=message))
    if mount.kind in ("tmpfs", "ramfs"):
        findings.append(Finding(code="volatile", message=f"{where} is memory: its recordings are gone after a restart"))
    if mount.point == "/":
        message = f"recordings lie on the root file system {where}: set max_total or min_free"
        findings.append(Finding(code="root_file_system", message=message))
    return findings


def check(path: Path) -> list[Finding]:
    """Look at the file system of an existing folder; nothing found when the kernel does not say."""
    try:
        mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text(errors="replace"))
        return judge(mount_of(path.resolve(), mounts))
    except OSError:
        return []


def is_mount_point(path: Path) -> bool:
    """Whether something is mounted at `path` or between it and the root file system."""
    try:
        return path.stat().st_dev != Path("/").stat().st_dev
    except OSError:
        return False
