"""StreamView, and what the page opens and closes for its viewers, without a daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import msrecd
from msrecd.codecs import hub
from msrecd.control.bus import Bus
from msrecd.devices.virtual import VirtualBackend, VirtualCamera, VirtualMicrophone
from msrecd.errors import CommandError
from msrecd.flow.queue import UnitQueue
from msrecd.muxing import viewing
from msrecd.recorder.input import RecorderInput
from msrecd.recorder.settings import RecorderSettings
from msrecd.web import livestreams
from msrecd.web.livestreams import LiveStreams

MODES = [(320, 240, 30)]


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(60):
            await work()

    asyncio.run(within())


async def eventually(condition: Callable[[], bool], why: str) -> None:
    for _ in range(400):  # twenty seconds
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(why)


class Unit:
    """A recorder that shares what it has open."""

    def __init__(self, settings: RecorderSettings) -> None:
        self.settings = settings
        self.input: RecorderInput | None = None

    @property
    def shared_input(self) -> RecorderInput | None:
        return self.input


class Bench:
    """One camera, one microphone, and recorders that are not there but for what a viewer needs of them."""

    def __init__(self) -> None:
        self.camera, self.microphone = VirtualCamera("Eye", modes=MODES), VirtualMicrophone("Ear", signal="tone")
        self.devices = msrecd.MediaDevices(backends=[VirtualBackend([self.camera, self.microphone])])
        settings = RecorderSettings(
            name="cam0",
            constraints={"video": True, "audio": True},
            url=None,
            loop=False,
            source_options={},
            options={"mime_type": "video/mp4", "chunk_duration": 1000},
            timeslice_ms=1000,
            autostart=False,
            max_duration_s=None,
        )
        self.unit = Unit(settings)
        self.levels: list[Any] = []
        self.bus = Bus()
        self.streams = LiveStreams(
            self.bus,
            SimpleNamespace(units={"cam0": self.unit}),  # type: ignore[arg-type]
            self.devices,
            self.levels.append,
        )


@pytest.fixture(autouse=True)
def machine_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Viewers are dropped when an encoder is late; a busy machine of tests is no part of what is tested here."""
    monkeypatch.setattr(hub, "fullness", lambda: 0.0)


@pytest.fixture
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livestreams, "LINGER_S", 0.2)


@pytest.mark.usefixtures("short_linger")
@pytest.mark.promise("page-idle-recorder")
def test_the_last_viewer_of_an_idle_recorder_closes_its_inputs() -> None:
    async def go() -> None:
        bench = Bench()
        first = await bench.streams.acquire("cam0")
        assert bench.camera.is_open
        assert bench.microphone.is_open
        second = await bench.streams.acquire("cam0")
        assert second is first
        bench.streams.release(first)
        await asyncio.sleep(0.5)
        assert bench.camera.is_open, "somebody looks still"
        assert (await bench.streams.jpeg("cam0", 160)).startswith(b"\xff\xd8")
        bench.streams.release(second)
        await eventually(lambda: not bench.camera.is_open and not bench.microphone.is_open, "left open")
        with pytest.raises(CommandError, match="recorder"):
            await bench.streams.acquire("nothing")
        bench.streams.close()

    run(go)


@pytest.mark.usefixtures("short_linger")
def test_a_viewer_keeps_nothing_open_that_a_recorder_closes() -> None:
    async def go() -> None:
        bench = Bench()
        bench.unit.input = await RecorderInput.open(bench.unit.settings, bench.devices)
        look = await bench.streams.acquire("cam0")
        assert look.own is None, "the recorder's inputs are used"
        bench.unit.input.close()
        bench.unit.input = None
        assert bench.camera.is_open, "the viewer goes on"
        pieces = look.view.fmp4()
        assert await anext(pieces)
        await pieces.aclose()  # type: ignore[attr-defined]
        bench.streams.release(look)
        await eventually(lambda: not bench.camera.is_open, "left open")
        bench.streams.close()

    run(go)


@pytest.mark.usefixtures("short_linger")
def test_what_ends_with_a_recording_is_opened_again() -> None:
    """Filtered sound ends with the graph of its recording."""

    async def go() -> None:
        bench = Bench()
        bench.unit.input = await RecorderInput.open(bench.unit.settings, bench.devices)
        look = await bench.streams.acquire("cam0")
        look.stream.get_audio_tracks()[0].stop()
        bench.bus.set_state("recorder/cam0", {"state": "recording"})
        assert await bench.streams.acquire("cam0") is look, "no other look would have sound"
        bench.unit.input.close()
        bench.unit.input = None
        bench.bus.set_state("recorder/cam0", {"state": "inactive"})
        again = await bench.streams.acquire("cam0")
        assert again is not look
        assert again.stream.get_audio_tracks()[0].ready_state == "live"
        bench.streams.release(again)
        bench.streams.close()

    run(go)


@pytest.mark.usefixtures("short_linger")
def test_a_device_that_is_unplugged_ends_its_streams_and_is_found_again() -> None:
    async def go() -> None:
        bench = Bench()
        look = await bench.streams.acquire("cam0")
        pieces = look.view.fmp4()
        assert await anext(pieces)
        bench.camera.unplug()
        bench.microphone.unplug()
        async for _ in pieces:
            pass
        await eventually(lambda: not look.stream.active, "its tracks go on")
        bench.streams.release(look)
        with pytest.raises(CommandError) as refused:
            await bench.streams.acquire("cam0")
        assert refused.value.code == "device_missing"
        bench.camera.plug()
        bench.microphone.plug()
        again = await bench.streams.acquire("cam0")
        assert again is not look
        bench.streams.release(again)
        bench.streams.close()

    run(go)


@pytest.mark.usefixtures("short_linger")
def test_levels_are_measured_while_somebody_listens() -> None:
    async def go() -> None:
        bench = Bench()
        bench.streams.listen(1)
        await asyncio.sleep(0.7)
        assert not bench.microphone.is_open, "nothing is opened for levels alone"
        look = await bench.streams.acquire("cam0")
        await eventually(lambda: len(bench.levels) > 3, "no levels")
        assert bench.levels[-1]["peak"] == pytest.approx([-6.0, -6.0], abs=0.1)
        assert bench.levels[-1]["rms"] == pytest.approx([-9.0, -9.0], abs=0.2)
        bench.streams.listen(-1)
        await eventually(lambda: not bench.streams._meters, "measured for nobody")
        bench.streams.release(look)
        bench.streams.close()

    run(go)


async def stream_of(*devices: VirtualCamera | VirtualMicrophone) -> msrecd.MediaStream:
    has = {type(device) for device in devices}
    found = msrecd.MediaDevices(backends=[VirtualBackend(devices)])
    return await found.get_user_media({"video": VirtualCamera in has, "audio": VirtualMicrophone in has})


def test_a_disabled_track_is_black_and_keeps_its_time() -> None:
    async def go() -> None:
        stream = await stream_of(VirtualCamera("Eye", modes=MODES))
        view = msrecd.StreamView(stream)
        pieces = view.fmp4()
        header = await anext(pieces)
        assert header[4:8] == b"ftyp"
        for _ in range(10):
            await anext(pieces)
        stream.get_tracks()[0].enabled = False
        black = [await anext(pieces) for _ in range(60)]
        assert sum(map(len, black[-20:])) < sum(map(len, black[:5])) * 4, "black is small"
        await pieces.aclose()  # type: ignore[attr-defined]
        for track in stream.get_tracks():
            track.stop()

    run(go)


@pytest.mark.promise("page-viewers-go-first", "page-one-encoding")
def test_viewers_go_before_an_encoder_loses_something(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        stream = await stream_of(VirtualCamera("Eye", modes=MODES))
        view = msrecd.StreamView(stream)
        readers = [view.fmp4() for _ in range(2)]
        for reader in readers:
            assert await anext(reader)
        assert view.viewers == 2
        monkeypatch.setattr(hub, "fullness", lambda: viewing.BUSY_FULLNESS + 0.01)
        for reader in readers:
            with pytest.raises(msrecd.AbortError, match="recording comes first"):
                async for _ in reader:
                    pass
        with pytest.raises(msrecd.AbortError):
            await anext(view.fmp4())
        for track in stream.get_tracks():
            track.stop()

    run(go)


def test_the_fullest_queue_of_an_encoder_counts() -> None:
    queue: UnitQueue[bytes] = UnitQueue(max_units=4, max_bytes=100, size=len)
    assert queue.fullness == 0.0
    queue.put(b"x" * 30)
    assert queue.fullness == 0.3, "by bytes"
    for _ in range(2):
        queue.put(b"")
    assert queue.fullness == 0.75, "by units"


def test_a_reader_that_comes_late_begins_with_a_key_frame_again() -> None:
    async def go() -> None:
        stream = await stream_of(VirtualCamera("Eye", modes=MODES))
        view = msrecd.StreamView(stream, {"video_key_frame_interval_duration": 500})
        slow, quick = view.fmp4(), view.fmp4()
        await anext(slow)
        await anext(quick)
        async with asyncio.timeout(20):
            for _ in range(100):  # more than three seconds
                await anext(quick)
        worker = view._worker
        assert worker is not None
        late = next(viewer for viewer in worker._viewers if viewer.dropped)
        assert late._fragments[0].is_key
        assert late._fragments[-1].at_ns - late._fragments[0].at_ns <= viewing.VIEWER_LIMIT_NS
        for pieces in (slow, quick):
            await pieces.aclose()  # type: ignore[attr-defined]
        await eventually(lambda: view.viewers == 0, "viewers are kept")
        for track in stream.get_tracks():
            track.stop()

    run(go)


def test_what_cannot_be_shown() -> None:
    async def go() -> None:
        with pytest.raises(TypeError, match="MediaStream"):
            msrecd.StreamView("rtsp://camera")  # type: ignore[arg-type]
        with pytest.raises(msrecd.InvalidStateError):
            await anext(msrecd.StreamView(msrecd.MediaStream()).fmp4())
        stream = await stream_of(VirtualMicrophone("Ear"))
        with pytest.raises(msrecd.InvalidStateError, match="video"):
            await msrecd.StreamView(stream).jpeg()
        assert msrecd.StreamView(stream).mime_type == "audio/mp4"
        for track in stream.get_tracks():
            track.stop()
        with pytest.raises(msrecd.InvalidStateError):
            await anext(msrecd.StreamView(stream).levels())

    run(go)


def test_a_recorder_takes_the_place_of_the_viewers_connection_to_a_camera() -> None:
    """Many network cameras serve few connections: who records comes first, and viewers come again."""

    async def go() -> None:
        bench = Bench()
        look = await bench.streams.acquire("cam0")
        bench.bus.set_state("recorder/cam0", {"state": "inactive"})
        assert bench.camera.is_open
        bench.unit.settings = replace(bench.unit.settings, url="rtsp://camera", constraints=None)
        bench.unit.input = look.own
        bench.bus.set_state("recorder/cam0", {"state": "recording"})
        await eventually(lambda: not bench.camera.is_open, "the viewers' connection stays")
        bench.streams.release(look)
        bench.streams.close()

    run(go)
