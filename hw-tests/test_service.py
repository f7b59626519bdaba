"""The shipped service on real devices: what it sees, records and survives. Needs root; `--service` says that it may."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import CameraMode, need
from installed import InstalledService, kept, spread, systemctl
from judge import assert_consecutive, read_chunk

Plug = Callable[[str, str], None]
CHUNK_S = 5


@pytest.fixture(scope="module")
def devices(request: pytest.FixtureRequest, camera: bool, microphone: str) -> tuple[str, str]:
    """(camera's id, microphone's id)"""
    need(request, "--service")
    if os.geteuid() != 0:
        pytest.fail("--service needs root")
    systemctl("stop", "msrecd")
    done = subprocess.run(["msrecd", "devices", "--json"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    cameras = [one["device_id"] for one in listed if one["kind"] == "videoinput"]
    microphones = [one["device_id"] for one in listed if one["kind"] == "audioinput" and microphone in one["label"]]
    assert cameras, listed
    assert microphones, listed
    return cameras[0], microphones[0]


def configuration(devices: tuple[str, str], mode: CameraMode, mime_type: str, *, autostart: bool = False) -> str:
    camera_id, microphone_id = devices
    return f"""
[[recorder]]
name = "cam0"
audio = {{ device_id = {{ exact = "{microphone_id}" }} }}
mime_type = {json.dumps(mime_type)}
timeslice = "1s"
chunk_duration = "{CHUNK_S}s"
autostart = {str(autostart).lower()}
[recorder.video]
device_id = {{ exact = "{camera_id}" }}
width = {mode.width}
height = {mode.height}
frame_rate = {{ ideal = {mode.frame_rate:g} }}
"""


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> str | None:
    folder = request.config.getoption("--keep")
    return None if folder is None else str(folder)


@pytest.fixture
def times(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--times"))


@pytest.fixture
def recovery_s(request: pytest.FixtureRequest) -> float:
    return float(request.config.getoption("--recovery"))


def judge_chunk(path: Path, *, is_whole: bool = True) -> dict[str, Any]:
    """Decode a chunk to its end; ffprobe has nothing to say; it has picture and sound, both without holes inside.

    is_whole: while a device is away a chunk may lack what the device gives.
    """
    done = subprocess.run(
        ["ffprobe", "-v", "warning", "-count_frames", "-show_entries", "stream=codec_name", "-of", "json", str(path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{path}: {done.stderr}"
    judged = read_chunk(path)
    # A track that has nothing for a whole chunk is there all the same, or the chunks could not be joined.
    is_empty_track = not judged.times and "Could not find codec parameters for stream" in done.stderr
    assert not done.stderr or (is_empty_track and not is_whole), f"{path}: {done.stderr}"
    sound = [] if judged.samples is None else judged.samples
    assert judged.times or (len(sound) and not is_whole), f"{path}: no picture"
    assert len(sound) or not is_whole, f"{path}: no sound"
    assert not judged.audio_gaps, f"{path}: holes in the sound: {judged.audio_gaps}"
    steps = [after - before for before, after in pairwise(judged.times)]
    assert min(steps, default=1.0) > 0, f"{path}: pictures at one time"
    return {
        "path": path,
        "numbers": judged.numbers,
        "frames": len(judged.times),
        "seconds": judged.times[-1] - judged.times[0] if judged.times else 0.0,
        "sound_s": len(sound) / (judged.sample_rate or 1),
        "longest_step_s": max(steps, default=0.0),
        "loudness": float(abs(sound).mean()) if len(sound) else 0.0,
    }


def resources(pid: int) -> dict[str, float]:
    """Seconds of CPU and MiB of memory that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    status = Path(f"/proc/{pid}/status").read_text()
    resident = re.search(r"VmRSS:\s+(\d+)", status)
    return {
        "cpu_s": ticks / os.sysconf("SC_CLK_TCK"),
        "rss_mib": round(int(resident[1]) / 1024, 1) if resident else 0.0,
    }


@pytest.mark.timeout(180)
def test_sandboxed_service_sees_the_devices(
    devices: tuple[str, str], camera_mode: CameraMode, mime_type: str, keep: str | None
) -> None:
    with (
        InstalledService(configuration(devices, camera_mode, mime_type)) as service,
        kept(service, keep, "devices") as figures,
    ):
        told = service.observer.wait_for(lambda m: m.topic.endswith("/state/devices") and len(m.json) > 1, 60).json
        by_id = {device["device_id"]: device for device in told}
        assert set(devices) <= set(by_id), told
        camera = by_id[devices[0]]
        assert camera["driver"] == "libcamera"
        assert camera["state"] == "free"
        assert by_id[devices[1]]["driver"] == "alsa"
        figures["devices"] = [(device["kind"], device["label"], device["detail"]) for device in told]
        unit = systemctl("show", "msrecd", "--property=User,NoNewPrivileges,ProtectSystem,PrivateUsers,WatchdogUSec")
        for line in (
            "User=msrecd",
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "PrivateUsers=yes",
            "WatchdogUSec=30s",
        ):
            assert line in unit.splitlines(), unit


@pytest.mark.timeout(300)
def test_records_chunks_under_mqtt_control(
    devices: tuple[str, str], camera_mode: CameraMode, mime_type: str, is_numbered: bool, keep: str | None
) -> None:
    record_chunks(configuration(devices, camera_mode, mime_type), camera_mode, is_numbered, keep, "chunks")


@pytest.mark.timeout(300)
def test_records_chunks_with_the_software_encoder(
    devices: tuple[str, str], camera_mode: CameraMode, mime_type: str, is_numbered: bool, plug: Plug, keep: str | None
) -> None:
    """As on a Pi 5: there is no /dev/video11, picamera2 encodes with libx264."""
    if not Path("/dev/video11").exists():
        pytest.skip("there is no other encoder: test_records_chunks_under_mqtt_control was this")
    try:
        plug("encoder", "out")
    except subprocess.CalledProcessError:
        pytest.skip("the command of --plug cannot take the encoder away")
    try:
        figures = record_chunks(
            configuration(devices, camera_mode, mime_type), camera_mode, is_numbered, keep, "chunks-software"
        )
        assert figures["encoder"] == ["software"], figures
    finally:
        plug("encoder", "in")


def record_chunks(
    config: str, camera_mode: CameraMode, is_numbered: bool, keep: str | None, name: str
) -> dict[str, Any]:
    """Start, three chunks, a split, stop, all over the broker; then judge what is on the disk. Returns the figures."""
    with InstalledService(config) as service, kept(service, keep, name) as figures:
        asked = time.monotonic()
        service.command("cam0", "start")
        figures["start_reply_s"] = round(time.monotonic() - asked, 2)
        state = service.wait_state("cam0", "recording", 60).json
        recording_id = state["recording_id"]
        figures["recordings"] = [recording_id]
        before, begun = resources(service.main_pid), time.monotonic()
        service.wait_events("cam0", "chunk", 3, 90)
        service.command("cam0", "split")
        service.wait_events("cam0", "chunk", 4, 60)
        after, elapsed = resources(service.main_pid), time.monotonic() - begun
        asked = time.monotonic()
        service.command("cam0", "stop")
        figures["stop_reply_s"] = round(time.monotonic() - asked, 2)
        service.wait_events("cam0", "stopped", 1, 60)
        last = service.state("cam0")
        figures["encoder"] = [
            device["detail"].get("encoder") for device in _devices(service) if "encoder" in device["detail"]
        ]
        figures["cpu_percent"] = round(100 * (after["cpu_s"] - before["cpu_s"]) / elapsed, 1)
        figures["rss_mib"] = after["rss_mib"]

        chunks = [judge_chunk(path) for path in service.chunks(recording_id)]
        lines = service.manifest(recording_id)
        assert [line["seq"] for line in lines] == list(range(1, len(chunks) + 1))
        figures["chunks"] = len(chunks)
        figures["frames"] = sum(chunk["frames"] for chunk in chunks)
        figures["frames_per_s"] = round(figures["frames"] / sum(line["duration_s"] for line in lines), 2)
        figures["longest_step_s"] = round(max(chunk["longest_step_s"] for chunk in chunks), 3)
        figures["dropped_frames"] = last["dropped_frames"]
        figures["xruns"] = sum(line["tracks"]["audio"]["xruns"] for line in lines)
        picture, sound = (sum(chunk[key] for chunk in chunks) for key in ("seconds", "sound_s"))
        figures["sound_minus_picture_s"] = round(sound - picture - len(chunks) / camera_mode.frame_rate, 3)
        assert len(chunks) >= 4
        assert all(chunk["loudness"] > 0.01 for chunk in chunks) or not is_numbered, "no sound in the sound"
        # Nothing is lost between the chunks: each begins where the one before ended, picture by picture.
        joints = [second["numbers"][0] - first["numbers"][-1] for first, second in pairwise(chunks)]
        figures["joints"] = joints if is_numbered else None
        if is_numbered and figures["encoder"] == ["software"]:  # the stand-in for the other shows key frames only
            numbers = [number for chunk in chunks for number in chunk["numbers"]]
            figures["missing_frames"] = numbers[-1] - numbers[0] + 1 - len(numbers)
            if not last["dropped_frames"]:
                assert_consecutive(numbers)
            # An emulated camera that was late makes up for it: nothing is missing then, but its times had a hole.
            late = round(figures["longest_step_s"] * camera_mode.frame_rate)
            least, most = figures["missing_frames"] * 0.9 - 1, figures["missing_frames"] * 1.1 + 1 + late
            assert least <= last["dropped_frames"] <= most
        assert sum(line["tracks"]["video"]["frames"] for line in lines) == figures["frames"]
        # A machine may be too slow for the encoder; what it cannot do is counted.
        wanted = camera_mode.frame_rate * sum(line["duration_s"] for line in lines)
        assert figures["frames"] + figures["dropped_frames"] >= 0.9 * wanted
        # Frames that are lost where two chunks meet are in neither of their lengths; they are counted.
        lost_s = last["dropped_frames"] / camera_mode.frame_rate
        assert -0.2 < figures["sound_minus_picture_s"] < 0.2 + lost_s
        service.verify()
        return figures


def _devices(service: InstalledService) -> list[dict[str, Any]]:
    told = [m.json for m in service.observer.messages if m.topic.endswith("/state/devices") and m.payload]
    return list(told[-1])


@pytest.mark.parametrize("device", ["camera", "microphone"])
@pytest.mark.timeout(0)
def test_device_goes_and_comes_back(
    device: str,
    devices: tuple[str, str],
    camera_mode: CameraMode,
    mime_type: str,
    plug: Plug,
    times: int,
    recovery_s: float,
    keep: str | None,
) -> None:
    with (
        InstalledService(configuration(devices, camera_mode, mime_type)) as service,
        kept(service, keep, f"unplug-{device}") as figures,
    ):
        service.command("cam0", "start")
        recording_id = service.wait_state("cam0", "recording", 60).json["recording_id"]
        figures["recordings"] = [recording_id]
        noticed, recovered = figures.setdefault("noticed_s", []), figures.setdefault("recovered_s", [])
        device_id = devices[0 if device == "camera" else 1]
        is_out = False
        try:
            for _ in range(times):
                time.sleep(2.5)  # something to record between two faults
                out = time.monotonic()
                plug(device, "out")
                is_out = True
                error = service.wait_missing("cam0", 40, after=out)
                noticed.append(round(error.at - out, 2))
                time.sleep(1.0)
                back = time.monotonic()
                plug(device, "in")
                is_out = False
                returned = time.monotonic()
                told = service.wait_whole("cam0", 60, after=back)
                assert told.json["recording_id"] == recording_id, "another recording began"
                recovered.append(round(told.at - returned, 2))
        finally:
            if is_out:
                plug(device, "in")
        time.sleep(2.5)
        service.command("cam0", "stop")
        service.wait_events("cam0", "stopped", 1, 60)
        chunks = [judge_chunk(path, is_whole=False) for path in service.chunks(recording_id)]
        gaps = [event.json for event in service.events("cam0", "gap")]
        figures["noticed"], figures["recovered"] = spread(noticed), spread(recovered)
        figures["chunks"] = len(chunks)
        figures["gaps"] = [(gap.get("reason"), gap.get("duration_s")) for gap in gaps]
        figures["device"] = device_id
        lines = service.manifest(recording_id)
        assert [line["seq"] for line in lines] == list(range(1, len(chunks) + 1))
        assert len(chunks) >= times + 1, "each return begins a chunk"
        assert len(gaps) >= times, figures["gaps"]
        assert all(gap["duration_s"] > 0 for gap in gaps), figures["gaps"]
        assert max(recovered) <= recovery_s, recovered
        service.verify()


@pytest.mark.timeout(300)
def test_frozen_service_is_restarted_by_the_watchdog(
    devices: tuple[str, str], camera_mode: CameraMode, mime_type: str, keep: str | None
) -> None:
    with (
        InstalledService(configuration(devices, camera_mode, mime_type, autostart=True)) as service,
        kept(service, keep, "watchdog") as figures,
    ):
        first = service.wait_state("cam0", "recording", 60).json["recording_id"]
        service.wait_events("cam0", "chunk", 1, 60)
        time.sleep(2)
        pid = service.main_pid
        frozen = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        # 30 s until the watchdog, some for the core that is not written, 5 s until the restart
        told = service.observer.wait_for(
            lambda m: (
                m.at > frozen
                and m.topic.endswith("/state/recorder/cam0")
                and m.json["state"] == "recording"
                and m.json["recording_id"] != first
            ),
            150,
        )
        figures["recording_again_s"] = round(told.at - frozen, 1)
        assert service.main_pid != pid
        assert int(systemctl("show", "--property=NRestarts", "--value", "msrecd")) >= 1
        journal = subprocess.run(
            ["journalctl", "-u", "msrecd", "--no-pager", "-o", "cat", "--since", service.started],
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout
        assert "Watchdog timeout" in journal, journal[-1000:]
        second = told.json["recording_id"]
        figures["recordings"] = [first, second]
        service.wait_events("cam0", "chunk", 1, 60, after=told.at)
        service.command("cam0", "stop")
        service.wait_state("cam0", "inactive", 60, after=told.at)
        chunks = [judge_chunk(path) for each in (first, second) for path in service.chunks(each)]
        figures["chunks"] = len(chunks)
        figures["recovered"] = [line["file"] for line in service.manifest(first) if line["recovered"]]
        assert figures["recovered"], "the open chunk of the frozen process is lost"
        service.verify()


@pytest.mark.timeout(180)
def test_stop_finishes_the_files(
    devices: tuple[str, str], camera_mode: CameraMode, mime_type: str, keep: str | None
) -> None:
    with (
        InstalledService(configuration(devices, camera_mode, mime_type, autostart=True)) as service,
        kept(service, keep, "stop") as figures,
    ):
        recording_id = service.wait_state("cam0", "recording", 60).json["recording_id"]
        figures["recordings"] = [recording_id]
        service.wait_events("cam0", "chunk", 1, 60)
        time.sleep(2)
        asked = time.monotonic()
        systemctl("stop", "msrecd")
        figures["stop_s"] = round(time.monotonic() - asked, 2)
        result = systemctl("show", "--property=Result,ExecMainStatus", "msrecd")
        assert "Result=success" in result.splitlines(), result
        assert figures["stop_s"] < 25
        lines = service.manifest(recording_id)
        figures["chunks"] = [judge_chunk(path)["frames"] for path in service.chunks(recording_id)]
        assert lines[-1]["final"] is True, json.dumps(lines[-1])
        offline = [m.payload for m in service.observer.messages if m.topic.endswith("/availability")]
        assert offline[-1] == b"offline"
