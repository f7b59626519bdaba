"""What an encoder holds is gone when it is closed, also while something still refers to it: no garbage collection."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from msrecd import libav
from msrecd.flow.units import AudioFormat, VideoFormat
from msrecd.libav import encoders


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


@pytest.mark.parametrize("kind", ["video", "audio", "resampled"])
def test_an_encoder_that_cannot_be_used_is_freed(
    no_collection: None, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It was opened, and what follows fails: who asked for it gets an error and nothing to close."""

    def refuse(*_: object, **__: object) -> None:
        raise libav.LibavError("made up") if kind == "resampled" else ValueError("made up")

    monkeypatch.setattr(encoders, "TimeResampler" if kind == "resampled" else "put_template_packet", refuse)
    before = threads()
    errors = []
    for _ in range(3):
        with pytest.raises(libav.LibavError, match="made up") as caught:  # kept with the frames of its traceback
            if kind == "video":
                libav.VideoEncoder(codec="h264", width=320, height=240, frame_rate=30, bit_rate=0, threads=4)
            else:
                source = AudioFormat(sample_rate=48000, channels=2, sample_format="s16")
                libav.AudioEncoder(codec="aac", source=source, bit_rate=0, follows_times=kind == "resampled")
        errors.append(caught)
    assert returns_to(before)


@pytest.mark.parametrize(
    "open_it",
    [
        lambda: libav.VideoEncoder(codec="h264", width=0, height=240, frame_rate=30, bit_rate=0),
        lambda: libav.VideoEncoder(codec="vp9", width=320, height=-2, frame_rate=30, bit_rate=0),
        lambda: libav.AudioEncoder(codec="aac", source=AudioFormat(sample_rate=48000, channels=60), bit_rate=0),
        lambda: libav.AudioEncoder(codec="opus", source=AudioFormat(sample_rate=48000, channels=60), bit_rate=0),
        lambda: libav.VideoDecoder(b"no description"),
        lambda: libav.AudioDecoder(b"\x1a\x45\xdf\xa3 neither", channels=2, sample_rate=48_000),
        lambda: libav.Muxer(lambda _: None, format="mp4", headers=[b"no description"]),
        lambda: libav.Muxer(lambda _: None, format="no format", headers=[]),
    ],
)
def test_what_libav_refuses_is_an_error_of_its_own(open_it: Callable[[], object]) -> None:
    for _ in range(3):  # closing what was never started must not crash either
        with pytest.raises(libav.LibavError):
            open_it()
