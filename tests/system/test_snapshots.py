"""Snapshots to disk in a running daemon: files, lines, events, idle cameras, commands, retention."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from config_text import camera, configuration
from console import Console
from daemon import DaemonFor, DaemonProcess
from waiting import until

from msrecd.config import InvalidConfigError, load
from msrecd.config.model import Location
from msrecd.config.recorder_tables import Snapshots
from msrecd.control.snapshot_taker import SnapshotTimes
from msrecd.recorder import snapshot
from msrecd.recorder.settling import has_settled

NS = 10**9


def commands(daemon: DaemonProcess, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "msrecd", "recordings", *words, "--config", str(daemon.config), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.promise("snapshots", "recipe-image")
@pytest.mark.effect(
    "config: recorder.snapshots.every",
    "config: recorder.snapshots.idle",
    "event-recorder: snapshot",
    "manifest-line: snapshot",
    "state-health: snapshots",
    "state-health: taken",
)
def test_snapshots_of_recordings_and_of_idle_cameras(daemon_for: DaemonFor, console: Console) -> None:
    """While cam0 records it has snapshots, and cam1, which does not record, has them all the time."""
    made = camera(snapshots={"every": "1s"}) + camera("cam1", snapshots={"every": "2s", "idle": True, "settle": "1s"})
    with daemon_for(made) as daemon:
        console.wait("state/recorder/cam0")
        until(lambda: len(daemon.snapshot_lines("cam1")) >= 2, lambda: daemon.log.read_text())
        assert not daemon.snapshot_lines("cam0"), "it does not record, and has no idle = true"
        console.wait("image/cam1")  # also without a command
        recording_id = console.command("recorder/cam0/start")["data"]["recording_id"]
        until(lambda: len(daemon.snapshot_lines("cam0")) >= 3, lambda: daemon.log.read_text())
        event = console.wait("event/recorder/cam0", lambda event: event["event_type"] == "snapshot")
        daemon.wait_for_chunks(1)
        console.command("recorder/cam0/stop")
        taken = len(daemon.snapshot_lines("cam0"))
        reply = console.command("recorder/cam0/snapshot")
        written = daemon.snapshot_lines("cam0")[-1]  # the command writes a file as well
        assert all(reply["data"][key] == written[key] for key in ("file", "bytes", "sha256")), (reply, written)
        assert len(daemon.snapshot_lines("cam0")) == taken + 1
        health = console.command("daemon/health")["data"]["recorders"]
        assert health["cam0"]["snapshots"]["taken"] == taken + 1
        listed = json.loads(commands(daemon, "list").stdout)
    lines = daemon.snapshot_lines("cam0")[:taken]
    assert [line["snapshot"] for line in lines] == list(range(1, taken + 1))
    for line in lines:
        path = daemon.recordings / line["file"]
        jpeg = path.read_bytes()
        assert path.name == f"{recording_id}-{line['snapshot']:04d}.jpg"
        assert jpeg[:2] == b"\xff\xd8"
        assert (len(jpeg), hashlib.sha256(jpeg).hexdigest()) == (line["bytes"], line["sha256"])
    assert event["recording_id"] == recording_id
    assert (event["file"], event["sha256"]) in [(line["file"], line["sha256"]) for line in lines]
    idle = {Path(line["file"]).name.rpartition("-")[0] for line in daemon.snapshot_lines("cam1")}
    assert len(idle) <= 2, "one id a day"
    entries = listed["recordings"] if isinstance(listed, dict) else listed
    of_cam0 = next(entry for entry in entries if entry["recording_id"] == recording_id)
    assert [shot["file"] for shot in of_cam0["snapshots"]] == [line["file"] for line in lines]
    done = commands(daemon, "verify")
    assert done.returncode == 0, done.stdout
    (daemon.recordings / lines[1]["file"]).write_bytes(b"\xff\xd8 another frame")
    assert lines[1]["file"] in commands(daemon, "verify").stdout


TWO_MODES = """
[devices]
virtual = [{ kind = "camera", label = "Test Camera", modes = [[320, 240, 30], [1296, 972, 10]] }]
"""


@pytest.mark.promise("full-resolution-stills")
@pytest.mark.effect("command: full")
def test_a_still_of_full_resolution_costs_a_recording_a_gap_that_is_told(
    daemon_for: DaemonFor, console: Console
) -> None:
    with daemon_for(camera() + camera("cam1", video={"width": 1296, "height": 972}), more=TWO_MODES) as daemon:
        console.wait("state/recorder/cam0")
        recording_id = console.command("recorder/cam0/start")["data"]["recording_id"]
        daemon.wait_for_chunks(1)
        console.command("recorder/cam0/snapshot")  # of the next frame, which costs nothing
        reply = console.command("recorder/cam0/snapshot", {"full": True})
        gap = console.wait("event/recorder/cam0", lambda event: event["event_type"] == "gap")
        daemon.wait_for_chunks(3)
        console.command("recorder/cam0/stop")
        idle = console.command("recorder/cam1/snapshot", {"full": True})  # frames are that large already
        assert console.command("recorder/cam0/snapshot", {"full": 1})["error"]["code"] == "bad_args"
        lines = daemon.chunk_lines("cam0")
        events = [payload for topic, payload in console.messages if topic.endswith("event/recorder/cam0")]
    errors = [event["message"] for event in events if event["event_type"] == "error"]
    assert not errors, "it was asked for that"
    for answer in (reply, idle):
        (stream,) = probe(daemon.recordings / answer["data"]["file"])
        assert (stream["width"], stream["height"]) == (1296, 972)
    assert reply["data"]["recording_id"] == recording_id
    assert 0.3 < gap["duration_s"] < 5
    assert len([event for event in events if event["event_type"] == "gap"]) == 1
    in_lines = sum(entry["duration_s"] for line in lines for entry in line["gaps"])
    assert in_lines == pytest.approx(gap["duration_s"], abs=0.2)
    sizes = {(s["width"], s["height"]) for line in lines for s in probe(daemon.recordings / line["file"])}
    assert sizes == {(320, 240)}


def probe(path: Path) -> list[dict[str, Any]]:
    command = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", str(path)]
    found: list[dict[str, Any]] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["streams"]
    return found


@pytest.mark.parametrize(
    ("keys", "at"),
    [
        ({"every": "500ms"}, "every"),
        ({"every": "1m", "at": "12:00"}, "at"),
        ({"at": "noon"}, "at"),
        ({"at": "sunrise"}, "at"),
        ({"often": True}, "often"),
    ],
)
def test_snapshots_that_cannot_be(tmp_path: Path, keys: dict[str, object], at: str) -> None:
    config = tmp_path / "msrecd.toml"
    config.write_text(configuration(tmp_path, port=None, recorders=camera(snapshots=keys)))
    with pytest.raises(InvalidConfigError) as refused:
        load(config)
    assert [problem.path for problem in refused.value.problems] == [f"recorder[0].snapshots.{at}"]


def test_intervals_keep_their_rhythm_and_missed_ones_are_left_out() -> None:
    times = SnapshotTimes(Snapshots(every_s=10.0), None)
    now = datetime(2026, 6, 1, tzinfo=UTC)
    due = [second for second in range(60) if times.is_due(second * NS, now)]
    assert due == [0, 10, 20, 30, 40, 50]
    assert times.is_due(95 * NS, now)
    assert not times.is_due(99 * NS, now)
    assert times.is_due(100 * NS, now), "back in its rhythm"
    times.rest()
    assert times.is_due(101 * NS, now), "at once when they are wanted again"


def test_times_of_the_day_come_once_whatever_the_clock_does() -> None:
    times = SnapshotTimes(Snapshots(at="*/10 * * * *"), Location(latitude=52.5, longitude=13.4))
    begin = datetime(2026, 6, 1, 5, 58, tzinfo=UTC).timestamp()
    moments = [datetime.fromtimestamp(begin + half / 2, UTC) for half in range(2 * 1500)]
    due = [moment for moment in moments if times.is_due(0, moment)]
    assert [(moment.hour, moment.minute, moment.second) for moment in due] == [(6, 0, 0), (6, 10, 0), (6, 20, 0)]
    assert not times.is_due(0, datetime(2027, 1, 1, 0, 5, tzinfo=UTC)), "a clock that is set takes no pictures"
    assert not times.is_due(0, datetime(2026, 1, 1, 0, 5, tzinfo=UTC))


@pytest.mark.parametrize(
    ("at", "day", "local"),
    [
        ("02:30", 29, ["03:00"]),  # in the hour that spring leaves out: at its end
        ("30 2 * * *", 29, ["03:00"]),
        ("*/30 1-3 * * *", 29, ["01:00", "01:30", "03:00", "03:30"]),
        ("02:30", 25, ["02:30"]),  # in the hour that autumn repeats: the first time
        ("30 2 * * *", 25, ["02:30"]),
        ("*/30 1-3 * * *", 25, ["01:00", "01:30", "02:00", "02:30", "02:00", "02:30", "03:00", "03:30"]),
    ],
)
def test_times_of_the_day_come_once_when_the_clocks_change(
    monkeypatch: pytest.MonkeyPatch, at: str, day: int, local: list[str]
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        times = SnapshotTimes(Snapshots(at=at), None)
        begin = datetime(2026, 3 if day == 29 else 10, day - 1, 22, 30, tzinfo=UTC).timestamp()
        moments = [datetime.fromtimestamp(begin + 30 * number, UTC) for number in range(5 * 120)]
        due = [moment for moment in moments if times.is_due(0, moment)]
        assert [f"{moment.astimezone(ZoneInfo('Europe/Berlin')):%H:%M}" for moment in due] == local
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_camera_has_settled_when_its_colours_stay() -> None:
    dark, bright = [10.0, 10.0, 12.0], [100.0, 101.0, 99.0]
    assert not has_settled([bright] * 3)
    assert has_settled([dark, bright, bright, bright, bright])
    assert not has_settled([dark, dark, dark, bright])
    assert not has_settled([[100.0, 100.0, 90.0 + blue] for blue in (0, 2, 4, 6)]), "the white balance still moves"


@pytest.mark.effect("config: recorder.snapshots.settle")
def test_a_camera_that_does_not_settle_is_waited_for_as_long_as_is_configured() -> None:
    class Camera:
        """Each frame is as bright as `colours` says next."""

        def __init__(self, colours: Iterator[int]) -> None:
            self.colours, self.looks = colours, 0

        async def grab_frame(self) -> SimpleNamespace:
            self.looks += 1
            return SimpleNamespace(array=np.full((32, 32, 3), next(self.colours), np.uint8))

    flickers, steady = Camera(itertools.cycle((10, 200))), Camera(itertools.repeat(90))
    asyncio.run(asyncio.wait_for(snapshot.settle(cast(Any, flickers), 1.0), 60))
    assert 2 <= flickers.looks <= 6, "every fifth of a second until it is over"
    asyncio.run(asyncio.wait_for(snapshot.settle(cast(Any, steady), 3600.0), 60))
    assert steady.looks == 4
