"""Each fault in a copied folder is named exactly; times of an untrusted clock are corrected in lists."""

from __future__ import annotations

import errno
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from test_store import index_of, make_store, record

from msrecd.cli.recordings.verify import _summary as summary
from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.clock.wall import WallTime
from msrecd.storage.catalog import open_catalog
from msrecd.storage.files import storage_error
from msrecd.storage.retention import Limits
from msrecd.storage.store import ChunkFacts
from msrecd.storage.verify import Fault, Finding, Verdict, verify


@pytest.mark.promise("verify-says-what-cannot-be-read")
def test_a_folder_that_may_not_be_read_is_told_to_be_made_readable(tmp_path: Path) -> None:
    """The words, also for root, who may read everything; `recordings verify` itself is called in tests/cli."""
    denied = PermissionError(errno.EACCES, "Permission denied")
    assert "read there" in storage_error(denied, "read /card").message
    assert "write" not in storage_error(denied, "read /card").message
    assert "write there" in storage_error(denied, "create a.mp4").message
    found = Finding(fault=Fault.UNREADABLE, file="cam0", message="cam0: cannot be read", is_folder=True)
    said = summary("/card", Verdict(findings=(found,), manifests=0, chunks=0, bytes=0), Counter())
    assert said.endswith("1 folder could not be read; let this user read there, or try with sudo")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy elsewhere of a recording of five chunks that differ, the second deleted by rotation."""
    store = make_store(tmp_path)
    store.open()
    recording = store.begin("cam0", "audio/wav")
    for number in range(5):
        chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
        chunk.write([bytes([number]) * 1000])
        chunk.finish(ChunkFacts(final=number == 4, duration_s=1.0, tracks={}))
    store.limits = Limits(max_total_bytes=4000, min_free_bytes=0)
    assert [entry.seq for entry in store.rotate()] == [1]
    store.close()
    target = tmp_path / "copy"
    shutil.copytree(tmp_path / "recordings", target)
    return target


def chunks(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.wav"))


def faults(folder: Path) -> list[tuple[Fault, str]]:
    return [(finding.fault, finding.file.rpartition("/")[2]) for finding in verify(folder).findings]


def test_an_untouched_copy_is_proven_although_rotation_deleted_of_it(copy: Path) -> None:
    verdict = verify(copy)
    assert verdict.is_proven
    assert verdict.findings == ()
    assert (verdict.manifests, verdict.chunks, verdict.bytes) == (1, 4, 4000)


def test_one_flipped_bit_is_named(copy: Path) -> None:
    path = chunks(copy)[2]
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    assert faults(copy) == [(Fault.ALTERED, path.name)]
    assert not verify(copy).is_proven


def test_a_missing_chunk_is_named(copy: Path) -> None:
    path = chunks(copy)[1]
    path.unlink()
    assert faults(copy) == [(Fault.MISSING, path.name)]


def test_a_torn_chunk_is_named(copy: Path) -> None:
    path = chunks(copy)[1]
    path.write_bytes(path.read_bytes()[:700])
    assert faults(copy) == [(Fault.TORN, path.name)]


@pytest.mark.promise("manifest-proves")
def test_swapped_chunks_are_named(copy: Path) -> None:
    first, second = chunks(copy)[:2]
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert faults(copy) == [(Fault.SWAPPED, first.name), (Fault.SWAPPED, second.name)]


@pytest.mark.promise("manifest-proves")
def test_an_edited_line_is_named(copy: Path) -> None:
    (manifest,) = copy.rglob("*.jsonl")
    lines = manifest.read_text().splitlines()
    lines[2] = lines[2].replace('"lost_s":0.0', '"lost_s":9.0')
    manifest.write_text("\n".join(lines) + "\n")
    (finding,) = verify(copy).findings
    assert finding.fault is Fault.EDITED
    assert "line 3 was edited" in finding.message


@pytest.mark.promise("no-final-chunk")
def test_what_ends_too_early_is_told_and_an_end_is_not_proven(copy: Path) -> None:
    """Whoever takes the last chunk and its line leaves a chain that holds; that nothing ends it can be seen."""
    (manifest,) = copy.rglob("*.jsonl")
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join(lines[:4]) + "\n")  # the deletion stood behind it
    chunks(copy)[-1].unlink()
    stray = chunks(copy)[0].with_name(chunks(copy)[0].name.replace("-0002", "-0001"))
    assert not stray.exists()
    found = verify(copy).findings
    assert (Fault.UNENDED, manifest.name) in faults(copy)
    assert [finding.is_failure for finding in found if finding.fault is Fault.UNENDED] == [False]


@pytest.mark.effect("manifest-line: after")
@pytest.mark.parametrize("is_ended", [True, False])
def test_an_end_behind_the_last_chunk_is_written_down(tmp_path: Path, is_ended: bool) -> None:
    """The recording ended while its camera was away: the last chunk does not say so, a line behind it does."""
    store = make_store(tmp_path)
    store.open()
    recording = store.begin("cam0", "audio/wav")
    for _ in range(2):
        chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
        chunk.write([bytes(1000)])
        chunk.finish(ChunkFacts(final=False, duration_s=1.0, tracks={}))
    gap = {"at_s": 1.0, "duration_s": 8.0, "reason": "device_missing"}
    if is_ended:
        recording.end_line(ended_ns=SYSTEM_CLOCK.monotonic_ns(), lost_s=8.0, gaps=[gap])
    recording.close()
    store.close()
    found = verify(tmp_path / "recordings").findings
    assert [finding.fault for finding in found] == ([] if is_ended else [Fault.UNENDED])
    (manifest,) = (tmp_path / "recordings").rglob("*.jsonl")
    last = json.loads(manifest.read_text().splitlines()[-1])
    if is_ended:
        assert (last["after"], last["lost_s"], last["gaps"]) == (2, 8.0, [gap])


@pytest.mark.promise("unlisted-chunk")
def test_an_unlisted_chunk_and_a_torn_manifest_are_named(copy: Path) -> None:
    (manifest,) = copy.rglob("*.jsonl")
    data = manifest.read_bytes()
    stranger = chunks(copy)[0]
    shutil.copy(stranger, stranger.with_name(stranger.name.replace("-0002", "-0009")))
    manifest.write_bytes(data[:-1])
    assert {fault for fault, _ in faults(copy)} == {
        Fault.UNLISTED,
        Fault.TORN,
        Fault.MISSING,
    }  # the torn line is the deletion's


class SteppingClock:
    """A clock whose wall time is set by the test."""

    def __init__(self) -> None:
        self.monotonic = 100 * NS
        self.offset = 0

    def monotonic_ns(self) -> int:
        return self.monotonic

    def realtime_ns(self) -> int:
        return self.monotonic + self.offset

    def wait_until(self, deadline_ns: int, stop: object) -> bool:
        raise NotImplementedError


@pytest.mark.effect("manifest-line: clock")
@pytest.mark.promise("list-corrects-times")
def test_times_before_the_clock_was_set_are_corrected(tmp_path: Path) -> None:
    clock, marker = SteppingClock(), tmp_path / "synchronized"
    walltime = WallTime(tmp_path / "state", clock=clock, marker=marker, kernel=lambda: False)
    store = make_store(tmp_path, walltime=walltime, clock=clock)
    store.open()
    record(store, 2)
    store.limits = Limits(max_age_s=60, min_free_bytes=0)
    assert store.rotate() == []
    clock.monotonic += 50 * NS
    clock.offset = 1_800_000_000 * NS
    marker.touch()
    assert walltime.poll() is not None
    record(store, 1)
    store.limits = Limits()
    assert store.rotate() == []
    store.close()
    catalog = open_catalog(tmp_path / "recordings", tmp_path / "state", walltime.corrections)
    entries = catalog.recordings(since_ns=1_800_000_000 * NS)
    catalog.close()
    assert [entry.started_ns for entry in entries] == [1_800_000_100 * NS, 1_800_000_150 * NS]
    assert [chunk.corrected for entry in entries for chunk in entry.chunks] == [True, True, False]
    manifests = (tmp_path / "recordings").rglob("*.jsonl")
    lines = [json.loads(line) for path in manifests for line in path.read_text().splitlines()]
    assert sorted(line["clock"] for line in lines) == ["synchronized", "unsynchronized", "unsynchronized"]


def test_a_clock_set_wrongly_by_hand_under_a_recording_does_not_make_its_times_wrong(tmp_path: Path) -> None:
    clock, kernel = SteppingClock(), [True]
    clock.offset = 1_800_000_000 * NS
    walltime = WallTime(tmp_path / "state", clock=clock, marker=tmp_path / "none", kernel=lambda: kernel[0])
    store = make_store(tmp_path, walltime=walltime, clock=clock)
    store.open()
    recording = store.begin("cam0", "audio/wav")
    for number in range(3):
        chunk = recording.open_chunk(started_ns=clock.monotonic)
        chunk.write([bytes(1000)])
        chunk.finish(ChunkFacts(final=number == 2, duration_s=10.0, tracks={}))
        clock.monotonic += 10 * NS
        if number == 0:
            clock.offset -= 400 * 86_400 * NS
            kernel[0] = False
    store.limits = Limits(max_age_s=60, min_free_bytes=0)
    assert store.rotate() == []
    store.close()
    index_of(tmp_path).unlink()
    for _ in range(2):  # from the manifests, then from the index
        catalog = open_catalog(tmp_path / "recordings", tmp_path / "state", walltime.corrections)
        (entry,) = catalog.recordings(since_ns=1_800_000_000 * NS)
        catalog.close()
        assert [chunk.started_ns for chunk in entry.chunks] == [1_800_000_100 * NS + n * 10 * NS for n in range(3)]
        assert [chunk.corrected for chunk in entry.chunks] == [False, True, True]
        assert entry.gaps == ()
        again = make_store(tmp_path, walltime=walltime, clock=clock)
        again.open()
        again.close()


def test_the_boot_counter_grows_with_each_boot_only(tmp_path: Path) -> None:
    boot_id = tmp_path / "boot_id"
    numbers = []
    for text in ("a", "a", "b", "b", "c"):
        boot_id.write_text(text)
        numbers.append(WallTime(tmp_path / "state", boot_id_path=boot_id, trusted=False).boot)
    assert numbers == [1, 1, 2, 2, 3]
