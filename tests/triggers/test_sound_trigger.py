"""The sound trigger in wind and rain. MSRECD_LONG=1 plays six hours."""

from __future__ import annotations

import os

import numpy as np
import pytest
from weather import BAND, NS, RATE, Chirp, weather

from msrecd.triggers.decide import SOUND, Progress, step
from msrecd.triggers.sound import SoundDetector

IS_LONG = bool(os.environ.get("MSRECD_LONG"))
if IS_LONG:  # six hours of sound are minutes of work, on a machine that has other work many
    pytestmark = pytest.mark.timeout(3600)


def play(duration_s: float, *, chirps_db: float | None, threshold_db: float = 3.0) -> tuple[list[float], list[Chirp]]:
    """When events began, and the chirps that there were."""
    detector, progress = SoundDetector(band=BAND, threshold_db=threshold_db), Progress()
    begun, chirps = [], []
    for piece in weather(duration_s, chirps_db=chirps_db):
        chirps += [piece.chirp] if piece.chirp else []
        for at in range(0, len(piece.sound), 1600):
            for sample in detector.listen(piece.sound[at : at + 1600], RATE, piece.at_ns + at * NS // RATE):
                progress, change = step(SOUND, progress, sample)
                begun += [sample.at_ns / NS] if change == "begin" else []
    return begun, chirps


def test_chirps_three_db_above_the_noise_are_found() -> None:
    begun, chirps = play(3600 if IS_LONG else 240, chirps_db=3.0)
    found = [chirp for chirp in chirps if any(chirp.begin_s <= at <= chirp.end_s + 0.2 for at in begun)]
    print(f"{len(found)} of {len(chirps)} chirps found")
    assert len(found) >= 0.95 * len(chirps), f"{len(found)} of {len(chirps)}"


@pytest.mark.promise("wind-is-no-sound")
def test_wind_and_rain_begin_nothing() -> None:
    hours = 6 if IS_LONG else 1 / 15
    begun, _ = play(hours * 3600, chirps_db=None)
    print(f"{len(begun)} false starts in {hours:.2g} hours")
    assert len(begun) < max(1, hours), begun


@pytest.mark.parametrize("sample_format", [np.int16, np.int32])
def test_the_score_is_the_level_above_the_background(sample_format: type) -> None:
    random = np.random.default_rng(3)
    scale = np.iinfo(sample_format).max
    noise = random.normal(0, 0.01, (RATE * 4, 2))
    noise[RATE * 3 :] *= 10  # 20 dB, at once
    detector = SoundDetector(band=(500, 4000), threshold_db=12)
    samples = list(detector.listen((noise * scale).astype(sample_format), RATE, 0))
    assert max(sample.score for sample in samples if sample.at_ns < 3 * NS) < 3
    after = next(sample for sample in samples if sample.at_ns > 3.1 * NS)
    assert 15 < after.score < 22


def test_a_sound_outside_of_the_band_is_none() -> None:
    time = np.arange(RATE * 4) / RATE
    noise = np.random.default_rng(3).normal(0, 0.001, len(time))
    tone = 0.3 * np.sin(2 * np.pi * 500 * time) * (time > 3)
    detector = SoundDetector(band=BAND, threshold_db=12)
    sound = ((noise + tone) * 32767).astype(np.int16)[:, None]
    assert max(sample.score for sample in detector.listen(sound, RATE, 0)) < 6


def test_a_band_above_what_the_sound_holds_finds_nothing() -> None:
    """Nor does it listen to the highest frequency that there is in its place."""
    rate = 16_000
    sound = np.random.default_rng(1).normal(0, 30, (4 * rate, 1))
    sound[2 * rate : 3 * rate, 0] += 8000 * np.sin(2 * np.pi * 7990 * np.arange(rate) / rate)
    scores = {
        band: max(
            sample.score
            for sample in SoundDetector(band=band, threshold_db=12.0).listen(sound.astype(np.int16), rate, 0)
        )
        for band in ((7000.0, 9000.0), (20_000.0, 30_000.0))
    }
    assert scores[7000.0, 9000.0] > 12
    assert scores[20_000.0, 30_000.0] == 0
