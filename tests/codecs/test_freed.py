"""What an encoder holds is gone when it is closed, also while something still refers to it: no garbage collection."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from msrecd import libav
from msrecd.flow.units import AudioFormat, VideoFormat


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def returns_to(count: int) -> bool:
    """Threads that were told to end need a moment."""
    deadline = time.monotonic() + 20
    while threads() > count and time.monotonic() < deadline:
        time.sleep(0.01)
    return threads() <= count


def test_video_encoders(no_collection: None) -> None:
    before = threads()
    picture = libav.picture(VideoFormat(width=320, height=240, pixel_format="yuv420p"), bytes(320 * 240 * 3 // 2))
    kept = []
    for _ in range(4):
        encoder = libav.VideoEncoder(codec="h264", width=320, height=240, frame_rate=30, bit_rate=0, threads=4)
        encoder.encode(picture, 0, key_frame=True)
        assert encoder.flush()
        assert threads() > before
        encoder.close()
        encoder.close()
        kept.append(encoder)  # as an exception or a cycle of objects keeps it
        assert returns_to(before)


@pytest.mark.parametrize(("codec", "follows"), [("flac", False), ("aac", True)])
def test_audio_encoders(no_collection: None, codec: str, follows: bool) -> None:
    before = threads()
    source = AudioFormat(sample_rate=48000, channels=2, sample_format="s16")
    kept = []
    for _ in range(4):
        encoder = libav.AudioEncoder(codec=codec, source=source, bit_rate=0, follows_times=follows)
        encoder.encode(bytes(4 * 4800), 0)
        encoder.flush()
        encoder.close()
        kept.append(encoder)
        assert returns_to(before)
