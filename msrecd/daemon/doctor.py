"""What `msrecd doctor` finds: facts about this machine, and what is wrong with them in the order to fix it.

`gather` reads the facts; everything that judges them is pure.
"""

from __future__ import annotations

import contextlib
import grp
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from msrecd.clock.synchronization import KernelClock
from msrecd.config.model import Config
from msrecd.daemon import health
from msrecd.devices import INSTALL_PICAMERA2
from msrecd.devices.board import Board, has_pisp, read_board
from msrecd.devices.camera.modes import ContiguousMemory, contiguous_memory, needs_contiguous_memory
from msrecd.storage import checks

_MIB = 1 << 20
_LITTLE_MEMORY = 60 * _MIB
_LITTLE_CMA = 96 * _MIB
_LITTLE_SPACE = 512 * _MIB
_UNIT = "msrecd.service"
_USER = "msrecd"
_GROUPS = ("video", "audio")
_KINDS = {"video": ("videoinput", "camera"), "audio": ("audioinput", "microphone")}


class Level(StrEnum):
    """ERROR: recording cannot work. WARNING: it may, but not as well as it should."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at; `remedy` says what to do about it, "" when nothing is wrong."""

    area: str
    level: Level
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A device that a recorder names by its id (any of `ids`) or by its label."""

    recorder: str
    kind: str
    ids: Sequence[str] = ()
    label: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found out about the machine.

    config_problems: why the configuration cannot be used. wants: the kinds that its recorders record.
    wanted: the devices that they name.
    devices: as `state/devices` has them. libraries: which of picamera2 and alsaaudio are installed.
    storage: where recordings go, "" when nothing is configured; storage_free None: it is not there.
    storage_taken: by the files in it, looked at only where less than min_free is free.
    has_limit: whether max_total or min_free is set. is_storage_visible: whoever asks may look at it.
    state_problem: why the state folder cannot be used, "" when it can.
    user_groups: of the service's user, None when there is none. unit: systemd's ActiveState, "" without systemd.
    """

    board: Board = field(default_factory=Board)
    throttled: Mapping[str, object] = field(default_factory=dict)
    config_problems: Sequence[str] = ()
    wants: frozenset[str] = frozenset({"video", "audio"})
    wanted: Sequence[Wanted] = ()
    libraries: frozenset[str] = frozenset()
    devices: Sequence[Mapping[str, Any]] = ()
    has_encoder_node: bool = False
    has_pisp: bool = False
    memory_total: int = 0
    memory_available: int = 0
    uses_contiguous_memory: bool = False
    contiguous_memory: ContiguousMemory | None = None
    storage: str = ""
    storage_free: int | None = None
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


def diagnose(facts: Facts) -> list[Finding]:
    """Everything that was looked at, in the order in which to fix it: what is further down needs what is further up."""
    first = (_board, _configuration, _permissions, _camera, _encoder, _microphone, _named_devices)
    order = (*first, _contiguous, _memory, _storage, _state, _clock, _unit)
    return [finding for judge in order for finding in judge(facts)]


def can_record(findings: Sequence[Finding]) -> bool:
    return not any(finding.level is Level.ERROR for finding in findings)


def _board(facts: Facts) -> Iterator[Finding]:
    name = facts.board.name or "no Raspberry Pi"
    now, before = (facts.throttled.get(key) or [] for key in ("now", "since_boot"))
    if now:
        yield Finding(
            area="board",
            level=Level.WARNING,
            message=f"{name}: {_words(now)} at this moment",
            remedy="use the power supply made for the board, a shorter cable, or more cooling",
        )
    elif before:
        yield Finding(
            area="board",
            level=Level.WARNING,
            message=f"{name}: {_words(before)} since it was switched on",
            remedy="look at the power supply and the cooling before the board is left alone",
        )
    else:
        yield Finding(area="board", level=Level.OK, message=name)


def _words(bits: object) -> str:
    return ", ".join(str(bit).replace("_", " ") for bit in bits) if isinstance(bits, list | tuple) else str(bits)


def _configuration(facts: Facts) -> Iterator[Finding]:
    for problem in facts.config_problems:
        yield Finding(
            area="configuration", level=Level.ERROR, message=problem, remedy="msrecd check-config names every problem"
        )
    if not facts.config_problems:
        yield Finding(area="configuration", level=Level.OK, message="valid")


def _permissions(facts: Facts) -> Iterator[Finding]:
    if facts.user_groups is None:
        return
    missing = [group for group in _GROUPS if group not in facts.user_groups]
    if missing:
        yield Finding(
            area="permissions",
            level=Level.WARNING,  # the unit gives its processes the groups all the same
            message=f"the user {_USER} is not in the group {' and '.join(missing)}",
            remedy=f"sudo usermod -aG {','.join(missing)} {_USER}, then restart the service",
        )
    else:
        yield Finding(area="permissions", level=Level.OK, message=f"the user {_USER} may use cameras and sound cards")


def _camera(facts: Facts) -> Iterator[Finding]:
    cameras = [device for device in facts.devices if device["kind"] == "videoinput" and device["state"] != "missing"]
    if not cameras and "video" not in facts.wants:
        yield Finding(area="camera", level=Level.OK, message="no camera is found, and no recorder asks for one")
    elif not cameras and facts.board.is_pi and "picamera2" not in facts.libraries:
        yield Finding(area="camera", level=Level.ERROR, message="picamera2 is not installed", remedy=INSTALL_PICAMERA2)
    elif not cameras and facts.board.platform == "pisp" and not facts.has_pisp:
        yield Finding(
            area="camera",
            level=Level.ERROR,
            message="the image processor's driver (pispbe) is not loaded",
            remedy="sudo apt full-upgrade, reboot; dmesg | grep pisp",
        )
    elif not cameras:
        yield Finding(
            area="camera",
            level=Level.ERROR,
            message="no camera is found",
            remedy="switch off, seat the ribbon cable (contacts towards the contacts), camera_auto_detect=1 in"
            " /boot/firmware/config.txt; rpicam-hello --list-cameras must show it",
        )
    for camera in cameras:
        yield from _of_device("camera", camera, "video" in facts.wants)


def _of_device(area: str, device: Mapping[str, Any], is_wanted: bool) -> Iterator[Finding]:
    detail = device.get("detail", {})
    error = detail.get("error")
    holder = detail.get("holder")
    if error:
        level = Level.ERROR if is_wanted else Level.WARNING
        yield Finding(area=area, level=level, message=f"{device['label']}: {error}", remedy="see docs/hardware.md")
    elif device["state"] == "busy" and holder and "msrecd" not in str(holder):
        yield Finding(
            area=area,
            level=Level.WARNING,
            message=f"{device['label']}: {holder} has it open",
            remedy="end that program, or have it record what msrecd is to record",
        )
    else:
        yield Finding(area=area, level=Level.OK, message=f"{device['label']} ({device['state']})")


def _encoder(facts: Facts) -> Iterator[Finding]:
    if not facts.board.is_pi:
        return
    if not facts.board.has_encoder:
        yield Finding(area="encoder", level=Level.OK, message="H.264 in software: this board has no encoder")
    elif facts.has_encoder_node:
        yield Finding(area="encoder", level=Level.OK, message="H.264 in hardware (/dev/video11)")
    else:
        yield Finding(
            area="encoder",
            level=Level.WARNING,
            message="the hardware encoder (/dev/video11) is not there; H.264 costs much of the processor's time",
            remedy="sudo modprobe bcm2835-codec; lsmod | grep codec; not with the legacy camera stack (raspi-config)",
        )


def _microphone(facts: Facts) -> Iterator[Finding]:
    microphones = [
        device for device in facts.devices if device["kind"] == "audioinput" and device["state"] != "missing"
    ]
    is_wanted = "audio" in facts.wants
    if not microphones:
        yield Finding(
            area="microphone",
            level=Level.ERROR if is_wanted else Level.OK,
            message="no microphone is found" + ("" if is_wanted else ", and no recorder asks for one"),
            remedy="arecord -l must show a card; a HAT or an I2S microphone needs its dtoverlay= in"
            " /boot/firmware/config.txt (docs/microphones.md)"
            if is_wanted
            else "",
        )
    for microphone in microphones:
        yield from _of_device("microphone", microphone, is_wanted)


def _named_devices(facts: Facts) -> Iterator[Finding]:
    """The recorders whose device is named and is not there, or is one of several."""
    for wanted in facts.wanted:
        info_kind, area = _KINDS[wanted.kind]
        devices = [one for one in facts.devices if one["kind"] == info_kind and one["state"] != "missing"]
        if wanted.label is not None:
            name = f'the label "{wanted.label}"'
            found = [one for one in devices if one["label"] == wanted.label]
        else:
            name = "the id " + " or ".join(f'"{one}"' for one in wanted.ids)
            found = [one for one in devices if one["device_id"] in wanted.ids]
        if not found:
            there = ", ".join(f"{one['label']} ({one['device_id']})" for one in devices) or "none"
            yield Finding(
                area=area,
                level=Level.ERROR,
                message=f"recorder {wanted.recorder} asks for {name}: no {area} has it (there is: {there})",
                remedy="plug it in, or take an id or a label that msrecd devices shows",
            )
        elif len(found) > 1 and wanted.label is not None:
            yield Finding(
                area=area,
                level=Level.ERROR,
                message=f"recorder {wanted.recorder} asks for {name}: {len(found)} devices have it",
                remedy="name it by its id, which msrecd devices shows",
            )


def _contiguous(facts: Facts) -> Iterator[Finding]:
    memory = facts.contiguous_memory
    if not facts.uses_contiguous_memory or memory is None or not facts.board.is_pi:
        return
    text = f"{memory.total // _MIB} MiB of contiguous memory for the camera (CMA)"
    if memory.total < _LITTLE_CMA and "video" in facts.wants:
        yield Finding(
            area="CMA",
            level=Level.WARNING,
            message=f"{text}: too little for the larger sizes",
            remedy="dtoverlay=vc4-kms-v3d,cma-256 in /boot/firmware/config.txt, then reboot",
        )
    else:
        yield Finding(area="CMA", level=Level.OK, message=text)


def _memory(facts: Facts) -> Iterator[Finding]:
    text = f"{facts.memory_available // _MIB} of {facts.memory_total // _MIB} MiB available"
    if facts.memory_total and facts.memory_available < _LITTLE_MEMORY:
        yield Finding(area="memory", level=Level.WARNING, message=text, remedy="end what is not needed: top -o RES")
    else:
        yield Finding(area="memory", level=Level.OK, message=text)


def _storage(facts: Facts) -> Iterator[Finding]:
    if not facts.storage:
        return
    if not facts.is_storage_visible:
        yield Finding(
            area="storage",
            level=Level.WARNING,
            message=f"{facts.storage} may not be looked at by this user",
            remedy="sudo msrecd doctor",
        )
        return
    if facts.storage_free is None:
        yield Finding(
            area="storage",
            level=Level.ERROR,
            message=f"{facts.storage} is not there",
            remedy="mount the drive, or create the folder and give it to the service's user",
        )
        return
    if not facts.is_storage_writable:
        yield Finding(
            area="storage",
            level=Level.ERROR,
            message=f"{facts.storage} cannot be written",
            remedy=f"chown {_USER}: {facts.storage}; mount | grep ro, for a card at its end turns read-only",
        )
    elif facts.storage_free + facts.storage_taken < facts.min_free:
        yield Finding(
            area="storage",
            level=Level.ERROR,
            message=f"{facts.storage}: {facts.storage_free // _MIB} MiB free, min_free asks for "
            f"{facts.min_free // _MIB} MiB, and deleting all recordings ({facts.storage_taken // _MIB} MiB) would not "
            "give them",
            remedy="set a smaller min_free in [storage], or take other files away",
        )
    elif facts.storage_free < _LITTLE_SPACE:
        yield Finding(
            area="storage",
            level=Level.WARNING,
            message=f"{facts.storage}: {facts.storage_free // _MIB} MiB free",
            remedy="take recordings or other files away"
            if facts.has_limit
            else "set max_total or min_free in [storage], or take recordings away",
        )
    else:
        yield Finding(area="storage", level=Level.OK, message=f"{facts.storage}: {facts.storage_free // _MIB} MiB free")
    for text in facts.storage_findings:
        yield Finding(area="storage", level=Level.WARNING, message=text, remedy="see docs/storage.md")


def _state(facts: Facts) -> Iterator[Finding]:
    if facts.state_problem:
        yield Finding(
            area="state",
            level=Level.ERROR,
            message=f"{facts.state} (state_path) cannot be used: {facts.state_problem}",
            remedy=f"give the folder to the user {_USER}, or set another state_path in [storage]",
        )
    elif facts.state:
        yield Finding(area="state", level=Level.OK, message=facts.state)


def _clock(facts: Facts) -> Iterator[Finding]:
    if facts.is_clock_synchronized:
        yield Finding(area="clock", level=Level.OK, message="synchronised")
    else:
        yield Finding(
            area="clock",
            level=Level.WARNING,
            message="not synchronised: recordings are named by boot and by time since boot until it is",
            remedy="a network with NTP (timedatectl), or a real-time clock",
        )


def _unit(facts: Facts) -> Iterator[Finding]:
    if not facts.unit:
        return
    if facts.unit == "failed":
        yield Finding(
            area="unit", level=Level.ERROR, message=f"{_UNIT} has failed", remedy="journalctl -u msrecd -n 50 says why"
        )
    elif facts.unit != "active":
        yield Finding(
            area="unit",
            level=Level.WARNING,
            message=f"{_UNIT} is {facts.unit}",
            remedy="sudo systemctl enable --now msrecd",
        )
    elif not facts.is_unit_enabled:
        yield Finding(
            area="unit",
            level=Level.WARNING,
            message=f"{_UNIT} runs, but not after the next boot",
            remedy="sudo systemctl enable msrecd",
        )
    else:
        yield Finding(area="unit", level=Level.OK, message=f"{_UNIT} runs, and after every boot")


def gather(
    config: Config | None,
    problems: Sequence[str],
    devices: Sequence[Mapping[str, Any]],
    root: Path = Path("/"),
) -> Facts:
    """The facts of this machine; reads files and asks systemd, which takes a moment."""
    meminfo = root / "proc/meminfo"
    total, available = _memory_of(meminfo)
    storage = Path(config.storage.path) if config is not None and config.storage is not None else None
    is_visible, is_there = _look_at(storage)
    state = Path(config.storage.state_path) if config is not None else None
    unit, is_enabled = _unit_state()
    free = shutil.disk_usage(storage).free if storage is not None and is_there else None
    min_free = 0 if config is None else config.storage.min_free_bytes or 0
    has_limit = config is not None and (min_free > 0 or config.storage.max_total_bytes is not None)
    found = [] if storage is None or not is_there else checks.check(storage, is_limited=has_limit)
    return Facts(
        board=read_board(root),
        throttled=health.throttled(root / "sys"),
        config_problems=problems,
        wants=_wants(config),
        wanted=_wanted(config),
        libraries=frozenset(name for name in ("picamera2", "alsaaudio") if importlib.util.find_spec(name) is not None),
        devices=devices,
        has_encoder_node=(root / "dev/video11").exists(),
        has_pisp=has_pisp(root),
        memory_total=total,
        memory_available=available,
        uses_contiguous_memory=needs_contiguous_memory(root / "dev/dma_heap"),
        contiguous_memory=contiguous_memory(meminfo),
        storage="" if storage is None else str(storage),
        storage_free=free,
        storage_taken=_taken(storage) if storage is not None and free is not None and free < min_free else 0,
        min_free=min_free,
        has_limit=has_limit,
        storage_findings=[one.message for one in found],
        is_storage_writable=storage is None or not is_there or _can_write(storage),
        is_storage_visible=is_visible,
        state="" if state is None else str(state),
        state_problem="" if state is None else _state_problem(state),
        is_clock_synchronized=KernelClock().wait(),
        user_groups=_groups_of(_USER),
        unit=unit,
        is_unit_enabled=is_enabled,
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


def _state_problem(state: Path) -> str:
    """Why the service cannot keep its state there; a folder that is not there yet is made."""
    for place in (state, *state.parents):
        try:
            if not place.exists():
                continue
            if not place.is_dir():
                return f"{place} is no folder"
            return "" if _can_write(place) else f"{place} cannot be written"
        except PermissionError:
            return ""  # only who may look there can say
    return ""


def _can_write(storage: Path) -> bool:
    """Whether the service can write there, whoever asks."""
    if os.statvfs(storage).f_flag & os.ST_RDONLY:
        return False
    try:
        user = pwd.getpwnam(_USER)
    except KeyError:
        return os.access(storage, os.W_OK)
    found = storage.stat()
    if found.st_uid == user.pw_uid:
        return bool(found.st_mode & stat.S_IWUSR)
    if found.st_gid == user.pw_gid:
        return bool(found.st_mode & stat.S_IWGRP)
    return bool(found.st_mode & stat.S_IWOTH)


def _wants(config: Config | None) -> frozenset[str]:
    if config is None:
        return frozenset({"video", "audio"})
    live = [recorder for recorder in config.recorders if recorder.source is None]
    kinds = {"video": [r for r in live if r.video not in (None, False)]}
    kinds["audio"] = [r for r in live if r.audio not in (None, False)]
    return frozenset(kind for kind, recorders in kinds.items() if recorders)


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


def _groups_of(user: str) -> frozenset[str] | None:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return None
    return frozenset(group.gr_name for group in grp.getgrall() if user in group.gr_mem)


def _unit_state() -> tuple[str, bool]:
    """ActiveState, and whether the unit is enabled; "" where systemd does not run or does not know the unit."""
    command = ["systemctl", "show", _UNIT, "-p", "LoadState,ActiveState,UnitFileState"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "", False
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if found.get("LoadState") != "loaded":
        return "", False
    return found.get("ActiveState", ""), found.get("UnitFileState") == "enabled"
