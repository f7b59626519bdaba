"""Snapshots in the storage: the limits hold for them, a power cut harms none, an index is built with them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from test_store import make_store

from msrecd.cli.recordings.listing import _row as row_of
from msrecd.clock import SYSTEM_CLOCK
from msrecd.errors import StorageError
from msrecd.storage import files, snapshots
from msrecd.storage.catalog import open_catalog
from msrecd.storage.retention import Limits
from msrecd.storage.store import ChunkFacts, Store
from msrecd.storage.verify import verify

JPEG = b"\xff\xd8" + bytes(1000)


def shoot(store: Store, number: int) -> Path:
    written = store.add_snapshot("cam0", JPEG + bytes([number]), taken_ns=SYSTEM_CLOCK.monotonic_ns(), recording=None)
    return store.path / written.line["file"]


def lines(store: Store) -> list[dict[str, object]]:
    return [json.loads(line) for path in store.path.rglob("*.jsonl") for line in path.read_text().splitlines()]


@pytest.mark.effect("manifest-line: deleted", "manifest-line: kind")
@pytest.mark.promise("snapshots-have-limits")
def test_the_oldest_go_first_with_a_line_and_an_index_is_built_with_the_rest(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    taken = [shoot(store, number) for number in range(5)]
    assert store.index.totals() == (5 * len(JPEG) + 5, 0), "bytes count, and they are no chunks"
    store.limits = Limits(max_total_bytes=3 * len(JPEG) + 10, min_free_bytes=0)
    assert [entry.seq for entry in store.rotate()] == [-1, -2]
    assert [path.exists() for path in taken] == [False, False, True, True, True]
    gone = [line for line in lines(store) if "deleted" in line]
    assert [(line["deleted"], line["kind"], line["reason"]) for line in gone] == [
        (1, "snapshot", "max_total"),
        (2, "snapshot", "max_total"),
    ]
    store.close()
    verdict = verify(tmp_path / "recordings")
    assert (verdict.is_proven, verdict.chunks, verdict.snapshots) == (True, 0, 3)
    for path in (tmp_path / "state").rglob("index.sqlite*"):
        path.unlink()
    store = make_store(tmp_path)
    store.open()
    assert store.index.totals() == (3 * len(JPEG) + 3, 0)
    store.close()


@pytest.mark.promise("protected-snapshots")
def test_those_of_a_protected_recording_are_kept(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    recording = store.begin("cam0", "audio/wav")
    chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    chunk.write([bytes(1000)])
    chunk.finish(ChunkFacts(final=False, duration_s=1.0, tracks={}))
    shot = store.add_snapshot("cam0", JPEG, taken_ns=SYSTEM_CLOCK.monotonic_ns(), recording=recording)
    assert shot.recording_id == recording.recording_id
    store.protections.protect(recording.recording_id)
    late = store.add_snapshot("cam0", JPEG, taken_ns=SYSTEM_CLOCK.monotonic_ns(), recording=recording)
    store.limits = Limits(max_total_bytes=1, min_free_bytes=0)
    assert store.rotate() == []
    store.protections.unprotect(recording.recording_id)
    assert len(store.rotate()) == 3
    assert not (store.path / late.line["file"]).exists()
    recording.close()
    store.close()


@pytest.mark.parametrize("moment", ["before the line", "behind the line"])
@pytest.mark.promise("snapshot-line-comes-first")
def test_a_power_cut_leaves_no_snapshot_that_no_manifest_knows(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path)
    store.open()
    shoot(store, 0)

    def cut(*_: object) -> None:
        raise SystemExit  # what follows does not happen, the clean-up neither

    with monkeypatch.context() as patch:
        if moment == "before the line":
            patch.setattr(store.root, "append_line", cut)
        else:
            patch.setattr(files, "rename_new", cut)
        patch.setattr(snapshots.os, "unlink", lambda *_, **__: None)
        with pytest.raises(SystemExit):
            shoot(store, 1)
    store.close()
    store = make_store(tmp_path)
    store.open()
    there = sorted(path.name.rpartition("-")[2] for path in store.path.rglob("*.jpg*"))
    assert there == (["0001.jpg"] if moment == "before the line" else ["0001.jpg", "0002.jpg"])
    assert store.index.totals()[0] == len(there) * (len(JPEG) + 1)
    store.close()
    assert verify(tmp_path / "recordings").findings == ()


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path)
    store.open()

    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_all", full)
        with pytest.raises(StorageError, match="No space left"):
            shoot(store, 0)
    assert not list(store.path.rglob("*.jpg*"))
    store.close()


@pytest.mark.parametrize("is_trusted", [True, False])
def test_the_time_of_a_snapshot_is_as_doubtful_as_that_of_a_chunk(tmp_path: Path, is_trusted: bool) -> None:
    store = make_store(tmp_path, trusted=is_trusted)
    store.open()
    shoot(store, 1)
    catalog = open_catalog(tmp_path / "recordings", tmp_path / "state", store.walltime.corrections)
    (entry,) = catalog.recordings()
    catalog.close()
    store.close()
    assert [shot.is_doubtful for shot in entry.snapshots] == [not is_trusted]
    assert row_of(entry, "")[-1] == ("1 snapshot" if is_trusted else "clock not trusted, 1 snapshot")
