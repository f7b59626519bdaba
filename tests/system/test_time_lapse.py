"""Time-lapse in a running daemon: one frame a second, played at 25 a second."""

from __future__ import annotations

import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median

import judge
import pytest
from config_text import camera, configuration, recorder
from console import Console
from daemon import DaemonFor
from waiting import until

from msrecd.cli.main import main
from msrecd.storage import fragments

RATE = 25
LAPSE = {"interval": "1s", "frame_rate": RATE}


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _state_of_camera(console: Console) -> object:
    devices = console.command("daemon/devices")["data"]["devices"]
    return next(device["state"] for device in devices if device["kind"] == "videoinput")


@pytest.mark.promise("camera-rests")
@pytest.mark.effect("config: recorder.time_lapse.closes_camera")
def test_the_camera_is_free_between_the_frames(daemon_for: DaemonFor, console: Console) -> None:
    """Two frames, 15 s from each other; no restart, no loss, and meanwhile the device is no busy one."""
    lapse = {"interval": "15s", "frame_rate": RATE, "closes_camera": True}
    with daemon_for(camera(time_lapse=lapse, chunk_duration="1h", autostart=True)) as daemon:
        state = console.wait_state("recording")
        assert state["tracks"][0]["label"] == "Test Camera"
        for word in ("free", "busy", "free"):
            until(lambda word=word: _state_of_camera(console) == word, lambda: daemon.log.read_text())  # type: ignore[misc]
        console.command("recorder/cam0/stop")
        (line,) = [daemon.chunk_lines()[0] for _ in daemon.wait_for_chunks(1)]
        assert "restart" not in daemon.log.read_text()
    chunk = judge.read_chunk(daemon.recordings / line["file"])
    assert len(chunk.numbers) == line["tracks"]["video"]["frames"] == 2
    assert 15 <= line["time_lapse"]["captured_s"] <= 31
    assert (line["gaps"], line["lost_s"], line["tracks"]["video"]["dropped"]) == ([], 0, 0)


@pytest.mark.promise("time-lapse", "recipe-lapse")
@pytest.mark.effect("config: recorder.time_lapse.interval", "config: recorder.time_lapse.frame_rate")
@pytest.mark.effect("manifest-line: time_lapse", "manifest-line: interval_s", "manifest-line: frame_rate")
@pytest.mark.effect("manifest-line: captured_s")
@pytest.mark.parametrize("mime_type", ["video/mp4", "video/webm"])
def test_one_frame_a_second(daemon_for: DaemonFor, mime_type: str) -> None:
    with daemon_for(camera(mime_type=mime_type, time_lapse=LAPSE, chunk_duration="3s", autostart=True)) as daemon:
        daemon.wait_for_chunks(2)
    over = time.time()
    log = daemon.log.read_text()
    lines = daemon.chunk_lines()
    chunks = [judge.read_chunk(daemon.recordings / line["file"]) for line in lines]
    for line, chunk in zip(lines, chunks, strict=True):
        frames = line["tracks"]["video"]["frames"]
        assert len(chunk.numbers) == frames
        assert chunk.times == pytest.approx([number / RATE for number in range(frames)], abs=0.001)
        assert line["duration_s"] == pytest.approx(frames / RATE, abs=1e-5)
        lapse = line["time_lapse"]
        assert (lapse["interval_s"], lapse["frame_rate"]) == (1, RATE)
        assert lapse["captured_s"] == pytest.approx(seconds(line["ended"]) - seconds(line["started"]), abs=0.01)
        assert (line["gaps"], line["lost_s"], line["tracks"]["video"]["dropped"]) == ([], 0, 0)
        assert seconds(line["ended"]) <= over
    assert all(line["time_lapse"]["captured_s"] > 2.9 for line in lines[:2]), "cut by the time of capture"
    numbers = [number for chunk in chunks for number in chunk.numbers]
    steps = [after - before for before, after in pairwise(numbers)]  # of a camera of 30 frames a second
    assert median(steps) == 30, numbers
    assert "restart" not in log


def test_the_manifest_of_a_killed_one_has_both_times(daemon_for: DaemonFor) -> None:
    """The last frames may be missing; what is there took a second each."""
    with daemon_for(camera(time_lapse=LAPSE, chunk_duration="1h", autostart=True)) as daemon:
        daemon.wait_for_part()
        (part,) = daemon.parts()
        until(lambda: _frames(part) >= 2, lambda: daemon.log.read_text())
        daemon.kill()
        daemon.start()
        daemon.wait_for_chunks(1)
        line = daemon.chunk_lines()[0]
    frames = line["tracks"]["video"]["frames"]
    assert line["recovered"]
    assert line["duration_s"] == pytest.approx(frames / RATE, abs=0.001)
    assert line["time_lapse"] == {"interval_s": 1, "frame_rate": RATE, "captured_s": pytest.approx(frames, abs=0.01)}
    assert seconds(line["ended"]) - seconds(line["started"]) == pytest.approx(frames, abs=0.01)


def _frames(part: Path) -> int:
    with part.open("rb") as file:
        video = fragments.scan(file, part.stat().st_size, "mp4").tracks.get("video")
    return 0 if video is None else video.units


REFUSED = {
    "audio": (camera(audio=True, time_lapse=LAPSE), "recorder[0].time_lapse: has no sound"),
    "source": (
        recorder("cam0", source={"url": "rtsp://127.0.0.1:9/main"}, time_lapse=LAPSE),
        "recorder[0].time_lapse: is for cameras",
    ),
    "pre-roll": (
        camera(pre_roll="5s", time_lapse=LAPSE),
        "recorder[0].time_lapse: cannot stand together with pre_roll",
    ),
    "too short": (camera(time_lapse={"interval": "500ms"}), "recorder[0].time_lapse.interval"),
    "longer than a chunk": (camera(time_lapse={"interval": "1m"}), "recorder[0].time_lapse.interval: is longer than"),
    "sound alone": (recorder("mic0", audio=True, time_lapse=LAPSE), "recorder[0].time_lapse: has no sound"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_check_config_refuses(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, said = REFUSED[case]
    path = tmp_path / "msrecd.toml"
    path.write_text(configuration(tmp_path, port=None, recorders=text))
    assert main(["check-config", "--config", str(path)]) == 2
    output = capsys.readouterr()
    lines = [line for line in (output.out + output.err).splitlines() if "time_lapse" in line]
    assert len(lines) == 1, lines
    assert said in lines[0]
