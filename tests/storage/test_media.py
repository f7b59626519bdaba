"""A medium has an identity: nothing of it is deleted, numbered, recovered or corrected by what is known of another."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import storage_media
from test_store import index_of, make_store, record

from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.clock.wall import Corrections, ReadOnlyWallTime, WallTime
from msrecd.errors import StorageError
from msrecd.storage import checks, files, tree
from msrecd.storage.catalog import open_catalog
from msrecd.storage.janitor import LEAST_FILES
from msrecd.storage.medium import is_in_use, open_medium
from msrecd.storage.retention import Limits
from msrecd.storage.store import ChunkFacts, Store
from msrecd.storage.verify import verify

MP4 = storage_media.make("mp4")


def boot(base: Path, boot_id: str, state: str = "state") -> WallTime:
    """This machine after a start, its clock not trusted."""
    path = base / f"{state}-boot-id"
    path.write_text(boot_id)
    return WallTime(base / state, boot_id_path=path, trusted=False)


def swap(base: Path, away: str, here: str) -> None:
    """Take the medium out and put another one in its place, which is empty when it was never there."""
    (base / "recordings").rename(base / away)
    if (base / here).exists():
        (base / here).rename(base / "recordings")
    else:
        (base / "recordings").mkdir()


def listed(base: Path) -> list[str]:
    catalog = open_catalog(base / "recordings", base / "state", ReadOnlyWallTime(base / "state").corrections)
    try:
        return [chunk.file for entry in catalog.recordings() for chunk in entry.chunks]
    finally:
        catalog.close()


@pytest.mark.promise("medium-has-an-identity", "medium-is-back")
def test_a_medium_keeps_its_identity_and_what_is_known_of_it(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    first = record(store, 2)
    kept = Path(first[0]["file"]).name.rsplit("-", 1)[0]
    store.protections.protect(kept)
    one = store.root.medium.id
    store.close()
    swap(tmp_path, "first", "second")
    store = make_store(tmp_path, limits=Limits(max_total_bytes=0))
    assert store.open() == []
    assert store.root.medium.id != one
    assert store.index.totals() == (0, 0)
    with pytest.raises(StorageError, match="there is no recording"):
        store.protections.unprotect(kept)
    store.close()
    swap(tmp_path, "second", "first")
    store = make_store(tmp_path, limits=Limits(max_total_bytes=0))
    store.open()
    assert store.root.medium.id == one
    assert store.index.totals()[1] == 2
    assert store.rotate() == []
    store.close()
    assert verify(tmp_path / "recordings").is_proven


@pytest.mark.promise("another-medium")
def test_another_medium_while_recording_gets_a_recording_of_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(tmp_path)
    store.open()
    recording = store.begin("cam0", "video/mp4")
    id_before = recording.recording_id
    chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    chunk.write([MP4])
    swap(tmp_path, "first", "second")
    chunk.write([MP4[:0]])
    line = chunk.finish(ChunkFacts(final=False, duration_s=2.0, tracks={}))
    chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    chunk.write([MP4])
    other = chunk.finish(ChunkFacts(final=True, duration_s=2.0, tracks={}))
    store.close()
    assert (line["seq"], other["seq"]) == (1, 1)
    assert recording.recording_id != id_before
    assert (tmp_path / "first" / line["file"]).exists()
    assert (tmp_path / "recordings" / other["file"]).exists()
    assert "another medium lies at" in caplog.text
    assert verify(tmp_path / "first").is_proven
    assert verify(tmp_path / "recordings").findings == ()
    assert listed(tmp_path) == [other["file"]]


@pytest.mark.promise("medium-is-back")
def test_what_was_left_open_on_a_medium_is_recovered_when_that_is_back(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    chunk = store.begin("cam0", "video/mp4").open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    chunk.write([MP4])
    chunk._file.close()
    store.close()
    swap(tmp_path, "first", "second")
    store = make_store(tmp_path)
    assert store.open() == []
    swap(tmp_path, "second", "first")
    (line,) = (store.rotate(), store.finish_unfinished())[1]  # noticed by the running daemon
    store.close()
    assert line["recovered"]
    assert verify(tmp_path / "recordings").is_proven


def test_a_medium_that_is_swapped_before_the_first_chunk_has_no_number_of_another_boot(tmp_path: Path) -> None:
    """The id was drawn for the medium before; the new one has had more boots."""
    for number, boot_id in enumerate("abc"):
        store = make_store(tmp_path, walltime=boot(tmp_path, boot_id, f"state-{number}"))
        store.open()
        record(store, 1)
        store.close()
    swap(tmp_path, "first", "second")
    store = make_store(tmp_path, walltime=boot(tmp_path, "d", "state-3"))
    store.open()
    recording = store.begin("cam0", "video/mp4")
    assert recording.recording_id.startswith("boot0001-")
    swap(tmp_path, "second", "first")
    chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    assert chunk.path.name.startswith("boot0004-")
    chunk.write([MP4])
    chunk.finish(ChunkFacts(final=True, duration_s=2.0, tracks={}))
    store.close()
    assert verify(tmp_path / "recordings").is_proven


@pytest.mark.promise("chunk-being-written-is-left-alone", "part-is-being-written")
def test_a_medium_that_is_back_under_its_open_chunk_keeps_it(tmp_path: Path) -> None:
    """The stick is out for less than a chunk; the daemon has looked at another one meanwhile."""
    store = make_store(tmp_path)
    store.open()
    recording = store.begin("cam0", "video/mp4")
    chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    chunk.write([MP4])
    swap(tmp_path, "first", "second")
    store.rotate()
    swap(tmp_path, "second", "first")
    store.rotate()
    assert store.finish_unfinished() == []
    assert chunk.path.exists()
    line = chunk.finish(ChunkFacts(final=True, duration_s=2.0, tracks={}))
    store.close()
    assert (line["seq"], line["recovered"]) == (1, False)
    assert verify(tmp_path / "recordings").is_proven


@pytest.mark.promise("two-daemons-one-folder")
def test_two_daemons_do_not_record_into_one_folder(tmp_path: Path) -> None:
    first = make_store(tmp_path)
    first.open()
    chunk = first.begin("cam0", "video/mp4").open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    chunk.write([MP4])
    assert is_in_use(tmp_path / "recordings")
    second = Store(
        tmp_path / "recordings",
        tmp_path / "other-state",
        limits=Limits(),
        recorder_limits={},
        sync_interval_s=1.0,
        walltime=WallTime(tmp_path / "other-state"),
    )
    with pytest.raises(StorageError, match="another msrecd records into") as caught:
        second.open()
    assert caught.value.code == "locked"
    assert chunk.path.exists()
    chunk.finish(ChunkFacts(final=True))
    first.close()
    assert not is_in_use(tmp_path / "recordings")
    assert second.open() == []
    second.close()


@pytest.mark.promise("state-is-lost")
def test_numbers_of_boots_do_not_begin_again_on_a_medium(tmp_path: Path) -> None:
    for boot_id in ("a", "b", "c"):
        store = make_store(tmp_path, walltime=boot(tmp_path, boot_id))
        store.open()
        old = record(store, 1)[0]
        store.close()
    assert "/boot0003/" in old["file"]
    shutil.rmtree(tmp_path / "state")
    for _ in range(2):  # a restart of the program is no other boot
        walltime = boot(tmp_path, "d")
        store = make_store(tmp_path, walltime=walltime)
        store.open()
        new = record(store, 1)[0]
        store.close()
        assert "/boot0004/" in new["file"]
        assert walltime.boot == 4
    assert boot(tmp_path, "e").boot == 5


@pytest.mark.promise("correction-of-one-boot")
def test_a_correction_holds_for_its_boot_alone(tmp_path: Path) -> None:
    """Boot 1 of one card is not boot 1 of another: its time stays unknown, and nothing goes by an age nobody knows."""
    store = make_store(tmp_path, walltime=boot(tmp_path, "a"))
    store.open()
    (line,) = record(store, 1)
    store.close()
    shutil.rmtree(tmp_path / "state")
    boot(tmp_path, "b")
    walltime = WallTime(tmp_path / "state", boot_id_path=tmp_path / "state-boot-id", trusted=True)
    store = make_store(tmp_path, walltime=walltime, limits=Limits(max_age_s=0.0))
    store.open()
    assert store.rotate() == []
    (entry,) = open_catalog(tmp_path / "recordings", tmp_path / "state", walltime.corrections).recordings()
    assert not entry.chunks[0].corrected
    assert entry.chunks[0].exists
    store.close()
    assert line["boot_id"] == "a"


@pytest.mark.promise("unknown-times-are-not-old")
def test_chunks_of_another_box_are_not_corrected_by_this_one(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    store = make_store(other, walltime=boot(other, "theirs"))
    store.open()
    record(store, 1)
    store.close()
    store = make_store(tmp_path, walltime=boot(tmp_path, "ours"))
    store.open()
    (line,) = record(store, 1)
    store.close()
    shutil.copytree(other / "recordings" / "cam0", tmp_path / "recordings" / "cam0", dirs_exist_ok=True)
    walltime = WallTime(tmp_path / "state", boot_id_path=tmp_path / "state-boot-id", trusted=True)
    store = make_store(tmp_path, walltime=walltime)
    store.open()
    catalog = open_catalog(tmp_path / "recordings", tmp_path / "state", walltime.corrections)
    corrected = {chunk.file: chunk.corrected for entry in catalog.recordings() for chunk in entry.chunks}
    catalog.close()
    assert corrected.pop(line["file"])
    assert list(corrected.values()) == [False]
    assert store.index.totals()[1] == 2
    store.close()


@pytest.mark.promise("chunks-come-back")
def test_chunks_that_were_away_are_listed_and_counted_again(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    lines = record(store, 4)
    store.close()
    root, laptop = tmp_path / "recordings", tmp_path / "laptop"
    laptop.mkdir()
    for line in lines[:3]:
        (root / line["file"]).rename(laptop / Path(line["file"]).name)
    size = lines[0]["bytes"]
    store = make_store(tmp_path, limits=Limits(max_total_bytes=size, min_free_bytes=0))
    store.open()
    store.rotate()  # their turn comes
    assert store.index.totals() == (size, 1)
    newer = record(store, 1)
    store.close()
    for line in lines[:3]:
        (laptop / Path(line["file"]).name).rename(root / line["file"])
    store = make_store(tmp_path)
    store.open()
    assert store.index.totals() == (5 * size, 5)
    assert [chunk.file for chunk in store.index.oldest(None)] == [line["file"] for line in (*lines, *newer)]
    assert len(listed(tmp_path)) == 5
    store.limits = Limits(max_total_bytes=2 * size, min_free_bytes=0)
    assert [entry.seq for entry in store.rotate()] == [1, 2, 3]
    store.close()
    assert verify(root).is_proven


@pytest.mark.promise("chunks-come-back")
def test_a_recording_of_which_all_was_taken_can_come_back(tmp_path: Path) -> None:
    store = make_store(tmp_path, limits=Limits(max_total_bytes=0))
    store.open()
    (line,) = record(store, 1)
    path = tmp_path / "recordings" / line["file"]
    path.rename(tmp_path / "away")
    store.rotate()
    assert store.index.totals() == (0, 0)
    store.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "away").rename(path)
    store = make_store(tmp_path)
    store.open()
    assert store.index.totals()[1] == 1
    store.close()


@pytest.mark.parametrize("times", ["kept", "of-today"])
@pytest.mark.promise("chunks-come-back")
def test_a_copy_that_is_played_back_brings_what_was_deleted_meanwhile(tmp_path: Path, times: str) -> None:
    """As `cp -a` and `rsync -a` do it: the folder has the time again that it had when it was last looked into."""
    store = make_store(tmp_path)
    store.open()
    lines = record(store, 2)
    store.close()
    store = make_store(tmp_path, limits=Limits(max_total_bytes=0))
    store.open()
    shutil.copytree(tmp_path / "recordings", tmp_path / "copy")
    assert len(store.rotate()) == 2
    store.close()
    shutil.rmtree(tmp_path / "recordings")
    (tmp_path / "copy").rename(tmp_path / "recordings")
    if times == "of-today":
        os.utime((tmp_path / "recordings" / lines[0]["file"]).parent)
    store = make_store(tmp_path)
    store.open()
    assert store.index.totals()[1] == 2
    assert sorted(listed(tmp_path)) == [line["file"] for line in lines]
    store.close()


def mount(point: str, kind: str = "ext4", source: str = "/dev/sda1", root: str = "/") -> checks.Mount:
    return checks.Mount(point=point, kind=kind, options=frozenset(), source=source, root=root)


@pytest.mark.parametrize(
    ("before", "after", "is_away"),
    [
        pytest.param("{base}", "/", True, id="a-mount-point-on-the-root-file-system"),
        pytest.param("{base}/recordings", "{base}", True, id="a-mount-point-on-a-partition-of-its-own"),
        pytest.param("/", "{base}", False, id="a-drive-is-mounted-for-the-first-time"),
        pytest.param("{base}", "{base}", False, id="an-empty-stick-in-the-place-of-another"),
    ],
)
@pytest.mark.promise("nothing-is-mounted")
def test_a_missing_mount_is_told_from_another_medium(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, is_away: bool
) -> None:
    monkeypatch.setattr(checks, "mount_at", lambda path: mount(before.format(base=tmp_path)))
    store = make_store(tmp_path)
    store.open()
    record(store, 1)
    store.close()
    swap(tmp_path, "first", "second")
    monkeypatch.setattr(checks, "mount_at", lambda path: mount(after.format(base=tmp_path), source="/dev/sdb1"))
    store = make_store(tmp_path)
    if is_away:
        with pytest.raises(StorageError, match="is not mounted at") as caught:
            store.open()
        assert caught.value.code == "missing_mount"
        assert list((tmp_path / "recordings").iterdir()) == []
    else:
        store.open()
        store.close()


@pytest.mark.promise("bind-mount-without-its-medium")
def test_a_container_whose_host_lacks_the_medium_records_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mount point is there, and another file system's folder on it."""
    point = str(tmp_path / "recordings")
    monkeypatch.setattr(checks, "file_system_id", lambda path, found: f"fsid:{found.source}")
    monkeypatch.setattr(checks, "mount_at", lambda path: mount(point, source="drive"))
    store = make_store(tmp_path)
    store.open()
    store.close()
    swap(tmp_path, "first", "second")
    monkeypatch.setattr(checks, "mount_at", lambda path: mount(point, source="card", root="/mnt/usb/recordings"))
    with pytest.raises(StorageError) as caught:
        make_store(tmp_path).open()
    assert caught.value.code == "missing_mount"


@pytest.mark.promise("copied-medium")
def test_a_copy_on_another_file_system_is_a_medium_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"id": "fsid:1"}
    monkeypatch.setattr(checks, "file_system_id", lambda path, found: place["id"])
    store = make_store(tmp_path)
    store.open()
    (line,) = record(store, 1)
    one = store.root.medium.id
    store.protections.protect(Path(line["file"]).name.rsplit("-", 1)[0])
    store.close()
    place["id"] = "fsid:2"  # copied with all that is in it to a larger drive
    store = make_store(tmp_path, limits=Limits(max_total_bytes=0))
    store.open()
    assert store.root.medium.id != one
    assert store.index.totals()[1] == 1
    assert store.rotate() == []  # protection came along
    store.close()


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 99_999, b'{"id": "../../x"}', b'{"id": 5}', b"\xff", b"null"])
def test_an_odd_identity_is_none(tmp_path: Path, data: bytes) -> None:
    store = make_store(tmp_path)
    store.open()
    record(store, 1)
    store.close()
    (tmp_path / "recordings" / ".msrecd" / "medium.json").write_bytes(data)
    (tmp_path / "state" / "media.json").write_bytes(data)
    store = make_store(tmp_path)
    store.open()
    assert store.root.medium.id.isalnum()
    assert store.index.totals()[1] == 1
    store.close()


def test_recording_goes_on_without_a_state_folder_and_names_it_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "state").write_text("not a folder")
    store = make_store(tmp_path, limits=Limits(max_total_bytes=2 * len(MP4), min_free_bytes=0))
    store.open()
    record(store, 3)
    assert len(store.rotate()) == 1
    assert store.index.totals()[1] == 2
    store.close()
    for line in caplog.messages:
        assert "recordings cannot" not in line
    (said,) = [line for line in caplog.messages if "state folder" in line]
    assert str(tmp_path / "state") in said
    assert "recording continues" in said


def test_an_index_that_takes_nothing_any_more_is_kept_beside_the_recordings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(tmp_path)
    store.open()
    record(store, 2)
    store.index._db.execute("PRAGMA query_only = 1")  # as on a card that turned read-only
    record(store, 2)
    assert store.index.totals()[1] == 4
    store.index._db.execute("PRAGMA query_only = 1")
    store.limits = Limits(max_total_bytes=0)
    with pytest.raises(StorageError, match="index"):
        store.rotate()
    store.close()
    assert caplog.text.count("cannot be written: the index fails") == 1
    assert (tmp_path / "recordings" / ".msrecd" / "index.sqlite").exists()
    store = make_store(tmp_path)
    store.open()
    assert store.index.totals()[1] == 4
    store.close()


@pytest.mark.promise("inodes")
def test_inodes_are_a_resource_like_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, limits=Limits(max_total_bytes=1 << 30))
    store.open()
    record(store, 5)
    free = LEAST_FILES - 5

    def status() -> object:
        left = len(list((tmp_path / "recordings").rglob("*.mp4")))
        return SimpleNamespace(f_bavail=1 << 30, f_frsize=1, f_blocks=1 << 31, f_files=1000, f_favail=free + 5 - left)

    monkeypatch.setattr(store.root, "status", status)
    store.require_room()
    assert len(list((tmp_path / "recordings").rglob("*.mp4"))) == 0
    free -= 10
    with pytest.raises(StorageError, match="inodes are free") as caught:
        store.require_room()
    assert caught.value.code == "no_space"
    store.close()


def test_what_an_older_version_knew_of_these_recordings_is_kept(tmp_path: Path) -> None:
    walltime = boot(tmp_path, "a")
    store = make_store(tmp_path, walltime=walltime)
    store.open()
    (line,) = record(store, 1)
    recording_id = Path(line["file"]).name.rsplit("-", 1)[0]
    chunk = store.begin("cam0", "video/mp4").open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    chunk.write([MP4])
    chunk._file.close()
    store.close()
    # As the first edition left it: no identity, and all that is known in the state folder.
    state, root = tmp_path / "state", tmp_path / "recordings"
    shutil.rmtree(state / "media")
    (state / "media.json").unlink()
    (root / ".msrecd" / "open").rename(state / "open")
    shutil.rmtree(root / ".msrecd")
    (state / "protected").mkdir()
    (state / "protected" / recording_id).touch()
    (state / "protected" / "20200101T000000Z-cam9-0000").touch()  # of another medium
    (state / "index.sqlite").write_bytes(b"the first edition's")
    (state / "storage.json").write_text(json.dumps({"path": str(root), "mounted": False}))
    for manifest_file in root.rglob("*.jsonl"):
        lines = [json.loads(raw) for raw in manifest_file.read_text().splitlines()]
        manifest_file.unlink()
        for values in lines:
            values = {name: value for name, value in values.items() if name not in ("prev", "line_sha256", "boot_id")}
            with files.closing_fd(files.open_root(manifest_file.parent)) as folder:
                from msrecd.storage import manifest

                manifest.append(folder, manifest_file.name, values)
    walltime = WallTime(state, boot_id_path=tmp_path / "state-boot-id", trusted=True)
    store = make_store(tmp_path, walltime=walltime, limits=Limits(max_total_bytes=0))
    (recovered,) = store.open()
    assert recovered["recovered"]
    assert store.protections.is_protected(recording_id)
    assert [entry.recording_id for entry in store.rotate()] == [recovered["file"].rpartition("/")[2].rsplit("-", 1)[0]]
    catalog = open_catalog(root, state, walltime.corrections)
    (entry,) = catalog.recordings()
    catalog.close()
    assert entry.chunks[0].corrected  # its line has no boot id, but the old state knew the number's
    store.close()
    assert sorted(path.name for path in (state / "protected").iterdir()) == ["20200101T000000Z-cam9-0000"]
    assert not (state / "storage.json").exists()


@pytest.mark.promise("protect-a-range")
def test_ranges_are_protected(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    lines = record(store, 5)
    recording_id = Path(lines[0]["file"]).name.rsplit("-", 1)[0]
    done = store.protections.protect(recording_id, chunks=(2, 3))
    assert (done.chunks, done.bytes, done.is_endless) == (2, 2 * len(MP4), False)
    store.protections.protect(recording_id, chunks=(4, 4))
    store.protections.unprotect(recording_id, chunks=(3, 3))
    index_of(tmp_path).with_name("index.stale").touch()
    store.close()
    store = make_store(tmp_path, limits=Limits(max_total_bytes=0))
    store.open()
    assert [entry.seq for entry in store.rotate()] == [1, 3, 5]
    with pytest.raises(StorageError, match=r"\(44\.5KiB of recordings are protected\)"):
        store.require_room()
    store.protections.unprotect(recording_id)
    assert [entry.seq for entry in store.rotate()] == [2, 4]
    store.close()


@pytest.mark.promise("max-protected")
def test_whole_is_refused_when_all_that_may_be_protected_is(tmp_path: Path) -> None:
    store = make_store(tmp_path, limits=Limits(max_protected_bytes=2 * len(MP4)))
    store.open()
    ended = Path(record(store, 2)[0]["file"]).name.rsplit("-", 1)[0]
    assert store.protections.protect(ended).chunks == 2
    running = store.begin("cam0", "video/mp4")
    chunk = running.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    chunk.write([MP4])
    with pytest.raises(StorageError, match=r"max_protected = .*: unprotect recordings") as refused:
        store.protections.protect(running.recording_id, whole=True)
    assert refused.value.code == "protected_limit"
    assert not store.protections.is_protected(running.recording_id)
    chunk.finish(ChunkFacts(final=True, duration_s=2.0, tracks={}))
    store.close()


@pytest.mark.promise("max-protected")
def test_what_triggers_protect_one_after_the_other_is_above_the_limit_by_at_most_one_chunk(tmp_path: Path) -> None:
    limit = 4 * len(MP4) + len(MP4) * 3 // 4
    store = make_store(tmp_path, limits=Limits(max_protected_bytes=limit))
    store.open()
    recording = store.begin("cam0", "video/mp4")
    refused = []
    from_ns = store.walltime.now_ns()
    for _ in range(8):
        chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
        chunk.write([MP4[: len(MP4) // 2]])
        try:
            store.protections.protect_range("cam0", from_ns, store.walltime.now_ns())
        except StorageError as exc:
            refused.append(exc.code)
        chunk.write([MP4[len(MP4) // 2 :]])
        chunk.finish(ChunkFacts(final=False, duration_s=2.0, tracks={}))
        from_ns = store.walltime.now_ns() - 1
    assert refused == ["protected_limit"] * 3
    assert limit < store.index.protected_bytes() <= limit + len(MP4)
    store.close()


@pytest.mark.promise("protect-whole")
def test_a_running_recording_protects_what_is_there_and_with_whole_what_is_to_come(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    recording = store.begin("cam0", "video/mp4")

    def add() -> None:
        chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
        chunk.write([MP4])
        chunk.finish(ChunkFacts(final=False, duration_s=2.0, tracks={}))

    add()
    assert not store.protections.protect(recording.recording_id).is_endless
    add()
    assert [store.protections.is_protected(recording.recording_id, seq) for seq in (1, 2)] == [True, False]
    assert store.protections.protect(recording.recording_id, whole=True).is_endless
    add()
    assert [chunk.seq for chunk in store.index.oldest(None)] == []
    store.close()


@pytest.mark.promise("protect-a-range")
def test_a_time_range_is_protected_with_the_chunk_that_is_being_written(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    recording = store.begin("cam0", "video/mp4")
    begun_ns = SYSTEM_CLOCK.monotonic_ns() - 30 * NS
    for number in range(3):
        chunk = recording.open_chunk(started_ns=begun_ns + 10 * number * NS)
        chunk.write([MP4])
        if number < 2:
            chunk.finish(ChunkFacts(final=False, duration_s=10.0, tracks={}))
    now_ns = store.walltime.stamp(begun_ns).utc_ns
    done = store.protections.protect_range("cam0", now_ns + 12 * NS, now_ns + 30 * NS)
    assert (done.recording_ids, done.chunks) == ((recording.recording_id,), 1)
    chunk.finish(ChunkFacts(final=True, duration_s=10.0, tracks={}))
    assert [chunk.seq for chunk in store.index.oldest(None)] == [1]
    with pytest.raises(StorageError, match="no chunks in this range"):
        store.protections.protect_range("cam0", now_ns - 100 * NS, now_ns - 50 * NS)
    store.close()


def test_a_chunk_on_lease_does_not_go(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    lines = record(store, 2)
    recording_id = Path(lines[0]["file"]).name.rsplit("-", 1)[0]
    store.limits = Limits(max_total_bytes=0)
    with store.protections.lease(recording_id, 1):
        assert [entry.seq for entry in store.rotate()] == [2]
    assert [entry.seq for entry in store.rotate()] == [1]
    store.close()


def test_usage_says_nothing_of_a_ring_and_of_a_medium_that_has_gone(tmp_path: Path) -> None:
    store = make_store(tmp_path, limits=Limits(max_total_bytes=len(MP4), min_free_bytes=0))
    store.open()
    assert store.usage().seconds_left is None
    record(store, 2)
    store.rotate()
    chunk = store.begin("cam0", "video/mp4").open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    chunk.write([MP4])
    usage = store.usage()
    assert usage.seconds_left is None
    assert usage.unsynced_s >= 0
    chunk.finish(ChunkFacts(final=True))
    (tmp_path / "recordings").rename(tmp_path / "away")
    (tmp_path / "recordings").write_text("no folder")
    with pytest.raises(StorageError):
        store.usage()
    store.close()


@pytest.mark.promise("index-is-built-again")
def test_the_index_is_complete_when_the_storage_is_open(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open()
    for _ in range(3):
        record(store, 2)
    store.close()
    index_of(tmp_path).unlink()
    steps: list[tuple[int, int]] = []
    store = make_store(tmp_path)
    store.open(progress=lambda done, total: steps.append((done, total)))
    assert store.index.totals()[1] == 6
    assert steps == [(0, 3), (1, 3), (2, 3)]
    store.close()


def test_the_highest_boot_is_found_whatever_else_lies_there(tmp_path: Path) -> None:
    for name in ("cam0/boot0007", "cam1/boot0012", "cam1/boot99999999999", "cam1/bootx"):
        (tmp_path / name).mkdir(parents=True)
    with files.closing_fd(files.open_root(tmp_path)) as root:
        assert tree.highest_boot(root) == 12


def test_an_overlay_on_memory_is_memory() -> None:
    upper = mount("/memory", kind="tmpfs", source="tmpfs")
    overlay = checks.Mount(
        point="/", kind="overlay", options=frozenset({"rw", "upperdir=/memory/upper"}), source="overlay"
    )
    disk = mount("/disk")
    on_disk = checks.Mount(point="/", kind="overlay", options=frozenset({"upperdir=/disk/upper"}), source="overlay")
    assert "volatile" in [found.code for found in checks.judge(overlay, [upper, overlay])]
    assert "volatile" not in [found.code for found in checks.judge(on_disk, [disk, on_disk])]
    assert "root_file_system" in [found.code for found in checks.judge(mount("/"))]
    assert checks.judge(mount("/"), is_limited=True) == []


def test_a_medium_that_takes_nothing_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path)
    store.open()
    record(store, 2)
    store.close()
    shutil.rmtree(tmp_path / "recordings" / ".msrecd")
    shutil.rmtree(tmp_path / "state")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(files, "replace_file", refuse)
    medium = open_medium(tmp_path / "recordings", tmp_path / "state", create=True)
    assert not medium.is_kept
    medium.close()
    store = make_store(tmp_path)
    store.open()
    assert store.index.totals()[1] == 2
    store.close()
    catalog = open_catalog(tmp_path / "recordings", tmp_path / "state", Corrections())
    assert sum(len(entry.chunks) for entry in catalog.recordings()) == 2
    catalog.close()
