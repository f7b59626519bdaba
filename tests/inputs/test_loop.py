"""A file that is played again and again: its rounds are as long as the file, and nothing lies between them."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from simulated_clock import SimulatedClock

from msrecd.clock import NS
from msrecd.media.playback import Playback
from tests.inputs.test_input_pauses import Taken

RATE, SOUND_RATE, SECONDS = 10, 48_000, 2
START_NS = 1_000 * NS
DEADLINE_S = 60.0


def made(path: Path, between: int) -> Path:
    """So many B-frames lie between two other frames; the sound is as long as they are."""
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt, video.gop_size = 160, 120, "yuv420p", RATE
        video.options = {"preset": "ultrafast", "bf": str(between), "b_strategy": "0", "sc_threshold": "0"}
        sound: Any = out.add_stream("flac", rate=SOUND_RATE, layout="mono")
        for number in range(SECONDS * RATE):
            frame = av.VideoFrame.from_ndarray(np.full((120, 160, 3), number * 9, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        for at in range(0, SECONDS * SOUND_RATE, 4800):
            block = av.AudioFrame.from_ndarray(np.ones((1, 4800), np.int16), format="s16", layout="mono")
            block.sample_rate, block.pts = SOUND_RATE, at
            out.mux(sound.encode(block))
        out.mux(sound.encode(None))
    return path


@pytest.mark.parametrize("between", [0, 1, 2])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_rounds_follow_without_a_hole(tmp_path: Path, between: int, suffix: str) -> None:
    clock = SimulatedClock(start_ns=START_NS, limit_ns=START_NS)
    playback = Playback(str(made(tmp_path / f"file{suffix}", between)), loop=True, clock=clock)
    taken = {source.kind: Taken() for source in playback.sources}
    for source in playback.sources:
        source.passing.feed.add(taken[source.kind])
    try:
        playback.play()
        taken["video"].until(START_NS)
        for step in range(1, 20 * SECONDS):  # never so fast that the thread is late where the file begins again
            clock.advance_to(START_NS + step * NS // 5, DEADLINE_S)
            taken["video"].until(clock.monotonic_ns() - 3 * NS // 5)
        frames, sound = (taken[kind].until(START_NS + 7 * SECONDS * NS // 2) for kind in ("video", "audio"))
    finally:
        playback.close()
    shown = sorted(frame.pts_ns for frame in frames[: 3 * SECONDS * RATE])
    assert len(shown) == 3 * SECONDS * RATE
    assert all(abs(after - before - NS // RATE) <= NS // 500 for before, after in pairwise(shown)), "frames"
    for before, after in pairwise(sound):
        assert abs(after.pts_ns - before.pts_ns - before.duration_ns) <= NS // 500, "sound"
    times = [frame.dts_ns for frame in frames]
    assert times == sorted(set(times))
