"""Record the default camera and microphone to a file, until the time is over, Ctrl-C, or the devices are gone.

python camera_to_file.py [--seconds 10] [--virtual] OUT.mp4
"""
# ruff: noqa: T201

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

import msrecd
from msrecd.devices.virtual import VirtualBackend, VirtualCamera, VirtualMicrophone

CONSTRAINTS = {"video": {"width": {"ideal": 1280}, "height": {"ideal": 720}, "frame_rate": 30}, "audio": True}


def open_devices(virtual: bool) -> msrecd.MediaDevices:
    if not virtual:
        return msrecd.MediaDevices()
    return msrecd.MediaDevices(
        backends=[VirtualBackend([VirtualCamera("Camera", modes=[(640, 360, 30)]), VirtualMicrophone("Microphone")])]
    )


async def record(stream: msrecd.MediaStream, out: Path, seconds: float) -> None:
    """Record into `out`, which gets its name when it is complete and on disk.

    Raises:
        msrecd.DOMException: the recorder cannot record, or could not go on; what it had is in the file.
        OSError: the file cannot be written.
    """
    recorder = msrecd.MediaRecorder(stream, {"mime_type": "video/mp4", "video_bits_per_second": 4_000_000})
    stopped = asyncio.Event()
    problems: list[BaseException] = []
    writing = asyncio.Lock()  # blobs are written in their order, and the loop does not wait for the disk
    part = out.with_name(out.name + ".part")

    with part.open("wb") as file:

        async def write(data: msrecd.Blob) -> None:
            async with writing:
                await asyncio.to_thread(file.write, bytes(data))

        async def write_or_stop(data: msrecd.Blob) -> None:
            try:
                await write(data)
            except OSError as exc:  # the disk is full, or gone
                problems.append(exc)
                recorder.stop()

        # wait_until tells the recorder how much is not yet written; beyond `max_buffered` it gives up with an error.
        recorder.ondataavailable = lambda event: event.wait_until(write_or_stop(event.data))
        recorder.ongap = lambda event: print(f"lost: {event.gap}", file=sys.stderr)
        recorder.onerror = lambda event: problems.append(event.error)
        recorder.onstop = lambda event: stopped.set()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, recorder.stop)
        recorder.start(1000)
        loop.call_later(seconds, recorder.stop)
        await stopped.wait()
        async with writing:  # the last blob was given to it before `stop`
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
    part.rename(out)
    if problems:
        raise problems[0]


async def main(arguments: argparse.Namespace) -> int:
    async with open_devices(arguments.virtual) as devices:
        try:
            stream = await devices.get_user_media(CONSTRAINTS)
            for track in stream.get_tracks():
                print(f"{track.kind}: {track.label} {track.get_settings()}")
            await record(stream, arguments.out, arguments.seconds)
        except (msrecd.DOMException, OSError) as exc:
            print(exc, file=sys.stderr)
            return 1
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--virtual", action="store_true", help="virtual devices instead of the machine's")
    parser.add_argument("out", type=Path)
    sys.exit(asyncio.run(main(parser.parse_args())))
