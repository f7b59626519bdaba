"""Chunks, pre-roll, back-pressure, sharing, leaks: the recorder beyond the specification, judged by its files."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import judge
import leaks
import pytest
from leaks import until
from recording import (
    Log,
    PaintedSource,
    Scene,
    as_file,
    delivered,
    each_of,
    judged,
    key_frame_indexes,
    pictures,
    record,
    run,
)

from msrecd import libav
from msrecd.media.recorder import MediaRecorder
from msrecd.media.stream import MediaStream

pytestmark = pytest.mark.timeout(300)  # of the wall clock: a busy machine gives a test a twentieth of it
CHUNKED = (
    "video/mp4;codecs=avc1,mp4a.40.2",
    "video/mp4;codecs=avc1,opus",
    "video/webm;codecs=vp8,opus",
    "video/x-matroska;codecs=avc1,pcm",
    "video/x-matroska;codecs=avc1,flac",
)
FFPROBE = shutil.which("ffprobe")


def ffprobe_complaints(data: bytes) -> str:
    """What ffprobe says about the file besides its facts.

    That it can only estimate how long a file is belongs to the facts: it says so of a live container with one picture.
    """
    if FFPROBE is None:
        pytest.skip("no ffprobe here")
    with as_file(data) as path:
        found = subprocess.run(
            [FFPROBE, "-v", "warning", "-show_packets", "-of", "csv=p=0", str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    return "".join(line for line in found.stderr.splitlines(True) if "Estimating duration from bitrate" not in line)


def sound_of(chunk: judge.Judged) -> int:
    """Samples; the last chunk may be too short for any."""
    return 0 if chunk.samples is None else len(chunk.samples)


def assert_seamless(log: Log, *, least_chunks: int, frame_s: float) -> None:
    """Pictures consecutive over all chunks, each begins with a key frame, no sound is lost, A/V together in each.

    A machine that is too slow for the encoders drops pictures: it must have counted just those that lack.
    """
    found = [judged(data) for data in log.chunks]
    assert len(found) >= least_chunks
    numbers = [number for chunk in found for number in chunk.numbers]
    dropped = sum(info.tracks[0].dropped for info in log.infos)
    assert sum(after - before - 1 for before, after in pairwise(numbers)) == dropped
    assert numbers == sorted(set(numbers))
    for data, chunk, info in zip(log.chunks, found, log.infos, strict=True):
        assert key_frame_indexes(data)[0] == 0
        assert chunk.audio_gaps == []
        assert all(abs(offset) <= 10 for offset in chunk.av_offsets_ms), (chunk.av_offsets_ms, info.chunk)
        video, audio = info.tracks
        assert video.units == len(chunk.numbers)
        assert abs(audio.units - sound_of(chunk)) <= frame_s * 48_000
        assert info.bytes == len(data)
        assert dropped or info.gaps == ()
        if info.chunk in (1, 2, len(found)):
            assert ffprobe_complaints(data) == ""
    recorded_s = (log.infos[-1].ended_ns - log.infos[0].started_ns) / 1e9 - found[0].audio_start
    sound_s = sum(map(sound_of, found)) / found[0].sample_rate
    assert abs(sound_s - recorded_s) <= 2 * frame_s + 0.03


async def record_chunks(scene: Scene, options: dict[str, object], count: int) -> Log:
    """So many whole chunks and the begin of one; three will do for a machine whose encoders are late with each cut."""
    recorder = MediaRecorder(scene.stream, options)
    log = Log(recorder)
    recorder.start(100)
    patient_until = time.monotonic() + 15
    await log.until_true(lambda: len(log.infos) >= (count if time.monotonic() < patient_until else 3), deadline_s=90)
    recorder.stop()
    await log.until("stop")
    return log


@each_of("type_", CHUNKED)
@pytest.mark.promise("packets-in-one-chunk")
async def test_chunks_are_seamless(type_: str) -> None:
    with Scene("av") as scene:
        log = await record_chunks(scene, {"mime_type": type_, "chunk_duration": 250}, 10)
        assert_seamless(log, least_chunks=3, frame_s=0.025)
        assert [event.chunk for event in log.blobs] == sorted(event.chunk for event in log.blobs)
        ends = [event for event in log.blobs if event.chunk_end]
        assert [event.chunk for event in ends] == list(range(1, len(log.chunks) + 1))
        for before, after in pairwise(log.infos):
            assert abs(after.started_ns - before.started_ns - before.duration_s * 1e9) < 30e6


@each_of("ppm", (-200.0, 200.0))
async def test_chunks_of_a_card_that_is_off(ppm: float) -> None:
    with Scene("av", ppm=ppm) as scene:
        log = await record_chunks(scene, {"chunk_duration": 1000}, 4)
        assert_seamless(log, least_chunks=3, frame_s=0.025)


@pytest.mark.promise("overrun-is-silence")
def test_overruns_become_silence_of_the_same_length() -> None:
    async def main() -> None:
        with Scene("av") as scene:
            recorder = MediaRecorder(scene.stream)
            log = Log(recorder)
            recorder.start(500)
            await log.until("start")
            for _ in range(3):
                await delivered(scene.stream, 0.5)
                scene.microphone.overrun(0.15)
            await delivered(scene.stream, 1.6)  # two beeps at least
            recorder.stop()
            await log.until("stop")
            found = judged(log.data())
            assert found.audio_gaps == []
            assert len(found.av_offsets_ms) >= 2
            assert all(abs(offset) <= 10 for offset in found.av_offsets_ms)
            (info,) = log.infos
            assert info.tracks[1].xruns == 3
            assert info.tracks[1].gap_s == pytest.approx(0.45, abs=0.07)
            assert [event.gap.reason for event in log.events if event.type == "gap"] == ["lost_sound"] * 3

    run(main())


@pytest.mark.promise("cut-at-one-instant")
def test_picture_and_sound_stay_together_over_pauses() -> None:
    async def main() -> None:
        with Scene("av") as scene:
            recorder = MediaRecorder(scene.stream)
            log = Log(recorder)
            recorder.start()
            await log.until("start")
            for pause_s in (0.31, 0.173, 0.257):
                await delivered(scene.stream, 1.1)
                recorder.pause()
                await delivered(scene.stream, pause_s)
                recorder.resume()
            await delivered(scene.stream, 2.0)
            recorder.stop()
            await log.until("stop")
            found = judged(log.data())
            assert found.audio_gaps == []
            assert len(found.av_offsets_ms) >= 3
            assert all(abs(offset) <= 10 for offset in found.av_offsets_ms)

    run(main())


def test_split_and_size_limit() -> None:
    async def main() -> None:
        with Scene("av", size=(320, 192)) as scene:
            recorder = MediaRecorder(scene.stream)
            log = Log(recorder)
            recorder.start(200)
            await log.until("start")
            for chunk in (1, 2):
                await delivered(scene.stream, 0.5)
                recorder.split()
                await log.until_true(lambda chunk=chunk: len(log.infos) == chunk)
            await delivered(scene.stream, 0.5)
            recorder.stop()
            await log.until("stop")
            assert_seamless(log, least_chunks=3, frame_s=0.025)
            assert len(log.chunks) == 3

            limit = 30_000
            limited = await record_chunks(scene, {"chunk_max_size": limit}, 3)
            assert_seamless(limited, least_chunks=3, frame_s=0.025)
            sizes = [len(data) for data in limited.chunks]
            # The cut waits for a key frame, which is a tenth of this limit, and an encoder may be late with it.
            assert max(sizes) <= limit * 2, sizes
            assert min(sizes[:-1]) >= limit * 0.5, sizes

    run(main())


# --- pre-roll --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", ["av", "a"])
def test_pre_roll_reaches_back(kinds: str) -> None:
    async def main() -> None:
        with Scene(kinds) as scene:
            recorder = MediaRecorder(scene.stream, {"pre_roll": 1500})
            log = Log(recorder)
            await delivered(scene.stream, 3.0)  # a group of pictures is two seconds
            assert log.events == []
            wanted_ns = time.monotonic_ns() - 1_500_000_000
            recorder.start()
            await log.until("start")
            await delivered(scene.stream, 0.5)
            recorder.stop()
            await log.until("stop")
            assert log.types == ["start", "dataavailable", "stop"]
            (info,) = log.infos
            assert info.started_ns <= wanted_ns
            assert info.started_ns > wanted_ns - 2_300_000_000  # not more than a group of pictures earlier
            assert info.duration_s > 1.9
            if "v" in kinds:
                found = judged(log.data())
                judge.assert_consecutive(found.numbers)
                assert key_frame_indexes(log.data())[0] == 0
                # again, without calling the constructor: what lies before this start is there, too
                await delivered(scene.stream, 1.8)
                recorder.start()
                await delivered(scene.stream, 0.3)
                recorder.stop()
                await log.until("stop", 2)
                assert log.infos[1].duration_s > 1.5

    run(main())


def test_pre_roll_of_a_disabled_track_is_black() -> None:
    async def main() -> None:
        with Scene("v") as scene:
            (track,) = scene.stream.get_tracks()
            track.enabled = False
            recorder = MediaRecorder(scene.stream, {"pre_roll": 500})
            log = Log(recorder)
            await delivered(scene.stream, 1.0)
            recorder.start(100)
            await log.until_media(0.5)
            recorder.stop()
            await log.until("stop")
            shown = pictures(log.data())
            assert len(shown) >= 2  # a busy machine gives fewer than it is asked for
            assert max(picture.max() for picture in shown) < 30

    run(main())


@pytest.mark.parametrize("how", ["forget", "stop", "end"])
def test_pre_roll_that_is_never_started_lets_go(how: str) -> None:
    async def main() -> None:
        before = engine_threads()
        with Scene("av") as scene:
            recorder: MediaRecorder | None = MediaRecorder(scene.stream, {"pre_roll": 500})
            await until(lambda: len(engine_threads() - before) >= 3)  # a thread of the test before may still be ending
            if how == "forget":
                recorder = None
            elif how == "stop":
                assert recorder is not None
                recorder.stop()
            else:
                for track in scene.stream.get_tracks():
                    track.stop()
            await until(lambda: engine_threads() <= before)
            del recorder

    run(main())


# --- back-pressure ---------------------------------------------------------------------------------------------------


def test_slow_consumer_loses_whole_groups_and_hears_of_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encode, encoded = libav.VideoEncoder.encode, [0]

    def counted(self: libav.VideoEncoder, *arguments: Any, **keywords: Any) -> list[libav.Encoded]:
        packets = encode(self, *arguments, **keywords)
        encoded[0] += len(packets)
        return packets

    monkeypatch.setattr(libav.VideoEncoder, "encode", counted)
    limit = 30_000

    async def main() -> None:
        with Scene("av", size=(320, 192)) as scene:
            options = {"max_buffered": limit, "video_key_frame_interval_duration": 300}
            recorder = MediaRecorder(scene.stream, options)
            log = Log(recorder)
            stalled = asyncio.Event()
            recorder.ondataavailable = lambda event: event.wait_until(stalled.wait())
            recorder.start(100)
            await log.until("start")
            await log.until_true(lambda: "dropping until the consumer catches up" in caplog.text)
            full = encoded[0]
            await log.until_true(lambda: encoded[0] >= full + 45)  # five groups of pictures that have no room
            assert len(log.data()) < 3 * limit
            stalled.set()
            await log.until("gap")
            await log.until_media(0.7)
            recorder.stop()
            await log.until("stop")
            (gap,) = [event.gap for event in log.events if event.type == "gap"]
            assert gap.reason == "slow_consumer"
            assert gap.duration_s > 0.3
            (info,) = log.infos
            assert info.gaps == (gap,)
            found = judged(log.data())  # decodes without an error
            holes = [after - before for before, after in pairwise(found.numbers) if after != before + 1]
            assert len(holes) == 1
            assert info.tracks[0].dropped == holes[0] - 1
            assert info.tracks[0].units == len(found.numbers)

    run(main())


# --- sharing, sizes, leaks -------------------------------------------------------------------------------------------


def engine_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(("record-", "encode-", "blank"))}


def test_two_recorders_share_encoders_when_they_ask_the_same() -> None:
    async def main() -> None:
        with Scene("av") as scene:
            recorders = [
                MediaRecorder(scene.stream, {"mime_type": type_, "video_bits_per_second": rate})
                for type_, rate in (("video/mp4", 500_000), ("video/x-matroska", 500_000), ("video/mp4", 300_000))
            ]
            logs = [Log(recorder) for recorder in recorders]
            for recorder, log in zip(recorders, logs, strict=True):
                recorder.start()
                await log.until("start")
            encoders = [name for name in engine_threads() if name.startswith("encode-")]
            assert len(encoders) == 3  # two of video, one of sound
            await delivered(scene.stream, 0.6)
            for recorder, log in zip(recorders, logs, strict=True):
                recorder.stop()
                await log.until("stop")
                judge.assert_consecutive(judged(log.data()).numbers)
            await until(lambda: not engine_threads())

    run(main())


@pytest.mark.promise("clones-go-on")
def test_a_clone_records_while_the_other_is_disabled() -> None:
    async def main() -> None:
        with Scene("av", signal="tone") as scene:
            clone = scene.stream.clone()
            for track in scene.stream.get_tracks():
                track.enabled = False
            logs = await asyncio.gather(*(record(stream, None, 2.0) for stream in (scene.stream, clone)))
            for track in clone.get_tracks():
                track.stop()
            dark, bright = (judged(log.data()) for log in logs)
            assert abs(dark.samples).max() < 0.01
            assert abs(bright.samples).max() > 0.3
            assert max(picture.max() for picture in pictures(logs[0].data())) < 30
            judge.assert_consecutive(bright.numbers)

    run(main())


@pytest.mark.promise("disabled-is-black")
def test_disabled_and_enabled_while_recording() -> None:
    async def main() -> None:
        with Scene("av") as scene:
            recorder = MediaRecorder(scene.stream)
            log = Log(recorder)
            recorder.start(100)
            for is_enabled in (True, False, True):
                for track in scene.stream.get_tracks():
                    track.enabled = is_enabled
                await log.until_media(0.6)
            recorder.stop()
            await log.until("stop")
            found = judged(log.data())
            assert found.times[-1] > 1.7
            holes = [after - before for before, after in pairwise(found.times) if after - before >= 0.3]
            (info,) = log.infos  # an encoder for the black that opens too late leaves a hole, but tells it
            assert sum(gap.duration_s for gap in info.gaps) == pytest.approx(sum(holes), abs=0.1 * len(holes))
            seen = [number > 0 for number in found.numbers]
            assert seen[5]
            assert seen[-1]
            assert False in seen  # how many: the gaps account for what an encoder that opened late missed

    run(main())


def test_a_source_that_changes_its_size_is_scaled_to_the_first() -> None:
    async def main() -> None:
        source = PaintedSource((320, 240))
        track = source.track()
        recorder = MediaRecorder(MediaStream([track]))
        log = Log(recorder)
        recorder.start(100)
        await log.until("start")
        for colour, size in (((250, 10, 10), (320, 240)), ((10, 250, 10), (200, 100)), ((10, 10, 250), (640, 480))):
            source.paint(colour, size)
            await log.until_media(0)
        recorder.stop()
        await log.until("stop")
        track.stop()
        shown = pictures(log.data())
        assert log.types == ["start", *["dataavailable"] * len(log.blobs), "stop"]
        assert {picture.shape for picture in shown} == {(240, 320, 3)}
        assert [int(shown[index][120, 160].argmax()) for index in (0, -1)] == [0, 2]

    run(main())


def test_nothing_is_left_behind() -> None:
    async def main() -> None:
        with Scene("av") as scene:
            counts = []
            for _ in range(6):
                log = await record(scene.stream, {"chunk_duration": 100, "pre_roll": 100}, 0.25, timeslice=50)
                log.recorder.stop()
                del log
                await until(lambda: not leaks.own_threads())  # the devices' own, too: they run on demand
                counts.append(leaks.open_files())
            assert counts[-1] <= counts[2], counts
            recorder = MediaRecorder(scene.stream, {"pre_roll": 100})
            log = Log(recorder)
            kept = []
            for turn in range(1, 4):  # one recorder again and again: only the latest pre-roll is there
                recorder.start(50)
                await log.until("start", turn)
                recorder.stop()
                await log.until("stop", turn)
                kept.append(leaks.own_objects()["msrecd.media.preroll.Armed"])
            recorder.stop()
            assert kept == [1] * 3

    run(main())


def test_a_program_that_forgets_to_stop_exits(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import asyncio, sys
        from recording import Log, Scene
        from msrecd.media.recorder import MediaRecorder

        async def main():
            scene = Scene("av")
            first = MediaRecorder(scene.stream, {"pre_roll": 500})
            second = MediaRecorder(scene.stream)
            log = Log(second)
            second.start(100)
            await log.until("dataavailable", 3)
            print("leaving")

        asyncio.run(main())
    """)
    path = ":".join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,  # it would run for ever
        check=False,
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "leaving"), done.stderr
