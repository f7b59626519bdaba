"""`msrecd look`: through the daemon's local socket, and without a daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from config_text import camera, configuration, microphone
from daemon import DaemonProcess

from msrecd.local.client import LocalDaemon

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
        link = tmp_path / "link.toml"
        link.symlink_to(daemon.config)
        with LocalDaemon(daemon.runtime / "control.sock") as its:
            assert its.has_config(daemon.config)
            assert its.has_config(link), "however the path is written"
            assert its.has_config(tmp_path / ".." / tmp_path.name / daemon.config.name)
            assert not its.has_config(tmp_path / "another.toml")
        daemon.stop()
        assert_right(daemon.config, daemon.runtime, tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.promise("socket-is-refused")
def test_who_may_not_ask_the_daemon_is_told_and_no_device_is_opened(tmp_path: Path) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="msrecd-look-") as name,
        DaemonProcess(Path(name), configuration(Path(name), port=None, recorders=microphone(), more=VIRTUAL)) as daemon,
    ):
        Path(name).chmod(0o755)
        daemon.config.chmod(0o644)
        for command in (["look", "mic0"], ["ctl", "mic0", "get"]):
            done = subprocess.run(
                [sys.executable, "-m", "msrecd", "--config", daemon.config, *command],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
                user=65534,
                group=65534,
                extra_groups=[],
                cwd="/",
                env=os.environ | {"RUNTIME_DIRECTORY": str(daemon.runtime)},
            )
            assert (done.returncode, done.stdout) == (3, ""), done.stderr
            assert "be root, or a member of the group msrecd" in done.stderr
