"""A stand-in at picamera2's public interface, with the habits of 0.3.36 that matter, bad ones included.

Camera and encoder run in one thread, as with NullPreview and libav: an exception in a callback or an output ends that
thread for good and nobody is told, and `stop()` waits for ever for it. `Picamera2(n)` takes the position in the list.
When frames stop nothing is raised.

Where its rules come from: picamera2/picamera2.py (constructor, `configure_`, `sensor_modes`, `process_requests`,
`CameraManager`), picamera2/allocators, picamera2/encoders/encoder.py; libcamera's src/ipa/rpi/common/ipa_base.cpp
(ranges before and after configure()) and src/libcamera/pipeline/rpi/common/pipeline_base.cpp (ScalerCrops).
`tests/support/libcamera_stub.py` obeys the same rules below the real picamera2.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import av
import camera_facts as facts
import numpy as np


@dataclass
class FakeCamera:
    """One camera of the machine and its faults."""

    id: str
    model: str
    modes: list[dict[str, Any]]
    controls: dict[str, tuple[Any, Any, Any]]
    location: int | None = 2
    num: int = 0
    sizes: list[tuple[int, int]] = field(default_factory=list)
    formats: tuple[str, ...] = ("YUV420", "BGR888")
    fps: float = 50.0
    is_rpi: bool = True
    has_lores: bool = True
    boot_offset_ns: int = 0
    is_gone: bool = False
    stalled: threading.Event = field(default_factory=threading.Event)
    refuse: str = ""
    hang_in: set[str] = field(default_factory=set)
    unhang: threading.Event = field(default_factory=threading.Event)
    holder: Any = None
    opened: int = 0
    can_flip: bool = True
    batch: int = 1
    memory: int | None = None
    calls: list[str] = field(default_factory=list)

    def step(self, name: str) -> None:
        self.calls.append(name)
        if name in self.hang_in:
            self.unhang.wait(60)


def imx219(**changes: Any) -> FakeCamera:
    return FakeCamera(facts.IMX219_ID, "imx219", facts.IMX219_MODES, facts.IMX219_CONTROLS, **changes)


def imx477(**changes: Any) -> FakeCamera:
    return FakeCamera(facts.IMX477_ID, "imx477", facts.IMX477_MODES, facts.IMX477_CONTROLS, **changes)


def imx708(**changes: Any) -> FakeCamera:
    return FakeCamera(facts.IMX708_ID, "imx708", facts.IMX708_MODES, facts.IMX708_CONTROLS, **changes)


def ov5647(**changes: Any) -> FakeCamera:
    return FakeCamera(facts.OV5647_ID, "ov5647", facts.OV5647_MODES, facts.OV5647_CONTROLS, **changes)


def imx296(**changes: Any) -> FakeCamera:
    return FakeCamera(facts.IMX296_ID, "imx296", facts.IMX296_MODES, facts.IMX296_CONTROLS, **changes)


def usb(**changes: Any) -> FakeCamera:
    defaults: dict[str, Any] = {
        "is_rpi": False,
        "sizes": [(1920, 1080), (1280, 720), (640, 480)],
        "location": None,
    }
    modes = [{"format": "MJPEG"}, {"format": "YUYV"}]
    return FakeCamera(facts.USB_ID, "HD Pro Webcam C920", modes, facts.USB_CONTROLS, **{**defaults, **changes})


class CompletedRequest:
    """A buffer that is not released is missing in the camera for ever."""

    def __init__(self, owner: Picamera2, timestamp_ns: int) -> None:
        self._owner = owner
        self._timestamp_ns = timestamp_ns
        self._uses = 1
        self._drawn: dict[str, bytearray] = {}  # buffers that were mapped to be written to

    def acquire(self) -> None:
        with self._owner.buffer_lock:
            if self._uses == 0:
                raise RuntimeError("CompletedRequest: acquiring lock with ref_count 0")
            self._uses += 1

    def release(self) -> None:
        with self._owner.buffer_lock:
            self._uses -= 1
            if self._uses < 0:
                raise RuntimeError("CompletedRequest: lock now has negative ref_count")
            if self._uses == 0:
                if self._owner.fake.is_gone:
                    raise RuntimeError("Failed to queue request: No such device")
                self._owner.buffers_free += 1

    def get_metadata(self) -> dict[str, Any]:
        lens = {"LensPosition": 2.0, "AfState": 2} if "AfMode" in self._owner.camera_controls else {}
        return {"SensorTimestamp": self._timestamp_ns, "ExposureTime": 10_000, "FocusFoM": 812, **lens}

    @property
    def request(self) -> Any:
        """libcamera's: buffers by stream, with how much of each is used."""
        used = len(jpeg(*self._owner.camera_config["main"]["size"])) if self._owner.is_mjpeg else 0
        plane = SimpleNamespace(bytes_used=used)
        return SimpleNamespace(buffers={"main": SimpleNamespace(metadata=SimpleNamespace(planes=[plane]))})

    stream_map: ClassVar[dict[str, str]] = {"main": "main", "lores": "lores"}

    def make_buffer(self, name: str) -> bytearray:
        return self._drawn[name] if name in self._drawn else self._buffer(name)

    def _buffer(self, name: str) -> bytearray:
        stream = self._owner.camera_config[name]
        (width, height), stride = stream["size"], stream["stride"]
        if stream["format"] == "BGR888":
            return bytearray(b"\x33" * stride * height)
        if stream["format"] == "YUYV":
            line = b"\x10\x80\x10\x90" * (width // 2) + b"\xee" * (stride - 2 * width)
            return bytearray(line * height + b"\xee" * 512)
        if stream["format"] == "NV12":
            return bytearray(
                (b"\x10" * width + b"\xee" * (stride - width)) * height + b"\x80\x90" * (stride * height // 4)
            )
        if stream["format"] == "MJPEG":  # in a buffer with room, where the end of a longer one is left
            return bytearray(jpeg(width, height) + b"\x55" * 999 + b"\xff\xd9" + bytes(50))
        luma = (b"\x10" * width + b"\xee" * (stride - width)) * height
        chroma = (b"\x80" * (width // 2) + b"\xee" * (stride // 2 - width // 2)) * (height // 2)
        return bytearray(luma + chroma + chroma + b"\xee" * 512)


class MappedArray:
    def __init__(self, request: CompletedRequest, stream: str, reshape: bool = True, write: bool = True) -> None:
        assert not reshape, "reshaping an MJPEG buffer fails in picamera2"
        buffer = request.make_buffer(stream)
        if write:
            request._drawn[stream] = buffer
        self.array = np.frombuffer(buffer, np.uint8)

    def __enter__(self) -> MappedArray:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


class Allocator:
    """picamera2's base class: allocates nothing."""


class Transform:
    def __init__(self, hflip: bool = False, vflip: bool = False) -> None:
        self.hflip, self.vflip = bool(hflip), bool(vflip)


class Output:
    def __init__(self, pts: Any = None) -> None:
        self.recording = False

    def start(self) -> None:
        self.recording = True

    def stop(self) -> None:
        self.recording = False


@cache
def jpeg(width: int = 1280, height: int = 720) -> bytes:
    """A real one, of one colour."""
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "yuvj420p", Fraction(1, 25)
    picture = av.VideoFrame(width, height, "yuvj420p")
    for plane, value in zip(picture.planes, (100, 128, 128), strict=True):
        plane.update(bytes((value,)) * plane.buffer_size)
    picture.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)])


class Encoder:
    """As it is, it passes on the buffers of the camera; its subclasses encode."""

    def __init__(self) -> None:
        self.output: Any = None
        self.name = ""
        self.size = (0, 0)
        self._format = ""
        self.stride = 0
        self.framerate: Any = None
        self.firsttimestamp: int | None = None
        self.frame_skip_count = 1
        self.running = False
        self.forced = 0
        self.iperiod = 30
        self._skip = 0
        self._frames = 0

    @property
    def format(self) -> str:
        return self._format

    @format.setter
    def format(self, value: str) -> None:
        if value == "MJPEG":
            raise RuntimeError("Invalid format: MJPEG. Valid formats are: ...")
        self._format = value

    def start(self, quality: Any = None) -> None:
        self.firsttimestamp = None
        self.running = True
        self.output.start()

    def stop(self) -> None:
        if not self.running:
            raise RuntimeError("Encoder already stopped")
        self.running = False
        self.output.stop()

    def encode(self, name: str, request: CompletedRequest) -> None:
        if self._skip == 0 and self.running:
            is_key = self._frames % self.iperiod == 0 or self._take_forced()
            self._key = is_key
            self._encode(name, request)
            self._frames += 1
        self._skip = (self._skip + 1) % self.frame_skip_count

    def _encode(self, stream: str, request: CompletedRequest) -> None:
        timestamp = self._timestamp(request)
        unit = request.make_buffer(stream) if type(self) is Encoder else self._unit(self._key)
        self.outputframe(unit, self._key, timestamp)

    def _timestamp(self, request: CompletedRequest) -> int:
        timestamp: int = request.get_metadata()["SensorTimestamp"] // 1000
        if self.firsttimestamp is None:
            self.firsttimestamp = timestamp
        return timestamp - self.firsttimestamp

    def outputframe(
        self, frame: bytes, keyframe: bool = True, timestamp: int | None = None, packet: Any = None, audio: bool = False
    ) -> None:
        self.output.outputframe(frame, keyframe, timestamp, packet, audio)

    def _unit(self, is_key: bool) -> bytes:
        start = b"\0\0\0\1\x67SPS\0\0\0\1\x68PPS\0\0\0\1\x65" if is_key else b"\0\0\0\1\x41"
        return start + bytes(200)

    def _take_forced(self) -> bool:
        forced, self.forced = self.forced > 0, 0
        return forced

    def force_key_frame(self) -> None:
        self.forced += 1


class H264Encoder(Encoder):
    """The V4L2 one."""

    def __init__(
        self,
        bitrate: int | None = None,
        repeat: bool = True,
        iperiod: int | None = None,
        framerate: float | None = None,
        enable_sps_framerate: bool = False,
        qp: int | None = None,
        profile: str | None = None,
    ) -> None:
        super().__init__()
        self.bitrate, self.repeat, self.framerate = bitrate, repeat, framerate
        self.iperiod = iperiod or 60


class LibavH264Encoder(Encoder):
    def __init__(
        self,
        bitrate: int | None = None,
        repeat: bool = True,
        iperiod: int = 30,
        framerate: Any = 30,
        qp: int | None = None,
        profile: str | None = None,
    ) -> None:
        super().__init__()
        self.bitrate, self.repeat, self.framerate = bitrate, repeat, framerate
        self.iperiod = iperiod
        _ = framerate.numerator  # PyAV wants a rational number

    def _take_forced(self) -> bool:
        if self.forced:
            raise TypeError("an integer is required")  # frame.pict_type = "I"
        return False


class NullPreview:
    """The event loop; what raises in it ends it."""

    def __init__(self) -> None:
        self._abort = threading.Event()

    def start(self, picam2: Picamera2) -> None:
        self._thread = threading.Thread(target=self.thread_func, args=(picam2,), name="fake camera", daemon=True)
        self._thread.start()

    def thread_func(self, picam2: Picamera2) -> None:
        try:
            due = time.monotonic()
            while not self._abort.wait(due - time.monotonic()):
                picam2.taken_ns = int(due * 1e9)  # the sensor's clock keeps its pace however late anybody looks
                self.handle_request(picam2)
                due += 1 / picam2.fake.fps
        except Exception as exc:
            picam2.died = exc

    def handle_request(self, picam2: Picamera2) -> None:
        picam2.process_requests(self)

    def stop(self) -> None:
        self._abort.set()
        self._thread.join(10)


class MJPEGEncoder(Encoder):
    """The V4L2 one; whether the driver marks its pictures as key frames is left open here."""

    def __init__(self, bitrate: int | None = None) -> None:
        super().__init__()
        self.bitrate = bitrate
        self.iperiod = 1 << 30

    def _unit(self, is_key: bool) -> bytes:
        return jpeg()


class Machine:
    """All cameras, as Picamera2.global_camera_info() lists them."""

    cameras: list[FakeCamera]

    def __init__(self) -> None:
        self.cameras = []
        self.tuning: list[str | None] = []  # LIBCAMERA_IPA_CONFIG_PATH at each start of the camera manager


class CameraManager:
    """Keeps a thread while there are cameras in it; starts libcamera's manager when it is asked for cameras."""

    def __init__(self) -> None:
        self.cameras: dict[int, Picamera2] = {}
        self.is_started = False

    def start(self) -> None:
        if not self.is_started:
            self.is_started = True
            Picamera2.machine.tuning.append(os.environ.get("LIBCAMERA_IPA_CONFIG_PATH"))

    def reset(self) -> None:
        assert not any(camera.is_open for camera in self.cameras.values()), "libcamera aborts the process"
        self.is_started = False
        self.start()

    def cleanup(self, index: int) -> None:
        del self.cameras[index]
        if not self.cameras:
            self.is_started = False


class Platform(Enum):
    VC4 = 0
    PISP = 1


class Picamera2:
    machine = Machine()
    platform = Platform.VC4
    _cm = CameraManager()

    @staticmethod
    def global_camera_info() -> list[dict[str, Any]]:
        Picamera2._cm.start()
        found: list[dict[str, Any]] = []
        for camera in Picamera2.machine.cameras:
            info: dict[str, Any] = {"Model": camera.model, "Id": camera.id, "Num": camera.num, "Rotation": 0}
            if camera.location is not None:
                info["Location"] = camera.location
            found.append(info)
        return sorted(found, key=lambda info: ("/usb" not in info["Id"], info["Id"]), reverse=True)

    def __init__(self, camera_num: int = 0, *, allocator: Allocator | None = None) -> None:
        os.environ.pop("LIBCAMERA_RPI_TUNING_FILE", None)
        self.notifyme_r, self.notifyme_w = os.pipe2(os.O_NONBLOCK)
        self.notifymeread = os.fdopen(self.notifyme_r, "rb")
        self._preview: NullPreview | None = None
        self.is_open = False
        wanted = self.global_camera_info()[camera_num]["Id"]
        self.fake = fake = next(camera for camera in Picamera2.machine.cameras if camera.id == wanted)
        self.camera_idx = fake.num
        self._cm.cameras[self.camera_idx] = self
        fake.step("open")
        if fake.refuse or fake.holder is not None:
            cause = RuntimeError(fake.refuse or "Failed to acquire camera: Device or resource busy")
            raise RuntimeError("Camera __init__ sequence did not complete.") from cause
        fake.holder = self
        fake.opened += 1
        self.is_open = True
        self.taken_ns = 0
        self._is_configured = False
        self._has_allocator = allocator is None
        self.is_mjpeg = False
        self.lock = threading.Lock()
        self.buffer_lock = threading.Lock()
        self.buffers_free = 0
        self.pre_callback: Callable[[CompletedRequest], None] | None = None
        self.camera_config: dict[str, Any] = {}
        self.started = False
        self._encoders: set[Encoder] = set()
        self._stop_job: threading.Event | None = None
        self.died: BaseException | None = None
        self.set: dict[str, Any] = {}
        sizes = [SimpleNamespace(width=w, height=h) for w, h in fake.sizes]
        formats = SimpleNamespace(pixel_formats=list(fake.formats), sizes=lambda _: sizes)
        config = SimpleNamespace(at=lambda _: SimpleNamespace(formats=formats))
        self.camera = SimpleNamespace(generate_configuration=lambda roles: config)

    def __del__(self) -> None:
        self.notifymeread.close()

    @property
    def camera_properties(self) -> dict[str, Any]:
        return {"Model": self.fake.model} | ({"ColorFilterArrangement": 0} if self.fake.is_rpi else {})

    @property
    def sensor_format(self) -> str:
        """Of its largest mode."""
        return str(self.fake.modes[-1]["format"])

    @property
    def camera_controls(self) -> dict[str, tuple[Any, Any, Any]]:
        fake = self.fake
        if not fake.is_rpi:
            return fake.controls
        is_pisp = self.platform is Platform.PISP
        if not self._is_configured:
            lens = facts.STATIC_LENS_CONTROLS if "AfMode" in fake.controls else {}
            return facts.STATIC_CONTROLS | lens | (facts.STATIC_PISP_CONTROLS if is_pisp else {})
        found = dict(fake.controls)
        if self.camera_config.get("lores"):  # the default crops of the two streams
            whole = fake.controls["ScalerCrop"][1]
            found["ScalerCrops"] = (whole, whole, whole)
        return found

    @property
    def sensor_modes(self) -> list[dict[str, Any]]:
        self.fake.step("sensor_modes")
        for mode in self.fake.modes:  # each is configured, with four raw buffers
            if "size" in mode:
                self._allocate(4 * mode["size"][0] * mode["size"][1] * mode["bit_depth"] // 8)
                self._is_configured = True
        return self.fake.modes

    def _allocate(self, needed: int) -> None:
        if self._has_allocator and self.fake.memory is not None and needed > self.fake.memory:
            raise OSError(12, "Cannot allocate memory")

    def create_video_configuration(self, main: dict[str, Any], lores: Any = None, raw: Any = None, **kw: Any) -> Any:
        kw.setdefault("transform", Transform())
        return {"main": main, "lores": lores, "raw": raw, **kw}

    def configure(self, camera_config: dict[str, Any]) -> None:
        self.fake.step("configure")
        if self.started:
            raise RuntimeError("Camera must be stopped before configuring")
        self.camera_config = {}
        self._allocate(camera_config["buffer_count"] * math.prod(camera_config["main"]["size"]) * 3 // 2)
        if camera_config["lores"] is not None and not self.fake.has_lores:
            raise OSError(12, "Cannot allocate memory")
        for name in ("main", "lores"):
            wanted = camera_config[name]
            if wanted is None:
                self.camera_config[name] = None
                continue
            chosen = wanted["format"] if wanted["format"] in self.fake.formats else self.fake.formats[-1]
            width, height = wanted["size"]
            line = -(-width // 64) * 64 * {"BGR888": 3, "YUYV": 2}.get(chosen, 1)
            self.camera_config[name] = {"format": chosen, "size": (width, height), "stride": line}
        wanted = camera_config["transform"]
        self.camera_config["transform"] = wanted if self.fake.can_flip else Transform()
        self.is_mjpeg = self.camera_config["main"]["format"] == "MJPEG"
        self._is_configured = True
        self.asked = camera_config
        self.set = {}
        self.set_controls(camera_config.get("controls", {}))
        if "ScalerCrops" in self.camera_controls:
            self.set_controls({"ScalerCrops": list(self.camera_controls["ScalerCrops"][:2])})
        self.buffers_free = camera_config["buffer_count"]

    def camera_configuration(self) -> dict[str, Any]:
        return self.camera_config

    def set_controls(self, controls: dict[str, Any]) -> None:
        for key in controls:
            if key not in self.camera_controls:
                raise RuntimeError(f"Control {key} is not advertised by libcamera")
        self.set |= controls

    def start(self, show_preview: Any = False) -> None:
        self.fake.step("start")
        self.started = True
        if self._preview is None:
            self._preview = show_preview or NullPreview()
            self._preview.start(self)

    def stop(self) -> None:
        self.fake.step("stop")
        if not self.started:
            return
        done = self._stop_job = threading.Event()  # a job of the event loop; waits for ever when that is dead
        while not done.wait(0.05) and not self.fake.unhang.is_set():
            continue

    def close(self) -> None:
        self.fake.step("close")
        if self._preview is not None:
            self._preview.stop()
            self._preview = None
        if not self.is_open:
            return  # the pipe stays open
        self.started = self.is_open = False
        if self.fake.holder is self:
            self.fake.holder = None
        self._cm.cleanup(self.camera_idx)
        self.notifymeread.close()
        os.close(self.notifyme_w)

    def start_encoder(self, encoder: Encoder, output: Output, *, name: str) -> None:
        self.fake.step("start_encoder")
        if self.camera_config.get(name) is None:
            raise RuntimeError(f"Encode stream {name} was not defined")
        encoder.output = output
        encoder.name = name
        encoder.size = self.camera_config[name]["size"]
        self.camera_controls["FrameDurationLimits"]
        encoder.start()
        with self.lock:
            self._encoders.add(encoder)

    def stop_encoder(self, encoder: Encoder) -> None:
        self.fake.step("stop_encoder")
        encoder.stop()
        with self.lock:
            self._encoders.remove(encoder)

    @property
    def encoders(self) -> set[Encoder]:
        return self._encoders

    @encoders.setter
    def encoders(self, value: Encoder) -> None:
        self._encoders.add(value)

    def process_requests(self, display: NullPreview) -> None:
        job, self._stop_job = self._stop_job, None
        if job is not None:
            self.started = False
        if self.started and not self.fake.stalled.is_set() and self is self.fake.holder and self.buffers_free > 0:
            self._one_frame()
        if job is not None:
            self.buffers_free -= 1
            CompletedRequest(
                self, time.monotonic_ns()
            ).release()  # that of the display: after the job, before it is told
            job.set()

    def _one_frame(self) -> None:
        """What has come since the last look: a batch on a busy machine. All callbacks go before the first encoder."""
        requests = []
        for later_ns in range(0, self.fake.batch * 1_000_000, 1_000_000):
            with self.buffer_lock:
                self.buffers_free -= 1
            taken_ns = self.taken_ns - 5_000_000 + later_ns + self.fake.boot_offset_ns
            requests.append(CompletedRequest(self, taken_ns))
        with self.lock:
            if self.pre_callback is not None:
                for request in requests:
                    self.pre_callback(request)
            for request in requests:
                for encoder in self._encoders:
                    if self.camera_config.get(encoder.name):
                        encoder.encode(encoder.name, request)
                request.release()


def install(monkeypatch: Any, *cameras: FakeCamera, board: str = "pi4") -> Any:
    """Put the stand-in for picamera2 into place; returns msrecd.devices.picamera, imported anew with it."""
    package, allocators, encoders, outputs, previews = (
        ModuleType(f"picamera2{name}") for name in ("", ".allocators", ".encoders", ".outputs", ".previews")
    )
    libcamera = ModuleType("libcamera")
    Picamera2._cm = CameraManager()
    Picamera2.machine.tuning.clear()
    Picamera2.platform = Platform.PISP if board == "pi5" else Platform.VC4
    package.MappedArray = MappedArray  # type: ignore[attr-defined]
    allocators.Allocator = Allocator  # type: ignore[attr-defined]
    libcamera.Transform = Transform  # type: ignore[attr-defined]
    Picamera2.machine.cameras = list(cameras)
    package.Picamera2 = Picamera2  # type: ignore[attr-defined]
    package.CompletedRequest = CompletedRequest  # type: ignore[attr-defined]
    previews.NullPreview = NullPreview  # type: ignore[attr-defined]
    encoders.Encoder = Encoder  # type: ignore[attr-defined]
    encoders.LibavH264Encoder = LibavH264Encoder  # type: ignore[attr-defined]
    encoders.H264Encoder = LibavH264Encoder if board == "pi5" else H264Encoder  # type: ignore[attr-defined]
    encoders.MJPEGEncoder = MJPEGEncoder  # type: ignore[attr-defined]
    outputs.Output = Output  # type: ignore[attr-defined]
    libcamera.StreamRole = SimpleNamespace(VideoRecording=object())  # type: ignore[attr-defined]
    for module in (package, allocators, encoders, outputs, previews, libcamera):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return import_anew(monkeypatch)


def import_anew(monkeypatch: Any) -> Any:
    """msrecd's backend, with the picamera2 that is in sys.modules."""
    for name in ("device", "backend"):
        monkeypatch.delitem(sys.modules, f"msrecd.devices.picamera.{name}", raising=False)
        monkeypatch.delattr(f"msrecd.devices.picamera.{name}", raising=False)
    import msrecd.devices.picamera.backend as backend

    return backend
