from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrecd.clock import MS, NS
from msrecd.devices.alsa.backend import nearest_not_smaller, period_samples, periods, widen_24
from msrecd.devices.alsa.sample_clock import SampleClock, Stamp

RATE = 48000
START = 1000 * NS


class Card:
    """Samples come at RATE from START on; the reader takes blocks of 1024."""

    def __init__(self, clock: SampleClock, *, jitter_ns: int = 0, seed: int = 1) -> None:
        self.clock = clock
        self.taken = 0
        self.shift_ns = 0
        self._random = random.Random(seed)
        self._jitter_ns = jitter_ns

    def block(
        self, *, skipped: int = 0, overrun: bool = False, samples: int = 1024, avail: int = 7
    ) -> tuple[int, Stamp]:
        """The true time of the block's first sample, and its stamp."""
        self.taken += skipped
        true_ns = START + self.shift_ns + self.taken * NS // RATE
        ts_ns = true_ns + (samples + avail) * NS // RATE + self._random.randint(0, self._jitter_ns)
        self.taken += samples
        stamp = self.clock.stamp(now_ns=ts_ns + MS, ts_ns=ts_ns, avail=avail, samples=samples, overrun=overrun)
        return true_ns, stamp


def make(**kwargs: int) -> Card:
    return Card(SampleClock(sample_rate=RATE, buffer_samples=32768), **kwargs)


def test_a_block_begins_where_its_samples_did() -> None:
    card = make()
    for avail in (0, 1, 500, 30000):
        true_ns, stamp = card.block(avail=avail)
        assert abs(stamp.pts_ns - true_ns) <= 2
        assert stamp.lost_before == 0


@given(lost=st.integers(1, 500_000), before=st.integers(1, 60), seed=st.integers())
def test_an_overrun_costs_what_the_timestamps_say(lost: int, before: int, seed: int) -> None:
    card = make(jitter_ns=100_000, seed=seed)
    for _ in range(before):
        card.block()
    _, stamp = card.block(skipped=lost, overrun=True)
    assert abs(stamp.lost_before - lost) <= 5  # 0.1 ms of jitter
    assert card.block()[1].lost_before == 0


def test_an_overrun_before_the_first_block_costs_nothing() -> None:
    assert make().block(overrun=True)[1].lost_before == 0


def test_an_overrun_never_takes_time_back() -> None:
    card = make()
    card.block()
    card.shift_ns = -5 * MS
    assert card.block(overrun=True)[1].lost_before == 0


def test_late_readings_are_no_losses() -> None:
    """A timestamp taken by the reader is late when the reader was; three such in a row mean nothing yet."""
    card = make()
    for index in range(200):
        card.shift_ns = 80 * MS if index % 7 in {1, 2, 3} else 0
        assert card.block()[1].lost_before == 0


def test_a_gap_that_stays_is_a_loss() -> None:
    card = make()
    for _ in range(20):
        card.block()
    stamps = [card.block(skipped=9600 if index == 0 else 0)[1] for index in range(10)]
    assert [s.lost_before for s in stamps if s.lost_before] == pytest.approx([9600], abs=3)
    assert stamps[3].lost_before


@pytest.mark.parametrize("ppm", [-500, 500])
def test_drift_is_no_loss(ppm: int) -> None:
    card = make()
    for index in range(20_000):  # seven minutes: 200 ms of drift
        card.shift_ns = index * 1024 * ppm * 1000 // RATE
        assert card.block()[1].lost_before == 0


@pytest.mark.parametrize(
    ("ts_ns", "avail"),
    [(0, 0), (1_700_000_000 * NS, 0), (START - 60 * NS, 0), (START, 139_991_909_777_152), (START, -1)],
)
def test_rubbish_is_replaced_by_the_time_of_reading(ts_ns: int, avail: int) -> None:
    clock = SampleClock(sample_rate=RATE, buffer_samples=32768)
    stamp = clock.stamp(now_ns=START, ts_ns=ts_ns, avail=avail, samples=4800, overrun=False)
    assert stamp.pts_ns == START - 100 * MS
    assert clock.fallbacks == 1


@given(st.lists(st.integers(-(1 << 23), (1 << 23) - 1), max_size=50), st.booleans())
def test_widening_is_exact(values: list[int], packed: bool) -> None:
    data = b"".join(value.to_bytes(3 if packed else 4, "little", signed=True) for value in values)
    wide = widen_24(data, packed=packed)
    assert [int.from_bytes(wide[at : at + 4], "little", signed=True) for at in range(0, len(wide), 4)] == [
        value << 8 for value in values
    ]


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000, 192000, 384000])
def test_periods_last_20_to_41_ms_and_make_half_a_second(rate: int) -> None:
    period = period_samples(rate)
    assert 0.02 <= period / rate <= 0.047
    assert period * periods(rate, period) >= 0.5 * rate


def test_nearest_not_smaller() -> None:
    offered = (48000, 8000, 44100, 96000)
    assert nearest_not_smaller(None, offered) == 48000
    assert nearest_not_smaller(44000, offered) == 44100
    assert nearest_not_smaller(200_000, offered) == 96000
    assert nearest_not_smaller(1, offered) == 8000
