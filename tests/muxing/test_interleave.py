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
