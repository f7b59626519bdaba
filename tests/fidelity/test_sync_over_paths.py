"""Sound and picture stay together on every way that a stream can go: graph, generators, WebRTC, media element.

A flash against a beep, in real time, from the file alone, with a sound card that is 200 ppm off either way. Some
seconds in the ordinary run; `MSRECD_PATHS_S=1200` for twenty minutes (`make fidelity`).
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from judge import read_chunk
from recording import Log, Scene, delivered, run

import msrecd

PATHS_S = float(os.environ.get("MSRECD_PATHS_S", "6"))
LIMIT_MS = 10.0
MP4 = "video/mp4;codecs=avc1,mp4a.40.2"

Lost: TypeAlias = Callable[[], int]  # frames that were dropped before the recorder, as their counters say
Path_: TypeAlias = Callable[[msrecd.MediaStream], AbstractAsyncContextManager[tuple[msrecd.MediaStream, Lost]]]


@asynccontextmanager
async def graph(stream: msrecd.MediaStream) -> AsyncIterator[tuple[msrecd.MediaStream, Lost]]:
    """The sound goes through nodes, one of which has a latency of its own; the frames do not."""
    context = msrecd.AudioContext()
    end = context.create_media_stream_destination()
    high_pass = msrecd.BiquadFilterNode(context, {"type": "highpass", "frequency": 200})
    source = context.create_media_stream_source(stream)
    source.connect(high_pass).connect(context.create_dynamics_compressor()).connect(end)
    yield msrecd.MediaStream([*stream.get_video_tracks(), *end.stream.get_audio_tracks()]), lambda: 0
    await context.close()


@asynccontextmanager
async def generators(stream: msrecd.MediaStream) -> AsyncIterator[tuple[msrecd.MediaStream, Lost]]:
    """Both are read as arrays and written again with the times that they had."""
    frames = msrecd.MediaStreamTrackReader(stream.get_video_tracks()[0], max_buffered=60)
    blocks = msrecd.MediaStreamTrackReader(stream.get_audio_tracks()[0])
    video = msrecd.VideoTrackGenerator({"width": 160, "height": 96})
    audio = msrecd.MediaStreamTrackGenerator({"kind": "audio", "channel_count": 2})

    async def see() -> None:
        async for frame in frames:
            await video.write(msrecd.VideoFrame(frame.array, timestamp_ns=frame.timestamp_ns))

    async def hear() -> None:
        async for block in blocks:
            data = msrecd.AudioData(block.array.T, sample_rate=block.sample_rate, timestamp_ns=block.timestamp_ns)
            await audio.write(data)

    async with asyncio.TaskGroup() as tasks, frames, blocks:
        tasks.create_task(see())
        tasks.create_task(hear())
        yield msrecd.MediaStream([video.track, audio.track]), lambda: frames.dropped
        frames.close()
        blocks.close()
    video.close()
    audio.close()


@asynccontextmanager
async def webrtc(stream: msrecd.MediaStream) -> AsyncIterator[tuple[msrecd.MediaStream, Lost]]:
    """From one peer connection to another, over this machine's network."""
    pytest.importorskip("aiortc")
    from peers import Peers, sent_to

    async with Peers() as peers:
        _, _, received = await sent_to(peers, stream)
        yield received, lambda: 0


@asynccontextmanager
async def element(stream: msrecd.MediaStream) -> AsyncIterator[tuple[msrecd.MediaStream, Lost]]:
    """What a media element captures that plays the stream."""
    element = msrecd.MediaElement()
    element.src_object = stream
    await element.play()
    yield element.capture_stream(), lambda: 0
    element.src_object = None


@asynccontextmanager
async def everything(stream: msrecd.MediaStream) -> AsyncIterator[tuple[msrecd.MediaStream, Lost]]:
    """Sent to a peer, there through a graph, and a media element plays that."""
    async with AsyncExitStack() as stack:
        for path in (webrtc, graph, element):
            stream, _ = await stack.enter_async_context(path(stream))
        yield stream, lambda: 0


@pytest.mark.timeout(300 + 2 * PATHS_S)
@pytest.mark.promise("in-sync-on-every-path")
@pytest.mark.parametrize("ppm", [-200.0, 200.0])
@pytest.mark.parametrize(
    ("path", "mime_type"),
    [
        pytest.param(graph, MP4, id="graph"),
        pytest.param(generators, MP4, id="generators"),
        pytest.param(webrtc, None, id="webrtc"),  # passed through
        pytest.param(webrtc, MP4, id="webrtc, sound decoded"),
        pytest.param(element, MP4, id="element"),
        pytest.param(everything, MP4, id="everything"),
    ],
)
def test_in_sync_on_every_path(tmp_path: Path, path: Path_, mime_type: str | None, ppm: float) -> None:
    async def record() -> tuple[Any, int]:
        with Scene("av", ppm=ppm) as scene:
            async with path(scene.stream) as (stream, lost):
                recorder = msrecd.MediaRecorder(stream, {"mime_type": mime_type} if mime_type else None)
                log = Log(recorder)
                with (tmp_path / "out.mp4").open("wb") as file:
                    recorder.ondataavailable = lambda event: file.write(bytes(event.data))
                    recorder.start(1000)
                    await log.until("start")
                    await delivered(scene.stream, PATHS_S)
                    recorder.stop()
                    await log.until("stop")
                (info,) = log.infos
                return info, lost()

    info, dropped = run(record(), deadline_s=200 + 2 * PATHS_S)
    chunk = read_chunk(tmp_path / "out.mp4")
    sound, picture = (next(track for track in info.tracks if track.kind == kind) for kind in ("audio", "video"))
    read = zip(chunk.times, chunk.numbers, chunk.flashes, strict=True)
    shown = [one for one in read if one[1] or one[2]]  # black frames stand where nothing came, and are a gap
    numbers = [number for _, number, _ in shown]
    flashes = [  # whose first frame was not dropped
        time
        for (_, number_before, was_lit), (time, number, is_lit) in pairwise(shown)
        if is_lit and not was_lit and number == number_before + 1
    ]
    nearest = [min(chunk.beep_times, key=lambda beep: abs(beep - flash)) - flash for flash in flashes]
    apart = [1000 * one for one in nearest if abs(one) < 0.3]  # the beep of another flash has its own in a gap
    missing = numbers[-1] - numbers[0] + 1 - len(set(numbers))
    reported = picture.dropped + dropped + math.ceil(30 * picture.gap_s)
    seconds = len(chunk.samples) / chunk.sample_rate
    print(
        f"{path.__name__} {ppm:+g} ppm, {chunk.times[-1] - chunk.times[0]:.1f} s: {len(flashes)} flashes, "
        f"{len(apart)} with a beep, {min(apart):+.2f} to {max(apart):+.2f} ms later; "
        f"{missing} of {len(numbers)} frames missing, "
        f"{reported} reported ({picture.gap_s:g} s of gaps); {seconds:.2f} s of sound, {len(chunk.audio_gaps)} holes, "
        f"{sound.gap_s:g} s of gaps reported; drift {sound.drift_ppm:+.1f} ppm; {len(info.gaps)} gaps"
    )
    assert len(flashes) >= PATHS_S * 0.5
    assert max(map(abs, apart)) <= LIMIT_MS
    assert all(before < after for before, after in pairwise(numbers)), "a frame is there twice"
    assert missing <= reported
    if path is generators:  # each frame that its reader had no room for is counted there, gaps aside
        assert missing <= picture.dropped + dropped
    assert len(flashes) - len(apart) <= 2 + 2 * math.ceil(sound.gap_s)
    assert chunk.audio_gaps == [] or sound.gap_s > 0
    assert abs(seconds - (chunk.times[-1] - chunk.times[0])) < 0.2
