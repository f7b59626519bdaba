"""Record a camera with the sound of its microphone behind a high-pass filter: wind and hum stay out of the file.

python high_pass_and_record.py [--seconds 10] [--frequency 200] [--virtual] OUT.mp4
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
        backends=[VirtualBackend([VirtualCamera("Camera", modes=[(640, 360, 30)]), VirtualMicrophone("Microphone")])]
    )


async def main(arguments: argparse.Namespace) -> int:
    async with open_devices(arguments.virtual) as devices:
        try:
            stream = await devices.get_user_media({"video": True, "audio": True})
        except msrecd.DOMException as exc:
            print(exc, file=sys.stderr)
            return 1
        context = msrecd.AudioContext()
        source = context.create_media_stream_source(stream)
        high_pass = context.create_biquad_filter()
        high_pass.type = "highpass"
        high_pass.frequency.value = arguments.frequency
        destination = context.create_media_stream_destination()
        source.connect(high_pass).connect(destination)
        # What went into the graph at t comes out at t: frames and filtered sound stay together.
        filtered = msrecd.MediaStream([*stream.get_video_tracks(), *destination.stream.get_audio_tracks()])
        recorder = msrecd.MediaRecorder(filtered, {"mime_type": "video/mp4"})
        blobs: list[bytes] = []
        recorder.ondataavailable = lambda event: blobs.append(bytes(event.data))
        recorder.start()
        await asyncio.sleep(arguments.seconds)
        recorder.stop()
        await recorder.stopped
        await context.close()
        await asyncio.to_thread(Path(arguments.out).write_bytes, b"".join(blobs))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--frequency", type=float, default=200)
    parser.add_argument("--virtual", action="store_true", help="virtual devices instead of the machine's")
    sys.exit(asyncio.run(main(parser.parse_args())))
