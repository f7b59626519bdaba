"""Values that few would choose and that are valid: what is recorded is whole all the same."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from datetime import datetime
from typing import Any

import pytest
from config_text import camera, microphone, trigger
from console import Console
from daemon import DaemonFor, DaemonProcess
from waiting import until

SOUND = {"kind": "sound", "band": [900, 1100], "threshold_db": 15.0}


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def proven(daemon: DaemonProcess) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "msrecd", "recordings", "verify", "--json", "--config", str(daemon.config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return json.loads(done.stdout)


def assert_whole(daemon: DaemonProcess, name: str) -> list[dict[str, Any]]:
    """One recording, whose chunks follow one another, and whose manifest holds; its lines."""
    lines = daemon.chunk_lines(name)
    assert len(daemon.recording_ids(name)) == 1
    assert lines[-1]["final"]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    for before, after in itertools.pairwise(lines):
        assert abs(at(after["started"]) - at(before["ended"])) < 0.15, (before, after)
    assert not [gap for line in lines for gap in line.get("gaps", [])], lines
    assert proven(daemon)["proven"]
    return lines


def test_a_pre_roll_of_several_chunks(daemon_for: DaemonFor, console: Console) -> None:
    """The chunks before the start follow one another like those behind it."""
    keys: dict[str, Any] = {"pre_roll": "5s", "chunk_duration": "1s"}
    clock = microphone("clock", chunk_duration="1s", autostart=True)
    with daemon_for(camera(**keys) + microphone(mime_type="audio/wav", **keys) + clock) as daemon:
        for name in ("cam0", "mic0"):
            console.wait(f"state/recorder/{name}", lambda said: said["armed"])
        daemon.wait_for_chunks(7, recorder="clock")  # as many seconds have passed
        started = {}
        for name in ("cam0", "mic0"):
            started[name] = time.time()
            assert console.command(f"recorder/{name}/start")["status"] == "ok"
        for name in ("cam0", "mic0"):
            daemon.wait_for_chunks(7, recorder=name)
            console.command(f"recorder/{name}/stop")
            console.wait_state("inactive", recorder=name)
            lines = assert_whole(daemon, name)
            # A camera's begins with the key frame before.
            assert 4.5 <= started[name] - at(lines[0]["started"]) < 9
            assert all(0.2 < at(line["ended"]) - at(line["started"]) < 3.2 for line in lines[:-1]), lines


@pytest.mark.parametrize("name", ["mic0", "cam0"])
def test_a_hold_shorter_than_a_key_frame_interval(daemon_for: DaemonFor, console: Console, name: str) -> None:
    """One recording an hour, of a tenth of a second and what came before."""
    keys: dict[str, Any] = {"pre_roll": "1s", "chunk_duration": "1s"}
    recorders = {
        "mic0": microphone(mime_type="audio/wav", **keys) + trigger(**SOUND, hold="100ms", max_per_hour=1),
        "cam0": camera(**keys) + trigger(kind="motion", hold="100ms", max_per_hour=1),
    }
    with daemon_for(recorders[name]) as daemon:
        found = console.wait(f"event/recorder/{name}", lambda said: said.get("action") == "start")
        if name == "cam0":  # its frames change all the time
            console.wait(f"event/recorder/{name}", lambda said: said["event_type"] == "chunk")
            console.command(f"recorder/{name}/stop")
        console.wait(f"event/recorder/{name}", lambda said: said["event_type"] == "stopped")
        console.wait_state("inactive", recorder=name)
    lines = assert_whole(daemon, name)
    assert at(lines[0]["started"]) <= at(found["at"]) <= at(lines[-1]["ended"])


def test_snapshots_in_every_state(daemon_for: DaemonFor, console: Console) -> None:
    """Each gets a frame or a reason, and none changes what the recorder does."""
    recorder = camera(pre_roll="2s", snapshots={"idle": True, "every": "1h"})
    with daemon_for(recorder) as daemon:
        console.wait_state("inactive")

        def snapshot() -> Any:
            return console.command("recorder/cam0/snapshot")

        def taken() -> int:
            return len(list(daemon.recordings.rglob("*.jpg")))

        assert snapshot()["status"] == "ok"  # armed
        console.command("recorder/cam0/start")
        console.wait_state("recording")
        assert snapshot()["status"] == "ok"
        console.command("recorder/cam0/pause")
        console.wait_state("paused")
        paused = snapshot()
        assert paused["status"] == "ok", paused
        assert console.command("recorder/cam0/get")["data"]["state"] == "paused"
        console.command("recorder/cam0/resume")
        console.wait_state("recording")
        console.command("recorder/cam0/stop")
        console.wait_state("inactive")
        assert snapshot()["status"] == "ok"
        until(lambda: taken() >= 4, lambda: daemon.log.read_text())
    assert proven(daemon)["proven"]
