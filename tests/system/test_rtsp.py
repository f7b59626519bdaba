"""A network camera: RTSP, whose H.264 passes through untouched. Needs GStreamer's RTSP server for the camera's part."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from config_text import recorder
from console import Console
from daemon import DaemonFor
from gstcamera import gst_camera, require_gst_camera
from ports import free_port

LENGTH_S = 40


def hashes(path: Path) -> list[str]:
    """sha256 of each encoded picture, without the parameter sets that the camera repeats."""
    listed = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:v", "-c", "copy", "-bsf:v", "filter_units=pass_types=1-5",
         "-f", "framehash", "-hash", "sha256", "-"], capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [line.rsplit(",", 1)[1].strip() for line in listed.splitlines() if not line.startswith("#")]


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The URL of a camera, and the file it plays."""
    require_gst_camera()
    media = tmp_path / "camera.mp4"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"testsrc2=size=320x240:rate=25:duration={LENGTH_S}", "-c:v",
         "libx264", "-preset", "ultrafast", "-g", "25", "-bf", "0", "-pix_fmt", "yuv420p", str(media)],
        check=True, timeout=120,
    )  # fmt: skip
    port = free_port()
    with gst_camera(media, port):
        yield f"rtsp://127.0.0.1:{port}/camera", media


@pytest.mark.timeout(300)
@pytest.mark.promise("passing-through-is-not-decoded")
def test_the_pictures_of_a_network_camera_are_recorded_as_they_come(
    daemon_for: DaemonFor, console: Console, camera: tuple[str, Path]
) -> None:
    url, media = camera
    with daemon_for(recorder("cam0", source={"url": url}, chunk_duration="3s")) as daemon:
        console.wait("availability")
        assert console.command("recorder/cam0/start")["status"] == "ok"
        daemon.wait_for_chunks(3)
        assert console.command("recorder/cam0/stop")["status"] == "ok"
    sent = hashes(media)
    recorded = [digest for path in daemon.chunks() for digest in hashes(path)]
    assert len(recorded) > 150
    first = sent.index(recorded[0])
    assert recorded == sent[first : first + len(recorded)]
