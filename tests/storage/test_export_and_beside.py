"""Answers about what is there: export plans, without an index, beside a daemon; unfinished chunks anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import storage_media
from test_store import index_of, make_store, record

from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.clock.wall import Corrections
from msrecd.errors import StorageError
from msrecd.storage import files, tree
from msrecd.storage.catalog import Catalog, open_catalog
from msrecd.storage.medium import open_medium
from msrecd.storage.retention import Limits
from msrecd.storage.store import ChunkFacts, Store


def timed(store: Store, recorder: str, spans: list[tuple[float, float]], gaps: list[dict] | None = None) -> int:
    """One recording with a chunk for each (start, end) in seconds from the returned moment (UTC, ns)."""
    zero = SYSTEM_CLOCK.monotonic_ns()
    zero_utc = store.walltime.stamp(zero).utc_ns
    recording = store.begin(recorder, "video/mp4")
    for number, (start, end) in enumerate(spans):
        chunk = recording.open_chunk(started_ns=zero + round(start * NS))
        chunk.write([storage_media.make("mp4")])
        facts = ChunkFacts(
            final=number == len(spans) - 1,
            duration_s=end - start,
            ended_ns=zero + round(end * NS),
            tracks={},
            gaps=(gaps or []) if number == 0 else [],
        )
        chunk.finish(facts)
    return zero_utc


def spans_of(entries: list, zero: int) -> list[tuple[float, float]]:
    return [(round((e.started_ns - zero) / NS, 1), round((e.ended_ns - zero) / NS, 1)) for e in entries]


@pytest.mark.parametrize("indexed", [True, False])
def test_an_export_has_the_chunks_of_the_range_and_names_what_is_missing(tmp_path: Path, indexed: bool) -> None:
    store = make_store(tmp_path)
    store.open()
    gap = {"at_s": 2.0, "duration_s": 1.0, "reason": "device_missing"}
    zero = timed(store, "cam0", [(0, 10), (10, 20), (25, 30)], [gap])
    timed(store, "cam1", [(0, 100)])
    store.close()
    catalog = (
        open_catalog(tmp_path / "recordings", tmp_path / "state", Corrections())
        if indexed
        else Catalog(open_medium(tmp_path / "recordings", tmp_path / "state", create=False), None, Corrections())
    )
    chunks, gaps = catalog.export_plan("cam0", zero + 1 * NS, zero + 35 * NS)
    assert spans_of(chunks, zero) == [(0, 10), (10, 20), (25, 30)]
    found = {(round((g.started_ns - zero) / NS, 1), round(g.duration_s, 1)) for g in gaps}
    assert found == {(20.0, 5.0), (30.0, 5.0)}  # a gap inside a chunk is in its file
    chunks, gaps = catalog.export_plan("cam0", zero + 11 * NS, zero + 19 * NS)
    assert spans_of(chunks, zero) == [(10, 20)]
    assert gaps == []
    chunks, gaps = catalog.export_plan("cam0", zero + 1000 * NS, zero + 1010 * NS)
    assert chunks == []
    assert [g.duration_s for g in gaps] == [10.0]
    assert [entry.recorder for entry in catalog.recordings()] == ["cam0", "cam1"]
    assert [entry.recorder for entry in catalog.recordings(recorder="cam1")] == ["cam1"]
    assert catalog.recordings(until_ns=zero - 60 * NS) == []
    catalog.close()


def test_a_stale_index_is_not_asked(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    record(store, 2)
    store.close()
    index_of(tmp_path).write_bytes(b"rubbish")
    catalog = open_catalog(tmp_path / "recordings", tmp_path / "state", Corrections())
    (entry,) = catalog.recordings()
    assert [chunk.seq for chunk in entry.chunks] == [1, 2]
    catalog.close()


def test_a_command_beside_a_daemon_rotates_and_touches_nothing_open(tmp_path: Path) -> None:
    size = len(storage_media.make("mp4"))
    daemon = make_store(tmp_path)
    daemon.open()
    record(daemon, 3)
    recording = daemon.begin("cam0", "video/mp4")
    chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    chunk.write([storage_media.make("mp4")])
    beside = make_store(tmp_path, limits=Limits(max_total_bytes=size, min_free_bytes=0))
    beside.open_beside()
    assert [entry.seq for entry in beside.rotate()] == [1, 2]
    beside.close()
    assert chunk.path.exists()
    assert daemon.index.totals() == (size, 1)
    line = chunk.finish(ChunkFacts(final=True))
    assert (tmp_path / "recordings" / line["file"]).exists()
    daemon.close()


def test_a_command_makes_no_storage(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        make_store(tmp_path).open_beside()
    assert caught.value.code == "not_found"
    assert not (tmp_path / "recordings").exists()


def test_parts_are_found_everywhere_when_asked(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    line = record(store, 1)[0]
    store.close()
    root = tmp_path / "recordings"
    name = Path(line["file"]).name
    old = root / "cam0" / "2020" / "01" / "01"
    places = [old, root / "cam0" / "2021" / "02" / "03", root / "cam0" / "boot0001", root / "cam0" / "boot0002"]
    for folder in places:
        folder.mkdir(parents=True)
        (folder / f"{name}.part").write_bytes(storage_media.make("mp4"))
    (old / "foreign.part").write_bytes(b"x")
    (old / f"{name.replace('cam0', 'cam9')}.part").write_bytes(b"x")
    with files.closing_fd(files.open_root(root)) as fd:
        near = {f"cam0/{day}" for day in tree.newest_days(fd, "cam0")}
    assert "cam0/boot0002" in near
    assert "cam0/boot0001" not in near
    store = make_store(tmp_path)
    assert {found.file for found in store.unfinished()} == {f"{place.relative_to(root)}/{name}" for place in places}
