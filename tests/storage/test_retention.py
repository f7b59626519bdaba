"""The planner never takes what it must not, and keeps the limits if anything may go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from msrecd.clock import NS
from msrecd.storage.retention import ChunkRef, Limits, ListView, Situation, plan

CHUNKS = st.lists(
    st.tuples(
        st.sampled_from(["cam0", "cam1"]), st.integers(1, 100), st.booleans(), st.booleans(), st.integers(0, 1000)
    ),
    max_size=30,
)
LIMIT = st.none() | st.integers(0, 1500)


@given(CHUNKS, LIMIT, LIMIT, LIMIT, LIMIT, st.booleans(), st.integers(0, 500), st.integers(0, 100))
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
