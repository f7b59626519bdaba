"""Paint into the frames of a camera and record them with the sound: reader, numpy, generator, recorder.

python overlay.py [--seconds 10] [--virtual] OUT.mp4
"""
# ruff: noqa: T201

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import msrecd
from msrecd.devices.virtual import VirtualBackend, VirtualCamera, VirtualMicrophone


def open_devices(virtual: bool) -> msrecd.MediaDevices:
    if not virtual:
        return msrecd.MediaDevices()
    return msrecd.MediaDevices(
        backends=[VirtualBackend([VirtualCamera("Camera", modes=[(320, 192, 15)]), VirtualMicrophone("Microphone")])]
    )


async def paint(track: msrecd.MediaStreamTrack, generator: msrecd.VideoTrackGenerator) -> None:
    """A red square in the corner of every frame, which keeps its own time: sound and picture stay together."""
    async with msrecd.MediaStreamTrackReader(track, max_buffered=8) as reader:
        async for frame in reader:
            frame.array[-40:-8, 8:40] = (255, 0, 0)
            await generator.write(msrecd.VideoFrame(frame.array, timestamp_ns=frame.timestamp_ns))


async def main(arguments: argparse.Namespace) -> int:
    async with open_devices(arguments.virtual) as devices:
        try:
            stream = await devices.get_user_media({"video": True, "audio": True})
        except msrecd.DOMException as exc:
            print(exc, file=sys.stderr)
            return 1
        (camera,) = stream.get_video_tracks()
        settings = camera.get_settings()
        generator = msrecd.VideoTrackGenerator({"width": settings["width"], "height": settings["height"]})
        painting = asyncio.create_task(paint(camera, generator))
        painted = msrecd.MediaStream([generator.track, *stream.get_audio_tracks()])
        recorder = msrecd.MediaRecorder(painted, {"mime_type": "video/mp4"})
        blobs: list[bytes] = []
        recorder.ondataavailable = lambda event: blobs.append(bytes(event.data))
        recorder.start()
        await asyncio.wait([painting], timeout=arguments.seconds)
        recorder.stop()
        await recorder.stopped
        painting.cancel()
        generator.close()
        await asyncio.to_thread(Path(arguments.out).write_bytes, b"".join(blobs))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--virtual", action="store_true", help="virtual devices instead of the machine's")
    sys.exit(asyncio.run(main(parser.parse_args())))
