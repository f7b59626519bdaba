"""`msrecd doctor`: decisions over facts of boards, and the command itself."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msrecd.daemon.doctor import Facts, Level, can_record, diagnose, gather
from msrecd.devices.board import Board
from msrecd.devices.camera.modes import ContiguousMemory

CAMERA = {"kind": "videoinput", "label": "imx219", "state": "free", "detail": {}}
MICROPHONE = {"kind": "audioinput", "label": "USB PnP Sound Device", "state": "free", "detail": {}}
MIB = 1 << 20
ZERO_2_W = Facts(
    board=Board(name="Raspberry Pi Zero 2 W Rev 1.0", soc="bcm2837"),
    libraries=frozenset({"picamera2", "alsaaudio"}),
    devices=(CAMERA, MICROPHONE),
    has_encoder_node=True,
    memory_total=416 * MIB,
    memory_available=250 * MIB,
    uses_contiguous_memory=True,
    contiguous_memory=ContiguousMemory(total=256 * MIB, free=200 << 10),
    storage="/var/lib/msrecd/recordings",
    storage_free=20_000 * MIB,
    is_clock_synchronized=True,
    user_groups=frozenset({"video", "audio"}),
    unit="active",
    is_unit_enabled=True,
)
PI_5 = replace(
    ZERO_2_W,
    board=Board(name="Raspberry Pi 5 Model B Rev 1.0", soc="bcm2712"),
    has_encoder_node=False,
    has_pisp=True,
    uses_contiguous_memory=False,
)


def wrong(facts: Facts) -> list[tuple[str, Level]]:
    return [(finding.area, finding.level) for finding in diagnose(facts) if finding.level is not Level.OK]


@pytest.mark.parametrize("facts", [ZERO_2_W, PI_5], ids=lambda facts: facts.board.soc)
def test_a_board_that_is_well(facts: Facts) -> None:
    """CmaFree of 200 kB is no fault: the page cache has the rest, and gives way."""
    findings = diagnose(facts)
    assert wrong(facts) == []
    assert can_record(findings)
    assert [finding.area for finding in findings][:4] == ["board", "configuration", "permissions", "camera"]


@pytest.mark.parametrize(
    ("facts", "change", "area", "level", "advice"),
    [
        (ZERO_2_W, {"throttled": {"now": ["under_voltage"]}}, "board", Level.WARNING, "power supply"),
        (ZERO_2_W, {"throttled": {"now": [], "since_boot": ["throttled"]}}, "board", Level.WARNING, "cooling"),
        (ZERO_2_W, {"config_problems": ["recorder[0].name: missing"]}, "configuration", Level.ERROR, "check-config"),
        (ZERO_2_W, {"user_groups": frozenset({"audio"})}, "permissions", Level.WARNING, "usermod -aG video"),
        (
            ZERO_2_W,
            {"devices": (MICROPHONE,), "libraries": frozenset({"alsaaudio"})},
            "camera",
            Level.ERROR,
            "apt install --no-install-recommends python3-picamera2",
        ),
        (ZERO_2_W, {"devices": (MICROPHONE,)}, "camera", Level.ERROR, "ribbon cable"),
        (PI_5, {"devices": (MICROPHONE,), "has_pisp": False}, "camera", Level.ERROR, "pisp"),
        (ZERO_2_W, {"has_encoder_node": False}, "encoder", Level.WARNING, "bcm2835-codec"),
        (ZERO_2_W, {"devices": (CAMERA,)}, "microphone", Level.ERROR, "arecord -l"),
        (ZERO_2_W, {"contiguous_memory": ContiguousMemory(total=64 * MIB, free=0)}, "CMA", Level.WARNING, "cma-256"),
        (ZERO_2_W, {"memory_available": 20 * MIB}, "memory", Level.WARNING, "top"),
        (ZERO_2_W, {"storage_free": None}, "storage", Level.ERROR, "mount the drive"),
        (ZERO_2_W, {"is_storage_writable": False}, "storage", Level.ERROR, "chown"),
        (ZERO_2_W, {"storage_free": 10 * MIB}, "storage", Level.WARNING, "max_total"),
        (ZERO_2_W, {"storage_findings": ["/ is in memory"]}, "storage", Level.WARNING, "docs/storage.md"),
        (ZERO_2_W, {"is_clock_synchronized": False}, "clock", Level.WARNING, "NTP"),
        (ZERO_2_W, {"unit": "failed"}, "unit", Level.ERROR, "journalctl"),
        (ZERO_2_W, {"unit": "inactive"}, "unit", Level.WARNING, "enable --now"),
        (ZERO_2_W, {"is_unit_enabled": False}, "unit", Level.WARNING, "systemctl enable"),
    ],
)
def test_what_is_wrong_and_what_to_do(
    facts: Facts, change: dict[str, Any], area: str, level: Level, advice: str
) -> None:
    changed = replace(facts, **change)
    assert wrong(changed) == [(area, level)]
    (finding,) = (one for one in diagnose(changed) if one.level is not Level.OK)
    assert advice in finding.remedy
    assert can_record(diagnose(changed)) is (level is not Level.ERROR)


def test_what_no_recorder_wants_is_no_reason_to_fail() -> None:
    sound_only = replace(ZERO_2_W, devices=(MICROPHONE,), wants=frozenset({"audio"}))
    assert wrong(sound_only) == [("camera", Level.WARNING)]
    assert can_record(diagnose(sound_only))


def test_a_device_that_another_program_holds() -> None:
    held = {**CAMERA, "state": "busy", "detail": {"holder": "rpicam-vid (pid 812)"}}
    (finding,) = (f for f in diagnose(replace(ZERO_2_W, devices=(held, MICROPHONE))) if f.level is not Level.OK)
    assert "rpicam-vid (pid 812) has it open" in finding.message


def test_facts_come_from_the_files_of_the_board(tmp_path: Path) -> None:
    tree = tmp_path / "proc/device-tree"
    tree.mkdir(parents=True)
    (tree / "model").write_bytes(b"Raspberry Pi 4 Model B Rev 1.5\0")
    (tree / "compatible").write_bytes(b"raspberrypi,4-model-b\0brcm,bcm2711\0")
    (tmp_path / "proc/meminfo").write_text(
        "MemTotal: 1000 kB\nMemAvailable: 600 kB\nCmaTotal: 262144 kB\nCmaFree: 1000 kB\n"
    )
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/video11").touch()
    facts = gather(None, ["no configuration"], [], tmp_path)
    assert (facts.board.soc, facts.has_encoder_node) == ("bcm2711", True)
    assert (facts.memory_total, facts.memory_available) == (1000 << 10, 600 << 10)
    assert facts.contiguous_memory == ContiguousMemory(total=256 * MIB, free=1000 << 10)


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "msrecd", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_command(tmp_path: Path) -> None:
    config = tmp_path / "msrecd.toml"
    recordings = tmp_path / "recordings"
    config.write_text(
        f'config_version = 1\n[devices]\nvirtual = true\n[storage]\npath = "{recordings}"\n'
        '[[recorder]]\nname = "cam0"\nvideo = true\naudio = true\n'
    )
    done = doctor("--config", str(config), "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["can_record"]) == (1, False)
    (error,) = (finding for finding in found["findings"] if finding["level"] == "error")
    assert error["area"] == "storage"
    recordings.mkdir()
    recordings.chmod(0o777)
    done = doctor("--config", str(config))
    assert done.returncode == 0, done.stdout
    assert "camera: Virtual Camera (free)" in done.stdout
    assert done.stdout.endswith("recording can work\n")
    assert done.stderr == ""


def test_the_command_without_a_configuration(tmp_path: Path) -> None:
    done = doctor("--config", str(tmp_path / "absent.toml"))
    assert done.returncode == 1
    assert "FAIL  configuration:" in done.stdout
