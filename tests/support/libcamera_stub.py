"""A stand-in for libcamera's Python binding, below the real picamera2 (real_picamera2.py puts it there).

What it obeys, and where that stands in raspberrypi/libcamera: ranges of controls before and after configure()
(src/ipa/rpi/common/ipa_base.cpp, ipaControls and IpaBase::configure; for ScalerCrop and ScalerCrops
src/libcamera/pipeline/rpi/common/pipeline_base.cpp); the tuning file is looked up when the camera manager starts
(src/libcamera/ipa_proxy.cpp, ipaConfigurationFile); one manager a process, freed with its last reference
(src/py/libcamera/py_camera_manager.cpp); a camera that somebody holds is refused by acquire(); formats, flips that a
camera lacks are adjusted in validate(), without a word; configure() and queue_request() want a camera in the right
state (src/libcamera/camera.cpp). Frames are paced in real time, and come only in buffers that were queued.

Which cameras there are, and what is wrong with them, `machine.cameras` says: FakeCamera of fake_picamera2.py.
"""

from __future__ import annotations

import enum
import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import camera_facts as facts

if TYPE_CHECKING:
    from fake_picamera2 import FakeCamera

_GRAIN = 64
_BYTES = {"YUV420": (3, 2), "NV12": (3, 2), "YUYV": (2, 1), "BGR888": (3, 1), "MJPEG": (2, 1), "XBGR8888": (4, 1)}


class Machine:
    """paint: a frame as it lies in a buffer, by the stream's format, size and stride."""

    def __init__(self) -> None:
        self.cameras: list[FakeCamera] = []
        self.is_pisp = False
        self.tunings: list[str] = []  # the file that each start of the camera manager has read
        self.tuning: list[str | None] = []  # LIBCAMERA_IPA_CONFIG_PATH at each
        self.paint: Callable[[str, int, int, int], bytes] = lambda name, width, height, stride: b""
        self.allocated: dict[int, tuple[int, int]] = {}  # descriptor -> inode, bytes

    def is_allocated(self) -> int:
        """Bytes of the buffers that nobody has closed."""

        def inode(fd: int) -> int:
            try:
                return os.fstat(fd).st_ino
            except OSError:
                return -1

        self.allocated = {fd: known for fd, known in self.allocated.items() if inode(fd) == known[0]}
        return sum(size for _, size in self.allocated.values())


machine = Machine()


class Geometry:
    """Size, Rectangle: tuples with names."""

    names: tuple[str, ...] = ()

    def __init__(self, *values: int) -> None:
        for name, value in zip(self.names, values or (0,) * len(self.names), strict=True):
            setattr(self, name, value)

    def to_tuple(self) -> tuple[int, ...]:
        return tuple(getattr(self, name) for name in self.names)


class Size(Geometry):
    names = ("width", "height")


class Rectangle(Geometry):
    names = ("x", "y", "width", "height")


class Transform:
    def __init__(self, other: Any = 0, *, hflip: int = 0, vflip: int = 0, transpose: int = 0) -> None:
        if isinstance(other, Transform):
            hflip, vflip, transpose = other.hflip, other.vflip, other.transpose
        self.hflip, self.vflip, self.transpose = bool(hflip), bool(vflip), bool(transpose)

    def __str__(self) -> str:
        return f"hflip={self.hflip} vflip={self.vflip} transpose={self.transpose}"

    def _key(self) -> tuple[bool, bool, bool]:
        return (self.hflip, self.vflip, self.transpose)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Transform) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


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


def plain(value: Any) -> Any:
    """What was sent, as a test compares it."""
    if isinstance(value, Geometry):
        return value.to_tuple()
    return [plain(item) for item in value] if isinstance(value, list) else value


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

    def __init__(self, fake: FakeCamera, formats: Any, count: int) -> None:
        self._fake = fake
        self._streams = [StreamConfiguration(formats) for _ in range(count)]
        self.orientation: Any = None
        self.sensor_config: Any = None

    def at(self, index: int) -> StreamConfiguration:
        return self._streams[index]

    def __iter__(self) -> Any:
        return iter(self._streams)

    def _take_raw(self, stream: StreamConfiguration, name: str, status: Status) -> Status:
        """The sensor's mode decides. A Pi 5 compresses to eight bits (pisp.cpp, platformValidate)."""
        if self.sensor_config is not None:
            stream.size = self.sensor_config.output_size
        width, height = stream.size.to_tuple()
        if machine.is_pisp and name.startswith("S") and not name.endswith("16"):
            is_packed = "_CSI2P" in name
            name = f"{name[1:5]}_PISP_COMP1" if is_packed else f"{name[:5]}16"
            stream.pixel_format, status = PixelFormat(name), CameraConfiguration.Status.Adjusted
        bits = 8 if "PISP" in name else _bits(name) if "_CSI2P" in name else 16
        stream.stride = -(-width * bits // 8 // 32) * 32
        stream.frame_size = stream.stride * height
        stream.stream.configuration = stream
        return status

    def validate(self) -> CameraConfiguration.Status:
        status = CameraConfiguration.Status.Valid
        for stream in self._streams:
            name = str(stream.pixel_format)
            if not (self._fake.is_rpi or name in self._fake.formats):
                name = self._fake.formats[-1]
                stream.pixel_format, status = PixelFormat(name), CameraConfiguration.Status.Adjusted
            width, height = stream.size.to_tuple()
            if self._fake.is_rpi and _is_raw(name):
                status = self._take_raw(stream, name, status)
                continue
            per_line, rest = _BYTES.get(name, (2, 1))
            stream.stride = -(-width // _GRAIN) * _GRAIN * (per_line if rest == 1 and name != "MJPEG" else 1)
            stream.frame_size = stream.stride * height * (per_line if rest == 2 or name == "MJPEG" else 1) // rest
            stream.stream.configuration = stream
        if not self._fake.can_flip and self.orientation != "Rotate0":
            self.orientation, status = "Rotate0", CameraConfiguration.Status.Adjusted
        return status


def _is_raw(name: str) -> bool:
    is_bayer = name.startswith("S") and name[1:5].isalpha()
    return is_bayer or "_PISP_" in name or (name[:1] == "R" and name[1:2].isdigit())


def _bits(name: str) -> int:
    return int("".join(filter(str.isdigit, name.partition("_")[0])))


def raw_samples(bits: int) -> list[list[int]]:
    """What the sensor sees, by place in its pattern of two by two."""
    return [[(1 << bits) // 3, (1 << bits) // 5], [(1 << bits) // 7, (1 << bits) // 2 + 1]]


def _raw_line(name: str, pair: list[int], width: int) -> bytes:
    """Unpacked: two bytes a sample, the lower one first."""
    assert "_" not in name, f"{name}: nobody asks for it"
    return b"".join(sample.to_bytes(2, "little") for sample in pair) * (width // 2)


class FrameBuffer:
    class Plane:
        """Its file is a copy of the one that is given (SharedFD, src/py/libcamera/py_main.cpp): it outlives that, and
        no other buffer has its number meanwhile."""

        offset, length = 0, 0

        def __init__(self) -> None:
            self._fd = -1

        @property
        def fd(self) -> int:
            return self._fd

        @fd.setter
        def fd(self, number: int) -> None:
            self._fd = os.dup(number)

        def __del__(self) -> None:
            if self._fd >= 0:
                os.close(self._fd)

    def __init__(self, planes: list[Any]) -> None:
        self.planes = planes
        self.metadata = SimpleNamespace(status="success", planes=[SimpleNamespace(bytes_used=planes[0].length)])
        self.is_painted = False

    def paint(self, stream: StreamConfiguration) -> None:
        """What the camera writes into it; always the same, so once."""
        name = str(stream.pixel_format)
        if not self.is_painted and _is_raw(name) and "_PISP_" not in name:
            width, height = stream.size.to_tuple()
            lines = [_raw_line(name, pair, width).ljust(stream.stride, b"\xee") for pair in raw_samples(_bits(name))]
            os.pwrite(self.planes[0].fd, b"".join(lines) * (height // 2), 0)
        elif not self.is_painted and not _is_raw(name):
            data = machine.paint(name, *stream.size.to_tuple(), stream.stride)
            if name == "MJPEG":
                self.metadata.planes[0].bytes_used = data.rindex(b"\xff\xd9", 0, data.index(b"\x55" * 9)) + 2
            os.pwrite(self.planes[0].fd, data[: self.planes[0].length], 0)
        self.is_painted = True


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
    def __init__(self, fake: FakeCamera, complete: Callable[[list[Request]], None]) -> None:
        self.fake = fake
        self._complete = complete
        self.id = fake.id
        self.properties = {control("Model"): fake.model, control("Rotation"): 0}
        if fake.location is not None:
            self.properties[control("Location")] = fake.location
        if fake.is_rpi:
            self.properties[control("ColorFilterArrangement")] = 0
        self._ranges = dict(fake.controls)
        if fake.is_rpi:
            lens = facts.STATIC_LENS_CONTROLS if "AfMode" in fake.controls else {}
            self._ranges = facts.STATIC_CONTROLS | lens | (facts.STATIC_PISP_CONTROLS if machine.is_pisp else {})
        self.queued: list[Request] = []
        self.delivered: dict[str, Any] = {}  # controls that have reached libcamera since configure()
        self._configuration: CameraConfiguration | None = None
        self._running: threading.Event | None = None

    @property
    def controls(self) -> dict[ControlId, Any]:
        return {control(name): _info(found) for name, found in self._ranges.items()}

    def generate_configuration(self, roles: list[str]) -> CameraConfiguration:
        by_format: dict[str, list[Size]] = {}
        if self.fake.is_rpi:
            for mode in self.fake.modes:
                by_format.setdefault(mode["format"], []).append(Size(*mode["size"]))
        else:
            by_format = {name: [Size(*size) for size in self.fake.sizes] for name in self.fake.formats}
        pixels = {PixelFormat(name): sizes for name, sizes in by_format.items()}
        formats = SimpleNamespace(pixel_formats=list(pixels), sizes=lambda pixel: pixels[pixel])
        return CameraConfiguration(self.fake, formats, len(roles))

    def acquire(self) -> None:
        fake = self.fake
        fake.step("open")
        if fake.refuse or fake.holder is not None:
            raise RuntimeError(fake.refuse or "Failed to acquire camera: Device or resource busy")
        fake.holder = self
        fake.opened += 1

    def release(self) -> None:
        if self.fake.holder is self:
            self.fake.holder = None

    def configure(self, configuration: CameraConfiguration) -> int:
        """From now on the ranges are those of the sensor's mode."""
        if self._running is not None:
            return -13  # EACCES: Camera::Private::isAccessAllowed
        self.delivered = {}
        self._configuration = configuration
        if not self.fake.is_rpi:
            return 0
        streams = [stream for stream in configuration if not _is_raw(str(stream.pixel_format))]
        if len(streams) == 2 and not self.fake.has_lores:
            return -12
        wanted = configuration.sensor_config
        mode = next(
            mode
            for mode in self.fake.modes
            if (mode["size"], mode["bit_depth"]) == (wanted.output_size.to_tuple(), wanted.bit_depth)
        )
        crop = mode["crop_limits"]
        self._ranges = {**self.fake.controls, "FrameDurationLimits": (round(1e6 / mode["fps"]), 694_434_742, None)}
        self._ranges["ScalerCrop"] = ((0, 0, 64, 64), crop, crop)
        if len(streams) == 2:
            self._ranges["ScalerCrops"] = (crop, crop, crop)
        return 0

    def create_request(self, cookie: int) -> Request:
        return Request(cookie)

    def queue_request(self, request: Request) -> None:
        if self.fake.is_gone:
            raise RuntimeError("Failed to queue request: No such device")
        if self._running is None:
            raise RuntimeError("Failed to queue request: Permission denied")
        self._take_controls(request.controls)
        self.queued.append(request)

    def start(self, controls: dict[ControlId, Any]) -> None:
        self._take_controls(controls)
        self._running = stop = threading.Event()
        threading.Thread(target=self._frames, args=(stop,), daemon=True, name="libcamera stub").start()

    def stop(self) -> None:
        if self._running is not None:
            self._running.set()
            self._running = None
        self.queued.clear()

    def _take_controls(self, controls: dict[ControlId, Any]) -> None:
        self.delivered |= {id.name: plain(value) for id, value in controls.items()}

    def _frames(self, stop: threading.Event) -> None:
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            fake = self.fake
            taken_ns = int(due * 1e9) - 5_000_000 + fake.boot_offset_ns
            due = max(due + 1 / fake.fps, time.monotonic() - 1.0)
            if fake.stalled.is_set() or fake.is_gone or fake not in machine.cameras:
                continue
            ready = [self.queued.pop(0) for _ in range(min(fake.batch, len(self.queued)))]
            for later, request in enumerate(ready):
                at_ns = taken_ns + later * 1_000_000
                lens = {"LensPosition": 2.0, "AfState": 2} if "AfMode" in fake.controls else {}
                told = {"SensorTimestamp": at_ns, "ExposureTime": 10_000, "FocusFoM": 812, "AnalogueGain": 2.0, **lens}
                if fake.is_rpi:  # ipa_base.cpp, reportMetadata
                    told |= {"DigitalGain": 1.0, "ColourGains": (2.0, 1.5), "SensorBlackLevels": (4096,) * 4}
                    told["ColourCorrectionMatrix"] = (1.6, -0.4, -0.2, -0.4, 1.7, -0.3, -0.1, -0.6, 1.7)
                request.metadata = {control(name): value for name, value in told.items()}
                for stream, buffer in request.buffers.items():
                    buffer.paint(stream.configuration)
            if ready and not stop.is_set():
                self._complete(ready)


class CameraManager:
    _alive: weakref.ref[CameraManager] | None = None

    def __init__(self) -> None:
        machine.tunings.append(_tuning_file())
        machine.tuning.append(os.environ.get("LIBCAMERA_IPA_CONFIG_PATH"))
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK)
        self._cameras: dict[int, Camera] = {}
        self._ready: list[Request] = []
        self._lock = threading.Lock()

    @staticmethod
    def singleton() -> CameraManager:
        manager = CameraManager._alive() if CameraManager._alive is not None else None
        if manager is None:
            manager = CameraManager()
            CameraManager._alive = weakref.ref(manager)
        return manager

    @property
    def cameras(self) -> list[Camera]:
        here = weakref.ref(self)

        def complete(ready: list[Request]) -> None:
            manager = here()
            if manager is not None:
                manager.complete(ready)

        for fake in machine.cameras:
            if id(fake) not in self._cameras:
                self._cameras[id(fake)] = Camera(fake, complete)
        return [self._cameras[id(fake)] for fake in sorted(machine.cameras, key=lambda fake: fake.num)]

    def complete(self, ready: list[Request]) -> None:
        with self._lock:
            self._ready += ready
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
    model = machine.cameras[0].model if machine.cameras else ""
    for folder in os.environ.get("LIBCAMERA_IPA_CONFIG_PATH", "").split(":"):
        path = Path(folder, "rpi/vc4", f"{model}.json")
        if folder and path.is_file():
            return str(path.resolve())
    return "its own"


class _Names:
    """A constant for every name."""

    def __getattr__(self, name: str) -> str:
        return name


class _Controls:
    """libcamera.controls: an id for every name."""

    draft = SimpleNamespace(NoiseReductionModeEnum=SimpleNamespace(Minimal=3, Fast=1, HighQuality=2))

    def __getattr__(self, name: str) -> ControlId:
        return control(name)


class MemoryHeap:
    """picamera2's DmaHeap on ordinary memory, with as much of it as the camera's machine has."""

    def alloc(self, name: str, size: int) -> Any:
        from picamera2.dma_heap import UniqueFD

        limits = [fake.memory for fake in machine.cameras if fake.memory is not None]
        if limits and machine.is_allocated() + size > min(limits):
            raise OSError(12, "Cannot allocate memory")
        fd = os.memfd_create(name)
        os.truncate(fd, size)
        machine.allocated[fd] = (os.fstat(fd).st_ino, size)
        return UniqueFD(fd)

    def close(self) -> None:
        return None


def modules() -> dict[str, ModuleType]:
    """What picamera2 is to find when it is imported."""
    libcamera = ModuleType("libcamera")
    for name in ("Size", "Rectangle", "Transform", "ColorSpace", "PixelFormat", "ControlType", "CameraConfiguration"):
        setattr(libcamera, name, globals()[name])
    for name in ("FrameBuffer", "Request", "Camera", "CameraManager"):
        setattr(libcamera, name, globals()[name])
    roles = ("StillCapture", "Raw", "VideoRecording", "Viewfinder")
    orientations = [f"Rotate{angle}{mirror}" for angle in (0, 90, 180, 270) for mirror in ("", "Mirror")]
    arrangement = SimpleNamespace(ColorFilterArrangementEnum=SimpleNamespace(MONO=6))
    libcamera.__dict__.update(
        StreamRole=SimpleNamespace(**{name: name for name in roles}),
        Orientation=SimpleNamespace(**{name: name for name in orientations}),
        FrameMetadata=SimpleNamespace(Status=SimpleNamespace(Success="success")),
        SensorConfiguration=SimpleNamespace,
        controls=_Controls(),
        properties=SimpleNamespace(draft=arrangement),
        _libcamera=libcamera,
        FrameBufferAllocator=object,
    )
    pykms = ModuleType("pykms")
    pykms.PixelFormat = _Names()  # type: ignore[attr-defined]
    return {"libcamera": libcamera, "prctl": ModuleType("prctl"), "pykms": pykms}
