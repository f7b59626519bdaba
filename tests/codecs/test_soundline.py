"""SoundLine: what lacks becomes silence, wrong stamps change nothing, and all of it is counted."""

from __future__ import annotations

import random

import pytest

from msrecd.codecs.soundline import MAX_SILENCE_S, Run, SoundLine
from msrecd.flow.encoded import EncodingFacts
from msrecd.flow.units import AudioBlock, AudioFormat

NS = 1_000_000_000
MS = 1_000_000
RATE = 8_000
FORMAT = AudioFormat(sample_rate=RATE, channels=1)
BLOCK = 160  # 20 ms


def block(number: int, *, late_ms: float = 0, lost: int = 0, samples: int = BLOCK) -> AudioBlock:
    """The numbered block; its samples hold the number."""
    return AudioBlock(
        pts_ns=NS + number * 20 * MS + round(late_ms * MS),
        format=FORMAT,
        samples=samples,
        data=number.to_bytes(2, "little") * samples,
        lost_before=lost,
    )


class Line:
    """A line and all that came out of it, silence as 0xffff."""

    def __init__(self) -> None:
        self.facts = EncodingFacts()
        self.line = SoundLine(FORMAT, self.facts)
        self.out: list[int] = []
        self.silences: list[tuple[int, int]] = []

    def add(self, *blocks: AudioBlock) -> None:
        self._take(self.line.add(blocks))

    def end(self) -> None:
        self._take(self.line.end())

    @property
    def lost(self) -> list[tuple[int, int]]:
        """(where it begins, to the millisecond; samples) of what lacks."""
        losses = [loss for _, loss in self.facts.losses.behind(0)]
        return [(round(loss.at_ns / MS) * MS, round(loss.duration_ns * RATE / NS)) for loss in losses]

    def _take(self, runs: list[Run]) -> None:
        for run in runs:
            if run.data is None:
                self.silences.append((len(self.out), run.samples))
                self.out += [0xFFFF] * run.samples
            else:
                assert len(run.data) == run.samples * FORMAT.frame_bytes
                self.out += memoryview(run.data).cast("H").tolist()
        assert len(self.out) == self.line.samples


def test_blocks_join() -> None:
    line = Line()
    line.add(*(block(number) for number in range(12)))
    line.add(block(12))
    line.end()
    assert line.out == [number for number in range(13) for _ in range(BLOCK)]
    assert line.lost == []
    assert line.facts.dropped == 0


@pytest.mark.promise("overrun-is-silence")
def test_an_announced_loss_becomes_silence_of_its_length() -> None:
    line = Line()
    line.add(block(0), block(1), block(7, lost=5 * BLOCK), block(8))
    assert line.silences == [(2 * BLOCK, 5 * BLOCK)]
    assert line.lost == [(NS + 40 * MS, 5 * BLOCK)]
    assert line.line.time_of(7 * BLOCK) == pytest.approx(NS + 140 * MS, abs=1000)


@pytest.mark.promise("unannounced-loss")
def test_a_loss_that_nobody_announced_is_believed_when_four_blocks_say_so() -> None:
    line = Line()
    line.add(*(block(number) for number in range(50)))
    line.add(*(block(number) for number in range(60, 63)))
    assert not line.silences
    line.add(block(63))
    line.end()
    assert line.silences == [(50 * BLOCK, 10 * BLOCK)]
    assert line.out[60 * BLOCK :: BLOCK] == [60, 61, 62, 63]
    assert line.lost == [(NS + 1000 * MS, 10 * BLOCK)]


@pytest.mark.parametrize("late_ms", [90.0, 3000.0, -90.0])
@pytest.mark.promise("wrong-stamps")
def test_wrong_stamps_of_single_blocks_change_nothing(late_ms: float) -> None:
    """A starved thread stamps late, a card that hangs stamps early: no silence in it and nothing cut out of it."""
    line = Line()
    rng = random.Random(5)
    wrong = 0
    for number in range(2000):
        is_wrong = wrong < 3 and rng.random() < 0.1
        wrong = wrong + 1 if is_wrong else 0
        line.add(block(number, late_ms=late_ms if is_wrong else rng.uniform(-1, 1)))
    line.end()
    assert line.out == [number for number in range(2000) for _ in range(BLOCK)]
    assert line.lost == []
    assert line.facts.dropped == 0
    assert line.line.time_of(1999 * BLOCK) == pytest.approx(NS + 1999 * 20 * MS, abs=2 * MS)


def test_more_sound_than_time_is_cut_and_counted() -> None:
    line = Line()
    line.add(*(block(number) for number in range(50)))
    line.add(*(block(number - 10) for number in range(50, 60)))  # a tenth of a second twice
    line.add(*(block(number) for number in range(50, 60)))
    line.end()
    assert line.facts.dropped == 1
    assert line.out[-10 * BLOCK :: BLOCK] == list(range(50, 60))
    assert len(line.out) == 60 * BLOCK


@pytest.mark.promise("long-hole")
def test_a_long_hole_stays_open_and_the_times_jump() -> None:
    line = Line()
    line.add(*(block(number) for number in range(50)))
    away = 50 * (MAX_SILENCE_S + 40)
    line.add(*(block(50 + away + number) for number in range(50)))
    assert not line.silences
    assert len(line.out) == 100 * BLOCK
    assert line.lost == [(NS + 1000 * MS, away * BLOCK)]
    assert line.line.time_of(50 * BLOCK - 1) == pytest.approx(NS + 50 * 20 * MS, abs=MS)
    assert line.line.time_of(50 * BLOCK) == pytest.approx(NS + (50 + away) * 20 * MS, abs=MS)
    assert line.line.closed_time_of(99 * BLOCK) == pytest.approx(NS + 99 * 20 * MS, abs=MS)


def test_what_is_lost_at_random_is_counted_and_the_rest_lies_where_it_belongs() -> None:
    rng = random.Random(3)
    line = Line()
    number, lost, announced = 0, 0, 0
    while number < 5000:
        if number and rng.random() < 0.01:
            gone = rng.randrange(3, 100)
            number += gone
            lost += gone
            if rng.random() < 0.5:
                announced += gone
                line.add(block(number, lost=gone * BLOCK, late_ms=rng.uniform(-2, 2)))
                number += 1
                continue
        for _ in range(4):
            line.add(block(number, late_ms=rng.uniform(-2, 2)))
            number += 1
    line.end()
    assert announced
    assert sum(samples for _, samples in line.lost) == pytest.approx(lost * BLOCK, abs=0.02 * lost * BLOCK)
    off = [at - value * BLOCK for at, value in enumerate(line.out) if value != 0xFFFF]
    assert max(map(abs, off)) < BLOCK + 0.02 * RATE
