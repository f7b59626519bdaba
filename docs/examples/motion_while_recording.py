"""Look for motion in the frames of a camera while it is recorded; the recording does not wait for the arithmetic.

python motion_while_recording.py [--seconds 10] [--threshold 0.001] [--virtual] OUT.mp4
"""
# ruff: noqa: T201

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import numpy as np

import msrecd
from msrecd.devices.virtual import VirtualBackend, VirtualCamera


def open_devices(virtual: bool) -> msrecd.MediaDevices:
    if not virtual:
        return msrecd.MediaDevices()
    return msrecd.MediaDevices(backends=[VirtualBackend([VirtualCamera("Camera", modes=[(640, 360, 30)])])])


async def watch(track: msrecd.MediaStreamTrack, threshold: float) -> None:
    """Print a line for each frame that differs from the one before; frames that come meanwhile are left out."""
    before = None
    async with msrecd.MediaStreamTrackReader(track) as reader:
        async for frame in reader:
            now = frame.array[::8, ::8].astype(np.int16)
            if before is not None:
                change = float(np.abs(now - before).mean()) / 255
                if change > threshold:
                    print(f"motion {change:.4f} at {frame.timestamp_ns}", flush=True)
            before = now
            await asyncio.sleep(0.2)  # five frames a second will do


async def main(arguments: argparse.Namespace) -> int:
    async with open_devices(arguments.virtual) as devices:
        try:
            stream = await devices.get_user_media({"video": True})
        except msrecd.DOMException as exc:
            print(exc, file=sys.stderr)
            return 1
        recorder = msrecd.MediaRecorder(stream, {"mime_type": "video/mp4"})
        blobs: list[bytes] = []
        recorder.ondataavailable = lambda event: blobs.append(bytes(event.data))
        recorder.start()
        watching = asyncio.create_task(watch(stream.get_video_tracks()[0], arguments.threshold))
        await asyncio.wait([watching], timeout=arguments.seconds)
        watching.cancel()
        recorder.stop()
        await recorder.stopped
        await asyncio.to_thread(Path(arguments.out).write_bytes, b"".join(blobs))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--threshold", type=float, default=0.001)
    parser.add_argument("--virtual", action="store_true", help="virtual devices instead of the machine's")
    sys.exit(asyncio.run(main(parser.parse_args())))
