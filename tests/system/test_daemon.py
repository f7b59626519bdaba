"""The whole daemon: real process, real broker, real files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from broker import Broker
from config_text import camera, configuration, microphone, recorder
from console import Console
from daemon import DaemonFor, DaemonProcess
from judge import assert_consecutive, numbers_of, read_chunk
from waiting import until

CAM0 = camera(audio=True)


@pytest.mark.effect(
    "verb: split",
    "verb: get",
    "state-recorder: mime_type",
    "state-recorder: kind",
    "event-recorder: final",
    "manifest-line: seq",
    "manifest-line: frames",
    "exit: 0",
)
@pytest.mark.promise("controlled-by-mqtt-or-schedule")
def test_start_pause_resume_stop_over_mqtt(daemon_for: DaemonFor, console: Console) -> None:
    with daemon_for(CAM0) as daemon:
        assert console.wait("availability") == "online"
        assert console.wait("state/recorder/cam0")["state"] == "inactive"
        reply = console.command("recorder/cam0/start")
        assert reply["status"] == "ok"
        assert reply["changed"] is True
        assert reply["data"]["state"] == "recording"
        again = console.command("recorder/cam0/start")
        assert (again["status"], again["changed"]) == ("ok", False)
        daemon.wait_for_chunks(1)
        assert console.command("recorder/cam0/pause")["data"]["state"] == "paused"
        assert console.command("recorder/cam0/resume")["data"]["state"] == "recording"
        assert console.command("recorder/cam0/split")["status"] == "ok"
        daemon.wait_for_chunks(2)
        state = console.command("recorder/cam0/get")["data"]
        assert {track["kind"] for track in state["tracks"]} == {"video", "audio"}
        assert state["mime_type"].startswith("video/mp4;codecs=avc1.")
        stopped = console.command("recorder/cam0/stop")
        assert stopped["data"]["state"] == "inactive"
        final = console.wait_event("chunk", final=True)
        assert (daemon.recordings / final["file"]).stat().st_size == final["bytes"]
        assert (console.command("recorder/cam0/stop"))["changed"] is False
        assert console.command("recorder/cam0/pause")["error"]["code"] == "wrong_state"
        assert daemon.stop() == 0
    assert console.wait("availability", lambda text: text == "offline") == "offline"
    kinds = [event["event_type"] for event in console.events()]
    assert kinds[0] == "started"
    assert "paused" in kinds
    assert "resumed" in kinds
    assert kinds[-1] == "stopped"
    judged = [read_chunk(path) for path in daemon.chunks()]
    assert all(chunk.numbers for chunk in judged)
    assert not daemon.parts()
    lines = daemon.manifest()
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert sum(line["tracks"]["video"]["frames"] for line in lines) == sum(len(chunk.numbers) for chunk in judged)


@pytest.mark.effect("manifest-line: paused_s")
@pytest.mark.promise("a-pause-is-no-gap")
def test_a_pause_is_no_gap_wherever_a_file_ends(daemon_for: DaemonFor, console: Console) -> None:
    """One within a chunk, and one at the end of which another chunk begins."""
    with daemon_for(camera(chunk_duration="1m")) as daemon:
        for verbs in (("start",), ("pause", "resume"), ("pause", "split", "resume"), ("stop",)):
            for verb in verbs:
                assert console.command(f"recorder/cam0/{verb}")["status"] == "ok"
                if verb != "stop":
                    time.sleep(1.5)  # of time that is recorded, or not
        until(lambda: len(daemon.chunk_lines("cam0")) == 2, lambda: daemon.log.read_text())
        command = [sys.executable, "-m", "msrecd", "recordings", "list", "--json", "--config", str(daemon.config)]
        (listed,) = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    first, second = daemon.chunk_lines("cam0")
    begin, end = (datetime.fromisoformat(text).timestamp() for text in (first["ended"], second["started"]))
    assert "paused_s" not in first
    assert second["paused_s"] == pytest.approx(end - begin, abs=0.01)
    assert second["paused_s"] > 2.5
    assert (listed["gaps"], first["gaps"], second["gaps"], second["lost_s"]) == ([], [], [], 0)


@pytest.mark.promise("commands-are-answered")
def test_wrong_commands_change_nothing(daemon_for: DaemonFor, console: Console) -> None:
    with daemon_for(CAM0):
        console.wait("availability")
        assert console.command("recorder/nobody/start")["error"]["code"] == "unknown_recorder"
        assert console.command("recorder/cam0/explode")["error"]["code"] == "unknown_verb"
        assert console.command("recorder/cam0/start", {"duration_s": "long"})["error"]["code"] == "bad_args"
        assert console.command("recorder/cam0/start", {"speed": 3})["error"]["code"] == "bad_args"
        console.raw("recorder/cam0/start", b"{not json")
        reply = console.wait("reply/recorder/cam0/start", lambda r: r.get("error", {}).get("code") == "bad_payload")
        assert reply["status"] == "error"
        console.raw("recorder/cam0/start", b"x" * 17_000)
        console.raw("recorder/cam0/start", b"{}", retain=True)
        console.wait("reply/recorder/cam0/start", lambda r: r.get("error", {}).get("code") == "retained_rejected")
        console.raw("recorder/cam0/start", b"", retain=True)
        assert console.command("daemon/ping")["status"] == "ok"
        assert console.command("recorder/cam0/get")["data"]["state"] == "inactive"


@pytest.mark.promise("faults-stay-apart", "recipe-pairs")
@pytest.mark.effect(
    "config: recorder.autostart", "state-recorder: error", "state-recorder: code", "state-recorder: message"
)
@pytest.mark.effect("event-recorder: code", "event-recorder: message")
def test_a_missing_device_is_an_error_state_and_the_others_run(daemon_for: DaemonFor, console: Console) -> None:
    no_such = microphone("mic0", audio={"device_id": {"exact": "no-such-device"}}, autostart=True)
    with daemon_for(camera(autostart=True) + no_such) as daemon:
        error = console.wait_state("error", recorder="mic0")["error"]
        assert error["code"] == "device_missing"
        assert "device_id" in error["message"]
        event = console.wait_event("error", recorder="mic0")
        assert (event["code"], event["message"]) == (error["code"], error["message"])
        console.wait_state("recording")
        daemon.wait_for_chunks(1)
        reply = console.command("recorder/mic0/stop")
        assert reply["status"] == "ok"
        console.wait("state/recorder/mic0", lambda state: state["state"] == "inactive" and state["rev"] > 1)


@pytest.mark.promise("no-broker-no-harm")
def test_recording_goes_on_without_the_broker(daemon_for: DaemonFor, broker: Broker, console: Console) -> None:
    with daemon_for(CAM0) as daemon:
        console.wait("availability")
        console.command("recorder/cam0/start")
        broker.kill()
        before = len(daemon.chunks())
        daemon.wait_for_chunks(before + 2)
        broker.start()
        console.wait("state/recorder/cam0", lambda s: s["state"] == "recording" and s["chunks"] >= 2, timeout=60)
        files = {str(path.relative_to(daemon.recordings)) for path in daemon.chunks()}

        def untold() -> set[str]:
            return files - {event.get("file") for event in console.events()}

        until(lambda: not untold(), lambda: f"chunks nobody was told of: {untold()}")
        assert daemon.stop() == 0
    assert_consecutive(numbers_of(daemon.chunks()))


@pytest.mark.promise("open-chunk-is-recovered", "open-becomes-recovered")
def test_second_signal_leaves_at_once_and_the_next_start_recovers(tmp_path: Path) -> None:
    recorders = camera(audio=True, autostart=True)
    daemon = DaemonProcess(tmp_path, configuration(tmp_path, port=None, recorders=recorders))
    daemon.start()
    daemon.wait_for_part(least_bytes=2000)
    daemon.send_signal(signal.SIGTERM)
    time.sleep(0.25)  # closer together they count as one
    if daemon.is_running:
        daemon.send_signal(signal.SIGTERM)
    until(lambda: not daemon.is_running, "two signals do not end it")
    with daemon:
        recovered = [line for line in daemon.manifest() if line.get("recovered")]
        daemon.wait_for_part()
    assert len(recovered) <= 1
    for path in daemon.chunks():
        assert read_chunk(path).numbers


@pytest.mark.effect("exit: 2")
@pytest.mark.promise("wrong-configuration-starts-nothing")
def test_an_invalid_configuration_names_every_problem_and_starts_nothing(tmp_path: Path) -> None:
    config = tmp_path / "msrecd.toml"
    config.write_text('[storage]\nmax_totl = "2GiB"\n[[recorder]]\nname = "Cam 0"\nchunk_duration = "soon"\n')
    done = subprocess.run(
        [sys.executable, "-m", "msrecd", "run", "--config", str(config)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert any("storage.max_totl" in line and "max_total" in line for line in lines)
    assert any("recorder[0].name" in line for line in lines)
    assert any("recorder[0].chunk_duration" in line for line in lines)
    assert "Traceback" not in done.stderr


def hashes(path: Path) -> list[str]:
    """sha256 of each encoded picture."""
    listed = subprocess.run(
        ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "packet=data_hash", "-show_data_hash",
         "sha256", "-of", "csv", str(path)], capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return listed.stdout.split()


@pytest.mark.effect("config: recorder.source.url")
def test_a_played_file_passes_through_and_ends_the_recording(
    tmp_path: Path, daemon_for: DaemonFor, console: Console
) -> None:
    media = tmp_path / "in.mp4"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25:duration=5", "-c:v", "libx264",
         "-preset", "ultrafast", "-g", "25", "-bf", "0", "-pix_fmt", "yuv420p", str(media)], check=True, timeout=60,
    )  # fmt: skip
    with daemon_for(recorder("cam0", source={"url": f"file://{media}"}, chunk_duration="2s")) as daemon:
        console.wait("availability")
        assert console.command("recorder/cam0/start")["status"] == "ok"
        console.wait_event("stopped")
        console.wait("state/recorder/cam0", lambda state: state["state"] == "inactive" and state["rev"] > 1)
    assert sum(line["tracks"]["video"]["frames"] for line in daemon.chunk_lines()) == 125
    recorded = [digest for path in daemon.chunks() for digest in hashes(path)]
    assert recorded == hashes(media), "the encoded pictures were not passed through as they are"
