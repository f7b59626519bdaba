"""Which frames a time-lapse keeps."""

from __future__ import annotations

from itertools import pairwise

import pytest

from msrecd.clock import MS, NS
from msrecd.codecs.lapsegate import LapseGate
from msrecd.vocabulary.lapse import TimeLapse


def kept(times_ns: list[int], *, interval_ns: int = NS, frame_rate: float | None = 30.0) -> list[int]:
    gate = LapseGate(interval_ns, frame_rate)
    return [number for number, at_ns in enumerate(times_ns) if gate.keep(at_ns)]


def test_one_frame_an_interval() -> None:
    assert kept([round(i * NS / 30) for i in range(301)]) == list(range(0, 301, 30))


def test_the_frame_nearest_to_its_time_is_kept() -> None:
    early = [round(i * NS / 30) - (4 * MS if i % 2 else 0) for i in range(301)]
    late = [round(i * NS / 30) + (i % 7) * MS for i in range(301)]
    assert kept(early) == kept(late) == list(range(0, 301, 30))


def test_small_delays_do_not_add_up() -> None:
    """Ten frames a second, and an interval that lies between two of them."""
    numbers = kept([i * NS // 10 for i in range(1301)], interval_ns=1300 * MS, frame_rate=10.0)
    assert numbers == list(range(0, 1301, 13))
    uneven = kept([i * NS // 10 for i in range(1251)], interval_ns=1250 * MS, frame_rate=10.0)
    assert len(uneven) == 101
    assert {after - before for before, after in pairwise(uneven)} == {12, 13}


@pytest.mark.parametrize("stall_ns", [200 * MS, 400 * MS, 900 * MS, 7 * NS])
def test_two_frames_are_never_close(stall_ns: int) -> None:
    """The camera stalls while a frame is due."""
    due_ns = 5 * NS
    times = [at for i in range(600) if not due_ns - 100 * MS <= (at := i * NS // 30) < due_ns + stall_ns]
    captured = [times[number] for number in kept(times)]
    assert min(after - before for before, after in pairwise(captured)) >= 700 * MS
    assert max(captured[0:1] + [b - a for a, b in pairwise(captured) if a >= due_ns + stall_ns + NS]) < 1100 * MS


def test_times_of_playing() -> None:
    lapse = TimeLapse(60.0, 25.0)
    assert [lapse.playing_ns(frame) for frame in (0, 1, 25)] == [0, 40 * MS, NS]
    assert lapse.captured_s(1440 / 25) == 86_400.0
