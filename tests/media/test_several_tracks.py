"""More than one video track in a recording: each begins with a key frame of its own, in every chunk."""

from __future__ import annotations

import io
from typing import Any

import av
import judge
import pytest
from recording import Log, Scene, delivered, each_of, run

import msrecd
from msrecd.media.recorder import MediaRecorder
from msrecd.media.stream import MediaStream

TYPES = ("video/mp4;codecs=avc1", "video/webm;codecs=vp8", "video/x-matroska;codecs=avc1,pcm")


def tracks_of(data: bytes) -> list[list[tuple[float, bool]]]:
    """(time, is a key frame) of the packets of each video track."""
    with av.open(io.BytesIO(data)) as container:
        found: dict[int, list[tuple[float, bool]]] = {stream.index: [] for stream in container.streams.video}
        for packet in container.demux(video=tuple(range(len(found)))):
            if packet.size:
                found[packet.stream_index].append((float(packet.pts * packet.time_base), bool(packet.is_keyframe)))
        return [found[index] for index in sorted(found)]


def numbers_of(data: bytes, track: int) -> list[int]:
    """The numbers in the pictures of a track: decoding fails where a key frame is missing."""
    with av.open(io.BytesIO(data)) as container:
        frames = container.decode(video=track)
        return [judge.number_of(frame.to_ndarray(format="gray")) for frame in frames]


@each_of("type_", TYPES)
@pytest.mark.promise("several-video-tracks")
async def test_chunks_of_two_cameras_lose_nothing(type_: str) -> None:
    with Scene("av") as front, Scene("v", frame_rate=25) as back:
        other = MediaRecorder(back.stream, {"mime_type": "video/mp4" if "avc1" in type_ else type_})
        others = Log(other)
        other.start(200)  # so that the encoding of the second camera has been running for a while
        await others.until("dataavailable", 2)
        stream = MediaStream([*front.stream.get_tracks(), *back.stream.get_tracks()])
        recorder = MediaRecorder(stream, {"mime_type": type_, "chunk_duration": 700})
        log = Log(recorder)
        recorder.start(100)
        await log.until("start")
        await delivered(stream, 3.0)
        recorder.stop()
        await log.until("stop")
        other.stop()
        await others.until("stop")
    assert log.types == ["start", *["dataavailable"] * len(log.blobs), "stop"]
    assert [event.chunk for event in log.blobs] == sorted(event.chunk for event in log.blobs)
    assert [event.chunk for event in log.blobs if event.chunk_end] == list(range(1, len(log.chunks) + 1))
    assert len(log.chunks) >= 4
    for data in log.chunks[:-1]:
        packets = tracks_of(data)
        assert len(packets) == 2
        assert [track[0][1] for track in packets] == [True, True], "a track of this chunk cannot be decoded alone"
    for track in (0, 1):
        seen = [number for data in log.chunks if tracks_of(data)[track] for number in numbers_of(data, track)]
        assert len(seen) >= 50
        assert seen == list(range(seen[0], seen[0] + len(seen)))


def test_both_cameras_begin_anew_after_a_pause() -> None:
    async def main() -> None:
        with Scene("v") as front, Scene("v", frame_rate=25) as back:
            recorder = MediaRecorder(MediaStream([*front.stream.get_tracks(), *back.stream.get_tracks()]))
            log = Log(recorder)
            recorder.start()
            await log.until("start")
            await delivered(recorder.stream, 0.8)
            recorder.pause()
            await delivered(recorder.stream, 0.5)
            recorder.resume()
            await delivered(recorder.stream, 0.8)
            recorder.stop()
            await log.until("stop")
            for track, packets in enumerate(tracks_of(log.data())):
                seen = numbers_of(log.data(), track)
                (hole,) = [index for index in range(1, len(seen)) if seen[index] != seen[index - 1] + 1]
                assert packets[hole][1], "the first picture after the pause needs those that were left out"
                assert seen[hole] - seen[hole - 1] > 5

    run(main())


@pytest.mark.parametrize("first_ends", [True, False])
def test_a_camera_that_goes_leaves_the_other_recorded(first_ends: bool) -> None:
    async def main() -> None:
        with Scene("v") as front, Scene("v", frame_rate=25) as back:
            stream = MediaStream([*front.stream.get_tracks(), *back.stream.get_tracks()])
            recorder = MediaRecorder(stream, {"chunk_duration": 500})
            log = Log(recorder)
            recorder.start(100)
            await log.until("start")
            await delivered(stream, 0.8)
            (front if first_ends else back).camera.unplug()
            ended: Any = (front if first_ends else back).stream.get_tracks()[0]
            await log.until_true(lambda: ended.ready_state == "ended")
            assert recorder.state == "recording"
            chunks = len(log.chunks)
            await log.until_true(lambda: len(log.chunks) >= chunks + 3)
            recorder.stop()
            await log.until("stop")
            assert log.count("error") == 0
            left = 1 if first_ends else 0
            for data in log.chunks[1:-1]:
                packets = tracks_of(data)[left]
                assert packets[0][1]
            seen = [number for data in log.chunks if tracks_of(data)[left] for number in numbers_of(data, left)]
            assert seen == list(range(seen[0], seen[0] + len(seen)))
            assert isinstance(ended, msrecd.MediaStreamTrack)

    run(main())
