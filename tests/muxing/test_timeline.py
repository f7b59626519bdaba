"""The recording's own time line."""

from __future__ import annotations

from msrecd.muxing.timeline import Timeline

MS = 1_000_000


def test_paused_time_is_absent() -> None:
    line = Timeline(1)
    line.start(1000 * MS)
    line.written(0, line.place(1040 * MS), line.place(1080 * MS))
    line.resume(5000 * MS, line.end_ns)
    assert line.place(5000 * MS) == 80 * MS
    assert line.capture_of(80 * MS) == 5000 * MS


def test_a_packet_may_overlap_by_half_but_not_more() -> None:
    line = Timeline(2)
    line.start(0)
    line.written(0, 0, 20 * MS)
    assert line.accepts(0, 20 * MS, 20 * MS)
    assert line.accepts(0, 10 * MS, 20 * MS)
    assert not line.accepts(0, 9 * MS, 20 * MS)
    assert not line.accepts(0, 0, 20 * MS)
    assert line.accepts(1, 0, 20 * MS)
