"""RecorderController with virtual devices and a real store: answers, outages, the last chunk, pre-roll, labels."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from heard import Heard

from msrecd import MediaDevices
from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.daemon.archive import DaemonArchive
from msrecd.devices.virtual import VirtualBackend, VirtualCamera, VirtualMicrophone
from msrecd.errors import CommandError
from msrecd.recorder.controller import RecorderController
from msrecd.recorder.input import beyond
from msrecd.recorder.settings import AudioFilter, RecorderSettings, TriggerSettings
from msrecd.recorder.states import State

CAMERA, MICROPHONE = "Front", "Voice"


class Bench:
    """A recorder, its devices, and what it reports."""

    def __init__(self, archive: DaemonArchive, devices: MediaDevices, settings: RecorderSettings) -> None:
        self.heard = Heard()
        self.devices = devices
        self.recorder = RecorderController(settings, devices=devices, archive=archive, listener=self.heard)

    async def written(self, least: int = 1000) -> None:
        """Wait until so much more has been recorded."""
        files = self.recorder.files
        before = files.bytes + files.open_bytes
        await self.heard.until(lambda: files.bytes + files.open_bytes >= before + least)

    def lines(self) -> list[Mapping[str, Any]]:
        return self.heard.of("chunk")


def run(
    archive: DaemonArchive,
    test: Callable[[Bench, VirtualCamera, VirtualMicrophone], Awaitable[None]],
    *,
    video: Any = True,
    audio: Any = False,
    url: str | None = None,
    more: tuple[Any, ...] = (),
    filters: tuple[AudioFilter, ...] = (),
    **options: Any,
) -> None:
    """Run a test on a loop of its own; everything is closed afterwards."""
    camera, microphone = VirtualCamera(CAMERA, modes=[(160, 96, 30)]), VirtualMicrophone(MICROPHONE)

    @asynccontextmanager
    async def bench() -> AsyncIterator[Bench]:
        settings = RecorderSettings(
            name="cam0",
            constraints=None if url else {"video": video, "audio": audio},
            url=url,
            options={"mime_type": "" if url else "video/mp4", **options},
            timeslice_ms=200,
            audio_filters=filters,
        )
        async with MediaDevices(backends=[VirtualBackend([camera, microphone, *more])]) as devices:
            made = Bench(archive, devices, settings)
            yield made
            await made.recorder.close()
        assert made.recorder.state is State.CLOSED
        assert not camera.is_open
        assert not microphone.is_open

    async def main() -> None:
        async with asyncio.timeout(120), bench() as made:
            await test(made, camera, microphone)

    asyncio.run(main())


# --- every command has an answer -------------------------------------------------------------------------------------


def test_an_unforeseen_error_is_the_answer_and_leaves_nothing(archive: DaemonArchive) -> None:
    async def test(bench: Bench, camera: VirtualCamera, _: VirtualMicrophone) -> None:
        recorder = bench.recorder
        archive.begin = _raises(ValueError("not foreseen"))  # type: ignore[method-assign]
        with pytest.raises(CommandError, match="internal error: ValueError: not foreseen") as refused:
            await recorder.start("test")
        assert refused.value.code == "internal"
        assert recorder.state is State.IDLE
        await bench.heard.until(lambda: not camera.is_open)
        assert (recorder.status.state, recorder.status.cause, recorder.wanted_since_ns) == ("inactive", None, None)

    run(archive, test)


@pytest.mark.promise("internal-is-tried-again")
def test_an_unforeseen_error_is_the_state_where_it_is_retried_and_the_recording_comes(archive: DaemonArchive) -> None:
    async def test(bench: Bench, camera: VirtualCamera, _: VirtualMicrophone) -> None:
        recorder, begin = bench.recorder, archive.begin
        archive.begin = _raises(ValueError("not foreseen"))  # type: ignore[method-assign]
        assert await recorder.start("schedule", persistent=True)
        assert recorder.state is State.WAITING
        assert recorder.status.problem is not None
        assert (recorder.status.state, recorder.status.problem.code) == ("error", "internal")
        archive.begin = begin  # type: ignore[method-assign]
        recorder.devices_changed()
        await bench.heard.until(lambda: recorder.is_recording)
        assert recorder.status.cause == "schedule"
        assert [error["code"] for error in bench.heard.of("error")] == ["internal"]

    run(archive, test)


def test_a_start_that_is_cancelled_is_undone(archive: DaemonArchive) -> None:
    async def test(bench: Bench, camera: VirtualCamera, _: VirtualMicrophone) -> None:
        opening = asyncio.Event()

        async def takes_for_ever(_: object) -> Any:
            opening.set()
            await asyncio.Event().wait()

        opened = bench.devices.get_user_media
        bench.devices.get_user_media = takes_for_ever  # type: ignore[method-assign, assignment]
        start = asyncio.create_task(bench.recorder.start("test"))
        await opening.wait()
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert bench.recorder.state is State.IDLE
        bench.devices.get_user_media = opened  # type: ignore[method-assign]
        assert await bench.recorder.start("test")

    run(archive, test)


def test_a_start_while_the_device_is_away_tries_at_once_and_says_why_not(archive: DaemonArchive) -> None:
    async def test(bench: Bench, camera: VirtualCamera, _: VirtualMicrophone) -> None:
        recorder = bench.recorder
        camera.unplug()
        assert await recorder.start("schedule", persistent=True)
        with pytest.raises(CommandError) as refused:
            await recorder.start("mqtt:1")
        assert refused.value.code == "device_missing"
        assert (recorder.is_wanted, recorder.status.cause) == (True, "schedule")
        camera.plug()
        assert await recorder.start("mqtt:2") or recorder.is_recording
        await bench.written()

    run(archive, test)


def test_a_stop_does_not_wait_for_a_device_that_takes_long_to_open(archive: DaemonArchive) -> None:
    async def test(bench: Bench, camera: VirtualCamera, _: VirtualMicrophone) -> None:
        opening = asyncio.Event()

        async def takes_for_ever(_: object) -> Any:
            opening.set()
            await asyncio.Event().wait()

        await bench.recorder.start("test")
        await bench.written()
        bench.devices.get_user_media = takes_for_ever  # type: ignore[method-assign, assignment]
        camera.unplug()
        await opening.wait()
        async with asyncio.timeout(15):
            assert await bench.recorder.stop("test")
        assert bench.recorder.state is State.IDLE

    run(archive, test)


# --- outages, and the last chunk -------------------------------------------------------------------------------------


def test_an_outage_is_told_once_everywhere_and_only_the_last_chunk_is_final(archive: DaemonArchive) -> None:
    async def test(bench: Bench, camera: VirtualCamera, _: VirtualMicrophone) -> None:
        recorder, heard = bench.recorder, bench.heard
        await recorder.start("test")
        await bench.written()
        camera.unplug()
        await heard.until(lambda: recorder.status.state == "error")
        assert recorder.tracks == []
        (error,) = heard.of("error")
        assert error == {"code": "device_missing", "message": "video device Front went away"}
        camera.plug()
        await heard.until(lambda: heard.of("gap"))
        assert recorder.status.state == "recording"
        await bench.written()
        await recorder.stop("test")
        (gap,) = heard.of("gap")
        first, second = bench.lines()
        assert (first["final"], first["gaps"], second["final"]) == (False, [], True)
        (in_manifest,) = second["gaps"]
        assert in_manifest == {"at_s": 0.0, "duration_s": gap["duration_s"], "reason": "device_missing"}
        assert second["lost_s"] == gap["duration_s"] > 0

    run(archive, test)


def test_a_device_that_is_away_at_the_stop_is_told_and_the_chunk_before_is_final(archive: DaemonArchive) -> None:
    async def test(bench: Bench, camera: VirtualCamera, _: VirtualMicrophone) -> None:
        recorder, heard = bench.recorder, bench.heard
        await recorder.start("test")
        await bench.written()
        camera.unplug()
        await heard.until(lambda: recorder.status.state == "error")
        began_ns = SYSTEM_CLOCK.monotonic_ns()
        await heard.until(lambda: SYSTEM_CLOCK.monotonic_ns() > began_ns + NS)
        await recorder.stop("test")
        (line,) = bench.lines()
        (gap,) = heard.of("gap")
        assert line["final"]
        assert gap["duration_s"] >= 0.9  # a second, and a frame less
        (in_manifest,) = line["gaps"]
        assert in_manifest["at_s"] == pytest.approx(line["duration_s"], abs=0.001)
        assert (in_manifest["duration_s"], in_manifest["reason"]) == (gap["duration_s"], "device_missing")
        assert line["lost_s"] == gap["duration_s"]
        assert [kind for kind, _ in heard.events][-1] == "stopped"

    run(archive, test)


@pytest.mark.parametrize("filters", [(), (AudioFilter(type="highpass", frequency=200.0),)], ids=["plain", "filtered"])
def test_one_of_two_devices_away_is_named_no_more_and_its_loss_is_in_the_chunk(
    archive: DaemonArchive, filters: tuple[AudioFilter, ...]
) -> None:
    async def test(bench: Bench, _: VirtualCamera, microphone: VirtualMicrophone) -> None:
        recorder, heard = bench.recorder, bench.heard
        await recorder.start("test")
        assert {track["label"] for track in heard.of("started")[0]["tracks"]} == {CAMERA, MICROPHONE}
        await bench.written()
        microphone.unplug()
        await heard.until(lambda: heard.of("error"))
        assert [track["kind"] for track in recorder.tracks] == ["video"]
        assert recorder.status.state == "recording"
        await bench.written(20_000)
        microphone.plug()
        recorder.devices_changed()
        await heard.until(lambda: len(recorder.tracks) == 2)
        await heard.until(bench.lines)  # the first chunk is finished: what is written now is of the second
        await bench.written()
        await recorder.stop("test")
        first, second = bench.lines()
        assert [gap["reason"] for gap in first["gaps"]] == ["device_missing"]
        assert (first["final"], second["final"]) == (False, True)
        assert heard.of("error") == [
            {"code": "device_missing", "message": f"audio device {MICROPHONE} went away; the other tracks are recorded"}
        ]

    run(archive, test, audio=True, filters=filters)


def test_a_file_that_is_played_to_its_end_is_no_error(archive: DaemonArchive, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    source = "testsrc2=size=160x96:rate=25:duration=2"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p", "-bf", "0", str(film)],
        check=True,
        timeout=60,
    )

    async def test(bench: Bench, *_: object) -> None:
        await bench.recorder.start("test")
        await bench.heard.until(lambda: bench.heard.of("stopped"))
        assert bench.heard.of("error") == []
        assert bench.heard.of("gap") == []
        assert [line["final"] for line in bench.lines()] == [True]
        assert bench.heard.of("stopped")[0]["cause"] == "ended"

    run(archive, test, url=str(film))


# --- pre-roll --------------------------------------------------------------------------------------------------------


@pytest.mark.promise("recipe-doorbell")
def test_a_pre_roll_is_kept_while_idle_and_again_after_a_recording_and_an_outage(archive: DaemonArchive) -> None:
    async def test(bench: Bench, camera: VirtualCamera, _: VirtualMicrophone) -> None:
        recorder, heard = bench.recorder, bench.heard
        recorder.arm()
        await heard.until(lambda: recorder.is_armed)
        await _armed_for(bench, 2.5)
        assert recorder.status.state == "inactive"
        assert recorder.tracks == []
        assert 0 < recorder.pre_roll_bytes < 64 << 20
        command_ns = SYSTEM_CLOCK.monotonic_ns()
        await recorder.start("test")
        assert not recorder.is_armed
        assert recorder.pre_roll_bytes == 0
        await bench.written()
        await recorder.stop("test")
        stopped_ns = SYSTEM_CLOCK.monotonic_ns()
        (line,) = bench.lines()
        assert line["duration_s"] > 1.5 + (stopped_ns - command_ns) / NS - 2, "it reaches back"

        assert recorder.is_armed, "at once"
        assert camera.is_open
        camera.unplug()
        await heard.until(lambda: not recorder.is_armed)
        assert recorder.state is State.IDLE
        camera.plug()
        recorder.devices_changed()
        await heard.until(lambda: recorder.is_armed)
        await _armed_for(bench, 1.5)
        await recorder.start("test")
        await bench.written()
        await recorder.stop("test")
        assert [line["final"] for line in bench.lines()] == [True, True]
        assert heard.of("gap") == []

    run(archive, test, pre_roll=2000, video_key_frame_interval_duration=500)


def test_an_input_that_is_lost_while_it_is_opened_for_the_pre_roll_is_opened_again(archive: DaemonArchive) -> None:
    """The camera goes between its opening and the pre-roll: armed with it the recorder would keep nothing for ever."""

    async def test(bench: Bench, camera: VirtualCamera, _: VirtualMicrophone) -> None:
        recorder, heard, make = bench.recorder, bench.heard, bench.recorder.attempts.make

        async def is_lost_at_once(*args: Any) -> Any:
            recorder.attempts.make = make  # type: ignore[method-assign]
            attempt = await make(*args)
            camera.unplug()
            await heard.until(lambda: attempt.input.has_lost_track)
            return attempt

        recorder.attempts.make = is_lost_at_once  # type: ignore[method-assign, assignment]
        recorder.arm()
        await heard.until(lambda: heard.of("error"))
        assert (heard.of("error")[0]["code"], recorder.is_armed) == ("device_missing", False)
        camera.plug()
        recorder.devices_changed()
        await heard.until(lambda: recorder.is_armed and recorder.pre_roll_bytes > 0)

    run(archive, test, pre_roll=2000)


async def _armed_for(bench: Bench, seconds: float) -> None:
    begun_ns = SYSTEM_CLOCK.monotonic_ns()
    await bench.heard.until(
        lambda: bench.recorder.pre_roll_bytes and SYSTEM_CLOCK.monotonic_ns() > begun_ns + seconds * NS
    )


# --- devices by label, and what is not met ---------------------------------------------------------------------------


def test_a_device_is_found_by_its_label(archive: DaemonArchive) -> None:
    async def test(bench: Bench, *_: object) -> None:
        await bench.recorder.start("test")
        (track,) = bench.recorder.tracks
        assert (track["label"], track["device_id"]) == ("Back", other.device_id)

    other = VirtualCamera("Back", modes=[(160, 96, 30)])
    run(archive, test, video={"device_id": {"label": "Back"}}, more=(other,))


@pytest.mark.parametrize(
    ("label", "code", "message"),
    [
        ("Side", "device_missing", "no camera is labelled 'Side' (there is: Front, Back, Back)"),
        ("Back", "bad_args", "camera label 'Back' is ambiguous: 2 devices have it; use device_id"),
    ],
)
@pytest.mark.promise("label-of-two")
def test_a_label_of_none_or_of_two_is_refused(archive: DaemonArchive, label: str, code: str, message: str) -> None:
    async def test(bench: Bench, *_: object) -> None:
        with pytest.raises(CommandError) as refused:
            await bench.recorder.start("test")
        assert (refused.value.code, refused.value.message) == (code, message)

    more = tuple(VirtualCamera("Back", modes=[(160, 96, 30)], group_id=group) for group in ("one", "two"))
    run(archive, test, video={"device_id": {"label": label}}, more=more)


def test_what_is_not_met_is_said(archive: DaemonArchive) -> None:
    async def test(bench: Bench, *_: object) -> None:
        await bench.recorder.start("test")
        assert bench.recorder.unmet == [
            {"kind": "video", "constraint": "frame_rate", "asked": 60, "got": 30},
            {"kind": "video", "constraint": "torch", "asked": True, "got": None},
            {"kind": "video", "constraint": "zoom", "asked": 2, "got": None},
        ]

    wanted = {"width": 160, "height": {"ideal": 96}, "frame_rate": {"ideal": 60}}
    run(archive, test, video=wanted | {"torch": True, "zoom": 2.0, "pan": False})


def test_frequencies_that_the_microphone_does_not_have_are_said(archive: DaemonArchive) -> None:
    async def test(bench: Bench, *_: object) -> None:
        await bench.recorder.start("test")
        assert bench.recorder.unmet == [
            {"kind": "audio", "constraint": "audio_filters.frequency", "asked": 30_000, "got": 24_000}
        ]

    filters = (AudioFilter(type="highpass", frequency=30_000.0), AudioFilter(type="notch", frequency=50.0, q=10.0))
    run(archive, test, audio=True, filters=filters)


def test_a_band_that_the_sound_does_not_have_is_said_by_the_edge_that_lies_beyond(archive: DaemonArchive) -> None:
    async def test(bench: Bench, *_: object) -> None:
        stream = await bench.devices.get_user_media({"audio": True})
        try:
            bands = ((200.0, 30_000.0), (25_000.0, 30_000.0), (200.0, 24_000.0))
            triggers = [TriggerSettings(kind="motion"), *(TriggerSettings(kind="sound", band=band) for band in bands)]
            assert beyond(stream.get_tracks(), (), triggers) == [
                {"kind": "audio", "constraint": "trigger.band", "asked": asked, "got": 24_000}
                for asked in (30_000, 25_000)
            ]
            telephone = [SimpleNamespace(kind="audio", get_settings=lambda: {"sample_rate": 8_000})]
            assert beyond(telephone, (), [TriggerSettings(kind="sound")]) == [], "the usual band asks for nothing"  # type: ignore[arg-type]
        finally:
            for track in stream.get_tracks():
                track.stop()

    run(archive, test)


# --- whether it advances ---------------------------------------------------------------------------------------------


def test_a_recorder_advances_in_the_rhythm_of_its_frames(archive: DaemonArchive) -> None:
    async def test(bench: Bench, *_: object) -> None:
        recorder = bench.recorder
        assert recorder.is_advancing(SYSTEM_CLOCK.monotonic_ns())
        await recorder.start("test")
        since_ns = recorder.files.last_data_ns
        assert recorder.is_advancing(since_ns + 29 * NS)
        assert not recorder.is_advancing(since_ns + 40 * NS)
        assert recorder.attempts.current is not None
        assert recorder.attempts.current.frame_interval_s == pytest.approx(1 / 30, rel=0.01)

    run(archive, test)


def test_a_time_lapse_advances_in_the_rhythm_of_its_intervals(archive: DaemonArchive) -> None:
    async def test(bench: Bench, *_: object) -> None:
        recorder = bench.recorder
        await recorder.start("test")
        since_ns = recorder.files.last_data_ns
        assert recorder.is_advancing(since_ns + 170 * NS)
        assert not recorder.is_advancing(since_ns + 200 * NS)

    run(archive, test, time_lapse={"interval": 60_000.0, "frame_rate": 25.0})


def _raises(error: Exception) -> Callable[..., Any]:
    def raise_it(*_: object) -> Any:
        raise error

    return raise_it
