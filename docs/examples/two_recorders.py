"""Two recorders on one stream: everything in good quality in chunks of some seconds, and a small sound-only copy.

The camera and the microphone are opened once. Each chunk is a file of its own that plays alone.

python two_recorders.py [--seconds 10] [--chunk 3] [--virtual] FOLDER
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


class ToFiles:
    """A recorder whose chunks become files: name-1.mp4, name-2.mp4, …"""

    def __init__(self, stream: msrecd.MediaStream, folder: Path, name: str, extension: str, options: dict) -> None:
        self.recorder = msrecd.MediaRecorder(stream, options)
        self.recorder.ondataavailable = lambda event: event.wait_until(self._write(event))
        self.recorder.onerror = lambda event: print(f"{name}: {event.error}", file=sys.stderr)
        self.recorder.onstop = lambda event: self._stopped.set()
        self._folder, self._name, self._extension = folder, name, extension
        self._stopped = asyncio.Event()
        self._writing = asyncio.Lock()

    async def _write(self, event: msrecd.BlobEvent) -> None:
        path = self._folder / f"{self._name}-{event.chunk}.{self._extension}"
        part = path.with_name(path.name + ".part")
        async with self._writing:
            await asyncio.to_thread(_append, part, event.data)
            if event.chunk_end:
                part.rename(path)
                print(f"{path.name}: {path.stat().st_size} bytes")

    async def stop(self) -> None:
        """End the recording; all is written on return."""
        self.recorder.stop()
        await self._stopped.wait()
        async with self._writing:
            pass


def _append(path: Path, data: msrecd.Blob) -> None:
    with path.open("ab") as file:
        file.write(bytes(data))


async def main(arguments: argparse.Namespace) -> int:
    arguments.folder.mkdir(parents=True, exist_ok=True)
    async with open_devices(arguments.virtual) as devices:
        try:
            stream = await devices.get_user_media({"video": True, "audio": True})
            # A stream of its own with the microphone's track: another kind of file, and an end of its own.
            sound = msrecd.MediaStream(stream.get_audio_tracks())
            chunk_ms = arguments.chunk * 1000
            everything = {
                "mime_type": "video/mp4",
                "bits_per_second": 3_000_000,
                "chunk_duration": chunk_ms,
            }
            small = {"mime_type": "audio/webm;codecs=opus", "audio_bits_per_second": 24_000}
            files = [
                ToFiles(stream, arguments.folder, "all", "mp4", everything),
                ToFiles(sound, arguments.folder, "sound", "webm", small),
            ]
            for one in files:
                one.recorder.start(1000)
        except msrecd.DOMException as exc:
            print(exc, file=sys.stderr)
            return 1
        await asyncio.sleep(arguments.seconds)
        for one in files:
            await one.stop()
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--chunk", type=float, default=3, help="seconds a chunk")
    parser.add_argument("--virtual", action="store_true", help="virtual devices instead of the machine's")
    parser.add_argument("folder", type=Path)
    sys.exit(asyncio.run(main(parser.parse_args())))
