"""A stand-in for libcamera's Python binding, below the real picamera2; `install()` puts it into sys.modules.

What it obeys, and where that stands in raspberrypi/libcamera: ranges of controls before and after configure()
(src/ipa/rpi/common/ipa_base.cpp, ipaControls and IpaBase::configure; for ScalerCrop and ScalerCrops
src/libcamera/pipeline/rpi/common/pipeline_base.cpp); the tuning file is looked up when the camera manager starts
(src/libcamera/ipa_proxy.cpp, ipaConfigurationFile); one manager a process, freed with its last reference
(src/py/libcamera/py_camera_manager.cpp); a camera that somebody holds is refused by acquire(). Frames are paced in real
time, and come only in buffers that were queued.
"""

from __future__ import annotations

import enum
import os
import sys
import threading
import time
import weakref
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import camera_facts as facts

MODEL, MODES, CONTROLS, ID = "imx477", facts.IMX477_MODES, facts.IMX477_CONTROLS, facts.IMX477_ID
_GRAIN = 64
machine = SimpleNamespace(refuse="", tunings=[], started=[], fps=30.0, memory=None, allocated=0)


class Geometry:
    """Size, Rectangle: tuples with names."""

    names: tuple[str, ...] = ()

    def __init__(self, *values: int) -> None:
        for name, value in zip(self.names, values or (0,) * len(self.names), strict=True):
            setattr(self, name, value)


class Size(Geometry):
    names = ("width", "height")


class Rectangle(Geometry):
    names = ("x", "y", "width", "height")


class Transform:
    def __init__(self, hflip: int = 0, vflip: int = 0, transpose: int = 0) -> None:
        self.hflip, self.vflip, self.transpose = bool(hflip), bool(vflip), bool(transpose)

    def __str__(self) -> str:
        return f"hflip={self.hflip} vflip={self.vflip} transpose={self.transpose}"

    __hash__ = None  # type: ignore[assignment]


Transform.__hash__ = lambda self: hash((self.hflip, self.vflip, self.transpose))  # type: ignore[method-assign, assignment]


class ColorSpace:
    class YcbcrEncoding(enum.Enum):
        Null = 0

    class Range(enum.Enum):
        Full = 0
        Limited = 1

    def __init__(self, other: ColorSpace | None = None, name: str = "") -> None:
        self.primaries = self.transferFunction = other.primaries if other is not None else name
        self.ycbcrEncoding, self.range = "", ColorSpace.Range.Limited

    def __str__(self) -> str:
        return str(self.primaries)

    def __hash__(self) -> int:
        return hash(self.primaries)


for _name in ("Sycc", "Smpte170m", "Rec709", "Raw"):
    setattr(ColorSpace, _name, staticmethod(lambda name=_name: ColorSpace(name=name)))


class PixelFormat:
    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name


class ControlType(enum.Enum):
    Null = 0
    Rectangle = 1
    Size = 2


class ControlId:
    def __init__(self, name: str) -> None:
        self.name = name
        self.type = ControlType.Rectangle if name.startswith("ScalerCrop") else ControlType.Null


_ids: dict[str, ControlId] = {}


def control(name: str) -> ControlId:
    return _ids.setdefault(name, ControlId(name))


def _info(found: tuple[Any, Any, Any]) -> Any:
    low, high, default = (Rectangle(*v) if isinstance(v, tuple) and len(v) == 4 else v for v in found)
    return SimpleNamespace(min=low, max=high, default=default)


class Stream:
    def __init__(self) -> None:
        self.configuration: Any = None


class StreamConfiguration:
    def __init__(self, formats: Any) -> None:
        self.formats = formats
        self.size, self.pixel_format, self.buffer_count = Size(640, 480), PixelFormat("YUV420"), 4
        self.stride = self.frame_size = 0
        self.color_space: Any = None
        self.stream = Stream()


class CameraConfiguration:
    class Status(enum.Enum):
        Valid = 0
        Adjusted = 1
        Invalid = 2

    def __init__(self, formats: Any, count: int) -> None:
        self._streams = [StreamConfiguration(formats) for _ in range(count)]
        self.orientation: Any = None
        self.sensor_config: Any = None

    def at(self, index: int) -> StreamConfiguration:
        return self._streams[index]

    def __iter__(self) -> Any:
        return iter(self._streams)

    def validate(self) -> CameraConfiguration.Status:
        for stream in self._streams:
            stream.stride = -(-stream.size.width // _GRAIN) * _GRAIN
            name = str(stream.pixel_format)
            stream.frame_size = stream.stride * stream.size.height * (3 if name == "YUV420" else 4) // 2
            stream.stream.configuration = stream
        return CameraConfiguration.Status.Valid


class FrameBuffer:
    class Plane:
        fd, offset, length = -1, 0, 0

    def __init__(self, planes: list[Any]) -> None:
        self.planes = planes
        plane = SimpleNamespace(bytes_used=planes[0].length)
        self.metadata = SimpleNamespace(status="success", planes=[plane])


class Request:
    class Status(enum.Enum):
        Complete = 1

    def __init__(self, cookie: int) -> None:
        self.cookie, self.status = cookie, Request.Status.Complete
        self.buffers: dict[Stream, FrameBuffer] = {}
        self.metadata: dict[ControlId, Any] = {}
        self.controls: dict[ControlId, Any] = {}

    def add_buffer(self, stream: Stream, buffer: FrameBuffer) -> None:
        self.buffers[stream] = buffer

    def set_control(self, id: ControlId, value: Any) -> None:
        self.controls[id] = value

    def reuse(self) -> None:
        self.controls = {}


class Camera:
    def __init__(self, manager: CameraManager) -> None:
        self._manager = weakref.ref(manager)
        self.id = ID
        self.properties = {
            control("Model"): MODEL,
            control("Location"): 2,
            control("Rotation"): 0,
            control("ColorFilterArrangement"): 0,
        }
        self._ranges = dict(facts.STATIC_CONTROLS)
        self._queued: list[Request] = []
        self._running: threading.Event | None = None

    @property
    def controls(self) -> dict[ControlId, Any]:
        return {control(name): _info(found) for name, found in self._ranges.items()}

    def generate_configuration(self, roles: list[str]) -> CameraConfiguration:
        by_format: dict[str, list[Size]] = {}
        for mode in MODES:
            by_format.setdefault(mode["format"], []).append(Size(*mode["size"]))
        raw = {PixelFormat(name): sizes for name, sizes in by_format.items()}
        formats = SimpleNamespace(pixel_formats=list(raw), sizes=lambda pixel: raw[pixel])
        return CameraConfiguration(formats, len(roles))

    def acquire(self) -> None:
        if machine.refuse:
            raise RuntimeError(machine.refuse)

    def release(self) -> None:
        return None

    def configure(self, configuration: CameraConfiguration) -> int:
        """From now on the ranges are those of the sensor's mode."""
        size = configuration.sensor_config.output_size
        mode = next(mode for mode in MODES if mode["size"] == (size.width, size.height))
        self._ranges = {**CONTROLS, "FrameDurationLimits": (round(1e6 / mode["fps"]), 694_434_742, None)}
        self._ranges["ScalerCrop"] = ((0, 0, 64, 64), mode["crop_limits"], mode["crop_limits"])
        if sum(1 for stream in configuration if str(stream.pixel_format) == "YUV420") == 2:
            self._ranges["ScalerCrops"] = (mode["crop_limits"],) * 3
        return 0

    def create_request(self, cookie: int) -> Request:
        return Request(cookie)

    def queue_request(self, request: Request) -> None:
        if request.controls:
            machine.started.append({id.name: value for id, value in request.controls.items()})
        self._queued.append(request)

    def start(self, controls: dict[ControlId, Any]) -> None:
        machine.started.append({id.name: value for id, value in controls.items()})
        self._running = stop = threading.Event()
        threading.Thread(target=self._frames, args=(stop,), daemon=True).start()

    def stop(self) -> None:
        if self._running is not None:
            self._running.set()
        self._queued.clear()

    def _frames(self, stop: threading.Event) -> None:
        while not stop.wait(1 / machine.fps):
            manager = self._manager()
            if self._queued and manager is not None:
                request = self._queued.pop(0)
                request.metadata = {control("SensorTimestamp"): time.monotonic_ns(), control("ExposureTime"): 10_000}
                request.metadata |= {control("FocusFoM"): 812, control("AnalogueGain"): 2.0}
                manager.complete(request)


class CameraManager:
    _alive: weakref.ref[CameraManager] | None = None

    def __init__(self) -> None:
        machine.tunings.append(_tuning_file())
        self.cameras = [Camera(self)]
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self._ready: list[Request] = []
        self._lock = threading.Lock()

    @staticmethod
    def singleton() -> CameraManager:
        manager = CameraManager._alive() if CameraManager._alive is not None else None
        if manager is None:
            manager = CameraManager()
            CameraManager._alive = weakref.ref(manager)
        return manager

    def complete(self, request: Request) -> None:
        with self._lock:
            self._ready.append(request)
        os.eventfd_write(self.event_fd, 1)

    def get_ready_requests(self) -> list[Request]:
        try:
            os.eventfd_read(self.event_fd)
        except BlockingIOError:
            return []
        with self._lock:
            ready, self._ready = self._ready, []
        return ready

    def __del__(self) -> None:
        os.close(self.event_fd)


def _tuning_file() -> str:
    """ipaConfigurationFile: the variable for one file, then the folders, then libcamera's own."""
    if name := os.environ.get("LIBCAMERA_RPI_TUNING_FILE"):
        return name
    for folder in os.environ.get("LIBCAMERA_IPA_CONFIG_PATH", "").split(":"):
        path = Path(folder, "rpi/vc4", f"{MODEL}.json")
        if folder and path.is_file():
            return str(path.resolve())
    return "its own"


class _Names:
    """A constant for every name."""

    def __getattr__(self, name: str) -> str:
        return name


class MemoryHeap:
    """picamera2's DmaHeap on ordinary memory, with as much of it as the machine has."""

    def alloc(self, name: str, size: int) -> Any:
        from picamera2.dma_heap import UniqueFD

        machine.allocated += size
        if machine.memory is not None and machine.allocated > machine.memory:
            raise OSError(12, "Cannot allocate memory")
        fd = os.memfd_create(name)
        os.truncate(fd, size)
        return UniqueFD(fd)

    def close(self) -> None:
        return None


def install() -> None:
    """Before picamera2 is imported."""
    libcamera = ModuleType("libcamera")
    for name in ("Size", "Rectangle", "Transform", "ColorSpace", "PixelFormat", "ControlType", "CameraConfiguration"):
        setattr(libcamera, name, globals()[name])
    for name in ("FrameBuffer", "Request", "Camera", "CameraManager"):
        setattr(libcamera, name, globals()[name])
    roles = ("StillCapture", "Raw", "VideoRecording", "Viewfinder")
    orientations = [f"Rotate{angle}{mirror}" for angle in (0, 90, 180, 270) for mirror in ("", "Mirror")]
    noise = SimpleNamespace(Minimal=3, Fast=1, HighQuality=2)
    names = ("ExposureTime", "ExposureTimeMode", "AnalogueGain", "AnalogueGainMode")
    draft = SimpleNamespace(NoiseReductionModeEnum=noise)
    controls = SimpleNamespace(draft=draft, **{name: control(name) for name in names})
    arrangement = SimpleNamespace(ColorFilterArrangementEnum=SimpleNamespace(MONO=6))
    libcamera.__dict__.update(
        StreamRole=SimpleNamespace(**{name: name for name in roles}),
        Orientation=SimpleNamespace(**{name: name for name in orientations}),
        FrameMetadata=SimpleNamespace(Status=SimpleNamespace(Success="success")),
        SensorConfiguration=SimpleNamespace,
        controls=controls,
        properties=SimpleNamespace(draft=arrangement),
        _libcamera=libcamera,
        FrameBufferAllocator=object,
    )
    sys.modules["libcamera"] = libcamera
    sys.modules["prctl"] = ModuleType("prctl")
    pykms = ModuleType("pykms")
    pykms.PixelFormat = _Names()  # type: ignore[attr-defined]
    sys.modules["pykms"] = pykms
    import picamera2.allocators.dmaallocator as dma

    dma.DmaHeap = MemoryHeap
    dma.fcntl = SimpleNamespace(ioctl=lambda *arguments: 0)
