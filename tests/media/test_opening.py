"""Devices that are slow, broken or contested."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from rig import Log, on_loop, until

import msrecd
from msrecd.devices.base import DeviceDescription, VideoMode
from msrecd.flow.feed import Feed
from msrecd.flow.source import Source
from msrecd.flow.units import VideoFormat, VideoFrame


class StubbornSource(Source):
    """A camera that counts and can be held in close()."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__(label="Stubborn", device_id="s", group_id="g")
        self.closed = 0
        self.may_close = threading.Event()
        self.may_close.set()
        self.close_error: Exception | None = None
        self.controls: list[dict[str, Any]] = []
        self._feed: Feed[VideoFrame] = Feed()

    @property
    def format(self) -> VideoFormat:
        return VideoFormat(width=640, height=480, frame_rate=30)

    def raw(self) -> Feed[VideoFrame]:
        return self._feed

    def apply_controls(self, settings: Mapping[str, Any]) -> None:
        self.controls.append(dict(settings))

    def close(self) -> None:
        assert self.may_close.wait(10)
        self.closed += 1
        self._feed.end(None)
        if self.close_error is not None:
            raise self.close_error


class StubbornBackend:
    """One camera; `open` waits until it may."""

    name = "stubborn"

    def __init__(self) -> None:
        self.sources: list[StubbornSource] = []
        self.asked: list[dict[str, Any]] = []
        self.may_open = threading.Event()
        self.may_open.set()
        self.describe_error: Exception | None = None
        self.open_error: Exception | None = None
        self.threads: list[threading.Thread] = []
        self.is_watched = False
        self.changed: Callable[[], None] = lambda: None

    def describe(self) -> list[DeviceDescription]:
        if self.describe_error is not None:
            raise self.describe_error
        device = DeviceDescription(
            kind="video",
            device_id="s",
            group_id="g",
            label="Stubborn",
            driver="virtual",
            video_modes=(VideoMode(width=640, height=480, frame_rate=30),),
            controls={
                "exposure_mode": ("continuous", "manual"),
                "exposure_time": (1.0, 100.0, 20.0),
                "brightness": (-1.0, 1.0, 0.0),
            },
        )
        return [device]

    def open(self, device: DeviceDescription, settings: Mapping[str, Any]) -> Source:
        self.threads.append(threading.current_thread())
        assert self.may_open.wait(10)
        if self.open_error is not None:
            raise self.open_error
        self.asked.append(dict(settings))
        self.sources.append(StubbornSource())
        return self.sources[-1]

    def watch(self, changed: Callable[[], None]) -> None:
        self.is_watched, self.changed = True, changed

    def close(self) -> None:
        self.is_watched = False


def test_open_in_a_worker_and_shared_until_the_last_track_ends() -> None:
    async def run() -> None:
        backend = StubbornBackend()
        async with msrecd.MediaDevices(backends=[backend]) as devices:
            streams = await asyncio.gather(*(devices.get_user_media({"video": True}) for _ in range(5)))
            assert len(backend.sources) == 1
            assert threading.main_thread() not in backend.threads
            for stream in streams[1:]:
                stream.get_tracks()[0].stop()
            clone = streams[0].clone()
            streams[0].get_tracks()[0].stop()
            assert backend.sources[0].closed == 0
            clone.get_tracks()[0].stop()
            await until(lambda: backend.sources[0].closed == 1)
        assert not backend.is_watched

    on_loop(run)


def test_device_that_does_not_answer() -> None:
    """The caller waits no longer than the deadline; what opens too late is closed again."""

    async def run() -> None:
        backend = StubbornBackend()
        backend.may_open.clear()
        async with msrecd.MediaDevices(backends=[backend], deadline_s=0.1) as devices:
            with pytest.raises(msrecd.NotReadableError, match="Stubborn does not answer"):
                await devices.get_user_media({"video": True})
            backend.may_open.set()
            await until(lambda: bool(backend.sources) and backend.sources[0].closed == 1)

    on_loop(run)


def test_cancelled_request_leaves_nothing_open() -> None:
    async def run() -> None:
        backend = StubbornBackend()
        backend.may_open.clear()
        async with msrecd.MediaDevices(backends=[backend]) as devices:
            request = asyncio.ensure_future(devices.get_user_media({"video": True}))
            await until(lambda: bool(backend.threads))
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
            backend.may_open.set()
            await until(lambda: bool(backend.sources) and backend.sources[0].closed == 1)
            assert (await devices.get_user_media({"video": True})).active

    on_loop(run)


def test_closed_before_it_is_opened_again() -> None:
    async def run() -> None:
        backend = StubbornBackend()
        async with msrecd.MediaDevices(backends=[backend]) as devices:
            stream = await devices.get_user_media({"video": True})
            backend.sources[0].may_close.clear()
            stream.get_tracks()[0].stop()
            again = asyncio.ensure_future(devices.get_user_media({"video": True}))
            done, _ = await asyncio.wait([again], timeout=0.1)
            assert not done
            assert len(backend.sources) == 1
            backend.sources[0].may_close.set()
            assert (await again).active
            assert len(backend.sources) == 2

    on_loop(run)


def test_errors_of_a_driver(caplog: pytest.LogCaptureFixture) -> None:
    """A broken backend hides no other; an unexpected error is an AbortError; one while closing is logged."""

    async def run() -> None:
        broken, backend = StubbornBackend(), StubbornBackend()
        broken.describe_error = OSError("bus error")
        async with msrecd.MediaDevices(backends=[broken, backend]) as devices:
            assert len(await devices.enumerate_devices()) == 1
            assert "no devices of stubborn: bus error" in caplog.text
            backend.open_error = RuntimeError("firmware")
            with pytest.raises(msrecd.AbortError, match="firmware"):
                await devices.get_user_media({"video": True})
            backend.open_error = None
            stream = await devices.get_user_media({"video": True})
            backend.sources[0].close_error = OSError("stuck")
            stream.get_tracks()[0].stop()
            await until(lambda: "closing Stubborn failed: stuck" in caplog.text)

    on_loop(run)


def test_source_that_ends_by_itself_is_closed() -> None:
    async def run() -> None:
        backend = StubbornBackend()
        async with msrecd.MediaDevices(backends=[backend]) as devices:
            (track,) = (await devices.get_user_media({"video": True})).get_tracks()
            log = Log().on(track, "ended")
            reporter = threading.Thread(target=backend.sources[0].on_ended, args=(OSError("cable"),))
            reporter.start()
            reporter.join()
            await log.wait("ended")
            await until(lambda: backend.sources[0].closed == 1)
            assert (await devices.get_user_media({"video": True})).active

    on_loop(run)


def test_controls() -> None:
    """Only what is asked for is sent; who gives a value gets the manual mode; all tracks see it; {} goes back."""

    async def run() -> None:
        backend = StubbornBackend()
        async with msrecd.MediaDevices(backends=[backend]) as devices:
            (track,) = (await devices.get_user_media({"video": {"brightness": 0.5}})).get_tracks()
            assert {name: backend.asked[0].get(name) for name in ("brightness", "exposure_mode")} == {
                "brightness": 0.5,
                "exposure_mode": None,
            }
            assert "exposure_time" not in track.get_settings()
            sent = backend.sources[0].controls
            assert sent == []
            clone = track.clone()
            await track.apply_constraints({"exposure_time": {"exact": 50}})
            assert sent == [{"exposure_time": 50, "exposure_mode": "manual", "brightness": 0.0}]
            assert clone.get_settings()["exposure_time"] == 50
            assert clone.get_settings()["exposure_mode"] == "manual"
            await track.apply_constraints({})
            assert sent[1:] == [{"exposure_mode": "continuous"}]
            with pytest.raises(TypeError, match=r"video\.exposure_time cannot be required"):
                await devices.get_user_media({"video": {"exposure_time": {"exact": 5}}})

    on_loop(run)


def test_tracks_stopped_after_the_loop() -> None:
    """A program that stops its tracks after asyncio.run still closes the device."""
    backend = StubbornBackend()

    async def run() -> tuple[msrecd.MediaDevices, msrecd.MediaStream]:
        devices = msrecd.MediaDevices(backends=[backend])
        return devices, await devices.get_user_media({"video": True})

    devices, stream = asyncio.run(run())
    backend.sources[0].on_muted(True)
    stream.get_tracks()[0].stop()
    assert backend.sources[0].closed == 1
    devices.close()
    assert not backend.is_watched
