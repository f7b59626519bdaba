"""mediacapture-streams and -fromelement of web-platform-tests: streams, tracks, canvas; file and subtest are named."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import numpy as np
import pytest
from rig import Log, Rig, on_loop, on_rig, turns, until

import msrecd
from msrecd.media.reader import FrameData, MediaStreamTrackReader, SoundData

BOTH = {"video": True, "audio": True}


def test_kinds_of_a_stream() -> None:
    """MediaStream-audio-only, -video-only, MediaStreamTrack-init."""

    async def run(rig: Rig) -> None:
        audio = await rig.devices.get_user_media({"audio": True})
        video = await rig.devices.get_user_media({"video": True})
        assert isinstance(audio, msrecd.MediaStream)
        assert (len(audio.get_audio_tracks()), len(audio.get_video_tracks())) == (1, 0)
        assert (len(video.get_audio_tracks()), len(video.get_video_tracks())) == (0, 1)
        track = video.get_tracks()[0]
        assert (track.kind, track.ready_state, track.enabled, track.muted) == ("video", "live", True, False)
        assert track.onended is None

    on_rig(run)


def test_ids() -> None:
    """MediaStream-id, MediaStreamTrack-id, MediaStream-gettrackid."""

    async def run(rig: Rig) -> None:
        stream = await rig.devices.get_user_media(BOTH)
        one, two = stream.get_tracks()
        assert len({stream.id, one.id, two.id}) == 3
        assert all(re.fullmatch(r"[0-9a-f-]{36}", id) for id in (stream.id, one.id, two.id))
        assert stream.get_track_by_id(one.id) is one
        assert stream.get_track_by_id("unknown") is None

    on_rig(run)


def test_constructors_and_stop() -> None:
    """MediaStream-idl: shared tracks, ended tracks, `active` at once, no `ended` event after stop()."""

    async def run(rig: Rig) -> None:
        stream = await rig.devices.get_user_media(BOTH)
        audio, video = stream.get_tracks()
        log = Log().on(audio, "ended").on(video, "ended")
        shared, single, doubled = (
            msrecd.MediaStream(stream),
            msrecd.MediaStream([audio]),
            msrecd.MediaStream([audio] * 2),
        )
        assert shared.id != stream.id
        assert shared.get_tracks() == stream.get_tracks()
        assert shared.get_tracks() is not shared.get_tracks()
        assert doubled.get_tracks() == [audio]
        audio.stop()
        assert audio.ready_state == "ended"
        assert not single.active
        assert shared.active
        video.stop()
        video.stop()
        assert not shared.active
        ended = msrecd.MediaStream([audio, video])
        assert not ended.active
        assert len(ended.get_tracks()) == 2
        assert not msrecd.MediaStream().active
        await turns()
        assert log.types == []
        for wrong in (5, "track", [5], audio):
            with pytest.raises(TypeError):
                msrecd.MediaStream(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            msrecd.MediaStreamTrack()

    on_rig(run)


def test_add_and_remove_without_events() -> None:
    """MediaStream-add-audio-track, -removetrack, -finished-add (decision C5)."""

    async def run(rig: Rig) -> None:
        stream = await rig.devices.get_user_media({"video": True})
        audio = (await rig.devices.get_user_media({"audio": True})).get_tracks()[0]
        (video,) = stream.get_tracks()
        log = Log().on(stream, "addtrack", "removetrack")
        stream.add_track(audio)
        stream.add_track(audio)
        assert len(stream.get_tracks()) == 2
        stream.remove_track(audio)
        stream.remove_track(audio)
        assert audio.ready_state == "live"
        video.stop()
        assert not stream.active
        stream.add_track(audio)
        stream.remove_track(video)
        assert stream.active
        await turns()
        assert log.types == []
        with pytest.raises(TypeError):
            stream.add_track("audio")  # type: ignore[arg-type]

    on_rig(run)


def test_cloned_streams() -> None:
    """MediaStream-clone: ids, states, independence; the device stays open until the last clone has ended."""

    async def run(rig: Rig) -> None:
        stream = await rig.devices.get_user_media(BOTH)
        clone = stream.clone()
        pairs = list(zip(stream.get_tracks(), clone.get_tracks(), strict=True))
        assert [(one.kind, one.label) for one, _ in pairs] == [(two.kind, two.label) for _, two in pairs]
        assert len({track.id for pair in pairs for track in pair}) == 4
        for one, _ in pairs:
            one.stop()
        assert not stream.active
        assert clone.active
        assert rig.camera.is_open
        clone.get_audio_tracks()[0].stop()
        partly = clone.clone()
        assert [track.ready_state for track in partly.get_tracks()] == ["ended", "live"]
        for track in clone.get_tracks():
            track.stop()
        assert rig.camera.is_open
        assert not clone.clone().active
        stream.add_track(partly.get_video_tracks()[0].clone())
        assert stream.active
        for track in [*stream.get_tracks(), *partly.get_tracks()]:
            track.stop()
        assert not stream.active
        await until(lambda: not rig.camera.is_open and not rig.microphone.is_open)

    on_rig(run)


def test_clone_copies_enabled() -> None:
    """Decision C14; each has its own switch afterwards."""

    async def run(rig: Rig) -> None:
        (track,) = (await rig.devices.get_user_media({"video": {"width": 320}})).get_tracks()
        track.enabled = False
        clone = track.clone()
        assert not clone.enabled
        clone.enabled = True
        assert not track.enabled
        assert (track._gate.is_open, clone._gate.is_open) == (False, True)
        assert clone.get_settings() == track.get_settings()
        assert clone.get_constraints() == {"width": 320}

    on_rig(run)


def test_source_that_ends() -> None:
    """MediaStreamTrack-end-manual: `ended` on every track, after the state; the stream lives on with the other kind."""

    async def run(rig: Rig) -> None:
        stream = await rig.devices.get_user_media(BOTH)
        video, audio = stream.get_video_tracks()[0], stream.get_audio_tracks()[0]
        clone = video.clone()
        stopped = video.clone()
        stopped.stop()
        seen: list[str] = []
        video._observe(lambda track: seen.append(f"observed {track.ready_state}"))
        video.onended = lambda event: seen.append(f"{event.type} {event.target.ready_state}")
        log = Log().on(clone, "ended").on(stopped, "ended")
        rig.camera.unplug()
        event = await log.wait("ended")
        assert event.is_trusted
        assert event.target is clone
        assert seen == ["observed ended", "ended ended"]
        assert log.types == ["ended"]
        assert stream.active
        rig.microphone.unplug()
        await until(lambda: audio.ready_state == "ended")
        assert not stream.active

    on_rig(run)


def test_failing_source() -> None:
    """A device that breaks ends its tracks; plugged in again it can be opened."""

    async def run(rig: Rig) -> None:
        (track,) = (await rig.devices.get_user_media({"video": True})).get_tracks()
        log = Log().on(track, "ended")
        rig.camera.fail()
        await log.wait("ended")
        rig.camera.plug()
        assert (await rig.devices.get_user_media({"video": True})).get_tracks()[0].label == "Front"

    on_rig(run)


def test_muting() -> None:
    """No web-platform-test: mute and unmute on all tracks of a source, also as found when a track is made."""

    async def run(rig: Rig) -> None:
        (track,) = (await rig.devices.get_user_media({"audio": True})).get_tracks()
        log = Log().on(track, "mute", "unmute")
        rig.microphone.mute()
        assert not track.muted
        await log.wait("mute")
        assert track.muted
        assert not track._gate.is_open
        assert track.clone().muted
        assert (await rig.devices.get_user_media({"audio": True})).get_tracks()[0].muted
        rig.microphone.unmute()
        await log.wait("unmute")
        assert not track.muted
        assert track._gate.is_open

    on_rig(run)


def test_opened_twice() -> None:
    """MediaStreamTrack-getSettings: opened twice, also with different resolutions."""

    async def run(rig: Rig) -> None:
        (one,) = (await rig.devices.get_user_media({"video": True})).get_tracks()
        width = one.get_settings()["width"]
        wanted = {"device_id": {"exact": one.get_settings()["device_id"]}, "width": {"ideal": width // 2}}
        (two,) = (await rig.devices.get_user_media({"video": wanted})).get_tracks()
        assert two.get_settings()["device_id"] == one.get_settings()["device_id"]
        assert width // 2 <= two.get_settings()["width"] <= width

    on_rig(run)


def test_small_first_then_large() -> None:
    """A small picture does not keep the next program from a large one of the same camera."""

    async def run(rig: Rig) -> None:
        await rig.devices.get_user_media({"video": {"width": {"exact": 160}}})
        large = await rig.devices.get_user_media({"video": {"width": {"exact": 640}}})
        assert large.get_tracks()[0].get_settings()["width"] == 640

    on_rig(run)


def test_settings() -> None:
    """MediaStreamTrack-getSettings: names and types; of a stopped track only what tells the device."""

    async def run(rig: Rig) -> None:
        stream = await rig.devices.get_user_media(BOTH)
        audio = stream.get_audio_tracks()[0].get_settings()
        assert audio["sample_rate"] == 48000
        assert all(
            type(audio[name]) is int and audio[name] > 0 for name in ("sample_rate", "sample_size", "channel_count")
        )
        assert audio["latency"] >= 0
        for name in ("echo_cancellation", "auto_gain_control", "noise_suppression"):
            assert audio[name] is False
        track = stream.get_video_tracks()[0]
        video = track.get_settings()
        assert (type(video["width"]), type(video["height"])) == (int, int)
        assert video["aspect_ratio"] == pytest.approx(640 / 360)
        assert video["frame_rate"] == 30
        assert video["resize_mode"] == "none"
        track.stop()
        assert track.get_settings() == {name: video[name] for name in ("device_id", "group_id")}

    on_rig(run)


def test_capabilities() -> None:
    """MediaStreamTrack-getCapabilities."""

    async def run(rig: Rig) -> None:
        stream = await rig.devices.get_user_media(BOTH)
        audio = stream.get_audio_tracks()[0].get_capabilities()
        video = stream.get_video_tracks()[0].get_capabilities()
        ranges = [audio[name] for name in ("sample_rate", "sample_size", "latency", "channel_count")]
        ranges += [video[name] for name in ("width", "height", "aspect_ratio", "frame_rate")]
        for limits in ranges:
            assert set(limits) == {"min", "max"}
            assert limits["min"] <= limits["max"]
        for name in ("echo_cancellation", "auto_gain_control", "noise_suppression"):
            assert audio[name] == [False]
        assert set(video["resize_mode"]) == {"none", "crop-and-scale"}
        assert set(video["facing_mode"]) <= {"user", "environment", "left", "right"}
        assert all(type(kind[name]) is str for kind in (audio, video) for name in ("device_id", "group_id"))
        video["width"]["max"] = 1
        assert stream.get_video_tracks()[0].get_capabilities()["width"]["max"] == 640

    on_rig(run)


@pytest.mark.parametrize(
    ("constraints", "failed"),
    [
        ({"group_id": {"exact": "INVALID"}}, "group_id"),
        ({"group_id": {"exact": "x" * 501}}, "group_id"),
        ({"mandatory": {"width": 5}, "group_id": {"exact": "INVALID"}}, "group_id"),
        ({"resize_mode": {"exact": "INVALID"}}, "resize_mode"),
        *(
            ({name: limits}, name)
            for name in ("width", "height", "frame_rate")
            for limits in ({"max": 0}, {"max": -1}, {"min": 100, "max": 10})
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:a track has no constraint 'mandatory'")
def test_apply_constraints_that_fail(constraints: dict[str, Any], failed: str) -> None:
    """MediaStreamTrack-applyConstraints: OverconstrainedError, and nothing has changed."""

    async def run(rig: Rig) -> None:
        (track,) = (await rig.devices.get_user_media({"video": {"width": 320}})).get_tracks()
        before = track.get_settings()
        with pytest.raises(msrecd.OverconstrainedError) as caught:
            await track.apply_constraints(constraints)
        assert caught.value.constraint == failed
        assert track.get_settings() == before
        assert track.get_constraints() == {"width": 320}

    on_rig(run)


def test_apply_constraints() -> None:
    """MediaStreamTrack-applyConstraints: ideal never fails (C8); order of calls; ended tracks; no other device."""

    async def run(rig: Rig) -> None:
        (track,) = (await rig.devices.get_user_media({"video": True})).get_tracks()
        before = track.get_settings()
        for ideal in (
            {"group_id": "INVALID"},
            {"group_id": {"ideal": "x" * 501}},
            {"resize_mode": {"ideal": "INVALID"}},
        ):
            await track.apply_constraints(ideal)
            assert track.get_settings() == before
            assert track.get_constraints() == ideal
        other = (await rig.devices.enumerate_devices())[2].group_id
        with pytest.raises(msrecd.OverconstrainedError):
            await track.apply_constraints({"group_id": {"exact": other}})
        await asyncio.gather(*(track.apply_constraints({"width": {"exact": width}}) for width in (100, 200, 300)))
        assert track.get_settings()["width"] == 300
        with pytest.raises(TypeError):
            await track.apply_constraints({"width": "wide"})
        await track.apply_constraints()
        assert track.get_constraints() == {}
        assert track.get_settings() == before
        track.stop()
        await track.apply_constraints({"width": {"exact": 5_000_000}})
        assert track.get_constraints() == {}

    on_rig(run)


async def first(track: msrecd.MediaStreamTrack) -> Any:
    async with MediaStreamTrackReader(track) as reader:
        return await anext(reader)


def test_disabled_tracks() -> None:
    """MediaStreamTrack-MediaElement-disabled-*: zeros and black at the track's size; a clone shows the content."""

    async def run(rig: Rig) -> None:
        stream = await rig.devices.get_user_media({"video": {"width": 160}, "audio": True})
        video, audio = stream.get_video_tracks()[0], stream.get_audio_tracks()[0]
        clone = video.clone()
        video.enabled = audio.enabled = False
        picture, sound, content = await asyncio.gather(first(video), first(audio), first(clone))
        assert isinstance(picture, FrameData)
        assert picture.array.shape == (90, 160, 3)
        assert not picture.array.any()
        assert content.array.shape == (90, 160, 3)
        assert content.array.any()
        assert isinstance(sound, SoundData)
        assert not sound.array.any()

    on_rig(run)


@pytest.mark.parametrize("init", [None, {}, {"track": None}, {"track": "video"}])
def test_track_event_needs_a_track(init: Any) -> None:
    """MediaStreamTrackEvent-constructor."""
    with pytest.raises(TypeError):
        msrecd.MediaStreamTrackEvent("type", init)


@pytest.mark.parametrize("init", [None, {}, {"data": None}, {"data": b"bytes"}])
def test_blob_event_needs_data(init: Any) -> None:
    """BlobEvent-constructor."""
    with pytest.raises(TypeError):
        msrecd.BlobEvent("type", init)


def test_events_made_by_hand() -> None:
    """MediaStreamTrackEvent-constructor, BlobEvent-constructor: the members are the objects given, and read only."""

    async def run() -> None:
        (track,) = msrecd.Canvas(16, 16).capture_stream().get_tracks()
        assert msrecd.MediaStreamTrackEvent("addtrack", {"track": track}).track is track
        blob = msrecd.Blob([b"x"])
        event = msrecd.BlobEvent("type", data=blob, timecode=5)
        assert (event.type, event.data, event.timecode, event.chunk, event.chunk_end) == (
            "type",
            blob,
            5.0,
            None,
            False,
        )
        assert not event.is_trusted
        with pytest.raises(AttributeError):
            event.data = blob  # type: ignore[misc]
        done = asyncio.Event()

        async def work() -> None:
            done.set()

        event.wait_until(work())
        await done.wait()
        track.stop()

    on_loop(run)


def test_implementation_changes_fire() -> None:
    """creation, ended of mediacapture-fromelement: what a source adds and removes fires addtrack and removetrack."""

    async def run() -> None:
        stream = msrecd.MediaStream()
        (track,) = msrecd.Canvas(16, 16).capture_stream().get_tracks()
        log = Log().on(stream, "addtrack", "removetrack")
        changes: list[int] = []
        stream._observe(lambda changed: changes.append(len(changed.get_tracks())))
        stream._implementation_add(track)
        stream._implementation_remove(track)
        assert changes == [1, 0]
        assert log.types == []
        assert (await log.wait("removetrack")).track is track
        assert log.types == ["addtrack", "removetrack"]
        assert log.events[0].is_trusted
        track.stop()

    on_loop(run)


def test_canvas_settings() -> None:
    """HTMLCanvasElement-captureStream-settings.tentative: size at once, and after a resize."""

    async def run() -> None:
        canvas = msrecd.Canvas(166, 72)
        (track,) = canvas.capture_stream().get_tracks()
        assert isinstance(track, msrecd.CanvasCaptureMediaStreamTrack)
        assert track.canvas is canvas
        assert (track.get_settings()["width"], track.get_settings()["height"]) == (166, 72)
        canvas.resize(200, 100)
        assert (track.get_settings()["width"], track.get_settings()["height"]) == (200, 100)
        with pytest.raises(AttributeError):
            track.canvas = canvas  # type: ignore[misc]
        assert isinstance(track.clone(), msrecd.CanvasCaptureMediaStreamTrack)

    on_loop(run)


def test_canvas_rates_that_cannot_be() -> None:
    """captureStream(rate): negative is NotSupportedError, no number a TypeError."""
    canvas = msrecd.Canvas(16, 16)
    with pytest.raises(msrecd.NotSupportedError):
        canvas.capture_stream(-1)
    for wrong in ("25", True, float("nan")):
        with pytest.raises(TypeError):
            canvas.capture_stream(wrong)  # type: ignore[arg-type]


class Collected:
    """A sink of a canvas: the red parts of what came, and when."""

    def __init__(self) -> None:
        self.reds: list[int] = []
        self.times_ns: list[int] = []
        self.ends = 0

    def put(self, unit: Any) -> None:
        self.reds.append(unit.data[0])
        self.times_ns.append(unit.pts_ns)

    def end(self, error: BaseException | None) -> None:
        self.ends += 1


def test_canvas_paintings() -> None:
    """3.13: nothing before something is painted; every painting is a frame; the last one greets who comes later."""

    async def run() -> None:
        canvas = msrecd.Canvas(16, 16)
        (track,) = canvas.capture_stream().get_tracks()
        early, late = Collected(), Collected()
        track._source.raw().add(early)
        assert early.reds == []
        for red in (1, 2, 2, 3):
            canvas.fill((red, 0, 0))
        assert early.reds == [1, 2, 2, 3]
        assert early.times_ns == sorted(set(early.times_ns))
        track._source.raw().add(late)
        assert late.reds == [3]
        canvas.draw(np.full((16, 16, 3), 9, np.uint8))
        assert (early.reds[-1], late.reds[-1]) == (9, 9)
        track.stop()
        await until(lambda: early.ends == 1 and late.ends == 1)
        canvas.fill((4, 0, 0))
        assert late.reds == [3, 9]

    on_loop(run)


def test_canvas_on_request() -> None:
    """3.13, rate 0: the first painting, then only what request_frame asks for; asking is no painting."""

    async def run() -> None:
        canvas = msrecd.Canvas(16, 16)
        (track,) = canvas.capture_stream(0).get_tracks()
        assert isinstance(track, msrecd.CanvasCaptureMediaStreamTrack)
        sink = Collected()
        track._source.raw().add(sink)
        for red in (1, 2, 3):
            canvas.fill((red, 0, 0))
        assert sink.reds == [1]
        track.request_frame()
        assert sink.reds == [1, 3]
        track.request_frame()
        assert sink.reds == [1, 3]
        canvas.fill((4, 0, 0))
        canvas.fill((5, 0, 0))
        assert sink.reds == [1, 3, 4]
        track.stop()
        track.request_frame()

    on_loop(run)


def test_a_rate_beyond_reason_is_the_fastest_timer() -> None:
    (track,) = msrecd.Canvas(16, 16).capture_stream(1e9).get_tracks()
    assert track.get_settings()["frame_rate"] == 1000
    track.stop()


def test_canvas_at_a_rate() -> None:
    """3.13: with a rate at most that many frames, the last painting is not lost, and an unchanged canvas gives none."""

    async def run() -> None:
        canvas = msrecd.Canvas(16, 16)
        (track,) = canvas.capture_stream(20).get_tracks()
        sink = Collected()
        track._source.raw().add(sink)
        for red in range(1, 101):
            canvas.fill((red, 0, 0))
            await asyncio.sleep(0.004)
        await until(lambda: sink.reds[-1] == 100)
        duration_s = (sink.times_ns[-1] - sink.times_ns[0]) / 1e9
        assert 3 <= len(sink.reds) <= duration_s * 20 + 2
        assert sink.reds == sorted(set(sink.reds))
        count = len(sink.reds)
        await asyncio.sleep(0.15)
        assert len(sink.reds) == count
        track._source.raw().remove(sink)
        track.stop()

    on_loop(run)
