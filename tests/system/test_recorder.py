"""One recorder of a running daemon: pre-roll, outages, ends and a disk that hangs, as an operator sees them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fault_table
import pytest
from alsasim import AlsaSim
from card import Card
from config_text import VIRTUAL, camera, configuration, microphone, recorder
from console import Console
from daemon import DaemonFor, DaemonProcess
from ports import free_port
from waiting import until

ALSA = """
[devices]
alsa = ["mic_plug"]
virtual = [ { kind = "camera", label = "Test Camera", modes = [[320, 240, 30]] } ]
"""
PRE_ROLL_S = 3.0


def media_lines(daemon: DaemonProcess, name: str = "cam0") -> list[dict[str, Any]]:
    return sorted(daemon.chunk_lines(name), key=lambda line: line["file"])


def gaps_of(lines: list[dict[str, Any]]) -> list[tuple[str, float]]:
    return [(gap["reason"], gap["duration_s"]) for line in lines for gap in line["gaps"]]


# --- pre-roll --------------------------------------------------------------------------------------------------------


@pytest.mark.effect("config: recorder.pre_roll", "state-recorder: armed", "state-health: pre_roll_bytes")
def test_a_recording_begins_before_the_command_also_the_next_one_and_after_a_reload(
    daemon_for: DaemonFor, console: Console
) -> None:
    keys = {"pre_roll": "3s", "video_key_frame_interval_duration": "500ms", "chunk_duration": "60s"}
    with daemon_for(camera(**keys)) as daemon:
        for timeslice in ("500ms", "700ms"):  # the second after a reload that replaces the recorder
            if timeslice != "500ms":
                since = len(console.messages)
                daemon.config.write_text(daemon.config.read_text().replace("500ms", timeslice, 1))
                daemon.send_signal(signal.SIGHUP)
                console.wait("state/recorder/cam0", lambda state: state["armed"], since=since)
            for _ in range(2):
                assert begins_before_the_command(console) >= PRE_ROLL_S - 0.6, timeslice
        console.wait("state/recorder/cam0", lambda state: state["armed"] and state["state"] == "inactive")
        held = until(lambda: pre_roll_bytes(console), "there is no pre-roll after a recording")
        assert held < 64 << 20
    lines = media_lines(daemon)
    assert [line["final"] for line in lines] == [True] * 4
    assert gaps_of(lines) == []


def pre_roll_bytes(console: Console) -> int:
    return int(console.command("daemon/health")["data"]["recorders"]["cam0"]["pre_roll_bytes"])


def begins_before_the_command(console: Console) -> float:
    """Record for a moment once the pre-roll is full; seconds from the beginning of the file to the command."""
    until(lambda: [state["armed"] for state in console.told("state/recorder/cam0")][-1:] == [True], "it is not armed")
    until(lambda: pre_roll_bytes(console), "there is no pre-roll")
    begun = time.monotonic()  # of media that is certainly in the pre-roll
    until(lambda: time.monotonic() > begun + PRE_ROLL_S + 1.5, "time stands still")
    since = len(console.messages)
    commanded = datetime.now(UTC)
    reply = console.command("recorder/cam0/start")
    assert reply["data"]["state"] == "recording"
    assert (
        console.wait("state/recorder/cam0", lambda state: state["state"] == "recording", since=since)["armed"] is False
    )
    console.command("recorder/cam0/stop")
    chunk = console.wait_event("chunk", since=since)
    return (commanded - datetime.fromisoformat(chunk["started"].replace("Z", "+00:00"))).total_seconds()


# --- outages ---------------------------------------------------------------------------------------------------------


@pytest.mark.effect(
    "config: devices.alsa",
    "manifest-line: gaps",
    "manifest-line: reason",
    "manifest-line: lost_s",
    "event-recorder: reason",
    "event-recorder: duration_s",
    "event-recorder: lost_s",
)
def test_an_outage_and_one_until_the_stop_are_told_in_manifest_and_event_alike(
    daemon_for: DaemonFor, console: Console, alsa_sim: AlsaSim
) -> None:
    mic = microphone("mic0", timeslice="200ms")
    with daemon_for(mic, more=ALSA, environment=alsa_sim.env) as daemon:
        console.wait("availability")
        console.command("recorder/mic0/start")
        daemon.wait_for_part(least_bytes=2000)
        alsa_sim.unplug()
        away = console.wait_state("error", recorder="mic0", code="device_missing")
        assert away["tracks"] == []
        alsa_sim.plug()
        console.wait_event("gap", recorder="mic0")
        daemon.wait_for_part(least_bytes=2000)
        since = len(console.messages)
        alsa_sim.unplug()
        console.wait_state("error", recorder="mic0", code="device_missing", since=since)
        begun = time.monotonic()
        until(lambda: time.monotonic() > begun + 2.0, "time stands still")
        console.command("recorder/mic0/stop")
        console.wait_event("stopped", recorder="mic0", since=since)
        events = [
            (payload["reason"], payload["duration_s"])
            for topic, payload in console.messages
            if topic.endswith("event/recorder/mic0") and payload["event_type"] == "gap"
        ]
    lines = media_lines(daemon, "mic0")
    assert [line["final"] for line in lines] == [False, True]
    assert [reason for reason, _ in events] == ["device_missing", "device_missing"]
    assert gaps_of(lines) == events, "each once, in both places"
    assert events[1][1] >= 1.9
    told = [event["lost_s"] for event in console.events("mic0") if event["event_type"] == "chunk"]
    assert told == [line["lost_s"] for line in lines]
    assert sum(line["lost_s"] for line in lines) == pytest.approx(sum(seconds for _, seconds in events), abs=0.01)


# --- inputs that end -------------------------------------------------------------------------------------------------


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.mp4"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25:duration=60", "-c:v", "libx264",
         "-preset", "ultrafast", "-g", "25", "-bf", "0", "-pix_fmt", "yuv420p", str(path)],
        check=True, timeout=120,
    )  # fmt: skip
    return path


@contextlib.contextmanager
def http_camera(film: Path, port: int) -> Iterator[None]:
    """A camera that streams MPEG-TS over HTTP without end, to one at a time: ffmpeg serves one client and ends."""
    command = [
        "ffmpeg", "-v", "error", "-nostdin", "-re", "-stream_loop", "-1", "-i", str(film), "-c", "copy",
        "-f", "mpegts", "-listen", "1", f"http://127.0.0.1:{port}/live.ts",
    ]  # fmt: skip
    is_over = threading.Event()
    served: list[subprocess.Popen[bytes]] = []

    def serve() -> None:
        while not is_over.wait(0.05):
            served.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            served[-1].wait()

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    try:
        yield
    finally:
        is_over.set()
        while serving.is_alive():
            for process in served[-1:]:
                process.kill()
            serving.join(0.1)


def test_a_live_input_that_ends_is_recorded_again_in_the_same_recording(
    daemon_for: DaemonFor, console: Console, film: Path
) -> None:
    port = free_port()
    recorders = recorder(
        "cam0",
        source={"url": f"http://127.0.0.1:{port}/live.ts"},
        timeslice="500ms",
        chunk_duration="2s",
        autostart=True,
    )
    with daemon_for(recorders) as daemon:
        with http_camera(film, port):
            before = console.wait_state("recording")
            daemon.wait_for_chunks(1)
            since = len(console.messages)  # the first try may have been too early for the camera
        lost = console.wait_state("error", code="device_missing", since=since)
        since = len(console.messages)
        assert lost["recording_id"] == before["recording_id"]
        with http_camera(film, port):
            there = time.monotonic()
            back = console.wait_state("recording", since=since)
            took = time.monotonic() - there
            assert back["recording_id"] == before["recording_id"]
            gap = console.wait_event("gap", since=since)
            daemon.wait_for_chunks(3)
    print(f"recording again {took:.1f} s after the camera's program was started")
    lines = media_lines(daemon)
    assert [line["final"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert (gap["reason"], gap["duration_s"]) in gaps_of(lines)
    assert took < 40, "tries come once a second at first, every ten seconds later"


def test_a_live_input_has_a_pre_roll_too(daemon_for: DaemonFor, console: Console, film: Path) -> None:
    port = free_port()
    source = {"url": f"http://127.0.0.1:{port}/live.ts"}
    recorders = recorder("cam0", source=source, timeslice="500ms", pre_roll="3s")
    with http_camera(film, port), daemon_for(recorders):
        assert begins_before_the_command(console) >= PRE_ROLL_S - 1.1  # a key frame each second


# --- what was asked for ----------------------------------------------------------------------------------------------


@pytest.mark.effect("state-recorder: unmet", "state-recorder: constraint")
def test_a_device_by_its_label_and_what_is_not_met(daemon_for: DaemonFor, console: Console) -> None:
    wanted = {"device_id": {"label": "Test Camera"}, "width": 320, "frame_rate": {"ideal": 120}}
    with daemon_for(camera(video=wanted)) as daemon:
        console.wait("availability")
        console.command("recorder/cam0/start")
        (track,) = console.wait_event("started")["tracks"]
        assert track["label"] == "Test Camera"
        assert track["device_id"] == track["settings"]["device_id"]
        state = console.wait_state("recording")
        assert state["unmet"] == [{"kind": "video", "constraint": "frame_rate", "asked": 120, "got": 30}]
        assert "asked for and not met: video frame_rate 120 (is 30)" in daemon.log.read_text()


# --- a disk that hangs -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("fsfreeze") or not shutil.which("mkfs.ext4"),
    reason="needs root, fsfreeze and mkfs.ext4",
)
@pytest.mark.effect("state-health: queue_ms")
@pytest.mark.promise("hanging-disk-is-a-problem")
def test_a_disk_that_hangs_is_an_error_and_nothing_of_it_is_lost(
    tmp_path: Path, card: Card, broker: Any, console: Console
) -> None:
    text = configuration(tmp_path, port=broker.port, recorders=camera(autostart=True), more=VIRTUAL)
    with DaemonProcess(tmp_path, text, environment={"WATCHDOG_USEC": "4000000"}) as daemon:
        daemon.wait_for_chunks(1)
        since = len(console.messages)
        with card.frozen():
            told = console.wait_state("error", code="no_space", since=since)
            assert "the disk has not answered for 10 s" in told["error"]["message"]
            console.wait_event("error", code="no_space", since=since)
            health = console.command("daemon/health")["data"]
            disk, waits_ms = health["disk"], health["recorders"]["cam0"]["queue_ms"]
            assert disk is None or disk["seconds_left_estimate"] is None
            assert 5_000 < waits_ms < 120_000
            daemon.wait_notified("WATCHDOG=1", count=daemon.notified.count("WATCHDOG=1") + 2)
        back = console.wait_state("recording", since=since)
        assert back["recording_id"] == told["recording_id"]
        before = len(daemon.chunks())
        daemon.wait_for_chunks(before + 2)
        assert daemon.stop() == 0
    assert gaps_of(media_lines(daemon)) == []
    fault_table.seen(
        "disk hangs",
        state=f"{told['state']} {told['error']['code']}",
        event=" ".join(event["code"] for event in console.events() if event["event_type"] == "error"),
        log=fault_table.loud_lines(daemon.log.read_text(), "not answered"),
        figure=f"queue_ms {round(waits_ms)}; disk {'null' if disk is None else 'without seconds_left_estimate'}",
    )
