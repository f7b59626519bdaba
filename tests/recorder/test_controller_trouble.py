"""RecorderController when a device gives nothing for a while: what is heard, and that the seconds are accounted."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from heard import Heard

from msrecd.daemon.archive import DaemonArchive
from msrecd.devices.virtual import VirtualBackend, VirtualCamera, VirtualMicrophone
from msrecd.errors import StorageError
from msrecd.media.devices import MediaDevices
from msrecd.recorder.controller import RecorderController
from msrecd.recorder.settings import RecorderSettings


def test_a_camera_that_gives_nothing_is_heard_with_the_seconds_lost(archive: DaemonArchive) -> None:
    camera = VirtualCamera("Front", modes=[(160, 96, 30)])
    microphone = VirtualMicrophone("Voice")
    heard = Heard()

    async def main() -> None:
        settings = RecorderSettings(
            name="cam0",
            constraints={"video": True, "audio": True},
            options={"mime_type": "video/mp4"},
            timeslice_ms=200,
        )
        async with MediaDevices(backends=[VirtualBackend([camera, microphone])]) as devices:
            unit = RecorderController(settings, devices=devices, archive=archive, listener=heard)
            await unit.start("test")
            await heard.until(lambda: unit.files.bytes + unit.files.open_bytes > 5000)
            assert unit.input is not None
            (track,) = unit.input.stream.get_video_tracks()
            camera.mute()
            await heard.until(lambda: heard.of("error"))
            track._source.on_restarted(5.0)  # what a camera's watch does after five seconds
            await heard.until(lambda: len(heard.of("error")) == 2)
            before = unit.files.open_bytes
            await heard.until(lambda: unit.files.open_bytes > before)  # the sound goes on, and black
            camera.unmute()
            await heard.until(lambda: heard.of("gap"))
            assert unit.status.state == "recording"
            await unit.stop("test")

    asyncio.run(main())
    silent, restarted = heard.of("error")
    assert silent == {"code": "device_busy", "message": "no data from video device Front"}
    assert restarted == {
        "code": "device_busy",
        "message": "no data from video device Front for 5.0 s; restarting it",
    }
    gap = heard.of("gap")[0]
    assert gap["reason"] == "no_frames"
    assert 0 < gap["duration_s"] < 30
    assert len(heard.of("stopped")) == 1
    (line,) = heard.of("chunk")
    (in_manifest,) = [entry for entry in line["gaps"] if entry["reason"] == "no_frames"]
    assert in_manifest["duration_s"] == pytest.approx(gap["duration_s"], abs=0.01)
    assert 0 < in_manifest["at_s"] < line["duration_s"]


def test_a_microphone_that_gives_digital_silence_is_heard(archive: DaemonArchive) -> None:
    microphone = VirtualMicrophone("Voice", signal="silence")
    heard = Heard()

    async def main() -> None:
        settings = RecorderSettings(name="mic0", constraints={"audio": True}, options={"mime_type": "audio/flac"})
        async with MediaDevices(backends=[VirtualBackend([microphone])]) as devices:
            unit = RecorderController(settings, devices=devices, archive=archive, listener=heard)
            await unit.start("test")
            assert unit.input is not None
            (track,) = unit.input.stream.get_audio_tracks()
            track._source.on_silence(True)  # what a microphone says after a minute of zeros
            await heard.until(lambda: heard.of("error"))
            track._source.on_silence(False)
            await unit.stop("test")

    asyncio.run(main())
    (silent,) = heard.of("error")
    assert silent == {
        "code": "device_busy",
        "message": "digital silence from audio device Voice for a minute: mixer or wires",
    }


def test_black_until_the_end_is_heard_before_the_end_and_not_in_the_next_recording(archive: DaemonArchive) -> None:
    camera = VirtualCamera("Front", modes=[(160, 96, 30)])
    heard = Heard()

    async def main() -> None:
        settings = RecorderSettings(
            name="cam0", constraints={"video": True}, options={"mime_type": "video/mp4"}, timeslice_ms=200
        )
        async with MediaDevices(backends=[VirtualBackend([camera])]) as devices:
            unit = RecorderController(settings, devices=devices, archive=archive, listener=heard)
            await unit.start("test")
            await heard.until(lambda: unit.files.bytes + unit.files.open_bytes > 1000)
            camera.mute()
            await heard.until(lambda: heard.of("error"))
            before = unit.files.open_bytes
            await heard.until(lambda: unit.files.open_bytes > before)
            await unit.pause()
            await unit.stop("test")
            assert len(heard.of("gap")) == 1, "what is paused loses nothing"
            camera.unmute()
            await unit.start("test")
            await heard.until(lambda: unit.files.bytes + unit.files.open_bytes > 1000)
            await unit.stop("test")

    asyncio.run(main())
    assert len(heard.of("gap")) == 1
    first, second = heard.of("chunk")
    assert [entry["reason"] for entry in first["gaps"]] == ["no_frames"]
    assert second["gaps"] == []


def test_a_disk_that_refuses_the_beginning_leaves_nothing_in_memory(
    archive: DaemonArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try records a moment before the disk is asked; that moment is not kept for the next try."""
    camera = VirtualCamera("Front", modes=[(160, 96, 30)])
    heard = Heard()
    kept: list[int] = []  # at each try: of how many attempts

    def require_room() -> None:
        time.sleep(0.3)  # a slow disk: blobs come meanwhile
        kept.append(len({attempt for attempt, *_ in units[0].files._pending._kept}))
        if len(kept) < 4:
            raise StorageError("no space left", "no_space")

    units: list[RecorderController] = []
    monkeypatch.setattr(archive.store, "require_room", require_room)

    async def main() -> None:
        settings = RecorderSettings(
            name="cam0", constraints={"video": True}, options={"mime_type": "video/mp4"}, timeslice_ms=50
        )
        async with MediaDevices(backends=[VirtualBackend([camera])]) as devices:
            unit = RecorderController(settings, devices=devices, archive=archive, listener=heard)
            units.append(unit)
            await unit.start("schedule", persistent=True)
            assert unit.status.problem is not None
            assert unit.status.problem.code == "no_space"
            for _ in range(3):
                tries = len(kept)
                unit.devices_changed()  # no waiting for the next try
                await heard.until(lambda tries=tries: len(kept) > tries)
            await heard.until(lambda: unit.files.bytes + unit.files.open_bytes > 1000)
            await unit.stop("test")

    asyncio.run(main())
    assert all(attempts <= 1 for attempts in kept), kept
    assert len(heard.of("chunk")) == 1


def test_a_source_that_ends_before_anybody_listens_ends_its_tracks(archive: DaemonArchive) -> None:
    """Between the opening of a device and the first listener it may already have been pulled out."""
    camera = VirtualCamera("Front", modes=[(160, 96, 30)])
    backend = VirtualBackend([camera])
    opened = backend.open

    def open_and_lose(*arguments: Any) -> Any:
        source = opened(*arguments)
        camera.unplug()
        return source

    backend.open = open_and_lose  # type: ignore[method-assign, assignment]

    async def main() -> None:
        async with MediaDevices(backends=[backend]) as devices:
            stream = await devices.get_user_media({"video": True})
            (track,) = stream.get_video_tracks()
            async with asyncio.timeout(10):
                while track.ready_state != "ended":  # noqa: ASYNC110 - what changes is in other threads
                    await asyncio.sleep(0.02)

    asyncio.run(main())
