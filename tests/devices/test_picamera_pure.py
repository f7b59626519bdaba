"""Control mapping, modes, memory, packets and deadlines of the camera backend, without a camera."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import camera_facts as facts
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrecd.clock import MS, NS
from msrecd.devices.base import VideoMode
from msrecd.devices.camera.controls import capabilities, facing_mode, figures, to_libcamera
from msrecd.devices.camera.frames import format_order, jpeg_of, unpad
from msrecd.devices.camera.modes import (
    CameraPlan,
    ContiguousMemory,
    SensorMode,
    buffer_bytes,
    choose_mode,
    contiguous_memory,
    frame_skip,
    key_frame_period,
    missing_memory,
    needed_memory,
    sensor_modes,
    video_modes,
)
from msrecd.devices.camera.packets import EncodedStream, SensorTimes
from msrecd.devices.deadline import CallTimeout, DeadlineWorker
from msrecd.devices.picamera.guard import guard_release, one_at_a_time
from msrecd.dom.exceptions import NotReadableError
from msrecd.flow.encoded import EncodedFeed, StreamParameters

LARGE = {(1280, 720)}


class TestControls:
    def test_a_camera_with_a_lens_motor(self) -> None:
        found = capabilities(facts.IMX708_CONTROLS)
        assert found["focus_mode"] == ("continuous", "manual", "single-shot")
        assert found["focus_distance"] == (0.067, 100.0, 1.0)
        assert found["exposure_mode"] == ("continuous", "manual")
        assert found["iso"] == pytest.approx((112.28, 1600.0, 112.28), abs=0.01)  # the sensor has no gain of 1
        assert found["exposure_time"] == (0.26, 2204168.02, 200.0)
        assert found["zoom"] == (1.0, 16.0, 1.0)
        assert found["brightness"] == (-1.0, 1.0, 0.0)

    @pytest.mark.parametrize("controls", [facts.IMX219_CONTROLS, facts.IMX477_CONTROLS])
    def test_a_camera_with_a_fixed_lens(self, controls: facts.Controls) -> None:
        found = capabilities(controls)
        assert not {"focus_mode", "focus_distance"} & found.keys()
        assert to_libcamera({"focus_mode": "manual", "focus_distance": 1.0}, controls) == {}

    def test_a_usb_camera_has_what_it_has(self) -> None:
        assert capabilities(facts.USB_CONTROLS) == {"brightness": (-1.0, 1.0, 0.0), "contrast": (0.0, 2.0, 1.0)}
        settings = {"exposure_time": 100, "zoom": 2, "white_balance_mode": "manual", "frame_rate": 30, "contrast": 1.2}
        assert to_libcamera(settings, facts.USB_CONTROLS) == {"Contrast": 1.2}

    @pytest.mark.parametrize(
        ("settings", "controls"),
        [
            ({}, {}),
            ({"exposure_time": 100}, {"ExposureTime": 10_000}),
            (
                {"exposure_mode": "manual", "exposure_time": 100, "iso": 200},
                {"ExposureTime": 10_000, "AnalogueGain": 2.0},
            ),
            ({"exposure_mode": "manual"}, {"AeEnable": False}),
            ({"exposure_mode": "continuous", "exposure_time": 100}, {"AeEnable": True}),
            ({"iso": 999_999}, {"AnalogueGain": 16.0}),
            ({"iso": 100}, {"AnalogueGain": 1.1228070259094238}),
            ({"white_balance_mode": "continuous"}, {"AwbEnable": True}),
            ({"color_temperature": 5000}, {"AwbEnable": False, "ColourTemperature": 5000}),
            ({"focus_mode": "continuous"}, {"AfMode": 2}),
            ({"focus_mode": "single-shot"}, {"AfMode": 1, "AfTrigger": 0}),
            ({"focus_distance": 0.25}, {"AfMode": 0, "LensPosition": 4.0}),
            ({"focus_distance": 100.0}, {"AfMode": 0, "LensPosition": 0.0}),
            ({"focus_distance": 0.0}, {"AfMode": 0, "LensPosition": 15.0}),
            ({"frame_rate": 50}, {"FrameDurationLimits": (20_000, 20_000)}),  # faster than the mode it was read in
            ({"zoom": 1.0}, {"ScalerCrop": (0, 0, 4608, 2592)}),
            ({"zoom": 2.0}, {"ScalerCrop": (1152, 648, 2304, 1296)}),
            ({"zoom": 2.0, "pan": -1, "tilt": 1}, {"ScalerCrop": (0, 0, 2304, 1296)}),
            ({"zoom": 2.0, "pan": 1, "tilt": -1}, {"ScalerCrop": (2304, 1296, 2304, 1296)}),
            ({"brightness": 7}, {"Brightness": 1.0}),
        ],
    )
    def test_settings(self, settings: dict[str, Any], controls: dict[str, Any]) -> None:
        assert to_libcamera(settings, facts.IMX708_CONTROLS) == controls

    @given(zoom=st.floats(0, 100, allow_nan=False), pan=st.floats(-2, 2), tilt=st.floats(-2, 2))
    def test_a_crop_never_leaves_the_sensor(self, zoom: float, pan: float, tilt: float) -> None:
        crop = to_libcamera({"zoom": zoom, "pan": pan, "tilt": tilt}, facts.IMX219_CONTROLS)["ScalerCrop"]
        left, top, width, height = crop
        assert left >= 0
        assert top >= 0
        assert left + width <= 3280
        assert top + height <= 2464
        assert width >= 64
        assert height >= 64

    def test_where_a_camera_looks(self) -> None:
        assert [facing_mode(location) for location in (0, 1, 2, None)] == ["user", "environment", None, None]


class TestModes:
    @pytest.mark.parametrize(
        ("modes", "size", "rate", "chosen"),
        [
            (facts.IMX219_MODES, (1920, 1080), 30, (1920, 1080)),
            (facts.IMX219_MODES, (1280, 720), 30, (1640, 1232)),
            (facts.IMX219_MODES, (640, 480), 90, (640, 480)),
            (facts.IMX219_MODES, (640, 480), 30, (1640, 1232)),  # all that the lens sees: 640x480 is a crop
            (facts.IMX219_MODES, (1920, 1080), 10, (1920, 1080)),  # the whole sensor would be 8 megapixels
            (facts.IMX477_MODES, (640, 480), 10, (2028, 1520)),
            (facts.IMX219_MODES, (1920, 1080), 120, (1920, 1080)),  # too slow beats too small
            (facts.IMX219_MODES, (3840, 2160), 30, (1920, 1080)),  # the best there is at that rate
            (facts.IMX219_MODES, (3840, 2160), None, (3280, 2464)),
            (facts.IMX708_MODES, (1920, 1080), 30, (2304, 1296)),
            (facts.IMX708_MODES, (1280, 720), 60, (1536, 864)),
            (facts.IMX477_MODES, (1280, 720), 60, (1332, 990)),
            (facts.IMX477_MODES, (1920, 1080), 50, (2028, 1080)),
        ],
    )
    def test_the_smallest_sensor_mode_that_will_do(
        self, modes: list[dict[str, Any]], size: tuple[int, int], rate: float | None, chosen: tuple[int, int]
    ) -> None:
        mode = choose_mode(sensor_modes(modes), size, rate)
        assert mode is not None
        assert mode.size == chosen

    def test_more_bits_where_both_are_fast_enough(self) -> None:
        mode = choose_mode(sensor_modes(facts.IMX219_MODES), (640, 480), 30)
        assert mode == SensorMode(size=(1640, 1232), frame_rate=41.85, bit_depth=10, crop=(3280, 2464))

    @pytest.mark.parametrize(
        ("modes", "rate"), [(facts.IMX219_MODES, 47.57), (facts.IMX708_MODES, 56.03), (facts.IMX477_MODES, 50.03)]
    )
    def test_the_default_is_what_the_encoder_can_take(self, modes: list[dict[str, Any]], rate: float) -> None:
        first = video_modes(sensor_modes(modes), (), None)[0]
        assert first == VideoMode(width=1920, height=1080, frame_rate=rate)

    def test_a_small_sensor_is_not_blown_up(self) -> None:
        found = video_modes([SensorMode(size=(1280, 800), frame_rate=120.0, bit_depth=10)], (), None)
        assert [(m.width, m.height) for m in found] == [(1280, 800), (1280, 720), (640, 480)]

    def test_a_camera_that_says_nothing(self) -> None:
        assert [(m.width, m.height, m.frame_rate) for m in video_modes((), (), None)] == [
            (1280, 720, 30.0),
            (640, 480, 30.0),
        ]

    @pytest.mark.parametrize(
        ("camera", "wanted", "skip"),
        [
            (30.0, None, 1),
            (30.0, 30.0, 1),
            (30.0, 29.97, 1),
            (30.0, 15.0, 2),
            (30.0, 10, 3),
            (30, 20, None),
            (30, 60, 1),
        ],
    )
    def test_frame_skip(self, camera: float, wanted: float | None, skip: int | None) -> None:
        assert frame_skip(camera, wanted) == skip

    @pytest.mark.parametrize(
        ("rate", "interval_ns", "count", "period"),
        [
            (30.0, 0, 0, 30),
            (None, 0, 0, 30),
            (25.0, 2 * NS, 0, 50),
            (25.0, 2 * NS, 10, 10),
            (30.0, 1, 0, 1),
            (30.0, 0, 5, 5),
        ],
    )
    def test_key_frame_period(self, rate: float | None, interval_ns: int, count: int, period: int) -> None:
        assert key_frame_period(rate, interval_ns, count) == period

    def test_memory(self, tmp_path: Path) -> None:
        meminfo = tmp_path / "meminfo"
        needed = buffer_bytes((1920, 1080), "YUV420", 4)
        assert needed == 1920 * 1080 * 3 // 2 * 4
        assert contiguous_memory(meminfo) is None
        assert missing_memory(needed, None) is None  # unknown
        meminfo.write_text("CmaTotal:         0 kB\nCmaFree:          0 kB\n")
        assert contiguous_memory(meminfo) is None  # not used on this machine
        meminfo.write_text("CmaTotal:     65536 kB\nCmaFree:        100 kB\n")
        assert contiguous_memory(meminfo) == ContiguousMemory(total=64 << 20, free=100 << 10)
        assert missing_memory(needed, contiguous_memory(meminfo)) is None  # the page cache gives way
        meminfo.write_text("CmaTotal:      8192 kB\nCmaFree:       8000 kB\n")
        shortage = missing_memory(needed, contiguous_memory(meminfo)) or ""
        assert "needs 12 MiB of contiguous memory (CMA), of 8 MiB in all" in shortage

    def test_what_a_camera_takes_of_the_memory(self) -> None:
        """Beside its own stream: the sensor's raw frames, four of them, and what the codec has."""
        frames = buffer_bytes((1280, 720), "YUV420", 6)
        mode = SensorMode(size=(1640, 1232), frame_rate=41.85, bit_depth=10)
        plan = CameraPlan(size=(1280, 720), frame_rate=30.0, mode=mode, settings={})
        raw = 4 * 1640 * 10 // 8 * 1232
        assert needed_memory(plan, is_hardware_encoder=False) == frames + raw
        assert needed_memory(plan, is_hardware_encoder=True) == frames + raw + (8 << 20)
        large = replace(plan, size=(1920, 1080))
        more = needed_memory(large, is_hardware_encoder=True) - needed_memory(large, is_hardware_encoder=False)
        assert more == 12 << 20  # longer buffers for encoded frames above 720p

    @given(
        width=st.integers(1, 40).map(lambda n: 2 * n),
        height=st.integers(1, 20).map(lambda n: 2 * n),
        pad=st.integers(0, 10).map(lambda n: 2 * n),
    )
    def test_unpad(self, width: int, height: int, pad: int) -> None:
        stride = width + pad
        rows = [bytes([row % 250]) * width for row in range(height)]
        chroma = [bytes([row % 250]) * (width // 2) for row in range(height)]
        padded = b"".join(row + b"\xff" * pad for row in rows) + b"".join(row + b"\xff" * (pad // 2) for row in chroma)
        assert unpad(memoryview(padded + b"\xff\xff"), (width, height), stride, "yuv420p") == b"".join(rows + chroma)

    @pytest.mark.parametrize(
        ("offered", "size", "order"),
        [
            ({}, (640, 480), []),
            ({"S24": {(640, 480)}, "YUYV": {(640, 480)}}, (640, 480), ["YUYV"]),
            ({"MJPEG": {(640, 480)}, "YUYV": {(640, 480)}}, (640, 480), ["YUYV", "MJPEG"]),
            ({"YUYV": LARGE, "YUV420": LARGE, "MJPEG": LARGE}, (1280, 720), ["MJPEG", "YUV420", "YUYV"]),
            ({"YUYV": {(640, 480)}, "MJPEG": {(320, 240)}}, (320, 240), ["MJPEG", "YUYV"]),
        ],
    )
    def test_formats_in_the_order_of_their_cost(
        self, offered: dict[str, set[tuple[int, int]]], size: tuple[int, int], order: list[str]
    ) -> None:
        assert format_order(offered, size) == order

    def test_the_jpeg_in_a_buffer(self) -> None:
        thumbnail = b"\xff\xd8\xff\xd9"
        jpeg = b"\xff\xd8\xff\xe1\0\x06" + thumbnail + b"\xff\xda\0\x02data\xff\0\xff\xd0more\xff\xd9"
        assert jpeg_of(jpeg + b"rest of an older one\xff\xd9\0\0") == jpeg
        for wrong in (b"", b"\xff\xd8", jpeg[:-1], b"\0" + jpeg):
            with pytest.raises(ValueError, match="JPEG"):
                jpeg_of(wrong)

    def test_unpad_of_too_little(self) -> None:
        with pytest.raises(ValueError, match="a buffer of 10 bytes"):
            unpad(memoryview(bytes(10)), (4, 4), 4, "yuv420p")


class TestSensorTimes:
    def test_monotonic_times_stay(self) -> None:
        times = SensorTimes("cam")
        assert times.to_monotonic(5 * NS, 5 * NS + 40 * MS) == 5 * NS
        assert times.to_monotonic(6 * NS, 20 * NS) == 6 * NS  # decided once

    def test_times_of_another_clock_are_shifted(self, caplog: pytest.LogCaptureFixture) -> None:
        times = SensorTimes("cam")
        assert times.to_monotonic(1_700_000_000 * NS, 5 * NS) == 5 * NS
        assert times.to_monotonic(1_700_000_001 * NS, 9 * NS) == 6 * NS
        assert len(caplog.records) == 1


class Stream:
    """An EncodedStream with a sink."""

    def __init__(self, *, broken_parameters: bool = False, is_rate_fixed: bool = True) -> None:
        self.packets: list[Any] = []
        self.ended: list[BaseException | None] = []
        self.hold = threading.Event()
        self.hold.set()
        self.came = threading.Semaphore(0)
        self.feed = EncodedFeed()
        self.feed.feed.add(self)
        self.base_us = time.monotonic_ns() // 1000

        def make(key_frame: bytes) -> StreamParameters:
            if broken_parameters:
                raise ValueError("no parameter sets")
            return StreamParameters(kind="video", codec="h264", header=b"", codec_string="avc1.42c028")

        self.stream = EncodedStream(
            self.feed,
            name="cam",
            times=SensorTimes("cam"),
            frame_ns=20 * MS,
            make_parameters=make,
            is_rate_fixed=is_rate_fixed,
        )

    def put(self, unit: Any) -> None:
        self.came.release()
        assert self.hold.wait(10)
        self.packets.append(unit)

    def end(self, error: BaseException | None) -> None:
        self.ended.append(error)

    def offer(self, index: int, *, key: bool = False, size: int = 10) -> None:
        self.stream.offer(bytes(size), key, self.base_us + index * 20_000)

    def indices(self) -> list[int]:
        return [round((p.pts_ns / 1000 - self.base_us) / 20_000) for p in self.packets]


class TestEncodedStream:
    def test_begins_with_a_key_frame(self) -> None:
        s = Stream()
        for index in range(6):
            s.offer(index, key=index == 2)
        s.stream.stop()
        assert s.indices() == [2, 3, 4, 5]
        assert s.feed.facts.dropped == 0
        assert not any(p.discontinuity for p in s.packets)
        assert s.ended == []

    def test_a_full_queue_loses_up_to_the_next_key_frame(self) -> None:
        s = Stream()
        s.offer(0, key=True)
        assert s.came.acquire(timeout=5)
        s.hold.clear()
        s.offer(1)
        assert s.came.acquire(timeout=0.01) in {True, False}
        for index in range(2, 400):
            s.offer(index, key=index == 390)  # does not block, though nobody takes any
        s.hold.set()
        deadline = time.monotonic() + 5
        while len(s.packets) < 100 and time.monotonic() < deadline:
            time.sleep(0.005)
        for index in range(400, 420):
            s.offer(index, key=index == 410)
        s.stream.stop()
        at = s.indices()
        assert at == sorted(set(at))
        first_after = at.index(410)
        assert at[first_after:] == list(range(410, 420))
        assert s.packets[first_after].is_keyframe
        assert s.packets[first_after].discontinuity
        assert at[:first_after] == list(range(first_after))  # whole up to the hole
        assert s.feed.facts.dropped == 420 - len(at)

    @pytest.mark.parametrize(("is_rate_fixed", "dropped"), [(True, 5), (False, 5)])
    def test_frames_that_never_came_are_counted(self, is_rate_fixed: bool, dropped: int) -> None:
        """A camera without a free buffer, or one whose encoder is too slow, leaves out pictures without a word."""
        s = Stream(is_rate_fixed=is_rate_fixed)
        for index in (0, 1, 2, 4, 5, 10, 11):
            s.offer(index, key=index == 0)
        s.stream.offer(bytes(10), False, s.base_us + 12 * 20_000 + 12_000)  # late, but nothing is missing
        s.offer(13)
        s.stream.stop()
        assert len(s.packets) == 9
        assert not any(packet.discontinuity for packet in s.packets)  # the encoder refers to what it has seen
        assert s.feed.facts.dropped == dropped

    @pytest.mark.parametrize("is_rate_fixed", [True, False])
    def test_time_never_goes_back(self, is_rate_fixed: bool) -> None:
        s = Stream(is_rate_fixed=is_rate_fixed)
        s.offer(0, key=True)
        s.offer(2)
        s.offer(1)
        s.offer(3)
        s.offer(4, key=True)
        s.stream.stop()
        assert s.indices() == [0, 2, 4]
        assert s.packets[-1].discontinuity
        assert s.feed.facts.dropped == 2

    def test_a_key_frame_without_parameters_ends_the_feed(self) -> None:
        s = Stream(broken_parameters=True)
        s.offer(0, key=True)
        deadline = time.monotonic() + 5
        while not s.ended and time.monotonic() < deadline:
            time.sleep(0.005)
        s.offer(1)
        s.stream.stop()
        assert isinstance(s.ended[0], NotReadableError)
        assert s.packets == []


class TestDeadlineWorker:
    def test_results_and_errors_come_back(self) -> None:
        worker = DeadlineWorker("test")
        assert worker.call("add", lambda: 1 + 1, 5) == 2
        with pytest.raises(ZeroDivisionError):
            worker.call("divide", lambda: 1 // 0, 5)
        assert worker.running_ns() == 0
        assert worker.stop(5)
        with pytest.raises(CallTimeout):
            worker.call("late", lambda: None, 1)

    def test_a_call_that_hangs(self) -> None:
        release = threading.Event()
        worker = DeadlineWorker("test")
        with pytest.raises(CallTimeout, match=r"hang did not return within 0\.1 s"):
            worker.call("hang", lambda: release.wait(20), 0.1)
        assert worker.running_name() == "hang"
        assert worker.running_ns() > 90 * MS
        failures: list[Exception] = []
        done = threading.Event()
        worker.submit("next", done.set, failures.append)
        with pytest.raises(CallTimeout):
            worker.call("wait", lambda: None, 0.1)
        assert not worker.stop(0.1)
        release.set()
        assert done.wait(5)
        assert failures == []
        assert worker.stop(5)

    def test_calls_do_not_pile_up(self) -> None:
        release = threading.Event()
        worker = DeadlineWorker("test")
        hanging = threading.Event()

        def hang() -> None:
            hanging.set()
            release.wait(20)

        worker.submit("hang", hang, lambda _: None)
        assert hanging.wait(5)
        made: list[int] = []
        with pytest.raises(CallTimeout, match="stuck in hang"):
            for number in range(100):
                worker.submit("more", lambda number=number: made.append(number), lambda _: None)  # type: ignore[misc]
        assert not worker.stop(0)
        release.set()
        assert worker.stop(5)  # after all that waited
        assert made == list(range(len(made)))
        assert 10 < len(made) < 100

    def test_failures_of_submitted_calls(self) -> None:
        failures: list[Exception] = []
        worker = DeadlineWorker("test")
        worker.submit("divide", lambda: 1 // 0, failures.append)
        worker.call("after", lambda: None, 5)
        assert [type(exc) for exc in failures] == [ZeroDivisionError]
        worker.stop(5)


def test_what_the_metadata_of_a_frame_say_has_the_names_of_the_w3c() -> None:
    metadata = {"FocusFoM": 812, "AfState": 2, "LensPosition": 2.0, "ExposureTime": 10_000, "AnalogueGain": 2.5}
    assert figures(metadata | {"Lux": 120.04, "ColourTemperature": 4000, "SensorTimestamp": 1}) == {
        "focus_figure": 812,
        "focus_state": "focused",
        "focus_distance": 0.5,
        "exposure_time": 100.0,
        "iso": 250,
        "color_temperature": 4000,
        "lux": 120.0,
    }
    assert figures({}) == {}
    assert figures({"FocusFoM": None, "AfState": 9, "LensPosition": float("nan"), "Lux": "dark"}) == {}


@pytest.mark.parametrize("error", [KeyError(26), RuntimeError("dictionary changed size during iteration")])
def test_memory_that_another_thread_has_freed_ends_no_frames(error: Exception) -> None:
    """picamera2 0.3.38, allocators/dmaallocator.py: release() cleans up in whichever thread it is called."""

    class CompletedRequest:
        def release(self) -> None:
            raise error

    guard_release(CompletedRequest)
    CompletedRequest().release()


def test_the_allocator_frees_for_one_thread_at_a_time() -> None:
    """As picamera2's dmaallocator.py does: what is not in use is closed, then forgotten, in a loop without a lock."""

    class Allocator:
        def __init__(self) -> None:
            self.within = self.most = self.calls = 0

        def cleanup(self) -> None:
            self.within += 1
            self.most = max(self.most, self.within)
            time.sleep(0.002)
            self.within -= 1
            self.calls += 1

        def release(self, buffers: object) -> None:
            self.cleanup()

        def allocate(self, config: object, use_case: object) -> None:
            self.cleanup()

    allocator = Allocator()
    one_at_a_time(allocator)
    threads = [threading.Thread(target=allocator.release, args=({},)) for _ in range(8)]
    for thread in threads:
        thread.start()
    allocator.allocate([], None)
    for thread in threads:
        thread.join(20)
    assert (allocator.calls, allocator.most) == (9, 1)
