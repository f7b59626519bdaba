"""The board out of its device tree, and picamera2 that is imported before the board's drivers are there."""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from msrecd import devices
from msrecd.devices import board as board_module
from msrecd.devices.board import Board, has_pisp, read_board
from msrecd.devices.picamera.guard import WrongPlatform, check_platform, wait_for_pisp

# model and compatible of the device trees in arch/arm64/boot/dts/broadcom/ of raspberrypi/linux
TREES = {
    "Zero 2 W": ("Raspberry Pi Zero 2 W Rev 1.0", "raspberrypi,model-zero-2-w", "brcm,bcm2837"),
    "3": ("Raspberry Pi 3 Model B Plus Rev 1.3", "raspberrypi,3-model-b-plus", "brcm,bcm2837"),
    "4": ("Raspberry Pi 4 Model B Rev 1.5", "raspberrypi,4-model-b", "brcm,bcm2711"),
    "5": ("Raspberry Pi 5 Model B Rev 1.0", "raspberrypi,5-model-b", "brcm,bcm2712"),
    "Compute Module 5": ("Raspberry Pi Compute Module 5 Rev 1.0", "raspberrypi,5-compute-module", "brcm,bcm2712"),
}
PI_5 = Board(name="Raspberry Pi 5 Model B Rev 1.0", soc="bcm2712")
PI_4 = Board(name="Raspberry Pi 4 Model B Rev 1.5", soc="bcm2711")


def plant(root: Path, name: str) -> Board:
    model, *compatible = TREES[name]
    folder = root / "proc/device-tree"
    folder.mkdir(parents=True)
    (folder / "model").write_bytes(model.encode() + b"\0")
    (folder / "compatible").write_bytes(b"".join(entry.encode() + b"\0" for entry in compatible))
    return read_board(root)


@pytest.mark.parametrize(
    ("name", "platform", "has_encoder"),
    [
        *[(name, "vc4", True) for name in ("Zero 2 W", "3", "4")],
        *[(name, "pisp", False) for name in ("5", "Compute Module 5")],
    ],
)
def test_boards(tmp_path: Path, name: str, platform: str, has_encoder: bool) -> None:
    board = plant(tmp_path, name)
    assert board.is_pi
    assert board.name == TREES[name][0]
    assert (board.platform, board.has_encoder) == (platform, has_encoder)


def test_a_machine_without_a_device_tree(tmp_path: Path) -> None:
    board = read_board(tmp_path)
    assert (board.is_pi, board.platform, board.has_encoder) == (False, "", False)


@pytest.mark.promise("pi5-is-waited-for")
def test_the_image_processor_of_a_pi_5_is_waited_for(tmp_path: Path) -> None:
    node = tmp_path / "sys/class/video4linux/video20/name"
    assert not has_pisp(tmp_path)

    def load_driver() -> None:
        node.parent.mkdir(parents=True)
        node.write_text("pispbe-input\n")

    timer = threading.Timer(0.3, load_driver)
    timer.start()
    wait_for_pisp(PI_5, has_pisp=lambda: has_pisp(tmp_path), timeout_s=30)
    assert has_pisp(tmp_path)
    timer.join()
    wait_for_pisp(PI_4, has_pisp=lambda: pytest.fail("not on this board"))
    wait_for_pisp(PI_5, has_pisp=lambda: False, timeout_s=0.2)  # not for ever


@pytest.mark.promise("pi5-is-waited-for")
def test_picamera2_that_takes_the_board_for_another_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else libcamera reads the other board's configuration file, and registers no camera until the process ends."""
    monkeypatch.setitem(sys.modules, "picamera2", SimpleNamespace())  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "picamera2.platform", SimpleNamespace())  # type: ignore[arg-type]
    monkeypatch.setenv("LIBCAMERA_RPI_CONFIG_FILE", "/usr/share/libcamera/pipeline/rpi/vc4/rpi_apps.yaml")
    check_platform("VC4", PI_4)
    check_platform("VC4", Board())  # no Pi: whatever it says
    assert "picamera2.platform" in sys.modules
    with pytest.raises(WrongPlatform, match=r"takes this Raspberry Pi 5 Model B Rev 1\.0 for a VC4"):
        check_platform("VC4", PI_5)
    assert not {"picamera2", "picamera2.platform"} & sys.modules.keys()
    assert "LIBCAMERA_RPI_CONFIG_FILE" not in os.environ
    monkeypatch.setenv("LIBCAMERA_RPI_CONFIG_FILE", "/etc/own.yaml")
    with pytest.raises(WrongPlatform):
        check_platform("VC4", PI_5)
    assert os.environ["LIBCAMERA_RPI_CONFIG_FILE"] == "/etc/own.yaml"  # set by a person


class Early:
    """In place of the module that imports picamera2: too early `failures` times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
        self.left = failures
        real = importlib.import_module

        def import_module(name: str) -> Any:
            if name != "msrecd.devices.picamera.backend":
                return real(name)
            if self.left:
                self.left -= 1
                raise WrongPlatform("picamera2 takes this Raspberry Pi 5 for a VC4")
            return SimpleNamespace(PicameraBackend=lambda **options: SimpleNamespace(**self.backend))

        self.backend: dict[str, Any] = {"name": "libcamera", "describe": lambda: ["a camera"], "close": lambda: None}
        monkeypatch.setattr(importlib, "import_module", import_module)
        monkeypatch.setitem(sys.modules, "picamera2", SimpleNamespace())  # type: ignore[arg-type]
        monkeypatch.setattr(devices, "_TRY_AGAIN_S", 0.0)


def cameras() -> list[Any]:
    (backend,) = (backend for backend in devices.default_backends() if backend.name == "libcamera")
    return backend.describe()


@pytest.mark.parametrize("failures", [0, 2])
def test_the_import_is_tried_again(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_module, "has_pisp", lambda: True)
    Early(monkeypatch, failures)
    assert cameras() == ["a camera"]


@pytest.mark.promise("pi5-is-waited-for")
def test_an_image_processor_that_comes_minutes_later_needs_no_restart(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A recorder that waits for its camera looks again every few seconds, and udev tells when the nodes are there."""
    is_there = False
    monkeypatch.setattr(board_module, "has_pisp", lambda: is_there)
    early = Early(monkeypatch, 2)
    (backend,) = (backend for backend in devices.default_backends() if backend.name == "libcamera")
    assert early.left == 1, "without an image processor nothing is gained by trying again, for ten seconds each time"
    assert "its cameras come as soon as they are" in caplog.text
    assert backend.describe() == []
    assert early.left == 1, "it was imported without an image processor"
    is_there = True
    assert backend.describe() == []  # one of several nodes; picamera2 still takes it for the other board
    assert early.left == 0
    assert backend.describe() == ["a camera"]
    backend.close()


@pytest.mark.parametrize(
    ("module", "advice"),
    [
        ("libcamera", "apt install python3-libcamera"),
        ("pykms", r"apt install python3-kms\+\+"),
        ("av", "pip install av"),
    ],
)
def test_what_pip_does_not_bring_along_with_picamera2_is_named(
    module: str, advice: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`pip install picamera2` in an environment of its own: it is there, and cannot be imported."""
    real = importlib.import_module

    def import_module(name: str) -> Any:
        if name == "msrecd.devices.picamera.backend":
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", import_module)
    monkeypatch.setitem(sys.modules, "picamera2", SimpleNamespace())  # type: ignore[arg-type]
    devices.default_backends()
    (record,) = [record for record in caplog.records if "PicameraBackend" in record.message]
    assert record.levelno == logging.WARNING
    assert re.search(f"picamera2 lacks a module: {re.escape(module)} .*{advice}", record.message)


def test_a_pi_without_picamera2_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(devices, "_is_installed", lambda library: False)
    with caplog.at_level(logging.WARNING):
        devices.default_backends()
        assert not caplog.records  # no Pi, no word
        monkeypatch.setattr(board_module, "read_board", lambda: PI_4)
        devices.default_backends()
    (record,) = caplog.records
    assert "no cameras on this Raspberry Pi 4" in record.message
    assert "apt install --no-install-recommends python3-picamera2" in record.message
