"""The facts of a machine that `msrecd doctor` judges: `gather` reads files and asks systemd."""

from __future__ import annotations

import contextlib
import grp
import importlib.util
import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msrecd.clock.synchronization import KernelClock
from msrecd.config.model import Config
from msrecd.config.recorder_model import DAYS, Recorder, Schedule
from msrecd.daemon import health
from msrecd.daemon.doctor import services
from msrecd.devices import absent_modules
from msrecd.devices.board import Board, has_pisp, read_board
from msrecd.devices.camera.modes import ContiguousMemory, contiguous_memory, needs_contiguous_memory
from msrecd.errors import StorageError
from msrecd.storage import checks
from msrecd.storage.medium import check_place
from msrecd.vocabulary.units import format_duration

UNIT = "msrecd.service"
USER = "msrecd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A device that a recorder names by its id (any of `ids`) or by its label."""

    recorder: str
    kind: str
    ids: Sequence[str] = ()
    label: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Triggered:
    """A recorder that begins by itself. armed: when, in words; empty: always. needs: the kinds of its devices."""

    recorder: str
    kinds: Sequence[str]
    armed: Sequence[str] = ()
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found out about the machine.

    config_problems: why the configuration cannot be used. wants: the kinds that its recorders record.
    wanted: the devices that they name.
    devices: as `state/devices` has them. libraries: which of picamera2 and alsaaudio are installed.
    absent: modules that picamera2 needs and that are not there.
    is_memory_limited: whether the limits of the unit have an effect.
    storage: where recordings go, "" when nothing is configured; storage_free: there, or where it will be made.
    storage_problem: why the daemon will not record there, "" when it will. is_storage_there: it need not be made.
    storage_taken: by the files in it, looked at only where less than min_free is free.
    has_limit: whether max_total or min_free is set. is_storage_visible: whoever asks may look at it.
    state_problem: why the state folder cannot be used, "" when it can.
    user_groups: of the service's user, None when there is none. unit: systemd's ActiveState, "" without systemd.
    page: where it listens, offload: what the store is; "" where there is none. page_problems, offload_problems: why it
    will not work. triggers: the recorders that have some. sources: by recorder, why nothing comes, "" where it may.
    """

    board: Board = field(default_factory=Board)
    throttled: Mapping[str, object] = field(default_factory=dict)
    config_problems: Sequence[str] = ()
    wants: frozenset[str] = frozenset({"video", "audio"})
    wanted: Sequence[Wanted] = ()
    libraries: frozenset[str] = frozenset()
    absent: Sequence[str] = ()
    devices: Sequence[Mapping[str, Any]] = ()
    has_encoder_node: bool = False
    has_pisp: bool = False
    memory_total: int = 0
    memory_available: int = 0
    is_memory_limited: bool = True
    uses_contiguous_memory: bool = False
    contiguous_memory: ContiguousMemory | None = None
    storage: str = ""
    storage_free: int = 0
    storage_problem: str = ""
    is_storage_there: bool = True
    storage_taken: int = 0
    min_free: int = 0
    has_limit: bool = False
    storage_findings: Sequence[str] = ()
    is_storage_writable: bool = True
    is_storage_visible: bool = True
    state: str = ""
    state_problem: str = ""
    is_clock_synchronized: bool = False
    user_groups: frozenset[str] | None = None
    unit: str = ""
    is_unit_enabled: bool = False
    page: str = ""
    page_problems: Sequence[str] = ()
    offload: str = ""
    offload_problems: Sequence[str] = ()
    triggers: Sequence[Triggered] = ()
    sources: Mapping[str, str] = field(default_factory=dict)


def gather(
    config: Config | None,
    problems: Sequence[str],
    devices: Sequence[Mapping[str, Any]],
    root: Path = Path("/"),
    *,
    sources: Mapping[str, str] | None = None,
) -> Facts:
    """The facts of this machine; reads files and asks systemd, which takes a moment.

    Args:
        sources: as in Facts.
    """
    meminfo = root / "proc/meminfo"
    total, available = _memory_of(meminfo)
    storage = Path(config.storage.path) if config is not None and config.storage is not None else None
    is_visible, is_there = _look_at(storage)
    state = Path(config.storage.state_path) if config is not None else None
    storage_problem = "" if storage is None or state is None or not is_visible else _storage_problem(storage, state)
    place = None if storage is None or not is_visible or storage_problem else _nearest(storage)
    unit, is_enabled = _unit_state()
    free = 0 if place is None else shutil.disk_usage(place).free
    min_free = 0 if config is None else config.storage.min_free_bytes or 0
    has_limit = config is not None and (min_free > 0 or config.storage.max_total_bytes is not None)
    web, offload = (None, None) if config is None else (config.web, config.offload)
    found = [] if storage is None or place is None else checks.check(storage, is_limited=has_limit)
    return Facts(
        board=read_board(root),
        throttled=health.throttled(root / "sys"),
        config_problems=problems,
        wants=_wants(config),
        wanted=_wanted(config),
        libraries=frozenset(name for name in ("picamera2", "alsaaudio") if importlib.util.find_spec(name) is not None),
        absent=absent_modules(),
        devices=devices,
        has_encoder_node=(root / "dev/video11").exists(),
        has_pisp=has_pisp(root),
        memory_total=total,
        memory_available=available,
        is_memory_limited=_has_memory_controller(root / "sys/fs/cgroup"),
        uses_contiguous_memory=needs_contiguous_memory(root / "dev/dma_heap"),
        contiguous_memory=contiguous_memory(meminfo),
        storage="" if storage is None else str(storage),
        storage_free=free,
        storage_problem=storage_problem,
        is_storage_there=storage is None or is_there,
        storage_taken=_taken(storage) if storage is not None and is_there and free < min_free else 0,
        min_free=min_free,
        has_limit=has_limit,
        storage_findings=[one.message for one in found],
        is_storage_writable=storage is None or not is_there or services.can_write(storage, USER),
        is_storage_visible=is_visible,
        state="" if state is None else str(state),
        state_problem="" if state is None else services.folder_unusable(state, USER),
        is_clock_synchronized=KernelClock().wait(),
        user_groups=_groups_of(USER),
        unit=unit,
        is_unit_enabled=is_enabled,
        page="" if web is None else web.listen,
        page_problems=[] if web is None else services.page_problems(web, USER),
        offload="" if offload is None else offload.endpoint or offload.remote,
        offload_problems=[] if offload is None else services.offload_problems(offload, USER, storage),
        triggers=_triggers(config),
        sources=sources or {},
    )


def _look_at(storage: Path | None) -> tuple[bool, bool]:
    """Whether the folder may be looked at, and whether it is there."""
    try:
        return True, storage is not None and storage.is_dir()
    except PermissionError:
        return False, False


def _taken(folder: Path) -> int:
    """Bytes of all files below a folder."""
    taken = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # rotation may have taken it meanwhile
                taken += Path(place, name).lstat().st_size
    return taken


def _storage_problem(storage: Path, state: Path) -> str:
    """Why the daemon refuses to record there; a folder that is not there yet is made."""
    try:
        check_place(storage, state)
    except StorageError as exc:
        return exc.message
    return "" if storage.is_dir() else services.folder_unusable(storage, USER)


def _nearest(folder: Path) -> Path:
    """The folder, or the one above it that is there."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _wants(config: Config | None) -> frozenset[str]:
    if config is None:
        return frozenset({"video", "audio"})
    return frozenset().union(*(_kinds_of(one) for one in config.recorders if one.source is None))


def _triggers(config: Config | None) -> list[Triggered]:
    return [
        Triggered(
            recorder=recorder.name,
            kinds=[one.kind for one in recorder.triggers],
            armed=[_window(schedule) for schedule in recorder.schedules_that("arm")],
            needs=frozenset() if recorder.source is not None else _kinds_of(recorder),
        )
        for recorder in (() if config is None else config.recorders)
        if recorder.triggers
    ]


def _window(schedule: Schedule) -> str:
    """When a schedule holds, in words."""
    days = "" if set(schedule.days) == set(DAYS) else f" ({', '.join(schedule.days)})"
    if schedule.stop is not None:
        return f"from {schedule.start} to {schedule.stop}{days}"
    return f"from {schedule.start} for {format_duration(schedule.duration_s or 0)}{days}"


def _kinds_of(recorder: Recorder) -> frozenset[str]:
    """The kinds of devices that a recorder records."""
    constraints = {"video": recorder.video, "audio": recorder.audio}
    return frozenset(kind for kind, wanted in constraints.items() if wanted not in (None, False))


def _wanted(config: Config | None) -> list[Wanted]:
    found = []
    for recorder in () if config is None else config.recorders:
        for kind, constraints in (("video", recorder.video), ("audio", recorder.audio)):
            wanted = None if isinstance(constraints, bool) else constraints.get("device_id")
            if isinstance(wanted, Mapping) and "label" in wanted:
                found.append(Wanted(recorder=recorder.name, kind=kind, label=str(wanted["label"])))
                continue
            exact = wanted.get("exact") if isinstance(wanted, Mapping) else wanted
            if exact:  # an `ideal` one may be another
                ids = (exact,) if isinstance(exact, str) else tuple(exact)
                found.append(Wanted(recorder=recorder.name, kind=kind, ids=ids))
    return found


def _memory_of(meminfo: Path) -> tuple[int, int]:
    """MemTotal and MemAvailable in bytes; zeros where the kernel does not say."""
    try:
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        return int(fields["MemTotal"].split()[0]) * 1024, int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return 0, 0


def _has_memory_controller(cgroup: Path) -> bool:
    """Whether systemd can limit memory (Raspberry Pi OS starts its kernel with cgroup_disable=memory), or may."""
    try:
        return "memory" in (cgroup / "cgroup.controllers").read_text().split()
    except OSError:
        return True


def _groups_of(user: str) -> frozenset[str] | None:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return None
    return frozenset(group.gr_name for group in grp.getgrall() if user in group.gr_mem)


def _unit_state() -> tuple[str, bool]:
    """ActiveState, and whether the unit is enabled; "" where systemd does not run or does not know the unit."""
    command = ["systemctl", "show", UNIT, "-p", "LoadState,ActiveState,UnitFileState"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "", False
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if found.get("LoadState") != "loaded":
        return "", False
    return found.get("ActiveState", ""), found.get("UnitFileState") == "enabled"
