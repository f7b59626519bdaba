from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import judge
import numpy as np
import pytest
from simulated_clock import SimulatedClock

from msrecd import pixels
from msrecd.clock import MS, NS, SYSTEM_CLOCK, Clock
from msrecd.devices import default_backends
from msrecd.devices.base import CameraProperties, VideoMode, properties_of
from msrecd.devices.camera.frames import flip
from msrecd.devices.virtual import VirtualBackend, VirtualCamera, VirtualDevice, VirtualMicrophone, nearest_mode
from msrecd.devices.virtual.testframe import FrameGrid, TestFrame, is_flash
from msrecd.devices.virtual.testsound import SampleTimes
from msrecd.dom.exceptions import NotAllowedError, NotFoundError, NotReadableError
from msrecd.flow.source import Source
from msrecd.flow.units import AudioBlock, VideoFormat, VideoFrame

START_NS = 1_000 * NS


class Collector:
    """A sink that keeps everything."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self.units: list[Any] = []
        self.arrivals: list[int] = []
        self.ends: list[BaseException | None] = []
        self.enough = threading.Semaphore(0)
        self.ended = threading.Event()
        self._clock = clock

    def put(self, unit: Any) -> None:
        self.arrivals.append(self._clock.monotonic_ns())
        self.units.append(unit)
        self.enough.release()

    def end(self, error: BaseException | None) -> None:
        self.ends.append(error)
        self.ended.set()

    def wait_for(self, units: int) -> None:
        for _ in range(units):
            assert self.enough.acquire(timeout=10)


@contextmanager
def opened(device: VirtualDevice, clock: Clock, settings: dict[str, Any] | None = None) -> Iterator[Source]:
    backend = VirtualBackend([device], clock=clock)
    source = backend.open(device.describe(), settings or {})
    try:
        yield source
    finally:
        source.close()


@contextmanager
def simulated(device: VirtualDevice) -> Iterator[tuple[SimulatedClock, Source, Collector]]:
    clock = SimulatedClock(start_ns=START_NS + 1, limit_ns=START_NS + 1)
    with opened(device, clock) as source:
        sink = Collector(clock)
        source.raw().add(sink)
        yield clock, source, sink


def luma(frame: VideoFrame) -> Any:
    width, height = frame.format.width, frame.format.height
    return np.frombuffer(frame.data, dtype=np.uint8)[: width * height].reshape(height, width)


def numbers(frames: list[VideoFrame]) -> list[int]:
    return [judge.number_of(luma(frame)) for frame in frames]


def sound(blocks: list[AudioBlock]) -> Any:
    return np.concatenate([pixels.array_from_block(block) for block in blocks]) / 32768


# Pictures


@pytest.mark.parametrize(("width", "height"), [(32, 16), (33, 17), (320, 240), (641, 361), (1280, 720), (1920, 1080)])
@pytest.mark.parametrize("number", [0, 1, 0xA5A5_0FF0, 2**32 - 1])
def test_the_picture_shows_its_number_and_flashes_in_its_lower_half(width: int, height: int, number: int) -> None:
    picture = TestFrame(width, height)
    for flash in (False, True):
        data = picture.paint(number, flash=flash)
        assert len(data) == width * height + 2 * math.ceil(width / 2) * math.ceil(height / 2)
        plane = np.frombuffer(data, dtype=np.uint8)[: width * height].reshape(height, width)
        cell, tall = width // 32, height // 16
        for index in range(32):
            white = number >> (31 - index) & 1
            assert np.all(plane[:tall, index * cell : (index + 1) * cell] == (235 if white else 16))
        lower = plane[height // 2 :]
        assert np.all(lower == 235) if flash else np.all(lower < 100)


def test_something_moves_and_little_else() -> None:
    picture = TestFrame(320, 240)
    planes = [np.frombuffer(picture.paint(n, flash=False), dtype=np.uint8)[: 320 * 240] for n in range(3)]
    below = [plane.reshape(240, 320)[15:] for plane in planes]
    changed = np.mean(below[0] != below[1])
    assert 0 < changed < 0.05
    assert not np.array_equal(below[1], below[2])


@pytest.mark.parametrize("frame_rate", [1, 5, 24, 25, 30, 50, 60, 90, 120])
def test_a_whole_frame_rate_has_a_frame_on_every_whole_second(frame_rate: int) -> None:
    grid = FrameGrid(frame_rate)
    for second in (0, 1, 1_000, 123_456_789):
        index = grid.index_at_or_after(second * NS)
        assert grid.time_of(index) == second * NS
        assert index == second * frame_rate
        assert grid.index_at_or_after(second * NS + 1) == index + 1


@pytest.mark.parametrize("frame_rate", [29.97, 30000 / 1001, 12.5, 0.5])
def test_broken_frame_rates_keep_their_pace(frame_rate: float) -> None:
    grid = FrameGrid(frame_rate)
    assert grid.time_of(10_000) == pytest.approx(10_000 / frame_rate * NS, rel=1e-6)
    for index in range(1000):
        assert grid.index_at_or_after(grid.time_of(index)) == index


def test_the_camera_numbers_every_frame_on_its_grid() -> None:
    with simulated(VirtualCamera("c", modes=[(320, 240, 30)])) as (clock, source, sink):
        clock.advance_to(START_NS + 3 * NS)
        assert numbers(sink.units) == list(range(90))
        assert [frame.pts_ns for frame in sink.units] == [START_NS + k * NS // 30 for k in range(1, 91)]
        assert sink.arrivals == [frame.pts_ns for frame in sink.units]
        for frame in sink.units:
            assert np.all(luma(frame)[120:] == 235) == is_flash(frame.pts_ns)
        assert source.stats.delivered == 90
        assert source.stats.dropped == 0


def test_without_listeners_the_camera_pauses_and_its_numbers_go_on_without_a_hole() -> None:
    with simulated(VirtualCamera("c", modes=[(320, 240, 10)])) as (clock, source, sink):
        clock.advance_to(START_NS + NS)
        source.raw().remove(sink)
        clock.advance_to(START_NS + 5 * NS)
        second = Collector()
        source.raw().add(second)
        clock.advance_to(START_NS + 6 * NS)
        assert numbers(sink.units) == list(range(10))
        assert numbers(second.units) == list(range(10, 10 + len(second.units)))
        assert second.units[0].pts_ns >= START_NS + 5 * NS
        assert source.stats.dropped == 0


def test_a_muted_camera_delivers_nothing_and_has_no_hole_afterwards() -> None:
    camera = VirtualCamera("c", modes=[(320, 240, 10)])
    with simulated(camera) as (clock, source, sink):
        told: list[bool] = []
        source.on_muted = told.append
        clock.advance_to(START_NS + NS)
        camera.mute()
        camera.mute()
        assert source.muted
        clock.advance_to(START_NS + 3 * NS)
        assert len(sink.units) == 10
        camera.unmute()
        clock.advance_to(START_NS + 4 * NS)
        assert told == [True, False]
        assert numbers(sink.units) == list(range(20))
        assert sink.units[10].pts_ns == START_NS + 3 * NS + NS // 10


class LateClock(SimulatedClock):
    """Wakes who waits for a certain time 2.5 s too late, once."""

    late_at_ns = START_NS + NS

    def monotonic_ns(self) -> int:
        now_ns = super().monotonic_ns()
        return now_ns + 5 * NS // 2 if self.late_at_ns <= now_ns < self.late_at_ns + NS // 10 else now_ns


def test_a_hopelessly_late_camera_skips_counts_and_keeps_its_numbers() -> None:
    clock = LateClock(start_ns=START_NS + 1, limit_ns=START_NS + 1)
    with opened(VirtualCamera("c", modes=[(320, 240, 10)]), clock) as source:
        sink = Collector()
        source.raw().add(sink)
        clock.advance_to(START_NS + 5 * NS)
        assert numbers(sink.units) == list(range(len(sink.units)))
        assert source.stats.dropped == 25
        assert len(sink.units) == 50 - 25


def test_real_time_is_kept() -> None:
    with opened(VirtualCamera("c", modes=[(320, 240, 50)]), SYSTEM_CLOCK) as source:
        sink = Collector()
        source.raw().add(sink)
        sink.wait_for(25)
        assert numbers(sink.units[:25]) == list(range(25))
        assert {frame.pts_ns % (NS // 50) for frame in sink.units[:25]} == {0}
        lateness = [at - frame.pts_ns for at, frame in zip(sink.arrivals, sink.units, strict=False)]
        assert min(lateness) >= 0
        assert sorted(lateness)[len(lateness) // 2] < 200 * MS


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (1280, 720, 30)),
        ({"width": 1280, "height": 720}, (1280, 720, 30)),
        ({"width": 1280, "height": 720, "frame_rate": 50}, (1280, 720, 60)),
        ({"width": 1000}, (1280, 720, 30)),
        ({"width": 640, "height": 480}, (640, 480, 90)),
        ({"width": 1300}, (1920, 1080, 30)),
        ({"frame_rate": 45.0}, (1280, 720, 60)),
        ({"frame_rate": 80.0}, (640, 480, 90)),
        ({"width": 4000}, (1920, 1080, 30)),
        ({"width": 1920, "frame_rate": 60}, (1920, 1080, 30)),
        ({"width": None, "height": None, "frame_rate": None}, (1280, 720, 30)),
    ],
)
def test_the_nearest_mode_that_is_not_smaller(settings: dict[str, Any], expected: tuple[int, int, float]) -> None:
    modes = [
        VideoMode(width=w, height=h, frame_rate=f)
        for w, h, f in ((1280, 720, 30.0), (1280, 720, 60.0), (1920, 1080, 30.0), (640, 480, 90.0))
    ]
    mode = nearest_mode(modes, settings)
    assert (mode.width, mode.height, mode.frame_rate) == expected


# Sound


@pytest.mark.parametrize("ppm", [-10_000.0, -200.0, 0.0, 0.5, 200.0])
def test_sample_times_and_samples_are_inverse(ppm: float) -> None:
    times = SampleTimes(sample_rate=44_100, origin_ns=START_NS + 7, ppm=ppm)
    for sample in (0, 1, 44_099, 44_100 * 86_400):
        assert times.sample_at_or_after(times.time_of(sample)) == sample
    day = times.time_of(44_100 * 86_400) - times.time_of(0)
    assert day == pytest.approx(86_400 * NS / (1 + ppm * 1e-6), abs=2)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("ppm", [-200.0, 0.0, 200.0])
def test_beeps_lie_on_whole_seconds_of_the_monotonic_clock(rate: int, ppm: float) -> None:
    with simulated(VirtualMicrophone("m", sample_rate=rate, channels=1, ppm=ppm)) as (clock, _, sink):
        clock.advance_to(START_NS + 4 * NS + NS // 2)
        blocks = sink.units
        mono = sound(blocks)[:, 0]
        times = np.concatenate(
            [block.pts_ns + np.arange(block.samples) * NS / (rate * (1 + ppm * 1e-6)) for block in blocks]
        )
        in_burst = (times + 1) % NS < 100 * MS + 1
        assert not np.any(mono[~in_burst])
        assert np.abs(mono[in_burst]).max() == pytest.approx(10 ** (-6 / 20), rel=0.03 if rate == 8000 else 0.01)
        begins = judge.onsets(mono, rate)
        assert len(begins) == 4
        exact = [blocks[0].pts_ns + at * NS / (1 + ppm * 1e-6) for at in begins]
        for second, at in enumerate(exact, 1):
            assert at == pytest.approx(START_NS + second * NS, abs=0.4 * MS)


@pytest.mark.parametrize("rate", [8_000, 44_100, 47_999, 48_000])
@pytest.mark.parametrize("ppm", [0.0, 200.0])
def test_the_tone_is_continuous_in_its_own_clock(rate: int, ppm: float) -> None:
    with simulated(VirtualMicrophone("m", sample_rate=rate, signal="tone", ppm=ppm)) as (clock, _, sink):
        clock.advance_to(START_NS + 3 * NS)
        samples = sound(sink.units)
        assert samples.shape[1] == 2
        assert np.array_equal(samples[:, 0], samples[:, 1])
        expected = 10 ** (-6 / 20) * np.sin(2 * np.pi * 440 / rate * np.arange(len(samples)))
        assert np.abs(samples[:, 0] - expected).max() < 2e-4


def test_blocks_follow_each_other_and_come_when_their_last_sample_is_captured() -> None:
    with simulated(VirtualMicrophone("m", ppm=150.0)) as (clock, _, sink):
        clock.advance_to(START_NS + 10 * NS)
        assert {block.samples for block in sink.units} == {960}
        pts = np.array([block.pts_ns for block in sink.units])
        assert np.abs(np.diff(pts) - 20 * MS / (1 + 150e-6)).max() <= 1
        assert np.abs(np.array(sink.arrivals) - pts - 20 * MS / (1 + 150e-6)).max() <= 1
        assert not any(block.lost_before for block in sink.units)


def test_silence_is_digital_silence() -> None:
    with simulated(VirtualMicrophone("m", signal="silence", channels=3)) as (clock, source, sink):
        clock.advance_to(START_NS + 2 * NS)
        assert len(sink.units) >= 98
        assert not np.any(sound(sink.units))
        assert source.format.channels == 3  # type: ignore[union-attr]


def test_an_overrun_takes_samples_once_and_says_how_many() -> None:
    microphone = VirtualMicrophone("m", signal="tone")
    with simulated(microphone) as (clock, source, sink):
        clock.advance_to(START_NS + NS)
        microphone.overrun(0.25)
        clock.advance_to(START_NS + 2 * NS)
        lost = [block.lost_before for block in sink.units if block.lost_before]
        assert lost == [12_000]
        assert (source.stats.xruns, source.stats.lost_samples) == (1, 12_000)
        sample = 0
        for block in sink.units:  # time and tone agree with the count
            sample += block.lost_before
            assert block.pts_ns == pytest.approx(sink.units[0].pts_ns + sample * NS / 48_000, abs=1)
            expected = 10 ** (-6 / 20) * math.sin(2 * math.pi * 440 / 48_000 * sample)
            assert sound([block])[0, 0] == pytest.approx(expected, abs=2e-4)
            sample += block.samples
    microphone.overrun(0.25)  # closed: nothing to lose
    with pytest.raises(ValueError, match="duration_s"):
        microphone.overrun(0)


def test_the_crystal_may_change_its_speed_while_it_runs() -> None:
    microphone = VirtualMicrophone("m")
    with simulated(microphone) as (clock, _, sink):
        clock.advance_to(START_NS + NS)
        microphone.ppm = 5_000.0
        clock.advance_to(START_NS + 3 * NS)
        steps = np.diff([block.pts_ns for block in sink.units])
        assert steps[0] == pytest.approx(20 * MS, abs=1)
        assert steps[-1] == pytest.approx(20 * MS / 1.005, abs=1)
        assert set(np.round(steps / 1000)) == {20_000, 19_900}


def test_a_muted_microphone_goes_on_in_time() -> None:
    microphone = VirtualMicrophone("m", signal="tone")
    with simulated(microphone) as (clock, source, sink):
        clock.advance_to(START_NS + NS)
        microphone.mute()
        clock.advance_to(START_NS + 2 * NS)
        before = len(sink.units)
        assert before in (49, 50)
        microphone.unmute()
        clock.advance_to(START_NS + 3 * NS)
        assert sink.units[before].pts_ns - sink.units[before - 1].pts_ns == pytest.approx(NS + 20 * MS, abs=21 * MS)
        assert (source.stats.xruns, sink.units[before].lost_before) == (0, 0)


# Devices and backend


def test_ids_come_from_kind_and_label() -> None:
    assert VirtualCamera("a").device_id == VirtualCamera("a", modes=[(640, 480, 5)]).device_id
    assert VirtualCamera("a").device_id != VirtualCamera("b").device_id
    assert VirtualCamera("a").device_id != VirtualMicrophone("a").device_id
    assert VirtualCamera("a").device_id == "8af7446dbd0f015575bb5353028dade7"
    assert VirtualCamera("a").group_id != VirtualMicrophone("a").group_id
    assert VirtualCamera("a", group_id="g").group_id == VirtualMicrophone("a", group_id="g").group_id == "g"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: VirtualCamera(""), "label"),
        (lambda: VirtualCamera("c", modes=[]), "modes"),
        (lambda: VirtualCamera("c", modes=[(1280, 720, 30), (16, 16, 30)]), r"modes\[1\]"),
        (lambda: VirtualCamera("c", modes=[(1280, 720, 0)]), r"modes\[0\]"),
        (lambda: VirtualCamera("c", modes=[(1280, 720)]), r"modes\[0\]"),  # type: ignore[list-item]
        (lambda: VirtualMicrophone("m", sample_rate=7_999), "sample_rate"),
        (lambda: VirtualMicrophone("m", channels=0), "channels"),
        (lambda: VirtualMicrophone("m", signal="noise"), "signal: 'noise' is none of 'beep', 'tone', 'silence'"),
        (lambda: VirtualMicrophone("m", ppm=math.nan), "ppm"),
        (lambda: VirtualBackend([VirtualCamera("c"), VirtualCamera("c")]), "label"),
    ],
)
def test_bad_arguments_are_named(make: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()


def test_the_backend_lists_devices_in_the_order_given() -> None:
    camera, second, microphone = VirtualCamera("c"), VirtualCamera("d"), VirtualMicrophone("m", sample_rate=44_100)
    backend = VirtualBackend([camera, second, microphone])
    found = backend.describe()
    assert [device.label for device in found] == ["c", "d", "m"]
    assert found[0].video_modes == (VideoMode(width=1280, height=720, frame_rate=30.0),)
    assert (found[2].sample_rates, found[2].channel_counts) == ((44_100,), (2,))
    with pytest.raises(NotFoundError):
        backend.open(VirtualCamera("other").describe(), {})


@pytest.mark.parametrize("listens", [False, True])
def test_unplug_ends_the_source_and_leaves_the_list(listens: bool) -> None:
    camera = VirtualCamera("c", modes=[(320, 240, 100)])
    backend = VirtualBackend([camera])
    changes: list[bool] = []
    backend.watch(lambda: changes.append(camera.is_plugged))
    description = camera.describe()
    source = backend.open(description, {})
    assert camera.is_open
    assert backend.describe()[0].state == "busy"
    ended: list[BaseException | None] = []
    over = threading.Event()
    source.on_ended = lambda error: (ended.append(error), over.set())[0]  # type: ignore[func-returns-value]
    sink = Collector()
    if listens:
        source.raw().add(sink)
        sink.wait_for(1)
    camera.unplug()
    camera.unplug()
    assert over.wait(5)
    assert ended == [None]
    assert not camera.is_open
    assert backend.describe() == []
    assert changes == [False]
    with pytest.raises(NotFoundError):
        backend.open(description, {})
    late = Collector()
    source.raw().add(late)
    assert late.ends == [None]
    assert sink.ends == ([None] if listens else [])
    source.close()
    camera.plug()
    camera.plug()
    assert changes == [False, True]
    again = backend.open(description, {})
    assert camera.is_open
    source.close()  # of the old source: is nothing to the new one
    assert camera.is_open
    again.close()
    backend.close()
    camera.unplug()
    assert changes == [False, True]
    assert ended == [None]


def test_fail_ends_with_an_error_and_stays_listed() -> None:
    microphone = VirtualMicrophone("m")
    backend = VirtualBackend([microphone])
    source = backend.open(microphone.describe(), {})
    sink, over = Collector(), threading.Event()
    ended: list[BaseException | None] = []
    source.on_ended = lambda error: (ended.append(error), over.set())[0]  # type: ignore[func-returns-value]
    source.raw().add(sink)
    microphone.fail()
    assert over.wait(5)
    source.close()
    assert isinstance(ended[0], NotReadableError)
    assert sink.ends == ended
    assert len(backend.describe()) == 1
    with pytest.raises(NotReadableError, match="faulty"):
        backend.open(microphone.describe(), {})
    microphone.plug()
    backend.open(microphone.describe(), {}).close()


def test_deny_refuses_until_plug_and_open_is_exclusive() -> None:
    camera = VirtualCamera("c")
    camera.deny()
    with pytest.raises(NotAllowedError):
        camera.open({})
    camera.plug()
    source = camera.open({})
    with pytest.raises(NotReadableError, match="busy"):
        camera.open({})
    source.close()
    source.close()
    assert not camera.is_open
    camera.open({}).close()


def test_close_ends_feeds_without_announcing_an_end() -> None:
    camera = VirtualCamera("c", modes=[(320, 240, 100)])
    source = camera.open({})
    ended: list[BaseException | None] = []
    source.on_ended = ended.append
    sink = Collector()
    source.raw().add(sink)
    sink.wait_for(2)
    source.close()
    camera.unplug()
    assert sink.ends == [None]
    assert ended == []


def test_a_sink_that_raises_ends_the_source_with_its_error(caplog: pytest.LogCaptureFixture) -> None:
    class Bad(Collector):
        def put(self, unit: Any) -> None:
            raise ZeroDivisionError

    with opened(VirtualCamera("c", modes=[(320, 240, 100)]), SYSTEM_CLOCK) as source:
        sink = Bad()
        source.raw().add(sink)
        assert sink.ended.wait(5)
        assert isinstance(sink.ends[0], ZeroDivisionError)
    assert "c failed" in caplog.text


def test_devices_survive_being_shaken_from_several_threads() -> None:
    camera = VirtualCamera("c", modes=[(320, 240, 1000)])
    stop = time.monotonic() + 1.0

    def shake() -> None:
        while time.monotonic() < stop:
            for call in (camera.mute, camera.unplug, camera.plug, camera.fail, camera.plug):
                call()

    shakers = [threading.Thread(target=shake) for _ in range(2)]
    for thread in shakers:
        thread.start()
    sources = []
    while time.monotonic() < stop:
        try:
            source = camera.open({})
        except (NotFoundError, NotReadableError):
            continue
        sink = Collector()
        source.raw().add(sink)
        source.raw().remove(sink)
        source.raw().add(sink)
        sources.append((source, sink))
        source.close()
    for thread in shakers:
        thread.join(10)
    assert sources
    assert all(len(sink.ends) >= 1 for _, sink in sources)
    assert not [thread for thread in threading.enumerate() if thread.name == "virtual c" and thread.is_alive()]


def test_default_backends_are_what_is_installed() -> None:
    names = {backend.name for backend in default_backends()}
    assert names <= {"libcamera", "alsa"}


# The simulated clock


def run_simulated_pair() -> list[tuple[str, int]]:
    clock = SimulatedClock(start_ns=START_NS, limit_ns=START_NS)
    log: list[tuple[str, int]] = []

    class Logging(Collector):
        def put(self, unit: Any) -> None:
            log.append((type(unit).__name__, unit.pts_ns))

    with (
        opened(VirtualCamera("c", modes=[(64, 48, 50)]), clock) as camera,
        opened(VirtualMicrophone("m"), clock) as microphone,
        opened(VirtualMicrophone("n"), clock) as second,
    ):
        for source in (camera, microphone, second):
            source.raw().add(Logging())
        clock.advance_to(START_NS + 20 * NS)
    return log


def test_simulated_time_is_fast_and_the_same_in_every_run() -> None:
    begin = time.monotonic()
    first = run_simulated_pair()
    assert time.monotonic() - begin < 10  # 20 s of three devices
    assert len(first) == 1001 + 2 * 1000
    assert all(run_simulated_pair() == first for _ in range(2))


def test_simulated_time_stands_still_while_a_participant_works_or_somebody_holds() -> None:
    clock = SimulatedClock(start_ns=START_NS)
    place = clock.participate()
    never = threading.Event()
    seen: list[int] = []

    def other() -> None:
        clock.wait_until(START_NS + NS, never)
        seen.append(clock.monotonic_ns())

    waiting = threading.Thread(target=other)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()  # the participant has not come yet
    with clock.hold():
        with place:
            pass  # … and leaves
        waiting.join(0.1)
        assert waiting.is_alive()  # held
    waiting.join(5)
    assert seen == [START_NS + NS]
    assert clock.realtime_ns() - SimulatedClock(start_ns=START_NS).realtime_ns() == NS


def test_who_waits_for_simulated_time_can_be_stopped_and_a_stuck_clock_says_so() -> None:
    clock = SimulatedClock(start_ns=START_NS, limit_ns=START_NS)
    stop = threading.Event()
    results: list[bool] = []
    waiting = threading.Thread(target=lambda: results.append(clock.wait_until(START_NS + NS, stop)))
    waiting.start()
    stop.set()
    waiting.join(5)
    assert results == [True]
    assert clock.monotonic_ns() == START_NS
    place = clock.participate()
    with pytest.raises(TimeoutError, match="1 threads work"):
        clock.advance_to(START_NS + NS, timeout_s=0.05)
    with place:
        pass
    clock.advance_to(START_NS + 2 * NS, timeout_s=5)
    assert clock.monotonic_ns() == START_NS + 2 * NS


@pytest.mark.parametrize(
    ("properties", "turn"),
    [
        ({"hflip": True}, np.fliplr),
        ({"vflip": True}, np.flipud),
        ({"hflip": True, "vflip": True}, lambda plane: np.rot90(plane, 2)),
        ({"rotation": 180}, lambda plane: np.rot90(plane, 2)),
        ({"rotation": 180, "hflip": True}, np.flipud),
    ],
)
def test_a_camera_that_is_mounted_otherwise(properties: dict[str, Any], turn: Any) -> None:
    camera = VirtualCamera("Door", modes=[(64, 48, 30)])
    backend = VirtualBackend([camera], cameras=[CameraProperties(label="Door", **properties)])
    source = backend.open(camera.describe(), {})
    try:
        sink = Collector()
        source.raw().add(sink)
        sink.wait_for(1)
    finally:
        source.close()
    (frame, *_) = sink.units
    upright = VideoFrame(
        pts_ns=frame.pts_ns,
        format=frame.format,
        data=TestFrame(64, 48).paint(0, flash=is_flash(frame.pts_ns)),
    )
    assert (luma(frame) == turn(luma(upright))).all()


def test_a_flip_keeps_colours_with_their_places() -> None:
    data = bytes(range(5 * 3)) + bytes(range(100, 106)) + bytes(range(200, 206))
    assert flip(data, 5, 3, hflip=True, vflip=False)[15:21] == bytes([102, 101, 100, 105, 104, 103])
    assert flip(data, 5, 3, hflip=False, vflip=True)[21:] == bytes([203, 204, 205, 200, 201, 202])
    assert flip(flip(data, 5, 3, hflip=True, vflip=True), 5, 3, hflip=True, vflip=True) == data


def test_properties_given_by_the_id_go_before_those_by_the_label() -> None:
    by_label, by_id = CameraProperties(label="Door", hflip=True), CameraProperties(device_id="abc", rotation=90)
    assert properties_of([by_label, by_id], device_id="abc", label="Door") is by_id
    assert properties_of([by_label, by_id], device_id="xyz", label="Door") is by_label
    assert properties_of([by_label, by_id], device_id="xyz", label="Yard") == CameraProperties()


def test_devices_of_one_label_are_told_apart_by_their_group() -> None:
    left, right = (VirtualMicrophone("USB PnP Sound Device", group_id=group) for group in ("left", "right"))
    alone = VirtualMicrophone("USB PnP Sound Device").device_id
    ids = {device.group_id: device.device_id for device in VirtualBackend([left, right]).describe()}
    assert len({*ids.values(), alone}) == 3
    left, right = (VirtualMicrophone("USB PnP Sound Device", group_id=group) for group in ("left", "right"))
    assert {d.group_id: d.device_id for d in VirtualBackend([right, left]).describe()} == ids
    with pytest.raises(ValueError, match="the same group_id"):
        VirtualBackend([VirtualCamera("A", group_id="x"), VirtualCamera("A", group_id="x")])


@pytest.mark.parametrize(("rotation", "left"), [(90, 90), (270, 270), (180, 0)])
def test_a_turn_that_is_left_to_the_player(rotation: Any, left: int) -> None:
    camera = VirtualCamera("Door", modes=[(64, 48, 30)])
    backend = VirtualBackend([camera], cameras=[CameraProperties(label="Door", rotation=rotation)])
    source = backend.open(camera.describe(), {})
    source.close()
    assert isinstance(source.format, VideoFormat)
    assert source.format.presentation.rotation == left
