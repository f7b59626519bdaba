"""The backend over the real picamera2, with a stand-in for libcamera below it: what the fake claims holds there, too.

Each test is a process of its own, for there is one libcamera a process. `scripts/setup.sh --tests` installs picamera2.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PICAMERA2 = ROOT / ".cache" / "picamera2"
pytestmark = pytest.mark.skipif(not PICAMERA2.is_dir(), reason="scripts/setup.sh --tests installs picamera2 for this")

PRELUDE = """
import json, os, sys, threading, time
from pathlib import Path
import libcamera_stub as stub
stub.install()
from msrecd.devices.base import CameraProperties
from msrecd.devices.picamera.backend import PicameraBackend
from msrecd.dom.exceptions import DOMException

machine = stub.machine
folder = Path(sys.argv[1])

def backend(**options):
    return PicameraBackend(encoder_node=folder / "none", tuning_folders=[folder], **options)

def say(**found):
    print(json.dumps(found))

def sent():
    merged = {}
    for controls in machine.started:
        merged |= {name: [getattr(value, n) for n in value.names] if hasattr(value, "names") else value
                   for name, value in controls.items() if not isinstance(value, list)}
    return merged
"""


def run(code: str, folder: Path, **environment: str) -> Any:
    paths = [str(ROOT), str(ROOT / "tests/support"), str(PICAMERA2)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment}
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(code), str(folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_controls_are_those_of_the_sensor_and_frames_come(tmp_path: Path) -> None:
    found = run(
        """
        machine.fps = 30
        one = backend()
        (device,) = one.describe()
        settings = {"width": 2028, "height": 1520, "exposure_time": 5000, "iso": 2000, "zoom": 4.0, "frame_rate": 30}
        source = one.open(device, settings)
        came = threading.Semaphore(0)
        class Sink:
            def put(self, frame): self.frame = frame; came.release()
            def end(self, error): pass
        sink = Sink()
        source.raw().add(sink)
        frames = sum(came.acquire(timeout=20) for _ in range(5))
        source.close()
        one.close()
        say(sent=sent(), frames=frames, bytes=len(sink.frame.data), label=device.label, rate=source.format.frame_rate)
        """,
        tmp_path,
    )
    assert (found["label"], found["frames"], found["bytes"]) == ("imx477", 5, 2028 * 1520 * 3 // 2)
    assert (found["sent"]["ExposureTime"], found["sent"]["AnalogueGain"]) == (500_000, 20.0)
    assert found["sent"]["ScalerCrop"][2:] == [1014, 760]
    assert found["rate"] == pytest.approx(2, rel=0.01)


def test_a_camera_that_refuses_leaks_nothing(tmp_path: Path) -> None:
    found = run(
        """
        one = backend()
        (device,) = one.describe()
        machine.refuse = "failed to acquire camera: Device or resource busy"
        def fds(): return len(os.listdir("/proc/self/fd"))
        def attempt():
            try: one.open(device, {})
            except DOMException as exc: return exc.message
        message = attempt()
        before, threads = fds(), threading.active_count()
        for _ in range(15): attempt()
        deadline = time.monotonic() + 20
        while (fds() > before or threading.active_count() > threads) and time.monotonic() < deadline: time.sleep(0.05)
        say(message=message, grown=fds() - before, threads=threading.active_count() - threads)
        """,
        tmp_path,
    )
    assert "Device or resource busy" in found["message"]
    assert found["grown"] <= 0
    assert found["threads"] <= 0


def test_looking_into_a_camera_allocates_nothing_and_a_refusal_is_explained(tmp_path: Path) -> None:
    found = run(
        """
        machine.memory = 1 << 20
        one = backend()
        (device,) = one.describe()
        modes = [(mode.width, mode.height) for mode in device.video_modes]
        try: one.open(device, {"width": 1920, "height": 1080})
        except DOMException as exc: say(detail=dict(device.detail), modes=modes, message=exc.message)
        """,
        tmp_path,
    )
    assert "error" not in found["detail"]
    assert [4056, 3040] in found["modes"]
    assert "no_memory: " in found["message"]


def test_the_tuning_file_is_there_when_libcamera_looks_for_it(tmp_path: Path) -> None:
    """Neither the listing before, nor picamera2, which deletes the variable of its own, comes in the way."""
    (tmp_path / "imx477_noir.json").write_text("{}")
    found = run(
        """
        one = backend(cameras=[CameraProperties(label="imx477", tuning_file="imx477_noir.json")])
        (device,) = one.describe()
        source = one.open(device, {"width": 1280, "height": 720})
        source.close()
        say(tunings=machine.tunings)
        """,
        tmp_path,
    )
    assert found["tunings"][0] == "its own"
    assert len(found["tunings"]) > 1
    assert set(found["tunings"][1:]) == {str(tmp_path / "imx477_noir.json")}
