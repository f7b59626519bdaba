"""What a start catches: the very next picture of a running camera, and with a pre-roll the picture of before.

Told from the files: the numbers that the camera paints, on a grid of times that everybody knows.
`MSRECD_STARTS_TIMED=200` for the acceptance figure (`make fidelity`), on a machine that does nothing else.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from typing import Any

import pytest
from judge import assert_consecutive
from recording import Log, Scene, judged, run

from msrecd.media.recorder import MediaRecorder

STARTS = int(os.environ.get("MSRECD_STARTS_TIMED", "0"))
RATE = 30
FRAME_MS = 1000 / RATE
LIMIT_MS = FRAME_MS + 50


class Grid:
    """When each numbered picture was captured: from one chunk whose beginning is known."""

    def __init__(self, number: int, capture_ns: int) -> None:
        self._number, self._capture_ns = number, capture_ns

    def time_of(self, number: int) -> float:
        """ns of CLOCK_MONOTONIC."""
        return self._capture_ns + (number - self._number) * 1e9 / RATE

    def number_at(self, at_ns: float) -> int:
        """The picture that was the newest at this time."""
        return self._number + int((at_ns - self._capture_ns + 1e6) * RATE // 1e9)


@pytest.mark.parametrize("options", [{}, {"video_bits_per_second": 300_000}], ids=["the encoder runs", "a new encoder"])
@pytest.mark.promise("start-takes-the-next-frame")
def test_the_next_picture_of_a_running_camera_is_the_first_recorded(options: dict[str, Any]) -> None:
    async def main() -> list[float]:
        waited = []
        with Scene("v") as scene:
            running = MediaRecorder(scene.stream)
            other = Log(running)
            running.start(200)
            await other.until("start")
            for turn in range(STARTS or 8):
                recorder = MediaRecorder(scene.stream, options)
                log = Log(recorder)
                await asyncio.sleep(0.2 + 0.007 * (turn % 5))
                asked_ns = time.monotonic_ns()
                recorder.start()
                await log.until("start")
                await asyncio.sleep(0.15)
                recorder.stop()
                await log.until("stop")
                found = judged(log.data())
                if not found.numbers and not STARTS:
                    continue  # the camera's thread was not let run for a second
                assert_consecutive(found.numbers)
                assert found.times[0] == 0
                waited.append((log.infos[0].started_ns - asked_ns) / 1e6)
            running.stop()
            await other.until("stop")
        return waited

    waited = run(main(), 60 + 2 * STARTS)
    late = sorted(waited)[min(len(waited) - 1, round(0.99 * len(waited)))]
    print(f"start to first picture: median {statistics.median(waited):.1f} ms, 99 % {late:.1f} ms, of {len(waited)}")
    assert len(waited) >= (STARTS or 4)
    assert min(waited) > -FRAME_MS  # the picture of this very moment, and none of before
    if STARTS:
        assert late <= LIMIT_MS
    else:
        assert min(waited) <= LIMIT_MS  # this machine may be busy


@pytest.mark.parametrize("pre_roll", [700, 1500])
def test_the_picture_of_before_is_in_the_file(pre_roll: int) -> None:
    async def main() -> None:
        with Scene("av") as scene:
            running = MediaRecorder(scene.stream)
            other = Log(running)
            running.start(500)
            recorder = MediaRecorder(scene.stream, {"pre_roll": pre_roll, "video_key_frame_interval_duration": 400})
            log = Log(recorder)
            await other.until("start")
            await asyncio.sleep(pre_roll / 1000 + 1.5)
            asked_ns = time.monotonic_ns()
            recorder.start()
            await log.until("start")
            started_ns = time.monotonic_ns()  # the start was at some moment between these two
            await asyncio.sleep(0.3)
            for each, events in ((recorder, log), (running, other)):
                each.stop()
                await events.until("stop")
            whole, found = judged(other.data()), judged(log.data())
            grid = Grid(whole.numbers[0], other.infos[0].started_ns)
            earliest, wanted = (grid.number_at(at_ns - pre_roll * 1_000_000) for at_ns in (asked_ns, started_ns))
            assert_consecutive(found.numbers)
            assert wanted in found.numbers
            if STARTS:  # an encoder that is late knows only old key frames: more is kept than was asked for
                assert earliest - found.numbers[0] <= 0.4 * RATE + 2  # not more than a group of pictures before it
            assert grid.time_of(found.numbers[0]) == pytest.approx(log.infos[0].started_ns, abs=1e6)
            sound_begin_s = found.audio_start - found.times[found.numbers.index(wanted)]
            assert sound_begin_s <= 0.03  # sound from there on, too

    run(main())
