"""What the boards differ in: encoder, memory, modes. Their facts are recorded; picamera2 is a fake, or the real one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import camera_facts as facts
import fake_picamera2 as fake
import pytest
import real_picamera2
from camera_facts import Board
from fake_picamera2 import FakeCamera

from msrecd.codecs.parameters import camera_parameters
from msrecd.devices.camera.source import CameraSource
from msrecd.dom.exceptions import NotReadableError
from msrecd.flow.encoded import EncodingRequest

pytestmark = pytest.mark.filterwarnings("ignore:setDaemon:DeprecationWarning")  # picamera2's own


class Machine:
    """A board with a camera, and the backend on it."""

    def __init__(
        self, board: Board, camera: FakeCamera, monkeypatch: pytest.MonkeyPatch, folder: Path, standin: Any = fake
    ) -> None:
        self.board = board
        self._sources: list[CameraSource] = []
        module = standin.install(monkeypatch, camera, board="pi5" if board.platform == "pisp" else "pi4")
        heaps = folder / "dma_heap"
        heaps.mkdir()
        for name in ("system", "linux,cma"):
            (heaps / name).touch()
        (heaps / "vidbuf_cached").symlink_to(board.heap)
        if board.has_video11:
            (folder / "video11").touch()
        self._meminfo = folder / "meminfo"
        self.set_cma(board.cma_kib)
        self.backend = module.PicameraBackend(
            camera_parameters=camera_parameters,
            encoder_node=folder / "video11",
            meminfo=self._meminfo,
            heaps=heaps,
        )
        (self.description,) = self.backend.describe()

    def set_cma(self, kib: int, free: int | None = None) -> None:
        left = kib if free is None else free
        self._meminfo.write_text(f"MemTotal: 430000 kB\nCmaTotal: {kib} kB\nCmaFree: {left} kB\n")

    def open(self, **settings: Any) -> CameraSource:
        source: CameraSource = self.backend.open(self.description, settings)
        self._sources.append(source)
        return source

    def close(self) -> None:
        for source in self._sources:
            source.close()
        self.backend.close()


CAMERAS = {
    "imx219": fake.imx219,
    "imx708": fake.imx708,
    "imx477": fake.imx477,
    "ov5647": fake.ov5647,
    "imx296": fake.imx296,
}


@pytest.fixture(params=facts.BOARDS, ids=lambda board: board.name)
def board(request: pytest.FixtureRequest) -> Board:
    found: Board = request.param
    return found


# The real one is slower to open; what sensors differ in test_picamera.py runs over both.
STANDINS = [*((fake, name) for name in CAMERAS), (real_picamera2, "imx708")]


@pytest.fixture(params=STANDINS, ids=lambda param: f"{param[0].__name__.partition('_')[0]}-{param[1]}")
def machine(
    request: pytest.FixtureRequest, board: Board, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Machine]:
    standin, name = request.param
    if standin is real_picamera2 and not real_picamera2.is_installed():
        pytest.skip("scripts/setup.sh --tests installs picamera2 for this")
    made = Machine(board, CAMERAS[name](), monkeypatch, tmp_path, standin)
    yield made
    made.close()


def asked_of(source: CameraSource) -> dict[str, Any]:
    asked: dict[str, Any] = source._device._camera.asked  # type: ignore[attr-defined]
    return asked


def sent_to(source: CameraSource) -> dict[str, Any]:
    sent: dict[str, Any] = source._device._camera.set  # type: ignore[attr-defined]
    return sent


def h264(width: int, height: int, frame_rate: float) -> EncodingRequest:
    return EncodingRequest(
        kind="video", codec="h264", bit_rate=4_000_000, width=width, height=height, frame_rate=frame_rate
    )


def test_which_encoder_there_is_and_what_it_can(machine: Machine) -> None:
    is_hardware = machine.board.platform == "vc4"
    assert machine.description.detail["encoder"] == ("v4l2" if is_hardware else "software")
    assert machine.description.detail["encoder_limit"] == "1920x1080 at 30 frames a second"
    source = machine.open(width=1920, height=1080, frame_rate=30)
    feed = source.encoded(h264(1920, 1080, 30.0))
    assert feed is not None
    assert feed.can_force_key_frames is is_hardware  # libav's in picamera2 ends the camera's thread when it is asked
    mjpeg = source.encoded(EncodingRequest(kind="video", codec="mjpeg", frame_rate=30.0))
    assert (mjpeg is not None) is is_hardware


def test_the_default_is_a_mode_that_the_board_records_at_full_speed(machine: Machine) -> None:
    default = machine.description.video_modes[0]
    expected = {
        "imx219": (1920, 1080, 47.57),
        "imx708": (1920, 1080, 56.03),
        "imx477": (1920, 1080, 50.03),
        "ov5647": (1920, 1080, 32.81),
        "imx296": (1456, 1088, 60.38),
    }
    assert (default.width, default.height, default.frame_rate) == expected[machine.description.label]


@pytest.mark.parametrize(
    ("wanted", "sensor", "duration_us"),
    [
        # The smallest mode of the sensor that has the size and the speed; the ISP makes the size of it.
        (("imx219", 1280, 720, 60), (1640, 1232), 16667),
        (("imx219", 640, 480, 120), (640, 480), 8333),
        (("imx219", 1920, 1080, 30), (1920, 1080), 33333),
        (("imx708", 1280, 720, 60), (1536, 864), 16667),
        (("imx708", 1920, 1080, 50), (2304, 1296), 20000),
        (("imx477", 1280, 720, 100), (1332, 990), 10000),
        (("imx477", 1920, 1080, 30), (2028, 1080), 33333),
        (("imx477", 1600, 1200, 25), (2028, 1520), 40000),
    ],
)
def test_constraints_become_sensor_mode_and_frame_duration(
    board: Board,
    wanted: tuple[str, int, int, float],
    sensor: tuple[int, int],
    duration_us: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    name, width, height, rate = wanted
    machine = Machine(board, CAMERAS[name](), monkeypatch, tmp_path)
    try:
        source = machine.open(width=width, height=height, frame_rate=rate)
        asked, sent = asked_of(source), sent_to(source)
    finally:
        machine.close()
    assert asked["main"] == {"format": "YUV420", "size": (width, height)}  # 1.5 bytes a pixel, not picamera2's 4
    assert asked["sensor"]["output_size"] == sensor
    assert sent["FrameDurationLimits"] == (duration_us, duration_us)
    assert asked["buffer_count"] == 6
    assert asked["raw"] is None


def test_a_wider_picture_than_the_hardware_encodes(machine: Machine) -> None:
    source = machine.open(width=2028, height=1080, frame_rate=20)
    feed = source.encoded(h264(2028, 1080, 20.0))
    assert (feed is None) is (machine.board.platform == "vc4")  # then libav encodes the raw pictures


def test_contiguous_memory_counts_where_buffers_are_of_it(machine: Machine) -> None:
    """Raspberry Pi OS has the link on every board: up to a Pi 4 it leads to CMA all the same."""
    machine.set_cma(10 << 10)
    if machine.board.heap == "system":
        machine.open(width=1920, height=1080, frame_rate=30)
        return
    with pytest.raises(NotReadableError, match=r"no_memory: the camera needs \d\d MiB .*, of 10 MiB in all; choose"):
        machine.open(width=1920, height=1080, frame_rate=30)


def test_memory_that_holds_the_page_cache_is_no_reason_to_refuse(machine: Machine) -> None:
    """After some minutes of recording nearly all of CMA is page cache, which the kernel moves away on demand."""
    machine.set_cma(machine.board.cma_kib, free=200)
    machine.open(width=1920, height=1080, frame_rate=30)


def test_a_smaller_recorder_gets_a_stream_of_its_own(machine: Machine) -> None:
    source = machine.open(width=1920, height=1080, frame_rate=30)
    assert source.encoded(h264(640, 360, 30.0)) is not None
    large = source.encoded(h264(1920, 1080, 30.0))
    assert large is not None
    assert source.encoded(h264(320, 240, 30.0)) is None  # two encoders are what a board carries
