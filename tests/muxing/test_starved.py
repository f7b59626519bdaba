"""Short of CPU: pictures go (counted), the sound stays whole and in the chunk it belongs to."""

from __future__ import annotations

import os
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from config_text import configuration
from daemon import DaemonProcess
from judge import Judged, read_chunk

PERIOD_S = 0.1
RUNS_S = 0.006  # of each period: less than the pictures take, enough for the sound
STARVED_S = 12.0
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
chunk_duration = "3s"
autostart = true
"""


def starve(pid: int, seconds: float, over: threading.Event) -> None:
    """Let a process run only so much of each period, as a busy machine does."""
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end and not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            time.sleep(PERIOD_S - RUNS_S)
            os.kill(pid, signal.SIGCONT)
            time.sleep(RUNS_S)
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.slow
def test_sound_is_whole_and_in_its_chunk_while_pictures_go(tmp_path: Path) -> None:
    over = threading.Event()
    with DaemonProcess(tmp_path, configuration(tmp_path, port=None, recorders=RECORDER, more=DEVICES)) as daemon:
        daemon.wait_for_part()
        thread = threading.Thread(target=starve, args=(daemon.pid, STARVED_S, over))
        thread.start()
        try:
            thread.join(60)
            daemon.wait_for_chunks(int(STARVED_S // 3), timeout=60)
        finally:
            over.set()
            thread.join()
        assert daemon.stop(timeout=60) == 0
    lines = daemon.manifest()
    chunks = [read_chunk(path) for path in daemon.chunks()]
    numbers = [number for chunk in chunks for number in chunk.numbers]
    dropped = sum(line["tracks"]["video"]["dropped"] for line in lines)
    assert dropped > 0, "the machine was too fast for this test"
    assert sum(after - before - 1 for before, after in pairwise(numbers)) == dropped
    for line, chunk in zip(lines, chunks, strict=True):
        sound = line["tracks"]["audio"]
        assert chunk.audio_gaps == []
        assert len(chunk.samples) / chunk.sample_rate == pytest.approx(line["duration_s"], abs=0.1)
        assert sound["gap_s"] == 0 or sound["xruns"] > 0, line  # silence for what the microphone lost, no other
        flashes = flash_begins(chunk)
        if flashes and not sound["xruns"]:
            assert all(abs((beep - flashes[0] + 0.5) % 1 - 0.5) < 0.010 for beep in chunk.beep_times)


def flash_begins(chunk: Judged) -> list[float]:
    """Times of the flashes whose first picture was not dropped."""
    shown = zip(chunk.times, chunk.numbers, chunk.flashes, strict=True)
    return [
        time
        for (_, before, was_lit), (time, number, is_lit) in pairwise(shown)
        if is_lit and not was_lit and number == before + 1
    ]
