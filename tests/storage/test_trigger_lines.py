"""What triggers found stands in the manifest of the recording, once, and in the lists of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_store import make_store

from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.errors import StorageError
from msrecd.storage import manifest
from msrecd.storage.catalog import open_catalog
from msrecd.storage.store import ChunkFacts, Store
from msrecd.storage.triggerlines import NOTES_LIMIT
from msrecd.storage.verify import Fault, verify
from msrecd.vocabulary.times import parse_utc


def finish(recording: object, *, final: bool) -> None:
    chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())  # type: ignore[attr-defined]
    chunk.write([bytes(1000)])
    chunk.finish(ChunkFacts(final=final, duration_s=1.0, tracks={}))


def lines(store: Store) -> list[dict[str, object]]:
    return [json.loads(line) for path in store.path.rglob("*.jsonl") for line in path.read_text().splitlines()]


def test_each_stands_before_the_chunk_that_is_finished_next(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    recording, begun_ns = store.begin("cam0", "audio/wav"), SYSTEM_CLOCK.monotonic_ns()
    notes = store.recordings.triggers
    notes.begin("cam0", 7, kind="sound", score=9.0, at_ns=begun_ns - 9 * NS)
    notes.end("cam0", 7, at_ns=begun_ns - 8 * NS)  # of an earlier time, when nothing was recorded
    notes.begin("cam0", 0, kind="motion", score=4.256, at_ns=begun_ns - NS)
    notes.begin("other", 0, kind="sound", score=1.0, at_ns=begun_ns)
    finish(recording, final=False)
    assert [next(iter(line)) for line in lines(store)] == ["seq"], "it lasts"
    notes.end("cam0", 0, at_ns=begun_ns + 2 * NS)
    notes.end("cam0", 0, at_ns=begun_ns + 3 * NS)
    notes.begin("cam0", 1, kind="sound", score=15.0, at_ns=begun_ns + NS)
    finish(recording, final=True)
    assert [(line.get("seq"), line.get("trigger"), line.get("score")) for line in lines(store)] == [
        (1, None, None),
        (None, "motion", 4.26),
        (None, "sound", 15.0),
        (2, None, None),
    ], "what lasts at the end of the recording ends with it"
    assert verify(store.path).is_proven
    (motion, _) = [line for line in lines(store) if "trigger" in line]
    assert parse_utc(str(motion["ended"])) - parse_utc(str(motion["started"])) == 3 * NS
    catalog = open_catalog(store.path, store.state_path, store.walltime.corrections)
    (entry,) = catalog.recordings(recorder="cam0")
    assert [(one.kind, one.score) for one in entry.triggers] == [("motion", 4.26), ("sound", 15.0)]
    (entry,) = catalog.recordings(recorder="cam0", until_ns=entry.triggers[1].started_ns - 1)
    assert [one.kind for one in entry.triggers] == ["motion"]
    catalog.close()
    store.close()


def test_what_could_not_be_written_is_written_once_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path)
    store.open()
    recording, at_ns = store.begin("cam0", "audio/wav"), SYSTEM_CLOCK.monotonic_ns()
    chunk = recording.open_chunk(started_ns=at_ns)
    for number in range(2):
        store.recordings.triggers.begin("cam0", number, kind="sound", score=number, at_ns=at_ns)
        store.recordings.triggers.end("cam0", number, at_ns=at_ns + NS)
    chunk.write([bytes(1000)])
    append, left = store.root.append_line, [1]

    def fail_after_one(root: int, place: str, values: dict[str, object]) -> None:
        if not left:
            raise StorageError("no space", "no_space")
        left.pop()
        append(root, place, values)

    monkeypatch.setattr(store.root, "append_line", fail_after_one)
    with pytest.raises(StorageError):
        chunk.finish(ChunkFacts(final=True, duration_s=1.0, tracks={}))
    monkeypatch.setattr(store.root, "append_line", append)
    chunk.finish(ChunkFacts(final=True, duration_s=1.0, tracks={}))
    assert [line.get("score", line.get("seq")) for line in lines(store)] == [0, 1, 1]
    store.close()


def test_however_many_there_are_they_are_bounded(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    for number in range(NOTES_LIMIT + 10):
        store.recordings.triggers.begin("cam0", 0, kind="sound", score=1.0, at_ns=number * NS)
        store.recordings.triggers.end("cam0", 0, at_ns=(number + 1) * NS)
    found = store.recordings.triggers.take("cam0", since_ns=0, until_ns=None)
    assert len(found) == NOTES_LIMIT
    assert parse_utc(found[0]["ended"]) - parse_utc(found[0]["started"]) == 11 * NS, "the oldest became one"
    assert store.recordings.triggers.take("cam0", since_ns=0, until_ns=None) == []


@pytest.mark.parametrize(
    "wrong",
    [{"score": "high"}, {"score": None}, {"started": "yesterday"}, {"ended": 7}, {"trigger": ["motion"]}, {"clock": 1}],
)
def test_a_value_that_is_none_of_ours_makes_the_line_unreadable(wrong: dict[str, object]) -> None:
    right = {"trigger": "motion", "score": 1.5, "started": "2026-11-30T20:00:00Z", "ended": "2026-11-30T20:00:02Z"}
    right |= {"clock": "synchronized"}
    assert len(manifest.read(manifest.encode_line(right, "") + b"\n").triggers) == 1
    contents = manifest.read(manifest.encode_line(right | wrong, "") + b"\n")
    assert (contents.triggers, contents.unreadable) == ((), (1,))


def test_an_edited_line_is_named_and_left_out(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    recording = store.begin("cam0", "audio/wav")
    store.recordings.triggers.begin("cam0", 0, kind="motion", score=4.0, at_ns=SYSTEM_CLOCK.monotonic_ns())
    finish(recording, final=True)
    store.close()
    (path,) = store.path.rglob("*.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"score":4.0', b'"score":1.0'))
    assert manifest.read(path.read_bytes()).triggers == ()
    assert [finding.fault for finding in verify(store.path).findings] == [Fault.EDITED]
