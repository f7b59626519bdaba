"""mediacapture-record: events-and-exceptions, pause-resume, stop, error, requestData, disabled-tracks, blob-timecode,
destroy-script-execution, peerconnection (clones, no sink); the recorder's extra behaviours of WebKit."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import Any

import pytest
from recording import (
    DEADLINE_S,
    Log,
    PaintedSource,
    Scene,
    delivered,
    each_of,
    judged,
    key_frame_indexes,
    picture_times,
    pictures,
    record,
    run,
)

import msrecd
from msrecd.dom.events import ErrorEvent
from msrecd.media.recorder import MediaRecorder
from msrecd.media.stream import MediaStream

pytestmark = pytest.mark.timeout(300)  # of the wall clock: a busy machine gives a test a twentieth of it
TYPES = (
    None,
    "video/mp4",
    "video/mp4;codecs=avc1.64003E,mp4a.40.2",
    "video/mp4;codecs=avc1,opus",
    "video/mp4;codecs=av01,opus",
    "video/mp4;codecs=av01,mp4a.40.2",
    "video/mp4;codecs=vp9,opus",
    "video/webm;codecs=vp8,opus",
    "video/webm;codecs=vp9,opus",
    "video/webm;codecs=av1,opus",
    "video/x-matroska;codecs=avc1,opus",
)
each_type = each_of("type_", TYPES)
KINDS = pytest.mark.parametrize("kinds", ["v", "a", "av"])


def options_of(type_: str | None, **more: Any) -> dict[str, Any]:
    return more if type_ is None else {"mime_type": type_, **more}


def assert_throws_while_inactive(recorder: MediaRecorder) -> None:
    recorder.stop()
    for call in (recorder.pause, recorder.resume, recorder.request_data, recorder.split):
        with pytest.raises(msrecd.InvalidStateError):
            call()


# --- MediaRecorder-events-and-exceptions.html ------------------------------------------------------------------------


@each_type
@pytest.mark.promise("events-come-later")
async def test_events_and_exceptions(type_: str | None) -> None:
    source = PaintedSource()
    recorder = MediaRecorder(MediaStream(), options_of(type_))
    log = Log(recorder)
    assert recorder.state == "inactive"
    assert_throws_while_inactive(recorder)
    with pytest.raises(msrecd.NotSupportedError):
        recorder.start()
    assert recorder.state == "inactive"
    recorder.stream.add_track(source.track())
    source.paint((200, 30, 30))
    recorder.onstart = lambda _: recorder.pause()
    recorder.onpause = lambda _: recorder.resume()
    recorder.onresume = lambda _: recorder.stop()
    recorder.start()
    assert recorder.state == "recording"
    assert log.events == []
    await log.until("stop")
    assert [(what, state) for what, state, _ in log.states] == [
        ("start", "recording"),
        ("pause", "paused"),
        ("resume", "recording"),
        ("dataavailable", "inactive"),
        ("stop", "inactive"),
    ]
    assert all(event.is_trusted for event in log.events)
    assert log.blobs[0].data.size
    assert_throws_while_inactive(recorder)
    await log.settled()
    assert log.count("stop") == 1


# --- MediaRecorder-pause-resume.html ---------------------------------------------------------------------------------


@each_type
async def test_pause_resume(type_: str | None) -> None:
    with Scene("av") as scene:
        recorder = MediaRecorder(scene.stream, options_of(type_))
        log = Log(recorder)
        recorder.start()
        await log.until("start")
        recorder.pause()
        assert recorder.state == "paused"
        recorder.pause()
        event = await log.until("pause")
        assert event.type == "pause"
        assert event.is_trusted
        recorder.resume()
        assert recorder.state == "recording"
        recorder.resume()
        await log.until("resume")
        recorder.stop()
        await log.until("stop")
        assert log.types == ["start", "pause", "resume", "dataavailable", "stop"]


@each_type
async def test_stop_while_paused_and_start_again(type_: str | None) -> None:
    with Scene("av") as scene:
        recorder = MediaRecorder(scene.stream, options_of(type_))
        log = Log(recorder)
        recorder.start()
        await log.until("start")
        recorder.pause()
        recorder.stop()
        assert recorder.state == "inactive"
        await log.until("stop")
        recorder.start()
        await log.until("start", 2)
        assert log.types == ["start", "pause", "dataavailable", "stop", "start"]
        recorder.stop()
        await log.until("stop", 2)


def test_stop_and_start_in_one_turn_keep_the_order_of_events() -> None:
    async def main() -> None:
        with Scene("v") as scene:
            recorder = MediaRecorder(scene.stream)
            log = Log(recorder)
            recorder.start()
            await log.until("start")
            await delivered(scene.stream, 0.2)
            recorder.stop()
            recorder.start()
            assert recorder.state == "recording"
            await log.until("start", 2)
            await delivered(scene.stream, 0.3)
            recorder.stop()
            await log.until("stop", 2)
            assert log.types == ["start", "dataavailable", "stop"] * 2
            assert log.states[3][1] == "recording"
            first, second = log.blobs
            assert second.timecode == 0
            assert judged(bytes(first.data)).numbers[-1] < judged(bytes(second.data)).numbers[0] + 1

    run(main())


@pytest.mark.parametrize("calls", [["pause", "resume"], ["pause", "resume", "pause", "resume", "pause"]])
@pytest.mark.promise("events-come-later")
def test_calls_before_the_start_event_keep_their_order(calls: list[str]) -> None:
    async def main() -> None:
        with Scene("v") as scene:
            recorder = MediaRecorder(scene.stream)
            log = Log(recorder)
            recorder.start()
            for call in calls:
                getattr(recorder, call)()
            recorder.stop()
            await log.until("stop")
            assert log.types == ["start", *calls, "dataavailable", "stop"]

    run(main())


def test_paused_time_is_absent_also_when_pauses_follow_quickly() -> None:
    """Several pauses within the delay of the encoders; each takes out what was captured in it, and nothing else."""

    async def main() -> None:
        with Scene("av") as scene:
            recorder = MediaRecorder(scene.stream)
            log = Log(recorder)
            recorder.start()
            await log.until("start")
            await delivered(scene.stream, 0.5)
            pauses = []
            for _ in range(3):
                begin = time.monotonic()
                recorder.pause()
                await delivered(scene.stream, 0.1)
                pauses.append(time.monotonic() - begin)
                recorder.resume()
                await delivered(scene.stream, 0.1)
            await delivered(scene.stream, 0.4)
            recorder.stop()
            await log.until("stop")
            found = judged(log.data())
            jumps = [after - before for before, after in pairwise(found.numbers)]
            holes = [jump - 1 for jump in jumps if jump > 1]
            assert len(holes) == 3
            for hole, pause_s in zip(holes, pauses, strict=True):
                assert hole >= 3
                assert hole == pytest.approx(pause_s * 30, abs=1.5)
            steps = [after - before for before, after in pairwise(found.times)]
            assert max(steps) < 0.06
            assert found.audio_gaps == []

    run(main())


# --- MediaRecorder-stop.html -----------------------------------------------------------------------------------------


@each_type
async def test_stop_when_all_tracks_are_ended(type_: str | None) -> None:
    with Scene("av") as scene:
        recorder = MediaRecorder(scene.stream, options_of(type_))
        log = Log(recorder)
        recorder.start()
        for track in scene.stream.get_tracks():
            track.stop()
        assert recorder.state == "recording"
        event = await log.until("stop")
        assert event.is_trusted
        assert recorder.state == "inactive"
        assert log.types == ["start", "dataavailable", "stop"]
        recorder.stop()
        await log.settled()
        assert log.count("stop") == 1


@each_type
async def test_stop(type_: str | None) -> None:
    with Scene("av") as scene:
        recorder = MediaRecorder(scene.stream, options_of(type_))
        log = Log(recorder)
        recorder.start()
        recorder.stop()
        assert recorder.state == "inactive"
        await log.until("stop")
        assert log.types == ["start", "dataavailable", "stop"]
        (blob,) = log.blobs
        assert blob.data.type.startswith(recorder.mime_type.partition(";")[0])
        recorder.stop()
        await log.settled()
        assert log.count("stop") == 1


def test_stop_of_a_new_recorder() -> None:
    async def main() -> None:
        recorder = MediaRecorder(MediaStream())
        log = Log(recorder)
        recorder.stop()
        await log.settled()
        assert log.events == []

    run(main())


def test_stop_start_event_even_if_a_track_is_removed_synchronously() -> None:
    async def main() -> None:
        with Scene("av") as scene:
            recorder = MediaRecorder(scene.stream)
            log = Log(recorder)
            recorder.start()
            (audio,) = scene.stream.get_audio_tracks()
            scene.stream.remove_track(audio)
            await log.until("stop")
            audio.stop()
            assert log.types == ["start", "error", "dataavailable", "stop"]

    run(main())


@each_type
async def test_stop_only_start_and_stop_in_a_basic_flow(type_: str | None) -> None:
    """stop() from inside the dataavailable handler, as canvas-media-source does it; the pictures are really there."""

    with Scene("av") as scene:
        recorder = MediaRecorder(scene.stream, options_of(type_))
        log = Log(recorder)

        def enough(_: Any) -> None:
            if len(log.data()) > 6000:
                recorder.stop()

        recorder.ondataavailable = enough
        recorder.start(0)
        await log.until("stop")
        assert log.types == ["start", *["dataavailable"] * len(log.blobs), "stop"]
        found = judged(log.data())
        assert found.numbers == list(range(found.numbers[0], found.numbers[0] + len(found.numbers)))
        assert len(found.numbers) > 2


# --- MediaRecorder-error.html ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["add", "remove"])
def test_error_when_the_tracks_change(change: str) -> None:
    async def main() -> None:
        source = PaintedSource()
        video = source.track()
        with Scene("a") as scene:
            recorder = MediaRecorder(MediaStream([video]))
            log = Log(recorder)
            recorder.start()
            (audio,) = scene.stream.get_audio_tracks()
            if change == "add":
                recorder.stream.add_track(audio)
            else:
                recorder.stream.remove_track(video)
            event = await log.until("error", deadline_s=2)
            assert isinstance(event, ErrorEvent)
            assert event.is_trusted
            assert event.error.name == "InvalidModificationError"
            assert isinstance(event.error, msrecd.InvalidModificationError)
            await log.until("stop")
            assert [(what, state) for what, state, _ in log.states][-3:] == [
                (what, "inactive") for what in ("error", "dataavailable", "stop")
            ]
            video.stop()

    run(main())


@pytest.mark.parametrize("is_paused", [False, True])
def test_error_start_while_active(is_paused: bool) -> None:
    async def main() -> None:
        with Scene("v") as scene:
            recorder = MediaRecorder(scene.stream)
            log = Log(recorder)
            recorder.start()
            if is_paused:
                recorder.pause()
            with pytest.raises(msrecd.InvalidStateError):
                recorder.start()
            recorder.stop()
            await log.until("stop")
            assert log.count("start") == 1

    run(main())


def test_error_the_data_so_far_is_kept_and_stop_in_between_adds_nothing() -> None:
    """C12: one terminal sequence, also when stop() is called between the cause and the event."""

    async def main() -> None:
        with Scene("av") as scene:
            recorder = MediaRecorder(scene.stream)
            log = Log(recorder)
            recorder.start()
            await log.until("start")
            await delivered(scene.stream, 0.5)
            (audio,) = scene.stream.get_audio_tracks()
            scene.stream.remove_track(audio)
            recorder.stop()
            await log.until("stop")
            audio.stop()
            await log.settled()
            assert log.types == ["start", "error", "dataavailable", "stop"]
            assert len(judged(log.data()).numbers) >= 10

    run(main())


def test_error_of_the_device_keeps_the_data_of_the_others() -> None:
    """One of two tracks ends: nothing happens. The last one: the recording ends."""

    async def main() -> None:
        with Scene("av") as scene:
            recorder = MediaRecorder(scene.stream)
            log = Log(recorder)
            recorder.start()
            await log.until("start")
            await delivered(scene.stream, 0.3)
            scene.microphone.unplug()
            (audio,) = scene.stream.get_audio_tracks()
            await log.until_true(lambda: audio.ready_state == "ended")
            await delivered(scene.stream, 0.5)
            assert recorder.state == "recording"
            scene.camera.unplug()
            await log.until("stop")
            assert log.types == ["start", "dataavailable", "stop"]
            assert len(judged(log.data()).numbers) >= 20

    run(main())


@pytest.mark.parametrize("kinds", ["v", "a"])
def test_error_encoder_failure_is_unknown_error_with_the_data_so_far(kinds: str, monkeypatch: Any) -> None:
    from msrecd import libav

    encoders = {"v": libav.VideoEncoder, "a": libav.AudioEncoder}
    encoded = dict.fromkeys(encoders, 0)
    broken: list[str] = []

    def breaking(kind: str, encode: Any) -> Any:
        def breaks(self: Any, *arguments: Any, **keywords: Any) -> Any:
            if kind in broken:
                raise libav.LibavError("the encoder has crashed")
            packets = encode(self, *arguments, **keywords)
            encoded[kind] += len(packets)
            return packets

        return breaks

    for kind, encoder in encoders.items():
        monkeypatch.setattr(encoder, "encode", breaking(kind, encoder.encode))

    async def main() -> None:
        with Scene("av") as scene:
            recorder = MediaRecorder(scene.stream)
            log = Log(recorder)
            recorder.start()
            await log.until("start")
            await log.until_true(lambda: encoded["v"] >= 20 and encoded["a"] >= 40)
            broken.append(kinds)
            await log.until("stop")
            assert log.types == ["start", "error", "dataavailable", "stop"]
            assert isinstance(log.error(), msrecd.UnknownError)
            assert "the encoder has crashed" in log.error().message
            assert {state for _, state, _ in log.states[1:]} == {"inactive"}
            assert len(judged(log.data()).numbers) >= 10

    run(main())


def test_error_encoder_that_does_not_open_is_not_supported(monkeypatch: Any) -> None:
    """3.3, parallel part, step 2: neither `start` nor `dataavailable`."""
    from msrecd import libav

    def refuse(*_: Any, **__: Any) -> None:
        raise libav.LibavError("no such encoder here")

    monkeypatch.setattr(libav, "VideoEncoder", refuse)

    async def main() -> None:
        with Scene("av") as scene:
            recorder = MediaRecorder(scene.stream)
            log = Log(recorder)
            recorder.start()
            await log.until("stop")
            assert log.types == ["error", "stop"]
            assert isinstance(log.error(), msrecd.NotSupportedError)
            assert recorder.state == "inactive"

    run(main())


def test_a_listener_that_raises_disturbs_nobody() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        reported: list[str] = []
        loop.set_exception_handler(lambda _, context: reported.append(str(context["exception"])))
        with Scene("v") as scene:
            recorder = MediaRecorder(scene.stream)

            def breaks(event: Any) -> None:
                raise ValueError(event.type)

            for type_ in ("start", "dataavailable", "stop"):
                recorder.add_event_listener(type_, breaks)
            log = Log(recorder)
            recorder.start()
            await log.until("start")
            recorder.stop()
            await log.until("stop")
            assert log.types == ["start", "dataavailable", "stop"]
            assert reported == log.types

    asyncio.run(asyncio.wait_for(main(), 30))


def test_reentrant_start_in_the_stop_handler() -> None:
    async def main() -> None:
        with Scene("v") as scene:
            recorder = MediaRecorder(scene.stream)
            log = Log(recorder)
            recorder.onstop = lambda _: recorder.start() if log.count("start") < 3 else None
            recorder.onstart = lambda _: recorder.stop()
            recorder.start()
            await log.until("stop", 3)
            assert log.types == ["start", "dataavailable", "stop"] * 3

    run(main())


# --- MediaRecorder-requestData.html ----------------------------------------------------------------------------------


@KINDS
def test_request_data_immediately_after_start_is_empty(kinds: str) -> None:
    async def main() -> None:
        with Scene(kinds) as scene:
            for track in scene.stream.get_tracks():
                track.enabled = False
            recorder = MediaRecorder(scene.stream)
            log = Log(recorder)
            recorder.start()
            recorder.request_data()
            event = await log.until("dataavailable")
            assert log.types == ["start", "dataavailable"]
            assert event.data.size == 0
            assert event.data.type == recorder.mime_type
            assert event.timecode == 0
            recorder.stop()
            await log.until("stop")

    run(main())


@KINDS
@pytest.mark.parametrize("type_", ["", "video/webm"])
def test_request_data_after_onstart_is_not_empty(kinds: str, type_: str) -> None:
    async def main() -> None:
        with Scene(kinds) as scene:
            recorder = MediaRecorder(scene.stream, {"mime_type": type_})
            log = Log(recorder)
            recorder.onstart = lambda _: recorder.request_data()
            recorder.start()
            event = await log.until("dataavailable")
            assert event.data.size > 0
            assert event.data.type == recorder.mime_type
            recorder.stop()
            await log.until("stop")

    run(main())


@KINDS
@each_type
async def test_request_data_while_paused_gives_what_was_recorded(kinds: str, type_: str | None) -> None:
    with Scene(kinds, signal="tone") as scene:
        recorder = MediaRecorder(scene.stream, options_of(type_))
        log = Log(recorder)
        recorder.start()
        await log.until("start")
        await delivered(scene.stream, 1.0)
        recorder.pause()
        requests = 0
        async with asyncio.timeout(DEADLINE_S):
            while len(log.data()) <= 1400:  # an encoder may be behind
                recorder.request_data()  # allowed while paused: real data, not a header alone
                requests += 1
                await log.until("dataavailable", requests)
        assert recorder.state == "paused"
        recorder.stop()
        await log.until("stop")
        assert log.types == ["start", "pause", *["dataavailable"] * requests, "dataavailable", "stop"]


# --- MediaRecorder-disabled-tracks.https.html ------------------------------------------------------------------------


@KINDS
@each_type
@pytest.mark.promise("disabled-is-black")
async def test_disabled_tracks_are_black_and_silent(kinds: str, type_: str | None) -> None:
    with Scene(kinds, signal="tone") as scene:
        for track in scene.stream.get_tracks():
            track.enabled = False
        recorder = MediaRecorder(scene.stream, options_of(type_))
        log = Log(recorder)
        recorder.start(200)
        recorder.request_data()
        await log.until("dataavailable")
        assert recorder.state == "recording"
        assert log.types[:2] == ["start", "dataavailable"]
        await log.until_true(lambda: sum(blob.data.size > 0 for blob in log.blobs) >= 3)
        recorder.stop()
        await log.until("stop")
        found = judged(log.data())
        if "v" in kinds:
            shown = pictures(log.data())
            assert len(shown) >= 3
            assert max(picture.max() for picture in shown) < 30
        if "a" in kinds:
            assert len(found.samples) / found.sample_rate > 0.2
            assert abs(found.samples).max() < 0.01


# --- MediaRecorder-blob-timecode, -peerconnection-no-sink ------------------------------------------------------------


@KINDS
@each_type
async def test_blob_timecode(kinds: str, type_: str | None) -> None:
    with Scene(kinds) as scene:
        recorder = MediaRecorder(scene.stream, options_of(type_))
        log = Log(recorder)
        recorder.start(0)
        await log.until_true(lambda: len(log.data()) >= 2000 and len(log.blobs) >= 3)
        recorder.stop()
        await log.until("stop")
        timecodes = [blob.timecode for blob in log.blobs]
        assert timecodes[0] == 0
        assert timecodes == sorted(timecodes)
        assert 0 < timecodes[-1] < 10_000


def test_peerconnection_ondata_on_stopping_the_tracks_of_a_clone() -> None:
    async def main() -> None:
        with Scene("av") as scene:
            clone = scene.stream.clone()
            recorder = MediaRecorder(clone)
            log = Log(recorder)
            recorder.start()
            await log.until("start")
            await delivered(clone, 0.3)
            for track in clone.get_tracks():
                track.stop()
            await log.until("stop")
            assert log.types == ["start", "dataavailable", "stop"]
            assert scene.stream.active
            assert len(judged(log.data()).numbers) > 5

    run(main())


# --- MediaRecorder-destroy-script-execution.html ---------------------------------------------------------------------


def test_destroy_everything_closed() -> None:
    async def main() -> None:
        with Scene("av") as scene:
            recorder = MediaRecorder(scene.stream)
        with pytest.raises(msrecd.NotSupportedError):
            recorder.start()
        assert recorder.audio_bitrate_mode == "variable"
        assert recorder.state == "inactive"

    run(main())


def test_destroy_the_loop_inside_of_the_dataavailable_handler() -> None:
    """The owner goes away in the handler: no callback into it any more, no thread left."""
    import threading

    seen: list[str] = []

    async def main() -> None:
        with Scene("v") as scene:
            recorder = MediaRecorder(scene.stream)
            gone = asyncio.Event()

            def tear_down(_: Any) -> None:
                recorder.onstop = None
                gone.set()

            recorder.onstop = lambda _: seen.append("stop")
            recorder.ondataavailable = tear_down
            recorder.start()
            recorder.stop()
            await gone.wait()

    asyncio.run(asyncio.wait_for(main(), 30))
    assert seen == []
    for thread in threading.enumerate():
        if thread.name.startswith(("record-", "encode-")):
            thread.join(5)
            assert not thread.is_alive(), thread.name


# --- MediaRecorder-video-key-frame-distance.html ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "type_", ["video/mp4", "video/webm;codecs=vp8", "video/webm;codecs=vp9", "video/mp4;codecs=av01"]
)
@pytest.mark.parametrize(
    ("option", "value", "distance"),
    [("video_key_frame_interval_count", 5, 5), ("video_key_frame_interval_duration", 200, 6)],
)
def test_video_key_frame_distance(type_: str, option: str, value: int, distance: int) -> None:
    async def main() -> None:
        with Scene("v") as scene:
            log = await record(scene.stream, {"mime_type": type_, option: value}, 1.0)
            keys = key_frame_indexes(log.data())
            steps = [after - before for before, after in pairwise(keys)]
            assert keys[0] == 0
            assert len(steps) >= 3
            assert max(steps) <= distance + 1

    run(main())


# --- section 5 of the catalogue: WebKit ------------------------------------------------------------------------------


def test_single_frame_timeslice() -> None:
    """One picture only: it is delivered before stop(), and the whole is playable at its size."""

    async def main() -> None:
        source = PaintedSource((320, 240))
        track = source.track()
        recorder = MediaRecorder(MediaStream([track]))
        log = Log(recorder)
        recorder.start(100)
        await log.until("start")
        source.paint((10, 200, 10))
        recorder.request_data()
        await log.until_true(lambda: len(log.data()) > 1500)
        before = len(log.data())
        recorder.stop()
        await log.until("stop")
        track.stop()
        shown = pictures(log.data())
        assert before > 1500
        assert shown[0].shape == (240, 320, 3)
        assert abs(shown[0][120, 160].astype(int) - (10, 200, 10)).max() < 25

    run(main())


@pytest.mark.parametrize("kinds", ["v", "av"])
def test_start_timeslice(kinds: str) -> None:
    async def main() -> None:
        with Scene(kinds) as scene:
            recorder = MediaRecorder(scene.stream)
            assert recorder.stream is scene.stream
            log = Log(recorder)
            recorder.start(100)
            await log.until("dataavailable", 6)
            recorder.stop()
            await log.until("stop")
            timecodes = [blob.timecode for blob in log.blobs if blob.data.size]
            steps = [after - before for before, after in pairwise(timecodes)][:-1]
            if kinds == "v":
                assert min(steps) >= 95
            else:  # a blob may begin with sound that is a little older than the last picture of the one before
                assert sum(steps) / len(steps) >= 60

    run(main())


def test_start_negative_timeslice_means_none() -> None:
    async def main() -> None:
        with Scene("v") as scene:
            recorder = MediaRecorder(scene.stream)
            log = Log(recorder)
            recorder.start(-1)
            await log.until("start")
            await delivered(scene.stream, 0.5)
            recorder.stop()
            await log.until("stop")
            assert log.types == ["start", "dataavailable", "stop"]

    run(main())


def test_pause_recording_timeslice() -> None:
    async def main() -> None:
        with Scene("av") as scene:
            recorder = MediaRecorder(scene.stream)
            log = Log(recorder)
            recorder.start(100)
            await log.until("dataavailable", 2)
            recorder.pause()
            before_ns = time.monotonic_ns()
            await delivered(scene.stream, 1.0)
            after_ns = time.monotonic_ns()
            recorder.resume()
            await log.until_media(0.3)
            recorder.stop()
            await log.until("stop")
            first = log.blobs[0]
            captured = [first.chunk_started_ns + blob.timecode * 1e6 for blob in log.blobs if blob.data.size]
            assert [time_ns for time_ns in captured if before_ns < time_ns < after_ns - 100e6] == []
            (info,) = log.infos  # of the pause there is neither media nor an empty blob
            assert len(log.blobs) <= info.duration_s * 10 + 2

    run(main())


@each_type
async def test_pause_recording_shortens_the_file(type_: str | None) -> None:
    with Scene("av") as scene:
        recorder = MediaRecorder(scene.stream, options_of(type_))
        log = Log(recorder)
        moments = [time.monotonic()]
        recorder.start()
        await log.until("start")
        await delivered(scene.stream, 0.4)
        recorder.pause()
        moments.append(time.monotonic())
        await delivered(scene.stream, 1.0)
        moments.append(time.monotonic())
        recorder.resume()
        await delivered(scene.stream, 0.4)
        moments.append(time.monotonic())
        recorder.stop()
        await log.until("stop")
        times = picture_times(log.data())
        recorded = moments[1] - moments[0] + moments[3] - moments[2]  # the pause, of a second at least, is not in it
        assert 0.5 < times[-1] < recorded + 0.1
        assert max(after - before for before, after in pairwise(times)) < 0.1
        assert judged(log.data()).audio_gaps == []


def test_multiple_start_stop() -> None:
    async def main() -> None:
        with Scene("av") as scene:
            recorder = MediaRecorder(scene.stream)
            log = Log(recorder)
            for turn in range(1, 4):
                recorder.start()
                await log.until("start", turn)
                await delivered(scene.stream, 0.3)
                recorder.stop()
                await log.until("stop", turn)
            for blob in log.blobs:
                assert blob.timecode == 0
                assert len(judged(bytes(blob.data)).numbers) >= 5

    run(main())


def test_the_end_of_a_recording_can_be_awaited() -> None:
    """Done before the first start; pending while one is under way; done once `stop` has been delivered; as often as
    wanted."""

    async def run() -> None:
        canvas = msrecd.Canvas(64, 64)
        canvas.fill((1, 2, 3))
        recorder = msrecd.MediaRecorder(canvas.capture_stream())
        await recorder.stopped
        heard: list[str] = []
        recorder.ondataavailable = lambda event: heard.append(event.type)
        recorder.onstop = lambda event: heard.append(event.type)
        for _ in range(2):
            recorder.start()
            waiting = asyncio.ensure_future(_awaited(recorder))
            await asyncio.sleep(0)
            assert not waiting.done()
            recorder.stop()
            assert not waiting.done()
            async with asyncio.timeout(60):
                await waiting
                await recorder.stopped
            assert heard == ["dataavailable", "stop"]
            heard.clear()

    asyncio.run(run())


async def _awaited(recorder: msrecd.MediaRecorder) -> None:
    await recorder.stopped
