"""From scores to events."""

from __future__ import annotations

from msrecd.triggers.decide import HOUR_NS, MOTION, Progress, Sample, may_begin, step, within_the_hour

NS = 1_000_000_000


def changes(scores: str, *, period_s: float = 0.2) -> list[tuple[str, float]]:
    """What becomes of samples: `#` reaches the threshold, `+` only keeps an event alive, `.` is quiet."""
    progress = Progress()
    found: list[tuple[str, float]] = []
    for number, mark in enumerate(scores):
        at_ns = round(number * period_s * NS)
        score = {"#": 10.0, "+": 7.5, ".": 0.0}[mark]
        progress, change = step(MOTION, progress, Sample(at_ns, score, 10.0))
        if change:
            found.append((change, round(number * period_s, 1)))
    return found


def test_three_of_five_begin_and_a_second_of_quiet_ends() -> None:
    assert changes("..##.#.......") == [("begin", 1.0), ("end", 2.0)]


def test_two_looks_are_no_event() -> None:
    assert changes("..##....##...#") == []


def test_what_is_a_little_below_keeps_an_event_and_begins_none() -> None:
    assert changes("+++++++") == []
    assert changes("###+++++++++++.....") == [("begin", 0.4), ("end", 3.6)]


def test_key_frames_that_are_far_apart_count_each_by_itself() -> None:
    assert changes(".#....", period_s=1.0) == [("begin", 1.0), ("end", 2.0)]


def test_the_event_began_with_its_first_sample() -> None:
    progress = Progress()
    for number in range(3):
        progress, change = step(MOTION, progress, Sample(number * NS // 5, 10.0, 10.0))
    assert change == "begin"
    assert progress.since_ns == 0


def test_so_many_recordings_an_hour() -> None:
    begun = (0, NS, 2 * NS)
    assert not may_begin(begun, 10 * NS, 3)
    assert may_begin(begun, HOUR_NS, 3), "the first one is more than an hour ago"
    assert within_the_hour(begun, HOUR_NS + NS) == (2 * NS,)
