"""Which pictures become key frames."""

from __future__ import annotations

from msrecd.clock import NS
from msrecd.codecs.video import KeyFrames
from msrecd.flow.keyframes import MAX_ASKED

FRAME_NS = NS // 25


def test_a_key_frame_for_now_comes_however_many_are_asked_for_later() -> None:
    """Seen after 64 short recordings within a minute: the next one got none, for each had asked for its cut."""
    keys = KeyFrames(interval_ns=1000 * NS, interval_count=0)
    assert keys.due(0)
    for number in range(10 * MAX_ASKED):
        keys.ask(60 * NS + number * NS)
    keys.ask(2 * FRAME_NS)
    assert [keys.due(number * FRAME_NS) for number in range(1, 5)] == [False, True, False, False]
    assert keys.due(60 * NS)  # the nearest of the others were kept
    assert keys.due(60 * NS + (MAX_ASKED - 2) * NS)
    assert not keys.due(60 * NS + (2 * MAX_ASKED) * NS)


def test_one_that_is_asked_for_twice_comes_once() -> None:
    keys = KeyFrames(interval_ns=1000 * NS, interval_count=0)
    keys.due(0)
    keys.ask(0)
    keys.ask(0)
    assert [keys.due(number * FRAME_NS) for number in range(1, 4)] == [True, False, False]
