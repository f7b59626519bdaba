"""Interleaver: one order of decoding time, bounded waiting."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from msrecd.flow.units import Packet
from msrecd.muxing.interleave import Interleaver

MS = 1_000_000


def packet(at_ms: int) -> Packet:
    return Packet(pts_ns=at_ms * MS, dts_ns=at_ms * MS, duration_ns=MS, is_keyframe=True, data=b"x")


def times(interleaver: Interleaver, *, flush: bool = False) -> list[tuple[int, int]]:
    return [(track, unit.dts_ns // MS) for track, unit in interleaver.ready(flush=flush)]


def test_waits_for_the_track_that_may_still_be_earlier() -> None:
    merged = Interleaver(2)
    merged.push(0, packet(0))
    merged.push(0, packet(40))
    assert times(merged) == []
    merged.push(1, packet(20))
    assert times(merged) == [(0, 0), (1, 20)]
    merged.push(1, packet(60))
    assert times(merged) == [(0, 40)]


def test_an_ended_track_is_not_waited_for() -> None:
    merged = Interleaver(2)
    merged.push(0, packet(5))
    merged.end(1)
    assert times(merged) == [(0, 5)]
    merged.end(0)
    assert merged.all_ended


def test_a_silent_track_is_waited_for_only_so_long() -> None:
    merged = Interleaver(2, max_lead_ns=100 * MS)
    for at in range(0, 200, 10):
        merged.push(0, packet(at))
    assert times(merged)[-1] == (0, 90)


def test_flush_gives_the_rest_in_order() -> None:
    merged = Interleaver(2)
    merged.push(0, packet(10))
    merged.push(0, packet(30))
    merged.push(1, packet(20))
    assert times(merged, flush=True) == [(0, 10), (1, 20), (0, 30)]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 50)), max_size=80))
def test_every_packet_once_and_in_order(pushes: list[tuple[int, int]]) -> None:
    merged = Interleaver(3)
    clock = [0, 0, 0]
    out: list[tuple[int, int]] = []
    for track, step in pushes:
        clock[track] += step
        merged.push(track, packet(clock[track]))
        out += times(merged)
    out += times(merged, flush=True)
    assert len(out) == len(pushes)
    assert [at for _, at in out] == sorted(at for _, at in out)


def test_a_late_encoder_is_waited_for_while_it_has_something_earlier() -> None:
    """Short of time, an encoder of pictures was three seconds behind: sound must not run ahead into another chunk."""
    coming: dict[int, int] = {0: 0}
    merged = Interleaver(2, max_bytes=1000, coming=lambda track: coming.get(track))
    for at_ms in range(0, 3000, 20):
        merged.push(1, packet(at_ms))
    assert times(merged) == []
    merged.push(0, packet(0))
    coming[0] = 2500 * MS  # the rest was refused by its queue
    ready = times(merged)
    assert ready[:2] == [(0, 0), (1, 0)]
    assert ready[-1] == (1, 980)  # as long as two seconds of nothing are waited for
    del coming[0]
    assert times(merged) == []


def test_waiting_for_a_late_encoder_is_bounded_in_time_and_bytes() -> None:
    merged = Interleaver(2, max_bytes=100, coming=lambda _: 0)
    for at_ms in range(0, 2020, 20):
        merged.push(1, packet(at_ms))
    assert len(times(merged)) == 1  # a hundred bytes may wait
    merged = Interleaver(2, max_wait_ns=5000 * MS, coming=lambda _: 0)
    for at_ms in range(0, 5040, 20):
        merged.push(1, packet(at_ms))
    assert times(merged) == [(1, 0), (1, 20)]
