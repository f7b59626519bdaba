"""Options of the tests on real devices, and the skips that name them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hardware")
    group.addoption("--camera", action="store_true", help="there is a camera")
    group.addoption("--alsa", metavar="NAME", help='there is a microphone: part of its label, or "any"')
    group.addoption("--camera-mode", metavar="WxH@FPS", default="1280x720@30", help="what the camera is asked for")
    group.addoption("--mime-type", metavar="TYPE", default="video/mp4", help="what picture and sound are recorded as")
    group.addoption("--numbered", action="store_true", help="the camera numbers its pictures (the virtual machine's)")
    group.addoption("--service", action="store_true", help="msrecd and a broker are installed; root: may restart them")
    group.addoption(
        "--plug",
        metavar="COMMAND",
        help="takes devices away and gives them back: COMMAND camera|microphone out|in",
    )
    group.addoption("--times", type=int, default=5, help="how often devices are unplugged and the like")
    group.addoption("--recovery", type=float, default=5.0, help="seconds from a device's return to the recording's")
    group.addoption("--keep", metavar="FOLDER", help="where to put recordings, logs and figures of the service's tests")
    group.addoption("--minutes", type=float, default=0.0, help="length of the long recording")
    group.addoption("--require-hw", action="store_true", help="a skipped test is a failure")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure goes to the kept results at once: a machine may not live to the end of the run."""
    report = yield
    folder = item.config.getoption("--keep")
    if folder is not None and report.failed:
        with (Path(str(folder)) / "failures.txt").open("a") as file:
            file.write(f"{item.nodeid} ({report.when})\n{report.longreprtext}\n\n")
    return report


def need(request: pytest.FixtureRequest, option: str) -> object:
    """The value of an option; without it the test is skipped, or fails under --require-hw."""
    value: object = request.config.getoption(option)
    if not value:
        message = f"needs {option}"
        if request.config.getoption("--require-hw"):
            pytest.fail(message)
        pytest.skip(message)
    return value


def pytest_configure(config: pytest.Config) -> None:
    # Warnings are errors here, but not those of libraries that come with the device.
    config.addinivalue_line("filterwarnings", r"ignore::DeprecationWarning:picamera2\..*")


def pytest_report_header() -> list[str]:
    """What `msrecd doctor` says of the board comes first: a test that fails for what stands there is no riddle."""
    command = [sys.executable, "-m", "msrecd", "doctor"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return ["msrecd doctor: no answer within 60 s"]
    return ["msrecd doctor:", *(done.stdout + done.stderr).splitlines()]


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraMode:
    """What the camera is asked for."""

    width: int
    height: int
    frame_rate: float


@pytest.fixture(scope="session")
def camera_mode(request: pytest.FixtureRequest) -> CameraMode:
    text = str(request.config.getoption("--camera-mode"))
    size, _, rate = text.partition("@")
    width, _, height = size.partition("x")
    return CameraMode(width=int(width), height=int(height), frame_rate=float(rate or 30))


@pytest.fixture(scope="session")
def mime_type(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("--mime-type"))


@pytest.fixture(scope="session")
def plug(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """plug("camera", "out") and the like; returns when the command has."""
    command = shlex.split(str(need(request, "--plug")))

    def run(device: str, what: str) -> None:
        subprocess.run([*command, device, what], check=True, timeout=60)

    return run


@pytest.fixture(scope="session")
def camera(request: pytest.FixtureRequest) -> bool:
    """True: there is a camera."""
    return bool(need(request, "--camera"))


@pytest.fixture(scope="session")
def is_numbered(request: pytest.FixtureRequest) -> bool:
    """True: the camera is the virtual machine's."""
    return bool(request.config.getoption("--numbered"))


@pytest.fixture(scope="session")
def microphone(request: pytest.FixtureRequest) -> str:
    """Part of the label of the microphone to use; empty for any."""
    name = str(need(request, "--alsa"))
    return "" if name == "any" else name


@pytest.fixture
def minutes(request: pytest.FixtureRequest) -> float:
    value = need(request, "--minutes")
    assert isinstance(value, float)
    return value
