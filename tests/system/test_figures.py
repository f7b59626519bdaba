"""Figures that a daemon publishes, each against another source: the files, /proc, statvfs, the broker's own count."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from config_text import camera, microphone
from console import Console
from daemon import DaemonFor
from waiting import until
from wallclock import WallClock

import msrecd

LOUD = """
[devices]
virtual = [
  { kind = "camera", label = "Left Camera", group_id = "unit", modes = [[320, 240, 30]] },
  { kind = "microphone", label = "Left Microphone", group_id = "unit", signal = "tone", ppm = 400 },
]
"""


def when(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def is_now(text: str) -> bool:
    return abs(when(text) - time.time()) < 60


def meminfo(name: str) -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


@pytest.mark.effect(
    "verb: health",
    "state-health: ts",
    "state-health: uptime_s",
    "state-health: load1",
    "state-health: mem_available_bytes",
    "state-health: rss_bytes",
    "state-health: clock",
    "state-health: disk",
    "state-health: free_bytes",
    "state-health: total_bytes",
    "state-health: recordings_bytes",
    "state-health: written_bytes",
    "state-health: seconds_left_estimate",
    "state-health: recorders",
    "state-health: fps",
    "state-health: bitrate_bps",
    "state-health: ctl",
    "state-health: listening",
    "state-health: mqtt",
    "state-health: connected",
)
def test_health(daemon_for: DaemonFor, console: Console) -> None:
    with daemon_for(camera(autostart=True) + microphone(mime_type="audio/wav")) as daemon:
        daemon.wait_for_chunks(2)
        until(lambda: measured(console)["recorders"]["cam0"]["fps"], "no rate is told")
        running = measured(console)
        console.command("recorder/cam0/stop")
        idle = measured(console)
        clock = console.command("daemon/ping")["data"]["clock"]
        rss = daemon.status("VmRSS")
    assert is_now(running["ts"])
    assert running["ts"] < idle["ts"]
    assert abs(idle["uptime_s"] - float(Path("/proc/uptime").read_text().split()[0])) < 60
    assert idle["load1"] == pytest.approx(os.getloadavg()[0], rel=0.9, abs=1.0)
    assert idle["mem_available_bytes"] == pytest.approx(meminfo("MemAvailable"), rel=0.5)
    assert idle["rss_bytes"] == pytest.approx(rss, rel=0.3)
    assert running["clock"] == clock
    # The newest chunk's rates, while it records.
    lines = daemon.chunk_lines()
    rates = {
        (
            round(line["tracks"]["video"]["frames"] / line["duration_s"], 2),
            round(8 * line["bytes"] / line["duration_s"]),
        )
        for line in lines
    }
    assert (running["recorders"]["cam0"]["fps"], running["recorders"]["cam0"]["bitrate_bps"]) in rates
    assert running["recorders"].keys() == {"cam0", "mic0"}
    assert idle["recorders"]["cam0"]["fps"] is None
    disk, space = idle["disk"], os.statvfs(daemon.recordings)
    size = sum(path.stat().st_size for path in daemon.chunks())
    assert disk["total_bytes"] == space.f_blocks * space.f_frsize
    assert disk["free_bytes"] == pytest.approx(space.f_bavail * space.f_frsize, rel=0.3)
    assert disk["recordings_bytes"] == size
    assert size <= disk["written_bytes"] < 2 * size
    assert 0 <= disk["sync_s_max"] < 60
    seconds_left = running["disk"]["seconds_left_estimate"]
    expected = disk["free_bytes"] * sum(line["duration_s"] for line in lines) / size
    assert expected / 10 < seconds_left < 10 * expected
    assert disk["seconds_left_estimate"] is None
    assert running["ctl"]["listening"] is True
    assert running["mqtt"]["connected"] is True


def measured(console: Console) -> dict[str, Any]:
    data: dict[str, Any] = console.command("daemon/health")["data"]
    return data


@pytest.mark.effect("state-health: commands_refused")
def test_commands_that_come_too_fast_are_counted(daemon_for: DaemonFor, console: Console) -> None:
    with daemon_for(camera()):
        console.wait("availability")
        for _ in range(90):
            console.send("daemon/ping")
        until(lambda: len(console.told("reply/daemon/ping")) == 90, "not all are answered")
        refused = [reply for reply in console.told("reply/daemon/ping") if reply["status"] == "error"]
        assert {reply["error"]["code"] for reply in refused} == {"rate_limited"}

        def health() -> Any:
            return console.command("daemon/health")  # it may come too soon as well

        reply = until(lambda: said if (said := health())["status"] == "ok" else None, "always refused")
        more = [said for said in console.told("reply/daemon/health") if said["status"] == "error"]
        assert reply["data"]["mqtt"]["commands_refused"] == len(refused) + len(more) > 0


@pytest.mark.effect(
    "verb: ping",
    "verb: devices",
    "reply: ts",
    "state-daemon: boot_id",
    "state-daemon: recorders",
    "state-daemon: started",
    "state-daemon: version",
    "state-devices: device_id",
    "state-devices: kind",
    "state-devices: group_id",
    "state-devices: driver",
    "state-devices: capabilities",
    "manifest-line: boot_id",
    "event-recorder: clock",
)
def test_who_answers_and_what_it_has(daemon_for: DaemonFor, console: Console, wallclock: WallClock) -> None:
    """Before the clock is trusted names begin with the number of the boot, and lines have the kernel's id of it."""
    wallclock.trust(False)
    began = datetime.now(UTC).timestamp()
    with daemon_for(camera() + microphone(), more=LOUD, environment=wallclock.environment) as daemon:
        reply = console.command("daemon/ping")
        assert abs(when(reply["ts"]) - time.time()) < 60
        said = reply["data"]
        assert said == console.retained("state/daemon")
        assert said["recorders"] == ["cam0", "mic0"]
        assert said["version"] == msrecd.__version__
        assert began - 5 < when(said["started"]) < time.time() + 5
        recording = console.command("recorder/cam0/start")["data"]["recording_id"]
        assert recording.startswith(f"boot{int(said['boot_id']):04d}-")
        assert console.wait_event("chunk")["clock"] == "unsynchronized"
        listed = console.command("daemon/devices")["data"]["devices"]
        assert listed == console.retained("state/devices")
        started = console.wait_event("started")["tracks"]
    assert {line["boot_id"] for line in daemon.chunk_lines()} == {boot_of_this_machine()}
    by_kind = {device["kind"]: device for device in listed}
    assert by_kind.keys() == {"videoinput", "audioinput"}
    assert {(device["group_id"], device["driver"]) for device in listed} == {("unit", "virtual")}
    assert [track["device_id"] for track in started] == [by_kind["videoinput"]["device_id"]]
    assert by_kind["videoinput"]["capabilities"]["width"]["max"] == 320
    assert by_kind["audioinput"]["capabilities"]["sample_rate"] == {"min": 48_000, "max": 48_000}


def boot_of_this_machine() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
