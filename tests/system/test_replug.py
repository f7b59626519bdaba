"""A microphone that is pulled out and put in again while it is recorded (ALSA simulation), through the whole daemon."""

from __future__ import annotations

import itertools
import time

import pytest
from alsasim import AlsaSim
from config_text import recorder
from console import Console
from daemon import DaemonFor
from judge import read_chunk
from waiting import until

DEVICES = """
[devices]
alsa = ["mic_plug"]
virtual = [ { kind = "camera", label = "Test Camera", modes = [[320, 240, 30]] } ]
"""
WRITTEN_BYTES = 20_000  # so much is more than headers


def written(console: Console) -> int:
    return int(console.command("recorder/cam0/get")["data"]["bytes"])


@pytest.mark.promise("losses-are-counted")
def test_an_audio_recording_goes_on_in_a_new_chunk_when_the_microphone_returns(
    daemon_for: DaemonFor, console: Console, alsa_sim: AlsaSim
) -> None:
    recorders = recorder("cam0", audio=True, mime_type="audio/mp4", timeslice="500ms")
    with daemon_for(recorders, more=DEVICES, environment=alsa_sim.env) as daemon:
        console.wait("availability")
        recording = console.command("recorder/cam0/start")["data"]["recording_id"]
        daemon.wait_for_part(least_bytes=2000)
        alsa_sim.unplug()
        console.wait_state("error", code="device_missing")
        assert len(daemon.wait_for_chunks(1)) == 1
        since = len(console.messages)
        alsa_sim.plug()
        begun = time.monotonic()
        back = console.wait_state("recording", since=since)
        took = time.monotonic() - begun
        assert back["recording_id"] == recording
        gap = console.wait_event("gap", since=since)
        assert gap["reason"] == "device_missing"
        assert gap["duration_s"] > 0
        daemon.wait_for_part(least_bytes=2000)
        console.command("recorder/cam0/stop")
        print(f"recording again {took:.1f} s after the return, {gap['duration_s']} s lost")
    assert [line["seq"] for line in daemon.manifest()] == [1, 2]
    assert daemon.recording_ids() == {recording}
    for path in daemon.chunks():
        assert len(read_chunk(path).samples) > 0


@pytest.mark.promise("others-are-recorded")
def test_the_camera_goes_on_while_the_microphone_is_away(
    daemon_for: DaemonFor, console: Console, alsa_sim: AlsaSim
) -> None:
    recorders = recorder("cam0", video=True, audio=True, mime_type="video/mp4", timeslice="500ms")
    with daemon_for(recorders, more=DEVICES, environment=alsa_sim.env) as daemon:
        console.wait("availability")
        console.command("recorder/cam0/start")
        daemon.wait_for_part(least_bytes=WRITTEN_BYTES)
        alsa_sim.unplug()
        console.wait_event("error")
        assert console.command("recorder/cam0/get")["data"]["state"] == "recording"
        before = written(console)
        until(lambda: written(console) > before + WRITTEN_BYTES, "the camera does not go on")
        alsa_sim.plug()
        console.wait("state/recorder/cam0", lambda state: len(state["tracks"]) == 2 and state["chunks"] >= 1)
        daemon.wait_for_part(least_bytes=WRITTEN_BYTES)
        console.command("recorder/cam0/stop")
    judged = [read_chunk(path) for path in daemon.chunks()]
    assert len(judged) == 2
    numbers = [number for chunk in judged for number in chunk.numbers]
    missing = [b - a - 1 for a, b in itertools.pairwise(numbers) if b != a + 1]
    dropped = sum(line["tracks"]["video"]["dropped"] for line in daemon.chunk_lines())  # by a busy machine
    assert sum(missing) - dropped <= 30, "the camera was interrupted for longer than a second"
    assert len(judged[1].samples) > 0
