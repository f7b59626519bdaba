"""Mix two microphones into one recording, each with a gain of its own.

python two_microphones.py [--seconds 10] [--gains 1 0.5] [--virtual] OUT.webm
"""
# ruff: noqa: T201

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import msrecd
from msrecd.devices.virtual import VirtualBackend, VirtualMicrophone


def open_devices(virtual: bool) -> msrecd.MediaDevices:
    if not virtual:
        return msrecd.MediaDevices()
    # Two sound cards whose clocks are not the same: the context brings them together.
    return msrecd.MediaDevices(
        backends=[
            VirtualBackend(
                [VirtualMicrophone("Left", ppm=100.0), VirtualMicrophone("Right", signal="tone", ppm=-100.0)]
            )
        ]
    )


async def main(arguments: argparse.Namespace) -> int:
    async with open_devices(arguments.virtual) as devices:
        found = [info for info in await devices.enumerate_devices() if info.kind == "audioinput"]
        if len(found) < 2:
            print("two microphones are needed", file=sys.stderr)
            return 1
        context = msrecd.AudioContext()
        destination = context.create_media_stream_destination()
        streams = []
        for info, gain in zip(found, arguments.gains, strict=False):
            stream = await devices.get_user_media({"audio": {"device_id": {"exact": info.device_id}}})
            volume = msrecd.GainNode(context, {"gain": gain})
            context.create_media_stream_source(stream).connect(volume).connect(destination)
            streams.append(stream)
        recorder = msrecd.MediaRecorder(destination.stream, {"mime_type": "audio/webm"})
        blobs: list[bytes] = []
        recorder.ondataavailable = lambda event: blobs.append(bytes(event.data))
        recorder.start()
        await asyncio.sleep(arguments.seconds)
        recorder.stop()
        await recorder.stopped
        await context.close()
        for stream in streams:
            for track in stream.get_tracks():
                track.stop()
        await asyncio.to_thread(Path(arguments.out).write_bytes, b"".join(blobs))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--gains", type=float, nargs=2, default=[1.0, 0.5])
    parser.add_argument("--virtual", action="store_true", help="virtual devices instead of the machine's")
    sys.exit(asyncio.run(main(parser.parse_args())))
