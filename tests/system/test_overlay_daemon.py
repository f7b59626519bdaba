"""The overlay of a running daemon: what stands in the frames of its files."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from config_text import camera, configuration, recorder
from console import Console
from daemon import DaemonFor
from overlay_reader import read_overlay

from msrecd.cli.main import main
from msrecd.clock.wall import WallTime
from msrecd.daemon.overlays import text_of


@pytest.mark.promise("overlay")
@pytest.mark.effect("config: recorder.overlay.text", "config: recorder.overlay.position")
def test_each_frame_has_its_own_time(daemon_for: DaemonFor) -> None:
    text = "{recorder} {boot} {date} {time}"
    made = camera(
        video={"width": 640, "height": 360, "frame_rate": 30},
        overlay={"text": text, "position": "top-right"},
        video_bits_per_second=4_000_000,
        autostart=True,
    )
    with daemon_for(made) as daemon:
        (first, *_) = daemon.wait_for_chunks(1)
    shown = "CAM0 BOOT0001 BOOT0001 "
    with av.open(str(first)) as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    texts = [read_overlay(luma, len(shown) + 11, position="top-right") for luma in frames]
    assert all(line.startswith(shown) for line in texts), texts[:3]
    times = [line.removeprefix(shown) for line in texts]
    assert all(time.startswith("+") for time in times), "an untrusted clock shows no date"
    assert times == sorted(times)
    # The lower half of the virtual camera's frames is white in the first tenth of each second of the same clock.
    flashes = [time for time, luma in zip(times, frames, strict=True) if luma[250:300, 100:500].mean() > 200]
    assert flashes
    assert {time[-2:] for time in flashes} <= {".0"}, flashes


def test_a_trusted_clock_shows_date_and_time(tmp_path: Path) -> None:
    walltime = WallTime(tmp_path, trusted=True)
    text = text_of("{date} {time}", "pi", "cam0", walltime)(walltime.stamp().monotonic_ns)
    assert text.startswith("20")
    assert len(text) == len("2026-11-30 14:03:07.2")


def test_check_config_refuses_what_passes_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "msrecd.toml"
    network = recorder("cam0", source={"url": "rtsp://127.0.0.1:9/main"}, overlay={"text": "{tim}"})
    path.write_text(configuration(tmp_path, port=None, recorders=network))
    assert main(["check-config", "--config", str(path)]) == 2
    output = capsys.readouterr()
    said = output.out + output.err
    assert "recorder[0].overlay: the video of a network stream passes through" in said
    assert "recorder[0].overlay.text" in said


def test_check_config_refuses_a_text_that_draws_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "msrecd.toml"
    path.write_text(configuration(tmp_path, port=None, recorders=camera(overlay={"text": "  "})))
    assert main(["check-config", "--config", str(path)]) == 2
    output = capsys.readouterr()
    assert "recorder[0].overlay.text: is blank" in output.out + output.err


def test_start_refuses_what_passes_through(daemon_for: DaemonFor, console: Console) -> None:
    with daemon_for(camera("made", chunk_duration="1s", autostart=True)) as daemon:
        (file, *_) = daemon.wait_for_chunks(1, recorder="made")
    with daemon_for(recorder("played", source={"url": str(file)}, overlay={"text": "{time}"})):
        console.wait("availability", lambda said: said == "online")
        reply = console.command("recorder/played/start")
        assert reply["error"]["code"] == "bad_args", reply
        assert "overlay: " in reply["error"]["message"]
