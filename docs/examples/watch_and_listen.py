"""Analyse instead of recording: how much moves in the picture and how loud it is, once a second, as JSON lines.

python watch_and_listen.py [--seconds 10] [--virtual]
"""
# ruff: noqa: T201

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
from dataclasses import dataclass

import numpy as np

import msrecd
from msrecd.devices.virtual import VirtualBackend, VirtualCamera, VirtualMicrophone


@dataclass
class Second:
    """What was seen and heard since the last line."""

    pictures: int = 0
    motion: float = 0.0
    peak: float = 0.0
    lost_samples: int = 0


def open_devices(virtual: bool) -> msrecd.MediaDevices:
    if not virtual:
        return msrecd.MediaDevices()
    return msrecd.MediaDevices(
        backends=[VirtualBackend([VirtualCamera("Camera", modes=[(640, 360, 30)]), VirtualMicrophone("Microphone")])]
    )


async def watch(track: msrecd.MediaStreamTrack, second: Second) -> None:
    """The largest change from one picture to the next, as a share of full scale."""
    before = None
    async with msrecd.MediaStreamTrackReader(track) as reader:
        async for picture in reader:
            # Every fourth pixel will do; the copy into int16 keeps differences from wrapping around.
            now = picture.array[::4, ::4].astype(np.int16)
            if before is not None:
                second.motion = max(second.motion, float(np.abs(now - before).mean()) / 255)
            before = now
            second.pictures += 1


async def listen(track: msrecd.MediaStreamTrack, second: Second) -> None:
    """The loudest sample; a block that was not read in time, or was lost by the device, is counted."""
    async with msrecd.MediaStreamTrackReader(track) as reader:
        async for block in reader:
            full_scale = -float(np.iinfo(block.array.dtype).min)
            second.peak = max(second.peak, float(np.abs(block.array.astype(np.float64)).max()) / full_scale)
            second.lost_samples += block.lost_before


async def report(second: Second) -> None:
    while True:
        await asyncio.sleep(1)
        line = {
            "pictures": second.pictures,
            "motion": round(second.motion, 4),
            "peak_dbfs": round(20 * math.log10(second.peak), 1) if second.peak else None,
            "lost_samples": second.lost_samples,
        }
        print(json.dumps(line), flush=True)
        second.pictures, second.motion, second.peak, second.lost_samples = 0, 0.0, 0.0, 0


async def main(arguments: argparse.Namespace) -> int:
    async with open_devices(arguments.virtual) as devices:
        try:
            # Analysis seldom needs more than this; the camera is asked for no more than the program can look at.
            video = {"width": {"ideal": 320}, "height": {"ideal": 180}, "frame_rate": {"ideal": 10}}
            stream = await devices.get_user_media({"video": video, "audio": True})
        except msrecd.DOMException as exc:
            print(exc, file=sys.stderr)
            return 1
        second = Second()
        jobs = [asyncio.create_task(watch(track, second)) for track in stream.get_video_tracks()]
        jobs += [asyncio.create_task(listen(track, second)) for track in stream.get_audio_tracks()]
        reports = asyncio.create_task(report(second))
        # The readers end by themselves when their track does, for example when the camera is unplugged.
        await asyncio.wait(jobs, timeout=arguments.seconds)
        for job in (*jobs, reports):
            job.cancel()
        results = await asyncio.gather(*jobs, reports, return_exceptions=True)
    failed = [one for one in results if isinstance(one, Exception)]
    for failure in failed:
        print(repr(failure), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--virtual", action="store_true", help="virtual devices instead of the machine's")
    sys.exit(asyncio.run(main(parser.parse_args())))
