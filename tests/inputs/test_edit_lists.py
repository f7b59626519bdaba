"""What an edit list hides is neither seen nor heard in a recording: frames, sound, the priming of an encoder."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest
from judge import onsets, read_chunk

import msrecd
from msrecd.devices.virtual.testframe import TestFrame
from tests.inputs.test_matrix import TYPES, _record

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg here (apt install ffmpeg)")

FRAMES, RATE = 75, 25
VIDEO_OUTS, SOUND_OUTS = ("mp4", "mkv", "webm"), ("m4a", "mka", "ogg", "flac", "wav")


def _run(*words: str | Path) -> bytes:
    return subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, words)], check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`plain.mp4` and `b-frames.mp4`: numbered frames, a key frame each second, a beep at each begin of a second."""
    folder = tmp_path_factory.mktemp("edited")
    painted = TestFrame(320, 240)
    raw = folder / "numbered.yuv"
    raw.write_bytes(b"".join(painted.paint(number, flash=False) for number in range(FRAMES)))
    beep = "aevalsrc='sin(2*PI*1000*t)*0.5*lt(mod(t,1),0.1)':sample_rate=48000:duration=3"
    inputs = [
        "-f", "rawvideo", "-pix_fmt", "yuv420p", "-video_size", "320x240", "-framerate", str(RATE), "-i", raw,
        "-f", "lavfi", "-i", beep,
    ]  # fmt: skip
    for name, options in (("plain", ["-preset", "ultrafast"]), ("b-frames", ["-preset", "fast", "-bf", "3"])):
        _run(*inputs, "-c:v", "libx264", *options, "-g", "25", "-c:a", "aac", folder / f"{name}.mp4")
    return folder


def _recorded(source: Path, folder: Path, outs: tuple[str, ...]) -> list[Path]:
    paths = {folder / f"{out}.{TYPES[out][1]}": TYPES[out][0] for out in outs}
    asyncio.run(_record(source, paths))
    return list(paths)


def _samples(path: Path) -> int:
    return len(_run("-i", path, "-map", "0:a", "-ac", "1", "-ar", "48000", "-f", "s16le", "-")) // 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "b-frames"])
@pytest.mark.parametrize("begin_s", [0.0, 0.48, 1.0, 1.96])
@pytest.mark.promise("edit-lists-hide")
def test_frames_before_the_beginning_are_not_shown(tmp_path: Path, folder: Path, name: str, begin_s: float) -> None:
    """A file that was cut without being encoded anew has all frames since the key frame before."""
    source = tmp_path / "cut.mp4"
    _run("-ss", str(begin_s), "-i", folder / f"{name}.mp4", "-c", "copy", source)
    before = read_chunk(source)
    assert before.numbers[0] == round(begin_s * RATE)
    for path in _recorded(source, tmp_path, VIDEO_OUTS):
        after = read_chunk(path)
        assert after.numbers == before.numbers, path.name
        # 21 ms of a packet of AAC, which begins before the first frame, may be missing.
        assert abs(len(after.samples) - len(before.samples)) <= 1024 + 1024, path.name
        second = 1 - begin_s % 1 if begin_s % 1 else 0.0  # of the file, at which one begins
        beeps = [after.audio_start + at - after.times[0] for at in onsets(after.samples[:, 0], after.sample_rate)]
        assert beeps, path.name
        assert all(abs((at - second + 0.5) % 1 - 0.5) < 0.012 for at in beeps), (path.name, beeps)


@pytest.mark.slow
@pytest.mark.parametrize("begin_s", [0.0, 0.5])
@pytest.mark.parametrize("codec", ["aac", "alac", "libopus", "libmp3lame"])
def test_sound_before_the_beginning_is_not_heard(tmp_path: Path, folder: Path, codec: str, begin_s: float) -> None:
    """The priming of its encoder is such sound."""
    whole, source = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    _run("-i", folder / "plain.mp4", "-vn", "-c:a", codec, whole)
    _run("-ss", str(begin_s), "-i", whole, "-c", "copy", source)
    length = 3 * 48000 - round(begin_s * 48000)
    # Of the last packet, as it came and as it is encoded again.
    padding = {"libmp3lame": 3 * 1152, "alac": 2 * 1024}.get(codec, 1280)
    for path in _recorded(source, tmp_path, SOUND_OUTS):
        if path.suffix == ".wav":
            continue  # says its length when the storage finishes it
        assert -64 <= _samples(path) - length <= padding, path.name


@pytest.mark.slow
def test_a_loop_of_a_cut_file_has_no_hole(tmp_path: Path, folder: Path) -> None:
    source, out = tmp_path / "cut.mp4", tmp_path / "looped.mp4"
    _run("-ss", "0.48", "-i", folder / "b-frames.mp4", "-c", "copy", source)

    async def run() -> None:
        element = msrecd.MediaElement(source)
        element.loop = True
        recorder = msrecd.MediaRecorder(element.capture_stream(), {"mime_type": "video/mp4"})
        with out.open("wb") as file:
            recorder.ondataavailable = lambda event: file.write(bytes(event.data))
            recorder.start(500)
            await element.play()
            rounds, before = 0, 0.0
            async with asyncio.timeout(60):
                while rounds < 2 or element.current_time < 0.5:
                    await asyncio.sleep(0.02)
                    rounds, before = rounds + (element.current_time < before - 1), element.current_time
            recorder.stop()
            async with asyncio.timeout(60):
                await recorder.stopped
        element.close()

    asyncio.run(run())
    judged = read_chunk(out)
    first = round(0.48 * RATE)
    expected = [first + number % (FRAMES - first) for number in range(len(judged.numbers))]
    assert len(judged.numbers) > 100
    assert judged.numbers == expected
    steps = [after - before for before, after in zip(judged.times, judged.times[1:], strict=False)]
    assert max(steps) < 0.07
    assert all(abs(gap) < 0.03 for _, gap in judged.audio_gaps)
