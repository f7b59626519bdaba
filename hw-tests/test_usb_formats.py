"""USB cameras give what they have, which is seldom YUV420. Needs a --plug command that knows `camera in:FORMAT`."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import CameraMode
from judge import assert_consecutive, read_chunk
from test_first_light import asked_of, find, record

import msrecd

Plug = Callable[[str, str], None]
MATROSKA_MJPEG = "video/x-matroska;codecs=mjpeg"


async def until_listed(is_there: bool) -> None:
    """libcamera hears of a camera from udev, a moment after the kernel has it."""
    devices = msrecd.MediaDevices()
    try:
        async with asyncio.timeout(20):
            while is_there != any(device.kind == "videoinput" for device in await devices.enumerate_devices()):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
    finally:
        await devices.close()


@pytest.fixture(params=["yuy2", "mjpeg"])
def coding(request: pytest.FixtureRequest, camera: bool, is_numbered: bool, plug: Plug) -> Iterator[str]:
    """The format of the camera that is plugged in; the one before comes back afterwards."""
    if not is_numbered:
        pytest.skip("a real camera has the formats that it has")

    def change(to: str) -> None:
        plug("camera", "out")
        asyncio.run(until_listed(False))
        plug("camera", to)
        asyncio.run(until_listed(True))

    change(f"in:{request.param}")
    yield request.param
    change("in")


@pytest.mark.timeout(180)
def test_what_a_usb_camera_gives_is_recorded(coding: str, camera_mode: CameraMode, tmp_path: Path) -> None:
    file = tmp_path / ("camera.mkv" if coding == "mjpeg" else "camera.mp4")
    mime_type = MATROSKA_MJPEG if coding == "mjpeg" else "video/mp4"

    async def main() -> None:
        await record({"video": asked_of(await find("videoinput"), camera_mode)}, mime_type, 5, file)

    asyncio.run(main())
    judged = read_chunk(file)
    assert_consecutive(judged.numbers)
    assert len(judged.numbers) >= 3 * camera_mode.frame_rate
    command = ["ffprobe", "-v", "warning", "-show_streams", "-of", "json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert not done.stderr, done.stderr
    (stream,) = json.loads(done.stdout)["streams"]
    assert stream["codec_name"] == ("mjpeg" if coding == "mjpeg" else "h264")
    print(f"{coding}: {len(judged.numbers)} frames, {stream['codec_name']}")
    if coding == "mjpeg":
        # Untouched: PIL's quantisation, not libav's; the camera makes its JPEGs with it.
        first = subprocess.run(
            ["ffmpeg", "-v", "error", "-i", str(file), "-c", "copy", "-frames:v", "1", "-f", "mjpeg", "-"],
            capture_output=True,
            timeout=60,
            check=True,
        ).stdout
        assert b"JFIF" in first[:32], first[:64]
        assert b"Lavc" not in first[:256], "encoded again"
