"""How many frames never came: by the times of those around them, and only where something is known to be lost."""

from __future__ import annotations

from msrecd.clock import MS
from msrecd.media.lostframes import LostFrames

USUAL_NS = 40 * MS


def test_frames_that_came_late_or_seldom_are_no_loss() -> None:
    lost = LostFrames(USUAL_NS)
    assert [lost.missing_before(at * MS)[0] for at in (0, 40, 80, 400, 440)] == [0] * 5


def test_what_was_refused_is_not_counted_twice() -> None:
    lost = LostFrames(USUAL_NS)
    lost.missing_before(0)
    for _ in range(3):
        lost.refuse()
    assert lost.missing_before(400 * MS) == (6, 40 * MS)  # nine places, three of them refused
    assert lost.missing_before(440 * MS)[0] == 0


def test_what_nobody_wanted_is_no_loss() -> None:
    lost = LostFrames(USUAL_NS)
    assert not lost.has_begun
    lost.refuse()
    assert lost.missing_before(0)[0] == 0
    lost.interrupt(is_loss=False)
    assert lost.missing_before(4000 * MS)[0] == 0
    lost.interrupt(is_loss=True)
    assert lost.missing_before(4400 * MS)[0] == 9
