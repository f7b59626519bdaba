"""LateBackend: cameras whose library cannot be loaded before the board's drivers are there, as on a Pi 5 that boots."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from msrecd.devices.base import Backend, DeviceDescription
from msrecd.devices.picamera.guard import WrongPlatform
from msrecd.dom.exceptions import NotFoundError
from msrecd.flow.source import Source

log = logging.getLogger(__name__)


class LateBackend:
    """Has no devices until `load` succeeds, which each look at the devices tries again. See devices.base.Backend."""

    def __init__(self, name: str, load: Callable[[], Backend], *, is_ready: Callable[[], bool]) -> None:
        """
        Args:
            load: makes the backend; raises WrongPlatform while it is too early. May take seconds.
            is_ready: whether it is worth trying; cheap.
        """
        self.name = name
        self._load = load
        self._is_ready = is_ready
        self._loading = threading.Lock()
        self._backend: Backend | None = None
        self._close_watch: Callable[[], None] | None = None

    def describe(self) -> list[DeviceDescription]:
        backend = self._found()
        return [] if backend is None else backend.describe()

    def open(self, device: DeviceDescription, settings: Mapping[str, Any]) -> Source:
        backend = self._found()
        if backend is None:
            raise NotFoundError(f"{device.label} is not there yet: the board's drivers are not loaded")
        return backend.open(device, settings)

    def watch(self, changed: Callable[[], None]) -> None:
        from msrecd.devices.hotplug import HotplugWatcher

        watcher = HotplugWatcher(subsystems=("video4linux", "media"), changed=changed)
        watcher.start()
        self._close_watch = watcher.close

    def close(self) -> None:
        close, self._close_watch = self._close_watch, None
        if close is not None:
            close()
        if self._backend is not None:
            self._backend.close()

    def _found(self) -> Backend | None:
        if self._backend is None and self._is_ready() and self._loading.acquire(blocking=False):
            try:
                if self._backend is None:
                    self._backend = self._load()
                    log.info("the drivers of %s are there now", self.name)
            except WrongPlatform as exc:
                log.debug("%s: %s", self.name, exc)
            except Exception as exc:
                log.warning("%s does not start; trying again at the next look: %s", self.name, exc)
            finally:
                self._loading.release()
        return self._backend
