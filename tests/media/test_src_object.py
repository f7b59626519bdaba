"""A media element that consumes a stream: `MediaElement.src_object`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import judge
import pytest
from recording import Scene, delivered, judged, record, run

import msrecd


async def happened(element: msrecd.MediaElement, type_: str) -> None:
    seen = asyncio.Event()
    element.add_event_listener(type_, lambda _: seen.set(), once=True)
    await asyncio.wait_for(seen.wait(), 40)


def test_it_plays_a_stream() -> None:
    """Metadata, playing, frames by callback, pause, and the end with the last track; in this order."""

    async def scenario() -> None:
        with Scene("av") as scene:
            element = msrecd.MediaElement()
            assert element.src_object is None
            said: list[str] = []
            for type_ in ("loadedmetadata", "play", "playing", "pause", "ended"):
                element.add_event_listener(type_, lambda event: said.append(event.type))
            element.src_object = scene.stream
            assert element.src_object is scene.stream
            await happened(element, "loadedmetadata")
            assert (element.video_width, element.video_height) == (160, 96)
            assert (element.paused, element.current_time) == (True, 0)
            playing = asyncio.ensure_future(happened(element, "playing"))
            await element.play()
            await playing
            numbers: list[int] = []
            enough = asyncio.Event()

            def look(now_ms: float, metadata: Mapping[str, Any]) -> None:
                assert metadata["presented_frames"] == len(numbers) + 1
                assert 0 < metadata["capture_time"] <= now_ms
                numbers.append(judge.number_of(metadata["frame"].array[..., 1]))
                if len(numbers) == 5:
                    enough.set()
                else:
                    element.request_video_frame_callback(look)

            element.request_video_frame_callback(look)
            await asyncio.wait_for(enough.wait(), 40)
            assert numbers == sorted(set(numbers))
            handle = element.request_video_frame_callback(lambda *_: numbers.append(-1))
            element.cancel_video_frame_callback(handle)
            assert element.current_time > 0
            element.pause()
            at = element.current_time
            await delivered(scene.stream, 0.3)
            assert element.current_time == at
            assert -1 not in numbers
            over = asyncio.ensure_future(happened(element, "ended"))
            await asyncio.sleep(0)
            for track in scene.stream.get_tracks():
                track.stop()
            await over
            assert element.ended
            assert said == ["loadedmetadata", "play", "playing", "pause", "ended"]

    run(scenario())


def test_what_it_captures_is_the_stream() -> None:
    """`capture_stream` of such an element: recorded, it has the sound and the frames, together."""

    async def scenario() -> bytes:
        with Scene("av") as scene:
            element = msrecd.MediaElement()
            element.src_object = scene.stream
            await element.play()
            captured = element.capture_stream()
            log = await record(captured, None, 3)
            element.src_object = None
            for track in captured.get_tracks():
                track.stop()
            return log.data()

    found = judged(run(scenario()))
    judge.assert_consecutive(found.numbers)
    assert abs(found.av_offset_ms) <= 10


def test_what_is_refused() -> None:
    async def scenario() -> None:
        element = msrecd.MediaElement()
        with pytest.raises(TypeError):
            element.src_object = "stream"  # type: ignore[assignment]
        with pytest.raises(msrecd.InvalidStateError):
            element.request_video_frame_callback(lambda *_: None)
        with pytest.raises(msrecd.NotSupportedError):
            await element.play()

    run(scenario())
