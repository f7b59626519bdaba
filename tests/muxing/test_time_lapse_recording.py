"""Time-lapse by the library: two times for each frame, what it refuses, and who else looks at the camera."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from recording import Log, Scene, pictures, run

from msrecd import MediaRecorder, NotSupportedError
from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.codecs import hub
from msrecd.codecs.table import can_encode

MINUTE = {"interval": 60_000, "frame_rate": 25}
SECOND = {"interval": 1000, "frame_rate": 25}
TYPES = {
    "h264": "video/mp4;codecs=avc1",
    "vp8": "video/webm;codecs=vp8",
    "vp9": "video/webm;codecs=vp9",
    "av1": "video/webm;codecs=av01",
}


def options(time_lapse: dict[str, Any], **more: Any) -> Any:
    return {"time_lapse": time_lapse, "eager": True, **more}


@pytest.mark.parametrize("codec", TYPES)
def test_the_first_frame_is_there_without_the_second(codec: str) -> None:
    """It lasts until the recording is stopped, not for the interval that has not passed."""
    if not can_encode(codec):
        pytest.skip(f"no encoder of {codec}")

    async def scenario() -> None:
        with Scene("v") as scene:
            recorder = MediaRecorder(scene.stream, options(MINUTE, mime_type=TYPES[codec]))
            log = Log(recorder)
            recorder.start(250)
            await log.until("dataavailable")
            recorder.stop()
            stopped_ns = SYSTEM_CLOCK.monotonic_ns()
            await log.until("stop")
        (info,) = log.infos
        assert len(pictures(log.data())) == 1
        assert info.duration_s == pytest.approx(1 / 25, abs=1e-5)
        assert info.ended_ns <= stopped_ns
        assert info.captured_s == pytest.approx((info.ended_ns - info.started_ns) / NS, abs=1e-5)
        assert info.gaps == ()

    run(scenario())


def test_what_a_camera_did_not_give_is_a_gap_in_time_of_capture() -> None:
    async def scenario() -> None:
        with Scene("v") as scene:
            recorder = MediaRecorder(scene.stream, options(SECOND))
            log = Log(recorder)
            recorder.start(250)
            await log.until("dataavailable")
            scene.camera.mute()
            muted_ns = SYSTEM_CLOCK.monotonic_ns()
            await log.until_true(lambda: SYSTEM_CLOCK.monotonic_ns() - muted_ns >= 2 * NS)
            scene.camera.unmute()
            unmuted_ns = SYSTEM_CLOCK.monotonic_ns()
            await log.until("gap")
            recorder.stop()
            await log.until("stop")
        (info,) = log.infos
        missing_s = sum(gap.duration_s for gap in info.gaps)
        assert missing_s >= (unmuted_ns - muted_ns) / NS - 0.1
        assert info.captured_s >= missing_s
        assert info.duration_s == pytest.approx(info.tracks[0].units / 25, abs=1e-5)
        assert len(pictures(log.data())) == info.tracks[0].units

    run(scenario())


def test_a_viewer_of_the_camera_does_not_get_the_time_lapse() -> None:
    async def scenario() -> None:
        with Scene("v") as scene:
            recorder = MediaRecorder(scene.stream, options(MINUTE))
            log = Log(recorder)
            recorder.start(250)
            await log.until("start")
            source = scene.stream.get_tracks()[0]._source
            (lapse,) = hub._running[source]
            assert lapse.time_lapse is not None
            lease = hub.share(source, replace(lapse, time_lapse=None))
            assert lease.request.time_lapse is None
            lease.close()
            recorder.stop()
            await log.until("stop")

    run(scenario())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"time_lapse": {"interval": 999}}, "interval must be 1000 ms"),
        ({"time_lapse": {"interval": 1000, "frame_rate": 0.5}}, "frame_rate must be 1 to 120"),
        ({"time_lapse": SECOND, "pre_roll": 1000}, "pre_roll and time_lapse exclude"),
    ],
)
def test_options_that_cannot_be(given: Any, message: str) -> None:
    async def scenario() -> None:
        with Scene("v") as scene, pytest.raises(NotSupportedError, match=message):
            MediaRecorder(scene.stream, given)

    run(scenario())


def test_it_has_no_sound() -> None:
    async def scenario() -> None:
        with Scene("av") as scene:
            recorder = MediaRecorder(scene.stream, options(SECOND))
            with pytest.raises(NotSupportedError, match="time_lapse: it has no sound"):
                recorder.start(250)

    run(scenario())
