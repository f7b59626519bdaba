"""PicameraBackend: the cameras that libcamera knows; says what went wrong with one. picamera2: see picamera.device."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msrecd.clock import SYSTEM_CLOCK, Clock
from msrecd.devices.base import DeviceDescription, stable_id
from msrecd.devices.camera.controls import capabilities, facing_mode
from msrecd.devices.camera.device import ParametersMaker, StreamShape
from msrecd.devices.camera.modes import (
    CameraFacts,
    buffer_bytes,
    make_plan,
    missing_memory,
    needs_contiguous_memory,
    video_modes,
)
from msrecd.devices.camera.source import CameraSource
from msrecd.devices.deadline import CallTimeout, DeadlineWorker
from msrecd.devices.holders import who_has_open
from msrecd.devices.picamera import device as picamera_device
from msrecd.devices.usb import place_of_camera
from msrecd.dom.exceptions import AbortError, DOMException, NotAllowedError, NotReadableError

log = logging.getLogger(__name__)

_OPEN_S = 15.0
_LIST_S = 5.0


class PicameraBackend:
    """Cameras that libcamera knows: CSI ones and USB ones. See devices.base.Backend."""

    name = "libcamera"

    def __init__(
        self,
        *,
        camera_parameters: ParametersMaker | None = None,
        clock: Clock = SYSTEM_CLOCK,
        encoder_node: Path = picamera_device.HARDWARE_ENCODER,
        meminfo: Path = Path("/proc/meminfo"),
        heaps: Path = Path("/dev/dma_heap"),
    ) -> None:
        """
        Args:
            camera_parameters: describes a stream by its first key frame; without it the camera's encoder is not used.
            encoder_node: the V4L2 encoder. meminfo: where the free CMA is looked up. heaps: whether buffers are of it.
        """
        self._make_parameters = camera_parameters
        self._clock = clock
        self._encoder_node = encoder_node
        self._meminfo = meminfo
        self._heaps = heaps
        self._lister = DeadlineWorker("cameras", clock=clock)
        self._lock = threading.Lock()
        self._facts: dict[str, CameraFacts] = {}
        self._open: set[str] = set()
        self._hands: dict[str, threading.Lock] = {}
        self._refused: dict[str, str] = {}  # camera id -> why it could not be opened the last time
        self._close_watch: Callable[[], None] | None = None

    def describe(self) -> list[DeviceDescription]:
        try:
            listed = self._lister.call("listing the cameras", picamera_device.listed, _LIST_S)
        except CallTimeout as exc:
            log.warning("no cameras: %s", exc)
            return []
        except Exception as exc:  # libcamera raises RuntimeError, but its bindings have surprises
            log.warning("no cameras: %s", exc)
            return []
        return [self._describe(position, dict(info)) for position, info in enumerate(listed)]

    def open(self, device: DeviceDescription, settings: Mapping[str, Any]) -> CameraSource:
        worker = DeadlineWorker(f"picamera2 {device.label}", clock=self._clock)
        try:
            return self._open_in(worker, device, settings)
        except BaseException:
            worker.stop(0)
            raise

    def watch(self, changed: Callable[[], None]) -> None:
        from msrecd.devices.hotplug import HotplugWatcher  # udev's library is loaded only where somebody watches

        watcher = HotplugWatcher(subsystems=("video4linux", "media"), changed=changed)
        watcher.start()
        self._close_watch = watcher.close

    def close(self) -> None:
        close, self._close_watch = self._close_watch, None
        if close is not None:
            close()
        self._lister.stop(1.0)

    def _describe(self, position: int, info: Mapping[str, Any]) -> DeviceDescription:
        camera_id = str(info["Id"])
        facts = self._facts_of(position, camera_id)
        with self._lock:
            refused = self._refused.get(camera_id)
            busy = camera_id in self._open or refused is not None
        is_hardware = picamera_device.has_hardware_encoder(self._encoder_node)
        detail: dict[str, Any] = {
            "camera_id": camera_id,
            "encoder": "v4l2" if is_hardware else "software",
            "encoder_limit": "1920x1080 at 30 frames a second",
        }
        if refused:
            detail["error"] = refused
        return DeviceDescription(
            kind="video",
            device_id=stable_id("libcamera", "videoinput", camera_id),
            group_id=stable_id("group", place_of_camera(camera_id) or camera_id),
            label=str(info.get("Model") or camera_id),
            driver=self.name,
            address=camera_id,
            facing_mode=facing_mode(info.get("Location")),
            video_modes=facts.modes or video_modes((), (), None),
            controls=capabilities(facts.controls),
            state="busy" if busy else "free",
            detail=detail,
        )

    def _facts_of(self, position: int, camera_id: str) -> CameraFacts:
        """Look into the camera once; while it is in use nothing is known that was not found before."""
        with self._lock:
            known = self._facts.get(camera_id)
            if known is not None or camera_id in self._open:
                return known or CameraFacts()
        try:
            facts = self._lister.call("looking into a camera", lambda: self._look_into(position, camera_id), _OPEN_S)
        except Exception as exc:
            with self._lock:
                self._refused[camera_id] = str(self._translate(exc, camera_id))
            return CameraFacts()
        return facts or CameraFacts()

    def _look_into(self, position: int, camera_id: str) -> CameraFacts | None:
        """In the lister's thread. None: somebody is opening it at this moment, or has it, and would be disturbed."""
        hand = self._hand_on(camera_id)
        if not hand.acquire(blocking=False):
            return None
        try:
            with self._lock:
                known = self._facts.get(camera_id)
                if known is not None or camera_id in self._open:
                    return known
            facts = picamera_device.probe(position)
            with self._lock:
                self._refused.pop(camera_id, None)
                self._facts[camera_id] = facts
            return facts
        finally:
            hand.release()

    def _hand_on(self, camera_id: str) -> threading.Lock:
        """Who holds it is opening the camera, or looks into it."""
        with self._lock:
            return self._hands.setdefault(camera_id, threading.Lock())

    def _open_in(self, worker: DeadlineWorker, device: DeviceDescription, settings: Mapping[str, Any]) -> CameraSource:
        camera_id = device.address
        facts = self._facts.get(camera_id, CameraFacts())
        plan = make_plan(settings, device.video_modes[0], facts)
        if needs_contiguous_memory(self._heaps):
            missing = missing_memory(buffer_bytes(plan.size, "YUV420", picamera_device.BUFFERS), self._meminfo)
            if missing is not None:
                raise NotReadableError(f"{device.label}: no_memory: {missing}")
        is_hardware = picamera_device.has_hardware_encoder(self._encoder_node)

        def open_camera() -> tuple[picamera_device.Camera, StreamShape]:
            with self._hand_on(camera_id):
                opened = picamera_device.open_camera(camera_id, plan, is_hardware_encoder=is_hardware)
                try:
                    shape = opened.configure(lores=None)
                    opened.start()
                except BaseException:
                    picamera_device.close_quietly(opened)
                    raise
                came.append(opened)
                with self._lock:
                    self._open.add(camera_id)
            return opened, shape

        def close_late() -> None:
            for late in came:
                log.warning("camera %s: it opened after nobody waited any more; closed again", device.label)
                picamera_device.close_quietly(late)
                self._has_closed(camera_id)

        came: list[picamera_device.Camera] = []
        try:
            camera, shape = worker.call("opening the camera", open_camera, _OPEN_S)
        except CallTimeout as exc:
            # It may come yet, and would stay open for ever: nobody else could have it.
            worker.submit("closing a camera that came late", close_late, lambda error: log.warning("camera: %s", error))
            worker.leave_behind(device.label)
            raise self._refuse(camera_id, device.label, exc) from exc
        except Exception as exc:
            raise self._refuse(camera_id, device.label, exc) from exc
        with self._lock:
            self._refused.pop(camera_id, None)
        log.info("camera %s opened: %dx%d at %s frames a second", device.label, *shape.size, plan.frame_rate or "its")
        return CameraSource(
            camera,
            shape,
            worker=worker,
            frame_rate=plan.frame_rate,
            make_parameters=self._make_parameters,
            label=device.label,
            device_id=device.device_id,
            group_id=device.group_id,
            closed=lambda: self._has_closed(camera_id),
            clock=self._clock,
        )

    def _refuse(self, camera_id: str, label: str, exc: Exception) -> DOMException:
        translated = self._translate(exc, label)
        if isinstance(translated, NotReadableError):
            with self._lock:
                self._refused[camera_id] = translated.message
        return translated

    def _has_closed(self, camera_id: str) -> None:
        with self._lock:
            self._open.discard(camera_id)

    def _translate(self, exc: Exception, label: str) -> DOMException:
        if isinstance(exc, DOMException):
            return exc
        if isinstance(exc, CallTimeout):
            return NotReadableError(f"{label}: {exc}; restart the service, or the machine if that does not help")
        text = " / ".join(_causes(exc))
        if "Permission denied" in text:
            return NotAllowedError(f"{label}: no access to the camera; add the user to the group video")
        if "Cannot allocate memory" in text:
            return NotReadableError(f"{label}: no_memory: {text}; choose a smaller size")
        if isinstance(exc, (RuntimeError, OSError)):
            holder = who_has_open({f"/dev/media{number}" for number in range(8)} | {"/dev/video0"})
            other = f"; {holder} has a camera open" if holder is not None and holder.pid != os.getpid() else ""
            return NotReadableError(f"{label} is busy or faulty: {text}{other}")
        return AbortError(f"{label} cannot be opened: {text}")


def _causes(exc: BaseException) -> list[str]:
    texts: list[str] = []
    current: BaseException | None = exc
    while current is not None:
        texts.append(str(current) or type(current).__name__)
        current = current.__cause__
    return texts
