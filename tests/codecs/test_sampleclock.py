"""SampleClock: follows a card's clock through jitter, without jumps."""

from __future__ import annotations

import random

import pytest

from msrecd.codecs.sampleclock import MAX_SLEW, SampleClock

NS = 1_000_000_000
RATE = 48_000


@pytest.mark.parametrize("ppm", [-200.0, -50.0, 0.0, 50.0, 200.0])
@pytest.mark.promise("drift-is-told")
def test_converges_on_the_cards_rate(ppm: float) -> None:
    rng = random.Random(7)
    clock = SampleClock(RATE)
    period = NS / (RATE * (1 + ppm * 1e-6))
    previous = 0
    for block in range(50 * 120):
        sample = block * 960
        stamp = round(10**15 + sample * period + rng.gauss(0, 300_000))
        clock.observe(sample, stamp)
        now = clock.time_of(sample)
        if block > 1:
            step = now - previous
            assert abs(step - 20_000_000) <= 20_000_000 * MAX_SLEW * 1.01 + 2
        previous = now
        if block > 50 * 60:
            assert abs(now - (10**15 + sample * period)) < 1_500_000
    assert clock.drift_ppm == pytest.approx(ppm, abs=2)


def test_late_stamps_do_not_teach_a_wrong_rate() -> None:
    """One block in ten is stamped up to 30 ms late, as by a thread that was not let run."""
    rng = random.Random(11)
    clock = SampleClock(RATE)
    for block in range(50 * 300):
        late = rng.uniform(0, 30e6) if rng.random() < 0.1 else 0.0
        clock.observe(block * 960, round(block * 960 * NS / (RATE * (1 + 80e-6)) + late))
    assert clock.drift_ppm == pytest.approx(80, abs=5)


def test_the_rate_is_that_of_the_last_minutes() -> None:
    """A card that warms up: what is told follows."""
    clock = SampleClock(RATE)
    stamp = 0.0
    for block in range(50 * 1200):
        ppm = 20.0 if block < 50 * 600 else -30.0
        clock.observe(block * 960, round(stamp))
        stamp += 960 * NS / (RATE * (1 + ppm * 1e-6))
        if block == 50 * 600:
            assert clock.drift_ppm == pytest.approx(20, abs=0.5)
    assert clock.drift_ppm == pytest.approx(-30, abs=0.5)


@pytest.mark.parametrize("ppm", [-200.0, 60.0, 200.0])
@pytest.mark.parametrize("seconds", [9, 12, 16, 22])
def test_the_rate_is_true_from_the_beginning(ppm: float, seconds: int) -> None:
    """Stamps a quarter of a second apart that jitter by a third of a millisecond, as medians of twelve blocks do."""
    rng = random.Random(3)
    clock = SampleClock(RATE)
    for batch in range(4 * seconds):
        sample = batch * RATE // 4
        clock.observe(sample, round(sample * NS / (RATE * (1 + ppm * 1e-6)) + rng.gauss(0, 100_000)))
    assert clock.drift_ppm == pytest.approx(ppm, abs=25)


def test_no_rate_is_told_before_it_is_known() -> None:
    clock = SampleClock(RATE)
    for batch in range(8):
        clock.observe(batch * RATE // 4, batch * NS // 4 + batch % 2 * 1_000_000)
    assert clock.drift_ppm == 0.0
