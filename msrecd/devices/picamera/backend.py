"""PicameraBackend: the cameras that libcamera knows; says what went wrong with one. picamera2: see picamera.device."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msrecd.clock import MS, NS, SYSTEM_CLOCK, Clock
from msrecd.devices.base import CameraProperties, DeviceDescription, properties_of, stable_id
from msrecd.devices.board import Board, read_board
from msrecd.devices.camera.controls import capabilities, facing_mode
from msrecd.devices.camera.device import CameraDevice, ParametersMaker, StreamShape
from msrecd.devices.camera.frames import Request
from msrecd.devices.camera.modes import (
    CameraFacts,
    CameraPlan,
    contiguous_memory,
    make_plan,
    measured_rate,
    memory_shortage,
    missing_memory,
    needed_memory,
    needs_contiguous_memory,
    video_modes,
)
from msrecd.devices.camera.source import CameraSource
from msrecd.devices.deadline import CallTimeout, DeadlineWorker
from msrecd.devices.holders import who_has_open
from msrecd.devices.picamera import device as picamera_device
from msrecd.devices.picamera.guard import close_quietly
from msrecd.devices.usb import place_of_camera
from msrecd.dom.exceptions import AbortError, DOMException, NotAllowedError, NotReadableError
from msrecd.flow.units import Presentation

log = logging.getLogger(__name__)

_OPEN_S = 15.0
_LIST_S = 5.0
_ENCODER_WAIT_NS = 5 * NS
_MEASURED_FRAMES = 10
_MEASURE_S = 2.0
_TUNING_FOLDERS = ("/usr/local/share/libcamera/ipa/rpi", "/usr/share/libcamera/ipa/rpi")


class PicameraBackend:
    """Cameras that libcamera knows: CSI ones and USB ones. See devices.base.Backend."""

    name = "libcamera"

    def __init__(
        self,
        *,
        camera_parameters: ParametersMaker | None = None,
        cameras: Sequence[CameraProperties] = (),
        clock: Clock = SYSTEM_CLOCK,
        encoder_node: Path = picamera_device.HARDWARE_ENCODER,
        meminfo: Path = Path("/proc/meminfo"),
        heaps: Path = Path("/dev/dma_heap"),
        board: Board | None = None,
        tuning_folders: Sequence[Path] | None = None,
    ) -> None:
        """
        Args:
            camera_parameters: describes a stream by its first key frame; without it the camera's encoder is not used.
            cameras: what the configuration says of single cameras.
            encoder_node: the V4L2 encoder. meminfo: where the CMA is looked up. heaps: whether buffers are of it.
            board: what the device tree says.
            tuning_folders: where tuning files without a path are looked for; None: libcamera's own.
        """
        self._make_parameters = camera_parameters
        self._clock = clock
        self._encoder_node = encoder_node
        self._meminfo = meminfo
        self._heaps = heaps
        self._cameras = tuple(cameras)
        self._board = read_board() if board is None else board
        self._tuning_folders = tuning_folders
        self._has_tuning = any(camera.tuning_file for camera in cameras)
        self._tuned: Mapping[str, Path] = {}  # what libcamera has: sensor's model -> file
        self._untuned: Mapping[str, str] = {}  # camera id -> why its tuning file cannot be had
        self._has_waited_for_encoder = False
        self._lister = DeadlineWorker("cameras", clock=clock)
        self._lock = threading.Lock()
        self._facts: dict[str, CameraFacts] = {}
        self._open: set[str] = set()
        self._hands: dict[str, threading.Lock] = {}
        self._refused: dict[str, str] = {}  # camera id -> why it could not be opened the last time
        self._close_watch: Callable[[], None] | None = None

    def describe(self) -> list[DeviceDescription]:
        try:
            listed = self._lister.call("listing the cameras", self._list, _LIST_S)
        except CallTimeout as exc:
            log.warning("no cameras: %s", exc)
            return []
        except Exception as exc:  # libcamera raises RuntimeError, but its bindings have surprises
            log.warning("no cameras: %s", exc)
            return []
        return [self._describe(info) for info in listed]

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

    def _list(self) -> list[dict[str, Any]]:
        """The cameras; libcamera has the tuning files of the configuration by then. In the lister's thread."""
        found = picamera_device.listed()
        if not self._has_tuning:
            return found
        tuning = choose_tuning(self._cameras, found, self._board.platform or "vc4", self._tuning_folders)
        with self._lock:
            self._untuned = tuning.refused
            is_new = tuning.files != self._tuned and not self._open
        if is_new:
            log.info("tuning files of libcamera: %s", ", ".join(map(str, tuning.files.values())) or "its own")
            picamera_device.use_tuning_files(tuning.files)
            self._tuned = tuning.files
            found = picamera_device.listed()
        return found

    def _describe(self, info: Mapping[str, Any]) -> DeviceDescription:
        camera_id = str(info["Id"])
        facts = self._facts_of(camera_id)
        with self._lock:
            refused = self._untuned.get(camera_id) or self._refused.get(camera_id)
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
            device_id=device_id_of(camera_id),
            group_id=stable_id("group", place_of_camera(camera_id) or camera_id),
            label=label_of(info),
            driver=self.name,
            address=camera_id,
            facing_mode=facing_mode(info.get("Location")),
            video_modes=facts.modes or video_modes((), (), None),
            controls=capabilities(facts.controls),
            state="busy" if busy else "free",
            detail=detail,
        )

    def _facts_of(self, camera_id: str) -> CameraFacts:
        """Look into the camera once; while it is in use nothing is known that was not found before."""
        with self._lock:
            known = self._facts.get(camera_id)
            if known is not None or camera_id in self._open:
                return known or CameraFacts()
        try:
            facts = self._lister.call("looking into a camera", lambda: self._look_into(camera_id), _OPEN_S)
        except Exception as exc:
            with self._lock:
                self._refused[camera_id] = self._translate(exc, camera_id).message
            return CameraFacts()
        return facts or CameraFacts()

    def _look_into(self, camera_id: str) -> CameraFacts | None:
        """In the lister's thread. None: somebody is opening it at this moment, or has it, and would be disturbed."""
        hand = self._hand_on(camera_id)
        if not hand.acquire(blocking=False):
            return None
        try:
            with self._lock:
                known = self._facts.get(camera_id)
                if known is not None or camera_id in self._open:
                    return known
            facts = picamera_device.probe(camera_id)
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
        with self._lock:
            untuned = self._untuned.get(camera_id)
        if untuned is not None:
            raise NotReadableError(f"{device.label}: {untuned}")
        properties = properties_of(self._cameras, device_id=device.device_id, label=device.label)
        facts = self._facts.get(camera_id, CameraFacts())
        plan = make_plan(settings, device.video_modes[0], facts, properties)
        is_hardware = self._has_encoder()
        needed = needed_memory(plan, is_hardware_encoder=is_hardware)
        if needs_contiguous_memory(self._heaps):
            missing = missing_memory(needed, contiguous_memory(self._meminfo))
            if missing is not None:
                raise NotReadableError(f"{device.label}: no_memory: {missing}")

        def open_camera() -> tuple[picamera_device.Camera, StreamShape, float | None]:
            with self._hand_on(camera_id):
                opened = picamera_device.open_camera(camera_id, plan, is_hardware_encoder=is_hardware)
                try:
                    shape = opened.configure(lores=None)
                    opened.start()
                    rate = plan.frame_rate or measure_rate(opened)
                except BaseException:
                    close_quietly(opened)
                    raise
                came.append(opened)
                with self._lock:
                    self._open.add(camera_id)
            return opened, shape, rate

        def close_late() -> None:
            for late in came:
                log.warning("camera %s opened after the deadline; closing it again", device.label)
                close_quietly(late)
                self._has_closed(camera_id)

        came: list[picamera_device.Camera] = []
        try:
            camera, shape, rate = worker.call("opening the camera", open_camera, _OPEN_S)
        except CallTimeout as exc:
            # It may come yet, and would stay open for ever: nobody else could have it.
            worker.submit("closing a camera that came late", close_late, lambda error: log.warning("camera: %s", error))
            worker.leave_behind(device.label)
            raise self._refuse(camera_id, device.label, exc, needed) from exc
        except Exception as exc:
            raise self._refuse(camera_id, device.label, exc, needed) from exc
        with self._lock:
            self._refused.pop(camera_id, None)
        self._report(device.label, plan, shape, rate)
        return CameraSource(
            camera,
            shape,
            worker=worker,
            frame_rate=rate,
            slowest_rate=plan.slowest_rate,
            is_rate_fixed=plan.frame_rate is not None and plan.slowest_rate is None,
            presentation=Presentation(rotation=properties.display_rotation),
            make_parameters=self._make_parameters,
            label=device.label,
            device_id=device.device_id,
            group_id=device.group_id,
            closed=lambda: self._has_closed(camera_id),
            clock=self._clock,
        )

    def _has_encoder(self) -> bool:
        """Whether the hardware encoder is there; it gets some seconds to come on a board that has one, once."""
        if self._board.has_encoder and not self._has_waited_for_encoder:
            deadline_ns = self._clock.monotonic_ns() + _ENCODER_WAIT_NS
            while not self._encoder_node.exists() and self._clock.monotonic_ns() < deadline_ns:
                self._clock.wait_until(self._clock.monotonic_ns() + 100 * MS, threading.Event())
            self._has_waited_for_encoder = True
        return picamera_device.has_hardware_encoder(self._encoder_node)

    def _report(self, label: str, plan: CameraPlan, shape: StreamShape, rate: float | None) -> None:
        slowest = f"{plan.slowest_rate:g} to " if plan.slowest_rate else ""
        log.info(
            "camera %s opened: %dx%d at %s%s frames a second",
            label,
            *shape.size,
            slowest,
            "unknown" if rate is None else f"{rate:g}",
        )
        if shape.is_mirrored_here:
            log.info("camera %s cannot mirror its frames; they are mirrored here", label)

    def _refuse(self, camera_id: str, label: str, exc: Exception, needed: int) -> DOMException:
        translated = self._translate(exc, label, needed)
        if isinstance(translated, NotReadableError):
            with self._lock:
                self._refused[camera_id] = translated.message
        return translated

    def _has_closed(self, camera_id: str) -> None:
        with self._lock:
            self._open.discard(camera_id)

    def _translate(self, exc: Exception, label: str, needed: int | None = None) -> DOMException:
        if isinstance(exc, DOMException):
            return exc
        if isinstance(exc, CallTimeout):
            return NotReadableError(f"{label}: {exc}; restart the service, or the machine if that does not help")
        text = " / ".join(_causes(exc))
        if "Permission denied" in text:
            return NotAllowedError(f"{label}: no access to the camera; add the user to the group video")
        if "Operation not permitted" in text:
            return NotAllowedError(
                f"{label}: the service may not use the camera: see DeviceAllow= in `systemctl cat msrecd`, restart it"
            )
        if "Cannot allocate memory" in text:
            memory = contiguous_memory(self._meminfo) if needs_contiguous_memory(self._heaps) else None
            advice = memory_shortage(needed, memory) if needed is not None else "choose a smaller size"
            return NotReadableError(f"{label}: no_memory: {text}; {advice}")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Which tuning files libcamera is to read (sensor's model -> file), and which cameras cannot have theirs."""

    files: Mapping[str, Path]
    refused: Mapping[str, str]


def choose_tuning(
    cameras: Sequence[CameraProperties],
    listed: Sequence[Mapping[str, Any]],
    platform: str,
    folders: Sequence[Path] | None = None,
) -> Tuning:
    """libcamera finds tuning files by the sensor's model: two cameras of one model must have the same one."""
    folders = [Path(folder, platform) for folder in _TUNING_FOLDERS] if folders is None else folders
    files: dict[str, Path] = {}
    refused: dict[str, str] = {}
    owners: dict[str, str | None] = {}
    for info in listed:
        camera_id, model = str(info["Id"]), str(info.get("Model"))
        name = properties_of(cameras, device_id=device_id_of(camera_id), label=label_of(info)).tuning_file
        if owners.setdefault(model, name) != name:
            refused[camera_id] = (
                f"cameras of one model share a tuning file: this one cannot have {name or 'its own'} beside"
                f" {owners[model] or 'the default'} of another {model}"
            )
        elif name is not None:
            file = next((file for folder in folders if (file := Path(folder, name)).is_file()), None)
            if file is None:
                refused[camera_id] = f"tuning_file: there is no {name} in {', '.join(map(str, folders))}"
            else:
                files[model] = file.resolve()
    return Tuning(files=files, refused=refused)


def device_id_of(camera_id: str) -> str:
    """Our id of the camera with libcamera's id."""
    return stable_id("libcamera", "videoinput", camera_id)


def label_of(info: Mapping[str, Any]) -> str:
    """A camera's name for people."""
    return str(info.get("Model") or info["Id"])


def measure_rate(camera: CameraDevice) -> float | None:
    """The frame rate of a camera that cannot be told one, by its first frames; None where too few come in time."""
    times: list[int] = []
    enough = threading.Event()

    def seen(request: Request) -> None:
        times.append(int(request.get_metadata()["SensorTimestamp"]))
        if len(times) > _MEASURED_FRAMES:
            enough.set()

    camera.watch_requests(seen)
    try:
        enough.wait(_MEASURE_S)
    finally:
        camera.watch_requests(None)
    return measured_rate(list(times)[1:])  # the first one may be older than the start
