"""Tracks that end before the others, and encoders that are late: nothing is lost without a word."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest
from recording import Log, Scene, judged, record, run

import msrecd
from msrecd.libav import AudioEncoder, Encoded, VideoEncoder
from msrecd.muxing import worker


def test_a_late_encoder_gets_its_time_when_the_recording_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half as fast as the sound comes: what waits at stop() is as much a part of the recording as the rest."""
    encode = AudioEncoder.encode

    def slow(self: AudioEncoder, pcm: bytes, first_sample: int, *, at_ns: int = 0) -> list[Encoded]:
        packets = encode(self, pcm, first_sample, at_ns=at_ns)
        time.sleep(2 * sum(packet.duration for packet in packets) / 48_000)
        return packets

    monkeypatch.setattr(AudioEncoder, "encode", slow)

    async def main() -> Log:
        with Scene() as scene:
            return await record(scene.stream, {"mime_type": "video/mp4"}, 2.2, timeslice=500)

    log = run(main())
    found = judged(log.data())
    assert found.samples is not None
    assert len(found.samples) / 48_000 == pytest.approx(found.times[-1] - found.times[0], abs=0.25)
    (info,) = log.infos
    assert [track.gap_s for track in info.tracks] == [0.0, 0.0]
    assert info.gaps == ()


@pytest.mark.parametrize("mime_type", ["video/mp4", "video/webm"])
def test_without_its_camera_a_recording_goes_on_in_chunks_and_tells_what_lacks(mime_type: str) -> None:
    async def main() -> Log:
        with Scene() as scene:
            recorder = msrecd.MediaRecorder(
                scene.stream,
                {"mime_type": mime_type, "chunk_duration": 1000, "video_key_frame_interval_duration": 500},
            )
            log = Log(recorder)
            recorder.start(500)
            await log.until_true(lambda: len(log.infos) >= 1)
            scene.camera.unplug()
            whole = len(log.infos)
            await log.until_true(lambda: len(log.infos) >= whole + 3)
            recorder.stop()
            await log.until("stop")
            return log

    log = run(main())
    gaps = [gap for info in log.infos for gap in info.gaps]
    assert {gap.reason for gap in gaps} == {"device_missing"}
    for chunk, info in zip(log.chunks, log.infos, strict=True):
        found = judged(chunk)
        assert found.samples is not None
        seconds = len(found.samples) / 48_000
        assert seconds < 1.9  # of one second each, cut without a picture too
        pictures_s = len(found.times) / 30
        assert seconds - pictures_s == pytest.approx(sum(gap.duration_s for gap in info.gaps), abs=0.25)
        assert len(chunk) == info.bytes
    told = [event.gap for event in log.events if event.type == "gap"]
    assert told == gaps
    for before, after in pairwise(log.infos):
        assert abs(after.started_ns - before.ended_ns) < 100_000_000


def test_pictures_that_an_encoder_does_not_give_before_the_deadline_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hopelessly slow: the recording ends without them, and says so."""
    encode = VideoEncoder.encode
    begun = time.monotonic()

    def slow(self: VideoEncoder, picture: Any, pts_ns: int, *, key_frame: bool = False) -> list[Encoded]:
        if time.monotonic() > begun + 1.5:
            time.sleep(0.4)
        return encode(self, picture, pts_ns, key_frame=key_frame)

    monkeypatch.setattr(VideoEncoder, "encode", slow)
    monkeypatch.setattr(worker, "LAGGING_DEADLINE_NS", 1_500_000_000)

    async def main() -> Log:
        with Scene() as scene:
            return await record(scene.stream, {"mime_type": "video/mp4"}, 4.0, timeslice=500)

    log = run(main())
    (info,) = log.infos
    seen_s = judged(log.data()).times[-1]
    (gap,) = [gap for gap in info.gaps if gap.at_s > seen_s - 0.1]
    assert gap.reason == "no_frames"
    assert gap.at_s + gap.duration_s == pytest.approx(info.duration_s, abs=0.05)


@pytest.mark.parametrize("chunk_ms", [None, 1000])
def test_after_stop_comes_one_blob_of_the_chunk_at_hand_and_the_end(
    monkeypatch: pytest.MonkeyPatch, chunk_ms: int | None
) -> None:
    """However much a late encoder still gives, in as many pieces."""
    encode = AudioEncoder.encode

    def slow(self: AudioEncoder, pcm: bytes, first_sample: int, *, at_ns: int = 0) -> list[Encoded]:
        packets = encode(self, pcm, first_sample, at_ns=at_ns)
        time.sleep(1.5 * sum(packet.duration for packet in packets) / 48_000)
        return packets

    monkeypatch.setattr(AudioEncoder, "encode", slow)

    async def main() -> tuple[Log, int]:
        with Scene() as scene:
            options: dict[str, object] = {"mime_type": "video/mp4"}
            if chunk_ms is not None:
                options["chunk_duration"] = chunk_ms
            recorder = msrecd.MediaRecorder(scene.stream, options)
            log = Log(recorder)
            recorder.start(50)
            await log.until_media(1.2)
            before = len(log.events)
            recorder.stop()
            await log.until("stop")
            return log, before

    log, before = run(main())
    after = [event for event in log.events[before:] if event.type in ("dataavailable", "stop")]
    assert [event.type for event in after][-2:] == ["dataavailable", "stop"]
    blobs = [event for event in after if isinstance(event, msrecd.BlobEvent)]
    assert len({event.chunk for event in blobs}) == len(blobs)
    assert chunk_ms is not None or len(blobs) == 1
    assert all(event.chunk_end for event in blobs)
    for chunk in log.chunks:
        judged(chunk)
