"""Tracks that a program forgets instead of stopping them: the device closes when nobody can reach them any more."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import Any

import leaks
import pytest
from rig import Rig, on_rig, until

import msrecd
from msrecd.devices.virtual import VirtualBackend, VirtualCamera, VirtualMicrophone
from msrecd.flow import forgotten
from msrecd.flow.forgotten import WhenForgotten
from msrecd.media.reader import MediaStreamTrackReader


async def is_closed(rig: Rig) -> None:
    gc.collect()
    await until(lambda: not rig.camera.is_open and not rig.microphone.is_open)


async def stays_open(rig: Rig) -> None:
    """Nothing that could close it is left to run."""
    notes_are_read = threading.Event()
    WhenForgotten(threading.Event(), notes_are_read.set)
    gc.collect()
    assert notes_are_read.wait(20)
    for _ in range(20):
        await asyncio.sleep(0)
    assert rig.camera.is_open


@pytest.mark.promise("forgotten-tracks")
def test_forgotten_stream_closes_its_devices(caplog: Any) -> None:
    async def run(rig: Rig) -> None:
        stream: msrecd.MediaStream | None = await rig.devices.get_user_media({"video": True, "audio": True})
        assert rig.camera.is_open
        assert rig.microphone.is_open
        del stream
        await is_closed(rig)
        ours = [record for record in caplog.records if record.name == "msrecd.media.sources"]
        assert [record.levelname for record in ours] == ["WARNING"] * 2
        assert all("forgotten without stop()" in record.getMessage() for record in ours)
        again = await rig.devices.get_user_media({"video": True})
        assert again.active
        again.get_tracks()[0].stop()

    on_rig(run)


def test_forgotten_in_a_cycle() -> None:
    async def run(rig: Rig) -> None:
        stream: Any = await rig.devices.get_user_media({"video": True})
        stream.myself = stream
        (track,) = stream.get_tracks()
        track.stream = stream
        del track
        gc.disable()
        try:
            del stream
            assert rig.camera.is_open
        finally:
            gc.enable()
        await is_closed(rig)

    on_rig(run)


def test_a_clone_or_a_listener_keeps_the_device_open() -> None:
    async def run(rig: Rig) -> None:
        stream: Any = await rig.devices.get_user_media({"video": True})
        clone = stream.clone()
        del stream
        await stays_open(rig)
        ended: list[msrecd.Event] = []
        clone.get_tracks()[0].onended = ended.append  # what can still be heard of is not garbage
        del clone
        await stays_open(rig)
        rig.camera.unplug()
        await until(lambda: bool(ended))
        assert ended[0].target.ready_state == "ended"  # type: ignore[union-attr]
        await is_closed(rig)

    on_rig(run)


def test_a_recorder_keeps_what_it_records() -> None:
    async def run(rig: Rig) -> None:
        stopped = asyncio.Event()
        blobs: list[msrecd.Blob] = []

        async def record() -> None:
            stream = await rig.devices.get_user_media({"video": {"width": 160, "height": 90}})
            recorder = msrecd.MediaRecorder(stream)
            recorder.ondataavailable = lambda event: blobs.append(event.data)
            recorder.onstop = lambda _: stopped.set()
            recorder.start(100)

        await record()  # nobody but the recording holds any of it now
        await until(lambda: gc.collect() >= 0 and len(blobs) >= 3)
        assert rig.camera.is_open
        rig.camera.unplug()
        await stopped.wait()
        rig.camera.plug()
        await is_closed(rig)
        await until(lambda: not leaks.own_threads())

    on_rig(run)


def test_a_reader_keeps_its_track() -> None:
    async def run(rig: Rig) -> None:
        reader = MediaStreamTrackReader((await rig.devices.get_user_media({"video": True})).get_tracks()[0])
        await anext(reader)
        await stays_open(rig)
        await anext(reader)
        del reader
        await is_closed(rig)

    on_rig(run)


def test_forgotten_after_the_loop_has_ended() -> None:
    camera = VirtualCamera("camera", modes=[(160, 90, 30)])

    async def main() -> msrecd.MediaStream:
        return await msrecd.MediaDevices(backends=[VirtualBackend([camera])]).get_user_media({"video": True})

    stream = [asyncio.run(main())]
    assert camera.is_open
    dropper = threading.Thread(target=stream.clear)
    dropper.start()
    dropper.join()
    end = time.monotonic() + 20
    while camera.is_open:
        gc.collect()
        assert time.monotonic() < end
        time.sleep(0.01)


def test_forgotten_canvas_stream_lets_go_of_its_timer() -> None:
    async def run(rig: Rig) -> None:
        del rig
        canvas = msrecd.Canvas(16, 16)
        canvas.fill((1, 2, 3))
        reader = MediaStreamTrackReader(canvas.capture_stream(50).get_tracks()[0])
        await anext(reader)
        assert "canvas timer" in leaks.own_threads()
        del reader
        await until(lambda: gc.collect() >= 0 and "canvas timer" not in leaks.own_threads())

    on_rig(run)


def test_devices_that_are_closed_right_after_their_tracks_were_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing waits for no news of the garbage collector's."""
    monkeypatch.setattr(forgotten, "_leave_note", lambda *_: None)
    microphone = VirtualMicrophone("Voice")

    async def run() -> None:
        async with msrecd.MediaDevices(backends=[VirtualBackend([microphone])]) as devices:
            await devices.get_user_media({"audio": True})
            gc.collect()
        assert not microphone.is_open

    asyncio.run(run())
