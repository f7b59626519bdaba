"""`msrecd look`: through the daemon's local socket, and without a daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from config_text import camera, configuration, microphone
from daemon import DaemonProcess

VIRTUAL = """
[devices]
virtual = [
  { kind = "camera", label = "Test Camera", modes = [[320, 240, 30]] },
  { kind = "microphone", label = "Test Microphone", signal = "tone" },
]
"""


def look(config: Path, runtime: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "msrecd", "look", "--config", config, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"RUNTIME_DIRECTORY": str(runtime)},
    )


def assert_right(config: Path, runtime: Path, folder: Path) -> None:
    photo = folder / "photo.jpg"
    done = look(config, runtime, "--json", "-o", str(photo), "cam0")
    assert done.returncode == 0, done.stderr
    assert photo.read_bytes().startswith(b"\xff\xd8")
    found = json.loads(done.stdout)
    assert found["recorder"] == "cam0"
    video, audio = sorted(found["tracks"], key=lambda track: str(track["kind"]), reverse=True)
    assert (video["label"], audio["label"]) == ("Test Camera", "Test Microphone")
    assert video["asked"] == {"width": 320, "height": 240, "frame_rate": 25}
    assert (video["settings"]["width"], video["settings"]["height"]) == (320, 240)
    assert video["device_id"]
    assert audio["level"]["peak"] == pytest.approx([-6.0, -6.0], abs=0.1)
    assert audio["level"]["rms"] == pytest.approx([-9.0, -9.0], abs=0.2)


@pytest.mark.promise("look")
def test_a_recorder_of_the_running_daemon_and_without_one(tmp_path: Path) -> None:
    text = configuration(tmp_path, port=None, recorders=camera(audio=True, frame_rate=25) + microphone(), more=VIRTUAL)
    with DaemonProcess(tmp_path, text) as daemon:
        assert_right(daemon.config, daemon.runtime, tmp_path)
        done = look(daemon.config, daemon.runtime, "mic0")
        assert done.returncode == 0
        assert "audio: Test Microphone" in done.stdout
        assert "peak" in done.stdout
        refused = look(daemon.config, daemon.runtime, "-o", str(tmp_path / "x.jpg"), "mic0")
        assert (refused.returncode, refused.stderr) == (1, "msrecd: bad_args: mic0 has no video\n")
        assert not (tmp_path / "x.jpg").exists()
        assert look(daemon.config, daemon.runtime, "nothing").returncode == 2
        daemon.stop()
        assert_right(daemon.config, daemon.runtime, tmp_path)
