"""Black that stands in for pictures: told with its seconds, and accounted in every chunk that it reaches into."""

from __future__ import annotations

from msrecd.clock import NS
from msrecd.muxing.facts import ChunkInfo
from msrecd.recorder.black import Black, gaps_within


def chunk(begin_s: float, end_s: float, *, duration_s: float | None = None) -> ChunkInfo:
    return ChunkInfo(
        chunk=1,
        started_ns=round(begin_s * NS),
        ended_ns=round(end_s * NS),
        duration_s=end_s - begin_s if duration_s is None else duration_s,
        bytes=1,
        tracks=(),
    )


def gap(at_s: float, duration_s: float) -> dict[str, object]:
    return {"at_s": at_s, "duration_s": duration_s, "reason": "no_frames"}


def test_every_chunk_that_it_reaches_into_tells_its_part() -> None:
    black = Black()
    black.muted(8 * NS)
    assert black.gaps(chunk(0, 10)) == [gap(8.0, 2.0)]
    assert black.gaps(chunk(10, 20)) == [gap(0.0, 10.0)], "it is black still"
    assert black.unmuted(23 * NS) == 15.0
    assert black.gaps(chunk(20, 30)) == [gap(0.0, 3.0)]
    assert black.gaps(chunk(30, 40)) == []
    assert black.gaps(None) == []


def test_what_is_paused_loses_nothing() -> None:
    black = Black()
    black.muted(2 * NS)
    assert black.paused(5 * NS) == 3.0
    black.resumed(60 * NS)
    assert black.unmuted(61 * NS) == 1.0
    assert black.gaps(chunk(0, 65, duration_s=10.0)) == [gap(2.0, 3.0), gap(10.0, 1.0)]


def test_a_camera_that_comes_back_during_a_pause_is_not_black_after_it() -> None:
    black = Black()
    black.muted(2 * NS)
    assert black.paused(5 * NS) == 3.0
    assert black.unmuted(10 * NS) == 0.0
    black.resumed(60 * NS)
    assert black.unmuted(4000 * NS) == 0.0
    assert gaps_within([], chunk(0, 10)) == []


def test_a_camera_that_goes_during_a_pause_is_black_after_it() -> None:
    black = Black()
    black.muted(2 * NS, paused=True)
    assert black.gaps(chunk(0, 10)) == []
    black.resumed(60 * NS)
    assert black.paused(63 * NS) == 3.0


def test_no_time_is_no_loss() -> None:
    black = Black()
    assert black.unmuted(1) == 0.0
    black.muted(NS)
    assert black.unmuted(NS + 1000) == 0.0
    assert black.gaps(chunk(0, 10)) == []
    for second in range(2, 1000):
        black.muted(second * NS)
        black.unmuted(second * NS + NS // 2)
    assert len(black.gaps(chunk(0, 2000))) == 64
