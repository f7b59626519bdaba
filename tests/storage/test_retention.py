"""The planner never takes what it must not, and keeps the limits if anything may go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from list_view import ListView

from msrecd.clock import NS
from msrecd.storage.retention import ChunkRef, Limits, Situation, plan

CHUNKS = st.lists(
    st.tuples(
        st.sampled_from(["cam0", "cam1"]), st.integers(1, 100), st.booleans(), st.booleans(), st.integers(0, 1000)
    ),
    max_size=30,
)
LIMIT = st.none() | st.integers(0, 1500)


@given(CHUNKS, LIMIT, LIMIT, LIMIT, LIMIT, st.booleans(), st.integers(0, 500), st.integers(0, 100))
@pytest.mark.promise("order-of-rotation")
def test_plans(
    drawn: list[tuple[str, int, bool, bool, int]],
    total: int | None,
    age: int | None,
    free: int | None,
    own_total: int | None,
    trusted: bool,
    free_bytes: int,
    open_bytes: int,
) -> None:
    chunks = [
        ChunkRef(
            recording_id="r",
            recorder=recorder,
            seq=number,
            file=f"{recorder}/{number}",
            bytes=size,
            started_ns=at * NS,
            ended_ns=at * NS,
            trusted=is_trusted,
            protected=protected,
        )
        for number, (recorder, size, protected, is_trusted, at) in enumerate(drawn)
    ]
    situation = Situation(
        age_now_ns=1000 * NS if trusted else None, free_bytes=free_bytes, open_bytes={"cam0": open_bytes}
    )
    own = {"cam0": Limits(max_total_bytes=own_total)}
    limits = Limits(max_total_bytes=total, max_age_s=age, min_free_bytes=free)
    planned = plan(ListView(chunks), limits, own, situation)
    taken = {item.chunk.file for item in planned}
    assert len(taken) == len(planned)
    kept = [chunk for chunk in chunks if chunk.file not in taken]
    assert not any(item.chunk.protected for item in planned)
    for item in planned:
        if item.reason == "max_age":
            assert trusted
            assert item.chunk.trusted
            assert age is not None
            assert item.chunk.ended_ns < (1000 - age) * NS
    loose = [chunk for chunk in kept if not chunk.protected]
    if total is not None and loose:
        assert sum(chunk.bytes for chunk in kept) + open_bytes <= total
    if free is not None and loose:
        assert free_bytes + sum(item.chunk.bytes for item in planned) >= free
    own_loose = [chunk for chunk in loose if chunk.recorder == "cam0"]
    if own_total is not None and own_loose:
        assert sum(chunk.bytes for chunk in kept if chunk.recorder == "cam0") + open_bytes <= own_total
    if (total, age, free, own_total) == (None,) * 4:
        assert not planned


MIB = 1 << 20


def ring(sizes: list[int], *, free: int, headroom: int, files: int = 0, protected: int = 0) -> list[tuple[int, str]]:
    """(seq, reason) of what a ring on a file system that is full lets go; only `max_total` is set, and not reached."""
    chunks = [
        ChunkRef(
            recording_id="r",
            recorder="cam0",
            seq=seq,
            file=f"cam0/{seq}",
            bytes=size,
            started_ns=seq,
            ended_ns=seq,
            trusted=True,
            protected=seq <= protected,
        )
        for seq, size in enumerate(sizes, 1)
    ]
    situation = Situation(
        age_now_ns=None,
        free_bytes=free,
        headroom_bytes=headroom,
        one_chunk_bytes=headroom,
        missing_files=files,
        least_free_bytes=2 * MIB,
    )
    planned = plan(ListView(chunks), Limits(max_total_bytes=1 << 40), {}, situation)
    return [(item.chunk.seq, str(item.reason)) for item in planned]


@pytest.mark.promise("ring-on-a-full-disk")
def test_a_ring_on_a_full_disk_lets_as_few_go_as_recording_needs() -> None:
    assert ring([MIB] * 9, free=0, headroom=MIB) == [(1, "no_space"), (2, "no_space"), (3, "no_space")]
    assert ring([MIB] * 9, free=0, headroom=MIB, protected=4) == [(5, "no_space"), (6, "no_space"), (7, "no_space")]
    assert ring([MIB] * 9, free=3 * MIB, headroom=MIB) == []
    assert ring([MIB] * 9, free=0, headroom=60 * MIB) == [(1, "no_space"), (2, "no_space")]  # not all that is wanted
    assert ring([MIB] * 9, free=2 * MIB, headroom=60 * MIB) == []  # what is open goes on with what is free
    assert ring([MIB] * 9, free=9 * MIB, headroom=MIB, files=2) == [(1, "no_space"), (2, "no_space")]


@pytest.mark.promise("ring-on-a-full-disk")
def test_nothing_goes_where_all_of_it_would_not_let_recording_go_on() -> None:
    assert ring([MIB // 10] * 9, free=0, headroom=MIB) == []
    assert ring([MIB] * 9, free=0, headroom=MIB, protected=8) == []
    assert ring([MIB] * 9, free=9 * MIB, headroom=MIB, files=10) == []
