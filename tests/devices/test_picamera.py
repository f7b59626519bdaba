"""PicameraBackend and CameraSource on two stand-ins: a fake picamera2, and the real one over a stand-in for libcamera.

What differs between the two is a fault of the fake.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_picamera2 as fake
import numpy as np
import pytest
import real_picamera2
from dng_reader import read_dng
from fake_picamera2 import FakeCamera, imx219, imx296, imx477, imx708, ov5647, usb
from libcamera_stub import raw_samples
from overlay_reader import read_overlay

from msrecd.clock import MS, NS, SystemClock
from msrecd.codecs.parameters import camera_parameters
from msrecd.config import Recorder, load
from msrecd.daemon.from_config import recorder_settings
from msrecd.devices import default_backends
from msrecd.devices.base import CameraProperties
from msrecd.devices.board import Board
from msrecd.devices.camera import source as camera_source
from msrecd.devices.camera import watch
from msrecd.devices.camera.modes import fits_hardware_encoder
from msrecd.devices.camera.source import CameraSource
from msrecd.dom.exceptions import (
    NotAllowedError,
    NotFoundError,
    NotReadableError,
    NotSupportedError,
    OverconstrainedError,
)
from msrecd.flow.encoded import EncodingRequest, Overlay, StreamParameters
from msrecd.flow.units import Packet, VideoFrame
from msrecd.media.devices import MediaDevices
from msrecd.recorder.input import unmet

pytestmark = [
    pytest.mark.filterwarnings("ignore:setDaemon:DeprecationWarning"),  # picamera2's own
    # CameraManager.listen() lets go of another camera manager than it took when that is made anew meanwhile.
    pytest.mark.filterwarnings(
        r"ignore:Exception in thread Thread-\d+ .listen.:pytest.PytestUnhandledThreadExceptionWarning"
    ),
]
MJPEG = EncodingRequest(kind="video", codec="mjpeg", bit_rate=20_000_000, frame_rate=50.0)
H264 = EncodingRequest(kind="video", codec="h264", bit_rate=4_000_000, frame_rate=50.0)


def parameters(
    picture: bytes, *, codec: str, width: int, height: int, frame_rate: float | None, encoder: str
) -> StreamParameters:
    if codec == "mjpeg":
        return camera_parameters(
            picture, codec=codec, width=width, height=height, frame_rate=frame_rate, encoder=encoder
        )
    assert b"\0\0\0\1\x67" in picture  # SPS
    return StreamParameters(
        kind="video",
        codec="h264",
        header=b"mkv",
        codec_string="avc1.42c028",
        width=width,
        height=height,
        frame_rate=frame_rate,
        encoder=encoder,
    )


class Sink:
    def __init__(self) -> None:
        self.units: list[Any] = []
        self.ended: list[BaseException | None] = []
        self._news = threading.Condition()

    def put(self, unit: Any) -> None:
        with self._news:
            self.units.append(unit)
            self._news.notify_all()

    def end(self, error: BaseException | None) -> None:
        with self._news:
            self.ended.append(error)
            self._news.notify_all()

    def wait(self, condition: Callable[[], bool], timeout: float = 15) -> None:
        with self._news:
            assert self._news.wait_for(condition, timeout), (len(self.units), self.ended)

    def wait_for(self, count: int) -> list[Any]:
        self.wait(lambda: len(self.units) >= count)
        return self.units


class Rig:
    """A machine with cameras, and a backend on it."""

    def __init__(self, standin: Any, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.standin = standin
        self._monkeypatch = monkeypatch
        self.node = folder / "video11"
        self.meminfo = folder / "meminfo"
        self.heaps = folder / "dma_heap"
        self.tuning = folder / "tuning"
        self.sources: list[CameraSource] = []
        self.backends: list[Any] = []
        self.ended: list[BaseException | None] = []
        self.muted: list[bool] = []
        self.news = threading.Event()

    def backend(
        self, *cameras: FakeCamera, board: str = "pi4", cameras_of_configuration: Sequence[CameraProperties] = ()
    ) -> Any:
        module = self.standin.install(self._monkeypatch, *cameras, board=board)
        if board == "pi4":
            self.node.touch()
        backend = module.PicameraBackend(
            camera_parameters=parameters,
            encoder_node=self.node,
            meminfo=self.meminfo,
            heaps=self.heaps,
            cameras=cameras_of_configuration,
            tuning_folders=[self.tuning],
        )
        self.backends.append(backend)
        return backend

    def open(self, backend: Any, settings: dict[str, Any] | None = None, index: int = 0) -> CameraSource:
        wanted = {"width": 1280, "height": 720, "frame_rate": 50.0} if settings is None else settings
        source: CameraSource = backend.open(backend.describe()[index], wanted)
        source.on_ended = self._on_ended
        source.on_muted = self.muted.append
        self.sources.append(source)
        return source

    def _on_ended(self, error: BaseException | None) -> None:
        self.ended.append(error)
        self.news.set()


@pytest.fixture(params=["fake", "real"])
def standin(request: pytest.FixtureRequest) -> Any:
    if request.param == "fake":
        return fake
    if not real_picamera2.is_installed():
        pytest.skip("scripts/setup.sh --tests installs picamera2 for this")
    return real_picamera2


@pytest.fixture
def rig(standin: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(standin, monkeypatch, tmp_path)
    yield rig
    for camera in standin.Picamera2.machine.cameras:
        camera.unhang.set()
    for source in rig.sources:
        source.close()
    for backend in rig.backends:
        backend.close()


def until(condition: Callable[[], bool], timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def camera_of(source: CameraSource) -> Any:
    return source._device._camera  # type: ignore[attr-defined]


def test_cameras_are_described_from_their_modes(rig: Rig) -> None:
    backend = rig.backend(imx219(), usb(num=1))
    first, second = backend.describe()
    assert (first.label, first.kind, first.driver, first.state) == ("imx219", "video", "libcamera", "free")
    assert [(m.width, m.height, m.frame_rate) for m in first.video_modes] == [
        (1920, 1080, 47.57),
        (3280, 2464, 21.19),
        (1640, 1232, 83.70),
        (1280, 720, 41.85),
        (640, 480, 206.65),
    ]
    assert first.detail["encoder"] == "v4l2"
    assert "focus_mode" not in first.controls
    assert [(m.width, m.height) for m in second.video_modes] == [(1920, 1080), (1280, 720), (640, 480)]
    assert backend.describe() == [first, second]
    assert rig.standin.Picamera2.machine.cameras[0].opened == 1  # looked into once


def test_a_start_while_the_camera_is_looked_into_waits_for_that(rig: Rig) -> None:
    """Seen right behind READY: the list was made twice, and the second look refused the camera to the `start`."""
    backend = rig.backend(imx219())
    (device,) = backend.describe()
    backend._facts.clear()  # as if it were the first time
    (camera,) = rig.standin.Picamera2.machine.cameras
    camera.calls.clear()
    camera.hang_in = {"close"}
    found: list[Any] = []
    looks = [threading.Thread(target=lambda: found.extend(backend.describe())) for _ in range(2)]
    opening = threading.Thread(target=lambda: rig.sources.append(backend.open(device, {"width": 640, "height": 480})))
    for look in looks:
        look.start()
    until(lambda: "close" in camera.calls)
    opening.start()
    opening.join(0.2)
    assert opening.is_alive()
    camera.hang_in = set()
    camera.unhang.set()
    for thread in (*looks, opening):
        thread.join(15)
    assert len(rig.sources) == 1
    assert camera.calls.count("open") == 2  # one look, one start
    assert len(found) == 2
    assert "error" not in found[0].detail | found[1].detail


@pytest.mark.promise("ids-stay")
def test_ids_do_not_depend_on_the_order(rig: Rig) -> None:
    before = {d.label: (d.device_id, d.group_id) for d in rig.backend(imx219(), imx708(num=1)).describe()}
    after = {d.label: (d.device_id, d.group_id) for d in rig.backend(imx708(), imx219(num=1)).describe()}
    assert before == after
    assert len({*before.values()}) == 2


def test_the_position_in_the_list_opens_and_not_the_number(rig: Rig) -> None:
    backend = rig.backend(imx219(num=1), usb(num=0))
    source = rig.open(backend)
    assert camera_of(source).fake.model == "imx219"


def test_hardware_encoder(rig: Rig) -> None:
    source = rig.open(rig.backend(imx219()))
    feed = source.encoded(H264)
    assert feed is not None
    sink = Sink()
    feed.feed.add(sink)
    packets: list[Packet] = sink.wait_for(60)
    assert feed.parameters is not None
    assert (feed.parameters.width, feed.parameters.height, feed.parameters.encoder) == (1280, 720, "v4l2")
    assert [p.is_keyframe for p in packets[:3]] == [True, False, False]
    assert packets[50].is_keyframe  # a second's worth
    assert all(a.pts_ns < b.pts_ns for a, b in itertools.pairwise(packets))
    assert 0 <= time.monotonic_ns() - packets[-1].pts_ns < NS
    assert packets[0].duration_ns == 20 * MS
    (encoder,) = camera_of(source).encoders
    assert isinstance(encoder, rig.standin.H264Encoder)
    assert (encoder.bitrate, encoder.iperiod, encoder.framerate) == (4_000_000, 50, 50.0)
    assert camera_of(source).asked["buffer_count"] == 6
    assert camera_of(source).asked["sensor"] == {"output_size": (1640, 1232), "bit_depth": 8}
    assert camera_of(source).set["FrameDurationLimits"] == (20000, 20000)
    feed.feed.remove(sink)
    until(lambda: not camera_of(source).encoders)
    assert sink.ended == []


def test_mjpeg_comes_from_the_hardware_encoder(rig: Rig) -> None:
    source = rig.open(rig.backend(imx219()))
    output = source.encoded(MJPEG)
    assert output is not None
    assert not output.can_force_key_frames  # every picture is one
    sink = Sink()
    output.feed.add(sink)
    packets: list[Packet] = sink.wait_for(5)
    assert all(packet.is_keyframe and packet.data == fake.jpeg() for packet in packets)
    assert output.parameters is not None
    assert (output.parameters.codec, output.parameters.codec_string) == ("mjpeg", "mjpeg")
    assert (output.parameters.width, output.parameters.height) == (1280, 720)
    (encoder,) = camera_of(source).encoders
    assert isinstance(encoder, rig.standin.MJPEGEncoder)
    assert encoder.bitrate == 20_000_000


def test_mjpeg_in_software_is_left_to_libav(rig: Rig) -> None:
    assert rig.open(rig.backend(imx219(), board="pi5")).encoded(MJPEG) is None


def test_key_frames_are_made_where_they_are_wanted(rig: Rig) -> None:
    source = rig.open(rig.backend(imx219()))
    feed = source.encoded(EncodingRequest(kind="video", codec="h264", key_frame_interval_ns=100 * NS))
    assert feed is not None
    assert feed.can_time_key_frames
    sink = Sink()
    feed.feed.add(sink)
    sink.wait_for(5)
    at_ns = time.monotonic_ns() + 300 * MS
    feed.request_key_frame(at_ns)
    sink.wait(lambda: any(p.is_keyframe and p.pts_ns >= at_ns for p in sink.units))
    index = next(i for i, p in enumerate(sink.units) if p.pts_ns >= at_ns)
    assert [p.is_keyframe for p in sink.units[1 : index + 1]] == [False] * (index - 1) + [True]
    feed.request_key_frame()
    count = len(sink.units)
    sink.wait(lambda: any(p.is_keyframe for p in sink.units[count:]))


def test_software_encoder_is_never_forced(rig: Rig) -> None:
    source = rig.open(rig.backend(imx219(), board="pi5"))
    feed = source.encoded(H264)
    assert feed is not None
    assert not feed.can_force_key_frames
    feed.request_key_frame()
    sink = Sink()
    feed.feed.add(sink)
    sink.wait_for(20)
    assert feed.parameters is not None
    assert feed.parameters.encoder == "libx264"
    assert camera_of(source).died is None


def test_a_board_without_the_encoders_node_encodes_in_software(rig: Rig) -> None:
    backend = rig.backend(imx219())
    rig.node.unlink()
    assert backend.describe()[0].detail["encoder"] == "software"
    feed = rig.open(backend).encoded(H264)
    assert feed is not None
    sink = Sink()
    feed.feed.add(sink)
    sink.wait_for(3)


def test_equal_requests_share_an_encoder_and_a_second_run_works(rig: Rig) -> None:
    source = rig.open(rig.backend(imx219()))
    feed = source.encoded(H264)
    assert feed is not None
    assert source.encoded(H264) is feed
    for _ in range(3):
        sink = Sink()
        feed.feed.add(sink)
        sink.wait_for(5)
        assert sink.units[0].is_keyframe
        feed.feed.remove(sink)
    until(lambda: not camera_of(source).encoders)
    assert camera_of(source).fake.calls.count("start_encoder") == 3


@pytest.mark.promise("overlay-in-hardware")
def test_an_overlay_is_drawn_before_the_cameras_encoder(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into a second stream of the same size, which nothing else reads; raw frames stay as they are."""
    source = rig.open(rig.backend(imx219()))
    encoded: list[tuple[str, bytes]] = []
    encode = rig.standin.H264Encoder.encode

    def seen(encoder: Any, stream: str, request: Any) -> None:
        encoded.append((stream, bytes(memoryview(request.make_buffer(stream)).cast("B"))))
        encode(encoder, stream, request)

    monkeypatch.setattr(rig.standin.H264Encoder, "encode", seen)
    text = "2026-11-30 14:03"
    overlay = Overlay(lambda at_ns: text, position="top-right")
    feed = source.encoded(replace(H264, overlay=overlay))
    assert feed is not None
    sink, raw = Sink(), Sink()
    source.raw().add(raw)
    feed.feed.add(sink)
    sink.wait_for(5)
    frame = raw.wait_for(1)[0]
    stream, buffer = encoded[-1]
    assert stream == "lores"
    configured = camera_of(source).camera_configuration()["lores"]
    (width, height), stride = configured["size"], configured["stride"]
    assert (width, height) == (1280, 720)
    luma = np.frombuffer(buffer, np.uint8)[: stride * height].reshape(height, stride)[:, :width]
    assert read_overlay(luma, len(text), position="top-right") == text
    plain = np.frombuffer(frame.data, np.uint8)[: 1280 * 720].reshape(720, 1280)
    assert "2" not in read_overlay(plain, len(text), position="top-right")
    assert source.encoded(replace(H264, width=1280, height=720)) is not None, "from the main stream"


def test_an_overlay_is_left_to_libav_where_the_camera_has_no_encoder(rig: Rig) -> None:
    overlay = Overlay(lambda at_ns: "text")
    assert rig.open(rig.backend(imx219(), board="pi5")).encoded(replace(H264, overlay=overlay)) is None


def test_a_smaller_size_is_encoded_from_a_second_stream(rig: Rig) -> None:
    source = rig.open(rig.backend(imx219()))
    small = source.encoded(EncodingRequest(kind="video", codec="h264", width=640, height=360))
    large = source.encoded(H264)
    assert small is not None
    assert large is not None
    one, two = Sink(), Sink()
    small.feed.add(one)
    large.feed.add(two)
    one.wait_for(3)
    two.wait_for(3)
    assert small.parameters is not None
    assert (small.parameters.width, small.parameters.height) == (640, 360)
    assert {e.name: e.size for e in camera_of(source).encoders} == {"lores": (640, 360), "main": (1280, 720)}


def test_no_memory_for_a_second_stream_costs_that_stream_only(rig: Rig) -> None:
    source = rig.open(rig.backend(imx219(has_lores=False)))
    small = source.encoded(EncodingRequest(kind="video", codec="h264", width=640, height=360))
    large = source.encoded(H264)
    assert small is not None
    assert large is not None
    one, two = Sink(), Sink()
    small.feed.add(one)
    large.feed.add(two)
    one.wait(lambda: bool(one.ended))
    assert isinstance(one.ended[0], NotReadableError)
    two.wait_for(3)
    assert rig.ended == []
    again = EncodingRequest(kind="video", codec="h264", width=640, height=360)
    assert source.encoded(again) is None  # the next attempt goes another way


def test_what_the_camera_cannot_encode_is_left_to_others(rig: Rig) -> None:
    source = rig.open(rig.backend(imx219()))
    assert source.encoded(EncodingRequest(kind="video", codec="vp8")) is None
    square = EncodingRequest(kind="video", codec="h264", width=360, height=360, crops=True)
    assert source.encoded(square) is None  # cropped here: the camera would stretch
    assert source.encoded(EncodingRequest(kind="video", codec="h264", width=1920, height=1080)) is None
    assert source.encoded(EncodingRequest(kind="video", codec="h264", frame_rate=35.0)) is None
    assert source.encoded(H264) is not None
    late = EncodingRequest(kind="video", codec="h264", width=320, height=180)
    assert source.encoded(late) is None  # would interrupt the one that is there


def test_every_other_frame(rig: Rig) -> None:
    source = rig.open(rig.backend(imx219()))
    feed = source.encoded(EncodingRequest(kind="video", codec="h264", frame_rate=25.0))
    assert feed is not None
    sink = Sink()
    feed.feed.add(sink)
    packets = sink.wait_for(20)
    distances = sorted(b.pts_ns - a.pts_ns for a, b in itertools.pairwise(packets))
    assert distances[len(distances) // 2] > 35 * MS
    assert packets[0].duration_ns == 40 * MS


def test_raw_pictures_only_while_wanted(rig: Rig) -> None:
    camera = imx219()
    source = rig.open(rig.backend(camera), {"width": 648, "height": 480, "frame_rate": 50.0})
    sink = Sink()
    source.raw().add(sink)
    frames: list[VideoFrame] = sink.wait_for(5)
    assert frames[0].format == source.format
    assert (source.format.width, source.format.height, source.format.pixel_format) == (648, 480, "yuv420p")
    assert len(frames[0].data) == 648 * 480 * 3 // 2
    assert bytes(frames[0].data).count(b"\xee") == 0  # the padding of lines is gone
    assert 0 <= time.monotonic_ns() - frames[0].pts_ns < 2 * NS
    source.raw().remove(sink)
    until(lambda: camera_of(source).buffers_free >= 3)  # all buffers are back
    assert camera_of(source).died is None


def test_the_camera_says_how_sharp_it_is_while_it_is_asked(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    source = rig.open(rig.backend(imx708()))
    source.raw().add(Sink())
    assert source.figures() == {}, "the first question begins it"
    until(lambda: source.figures() != {})
    assert source.figures().items() >= {"focus_figure": 812, "focus_state": "focused", "focus_distance": 0.5}.items()
    monkeypatch.setattr(camera_source, "_FIGURES_NS", -1)
    assert source.figures() != {}
    assert source.figures() == {}, "nothing old is given out"


def test_a_consumer_that_is_too_slow_costs_pictures_and_nothing_else(rig: Rig) -> None:
    source = rig.open(rig.backend(imx219()))
    fast, blocked = Sink(), threading.Event()

    class Slow(Sink):
        def put(self, unit: Any) -> None:
            blocked.wait(20)

    feed = source.encoded(H264)
    assert feed is not None
    feed.feed.add(fast)
    source.raw().add(Slow())
    count = len(fast.units)
    fast.wait_for(count + 40)
    assert source.stats.dropped > 10
    blocked.set()


def test_a_usb_camera_without_frame_duration_limits(rig: Rig) -> None:
    source = rig.open(rig.backend(usb(formats=("BGR888",))), {"width": 640, "height": 480})
    assert source.format.pixel_format == "rgb24"
    assert source.format.frame_rate == 50.0  # measured
    feed = source.encoded(EncodingRequest(kind="video", codec="h264"))
    assert feed is not None
    sink, raw = Sink(), Sink()
    feed.feed.add(sink)
    source.raw().add(raw)
    sink.wait_for(10)
    assert len(raw.wait_for(2)[0].data) == 640 * 480 * 3


@pytest.mark.parametrize(
    ("formats", "size", "chosen"),
    [
        (("YUYV", "MJPEG"), (640, 480), "YUYV"),
        (("YUYV", "MJPEG"), (1280, 720), "MJPEG"),
        (("MJPEG",), (640, 480), "MJPEG"),
        (("MJPEG", "NV12"), (640, 480), "NV12"),
    ],
)
@pytest.mark.promise("usb-rates")
def test_a_usb_camera_gives_what_it_has(rig: Rig, formats: tuple[str, ...], size: tuple[int, int], chosen: str) -> None:
    """Not one of a hundred has YUV420, and libcamera takes another format without a word."""
    source = rig.open(rig.backend(usb(formats=formats)), {"width": size[0], "height": size[1]})
    assert camera_of(source).camera_configuration()["main"]["format"] == chosen
    assert source.format.pixel_format == "yuv420p"
    assert source.encoded(EncodingRequest(kind="video", codec="h264")) is None  # its encoders take none of these
    sink = Sink()
    source.raw().add(sink)
    frame: VideoFrame = sink.wait_for(2)[0]
    assert frame.format == source.format
    pixels = size[0] * size[1]
    assert len(frame.data) == pixels * 3 // 2
    luma, blue, red = frame.data[0], frame.data[pixels], frame.data[-1]
    if chosen == "MJPEG":
        assert luma == pytest.approx(16 + 100 * 219 / 255, abs=2)  # a JPEG's is of full range
        assert (blue, red) == (128, 128)
    else:
        assert (luma, blue, red) == (0x10, 0x80, 0x90)
    assert bytes(frame.data).count(b"\xee") == 0


def test_jpegs_of_a_usb_camera_pass_through_untouched(rig: Rig) -> None:
    source = rig.open(rig.backend(usb(formats=("YUYV", "MJPEG")), board="pi5"), {"width": 1280, "height": 720})
    feed = source.encoded(EncodingRequest(kind="video", codec="mjpeg", bit_rate=1_000_000))
    assert feed is not None
    assert source.encoded(EncodingRequest(kind="video", codec="mjpeg", width=640, height=480)) is None
    sink = Sink()
    feed.feed.add(sink)
    packets: list[Packet] = sink.wait_for(5)
    assert {packet.data for packet in packets} == {fake.jpeg(1280, 720)}
    assert all(packet.is_keyframe for packet in packets)
    assert feed.parameters is not None
    assert (feed.parameters.codec, feed.parameters.width, feed.parameters.encoder) == ("mjpeg", 1280, "camera")


@pytest.mark.promise("torn-jpegs")
def test_a_torn_jpeg_is_left_out(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    source = rig.open(rig.backend(usb(formats=("MJPEG",)), board="pi5"), {"width": 640, "height": 480})
    feed = source.encoded(EncodingRequest(kind="video", codec="mjpeg"))
    assert feed is not None
    whole: Callable[[Any, str], bytearray] = rig.standin.CompletedRequest.make_buffer
    count = itertools.count()

    def sometimes_torn(self: Any, name: str) -> bytearray:
        buffer = whole(self, name)
        return buffer[:300] if next(count) % 3 == 0 else buffer

    monkeypatch.setattr(rig.standin.CompletedRequest, "make_buffer", sometimes_torn)
    packets, raw = Sink(), Sink()
    feed.feed.add(packets)
    source.raw().add(raw)
    packets.wait_for(5)
    raw.wait_for(5)
    assert {packet.data for packet in packets.units} == {fake.jpeg(640, 480)}
    assert {len(frame.data) for frame in raw.units} == {640 * 480 * 3 // 2}
    assert source.stats.dropped > 0
    assert camera_of(source).died is None


def test_a_format_that_nobody_reads_is_refused(rig: Rig) -> None:
    backend = rig.backend(usb(formats=("R10_CSI2P",)))
    with pytest.raises(NotReadableError, match="gives R10_CSI2P only"):
        rig.open(backend)
    assert rig.standin.Picamera2.machine.cameras[0].holder is None


@pytest.mark.promise("clock-of-frames")
def test_timestamps_of_another_clock_are_shifted(rig: Rig) -> None:
    source = rig.open(rig.backend(imx219(boot_offset_ns=86_400 * NS)))
    sink = Sink()
    source.raw().add(sink)
    frames = sink.wait_for(3)
    assert abs(time.monotonic_ns() - frames[-1].pts_ns) < 2 * NS


def test_busy_elsewhere(rig: Rig) -> None:
    backend = rig.backend(imx219())
    description = backend.describe()[0]
    rig.standin.Picamera2.machine.cameras[0].refuse = "Failed to acquire camera: Device or resource busy"
    with pytest.raises(NotReadableError, match=r"imx219 is busy or faulty: .*Device or resource busy"):
        backend.open(description, {})
    assert backend.describe()[0].state == "busy"
    rig.standin.Picamera2.machine.cameras[0].refuse = ""
    rig.open(backend)


def test_own_camera_is_busy_until_it_is_closed(rig: Rig) -> None:
    backend = rig.backend(imx219())
    source = rig.open(backend)
    assert backend.describe()[0].state == "busy"
    source.close()
    assert backend.describe()[0].state == "free"
    assert rig.ended == []
    rig.open(backend)


def test_access_denied(rig: Rig) -> None:
    backend = rig.backend(imx219(refuse="Could not open any dmaHeap device: Permission denied"))
    with pytest.raises(NotAllowedError, match="group video"):
        rig.open(backend)


def test_gone_before_it_is_opened(rig: Rig) -> None:
    backend = rig.backend(imx219())
    description = backend.describe()[0]
    rig.standin.Picamera2.machine.cameras.clear()
    with pytest.raises(NotFoundError):
        backend.open(description, {})


@pytest.mark.promise("camera-memory-is-explained")
def test_contiguous_memory_is_checked_first(rig: Rig) -> None:
    backend = rig.backend(imx219())
    rig.meminfo.write_text("MemTotal: 430000 kB\nCmaTotal: 32768 kB\nCmaFree: 30000 kB\n")
    with pytest.raises(NotReadableError, match=r"no_memory: .*CMA"):
        rig.open(backend, {"width": 1920, "height": 1080})
    rig.open(backend, {"width": 320, "height": 240})


@pytest.mark.promise("call-that-hangs")
def test_a_camera_that_hangs_at_opening(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = imx219()
    backend = rig.backend(camera)
    description = backend.describe()[0]
    monkeypatch.setattr("msrecd.devices.picamera.backend._OPEN_S", 0.3)
    camera.hang_in = {"start"}
    with pytest.raises(NotReadableError, match=r"did not return within 0\.3 s"):
        backend.open(description, {})


def test_a_camera_that_opens_too_late_is_closed_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be busy for ever, in a process that does not know of it."""
    camera = imx219()
    backend = rig.backend(camera)
    description = backend.describe()[0]
    monkeypatch.setattr("msrecd.devices.picamera.backend._OPEN_S", 0.3)
    camera.hang_in = {"start"}
    with pytest.raises(NotReadableError):
        backend.open(description, {})
    camera.hang_in = set()
    camera.unhang.set()
    until(lambda: camera.holder is None)
    monkeypatch.setattr("msrecd.devices.picamera.backend._OPEN_S", 10)
    assert rig.open(backend).format.width == 1280


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # picamera2's __del__ closes once more
def test_what_failed_is_told_and_not_that_closing_failed_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = rig.backend(imx219())
    description = backend.describe()[0]
    close, failures = rig.standin.Picamera2.close, iter([RuntimeError("closing failed")])

    def fail_to_start(self: Any, *_: Any, **__: Any) -> None:
        raise RuntimeError("the real reason")

    def close_badly(self: Any) -> None:
        close(self)
        for failure in failures:
            raise failure

    monkeypatch.setattr(rig.standin.Picamera2, "start", fail_to_start)
    monkeypatch.setattr(rig.standin.Picamera2, "close", close_badly)
    with pytest.raises(NotReadableError, match="the real reason"):
        backend.open(description, {})
    assert next(failures, None) is None
    gc.collect()


def test_close_gives_up_on_a_camera_that_hangs(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_source, "CLOSE_TIMEOUT_S", 0.3)
    camera = imx219()
    source = rig.open(rig.backend(camera))
    camera.hang_in = {"stop"}
    began = time.monotonic()
    source.close()
    assert time.monotonic() - began < 4


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = watch.Limits(look_ns=300 * MS, muted_ns=600 * MS, restart_ns=1200 * MS, failed_ns=2500 * MS)
    monkeypatch.setattr(watch, "LIMITS", limits)


@pytest.mark.usefixtures("impatient")
@pytest.mark.promise("camera-ladder")
def test_no_frames_any_more(rig: Rig) -> None:
    camera = imx219()
    backend = rig.backend(camera)
    source = rig.open(backend)
    feed = source.encoded(H264)
    assert feed is not None
    sink = Sink()
    feed.feed.add(sink)
    sink.wait_for(3)
    camera.stalled.set()
    assert rig.news.wait(15)
    assert rig.muted == [True]
    assert source.restarts == 1
    assert len(rig.ended) == 1
    assert isinstance(rig.ended[0], NotReadableError)
    assert "gave no frame for" in str(rig.ended[0])
    assert sink.ended == rig.ended
    until(lambda: camera.holder is None)  # freed without waiting for close()
    camera.stalled.clear()
    rig.open(backend)


@pytest.mark.usefixtures("impatient")
@pytest.mark.promise("camera-ladder")
def test_frames_that_come_back_in_time(rig: Rig) -> None:
    camera = imx219()
    source = rig.open(rig.backend(camera))
    camera.stalled.set()
    until(lambda: source.muted)
    camera.stalled.clear()
    until(lambda: not source.muted)
    assert rig.muted == [True, False]
    assert rig.ended == []


class JumpingClock(SystemClock):
    """Counts how often the watch of a camera has asked."""

    jumped_ns = 0
    looks = 0

    def monotonic_ns(self) -> int:
        self.looks += threading.current_thread().name.startswith("camera ")
        return super().monotonic_ns() + self.jumped_ns

    def wait_for_looks(self, count: int) -> None:
        wanted = self.looks + count
        until(lambda: self.looks >= wanted)


def test_a_stop_of_the_whole_process_is_no_failure_of_the_camera(rig: Rig) -> None:
    camera, clock = imx219(), JumpingClock()
    backend = rig.backend(camera)
    backend._clock = clock
    source = rig.open(backend)
    camera.stalled.set()
    clock.jumped_ns = 60 * NS
    clock.wait_for_looks(3)
    camera.stalled.clear()
    until(lambda: source.frame_age_ns < NS)
    clock.wait_for_looks(2)
    assert rig.muted == []
    assert rig.ended == []
    assert source.restarts == 0


@pytest.mark.usefixtures("impatient")
@pytest.mark.promise("camera-ladder")
def test_unplugged(rig: Rig) -> None:
    camera = usb()
    source = rig.open(rig.backend(camera), {})
    sink = Sink()
    source.raw().add(sink)
    sink.wait_for(1)
    camera.stalled.set()
    rig.standin.Picamera2.machine.cameras.clear()
    assert rig.news.wait(15)
    assert rig.ended == [None]
    assert sink.ended == [None]
    assert source.restarts == 0


@pytest.mark.usefixtures("impatient")
def test_unplugged_and_still_listed_for_a_while(rig: Rig) -> None:
    """libcamera hears of it from udev, which on a busy machine may be later than the pictures stop."""
    camera = usb()
    rig.open(rig.backend(camera), {})
    camera.stalled.set()
    until(lambda: rig.muted == [True])  # by then it has been looked for once
    rig.standin.Picamera2.machine.cameras.clear()
    assert rig.news.wait(15)
    assert rig.ended == [None]


@pytest.mark.usefixtures("impatient")
def test_a_restart_that_fails_ends_it_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = imx219()
    source = rig.open(rig.backend(camera))
    told: list[float] = []
    source.on_restarted = told.append
    monkeypatch.setattr(watch, "LIMITS", replace(watch.LIMITS, failed_ns=60 * NS))

    def fail(self: Any, show_preview: Any = False) -> None:
        raise RuntimeError("Failed to start camera: Invalid argument")

    monkeypatch.setattr(rig.standin.Picamera2, "start", fail)
    camera.stalled.set()
    assert rig.news.wait(15)
    assert "Failed to start camera" in str(rig.ended[0])
    assert len(told) == 1
    assert 1.2 <= told[0] < 15


@pytest.mark.usefixtures("impatient")
def test_unplugged_with_pictures_under_way(rig: Rig) -> None:
    """Buffers cannot be given back then, which raises in picamera2's threads: they live on, so it can be closed."""
    camera = usb()
    source = rig.open(rig.backend(camera), {})
    sink = Sink()
    source.raw().add(sink)
    sink.wait_for(1)
    camera.is_gone = True
    rig.standin.Picamera2.machine.cameras.clear()
    assert rig.news.wait(15)
    assert rig.ended == [None]
    until(lambda: camera.holder is None, 4)
    assert camera_of(source).died is None


def test_what_raises_in_the_cameras_loop_does_not_end_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    source = rig.open(rig.backend(imx219(), board="pi5"))
    feed = source.encoded(H264)
    assert feed is not None
    sink = Sink()
    feed.feed.add(sink)
    sink.wait_for(2)
    encode = rig.standin.LibavH264Encoder.encode
    failures = itertools.count()

    def fail(self: Any, name: Any, request: Any) -> None:
        if next(failures) < 2:
            raise ValueError("libx264 has a bad day")
        encode(self, name, request)

    monkeypatch.setattr(rig.standin.LibavH264Encoder, "encode", fail)
    count = len(sink.units)
    sink.wait_for(count + 10)
    assert next(failures) > 2
    assert camera_of(source).died is None


@pytest.mark.usefixtures("impatient")
@pytest.mark.promise("call-that-hangs")
def test_a_hanging_call_is_noticed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "STUCK_AFTER_NS", 400 * MS)
    monkeypatch.setattr(camera_source, "CLOSE_TIMEOUT_S", 0.3)
    camera = imx219()
    source = rig.open(rig.backend(camera))
    camera.hang_in = {"start_encoder"}
    feed = source.encoded(H264)
    assert feed is not None
    feed.feed.add(Sink())  # returns at once: this may be the event loop
    assert rig.news.wait(15)
    assert "hangs in starting the encoder" in str(rig.ended[0])


def test_an_encoder_that_cannot_be_started_ends_its_feed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, quality: Any = None) -> None:
        raise OSError(12, "Cannot allocate memory")

    source = rig.open(rig.backend(imx219()))
    feed = source.encoded(H264)
    assert feed is not None
    monkeypatch.setattr(rig.standin.H264Encoder, "start", fail)
    sink = Sink()
    feed.feed.add(sink)
    sink.wait(lambda: bool(sink.ended))
    assert isinstance(sink.ended[0], NotReadableError)
    monkeypatch.undo()
    assert rig.ended == []  # the camera itself is well
    again = source.encoded(H264)
    assert again is not None
    assert again is not feed


def test_controls_from_settings(rig: Rig) -> None:
    settings = {"width": 2304, "height": 1296, "frame_rate": 30, "focus_distance": 0.5, "zoom": 2.0, "contrast": 1.5}
    source = rig.open(rig.backend(imx708()), settings)
    controls = dict(camera_of(source).set)
    assert controls["FrameDurationLimits"] == (33333, 33333)
    assert (controls["AfMode"], controls["LensPosition"]) == (0, 2.0)
    assert controls["ScalerCrop"] == (1152, 648, 2304, 1296)
    source.apply_controls({"exposure_time": 50, "iso": 400})
    assert camera_of(source).set == controls | {"ExposureTime": 5000, "AnalogueGain": 4.0}


def test_default_backends_find_the_cameras(rig: Rig) -> None:
    rig.backend(imx219())
    by_name = {backend.name: backend for backend in default_backends(camera_parameters=parameters, alsa_pcms=["x"])}
    rig.backends.extend(by_name.values())
    assert list(by_name) == ["libcamera", "alsa"]
    assert [device.label for device in by_name["libcamera"].describe()] == ["imx219"]
    assert rig.open(by_name["libcamera"]).encoded(H264) is not None
    plain = default_backends()[0]
    rig.backends.append(plain)
    rig.sources.pop().close()
    assert rig.open(plain).encoded(H264) is None  # raw pictures only


def import_backend(monkeypatch: pytest.MonkeyPatch, **modules: Any) -> None:
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("device", "backend"):
        monkeypatch.delitem(sys.modules, f"msrecd.devices.picamera.{name}", raising=False)
        monkeypatch.delattr(f"msrecd.devices.picamera.{name}", raising=False)
    importlib.import_module("msrecd.devices.picamera.backend")


def test_without_picamera2_there_is_no_backend(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rig.backend(imx219())
    with pytest.raises(ModuleNotFoundError, match="picamera2"):
        import_backend(monkeypatch, picamera2=None)
    assert "libcamera" not in [backend.name for backend in default_backends()]
    assert not [record for record in caplog.records if record.name != "asyncio"]


def test_a_picamera2_that_cannot_be_used_is_a_warning(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rig.backend(imx219())
    monkeypatch.delattr(sys.modules["picamera2"], "CompletedRequest")
    with pytest.raises(RuntimeError, match="picamera2 cannot be used: cannot import name 'CompletedRequest'"):
        import_backend(monkeypatch)
    assert "libcamera" not in [backend.name for backend in default_backends()]
    assert "does not start; its devices are left out: picamera2 cannot be used" in caplog.text


def test_an_old_picamera2_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.backend(imx219())
    versions = {"picamera2": "0.3.31+rpt1"}
    monkeypatch.setattr("importlib.metadata.version", lambda name: versions.get(name, "?"))
    with pytest.raises(RuntimeError, match=r"picamera2 0\.3\.31\+rpt1 is too old, 0\.3\.32 or later is needed"):
        import_backend(monkeypatch)
    versions["picamera2"] = "0.4"
    import_backend(monkeypatch)


# What reading picamera2 and libcamera brought up. The fake has their ranges before and after configure().


def test_controls_are_made_of_the_ranges_after_configure(rig: Rig) -> None:
    """Before it libcamera announces exposures up to 66 666 µs, gains up to 16 and a crop of 65535x65535."""
    settings = {"width": 2028, "height": 1520, "exposure_time": 5000, "iso": 2000, "zoom": 4.0, "frame_rate": 30}
    source = rig.open(rig.backend(imx477()), settings)
    sent = camera_of(source).set
    assert (sent["ExposureTime"], sent["AnalogueGain"]) == (500_000, 20.0)
    assert sent["ScalerCrop"] == (1521, 1140, 1014, 760)
    assert "ScalerCrops" not in sent
    if rig.standin is real_picamera2:
        delivered = camera_of(source).delivered
        assert delivered == delivered | sent


@pytest.mark.promise("long-exposure")
def test_an_exposure_longer_than_a_frame_lowers_the_rate(rig: Rig) -> None:
    source = rig.open(rig.backend(imx477()), {"width": 2028, "height": 1520, "exposure_time": 5000, "frame_rate": 30})
    assert source.format.frame_rate == pytest.approx(2, rel=0.01)
    shortest, longest = camera_of(source).set["FrameDurationLimits"]
    assert shortest == longest
    assert 500_000 < shortest < 502_000


@pytest.mark.promise("long-exposure")
def test_an_exposure_that_the_running_camera_cannot_have_is_refused_with_the_numbers(rig: Rig) -> None:
    source = rig.open(rig.backend(imx477()), {"width": 1280, "height": 720, "frame_rate": 30})
    with pytest.raises(OverconstrainedError, match=r"0\.5 s needs a frame rate of 2 or less; imx477 runs at 30") as got:
        source.apply_controls({"exposure_time": 5000})
    assert got.value.constraint == "exposure_time"
    source.apply_controls({"exposure_time": 300})
    assert camera_of(source).set["ExposureTime"] == 30_000


@pytest.mark.promise("rate-in-the-dusk")
def test_a_range_of_rates_leaves_room_for_the_dusk(rig: Rig) -> None:
    settings = {"width": 1280, "height": 720, "frame_rate": 30, "slowest_frame_rate": 5}
    source = rig.open(rig.backend(imx219()), settings)
    assert camera_of(source).set["FrameDurationLimits"] == (33333, 200_000)
    assert source.format.frame_rate == 30
    with pytest.raises(OverconstrainedError):
        source.apply_controls({"exposure_time": 2500})
    source.apply_controls({"exposure_time": 1900})


@pytest.mark.parametrize("board", ["pi4", "pi5"])
def test_a_second_stream_keeps_the_zoom(rig: Rig, board: str) -> None:
    """picamera2 sends the default crops of both streams, which libcamera prefers to the one crop."""
    settings = {"width": 1280, "height": 720, "frame_rate": 50.0, "zoom": 2.0}
    source = rig.open(rig.backend(imx219(), board=board), settings)
    small = source.encoded(EncodingRequest(kind="video", codec="h264", width=640, height=360))
    assert small is not None
    until(lambda: bool(camera_of(source).camera_config.get("lores")))
    until(lambda: camera_of(source).started)
    crop = camera_of(source).set["ScalerCrop"]
    assert crop == (820, 616, 1640, 1232)
    assert camera_of(source).set["ScalerCrops"] == [crop, crop]
    source.apply_controls({"zoom": 4.0})
    crop = camera_of(source).set["ScalerCrop"]
    assert camera_of(source).set["ScalerCrops"] == [crop, crop]


def test_what_was_set_since_survives_a_second_stream(rig: Rig) -> None:
    source = rig.open(rig.backend(imx219()), {"width": 1280, "height": 720, "frame_rate": 50.0})
    source.apply_controls({"contrast": 1.5})
    assert source.encoded(EncodingRequest(kind="video", codec="h264", width=640, height=360)) is not None
    until(lambda: bool(camera_of(source).camera_config.get("lores")))
    until(lambda: camera_of(source).started)
    assert camera_of(source).set["Contrast"] == 1.5


@pytest.mark.parametrize(
    ("settings", "properties", "mode", "lens"),
    [
        ({}, {}, 2, None),  # continuous: libcamera's own default stands at one metre
        ({}, {"autofocus": "continuous"}, 2, None),
        ({}, {"autofocus": "manual", "focus_distance": 4.0}, 0, 0.25),
        ({}, {"focus_distance": 4.0}, 0, 0.25),
        ({"focus_distance": 2.0}, {"autofocus": "continuous"}, 0, 0.5),  # what a recorder asks for goes first
        ({"focus_mode": "manual"}, {}, 0, None),
    ],
)
@pytest.mark.effect("config: camera.autofocus", "config: camera.focus_distance")
def test_focus(rig: Rig, settings: dict[str, Any], properties: dict[str, Any], mode: int, lens: float | None) -> None:
    backend = rig.backend(imx708(), cameras_of_configuration=[CameraProperties(label="imx708", **properties)])
    sent = camera_of(rig.open(backend, {"width": 1280, "height": 720, **settings})).set
    assert sent["AfMode"] == mode
    assert sent.get("LensPosition") == lens


def test_a_camera_without_a_lens_motor_has_no_focus(rig: Rig) -> None:
    backend = rig.backend(imx219(), cameras_of_configuration=[CameraProperties(label="imx219", focus_distance=3.0)])
    sent = camera_of(rig.open(backend)).set
    assert not {"AfMode", "LensPosition"} & sent.keys()


@pytest.mark.parametrize(
    ("properties", "flips"),
    [
        ({"hflip": True}, (True, False)),
        ({"rotation": 180}, (True, True)),
        ({"rotation": 180, "vflip": True}, (True, False)),
        ({"rotation": 90}, (False, False)),
    ],
)
def test_the_sensor_mirrors_where_it_can(rig: Rig, properties: dict[str, Any], flips: tuple[bool, bool]) -> None:
    backend = rig.backend(imx219(), cameras_of_configuration=[CameraProperties(label="imx219", **properties)])
    source = rig.open(backend)
    asked = camera_of(source).asked["transform"]
    assert (asked.hflip, asked.vflip) == flips
    assert source.encoded(H264) is not None


def test_frames_of_a_camera_that_cannot_mirror_are_mirrored_here(rig: Rig) -> None:
    camera = usb(formats=("YUYV",), can_flip=False)
    backend = rig.backend(camera, cameras_of_configuration=[CameraProperties(label=camera.model, vflip=True)])
    source = rig.open(backend, {"width": 640, "height": 480})
    shape = source._encodings.shape
    assert (shape.hflip, shape.vflip) == (False, True)
    sink = Sink()
    source.raw().add(sink)
    (frame, *_) = sink.wait_for(1)
    assert len(frame.data) == 640 * 480 * 3 // 2
    assert source.encoded(MJPEG) is None  # what the camera encodes is not mirrored


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_camera_that_refuses_costs_no_file_descriptor(rig: Rig) -> None:
    """rpicam-vid holds it: at one try a minute 1024 would be reached in a night."""
    camera = imx219()
    backend = rig.backend(camera)
    (device,) = backend.describe()
    camera.refuse = "Failed to acquire camera: Device or resource busy"

    def attempt() -> None:
        with pytest.raises(NotReadableError, match="busy"):
            backend.open(device, {})

    attempt()
    before = descriptors()
    for _ in range(20):
        attempt()
    until(lambda: descriptors() <= before)
    assert not rig.standin.Picamera2._cm.cameras  # or its thread would never end
    camera.refuse = ""
    rig.open(backend)


def test_a_second_opening_that_is_refused_leaves_the_first_alone(rig: Rig) -> None:
    """picamera2 knows its cameras by number: what cleans up after the second must not take the first one out."""
    source = rig.open(rig.backend(imx219()))
    from msrecd.devices.picamera import device as picamera_device

    (info,) = picamera_device.listed()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            picamera_device._open(info["Id"])
    assert list(rig.standin.Picamera2._cm.cameras.values()) == [camera_of(source)]
    sink = Sink()
    source.raw().add(sink)
    sink.wait_for(3)
    source.close()
    assert rig.ended == []


def test_a_camera_that_goes_while_it_is_opened_is_not_called_busy(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = rig.backend(imx219())
    (device,) = backend.describe()
    from msrecd.devices.picamera import device as picamera_device

    listed = picamera_device.listed

    def listed_before_it_went() -> list[dict[str, Any]]:
        found = listed()
        rig.standin.Picamera2.machine.cameras.clear()
        return found

    monkeypatch.setattr(picamera_device, "listed", listed_before_it_went)
    with pytest.raises(NotFoundError):
        backend.open(device, {})


def test_looking_into_a_camera_allocates_nothing(rig: Rig) -> None:
    """Four raw buffers of an IMX477 are 70 MiB: picamera2's own allocator fails on a Zero 2 W (picamera2#1358)."""
    (device,) = rig.backend(imx477(memory=32 << 20)).describe()
    assert "error" not in device.detail
    assert (device.video_modes[0].width, device.video_modes[0].height) == (1920, 1080)
    assert "zoom" in device.controls


@pytest.mark.promise("camera-memory-is-explained")
def test_memory_that_is_refused_is_explained(rig: Rig) -> None:
    backend = rig.backend(imx477(memory=4 << 20))
    rig.meminfo.write_text("CmaTotal: 262144 kB\nCmaFree: 100 kB\n")
    with pytest.raises(
        NotReadableError, match=r"no_memory: .*Cannot allocate memory; the camera needs \d+ MiB .* 256 MiB in all"
    ):
        rig.open(backend, {"width": 1920, "height": 1080})


@pytest.mark.promise("camera-memory-is-explained")
def test_too_little_memory_is_not_called_a_size_that_is_not_there(rig: Rig) -> None:
    """Where looking into a camera needed memory its modes were unknown: "no camera satisfies width" was all it said."""
    rig.meminfo.write_text("CmaTotal: 4096 kB\nCmaFree: 4000 kB\n")

    async def opened() -> None:
        devices = MediaDevices(backends=[rig.backend(imx477(memory=4 << 20))])
        wanted = {"width": {"exact": 1920}, "height": {"exact": 1080}}
        try:
            await devices.get_user_media({"video": wanted})
        finally:
            await devices.close()

    with pytest.raises(NotReadableError, match=r"no_memory: .* of 4 MiB in all"):
        asyncio.run(opened())


def test_a_camera_is_looked_into_by_its_id(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one appears in between and takes its place in the list."""
    first, second = usb(), imx219(num=1)
    backend = rig.backend(first)
    from msrecd.devices.picamera import device as picamera_device

    listed = picamera_device.listed

    def listed_before_it_came() -> list[dict[str, Any]]:
        found = listed()
        rig.standin.Picamera2.machine.cameras[:] = [second, first]
        return found

    monkeypatch.setattr(picamera_device, "listed", listed_before_it_came)
    (device,) = backend.describe()
    monkeypatch.setattr(picamera_device, "listed", listed)
    assert (device.label, "zoom" in device.controls) == (first.model, False)
    assert [d.label for d in backend.describe()] == ["imx219", first.model]


def test_a_key_frame_is_the_frame_it_was_asked_for_also_in_a_batch(rig: Rig) -> None:
    """picamera2 runs the callbacks of all frames that have come before it encodes the first of them."""
    source = rig.open(rig.backend(imx219(batch=3)))
    feed = source.encoded(EncodingRequest(kind="video", codec="h264", key_frame_interval_ns=100 * NS))
    assert feed is not None
    sink = Sink()
    feed.feed.add(sink)
    sink.wait_for(9)
    for _ in range(5):
        at_ns = time.monotonic_ns() + 100 * MS
        feed.request_key_frame(at_ns)
        sink.wait(lambda at_ns=at_ns: any(p.is_keyframe and p.pts_ns >= at_ns for p in sink.units))  # type: ignore[misc]
        first = next(i for i, p in enumerate(sink.units) if p.pts_ns >= at_ns)
        assert sink.units[first].is_keyframe
        assert not sink.units[first - 1].is_keyframe


def test_a_key_frame_that_did_not_come_is_asked_for_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    source = rig.open(rig.backend(imx219()))
    feed = source.encoded(EncodingRequest(kind="video", codec="h264", key_frame_interval_ns=100 * NS))
    assert feed is not None
    sink = Sink()
    feed.feed.add(sink)
    sink.wait_for(5)
    take, lost = rig.standin.H264Encoder._take_forced, itertools.count()

    def forget_the_first(self: Any) -> bool:
        return take(self) and next(lost) > 0

    monkeypatch.setattr(rig.standin.H264Encoder, "_take_forced", forget_the_first)
    feed.request_key_frame()
    count = len(sink.units)
    sink.wait(lambda: any(p.is_keyframe for p in sink.units[count:]))
    assert next(lost) == 2


def test_jpegs_of_a_camera_are_copied_as_far_as_they_go(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its buffer is as large as a raw frame: copying all of it would be 4 MB a frame at 1080p."""
    source = rig.open(rig.backend(usb(formats=("MJPEG",))), {"width": 640, "height": 480})
    from msrecd.devices.picamera import device as picamera_device

    copied: set[int] = set()
    jpeg_of = picamera_device.jpeg_of

    def seen(data: bytes) -> bytes:
        copied.add(len(data))
        return jpeg_of(data)

    monkeypatch.setattr(picamera_device, "jpeg_of", seen)
    feed = source.encoded(EncodingRequest(kind="video", codec="mjpeg"))
    assert feed is not None
    sink = Sink()
    feed.feed.add(sink)
    assert all(packet.data == fake.jpeg(640, 480) for packet in sink.wait_for(3))
    assert copied == {len(fake.jpeg(640, 480))}


def test_a_bit_rate_that_the_driver_would_clamp_in_silence(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    source = rig.open(rig.backend(imx219()))
    feed = source.encoded(EncodingRequest(kind="video", codec="h264", bit_rate=80_000_000))
    assert feed is not None
    sink = Sink()
    feed.feed.add(sink)
    sink.wait_for(2)
    (encoder,) = camera_of(source).encoders
    assert encoder.bitrate == 25_000_000
    assert "at most 25 Mbit/s, not the 80 asked for" in caplog.text


def test_a_frame_with_more_blocks_than_level_4_2_is_not_for_the_hardware() -> None:
    assert fits_hardware_encoder((1920, 1080))
    assert not fits_hardware_encoder((1920, 1440))
    assert not fits_hardware_encoder((2028, 1080))
    assert fits_hardware_encoder((1080, 1920))
    assert not fits_hardware_encoder((1000, 2200))  # few enough blocks, but the driver cuts at 1920 lines


def test_an_encoder_that_appears_late_is_waited_for(rig: Rig) -> None:
    backend = rig.backend(imx219())
    backend._board = Board(name="Raspberry Pi Zero 2 W", soc="bcm2837")
    rig.node.unlink()
    threading.Timer(0.5, rig.node.touch).start()
    feed = rig.open(backend).encoded(H264)
    assert feed is not None
    assert feed.can_force_key_frames


@pytest.mark.promise("torn-jpegs")
def test_frames_that_a_camera_did_not_give_are_counted(rig: Rig) -> None:
    """A USB camera that gives nothing for a moment: nobody told it a rate, it is measured."""
    camera = usb(formats=("YUYV",), fps=25.0)
    source = rig.open(rig.backend(camera), {"width": 640, "height": 480})
    assert source.format.frame_rate == 25.0
    sink = Sink()
    source.raw().add(sink)
    sink.wait_for(10)
    for _ in range(2):
        count = len(sink.units)
        camera.stalled.set()
        time.sleep(1.0)
        camera.stalled.clear()
        sink.wait_for(count + 5)
    until(lambda: source.stats.dropped >= 40)
    assert source.stats.dropped < 70
    assert not source.muted


def test_a_slow_camera_is_not_taken_for_a_dead_one(rig: Rig) -> None:
    """A frame every three seconds is what was asked for: nothing is muted, restarted or given up."""
    limits = watch.LIMITS.for_frames_of(3 * NS)
    assert limits.look_ns >= 9 * NS
    assert limits.muted_ns >= 15 * NS
    assert limits.restart_ns < limits.failed_ns
    assert watch.LIMITS.for_frames_of(33 * MS) == watch.LIMITS
    camera = imx219(fps=1 / 3)
    source = rig.open(rig.backend(camera), {"width": 640, "height": 480, "frame_rate": 1 / 3})
    sink = Sink()
    source.raw().add(sink)
    sink.wait_for(2)
    assert rig.muted == []
    assert source.restarts == 0
    assert source.stats.dropped == 0


def tuning_rig(rig: Rig, *files: str) -> None:
    rig.tuning.mkdir()
    for name in files:
        (rig.tuning / name).write_text("{}")


@pytest.mark.effect("config: camera.tuning_file")
def test_a_tuning_file_is_there_before_libcamera_starts(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIBCAMERA_IPA_CONFIG_PATH", raising=False)
    tuning_rig(rig, "imx219_noir.json")
    properties = [CameraProperties(label="imx219", tuning_file="imx219_noir.json")]
    backend = rig.backend(imx219(), imx708(num=1), cameras_of_configuration=properties)
    rig.open(backend)
    (*_, folder) = [path for path in rig.standin.Picamera2.machine.tuning if path is not None]
    for platform in ("vc4", "pisp"):
        assert (Path(folder) / f"rpi/{platform}/imx219.json").resolve() == (rig.tuning / "imx219_noir.json").resolve()
        assert not (Path(folder) / f"rpi/{platform}/imx708.json").exists()  # that one has libcamera's own
    assert len(set(rig.standin.Picamera2.machine.tuning)) == 2  # before, without; then with it
    if rig.standin is real_picamera2:  # what libcamera reads: neither the listing before nor picamera2 comes in the way
        assert real_picamera2.MACHINE.tunings[0] == "its own"
        assert set(real_picamera2.MACHINE.tunings[1:]) == {str(rig.tuning / "imx219_noir.json")}
    monkeypatch.delenv("LIBCAMERA_IPA_CONFIG_PATH", raising=False)


@pytest.mark.promise("tuning-files")
def test_tuning_files_that_cannot_be_had(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIBCAMERA_IPA_CONFIG_PATH", raising=False)
    tuning_rig(rig, "a.json", "b.json")
    left, right = imx219(), imx219(num=1)
    right.id = left.id.replace("i2c@1", "i2c@0")
    listed = [{"Id": left.id, "Model": "imx219"}, {"Id": right.id, "Model": "imx219"}]
    rig.backend(left, right)
    from msrecd.devices.picamera.backend import choose_tuning, device_id_of

    one, two = (
        CameraProperties(device_id=device_id_of(camera.id), tuning_file=name)
        for camera, name in ((left, "a.json"), (right, "b.json"))
    )
    tuning = choose_tuning([one, two], listed, "vc4", [rig.tuning])
    assert tuning.files == {"imx219": rig.tuning / "a.json"}
    assert list(tuning.refused) == [right.id]
    assert "share a tuning file" in tuning.refused[right.id]
    (camera,) = rig.backend(
        imx219(), cameras_of_configuration=[CameraProperties(label="imx219", tuning_file="nowhere.json")]
    ).describe()
    assert "tuning_file: there is no nowhere.json" in camera.detail["error"]
    with pytest.raises(NotReadableError, match=r"there is no nowhere\.json"):
        rig.open(rig.backends[-1])


def test_what_the_sensor_cannot_turn_is_left_to_the_player(rig: Rig) -> None:
    backend = rig.backend(imx219(), cameras_of_configuration=[CameraProperties(label="imx219", rotation=90)])
    source = rig.open(backend)
    assert source.format.presentation.rotation == 90
    feed = source.encoded(H264)
    assert feed is not None
    sink = Sink()
    feed.feed.add(sink)
    sink.wait_for(1)
    assert feed.parameters is not None
    assert feed.parameters.presentation.rotation == 90


@pytest.mark.parametrize(
    ("frame_rate", "limits", "rate"),
    [
        ({"min": 5, "ideal": 30}, (33333, 200_000), 30),
        ({"min": 5, "max": 30}, (33333, 200_000), 30),
        ({"exact": 25}, (40_000, 40_000), 25),
        (20, (50_000, 50_000), 20),
    ],
)
def test_constraints_of_the_frame_rate(rig: Rig, frame_rate: Any, limits: tuple[int, int], rate: float) -> None:
    async def opened() -> tuple[Any, Any]:
        devices = MediaDevices(backends=[rig.backend(imx219())])
        stream = await devices.get_user_media({"video": {"width": 1280, "height": 720, "frame_rate": frame_rate}})
        (track,) = stream.get_tracks()
        found = camera_of(track._source).set["FrameDurationLimits"], track.get_settings()["frame_rate"]  # type: ignore[arg-type]
        track.stop()
        await devices.close()
        return found

    assert asyncio.run(opened()) == (limits, rate)


CONTROLS_OF_A_RECORDER = """
[[recorder]]
name = "cam0"
video = { width = 1280, height = 720, frame_rate = 30, brightness = 0.2, contrast = 1.5, saturation = 0.5, \
          sharpness = 2.0, exposure_compensation = -1.0, exposure_mode = "manual", exposure_time = 50, iso = 400, \
          white_balance_mode = "manual", color_temperature = 4000, focus_mode = "manual", focus_distance = 0.5, \
          zoom = 2.0, pan = -1.0, tilt = 1.0 }
[[recorder]]
name = "cam1"
video = { width = 1280, height = 720, exposure_mode = "continuous", white_balance_mode = "continuous", \
          focus_mode = "single-shot" }
"""


@pytest.mark.effect(
    "config: recorder.video.brightness",
    "config: recorder.video.contrast",
    "config: recorder.video.saturation",
    "config: recorder.video.sharpness",
    "config: recorder.video.exposure_compensation",
    "config: recorder.video.exposure_mode",
    "config: recorder.video.exposure_time",
    "config: recorder.video.iso",
    "config: recorder.video.white_balance_mode",
    "config: recorder.video.color_temperature",
    "config: recorder.video.focus_mode",
    "config: recorder.video.focus_distance",
    "config: recorder.video.zoom",
    "config: recorder.video.pan",
    "config: recorder.video.tilt",
)
def test_what_a_recorder_asks_for_is_set_in_the_camera(rig: Rig, tmp_path: Path) -> None:
    """From the configuration's text to libcamera's controls."""
    (tmp_path / "msrecd.toml").write_text(CONTROLS_OF_A_RECORDER)
    manual, automatic = load(tmp_path / "msrecd.toml").recorders

    async def opened(recorder: Recorder, devices: MediaDevices) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        constraints = recorder_settings(recorder).constraints
        (track,) = (await devices.get_user_media(constraints)).get_tracks()
        found = dict(camera_of(track._source).set), unmet([track], constraints or {})  # type: ignore[arg-type]
        track.stop()
        return found

    async def both() -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        devices = MediaDevices(backends=[rig.backend(imx708())])
        found = [await opened(manual, devices), await opened(automatic, devices)]
        await devices.close()
        return found

    (sent, missed), (sent_automatic, missed_automatic) = asyncio.run(both())
    assert missed == missed_automatic == []
    assert sent == sent | {
        "Brightness": 0.2,
        "Contrast": 1.5,
        "Saturation": 0.5,
        "Sharpness": 2.0,
        "ExposureValue": -1.0,
        "ExposureTime": 5000,
        "AnalogueGain": 4.0,
        "AwbEnable": False,
        "ColourTemperature": 4000,
        "AfMode": 0,
        "LensPosition": 2.0,
        "ScalerCrop": (0, 0, 2304, 1296),
        "FrameDurationLimits": (33333, 33333),
    }
    wanted = {"AeEnable": True, "AwbEnable": True, "AfMode": 1, "AfTrigger": 0}
    assert sent_automatic == sent_automatic | wanted


def test_a_still_of_full_resolution_interrupts_the_encoder_and_no_more(rig: Rig) -> None:
    """The mode must be switched for it: muted meanwhile, then a key frame; what was set stays."""
    source = rig.open(rig.backend(imx219()), {"width": 1280, "height": 720, "frame_rate": 50.0, "zoom": 2.0})
    source.apply_controls({"contrast": 1.5})
    feed = source.encoded(H264)
    assert feed is not None
    sink = Sink()
    feed.feed.add(sink)
    sink.wait_for(5)
    assert source.still_size == (3280, 2464)
    frame = source.take_still()
    assert (frame.format.width, frame.format.height, len(frame.data)) == (3280, 2464, 3280 * 2464 * 3 // 2)
    assert bytes(frame.data[:100]) == b"\x10" * 100
    count = len(sink.units)
    sink.wait_for(count + 5)
    gap = next(i for i, (a, b) in enumerate(itertools.pairwise(sink.units)) if b.pts_ns - a.pts_ns > 30 * MS)
    assert sink.units[gap + 1].is_keyframe
    assert rig.muted == [True, False]
    assert (source.format.width, source.format.height) == (1280, 720)
    assert source.restarts == 0
    sent = camera_of(source).set
    assert (sent["Contrast"], sent["ScalerCrop"][2:]) == (1.5, (1640, 1232))
    assert rig.ended == []
    assert sink.ended == []


def test_a_still_that_there_is_no_memory_for_costs_a_moment_only(rig: Rig) -> None:
    camera = imx477(memory=11 << 20)  # a frame of 4056x3040 takes 18 MiB
    source = rig.open(rig.backend(camera), {"width": 1280, "height": 720, "frame_rate": 30.0})
    feed = source.encoded(EncodingRequest(kind="video", codec="h264"))
    assert feed is not None
    sink = Sink()
    feed.feed.add(sink)
    sink.wait_for(3)
    with pytest.raises(NotReadableError, match=r"imx477: no still of full resolution: .*Cannot allocate memory"):
        source.take_still()
    count = len(sink.units)
    sink.wait_for(count + 5)
    assert rig.muted == [True, False]
    assert rig.ended == []


def test_a_still_whose_frame_does_not_come(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_source, "STILL_FRAME_S", 0.3)
    camera = imx219()
    source = rig.open(rig.backend(camera))
    camera.stalled.set()
    with pytest.raises(NotReadableError, match=r"no frame within 0\.3 s"):
        source.take_still()
    camera.stalled.clear()
    sink = Sink()
    source.raw().add(sink)
    sink.wait_for(3)
    assert rig.ended == []


def test_frames_of_full_resolution_need_no_still(rig: Rig) -> None:
    source = rig.open(rig.backend(imx219()), {"width": 3280, "height": 2464, "frame_rate": 15.0})
    assert source.still_size is None


def test_the_still_of_a_usb_camera_is_its_largest_frame(rig: Rig) -> None:
    source = rig.open(rig.backend(usb(formats=("YUYV", "MJPEG"))), {"width": 640, "height": 480})
    frame = source.take_still()
    assert (frame.format.width, frame.format.height, frame.format.pixel_format) == (1920, 1080, "yuv420p")
    sink = Sink()
    source.raw().add(sink)
    assert sink.wait_for(2)[0].format == source.format


@pytest.fixture
def real_rig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Rig]:
    """On the real picamera2 only: it makes the DNG."""
    if not real_picamera2.is_installed():
        pytest.skip("scripts/setup.sh --tests installs picamera2 for this")
    rig = Rig(real_picamera2, monkeypatch, tmp_path)
    yield rig
    for source in rig.sources:
        source.close()
    for backend in rig.backends:
        backend.close()


@pytest.mark.parametrize(
    ("make", "size", "board", "bits"),
    [
        (imx477, (1280, 720), "pi4", 12),
        (imx477, (1280, 720), "pi5", 16),
        (imx219, (640, 480), "pi4", 10),
        (ov5647, (2592, 1944), "pi4", 10),  # its frames are that large already
    ],
)
@pytest.mark.promise("raw-stills")
def test_a_raw_still_is_what_the_sensor_gave(
    real_rig: Rig, make: Callable[[], FakeCamera], size: tuple[int, int], board: str, bits: int
) -> None:
    """All samples of the largest mode, bit-exact, in a file that says what they are; the recording goes on."""
    rig, camera = real_rig, make()
    mode = max(camera.modes, key=lambda mode: (mode["size"], mode["bit_depth"]))
    source = rig.open(rig.backend(camera, board=board), {"width": size[0], "height": size[1], "frame_rate": 10.0})
    sink = Sink()
    source.raw().add(sink)
    sink.wait_for(2)
    still = source.take_raw_still()
    assert (still.frame.format.width, still.frame.format.height) == mode["size"]
    dng = read_dng(still.dng)
    assert (dng.size, dng.white_level, dng.pattern) == (mode["size"], (1 << bits) - 1, str(mode["format"])[1:5])
    assert dng.black_levels == [4096 >> (16 - bits)] * 4
    assert (dng.model, dng.exposure_s, dng.iso) == (source.label, 0.01, 200)
    for row, pair in enumerate(raw_samples(bits)):
        for column, sample in enumerate(pair):
            assert (dng.samples[row::2, column::2] == sample).all()
    count = len(sink.units)
    sink.wait_for(count + 2)
    assert source.format == sink.units[-1].format
    assert rig.muted == [True, False]
    assert rig.ended == []


def test_a_sensor_without_colour_filters_gives_linear_samples(real_rig: Rig) -> None:
    camera = imx296()
    camera.modes = [{**mode, "format": "R10_CSI2P"} for mode in camera.modes]
    dng = read_dng(real_rig.open(real_rig.backend(camera), {"width": 640, "height": 480}).take_raw_still().dng)
    assert (dng.size, dng.pattern, dng.black_levels) == ((1456, 1088), None, [64])


def test_cameras_without_raw_frames_say_why(rig: Rig) -> None:
    source = rig.open(rig.backend(usb()), {"width": 640, "height": 480})
    with pytest.raises(NotSupportedError, match=r"C920 gives no DNG: .* needs a camera at the board's own connector"):
        source.take_raw_still()
    assert rig.muted == [], "nothing was interrupted"


def test_a_raw_still_in_a_format_that_nobody_asked_for_costs_a_moment_only(
    real_rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A libcamera that packs all the same: the reason is told, and the camera goes on."""
    source = real_rig.open(real_rig.backend(imx219()))
    take = source._device._raw_frame  # type: ignore[attr-defined]
    packed = lambda request: replace(take(request), pixel_format="SRGGB10_CSI2P")  # noqa: E731
    monkeypatch.setattr(source._device, "_raw_frame", packed)
    with pytest.raises(NotReadableError, match=r"imx219: no DNG: raw frames in SRGGB10_CSI2P"):
        source.take_raw_still()
    sink = Sink()
    source.raw().add(sink)
    sink.wait_for(3)
    assert real_rig.ended == []


SENSORS = {"ov5647": ov5647, "imx219": imx219, "imx477": imx477, "imx708": imx708, "imx296": imx296}


@pytest.mark.parametrize(
    ("sensor", "asked", "mode"),
    [
        # 640x480 has the whole field of view where a mode of at most 4 megapixels shows it, at any usual rate.
        ("ov5647", (640, 480, 10), (640, 480)),  # that one shows all
        ("imx219", (640, 480, 10), (1640, 1232)),
        ("imx477", (640, 480, 10), (2028, 1520)),  # not 4056x3040, which does 10 frames a second as well
        ("imx477", (640, 480, 30), (2028, 1520)),
        ("imx708", (640, 480, 10), (2304, 1296)),
        ("imx296", (640, 480, 10), (1456, 1088)),
        ("imx477", (800, 600, 10), (2028, 1520)),
        ("ov5647", (1920, 1080, 30), (1920, 1080)),
        ("imx296", (1280, 720, 30), (1456, 1088)),
    ],
)
def test_what_a_recorder_asks_for_opens_a_mode_that_shows_all(
    rig: Rig, sensor: str, asked: tuple[int, int, float], mode: tuple[int, int]
) -> None:
    """Through the constraints, as a recorder opens it: the main stream has the size that was asked for."""
    width, height, rate = asked

    async def opened() -> tuple[Any, Any]:
        devices = MediaDevices(backends=[rig.backend(SENSORS[sensor]())])
        wanted = {"video": {"width": width, "height": height, "frame_rate": rate}}
        (track,) = (await devices.get_user_media(wanted)).get_tracks()
        found = dict(camera_of(track._source).asked), track.get_settings()  # type: ignore[arg-type]
        track.stop()
        await devices.close()
        return found

    asked_of_camera, settings = asyncio.run(opened())
    assert asked_of_camera["sensor"]["output_size"] == mode
    native = (width, height) if asked != (800, 600, 10) else mode  # a size that nobody lists is scaled here
    assert asked_of_camera["main"]["size"] == native
    assert asked_of_camera["lores"] is None
    assert (settings["width"], settings["height"], settings["frame_rate"]) == (width, height, rate)
