"""Frames and blocks for programs that analyse."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from recording import rgb_frame
from rig import Rig, on_loop, on_rig, until

import msrecd
from msrecd.media.reader import MediaStreamTrackReader, _Pace


def test_sound() -> None:
    async def run(rig: Rig) -> None:
        (track,) = (await rig.devices.get_user_media({"audio": True})).get_tracks()
        async with MediaStreamTrackReader(track) as reader:
            blocks = [await anext(reader) for _ in range(5)]
        assert all(block.array.shape[1] == 2 for block in blocks)
        times = [block.timestamp_ns for block in blocks]
        assert times == sorted(set(times))
        assert reader.dropped == 0
        with pytest.raises(StopAsyncIteration):
            await anext(reader)

    on_rig(run)


def test_ends_with_the_track() -> None:
    async def run(rig: Rig) -> None:
        (track,) = (await rig.devices.get_user_media({"video": {"width": 160}})).get_tracks()
        reader = MediaStreamTrackReader(track, max_buffered=3)
        count = 0
        async for frame in reader:
            assert frame.array.shape == (90, 160, 3)
            count += 1
            if count == 2:
                rig.camera.unplug()
        assert count >= 2
        assert [frame async for frame in MediaStreamTrackReader(track)] == []

    on_rig(run)


def test_drops_the_oldest() -> None:
    async def run() -> None:
        canvas = msrecd.Canvas(4, 4)
        (track,) = canvas.capture_stream().get_tracks()
        reader = MediaStreamTrackReader(track, max_buffered=2)
        async with reader:
            for red in range(5):
                canvas.fill((red, 0, 0))
            frames: list[Any] = [await anext(reader), await anext(reader)]
            assert [int(frame.array[0, 0, 0]) for frame in frames] == [3, 4]
            assert reader.dropped == 3
            canvas.fill((9, 0, 0))
            assert int((await anext(reader)).array[0, 0, 0]) == 9
        assert not track._source.raw().has_sinks
        track.stop()

    on_loop(run)


def test_waiting_reader_is_woken_by_stop() -> None:
    async def run() -> None:
        (track,) = msrecd.Canvas(4, 4).capture_stream().get_tracks()
        reader = MediaStreamTrackReader(track)
        waiting = asyncio.ensure_future(anext(reader, None))
        await until(lambda: track._source.raw().has_sinks)
        track.stop()
        assert await waiting is None

    on_loop(run)


def test_picture_is_cropped_not_squashed() -> None:
    """crop-and-scale: a square of a wide picture is its middle."""
    import numpy as np

    from msrecd.media.reader import _convert

    wide = np.zeros((60, 240, 3), np.uint8)
    wide[:, 90:150] = 200
    frame = rgb_frame(wide)
    assert (_convert(frame, (60, 60), True) == 200).all()
    assert _convert(frame, (40, 10), True)[5, (2, 13, 17, 22, 27, 37), 0].tolist() == [0, 0, 200, 200, 0, 0]
    fitted = _convert(frame, (60, 60), False)
    assert (fitted.shape, fitted[20].max(), fitted[30, 30, 0]) == ((60, 60, 3), 0, 200)


@pytest.mark.parametrize(("rate", "taken"), [(None, 60), (30.0, 60), (10.0, 20), (5.0, 10), (0.5, 1)])
def test_pace(rate: float | None, taken: int) -> None:
    pace = _Pace()
    pace.rate = rate
    times = [1_000_000_000_000 + round(number * 1e9 / 30) + 200_000 * (-1) ** number for number in range(60)]
    assert sum(pace.takes(time) for time in times) == taken


def test_wrong_arguments() -> None:
    (track,) = msrecd.Canvas(4, 4).capture_stream().get_tracks()
    with pytest.raises(TypeError):
        MediaStreamTrackReader("track")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_buffered"):
        MediaStreamTrackReader(track, max_buffered=0)
    track.stop()
