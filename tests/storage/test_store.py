"""Recordings on a real file system: names, manifests, recovery, rotation."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import wave
from pathlib import Path

import av
import pytest
import storage_media

from msrecd.clock import NS, SYSTEM_CLOCK, Clock
from msrecd.clock.wall import WallTime
from msrecd.errors import StorageError
from msrecd.storage.chunkfile import ChunkFile
from msrecd.storage.retention import Limits
from msrecd.storage.store import ChunkFacts, Store
from msrecd.storage.verify import verify


def make_store(
    base: Path,
    *,
    trusted: bool = True,
    limits: Limits | None = None,
    recorder_limits: dict[str, Limits] | None = None,
    walltime: WallTime | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Store:
    return Store(
        base / "recordings",
        base / "state",
        limits=limits or Limits(),
        recorder_limits=recorder_limits or {},
        sync_interval_s=0.5,
        walltime=walltime or WallTime(base / "state", trusted=trusted, clock=clock),
        clock=clock,
    )


def index_of(base: Path) -> Path:
    """The index of the only medium that was used."""
    (path,) = (base / "state").rglob("index.sqlite")
    return path


def record(store: Store, chunks: int, data: bytes | None = None) -> list[dict]:
    recording = store.begin("cam0", "video/mp4")
    lines = []
    for number in range(chunks):
        chunk = recording.open_chunk(started_ns=store.clock.monotonic_ns())
        chunk.write([data if data is not None else storage_media.make("mp4")])
        lines.append(chunk.finish(ChunkFacts(final=number == chunks - 1, duration_s=2.0, tracks={})))
    return lines


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.promise("unset-clock")
@pytest.mark.promise("modes-of-recordings")
@pytest.mark.promise("a-folder-for-a-day")
def test_a_finished_chunk_has_its_name_its_hash_and_its_line(tmp_path: Path, trusted: bool) -> None:
    store = make_store(tmp_path, trusted=trusted)
    assert store.open() == []
    lines = record(store, 3)
    store.close()
    assert [line["seq"] for line in lines] == [1, 2, 3]
    root = tmp_path / "recordings"
    prev = ""
    (manifest,) = root.rglob("*.jsonl")
    for raw, line in zip(manifest.read_bytes().splitlines(), lines, strict=True):
        own = hashlib.sha256(raw[: raw.index(b',"line_sha256"')] + b"}").hexdigest()
        assert json.loads(raw) == {**line, "prev": prev, "line_sha256": own}
        prev = hashlib.sha256(raw).hexdigest()
        file = root / line["file"]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == line["sha256"]
        assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o640, 0o750)
        day = line["started"][:10].replace("-", "/")
        assert not trusted or line["file"].startswith(f"cam0/{day}/{day.replace('/', '')}T")
        assert file.parent == manifest.parent
        assert line["clock"] == ("synchronized" if trusted else "unsynchronized")
    assert manifest.parent.name.startswith("boot") != trusted
    assert not list(root.rglob("*.part"))


@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.promise("wav-says-its-length")
def test_a_wav_file_says_how_long_it_is(tmp_path: Path, kill: bool) -> None:
    """What cannot seek writes a header without sizes, of which ffprobe and others complain."""
    data = storage_media.make("wav")
    assert data[4:8] == b"\xff\xff\xff\xff"
    store = make_store(tmp_path)
    store.open()
    chunk = store.begin("mic0", "audio/wav").open_chunk(started_ns=store.clock.monotonic_ns())
    chunk.write([data])
    if kill:
        chunk._file.close()
        store.close()
        store = make_store(tmp_path)
        (line,) = store.open()
    else:
        line = chunk.finish(ChunkFacts(final=True, duration_s=2.0, tracks={}))
    store.close()
    path = tmp_path / "recordings" / line["file"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == line["sha256"]
    assert path.stat().st_size == line["bytes"] == len(data)
    with wave.open(str(path)) as file:
        assert file.getnframes() == 96_000
    with av.open(str(path)) as container:
        assert sum(packet.size for packet in container.demux()) == 192_000
    if shutil.which("ffprobe"):
        command = ["ffprobe", "-v", "warning", "-count_packets", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert done.stderr == ""


@pytest.mark.promise("torn-line-is-cut")
def test_a_deletion_that_a_power_cut_tore_is_taken_away_at_the_next_start(tmp_path: Path) -> None:
    """The chunk is there still, and rotation comes back to it; until then the folder can be proven."""
    store = make_store(tmp_path)
    store.open()
    record(store, 2)
    newest = record(store, 2)
    store.close()
    oldest, *_, last = sorted((tmp_path / "recordings").rglob("*.jsonl"))
    whole = oldest.read_bytes()
    oldest.write_bytes(whole + b'{"deleted":1,"at":"2026-01-01T00:00:00Z","rea' + bytes(40))
    assert not verify(tmp_path / "recordings").is_proven
    again = make_store(tmp_path, limits=Limits(max_total_bytes=3 * newest[0]["bytes"], min_free_bytes=0))
    again.open()
    assert oldest.read_bytes() == whole
    assert verify(tmp_path / "recordings").is_proven
    assert [deleted.seq for deleted in again.rotate()] == [1]
    again.close()
    assert verify(tmp_path / "recordings").is_proven
    assert last.exists()


def test_ids_of_one_second_sort_in_order(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    ids = [store.begin("cam0", "video/mp4").recording_id for _ in range(300)]
    store.close()
    assert ids == sorted(set(ids))


@pytest.mark.parametrize("extension", sorted(storage_media.FORMATS))
def test_what_was_open_is_finished_at_the_next_start(tmp_path: Path, extension: str) -> None:
    types = {"mp4": "video/mp4", "m4a": "audio/mp4", "mkv": "video/x-matroska", "webm": "video/webm"}
    store = make_store(tmp_path)
    store.open()
    recording = store.begin("cam0", types.get(extension, f"audio/{extension}"))
    chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    data = storage_media.make(extension)
    chunk.write([data[: len(data) * 3 // 4]])
    store.close()
    again = make_store(tmp_path)
    (line,) = again.open()
    again.close()
    assert line["recovered"]
    assert line["final"]
    assert 0.8 < line["duration_s"] <= 1.7
    file = tmp_path / "recordings" / line["file"]
    assert file.stat().st_size == line["bytes"]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == line["sha256"]
    third = make_store(tmp_path)
    assert third.open() == []
    assert third.index.totals() == (line["bytes"], 1)
    third.close()


@pytest.mark.promise("state-is-lost")
def test_without_a_state_the_part_is_found_and_finished(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    recording = store.begin("cam0", "video/mp4")
    recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns()).write([storage_media.make("mp4")])
    store.close()
    for path in sorted((tmp_path / "state").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    again = make_store(tmp_path)
    assert [line["seq"] for line in again.open()] == [1]
    again.close()


@pytest.mark.parametrize("emptied", ["", ".part"])
@pytest.mark.promise("two-names-of-one-chunk")
def test_of_two_names_of_one_chunk_the_one_with_the_media_is_kept(tmp_path: Path, emptied: str) -> None:
    """What a power cut during a rename leaves on FAT, after fsck has emptied one of both."""
    store = make_store(tmp_path)
    store.open()
    recording = store.begin("cam0", "video/mp4")
    chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    chunk.write([storage_media.make("mp4")])
    final = chunk.path.with_suffix("")
    final.write_bytes(storage_media.make("mp4"))
    Path(f"{final}{emptied}").write_bytes(b"")
    store.close()
    again = make_store(tmp_path)
    (line,) = again.open()
    again.close()
    assert again.lost == []
    assert (tmp_path / "recordings" / line["file"]).read_bytes() == storage_media.make("mp4")
    assert not list((tmp_path / "recordings").rglob("*.part"))


@pytest.mark.promise("nothing-before-the-first-fragment")
def test_a_part_without_a_fragment_goes_and_is_told(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    recording = store.begin("cam0", "video/mp4")
    recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns()).write([storage_media.make("mp4")[:100]])
    store.close()
    again = make_store(tmp_path)
    assert again.open() == []
    assert [lost.seq for lost in again.lost] == [1]
    again.close()
    assert not list((tmp_path / "recordings").rglob("*.part"))


@pytest.mark.parametrize("facts", [ChunkFacts(final=True), ChunkFacts(final=True, duration_s=0.0, tracks={})])
def test_a_header_alone_is_no_chunk(tmp_path: Path, facts: ChunkFacts) -> None:
    """A recording that is stopped before its first fragment, by what the recorder knows or does not know of it."""
    store = make_store(tmp_path)
    store.open()
    recording = store.begin("cam0", "video/mp4")
    chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    data = storage_media.make("mp4")
    chunk.write([data[: data.index(b"moof") - 4]])
    with pytest.raises(StorageError) as caught:
        chunk.finish(facts)
    assert caught.value.code == "empty"
    recording.close()
    store.close()
    assert [path for path in (tmp_path / "recordings").rglob("*") if path.suffix in (".mp4", ".part", ".jsonl")] == []
    assert list((tmp_path / "recordings" / ".msrecd" / "open").iterdir()) == []


def test_rotation_keeps_the_limit_the_protected_and_the_open(tmp_path: Path) -> None:
    size = len(storage_media.make("mp4"))
    store = make_store(tmp_path, limits=Limits(max_total_bytes=size * 4, min_free_bytes=0))
    store.open()
    kept = record(store, 1)[0]
    store.protections.protect(kept["file"].rpartition("/")[2][: -len("-0001.mp4")])
    record(store, 6)
    recording = store.begin("cam0", "video/mp4")
    chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    chunk.write([storage_media.make("mp4")])
    (tmp_path / "recordings" / "foreign.mp4").write_bytes(bytes(size))
    deleted = store.rotate()
    assert {entry.reason for entry in deleted} == {"max_total"}
    usage = store.usage()
    assert usage.total_bytes <= size * 4
    root = tmp_path / "recordings"
    assert (root / kept["file"]).exists()
    assert chunk.path.exists()
    assert (root / "foreign.mp4").exists()
    for entry in deleted:
        assert not (root / entry.file).exists()
    manifest = next(path for path in root.rglob("*.jsonl") if path.stem == deleted[0].recording_id)
    gone = [line["deleted"] for line in map(json.loads, manifest.read_text().splitlines()) if "deleted" in line]
    assert gone[-len(deleted) :] == [entry.seq for entry in deleted]
    chunk.finish(ChunkFacts(final=True))
    store.close()


@pytest.mark.promise("index-is-built-again")
def test_the_index_is_built_again_when_damaged(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    record(store, 4)
    totals = store.index.totals()
    store.close()
    index_of(tmp_path).write_bytes(b"no database at all" * 100)
    again = make_store(tmp_path)
    again.open()
    assert again.index.totals() == totals
    again.close()


def test_two_programs_cannot_record_into_one_state(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    with pytest.raises(StorageError) as caught:
        make_store(tmp_path).open()
    assert caught.value.code == "locked"
    store.close()


class SettableClock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now_ns = 100 * NS

    def monotonic_ns(self) -> int:
        return self.now_ns

    def realtime_ns(self) -> int:
        return self.now_ns

    def wait_until(self, deadline_ns: int, stop: object) -> bool:
        raise NotImplementedError


@pytest.mark.effect("config: storage.sync_interval")
@pytest.mark.parametrize(("interval_s", "least", "most"), [(0.5, 36, 42), (2.0, 9, 12), (10.0, 1, 3)])
def test_what_is_written_is_synced_as_often_as_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interval_s: float, least: int, most: int
) -> None:
    """Twenty seconds, a write each quarter of a second: nothing that waits for the disk is ever older."""
    clock = SettableClock()
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda _: synced.append(clock.now_ns))
    file = ChunkFile(os.open(tmp_path, os.O_RDONLY), "a.wav", sync_interval_s=interval_s, clock=clock)
    for _ in range(80):
        file.write([b"x"])
        assert file.unsynced_s < interval_s
        clock.now_ns += NS // 4
    file.discard()
    assert least <= len(synced) <= most
