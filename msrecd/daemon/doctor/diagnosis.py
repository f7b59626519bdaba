"""What is wrong with a machine, by its facts, in the order to fix it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from msrecd.daemon.doctor.machine import UNIT, USER, Facts, Wanted
from msrecd.devices import INSTALL_PICAMERA2, install_module

_MIB = 1 << 20
_LITTLE_MEMORY = 60 * _MIB
_LITTLE_CMA = 96 * _MIB
_LITTLE_SPACE = 512 * _MIB
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


def diagnose(facts: Facts) -> list[Finding]:
    """Everything that was looked at, in the order in which to fix it: what is further down needs what is further up."""
    first = (_board, _configuration, _permissions, _camera, _encoder, _microphone, _named_devices)
    order = (*first, _contiguous, _memory, _storage, _state, _clock, _sources, _triggers, _page, _offload, _unit)
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
        is_absent = problem.endswith("there is no such file")
        remedy = (
            "write one (man msrecd.toml), or name another: msrecd doctor --config FILE"
            if is_absent
            else "msrecd check-config names every problem"
        )
        yield Finding(area="configuration", level=Level.ERROR, message=problem, remedy=remedy)
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
            message=f"the user {USER} is not in the group {' and '.join(missing)}",
            remedy=f"sudo usermod -aG {','.join(missing)} {USER}, then restart the service",
        )
    else:
        yield Finding(area="permissions", level=Level.OK, message=f"the user {USER} may use cameras and sound cards")


def _camera(facts: Facts) -> Iterator[Finding]:
    cameras = [device for device in facts.devices if device["kind"] == "videoinput" and device["state"] != "missing"]
    if not cameras and facts.config_problems:
        yield _not_known("camera")
    elif not cameras and "video" not in facts.wants:
        yield Finding(area="camera", level=Level.OK, message="no camera is found, and no recorder asks for one")
    elif not cameras and facts.board.is_pi and "picamera2" not in facts.libraries:
        yield Finding(area="camera", level=Level.ERROR, message="picamera2 is not installed", remedy=INSTALL_PICAMERA2)
    elif not cameras and "picamera2" in facts.libraries and facts.absent:
        modules = " and ".join(facts.absent)
        yield Finding(
            area="camera",
            level=Level.ERROR,
            message=f"picamera2 is installed, but {modules} is not, which it needs",
            remedy=", ".join(map(install_module, facts.absent)),
        )
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


def _not_known(area: str) -> Finding:
    """No device while the configuration cannot be read: that may have virtual ones, or ask for none."""
    return Finding(
        area=area,
        level=Level.WARNING,
        message=f"no {area} is found; whether one is needed, a valid configuration says",
        remedy="correct the configuration first",
    )


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
    if not microphones and facts.config_problems:
        yield _not_known("microphone")
    elif not microphones:
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
        area = _KINDS[wanted.kind][1]
        devices = _there(facts, wanted.kind)
        found = _matching(wanted, devices)
        if wanted.label is not None:
            name = f'the label "{wanted.label}"'
        else:
            name = "the id " + " or ".join(f'"{one}"' for one in wanted.ids)
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
    if not facts.memory_total:  # a container, or a root of which only the files are there
        yield Finding(
            area="memory",
            level=Level.WARNING,
            message="not known: /proc/meminfo cannot be read",
            remedy="mount -t proc proc /proc",
        )
        return
    text = f"{facts.memory_available // _MIB} of {facts.memory_total // _MIB} MiB available"
    if facts.memory_available < _LITTLE_MEMORY:
        yield Finding(area="memory", level=Level.WARNING, message=text, remedy="end what is not needed: top -o RES")
    else:
        yield Finding(area="memory", level=Level.OK, message=text)
    if facts.unit and not facts.is_memory_limited:
        yield Finding(
            area="memory",
            level=Level.WARNING,
            message=f"the kernel limits no service: MemoryHigh= and MemoryMax= of {UNIT} have no effect",
            remedy="add cgroup_enable=memory to the line in /boot/firmware/cmdline.txt, then reboot",
        )


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
    if facts.storage_problem:
        yield Finding(
            area="storage",
            level=Level.ERROR,
            message=f"{facts.storage}: {facts.storage_problem}",
            remedy="mount the drive, or create the folder and give it to the service's user",
        )
        return
    if not facts.is_storage_writable:
        yield Finding(
            area="storage",
            level=Level.ERROR,
            message=f"{facts.storage} cannot be written",
            remedy=f"chown {USER}: {facts.storage}; mount | grep ro, for a card at its end turns read-only",
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
        made = "" if facts.is_storage_there else ", will be made when recording begins"
        free = f"{facts.storage_free // _MIB} MiB free{made}"
        yield Finding(area="storage", level=Level.OK, message=f"{facts.storage}: {free}")
    for text in facts.storage_findings:
        yield Finding(area="storage", level=Level.WARNING, message=text, remedy="see docs/storage.md")


def _state(facts: Facts) -> Iterator[Finding]:
    if facts.state_problem:
        yield Finding(
            area="state",
            level=Level.ERROR,
            message=f"{facts.state} (state_path) cannot be used: {facts.state_problem}",
            remedy=f"give the folder to the user {USER}, or set another state_path in [storage]",
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


def _triggers(facts: Facts) -> Iterator[Finding]:
    for one in facts.triggers:
        begins = f"{one.recorder} begins by itself: {', '.join(one.kinds)}"
        if one.armed:
            begins += f"; armed {' and '.join(one.armed)}, else not"
        away = sorted(_KINDS[kind][1] for kind in one.needs if _is_away(facts, one.recorder, kind))
        if away:
            yield Finding(
                area="triggers",
                level=Level.WARNING,
                message=f"{begins}; but its {' and its '.join(away)} {'is' if len(away) == 1 else 'are'} not there",
                remedy=f"see what is said of the {away[0]} above",
            )
        else:
            yield Finding(area="triggers", level=Level.OK, message=begins)


def _is_away(facts: Facts, recorder: str, kind: str) -> bool:
    """Whether a recorder's device of a kind is not there: any of them, or the one that it names."""
    there = _there(facts, kind)
    named = [wanted for wanted in facts.wanted if wanted.recorder == recorder and wanted.kind == kind]
    return not there or any(not _matching(wanted, there) for wanted in named)


def _there(facts: Facts, kind: str) -> list[Mapping[str, Any]]:
    return [one for one in facts.devices if one["kind"] == _KINDS[kind][0] and one["state"] != "missing"]


def _matching(wanted: Wanted, devices: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    if wanted.label is not None:
        return [one for one in devices if one["label"] == wanted.label]
    return [one for one in devices if one["device_id"] in wanted.ids]


def _sources(facts: Facts) -> Iterator[Finding]:
    for recorder, problem in facts.sources.items():
        if problem:
            yield Finding(
                area="source",
                level=Level.WARNING,  # it is tried again by itself
                message=f"recorder {recorder}: {problem}",
                remedy="source.url: its path, or the camera's power, network and address",
            )
        else:
            yield Finding(area="source", level=Level.OK, message=f"recorder {recorder}")


def _page(facts: Facts) -> Iterator[Finding]:
    yield from _service("page", facts.page, facts.page_problems)


def _offload(facts: Facts) -> Iterator[Finding]:
    yield from _service("off-load", facts.offload, facts.offload_problems)


def _service(area: str, where: str, problems: Sequence[str]) -> Iterator[Finding]:
    """Of what is configured beside the recording: without it there are recordings all the same."""
    for problem in problems:
        message, _, remedy = problem.partition("; ")
        yield Finding(area=area, level=Level.WARNING, message=f"{where}: {message}", remedy=remedy)
    if where and not problems:
        yield Finding(area=area, level=Level.OK, message=where)


def _unit(facts: Facts) -> Iterator[Finding]:
    if not facts.unit:
        return
    if facts.unit == "failed":
        yield Finding(
            area="unit", level=Level.ERROR, message=f"{UNIT} has failed", remedy="journalctl -u msrecd -n 50 says why"
        )
    elif facts.unit != "active":
        yield Finding(
            area="unit",
            level=Level.WARNING,
            message=f"{UNIT} is {facts.unit}",
            remedy="sudo systemctl enable --now msrecd",
        )
    elif not facts.is_unit_enabled:
        yield Finding(
            area="unit",
            level=Level.WARNING,
            message=f"{UNIT} runs, but not after the next boot",
            remedy="sudo systemctl enable msrecd",
        )
    else:
        yield Finding(area="unit", level=Level.OK, message=f"{UNIT} runs, and after every boot")
