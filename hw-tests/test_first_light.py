"""Is the device there, does it record ten seconds, is the file whole?"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import CameraMode

import msrecd


async def find(kind: str, label: str = "") -> str:
    """The id of the first device of a kind whose label contains `label`."""
    found = msrecd.MediaDevices()
    try:
        devices = await found.enumerate_devices()
    finally:
        await found.close()
    fitting = [device for device in devices if device.kind == kind and label.lower() in device.label.lower()]
    assert fitting, f"no {kind} with {label!r} in its label; there are: {[(d.kind, d.label) for d in devices]}"
    return fitting[0].device_id


def asked_of(device_id: str, mode: CameraMode) -> dict[str, Any]:
    """MediaTrackConstraints; the rate is only a wish, for not every camera can be told one."""
    return {
        "device_id": {"exact": device_id},
        "width": mode.width,
        "height": mode.height,
        "frame_rate": {"ideal": mode.frame_rate},
    }


async def record(constraints: dict[str, Any], mime_type: str, duration_s: float, target: Path) -> tuple[float, int]:
    """Seconds that were recorded, by the clock of the recorder's user, and lost frames that the recorder tells."""
    devices = msrecd.MediaDevices()
    try:
        stream = await asyncio.wait_for(devices.get_user_media(constraints), 60)
        started, stopped = asyncio.Event(), asyncio.Event()
        errors: list[object] = []
        dropped = 0
        with target.open("wb") as file:
            recorder = msrecd.MediaRecorder(stream, {"mime_type": mime_type})

            def take(event: msrecd.BlobEvent) -> None:
                nonlocal dropped
                file.write(bytes(event.data))
                if event.chunk_info is not None:
                    dropped += sum(track.dropped for track in event.chunk_info.tracks if track.kind == "video")

            recorder.ondataavailable = take
            recorder.onstart = lambda event: started.set()
            recorder.onstop = lambda event: stopped.set()
            recorder.onerror = lambda event: errors.append(event)
            recorder.start(1000)
            await asyncio.wait_for(started.wait(), 30)
            begun = time.monotonic()
            await asyncio.sleep(duration_s)
            recorder.stop()
            elapsed = time.monotonic() - begun
            await asyncio.wait_for(stopped.wait(), 30)
        for track in stream.get_tracks():
            track.stop()
        assert not errors, errors
        return elapsed, dropped
    finally:  # one process owns a camera: the next test may be that of the service
        await devices.close()


def probe(file: Path) -> dict[str, dict[str, Any]]:
    """The streams of a file by their type, decoded to the end by ffprobe, which must have nothing to say."""
    command = ["ffprobe", "-v", "warning", "-count_frames", "-show_streams", "-of", "json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    assert not done.stderr, done.stderr
    return {stream["codec_type"]: stream for stream in json.loads(done.stdout)["streams"]}


@pytest.mark.timeout(120)
def test_camera_records_ten_seconds(camera: bool, camera_mode: CameraMode, tmp_path: Path) -> None:
    file = tmp_path / "camera.mp4"

    async def main() -> tuple[float, int]:
        device = await find("videoinput")
        return await record({"video": asked_of(device, camera_mode)}, "video/mp4", 10, file)

    elapsed, _ = asyncio.run(main())
    video = probe(file)["video"]
    frames, seconds = int(video["nb_read_frames"]), float(video["duration"])
    print(f"camera: {video['width']}x{video['height']}, {frames} frames, {seconds:.2f} s, {file.stat().st_size} bytes")
    assert (video["width"], video["height"]) == (camera_mode.width, camera_mode.height)
    # The first picture is a key frame, which a camera that runs already gives once a second.
    assert elapsed - 1.5 <= seconds <= elapsed + 0.5
    assert 0.9 * camera_mode.frame_rate <= frames / seconds <= 1.05 * camera_mode.frame_rate


@pytest.mark.timeout(120)
def test_microphone_records_ten_seconds(microphone: str, tmp_path: Path) -> None:
    file = tmp_path / "microphone.m4a"  # not WAV: as a stream it cannot know its length

    async def main() -> tuple[float, int]:
        device = await find("audioinput", microphone)
        return await record({"audio": {"device_id": {"exact": device}}}, "audio/mp4", 10, file)

    elapsed, _ = asyncio.run(main())
    audio = probe(file)["audio"]
    seconds = float(audio["duration"])
    print(f"microphone: {audio['sample_rate']} Hz, {audio['channels']} channels, {seconds:.3f} s")
    assert elapsed - 0.5 <= seconds <= elapsed + 0.5


@pytest.mark.timeout(0)
def test_long_recording_loses_nothing(
    camera: bool,
    camera_mode: CameraMode,
    microphone: str,
    mime_type: str,
    minutes: float,
    is_numbered: bool,
    tmp_path: Path,
) -> None:
    file = tmp_path / "long.mp4"

    async def main() -> int:
        constraints = {
            "video": asked_of(await find("videoinput"), camera_mode),
            "audio": {"device_id": {"exact": await find("audioinput", microphone)}},
        }
        return (await record(constraints, mime_type, 60 * minutes, file))[1]

    dropped = asyncio.run(main())
    streams = probe(file)
    frames = int(streams["video"]["nb_read_frames"])
    lengths = {kind: float(stream["duration"]) for kind, stream in streams.items()}
    told = f"picture {lengths['video']:.2f} s, sound {lengths['audio']:.2f} s"
    print(f"{minutes} minutes: {frames} frames, {dropped} lost, {told}")
    assert abs(lengths["video"] - lengths["audio"]) < 0.1
    if is_numbered:  # an emulated machine may be too slow for its camera; what does not come is counted
        frames += dropped
    assert frames >= 0.999 * camera_mode.frame_rate * lengths["video"]
