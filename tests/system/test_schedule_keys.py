"""Keys of schedules, snapshots and limits of age, on a wall clock that is set."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from config_text import camera, configuration, microphone, recorder, window
from console import Console
from daemon import DaemonFor
from waiting import until
from wallclock import WallClock


def planned(folder: Path, clock: WallClock, place: tuple[float, float], **keys: object) -> list[dict[str, Any]]:
    """What `msrecd schedule` says of the next week."""
    path = folder / "msrecd.toml"
    latitude, longitude = place
    recorders = f"[location]\nlatitude = {latitude}\nlongitude = {longitude}\n" + microphone("mic0") + window(**keys)
    path.write_text(configuration(folder, port=None, recorders=recorders))
    done = subprocess.run(
        [sys.executable, "-m", "msrecd", "schedule", "--json", "--days", "7", "--config", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=os.environ | clock.environment | {"TZ": "UTC"},
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def minutes(text: str) -> float:
    """Of a day, of a time in UTC."""
    time = datetime.fromisoformat(text.replace("Z", "+00:00")).time()
    return 60 * time.hour + time.minute


@pytest.mark.effect("config: location.latitude", "config: location.longitude")
def test_where_the_sun_rises(tmp_path: Path, wallclock: WallClock) -> None:
    """Of the almanac for 2026-06-21: Berlin 02:43, Lisbon 05:11, Cape Town 05:51 UTC (7:51 there)."""
    wallclock.set("2026-06-21T00:00:00")
    for place, expected in (((52.5, 13.4), 2 * 60 + 43), ((38.7, -9.1), 5 * 60 + 11), ((-33.9, 18.4), 5 * 60 + 51)):
        (first, *_) = planned(tmp_path, wallclock, place, start="sunrise", duration="1h")
        assert abs(minutes(first["start"]) - expected) <= 3, (place, first)


@pytest.mark.effect("config: recorder.schedule.polar", "config: recorder.schedule.days")
def test_days_on_which_windows_begin(tmp_path: Path, wallclock: WallClock) -> None:
    wallclock.set("2026-12-21T00:00:00")  # a Monday; the sun does not rise at Tromsø
    tromso = 69.6, 18.9
    assert planned(tmp_path, wallclock, tromso, start="sunrise", duration="1h") == []
    always = planned(tmp_path, wallclock, tromso, start="sunrise", duration="1h", polar="always", timezone="UTC")
    assert len(always) >= 6
    assert {one["start"][11:] for one in always} == {"00:00:00Z"}
    days = planned(tmp_path, wallclock, tromso, start="06:00", duration="1h", days=["tue", "sat"], timezone="UTC")
    assert [one["start"][:10] for one in days] == ["2026-12-22", "2026-12-26"]


@pytest.mark.effect("config: recorder.schedule.unsynchronized")
def test_a_window_that_believes_any_clock(daemon_for: DaemonFor, console: Console, wallclock: WallClock) -> None:
    wallclock.trust(False)
    wallclock.set("2026-06-10T22:00:00")
    night = {"start": "21:00", "duration": "6h", "timezone": "UTC"}
    recorders = microphone("waits") + window(**night) + microphone("runs") + window(**night, unsynchronized="run")
    with daemon_for(recorders, environment=wallclock.environment):
        console.wait_state("recording", recorder="runs")
        plans = console.command("daemon/ping")["data"]["schedule"]
        assert (plans["waits"]["waiting_for_clock"], plans["runs"]["waiting_for_clock"]) == (True, False)
        assert console.command("recorder/waits/get")["data"]["state"] == "inactive"


@pytest.mark.effect("config: recorder.snapshots.at", "manifest-line: taken", "event-recorder: taken")
def test_a_snapshot_at_a_time_of_the_day(daemon_for: DaemonFor, console: Console, wallclock: WallClock) -> None:
    wallclock.set("2026-06-10T08:00:00")
    recorders = camera(snapshots={"at": "12:00", "idle": True, "settle": "0s"})
    with daemon_for(recorders, environment=wallclock.environment | {"TZ": "UTC"}) as daemon:
        console.wait("availability")
        assert not daemon.snapshot_lines()
        wallclock.set("2026-06-10T11:59:57")
        event = console.wait_event("snapshot")
    (line,) = daemon.snapshot_lines()
    late_s = (datetime.fromisoformat(line["taken"]) - datetime.fromisoformat("2026-06-10T12:00:00Z")).total_seconds()
    assert 0 <= late_s < 30
    assert event["taken"] == line["taken"]


@pytest.mark.effect("config: storage.max_age", "config: recorder.retention.max_age")
def test_what_is_too_old_goes(daemon_for: DaemonFor, wallclock: WallClock) -> None:
    """A recorder has a limit of its own; the other one that of the storage.

    The state folder is another each time, as after a change of the machine: within one boot a step of the clock makes
    nothing old.
    """
    keys = {"mime_type": "audio/wav", "chunk_duration": "1s", "autostart": True}
    recorders = microphone("mic0", **keys) + microphone("mic1", **keys, retention={"max_age": "1h"})
    daemon = daemon_for(recorders, storage='max_age = "2d"', environment=wallclock.environment)

    def boots_at(text: str) -> None:
        shutil.rmtree(daemon.state)
        daemon.state.mkdir()
        wallclock.set(text)

    boots_at("2026-06-10T08:00:00")
    with daemon:
        first = {name: daemon.wait_for_chunks(1, recorder=name)[0] for name in ("mic0", "mic1")}
    boots_at("2026-06-10T10:00:00")
    with daemon:
        until(lambda: not first["mic1"].exists(), lambda: daemon.log.read_text())
        assert first["mic0"].exists()
    boots_at("2026-06-13T10:00:00")
    with daemon:
        until(lambda: not first["mic0"].exists(), lambda: daemon.log.read_text())


@pytest.mark.effect("config: storage.min_free")
def test_too_little_that_is_free(daemon_for: DaemonFor, console: Console) -> None:
    """No card has so much free: what was recorded goes, and nothing begins."""
    recorders = recorder("mic0", audio=True, mime_type="audio/wav", chunk_duration="1s", autostart=True)
    with daemon_for(recorders) as daemon:
        daemon.wait_for_chunks(2, recorder="mic0")
    daemon.config.write_text(daemon.config.read_text().replace("[storage]\n", '[storage]\nmin_free = "900TiB"\n', 1))
    with daemon:
        state = console.wait_state("error", recorder="mic0", code="no_space")
        assert "min_free" in state["error"]["message"], state
        until(lambda: not daemon.chunks("mic0"), lambda: daemon.log.read_text())
