"""What the file system under the recordings is, and what about it a person should know."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_FSID_IS_UUID = ("ext2", "ext3", "ext4", "btrfs")  # made from the UUID; others take the number of the device
_BY_UUID = Path("/dev/disk/by-uuid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A line of /proc/self/mountinfo."""

    point: str
    kind: str
    options: frozenset[str]
    source: str
    root: str = "/"  # what of the file system is mounted; not "/" for a bind mount


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
            mounts.append(Mount(point=point, kind=more[0], options=options, source=more[1], root=fields[3]))
    return mounts


def mount_of(path: Path, mounts: list[Mount]) -> Mount | None:
    """The mount a resolved path lies in; of two at the same point the later one hides the other."""
    best: Mount | None = None
    for mount in mounts:
        inside = path == Path(mount.point) or Path(mount.point) in path.parents
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def judge(mount: Mount | None, mounts: Sequence[Mount] = (), *, is_limited: bool = False) -> list[Finding]:
    """What to report about a mount.

    Args:
        mounts: all of them, for what an overlay lies on.
        is_limited: whether `max_total` or `min_free` is set.
    """
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
    if _is_memory(mount, mounts):
        findings.append(Finding(code="volatile", message=f"{where} is memory: its recordings are gone after a restart"))
    if mount.point == "/" and not is_limited:
        message = f"recordings lie on the root file system {where}: set max_total or min_free"
        findings.append(Finding(code="root_file_system", message=message))
    return findings


def _is_memory(mount: Mount, mounts: Sequence[Mount]) -> bool:
    """Whether what is written there lies in memory: also an overlay whose upper layer does."""
    if mount.kind in ("tmpfs", "ramfs"):
        return True
    upper = next((o.removeprefix("upperdir=") for o in mount.options if o.startswith("upperdir=")), None)
    if mount.kind != "overlay" or upper is None:
        return False
    below = mount_of(Path(upper), [other for other in mounts if other.kind != "overlay"])
    if below is not None and below.kind in ("tmpfs", "ramfs"):
        return True
    # raspi-config's overlay is mounted before the root is: its upper layer has no path any more, but a size.
    return not Path(upper).exists() and _is_of_memory_size(Path(mount.point))


def _is_of_memory_size(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = os.statvfs(path)
        lines = Path("/proc/meminfo").read_text().splitlines()
        total = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemTotal:"))
        return status.f_blocks * status.f_frsize <= total
    return False


def all_mounts() -> list[Mount]:
    """None where the kernel does not say."""
    try:
        return parse_mountinfo(Path("/proc/self/mountinfo").read_text(errors="replace"))
    except OSError:
        return []


def mount_at(path: Path) -> Mount | None:
    """The mount in which a path lies, or would lie."""
    return mount_of(path.resolve(), all_mounts())


def check(path: Path, *, is_limited: bool = False) -> list[Finding]:
    """Look at the file system of an existing folder; nothing found when the kernel does not say."""
    mounts = all_mounts()
    return judge(mount_of(path.resolve(), mounts), mounts, is_limited=is_limited)


def file_system_id(path: Path, mount: Mount | None) -> str:
    """What tells the file system at a path from another one, after restarts and at other places too; "": unknown."""
    with contextlib.suppress(OSError):
        if mount is not None and mount.kind in _FSID_IS_UUID:
            return f"fsid:{os.statvfs(path).f_fsid:x}"
        device = path.stat().st_dev
        for entry in sorted(_BY_UUID.iterdir()):
            if entry.stat().st_rdev == device:
                return f"uuid:{entry.name}"
    return ""


def is_mount_point(path: Path) -> bool:
    """Whether something is mounted at `path` or between it and the root file system."""
    try:
        return path.stat().st_dev != Path("/").stat().st_dev
    except OSError:
        return False
