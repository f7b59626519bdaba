"""Many commands over a broker that dies in between; and how long a start and a stop take.

Short in the ordinary run; `MSRECD_CYCLES=100 MSRECD_STARTS=100` for the acceptance figures.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from broker import Broker
from console import BASE, Console
from daemon import DaemonProcess, configuration
from judge import read_chunk

CYCLES = int(os.environ.get("MSRECD_CYCLES", "6"))
STARTS = int(os.environ.get("MSRECD_STARTS", "6"))
RECORDER = """
[[recorder]]
name = "cam0"
video = { width = 320, height = 240, frame_rate = 30 }
audio = true
mime_type = "video/mp4"
timeslice = "500ms"
chunk_duration = "10s"
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as running:
        yield running


def taken_along(line: dict[str, Any], kills: list[float]) -> bool:
    """Whether an event of this chunk's time may be one that a broker had acknowledged but not passed on when killed."""
    begun, ended = (datetime.fromisoformat(line[key]).timestamp() for key in ("started", "ended"))
    return any(begun - 10 < kill < ended + 10 for kill in kills)


@pytest.mark.timeout(120 + 15 * CYCLES)
def test_state_replies_and_files_agree_after_many_cycles(tmp_path: Path, broker: Broker) -> None:
    rng = random.Random(100)
    console = Console(broker.port)
    started = stopped = 0
    kills: list[float] = []
    with DaemonProcess(tmp_path, configuration(tmp_path, port=broker.port, recorders=RECORDER)) as daemon:
        console.wait("availability")
        for cycle in range(CYCLES):
            if cycle and rng.random() < 0.25:
                kills.append(time.time())
                broker.kill()
                time.sleep(rng.uniform(0, 1))
                broker.start()
                console.wait_connected()
                console.wait_online()
            started += console.command("recorder/cam0/start")["changed"]
            for verb in ("pause", "resume"):
                time.sleep(rng.uniform(0, 0.3))
                assert console.command(f"recorder/cam0/{verb}")["status"] == "ok"
            time.sleep(rng.uniform(0, 0.5))
            stopped += console.command("recorder/cam0/stop")["changed"]
        state = console.command("recorder/cam0/get")["data"]
        assert state["state"] == "inactive"
        retained = console.retained("state/recorder/cam0")
        assert retained["state"] == "inactive"
        assert (started, stopped) == (CYCLES, CYCLES)
        lines = [line for line in daemon.manifest() if "file" in line]
        deadline = time.monotonic() + 60
        while console.command("daemon/health")["data"]["mqtt"]["spooled"]:
            assert time.monotonic() < deadline, "events stay in the spool"
            time.sleep(0.2)
        assert daemon.stop() == 0
    console.close()
    heard: dict[str, Any] = {}
    for topic, event in console.messages:
        if topic == BASE + "event/recorder/cam0":
            assert heard.setdefault(event["event_id"], event) == event
    for event_type in ("started", "paused", "resumed", "chunk", "stopped"):
        of_type = {event["recording_id"] for event in heard.values() if event["event_type"] == event_type}
        for line in lines:
            recording = Path(line["file"]).name.rsplit("-", 1)[0]
            assert recording in of_type or taken_along(line, kills), (event_type, recording)
    assert {line["file"] for line in lines} == {str(path.relative_to(daemon.recordings)) for path in daemon.chunks()}
    assert len({Path(line["file"]).name.rsplit("-", 1)[0] for line in lines}) == CYCLES
    for path in daemon.chunks():
        assert read_chunk(path).numbers, path
    print(f"{CYCLES} cycles: {len(lines)} chunks, states, replies and files agree")


@pytest.mark.timeout(120 + 5 * STARTS)
def test_how_long_a_start_and_a_stop_take(tmp_path: Path, broker: Broker) -> None:
    console = Console(broker.port)
    to_recording, to_chunk = [], []
    with DaemonProcess(tmp_path, configuration(tmp_path, port=broker.port, recorders=RECORDER)):
        console.wait("availability")
        for _ in range(STARTS):
            since = len(console.messages)
            begun = time.monotonic()
            console.send("recorder/cam0/start")
            console.wait("state/recorder/cam0", lambda state: state["state"] == "recording", since=since)
            to_recording.append(time.monotonic() - begun)
            time.sleep(0.4)
            since = len(console.messages)
            begun = time.monotonic()
            console.send("recorder/cam0/stop")
            console.wait("event/recorder/cam0", lambda event: event["event_type"] == "chunk", since=since)
            to_chunk.append(time.monotonic() - begun)
            console.wait("state/recorder/cam0", lambda state: state["state"] == "inactive", since=since)
            time.sleep(0.15)  # the broker's clients may send ten commands a second
    console.close()
    for name, values in (("start to recording", to_recording), ("stop to chunk event", to_chunk)):
        p99 = sorted(values)[min(len(values) - 1, round(len(values) * 0.99))]
        print(f"{name}: p50 {statistics.median(values) * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms of {len(values)}")
    assert statistics.median(to_recording) < 1.0
    assert statistics.median(to_chunk) < 2.0
