"""Backends: where cameras and microphones come from. Each vendor library is imported in exactly one file here."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msrecd.devices.base import Backend
    from msrecd.flow.encoded import StreamParameters

log = logging.getLogger(__name__)


def default_backends(
    *, alsa_pcms: Sequence[str] = (), camera_parameters: Callable[..., StreamParameters] | None = None
) -> list[Backend]:
    """The backends of this machine: libcamera and ALSA, each if its library is installed.

    Imports vendor libraries, which takes a while: call it in a worker thread. A library that is absent is no error,
    one that is broken is a warning; either way the others work.

    Args:
        alsa_pcms: PCMs of alsa-lib's configuration that are microphones too.
        camera_parameters: that of `msrecd.codecs.parameters`; without it the cameras' own encoders are not used.
    """
    hardware: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
        ("picamera2", "msrecd.devices.picamera.backend", "PicameraBackend", {"camera_parameters": camera_parameters}),
        ("alsaaudio", "msrecd.devices.alsa.backend", "AlsaBackend", {"extra_pcms": alsa_pcms}),
    )
    backends: list[Backend] = []
    for library, module, name, options in hardware:
        try:
            if not _is_installed(library):  # so that our own modules for it take no memory either
                log.debug("%s left out: there is no %s", name, library)
                continue
            backends.append(getattr(importlib.import_module(module), name)(**options))
        except ModuleNotFoundError as exc:
            log.debug("%s left out: %s", name, exc)
        except Exception as exc:
            log.warning("%s left out, it does not start: %s", name, exc)
    return backends


def _is_installed(library: str) -> bool:
    return library in sys.modules or importlib.util.find_spec(library) is not None
