"""Two recorders with different settings on one stream, clones disabled and stopped one after the other: nothing stays.

A few seconds by default; MSRECD_LEAK_S=600 (`make leak-test`) runs as long as that and prints what it counted.
"""

from __future__ import annotations

import os
import statistics
import time

import leaks
import pytest
from recording import Log, delivered, run

from msrecd.devices.virtual import VirtualBackend, VirtualCamera, VirtualMicrophone
from msrecd.media.devices import MediaDevices
from msrecd.media.recorder import MediaRecorder
from msrecd.media.stream import MediaStream

SECONDS = float(os.environ.get("MSRECD_LEAK_S", "6"))
pytestmark = pytest.mark.timeout(SECONDS + 300)
LEAST_ROUNDS = 4
WARM_UP = 2  # rounds: pools, caches and code come to their size
# What memory may grow by from the second quarter to the last one of a long run: malloc's arenas breathe.
GROWTH_BYTES = 8 << 20
SETTINGS = (
    {"mime_type": "video/mp4", "video_bits_per_second": 400_000, "chunk_duration": 400},
    {"mime_type": "video/webm;codecs=vp8,opus", "video_bits_per_second": 200_000, "audio_bits_per_second": 32_000},
)


async def one_round(devices: MediaDevices) -> int:
    """Two recordings, of which clones take part and leave; how many blobs came."""
    video = {"width": 160, "height": 96, "frame_rate": 30}
    stream = await devices.get_user_media({"video": video, "audio": True})
    recorders = [MediaRecorder(stream, options) for options in SETTINGS]
    logs = [Log(recorder) for recorder in recorders]
    for recorder in recorders:
        recorder.start(100)
    for log in logs:
        await log.until("start")
    clones = [track.clone() for track in (*stream.get_tracks(), *stream.get_tracks())]
    third = MediaRecorder(MediaStream(clones[:2]), {"mime_type": "video/x-matroska"})
    log_of_clones = Log(third)
    third.start(100)
    await log_of_clones.until("start")
    for clone in clones:
        clone.enabled = False
        await log_of_clones.until("dataavailable", log_of_clones.count("dataavailable") + 1)
    for clone in clones:
        clone.stop()
        await delivered(stream, 0.05)
    await log_of_clones.until("stop")  # by itself: all its tracks have ended
    assert [log.count("stop") for log in logs] == [0, 0]
    for log in logs:
        await log.until("dataavailable", 3)
    for recorder, log in zip(recorders, logs, strict=True):
        recorder.stop()
        await log.until("stop")
    for log in (*logs, log_of_clones):
        assert not [event for event in log.events if event.type == "error"]
    for track in stream.get_tracks():
        track.stop()
    return sum(log.count("dataavailable") for log in logs)


def test_clones_and_recorders_leave_nothing_behind() -> None:
    async def main() -> list[leaks.Held]:
        camera, microphone = VirtualCamera("camera", modes=[(160, 96, 30)]), VirtualMicrophone("microphone")
        found: list[leaks.Held] = []
        async with MediaDevices(backends=[VirtualBackend([camera, microphone])]) as devices:
            end = time.monotonic() + SECONDS
            while len(found) < LEAST_ROUNDS or time.monotonic() < end:
                assert await one_round(devices) >= 6
                await leaks.until(lambda: not leaks.own_threads() and not camera.is_open and not microphone.is_open)
                found.append(leaks.held())
        return found

    found = run(main(), SECONDS + 120)
    steady = found[WARM_UP:]
    report(found)
    assert {held.threads for held in found} == {()}
    assert max(held.files for held in steady) <= found[WARM_UP - 1].files
    for held in steady:
        assert held.objects - found[WARM_UP - 1].objects == {}, "objects of ours are kept"
    if len(steady) >= 40:  # fewer say nothing about memory
        quarter = len(steady) // 4
        second, last = steady[quarter : 2 * quarter], steady[-quarter:]
        grown = statistics.median(held.bytes for held in last) - statistics.median(held.bytes for held in second)
        assert grown <= GROWTH_BYTES, f"{grown / 1024:.0f} KiB more than before"


def report(found: list[leaks.Held]) -> None:
    """What was counted, for who runs the long version with -s."""
    if SECONDS < 60:
        return
    quarter = max(1, len(found) // 4)
    for name, part in (("first", found[:quarter]), ("last", found[-quarter:])):
        print(
            f"{name} {len(part)} of {len(found)} rounds: {len(part[-1].threads)} threads, {part[-1].files} files,"
            f" {sum(part[-1].objects.values())} objects,"
            f" {statistics.median(held.bytes for held in part) / 2**20:.1f} MiB"
        )
