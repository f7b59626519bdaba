"""Where the packets of a played input lie in time: paced, looped, paused, late."""

from __future__ import annotations

import threading
from itertools import pairwise

from msrecd import libav
from msrecd.clock import MS, NS
from msrecd.media.inputline import InputLine


class HandClock:
    """Goes as far as it is put."""

    def __init__(self) -> None:
        self.now_ns = 1000 * NS

    def monotonic_ns(self) -> int:
        return self.now_ns

    def realtime_ns(self) -> int:
        return self.now_ns

    def wait_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        self.now_ns = max(self.now_ns, deadline_ns)
        return stop.is_set()


def packet(number: int, stream: int = 0) -> libav.Demuxed:
    return libav.Demuxed(stream, b"x", number * 40 * MS, number * 40 * MS, 40 * MS, True)


def placed(line: InputLine, number: int) -> int:
    times = line.place(packet(number), 40 * MS)
    assert times is not None
    return times[1]


def test_a_loop_has_no_hole_also_when_the_thread_is_late() -> None:
    clock = HandClock()
    line = InputLine(False, clock)
    begun = placed(line, 0)
    assert begun == clock.now_ns
    times = [begun, *(placed(line, number) for number in range(1, 10))]
    for late_ns in (0, 300 * MS, -300 * MS):
        clock.now_ns = times[-1] + 40 * MS + late_ns
        line.continue_after_rewind()
        times += [placed(line, number) for number in range(10)]
    assert [b - a for a, b in pairwise(times)] == [40 * MS] * (len(times) - 1)


def test_a_thread_that_was_away_for_long_begins_anew() -> None:
    clock = HandClock()
    line = InputLine(False, clock)
    placed(line, 0)
    clock.now_ns += 60 * NS
    line.continue_after_rewind()
    assert placed(line, 0) == clock.now_ns


def test_a_pause_moves_what_follows() -> None:
    clock = HandClock()
    line = InputLine(False, clock)
    begun = placed(line, 0)
    assert line.pause(clock.now_ns)
    clock.now_ns += 5 * NS
    line.go_on()
    assert placed(line, 1) == begun + 5 * NS + 40 * MS


def test_what_was_played_before_a_pause_comes_before_it() -> None:
    """Packets are delivered some at a time: those of before the pause must not be dated after it, nor lengthen it."""
    clock = HandClock()
    line = InputLine(False, clock)
    begun = placed(line, 0)
    paused_ns = begun + 130 * MS
    clock.now_ns += 300 * MS  # the thread hears of it only when its batch is due
    times = []
    number = 1
    while not line.pause(paused_ns):
        times.append(placed(line, number))
        number += 1
    assert times == [begun + 40 * MS, begun + 80 * MS, begun + 120 * MS]
    clock.now_ns = resumed_ns = begun + 900 * MS
    line.go_on()
    assert placed(line, number) == begun + number * 40 * MS + resumed_ns - paused_ns >= resumed_ns


def test_a_live_input_that_runs_away_is_laid_anew() -> None:
    clock = HandClock()
    line = InputLine(True, clock)
    placed(line, 0)
    clock.now_ns += 3 * NS
    assert placed(line, 1) == clock.now_ns


def test_what_goes_backwards_has_no_place() -> None:
    line = InputLine(False, HandClock())
    placed(line, 5)
    assert line.place(packet(5), 40 * MS) is None
    assert line.place(packet(5, stream=1), 40 * MS) is not None
