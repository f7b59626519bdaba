from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import judge
import numpy as np
import pytest

RATE = 48_000
FPS = 25
SECONDS = 3
WIDTH, HEIGHT = 320, 240


def picture(number: int, *, flash: bool) -> np.ndarray:
    luma = np.full((HEIGHT, WIDTH), 60, dtype=np.uint8)
    for cell in range(32):
        luma[: HEIGHT // 16, cell * 10 : cell * 10 + 10] = 235 if number >> (31 - cell) & 1 else 16
    luma[HEIGHT // 2 :] = 235 if flash else 48
    chroma = np.full((HEIGHT // 2, WIDTH), 128, dtype=np.uint8)
    return np.concatenate((luma, chroma))


def bursts(late_s: float) -> np.ndarray:
    """Beeps at `late_s` after 0.5 s, 1.5 s, …"""
    time = np.arange(RATE * SECONDS) / RATE - 0.5 - late_s
    loud = (time >= 0) & (time % 1.0 < 0.1)
    return np.where(loud, 0.5 * np.sin(2 * np.pi * 1000 * (time % 1.0)), 0.0)


def write(path: Path, *, numbers: list[int], sound: np.ndarray, codec: str = "pcm_s16le") -> Path:
    pcm = (np.repeat(sound, 2) * 32767).astype("<i2").reshape(1, -1)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "bf": "0"})
        video.width, video.height, video.pix_fmt, video.time_base = WIDTH, HEIGHT, "yuv420p", Fraction(1, FPS)
        audio = container.add_stream(codec, rate=RATE)
        audio.layout = "stereo"
        for index, number in enumerate(numbers):
            flash = (index / FPS - 0.48) % 1.0 < 0.1  # 0.48 s is a frame of 25 a second
            frame = av.VideoFrame.from_ndarray(picture(number, flash=flash), format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for begin in range(0, pcm.shape[1] // 2, 1024):
            part = np.ascontiguousarray(pcm[:, 2 * begin : 2 * (begin + 1024)])
            block = av.AudioFrame.from_ndarray(part, format="s16", layout="stereo")
            block.sample_rate, block.pts, block.time_base = RATE, begin, Fraction(1, RATE)
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    return path


@pytest.mark.parametrize(("codec", "exact_ms"), [("pcm_s16le", 0.1), ("aac", 0.7)])
@pytest.mark.parametrize("late_ms", [-30.0, 0.0, 12.5])
def test_numbers_and_offset_are_read_from_an_encoded_file(
    tmp_path: Path, codec: str, exact_ms: float, late_ms: float
) -> None:
    first = 0xA5A5_0FF0
    numbers = list(range(first, first + FPS * SECONDS))
    sound = bursts(late_ms / 1000 - 0.02)
    found = judge.read_chunk(write(tmp_path / "a.mkv", numbers=numbers, sound=sound, codec=codec))
    assert found.numbers == numbers
    judge.assert_consecutive(found.numbers)
    assert found.flash_times == pytest.approx([0.48, 1.48, 2.48], abs=0.002)
    assert len(found.beep_times) == SECONDS
    assert found.audio_gaps == []
    assert found.av_offset_ms == pytest.approx(late_ms, abs=exact_ms + 0.5)  # Matroska's times are whole milliseconds
    assert max(found.av_offsets_ms) - min(found.av_offsets_ms) < 1.5


@pytest.mark.parametrize("numbers", [[1, 2, 4], [1, 2, 2, 3], [3, 2]])
def test_a_hole_or_a_double_is_named(numbers: list[int]) -> None:
    with pytest.raises(AssertionError, match="1 breaks"):
        judge.assert_consecutive(numbers)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.parametrize("begin", [0.2, 0.20004, 0.5])
def test_onsets_are_exact_to_a_fraction_of_a_millisecond(rate: int, begin: float) -> None:
    time = np.arange(rate) / rate - begin
    mono = np.where((time >= 0) & (time < 0.1), 0.5 * np.sin(2 * np.pi * 1000 * time), 0.0)
    noise = np.random.default_rng(1).normal(0, 0.01, len(mono))
    assert judge.onsets(mono + noise, rate) == pytest.approx([begin], abs=0.0003)
    assert judge.onsets(noise, rate) == []


def test_a_jump_of_the_phase_is_found_and_a_drift_is_not() -> None:
    time = np.arange(2 * RATE)
    steady = np.sin(2 * np.pi * 440 * (1 + 200e-6) * time / RATE)
    assert judge.phase_jumps(steady, RATE, 440.0) == []
    cut = np.concatenate((steady[:RATE], steady[RATE + 20 :]))  # 20 samples lost at 1 s
    ((where, jump),) = judge.phase_jumps(cut, RATE, 440.0)
    assert where == pytest.approx(1.0, abs=0.005)
    assert jump == pytest.approx(2 * np.pi * 440 * 20 / RATE, abs=0.1)


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "b.mkv", numbers=[*range(40), *range(41, 75)], sound=bursts(-0.02))
    assert judge.main([str(path)]) == 0
    line = capsys.readouterr().out.splitlines()[1].split()
    assert line[:4] == ["b.mkv", "74", "0..74", "1"]


def spliced(flashes: list[float], beeps: list[float]) -> judge.Judged:
    """Twenty pictures a second; bursts of 0.1 s of 1 kHz at these times."""
    rate = 8000
    sound = np.zeros((4 * rate, 1))
    for beep in beeps:
        at = np.arange(round(beep * rate), round((beep + 0.1) * rate))
        sound[at, 0] = 0.5 * np.sin(2 * np.pi * 1000 * (at - at[0]) / rate)
    times = [number / 20 for number in range(80)]
    return judge.Judged(
        path=Path("none"),
        times=times,
        flashes=[any(abs(time - flash) < 1e-6 for flash in flashes) for time in times],
        samples=sound,
        sample_rate=rate,
    )


def test_a_beep_belongs_to_one_flash() -> None:
    """After a pause the begin of a beep may lack; the one before the pause is not the flash's."""
    found = spliced([1.0, 1.2, 2.2, 3.2], [1.0, 2.2, 3.2])
    assert found.av_offsets_ms == pytest.approx([0, 0, 0], abs=1)


def test_sound_that_is_late_throughout_is_told() -> None:
    found = spliced([0.5, 1.5, 2.5], [0.75, 1.75, 2.75])
    assert found.av_offsets_ms == pytest.approx([250, 250, 250], abs=1)
