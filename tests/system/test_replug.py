"""A microphone that is pulled out and put in again while it is recorded (ALSA simulation), through the whole daemon."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from alsasim import AlsaSim, alsa_plugin, alsa_sim  # noqa: F401 - fixtures
from broker import Broker
from console import Console
from daemon import DaemonProcess, configuration
from judge import read_chunk

DEVICES = """
[devices]
alsa = ["mic_plug"]
virtual = [ { kind = "camera", label = "Test Camera", modes = [[320, 240, 30]] } ]
"""
RECORDER = """
[[recorder]]
name = "cam0"
{video}
audio = true
mime_type = "{type}"
timeslice = "500ms"
chunk_duration = "60s"
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as running:
        yield running


def test_an_audio_recording_goes_on_in_a_new_chunk_when_the_microphone_returns(
    tmp_path: Path,
    broker: Broker,
    alsa_sim: AlsaSim,  # noqa: F811
) -> None:
    recorders = RECORDER.format(video="", type="audio/mp4")
    config = configuration(tmp_path, port=broker.port, recorders=recorders, more=DEVICES)
    console = Console(broker.port)
    with DaemonProcess(tmp_path, config, environment=alsa_sim.env) as daemon:
        console.wait("availability")
        recording = console.command("recorder/cam0/start")["data"]["recording_id"]
        daemon.wait_for_part(least_bytes=2000)
        alsa_sim.unplug()
        error = console.wait("state/recorder/cam0", lambda state: state["state"] == "error")["error"]
        assert error["code"] == "device_missing"
        assert len(daemon.wait_for_chunks(1)) == 1
        since = len(console.messages)
        alsa_sim.plug()
        begun = time.monotonic()
        back = console.wait("state/recorder/cam0", lambda state: state["state"] == "recording", since=since, timeout=40)
        took = time.monotonic() - begun
        assert back["recording_id"] == recording
        gap = console.wait("event/recorder/cam0", lambda event: event["event_type"] == "gap", since=since)
        assert gap["reason"] == "device_missing"
        assert gap["duration_s"] > 0
        daemon.wait_for_part(least_bytes=2000)
        console.command("recorder/cam0/stop")
        print(f"recording again {took:.1f} s after the return, {gap['duration_s']} s lost")
    console.close()
    lines = daemon.manifest()
    assert [line["seq"] for line in lines] == [1, 2]
    assert all(line["file"].split("/")[-1].startswith(recording) for line in lines)
    for path in daemon.chunks():
        assert len(read_chunk(path).samples) > 0


def test_the_camera_goes_on_while_the_microphone_is_away(
    tmp_path: Path,
    broker: Broker,
    alsa_sim: AlsaSim,  # noqa: F811
) -> None:
    recorders = RECORDER.format(video="video = true", type="video/mp4")
    config = configuration(tmp_path, port=broker.port, recorders=recorders, more=DEVICES)
    console = Console(broker.port)
    with DaemonProcess(tmp_path, config, environment=alsa_sim.env) as daemon:
        console.wait("availability")
        console.command("recorder/cam0/start")
        daemon.wait_for_part(least_bytes=2000)
        alsa_sim.unplug()
        console.wait("event/recorder/cam0", lambda event: event["event_type"] == "error")
        assert console.command("recorder/cam0/get")["data"]["state"] == "recording"
        time.sleep(1.0)
        alsa_sim.plug()
        console.wait(
            "state/recorder/cam0", lambda state: len(state["tracks"]) == 2 and state["chunks"] >= 1, timeout=40
        )
        time.sleep(1.0)
        console.command("recorder/cam0/stop")
    console.close()
    judged = [read_chunk(path) for path in daemon.chunks()]
    assert len(judged) == 2
    numbers = [number for chunk in judged for number in chunk.numbers]
    missing = [b - a - 1 for a, b in itertools.pairwise(numbers) if b != a + 1]
    assert sum(missing) <= 30, "the camera was interrupted for longer than a second"
    assert len(judged[1].samples) > 0
