"""SampleClock: follows a card's clock through jitter, without jumps."""

from __future__ import annotations

import random

import pytest

from msrecd.codecs.sampleclock import MAX_SLEW, SampleClock

NS = 1_000_000_000
RATE = 48_000


@pytest.mark.parametrize("ppm", [-200.0, -50.0, 0.0, 50.0, 200.0])
def test_converges_on_the_cards_rate(ppm: float) -> None:
    rng = random.Random(7)
    clock = SampleClock(RATE)
    period = NS / (RATE * (1 + ppm * 1e-6))
    previous = 0
    for block in range(50 * 120):
        sample = block * 960
        stamp = round(10**15 + sample * period + rng.gauss(0, 300_000))
        assert clock.missing(sample, stamp) == 0
        clock.observe(sample, stamp)
        now = clock.time_of(sample)
        if block > 1:
            step = now - previous
            assert abs(step - 20_000_000) <= 20_000_000 * MAX_SLEW * 1.01 + 2
        previous = now
        if block > 50 * 60:
            assert abs(now - (10**15 + sample * period)) < 1_500_000
    assert clock.drift_ppm == pytest.approx(ppm, abs=15)


def test_a_hole_is_told_in_samples() -> None:
    clock = SampleClock(RATE)
    for block in range(50):
        clock.observe(block * 960, block * 20_000_000)
    assert clock.missing(50 * 960, 50 * 20_000_000 + 30_000_000) == 0  # jitter
    assert clock.missing(50 * 960, 50 * 20_000_000 + 500_000_000) == pytest.approx(24_000, abs=2)
    assert clock.missing(50 * 960, 50 * 20_000_000 - 500_000_000) == pytest.approx(-24_000, abs=2)
