"""The real picamera2 (PyPI) over libcamera_stub.py, behind the same names as fake_picamera2.py, for the same tests.

All of picamera2 is its own, but for what a test must be able to see or break: the calls that are made
(`FakeCamera.step`), the controls that were set, and the drivers below its encoders (no machine here has /dev/video11:
what `V4L2Encoder` does with it is not done, and the packets are the fake's; hw-tests run it with a driver).

There is one libcamera a process, so picamera2 is imported once, and its modules are in sys.modules only while a test
of this stand-in runs: everything else sees none. `scripts/setup.sh --tests` installs it.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import fake_picamera2 as fake
import libcamera_stub as stub
from fake_picamera2 import FakeCamera, jpeg

PLACE = Path(__file__).resolve().parents[2] / ".cache" / "picamera2"
MACHINE = stub.machine


def is_installed() -> bool:
    return (PLACE / "picamera2").is_dir()


@cache
def _modules() -> dict[str, ModuleType]:
    """picamera2 and what it needs, imported over the stub, under the names of sys.modules."""
    before = set(sys.modules)
    sys.modules |= stub.modules()
    sys.path.insert(0, str(PLACE))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import picamera2.allocators.dmaallocator as dma
            from picamera2 import encoders, outputs, previews
    finally:
        sys.path.remove(str(PLACE))
    assert all((encoders, outputs, previews))  # what msrecd imports
    dma.DmaHeap = stub.MemoryHeap
    dma.fcntl = SimpleNamespace(ioctl=lambda *arguments: 0)
    names = ("picamera2", *stub.modules())
    found = {name: sys.modules[name] for name in sys.modules if name.partition(".")[0] in names}
    for name in found.keys() - before:
        del sys.modules[name]
    return found


@cache
def _classes() -> SimpleNamespace:
    modules = _modules()
    real: Any = modules["picamera2.picamera2"]
    encoders: Any = modules["picamera2.encoders"]

    class Picamera2(real.Picamera2):  # type: ignore[misc]
        machine = MACHINE
        taken: dict[str, Any]

        def __init__(self, camera_num: int = 0, **options: Any) -> None:
            self.set: dict[str, Any] = {}
            self.asked: dict[str, Any] = {}
            super().__init__(camera_num, **options)

        @property
        def fake(self) -> FakeCamera:
            found: FakeCamera = self._stub.fake
            return found

        def _initialize_camera(self) -> None:
            super()._initialize_camera()
            self._stub = self.camera

        @property
        def sensor_modes(self) -> Any:
            self.fake.step("sensor_modes")
            return super().sensor_modes

        @property
        def died(self) -> BaseException | None:
            is_dead = self._preview is not None and not self._preview.thread.is_alive()
            return RuntimeError("the camera's thread has ended") if is_dead else None

        @property
        def buffers_free(self) -> int:
            return len(self._stub.queued)

        @property
        def delivered(self) -> dict[str, Any]:
            """The controls that libcamera has got."""
            found: dict[str, Any] = self._stub.delivered
            return found

        def configure(self, camera_config: Any = None) -> None:
            self.fake.step("configure")
            self.asked, self.set = camera_config, {}
            super().configure(camera_config)

        def set_controls(self, controls: Any) -> None:
            super().set_controls(controls)
            self.set |= controls

        def start(self, config: Any = None, show_preview: Any = False) -> None:
            self.fake.step("start")
            super().start(config, show_preview)

        def stop(self) -> None:
            self.fake.step("stop")
            super().stop()

        def close(self) -> None:
            if self.is_open:
                self.fake.step("close")
            super().close()

        def __del__(self) -> None:
            with contextlib.suppress(KeyError):  # a test left it hanging, and this is another test's machine by now
                super().__del__()

        def start_encoder(self, *arguments: Any, **options: Any) -> None:
            self.fake.step("start_encoder")
            super().start_encoder(*arguments, **options)

        def stop_encoder(self, encoders: Any = None) -> None:
            self.fake.step("stop_encoder")
            super().stop_encoder(encoders)

    class _Driver:
        """In place of the driver: packets of the fake's, at once."""

        _frames = 0
        iperiod: int

        def _start(self) -> None:
            self._frames = 0

        def _stop(self) -> None:
            return

        def _encode(self, stream: Any, request: Any) -> None:
            is_key = self._frames % (self.iperiod or 60) == 0
            if self._key_frames_requested > self._key_frames_generated:  # type: ignore[has-type]
                self._key_frames_generated: int = self._key_frames_requested  # type: ignore[has-type]
                is_key = self._take_forced() or is_key
            self._frames += 1
            self.outputframe(self._unit(is_key), is_key, self._timestamp(request))  # type: ignore[attr-defined]

        def _take_forced(self) -> bool:
            return True

        def _unit(self, is_key: bool) -> bytes:
            return fake.Encoder._unit(self, is_key)  # type: ignore[arg-type]

    class H264Encoder(_Driver, encoders.H264Encoder):  # type: ignore[misc]
        pass

    class MJPEGEncoder(_Driver, encoders.MJPEGEncoder):  # type: ignore[misc]
        iperiod = 1 << 30

        def _unit(self, is_key: bool) -> bytes:
            return jpeg()

    return SimpleNamespace(Picamera2=Picamera2, H264Encoder=H264Encoder, MJPEGEncoder=MJPEGEncoder)


def __getattr__(name: str) -> Any:
    """Picamera2, CompletedRequest, H264Encoder, LibavH264Encoder, …"""
    if name in ("Picamera2", "H264Encoder", "MJPEGEncoder"):
        return getattr(_classes(), name)
    for module in ("picamera2", "picamera2.encoders"):
        if hasattr(_modules()[module], name):
            return getattr(_modules()[module], name)
    raise AttributeError(name)


def paint(name: str, width: int, height: int, stride: int) -> bytes:
    """The same frames as the fake's."""
    config = {"main": {"format": name, "size": (width, height), "stride": stride}}
    owner: Any = SimpleNamespace(camera_config=config)
    return bytes(fake.CompletedRequest(owner, 0).make_buffer("main"))


def _end_listening(manager: Any) -> None:
    """End the thread of a manager whose camera was never closed: it would find another libcamera below it."""
    thread = getattr(manager, "thread", None)
    if thread is not None and thread.is_alive():
        manager.running = False
        thread.join(5)


def install(monkeypatch: Any, *cameras: FakeCamera, board: str = "pi4") -> Any:
    """As fake_picamera2.install."""
    modules, classes = _modules(), _classes()
    real: Any = modules["picamera2.picamera2"]
    package, encoders = modules["picamera2"], modules["picamera2.encoders"]
    platform: Any = modules["picamera2.platform"].Platform  # type: ignore[attr-defined]
    is_pisp = board == "pi5"
    stub.machine.__init__()  # type: ignore[misc]
    stub.machine.cameras, stub.machine.is_pisp, stub.machine.paint = list(cameras), is_pisp, paint
    _end_listening(real.Picamera2._cm)
    stub.CameraManager._alive = None
    real.Picamera2._cm = real.CameraManager()
    monkeypatch.setattr(real.Picamera2, "platform", platform.PISP if is_pisp else platform.VC4)
    monkeypatch.setattr(package, "Picamera2", classes.Picamera2)
    libav: Any = encoders.LibavH264Encoder  # type: ignore[attr-defined]
    monkeypatch.setattr(encoders, "H264Encoder", libav if is_pisp else classes.H264Encoder)
    mjpeg: Any = encoders.LibavMjpegEncoder if is_pisp else classes.MJPEGEncoder  # type: ignore[attr-defined]
    monkeypatch.setattr(encoders, "MJPEGEncoder", mjpeg)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return fake.import_anew(monkeypatch)
