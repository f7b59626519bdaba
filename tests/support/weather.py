"""Wind, rain and chirps with known truth for the sound trigger, 16 kHz mono, made faster than real time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATE = 16_000
NS = 1_000_000_000
BAND = (2000.0, 7000.0)
_PIECE_S = 10


@dataclass(frozen=True)
class Chirp:
    begin_s: float
    end_s: float


@dataclass(frozen=True)
class Piece:
    """Ten seconds: the time of its first sample, int16 samples (n, 1), and the chirp in it, if any."""

    at_ns: int
    sound: NDArray[np.int16]
    chirp: Chirp | None


def weather(duration_s: float, *, seed: int = 1, chirps_db: float | None = None) -> Iterator[Piece]:
    """Gusts that come and go within seconds, rain that hisses and drops that click.

    chirps_db: each piece has a chirp so many dB above the power of its surroundings in the band.
    """
    random = np.random.default_rng(seed)
    position, speed = 0.0, 0.0
    n = _PIECE_S * RATE
    for number in range(int(duration_s // _PIECE_S)):
        gust = np.empty(_PIECE_S * 20)
        for i in range(len(gust)):
            speed += -speed * 0.1 + random.normal(0, 0.35) - position * 0.03
            position += speed * 0.2
            gust[i] = position
        loudness = 10 ** (np.clip(2 * gust, -10, 12) / 20)
        envelope = np.interp(np.arange(n) / n * len(gust), np.arange(len(gust)), loudness)
        white = random.normal(0, 1, n)
        rumble = np.fft.irfft(np.fft.rfft(white) / np.maximum(np.fft.rfftfreq(n, 1 / RATE), 20) * 60, n)
        hiss = random.normal(0, 1, n)
        sound = 0.02 * (rumble * envelope * 3 + hiss * (0.3 + 0.7 * envelope)) + 0.014 * random.normal(0, 1, n)
        drops = random.poisson(25 * _PIECE_S)
        click = np.exp(-np.arange(80) / 16) * random.normal(0, 1, 80)
        for at, strength in zip(random.integers(0, n - 80, drops), random.exponential(0.03, drops), strict=True):
            sound[at : at + 80] += strength * click
        chirp = None
        if chirps_db is not None and number >= 2:
            chirp = _add_chirp(sound, random, number * _PIECE_S, chirps_db)
        samples = np.clip(np.rint(sound * 32768), -32768, 32767).astype(np.int16)[:, None]
        yield Piece(number * _PIECE_S * NS, samples, chirp)


def _add_chirp(sound: NDArray[np.float64], random: np.random.Generator, at_s: float, level_db: float) -> Chirp:
    begin, length = int(random.uniform(1, 8) * RATE), int(random.uniform(0.1, 0.4) * RATE)
    sweep = np.linspace(2500, 6500, length) if random.random() < 0.5 else np.linspace(6000, 3000, length)
    here = np.fft.rfft(sound[begin : begin + length])
    frequencies = np.fft.rfftfreq(length, 1 / RATE)
    power = 2 * (np.abs(here[(frequencies >= BAND[0]) & (frequencies <= BAND[1])]) ** 2).sum() / length**2
    amplitude = np.sqrt(2 * power * 10 ** (level_db / 10))
    sound[begin : begin + length] += amplitude * np.sin(2 * np.pi * np.cumsum(sweep) / RATE)
    return Chirp(at_s + begin / RATE, at_s + (begin + length) / RATE)
