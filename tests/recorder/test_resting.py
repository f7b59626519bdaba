"""A camera that rests between the frames of a time-lapse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest

from msrecd import MediaDevices, MediaStream, MediaStreamTrackReader
from msrecd.clock import MS, NS
from msrecd.devices.virtual import VirtualBackend, VirtualCamera
from msrecd.dom.exceptions import NotReadableError
from msrecd.recorder import resting
from msrecd.recorder.resting import RestingCamera

CAMERA = {"video": {"width": 320, "height": 240}}
INTERVAL_NS = 3 * NS


async def run(
    frames: int, *, fails: Callable[[int], bool] = lambda number: False
) -> tuple[list[int], list[MediaStream], RestingCamera, int]:
    """Times of so many frames, the streams that were open, the camera, and how many were open at once at most."""
    devices = MediaDevices(backends=[VirtualBackend([VirtualCamera("Site", modes=[(320, 240, 30)])])])
    opened = [await devices.get_user_media(CAMERA)]
    most = 1

    async def reopen() -> MediaStream:
        nonlocal most
        opened.append(opened[0])
        if fails(len(opened)):
            raise NotReadableError("the camera is away")
        opened[-1] = await devices.get_user_media(CAMERA)
        most = max(most, sum(stream.active for stream in opened))
        return opened[-1]

    camera = RestingCamera(opened[0], reopen, INTERVAL_NS)
    await camera.prime()
    times: list[int] = []
    try:
        (track,) = camera.stream.get_tracks()
        async with asyncio.timeout(60), MediaStreamTrackReader(track, max_buffered=10) as reader:
            camera.start()
            async for frame in reader:
                times.append(frame.timestamp_ns)
                assert not any(stream.active for stream in opened), "it is closed before the frame is given"
                if len(times) == frames:
                    break
    finally:
        camera.close()
        await devices.close()
    return times, opened, camera, most


@pytest.mark.promise("camera-rests")
def test_it_is_open_for_each_frame_only() -> None:
    times, opened, camera, most = asyncio.run(run(3))
    assert len(opened) == 3
    assert most == 1
    for before, after in pairwise(times):
        assert INTERVAL_NS - MS <= after - before < INTERVAL_NS + 300 * MS, "on the grid, and settled before"
    assert camera.problem is None


def test_a_camera_that_is_away_for_a_moment_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resting, "_AGAIN_S", 0.2)
    times, _, camera, _ = asyncio.run(run(2, fails=lambda number: number == 2))
    assert len(times) == 2
    assert camera.problem is None


def test_one_that_does_not_come_back_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resting, "_AGAIN_S", 0.2)
    monkeypatch.setattr(resting, "_LATEST_S", 0.5)
    times, _, camera, _ = asyncio.run(run(2, fails=lambda number: number > 1))
    assert len(times) == 1
    assert camera.is_over
    assert camera.problem is not None
    assert "the camera is away" in camera.problem.message
