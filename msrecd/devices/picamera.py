"""Cameras through libcamera: the only importer of picamera2 and libcamera, which translates their errors.

What there is in the way, and is dealt with here: `Picamera2(n)` takes the position in `global_camera_info()`, not the
`Num` in it. `H264Encoder` is another class on a Pi 5, with other arguments. The libav encoder's `force_key_frame()`
ends the camera's thread with the PyAV versions of today. Cameras without `FrameDurationLimits` make `start_encoder`
fail. A USB camera may adjust the pixel format silently. And every call may hang, so all are made in a `DeadlineWorker`.
"""

from __future__ import annotations

import inspect
import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from msrecd.clock import SYSTEM_CLOCK, Clock
from msrecd.devices.base import DeviceDescription, VideoMode, stable_id
from msrecd.devices.deadline import CallTimeout, DeadlineWorker
from msrecd.devices.holders import who_has_open
from msrecd.devices.picamera_controls import capabilities, facing_mode, to_libcamera
from msrecd.devices.picamera_guard import check_version, guard_release, steady_preview
from msrecd.devices.picamera_modes import (
    PIXEL_FORMATS,
    SensorMode,
    Size,
    buffer_bytes,
    choose_mode,
    even,
    missing_memory,
    needs_contiguous_memory,
    sensor_modes,
    video_modes,
)
from msrecd.devices.picamera_raw import Request
from msrecd.devices.picamera_source import EncoderSpec, ParametersMaker, PicameraSource, StreamShape
from msrecd.devices.picamera_stream import EncodedStream
from msrecd.devices.usb import place_of_camera
from msrecd.dom.exceptions import AbortError, DOMException, NotAllowedError, NotFoundError, NotReadableError

os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:WARN")
try:
    import libcamera
    from picamera2 import CompletedRequest, Picamera2
    from picamera2.encoders import Encoder, H264Encoder, LibavH264Encoder, MJPEGEncoder
    from picamera2.outputs import Output
    from picamera2.previews import NullPreview
except Exception as exc:  # also an ABI mismatch of numpy, a missing /dev node, …: without them there is no camera
    if isinstance(exc, ModuleNotFoundError) and exc.name in ("libcamera", "picamera2"):
        raise  # it is not installed, which is no fault
    raise RuntimeError(f"picamera2 cannot be used: {exc}") from exc

log = logging.getLogger(__name__)

check_version("picamera2", (0, 3, 32))  # from here on its encoders can be asked for a key frame
guard_release(CompletedRequest)
_EventLoop = steady_preview(NullPreview)

_BUFFERS = 4
_OPEN_S = 15.0
_CALL_S = 5.0
_LIST_S = 5.0
_HARDWARE_ENCODER = Path("/dev/video11")


def has_hardware_encoder(node: Path = _HARDWARE_ENCODER) -> bool:
    """Whether picamera2 has its V4L2 encoder and the device is there; picamera2 alone guesses from the board."""
    return H264Encoder is not LibavH264Encoder and node.exists()  # type: ignore[comparison-overlap]


class _Output(Output):
    """picamera2's end of an EncodedStream; runs in picamera2's threads, must neither raise nor block."""

    def __init__(self, encoder: Encoder, stream: EncodedStream, *, is_intra: bool) -> None:
        """is_intra: every picture is a key frame, whatever the driver says."""
        super().__init__()
        self._encoder = encoder
        self._is_intra = is_intra
        self._stream = stream

    def outputframe(
        self,
        frame: bytes,
        keyframe: bool = True,
        timestamp: int | None = None,
        packet: Any = None,
        audio: bool = False,
    ) -> None:
        first = self._encoder.firsttimestamp
        if frame and timestamp is not None and first is not None and not audio:
            self._stream.offer(bytes(frame), bool(keyframe) or self._is_intra, first + timestamp)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What was found out about a camera while it was open for that; it does not change."""

    modes: tuple[VideoMode, ...] = ()
    sensor_modes: tuple[SensorMode, ...] = ()
    controls: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """How a camera is to run."""

    size: Size
    frame_rate: float | None
    mode: SensorMode | None
    settings: Mapping[str, Any]


class _Camera:
    """picamera_source.CameraDevice on a Picamera2."""

    def __init__(self, camera: Picamera2, camera_id: str, plan: _Plan, *, is_hardware_encoder: bool) -> None:
        self._camera = camera
        self._id = camera_id
        self._plan = plan
        self.is_hardware_encoder = is_hardware_encoder
        self.encoder_name = "v4l2" if is_hardware_encoder else "libx264"
        self.has_lores = "ColorFilterArrangement" in camera.camera_properties  # a sensor behind a Raspberry Pi's ISP

    def configure(self, *, lores: Size | None) -> StreamShape:
        shape = self._configure("YUV420", lores)
        if shape is None and lores is None:  # a USB camera that has no YUV420 adjusts to what it likes
            shape = self._configure("BGR888", lores)
        if shape is None:
            got = self._camera.camera_configuration()["main"]["format"]
            raise NotReadableError(f"the camera gives {got} only; {' or '.join(PIXEL_FORMATS)} is needed")
        return shape

    def _configure(self, pixel_format: str, lores: Size | None) -> StreamShape | None:
        camera, plan = self._camera, self._plan
        options: dict[str, Any] = {}
        if plan.mode is not None:
            options["sensor"] = {"output_size": plan.mode.size, "bit_depth": plan.mode.bit_depth}
        config = camera.create_video_configuration(
            main={"format": pixel_format, "size": plan.size},
            lores=None if lores is None else {"format": "YUV420", "size": lores},
            raw=None,
            buffer_count=_BUFFERS,
            queue=False,
            controls=to_libcamera({**plan.settings, "frame_rate": plan.frame_rate}, camera.camera_controls),
            **options,
        )
        camera.configure(config)
        main = camera.camera_configuration()["main"]
        if main["format"] not in PIXEL_FORMATS:
            return None
        return StreamShape(
            size=tuple(main["size"]), pixel_format=PIXEL_FORMATS[main["format"]], stride=int(main["stride"])
        )

    def start(self) -> None:
        self._camera.start(show_preview=_EventLoop())  # of no effect when it runs already, after a stop

    def stop(self) -> None:
        self._camera.stop()

    def close(self) -> None:
        self._camera.close()

    def is_listed(self) -> bool:
        return any(info["Id"] == self._id for info in Picamera2.global_camera_info())

    def watch_requests(self, seen: Callable[[Request], None] | None) -> None:
        if seen is None:
            self._camera.pre_callback = None
            return
        failed = False

        def callback(request: Request) -> None:
            nonlocal failed
            try:
                seen(request)
            except Exception as exc:  # would end the camera's thread
                if not failed:
                    log.error("a frame of the camera could not be taken: %s", exc)
                failed = True

        self._camera.pre_callback = callback

    def start_encoder(self, spec: EncoderSpec, output: EncodedStream) -> Encoder:
        encoder = make_encoder(spec, is_hardware=self.is_hardware_encoder)
        sink = _Output(encoder, output, is_intra=spec.codec == "mjpeg")
        if "FrameDurationLimits" in self._camera.camera_controls:
            self._camera.start_encoder(encoder, sink, name=spec.stream)
            return encoder
        stream = self._camera.camera_configuration()[spec.stream]
        encoder.output = sink
        encoder.name = spec.stream
        encoder.size = tuple(stream["size"])
        encoder.format = stream["format"]
        encoder.stride = stream["stride"]
        encoder.start()
        with self._camera.lock:  # the camera's thread walks through the set
            self._camera.encoders = encoder
        return encoder

    def stop_encoder(self, encoder: Any) -> None:
        self._camera.stop_encoder(encoder)

    def set_controls(self, settings: Mapping[str, Any]) -> None:
        controls = to_libcamera(settings, self._camera.camera_controls)
        if controls:
            self._camera.set_controls(controls)


def make_encoder(spec: EncoderSpec, *, is_hardware: bool) -> Encoder:
    """The encoder for `spec`, given only the arguments that its class knows."""
    h264: type[Encoder] = H264Encoder if is_hardware else LibavH264Encoder
    encoder_class: type[Encoder] = MJPEGEncoder if spec.codec == "mjpeg" else h264
    rate = Fraction(spec.frame_rate or 30.0).limit_denominator(1001)
    wanted: dict[str, Any] = {
        "bitrate": spec.bit_rate or None,
        "repeat": True,  # SPS and PPS before every key frame: each chunk begins with one
        "iperiod": spec.key_frame_period,
        "framerate": float(rate) if is_hardware else rate,
        "enable_sps_framerate": True,
    }
    known = inspect.signature(encoder_class).parameters
    encoder = encoder_class(**{name: value for name, value in wanted.items() if name in known})
    encoder.frame_skip_count = spec.frame_skip
    return encoder


class PicameraBackend:
    """Cameras that libcamera knows: CSI ones and USB ones. See devices.base.Backend."""

    name = "libcamera"

    def __init__(
        self,
        *,
        camera_parameters: ParametersMaker | None = None,
        clock: Clock = SYSTEM_CLOCK,
        encoder_node: Path = _HARDWARE_ENCODER,
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
        self._facts: dict[str, _Facts] = {}
        self._open: set[str] = set()
        self._refused: dict[str, str] = {}  # camera id -> why it could not be opened the last time
        self._close_watch: Callable[[], None] | None = None

    def describe(self) -> list[DeviceDescription]:
        try:
            listed = self._lister.call("listing the cameras", Picamera2.global_camera_info, _LIST_S)
        except CallTimeout as exc:
            log.warning("no cameras: %s", exc)
            return []
        except Exception as exc:  # libcamera raises RuntimeError, but its bindings have surprises
            log.warning("no cameras: %s", exc)
            return []
        return [self._describe(position, dict(info)) for position, info in enumerate(listed)]

    def open(self, device: DeviceDescription, settings: Mapping[str, Any]) -> PicameraSource:
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
        is_hardware = has_hardware_encoder(self._encoder_node)
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

    def _facts_of(self, position: int, camera_id: str) -> _Facts:
        """Look into the camera once; while it is in use nothing is known that was not found before."""
        with self._lock:
            known = self._facts.get(camera_id)
            if known is not None or camera_id in self._open:
                return known or _Facts()
        try:
            facts = self._lister.call("looking into a camera", lambda: _probe(position), _OPEN_S)
        except Exception as exc:
            with self._lock:
                self._refused[camera_id] = str(self._translate(exc, camera_id))
            return _Facts()
        with self._lock:
            self._refused.pop(camera_id, None)
            self._facts[camera_id] = facts
        return facts

    def _open_in(
        self, worker: DeadlineWorker, device: DeviceDescription, settings: Mapping[str, Any]
    ) -> PicameraSource:
        camera_id = device.address
        facts = self._facts.get(camera_id, _Facts())
        plan = make_plan(settings, device, facts)
        if needs_contiguous_memory(self._heaps):
            missing = missing_memory(buffer_bytes(plan.size, "YUV420", _BUFFERS), self._meminfo)
            if missing is not None:
                raise NotReadableError(f"{device.label}: no_memory: {missing}")
        is_hardware = has_hardware_encoder(self._encoder_node)

        def open_camera() -> tuple[_Camera, StreamShape]:
            picamera = _open(camera_id)
            try:
                opened = _Camera(picamera, camera_id, plan, is_hardware_encoder=is_hardware)
                shape = opened.configure(lores=None)
                opened.start()
            except BaseException:
                _close(picamera)
                raise
            came.append(picamera)
            return opened, shape

        def close_late() -> None:
            for late in came:
                log.warning("camera %s: it opened after nobody waited any more; closed again", device.label)
                _close(late)

        came: list[Picamera2] = []
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
            self._open.add(camera_id)
        log.info("camera %s opened: %dx%d at %s frames a second", device.label, *shape.size, plan.frame_rate or "its")
        return PicameraSource(
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


def make_plan(settings: Mapping[str, Any], device: DeviceDescription, facts: _Facts) -> _Plan:
    """Size and rate as the settings have them (the ISP scales for nothing), in the sensor mode nearest above them.

    A camera whose rate cannot be set has the rate that it has: None.
    """
    default = device.video_modes[0]
    size = even((int(settings.get("width") or default.width), int(settings.get("height") or default.height)))
    mode = choose_mode(facts.sensor_modes, size, settings.get("frame_rate"))
    if facts.controls and "FrameDurationLimits" not in facts.controls:
        return _Plan(size=size, frame_rate=None, mode=mode, settings=settings)
    highest = mode.frame_rate if mode is not None else default.frame_rate
    rate = float(settings.get("frame_rate") or min(30.0, highest))
    return _Plan(size=size, frame_rate=min(rate, highest), mode=mode, settings=settings)


def _open(camera_id: str) -> Picamera2:
    for position, info in enumerate(Picamera2.global_camera_info()):
        if info["Id"] == camera_id:
            return Picamera2(position)
    raise NotFoundError("the camera is not there any more")


def _close(camera: Picamera2) -> None:
    """Close after a failure: that is what is to be told, not that closing failed as well."""
    try:
        camera.close()
    except Exception as exc:
        log.warning("closing a camera failed: %s", exc)


def _probe(position: int) -> _Facts:
    """Modes and controls; opens the camera for a moment."""
    camera = Picamera2(position)
    try:
        modes = tuple(sensor_modes(camera.sensor_modes))
        controls = dict(camera.camera_controls)
        sizes = [] if modes else _sizes(camera)
        limits = controls.get("FrameDurationLimits")
        max_rate = round(1_000_000 / limits[0], 2) if limits and limits[0] else None
    finally:
        _close(camera)
    return _Facts(modes=video_modes(modes, sizes, max_rate), sensor_modes=modes, controls=controls)


def _sizes(camera: Picamera2) -> list[Size]:
    """The sizes of a camera that has no sensor modes (USB)."""
    formats = camera.camera.generate_configuration([libcamera.StreamRole.VideoRecording]).at(0).formats
    return sorted(
        {(size.width, size.height) for pixel in formats.pixel_formats for size in formats.sizes(pixel)}, reverse=True
    )


def _causes(exc: BaseException) -> list[str]:
    texts: list[str] = []
    current: BaseException | None = exc
    while current is not None:
        texts.append(str(current) or type(current).__name__)
        current = current.__cause__
    return texts
