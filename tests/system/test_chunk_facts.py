"""What events, states and manifest lines say of chunks, against the files; and of losses and recoveries."""

from __future__ import annotations

import signal
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import av
import pytest
from alsasim import AlsaSim
from config_text import camera
from console import Console
from daemon import DaemonFor

DRIFTS = """
[devices]
virtual = [
  { kind = "camera", label = "Test Camera", modes = [[320, 240, 30]] },
  { kind = "microphone", label = "Test Microphone", signal = "tone", ppm = 500 },
]
"""
ALSA = """
[devices]
alsa = ["mic_beep"]
virtual = [ { kind = "camera", label = "Test Camera", modes = [[320, 240, 30]] } ]
"""


def when(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def has_drift(event: dict[str, Any]) -> bool:
    return event["event_type"] == "chunk" and bool(event["tracks"]["audio"]["drift_ppm"])


def counts(path: Path) -> tuple[int, int]:
    """Frames and samples of a file."""
    with av.open(str(path)) as container:
        frames = sum(1 for packet in container.demux(video=0) if packet.size)
    with av.open(str(path)) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    return frames, samples


@pytest.mark.effect(
    "config: devices.virtual.ppm",
    "event-recorder: chunks",
    "event-recorder: started",
    "event-recorder: ended",
    "event-recorder: mime_type",
    "event-recorder: tracks",
    "event-recorder: video",
    "event-recorder: audio",
    "event-recorder: frames",
    "event-recorder: samples",
    "event-recorder: recorder",
    "event-recorder: drift_ppm",
    "event-recorder: offset_ms",
    "manifest-line: offset_ms",
    "manifest-line: mime_type",
    "manifest-line: started",
    "manifest-line: duration_s",
    "manifest-line: tracks",
    "manifest-line: video",
    "manifest-line: audio",
    "manifest-line: samples",
    "manifest-line: drift_ppm",
    "manifest-line: final",
    "state-recorder: bytes",
    "state-recorder: recording_id",
    "state-recorder: seq",
    "state-recorder: ended",
    "state-recorder: tracks",
    "state-recorder: device_id",
    "state-recorder: label",
    "state-recorder: settings",
)
def test_what_is_said_of_a_chunk_is_in_the_file(daemon_for: DaemonFor, console: Console) -> None:
    recorder = camera(audio=True, mime_type="video/x-matroska;codecs=avc1,pcm", chunk_duration="2s")
    with daemon_for(recorder, more=DRIFTS) as daemon:
        recording = console.command("recorder/cam0/start")["data"]["recording_id"]
        running = console.wait_state("recording")
        devices = {one["kind"]: one for one in console.command("daemon/devices")["data"]["devices"]}
        drifts = console.wait("event/recorder/cam0", has_drift)  # it is known after some seconds
        console.command("recorder/cam0/stop")
        stopped = console.wait_event("stopped")
        idle = console.command("recorder/cam0/get")["data"]
    lines = sorted(daemon.chunk_lines(), key=lambda line: line["seq"])
    told = [event for event in console.events() if event["event_type"] == "chunk"]
    only_in_the_manifest = {"prev", "line_sha256", "boot_id"}
    for event, line in zip(told, lines, strict=True):
        assert event["recorder"] == "cam0"
        assert event.items() >= {name: line[name] for name in line.keys() - only_in_the_manifest}.items()
        assert line["mime_type"].startswith("video/x-matroska;codecs=")
        assert when(line["ended"]) - when(line["started"]) == pytest.approx(line["duration_s"], abs=0.05)
        tracks = line["tracks"]
        assert (tracks["video"]["frames"], tracks["audio"]["samples"]) == counts(daemon.recordings / line["file"])
    assert [line["final"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[0]["duration_s"] == pytest.approx(2, abs=0.5)
    assert drifts["tracks"]["audio"]["drift_ppm"] == pytest.approx(500, abs=100)
    offsets = [line["tracks"]["audio"]["offset_ms"] for line in lines]
    assert any(offsets), "what is not corrected of it yet"
    assert all(abs(offset) < 20 for offset in offsets), offsets
    # Totals in the event of the end and in the state.
    size = sum(path.stat().st_size for path in daemon.chunks())
    assert (stopped["chunks"], stopped["bytes"]) == (len(lines), size)
    assert (idle["bytes"], running["recording_id"]) == (size, recording)
    assert idle["last_chunk"] == {name: lines[-1][name] for name in ("seq", "file", "ended")}
    tracks = {track["kind"]: track for track in running["tracks"]}
    for kind, info_kind in (("video", "videoinput"), ("audio", "audioinput")):
        for name in ("device_id", "label"):
            assert tracks[kind][name] == devices[info_kind][name]
    assert tracks["video"]["settings"]["width"] == 320
    assert tracks["audio"]["settings"]["sample_rate"] == 48_000


@pytest.mark.effect(
    "event-recorder: dropped",
    "event-recorder: gaps",
    "event-recorder: at_s",
    "event-recorder: xruns",
    "event-recorder: gap_s",
    "manifest-line: dropped",
    "manifest-line: at_s",
    "manifest-line: xruns",
    "manifest-line: gap_s",
    "state-recorder: dropped_frames",
)
@pytest.mark.promise("lost-seconds")
def test_what_a_standstill_costs_is_counted(daemon_for: DaemonFor, console: Console, alsa_sim: AlsaSim) -> None:
    """The whole daemon stands still for three seconds: the sound card's buffer overruns, frames are not taken."""
    recorder = camera(audio=True, mime_type="video/x-matroska;codecs=avc1,pcm", chunk_duration="60s")
    with daemon_for(recorder, more=ALSA, environment=alsa_sim.env) as daemon:
        console.command("recorder/cam0/start")
        daemon.wait_for_part(least_bytes=20_000)
        daemon.send_signal(signal.SIGSTOP)
        time.sleep(3)  # the standstill itself
        written = max(part.stat().st_size for part in daemon.parts())
        daemon.send_signal(signal.SIGCONT)
        daemon.wait_for_part(least_bytes=written + 20_000)  # what comes behind the hole says how long it was
        console.command("recorder/cam0/stop")
        state = console.command("recorder/cam0/get")["data"]
        (event,) = [event for event in console.events() if event["event_type"] == "chunk"]
    (line,) = daemon.chunk_lines()
    video, audio = line["tracks"]["video"], line["tracks"]["audio"]
    assert video["dropped"] >= 60, "of 90; the camera may catch up with some"
    assert state["dropped_frames"] == video["dropped"]
    assert audio["xruns"] >= 1
    assert 1.5 < audio["gap_s"] < line["duration_s"]
    assert all(0 < gap["at_s"] < gap["at_s"] + gap["duration_s"] <= line["duration_s"] + 0.1 for gap in line["gaps"])
    assert max(gap["duration_s"] for gap in line["gaps"]) > 1.5
    assert "lost_sound" in {gap["reason"] for gap in line["gaps"]}
    assert (event["tracks"], event["gaps"]) == (line["tracks"], line["gaps"])
    assert 1.5 < line["lost_s"] == event["lost_s"] <= audio["gap_s"] + 0.001, "of this time no track has anything"


@pytest.mark.effect("event-recorder: recovered", "manifest-line: recovered")
def test_what_is_recovered_is_told(daemon_for: DaemonFor, console: Console) -> None:
    with daemon_for(camera(chunk_duration="60s")) as daemon:
        recording = console.command("recorder/cam0/start")["data"]["recording_id"]
        daemon.wait_for_part(least_bytes=20_000)
        daemon.kill()
        since = len(console.messages)
        daemon.start()
        event = console.wait_event("chunk", recovered=True, since=since)
        assert event["recording_id"] == recording
        (line,) = daemon.chunk_lines()
        assert line["recovered"] is True
        assert line["tracks"]["video"]["frames"] > 0
        assert event["lost_s"] == line["lost_s"]
