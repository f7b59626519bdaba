"""Tracks that a program makes: their times reach the file as they are."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import msrecd
from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.muxing.worker import RecorderWorker


def numbered(number: int, *, planes: bool = False, at_ns: int) -> msrecd.VideoFrame:
    """A frame whose brightness says which one it is."""
    level = 16 + number % 200
    if planes:
        y, c = np.full((120, 160), level, np.uint8), np.full((60, 80), 128, np.uint8)
        return msrecd.VideoFrame((y, c, c), format="I420", timestamp_ns=at_ns)
    return msrecd.VideoFrame(np.full((120, 160, 3), level, np.uint8), timestamp_ns=at_ns)


async def stop_and_wait(recorder: msrecd.MediaRecorder) -> None:
    stopped = asyncio.Event()
    recorder.onstop = lambda _: stopped.set()
    recorder.stop()
    async with asyncio.timeout(60):
        await stopped.wait()


def test_what_is_written_right_after_the_start_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the recorder connects from a thread of its own, which a busy machine may begin late."""
    record = RecorderWorker._record

    def late(self: RecorderWorker) -> None:
        time.sleep(0.3)
        record(self)

    monkeypatch.setattr(RecorderWorker, "_record", late)

    async def run() -> None:
        generator = msrecd.VideoTrackGenerator({"width": 160, "height": 120})
        recorder = msrecd.MediaRecorder(msrecd.MediaStream([generator.track]), {"mime_type": "video/x-matroska"})
        file = (tmp_path / "out.mkv").open("wb")
        recorder.ondataavailable = lambda event: file.write(bytes(event.data))
        started = asyncio.Event()
        recorder.onstart = lambda _: started.set()
        recorder.start()
        begin_ns = SYSTEM_CLOCK.monotonic_ns()
        frames = [numbered(number, at_ns=begin_ns + number * 10_000_000) for number in range(10)]
        await asyncio.gather(*map(generator.write, frames))
        async with asyncio.timeout(60):
            await started.wait()
        await stop_and_wait(recorder)
        file.close()

    asyncio.run(run())
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert len(list(container.decode(video=0))) == 10


@pytest.mark.parametrize(
    ("kinds", "mime_type"),
    [
        ("video", "video/x-matroska;codecs=h264"),
        ("audio", "audio/webm;codecs=opus"),
        ("audio", "audio/x-matroska;codecs=pcm"),
        ("video audio", "video/mp4"),
    ],
)
@pytest.mark.parametrize("waits", [True, False], ids=["started", "at once"])
@pytest.mark.promise("written-is-recorded")
def test_what_was_written_before_the_stop_is_recorded(kinds: str, mime_type: str, waits: bool) -> None:
    """To the last frame and the last sample, however far ahead its times lie, and if no encoder is open yet."""

    async def run() -> bytes:
        video = msrecd.VideoTrackGenerator({"width": 160, "height": 120})
        audio = msrecd.MediaStreamTrackGenerator({"kind": "audio", "sample_rate": 48000, "channel_count": 1})
        tracks = [one.track for one in (video, audio) if one.track.kind in kinds]
        recorder = msrecd.MediaRecorder(msrecd.MediaStream(tracks), {"mime_type": mime_type})
        parts: list[bytes] = []
        recorder.ondataavailable = lambda event: parts.append(bytes(event.data))
        started = asyncio.Event()
        recorder.onstart = lambda _: started.set()
        recorder.start()
        if waits:
            await started.wait()
        begin_ns = SYSTEM_CLOCK.monotonic_ns()
        for number in range(10):
            at_ns = begin_ns + number * NS // 10
            if "video" in kinds:
                await video.write(numbered(number, at_ns=at_ns))
            if "audio" in kinds:
                sound = np.full((1, 4800), 0.25, np.float32)
                await audio.write(msrecd.AudioData(sound, sample_rate=48000, timestamp_ns=at_ns))
        recorder.stop()
        async with asyncio.timeout(60):
            await recorder.stopped
        return b"".join(parts)

    with av.open(io.BytesIO(asyncio.run(run())), "r") as container:
        units = list(container.decode())
    assert sum(isinstance(one, av.VideoFrame) for one in units) == 10 * ("video" in kinds)
    samples = sum(one.samples for one in units if isinstance(one, av.AudioFrame))
    assert 48000 * ("audio" in kinds) <= samples <= 51000


def test_times_of_another_clock_are_warned_of() -> None:
    """With them a recording is empty."""

    async def run() -> None:
        generator = msrecd.VideoTrackGenerator()
        recorder = msrecd.MediaRecorder(msrecd.MediaStream([generator.track]))
        recorder.start()
        with pytest.warns(UserWarning, match=r"timestamp_ns is \d+ s ahead of time.monotonic_ns") as warned:
            await generator.write(numbered(0, at_ns=time.time_ns()))
        assert warned[0].filename == __file__
        recorder.stop()
        await recorder.stopped

    asyncio.run(run())


def test_times_of_frames_and_sound_are_kept_to_the_file(tmp_path: Path) -> None:
    """Irregular times, each written at some moment after it: nothing of that moment is in the file."""
    steps = [40, 80, 20, 60, 600, 40, 1100, 40, 40, 130]  # nothing is put into the longer ones

    async def run() -> list[int]:
        video = msrecd.VideoTrackGenerator({"width": 160, "height": 120})
        audio = msrecd.MediaStreamTrackGenerator({"kind": "audio", "sample_rate": 48000, "channel_count": 1})
        recorder = msrecd.MediaRecorder(
            msrecd.MediaStream([video.track, audio.track]), {"mime_type": "video/x-matroska;codecs=h264,pcm"}
        )
        file = (tmp_path / "out.mkv").open("wb")
        recorder.ondataavailable = lambda event: file.write(bytes(event.data))
        started = asyncio.Event()
        recorder.onstart = lambda _: started.set()
        recorder.start()
        async with asyncio.timeout(60):
            await started.wait()  # what is written before is not recorded
        begin_ns = SYSTEM_CLOCK.monotonic_ns()
        times, at_ns = [], begin_ns
        tone = np.sin(2 * np.pi * 440 * np.arange(24000) / 48000).astype(np.float32)[None] / 2
        for block in range(5):
            data = msrecd.AudioData(
                tone[:, block * 4800 : (block + 1) * 4800], sample_rate=48000, timestamp_ns=begin_ns + block * NS // 10
            )
            await audio.write(data)
        for number, step in enumerate(steps):
            await asyncio.sleep(max(0, at_ns - SYSTEM_CLOCK.monotonic_ns()) / NS)  # a recording ends with its stop
            await video.write(numbered(number, at_ns=at_ns))
            times.append(at_ns - begin_ns)
            at_ns += step * 1_000_000
        await stop_and_wait(recorder)
        file.close()
        return times

    times = asyncio.run(run())
    with av.open(str(tmp_path / "out.mkv")) as container:
        frames = list(container.decode(video=0))
    seen = [frame.time for frame in frames]
    assert {(frame.width, frame.height) for frame in frames} == {(160, 120)}
    with av.open(str(tmp_path / "out.mkv")) as container:
        samples = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    assert [at - seen[0] for at in seen] == pytest.approx([at / NS for at in times], abs=0.0015)
    assert samples.size >= 23000  # what the stop leaves of it


def test_both_formats_give_the_same_frame() -> None:
    grey = numbered(100, at_ns=1)
    planes = numbered(100, planes=True, at_ns=2)
    assert (grey.format, planes.format) == ("RGB", "I420")
    assert (planes.coded_width, planes.coded_height) == (160, 120)
    assert grey.array.shape == planes.array.shape == (120, 160, 3)
    below = np.concatenate([np.full((120, 160), 116, np.uint8), np.full((60, 160), 128, np.uint8)])
    assert (msrecd.VideoFrame(below, format="I420").array == planes.array).all()
    copy = planes.clone()
    planes.close()
    assert copy.array.shape == (120, 160, 3)
    with pytest.raises(msrecd.InvalidStateError):
        _ = planes.array


def test_closing_ends_the_track_and_muting_mutes_it() -> None:
    async def run() -> None:
        generator = msrecd.VideoTrackGenerator()
        heard: list[str] = []
        ended = asyncio.Event()
        generator.track.onmute = lambda event: heard.append(event.type)
        generator.track.onunmute = lambda event: heard.append(event.type)
        generator.track.onended = lambda _: ended.set()
        generator.muted = True
        generator.muted = False
        generator.close()
        async with asyncio.timeout(10):
            await ended.wait()
        assert heard == ["mute", "unmute"]
        with pytest.raises(msrecd.InvalidStateError):
            await generator.write(numbered(0, at_ns=1))

    asyncio.run(run())


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: msrecd.VideoFrame(np.zeros((2, 2), np.uint8)), TypeError),
        (lambda: msrecd.VideoFrame(np.zeros((2, 2, 3), np.float32)), TypeError),
        (lambda: msrecd.VideoFrame([np.zeros((2, 2), np.uint8)] * 3, format="I420"), TypeError),
        (lambda: msrecd.VideoFrame(np.zeros((2, 2, 3), np.uint8), timestamp_ns=1.5), TypeError),
        (lambda: msrecd.AudioData(np.zeros((1, 2)), sample_rate=48000), TypeError),
        (lambda: msrecd.AudioData(np.zeros((1, 2), np.float32), sample_rate=0), TypeError),
        (lambda: msrecd.AudioData(np.zeros(5, np.float32), sample_rate=48000), TypeError),
        (lambda: msrecd.MediaStreamTrackGenerator({"kind": "text"}), TypeError),
        (lambda: msrecd.VideoTrackGenerator({"width": 0}), TypeError),
    ],
)
def test_what_is_no_frame_and_no_sound_is_refused(make: Callable[[], Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        make()


def test_what_does_not_continue_is_refused() -> None:
    async def run() -> None:
        video = msrecd.VideoTrackGenerator()
        await video.write(numbered(0, at_ns=10))
        with pytest.raises(ValueError, match="must rise"):
            await video.write(numbered(1, at_ns=10))
        audio = msrecd.MediaStreamTrackGenerator({"kind": "audio"})
        await audio.write(msrecd.AudioData(np.zeros((1, 480), np.int16), sample_rate=48000, timestamp_ns=10))
        with pytest.raises(msrecd.NotSupportedError):
            await audio.write(msrecd.AudioData(np.zeros((2, 480), np.int16), sample_rate=48000, timestamp_ns=NS))
        with pytest.raises(TypeError):
            await audio.write(numbered(0, at_ns=1))  # type: ignore[arg-type]

    asyncio.run(run())


def test_image_capture_takes_the_next_frame() -> None:
    async def run() -> None:
        generator = msrecd.VideoTrackGenerator()
        capture = msrecd.ImageCapture(generator.track)
        task = asyncio.ensure_future(capture.grab_frame())
        feed, begin_ns = generator.track._source.raw(), SYSTEM_CLOCK.monotonic_ns()
        for number in range(500):  # it listens in a later turn
            await generator.write(numbered(50, at_ns=begin_ns + number))
            if task.done():
                break
            await asyncio.sleep(0.01)
        frame = await task
        assert abs(int(frame.array.mean()) - 66) <= 1
        assert not feed.has_sinks
        assert (await capture.get_photo_capabilities())["image_width"] == {"min": 1, "max": 160, "step": 1}
        generator.track.stop()
        with pytest.raises(msrecd.InvalidStateError):
            await capture.grab_frame()

    asyncio.run(run())
