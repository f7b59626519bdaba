"""Short of CPU: frames go (counted), the sound stays whole and in the chunk it belongs to."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from config_text import configuration
from daemon import DaemonProcess
from judge import Judged, read_chunk
from waiting import until

PERIOD_S = 0.1
MEASURED_S = 3.0
FIRST_SHARE = 0.6  # of the CPU time that the daemon takes when it may: too little for all frames on any machine
LOWER = 0.85
LOWER_EVERY_S = 3.0  # longer than a chunk: what it cost is written down by then
STARVED_CHUNKS = 2
DEADLINE_S = 90.0
DEVICES = """
[devices]
virtual = [
  { kind = "camera", label = "Test Camera", modes = [[1280, 720, 30]] },
  { kind = "microphone", label = "Test Microphone", signal = "beep" },
]
"""
RECORDER = """
[[recorder]]
name = "cam0"
video = true
audio = true
mime_type = "video/mp4"
chunk_duration = "2s"
autostart = true
"""


def cpu_time(pid: int) -> float:
    """Seconds of CPU that a process has taken."""
    return time.clock_gettime((~pid << 3) | 2)  # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of the kernel


def demand(pid: int) -> float:
    """Seconds of CPU a second that a process takes when it may, on this machine and beside what else runs on it."""
    began, used = time.monotonic(), cpu_time(pid)
    time.sleep(MEASURED_S)
    return (cpu_time(pid) - used) / (time.monotonic() - began)


class Starvation:
    """Lets a process have less CPU time than it needs, and less again until `suffers()`; then so much until the end."""

    def __init__(self, pid: int, suffers: Callable[[], bool]) -> None:
        self._pid = pid
        self._suffers = suffers
        self._over = threading.Event()
        self.share = FIRST_SHARE
        self._demand = demand(pid)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        lower_at = time.monotonic() + LOWER_EVERY_S
        try:
            while not self._over.is_set():
                self._period(self._demand * self.share * PERIOD_S)
                if time.monotonic() > lower_at and not self._suffers():
                    self.share *= LOWER
                    lower_at = time.monotonic() + LOWER_EVERY_S
        finally:
            os.kill(self._pid, signal.SIGCONT)

    def _period(self, cpu_s: float) -> None:
        """One period: it runs until it has had so much, and stands still for the rest."""
        end = time.monotonic() + PERIOD_S
        limit = cpu_time(self._pid) + cpu_s
        os.kill(self._pid, signal.SIGCONT)
        while cpu_time(self._pid) < limit and time.monotonic() < end:
            time.sleep(0.001)
        os.kill(self._pid, signal.SIGSTOP)
        time.sleep(max(0.0, end - time.monotonic()))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.promise("losses-are-counted", "sound-waits-for-frames")
def test_sound_is_whole_and_in_its_chunk_while_frames_go(tmp_path: Path) -> None:
    with DaemonProcess(tmp_path, configuration(tmp_path, port=None, recorders=RECORDER, more=DEVICES)) as daemon:

        def chunk_losses() -> list[int]:
            return [line["tracks"]["video"]["dropped"] for line in daemon.chunk_lines()]

        def chunks_with_losses() -> int:
            return sum(lost > 0 for lost in chunk_losses())

        daemon.wait_for_part()
        starvation = Starvation(daemon.pid, lambda: chunks_with_losses() > 0)
        try:
            until(
                lambda: chunks_with_losses() >= STARVED_CHUNKS,
                lambda: f"all frames are there with {starvation.share:.0%} of the CPU time that they need",
                timeout=DEADLINE_S,
            )
        finally:
            starvation.end()
        # Where the machine allows it all frames come again: what is lost at the very end leaves no hole in the numbers.
        ends_whole = False
        with contextlib.suppress(AssertionError):
            ends_whole = until(lambda: chunk_losses()[-2:] == [0, 0], "other processes starve it", timeout=40)
        assert daemon.stop(timeout=60) == 0
    lines = daemon.manifest()
    chunks = [read_chunk(path) for path in daemon.chunks()]
    numbers = [number for chunk in chunks for number in chunk.numbers]
    dropped = sum(line["tracks"]["video"]["dropped"] for line in lines)
    holes = sum(after - before - 1 for before, after in pairwise(numbers))
    assert holes == dropped if ends_whole else 0 < holes <= dropped
    for line, chunk in zip(lines, chunks, strict=True):
        sound = line["tracks"]["audio"]
        assert chunk.audio_gaps == []
        assert len(chunk.samples) / chunk.sample_rate == pytest.approx(line["duration_s"], abs=0.1)
        assert sound["gap_s"] == 0 or sound["xruns"] > 0, line  # silence for what the microphone lost, no other
        flashes = flash_begins(chunk)
        if flashes and not sound["xruns"]:
            assert all(abs((beep - flashes[0] + 0.5) % 1 - 0.5) < 0.010 for beep in chunk.beep_times)


def flash_begins(chunk: Judged) -> list[float]:
    """Times of the flashes whose first frame was not dropped."""
    shown = zip(chunk.times, chunk.numbers, chunk.flashes, strict=True)
    return [
        time
        for (_, before, was_lit), (time, number, is_lit) in pairwise(shown)
        if is_lit and not was_lit and number == before + 1
    ]
