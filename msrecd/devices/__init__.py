"""Backends: where cameras and microphones come from. Each vendor library is imported in exactly one file here."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msrecd.devices.base import Backend, CameraProperties
    from msrecd.flow.encoded import StreamParameters

log = logging.getLogger(__name__)

_TRIES = 3
_TRY_AGAIN_S = 1.0
INSTALL_PICAMERA2 = "sudo apt install --no-install-recommends python3-picamera2"
# What pip does not bring along with picamera2: modules of the system, and their packages.
SYSTEM_MODULES = {"libcamera": "python3-libcamera", "pykms": "python3-kms++"}


def default_backends(
    *,
    alsa_pcms: Sequence[str] = (),
    camera_parameters: Callable[..., StreamParameters] | None = None,
    cameras: Sequence[CameraProperties] = (),
) -> list[Backend]:
    """The backends of this machine: libcamera and ALSA, each if its library is installed.

    Imports vendor libraries, which takes a while: call it in a worker thread. A library that is absent is no error
    (but a warning on a Raspberry Pi that lacks picamera2), one that is broken is a warning; either way the others work.

    Args:
        alsa_pcms: PCMs of alsa-lib's configuration that are microphones too.
        camera_parameters: that of `msrecd.codecs.parameters`; without it the cameras' own encoders are not used.
        cameras: what the configuration says of single cameras.
    """
    backends: list[Backend] = []
    libcamera = {"camera_parameters": camera_parameters, "cameras": cameras}
    for library, module, name, options in (
        ("picamera2", "msrecd.devices.picamera.backend", "PicameraBackend", libcamera),
        ("alsaaudio", "msrecd.devices.alsa.backend", "AlsaBackend", {"extra_pcms": alsa_pcms}),
    ):
        try:
            if not _is_installed(library):  # so that our own modules for it take no memory either
                _report_absent(library)
                continue
            backends.append(_load(module, name, options))
        except ModuleNotFoundError as exc:
            if exc.name == library:
                _report_absent(library)  # found, and not there all the same
                continue
            log.warning("%s does not start, for %s lacks a module: %s", name, library, install_module(exc.name or ""))
        except Exception as exc:
            log.warning("%s does not start; its devices are left out: %s", name, exc)
    return backends


def _load(module: str, name: str, options: dict[str, Any]) -> Backend:
    """A backend of a module that imports a vendor library.

    picamera2 that was too early on a Pi 5 is tried again while the nodes of its image processor come, and then at each
    look at the devices: nothing else waits for a driver that may never come.
    """
    from msrecd.devices.board import has_pisp
    from msrecd.devices.late import LateBackend
    from msrecd.devices.picamera.guard import WrongPlatform

    def make() -> Backend:
        made: Backend = getattr(importlib.import_module(module), name)(**options)
        return made

    for tries_left in reversed(range(_TRIES)):
        try:
            return make()
        except WrongPlatform as exc:
            if not tries_left or not has_pisp():
                log.warning("%s; its cameras come as soon as they are", exc)
                break
            log.info("%s; importing it again", exc)
            time.sleep(_TRY_AGAIN_S)
    return LateBackend("libcamera", make, is_ready=has_pisp)


def install_module(module: str) -> str:
    """What to do where a Python module is missing that a vendor library needs."""
    if module not in SYSTEM_MODULES:
        return f"{module} (pip install {module})"
    return (
        f"{module} (sudo apt install {SYSTEM_MODULES[module]}; a virtual environment sees it if it was made with"
        " --system-site-packages)"
    )


def absent_modules() -> list[str]:
    """Those of SYSTEM_MODULES that are not there."""
    return [module for module in SYSTEM_MODULES if not _is_installed(module) and not _is_replaced(module)]


def _is_replaced(module: str) -> bool:
    return module == "pykms" and _is_installed("kms")  # picamera2 takes that one if it is there


def _report_absent(library: str) -> None:
    from msrecd.devices.board import read_board

    if library == "picamera2" and (board := read_board()).is_pi:
        log.warning("no cameras on this %s: picamera2 is not installed (%s)", board.name, INSTALL_PICAMERA2)
    else:
        log.debug("%s is not installed; its devices are left out", library)


def _is_installed(library: str) -> bool:
    return library in sys.modules or importlib.util.find_spec(library) is not None


def __getattr__(name: str) -> Any:
    if name == "virtual":  # found without an import of its own, whatever was imported before
        return importlib.import_module("msrecd.devices.virtual")
    raise AttributeError(f"module 'msrecd.devices' has no attribute {name!r}")
