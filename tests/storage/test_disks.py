"""Real file systems that are full, go away or turn read-only; calls that fail; recovery while the daemon runs."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import storage_media
from test_store import make_store, record

from msrecd.clock import SYSTEM_CLOCK
from msrecd.errors import StorageError
from msrecd.storage import files, recovery
from msrecd.storage.fragments import scan
from msrecd.storage.medium import is_in_use, open_medium
from msrecd.storage.retention import Limits
from msrecd.storage.store import ChunkFacts
from msrecd.storage.verify import verify

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@contextlib.contextmanager
def mounted(point: Path, *arguments: str) -> Iterator[Path]:
    """Something mounted at `point`; skips where it cannot be."""
    point.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *arguments, str(point)], capture_output=True, text=True, check=False, timeout=20)
    if done.returncode:
        pytest.skip(f"mount {' '.join(arguments)}: {done.stderr.strip()}")
    try:
        yield point
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=False, timeout=20)


def assert_true_to_its_manifests(root: Path) -> list[dict]:
    """No `.part`, each chunk listed, whole and as listed; the lines."""
    assert not list(root.rglob("*.part"))
    lines = [json.loads(raw) for path in root.rglob("*.jsonl") for raw in path.read_bytes().splitlines()]
    gone = {(line["deleted"]) for line in lines if "deleted" in line}
    for line in lines:
        if "file" in line and line["seq"] not in gone:
            data = (root / line["file"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == line["sha256"]
            assert scan(io.BytesIO(data), len(data), "mp4").cut == len(data)
    assert verify(root).is_proven
    return [line for line in lines if "file" in line]


def fill(folder: Path) -> Path:
    """A foreign file that takes all the room."""
    path = folder / "foreign"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(65536))
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))
    return path


@needs_root
@pytest.mark.promise("reserve-finishes-the-chunk")
def test_on_a_full_disk_the_open_chunk_is_finished_and_the_recording_goes_on(tmp_path: Path) -> None:
    with mounted(tmp_path / "recordings", "-t", "tmpfs", "-o", "size=8m", "tmpfs") as root:
        store = make_store(tmp_path)
        store.open()
        recording = store.begin("cam0", "video/mp4")
        chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
        data = storage_media.make("mp4")
        chunk.write([data])
        foreign = fill(root)
        with pytest.raises(StorageError) as caught:
            chunk.write([data])
        assert caught.value.code == "no_space"
        line = chunk.finish(ChunkFacts(final=False))
        assert line["seq"] == 1
        assert store._janitor.missing_room() is not None
        with pytest.raises(StorageError) as caught:
            recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
        assert caught.value.code == "no_space"
        foreign.unlink()
        store.rotate()
        assert (root / ".msrecd-reserve").stat().st_size == 1 << 20  # for the next time
        assert store._janitor.missing_room() is None
        chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
        chunk.write([data])
        assert chunk.finish(ChunkFacts(final=True))["seq"] == 2
        store.close()
        assert [entry["seq"] for entry in assert_true_to_its_manifests(root)] == [1, 2]


@needs_root
@pytest.mark.promise("full-disk-stays-locked")
def test_a_full_disk_stays_this_daemons_and_a_command_prunes_beside_it(tmp_path: Path) -> None:
    """The state lies on it as well, so the index takes nothing either."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=8m", "tmpfs") as disk:
        store = make_store(disk)
        store.open()
        recording = store.begin("cam0", "video/mp4")
        for _ in range(3):
            chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
            chunk.write([storage_media.make("mp4")])
            chunk.finish(ChunkFacts(final=False, duration_s=2.0, tracks={}))
        fill(disk)
        with pytest.raises(StorageError, match="are free") as caught:
            store.check_writable("cam0")
        assert caught.value.code == "no_space"
        assert is_in_use(disk / "recordings")
        command = make_store(disk, limits=Limits(min_free_bytes=8 << 20))
        command.open_beside()
        assert [entry.seq for entry in command.rotate()] == [1, 2, 3]
        command.close()
        assert is_in_use(disk / "recordings")
        store.close()


@needs_root
@pytest.mark.parametrize("chunks", [1, 5])
@pytest.mark.promise("ring-on-a-full-disk")
def test_a_foreign_file_costs_a_ring_no_more_chunks_than_help(tmp_path: Path, chunks: int) -> None:
    """Of chunks of 1 MiB: one of them would not let recording go on, so it stays; of five go 2 MiB and one to grow."""
    with mounted(tmp_path / "recordings", "-t", "tmpfs", "-o", "size=12m", "tmpfs") as root:
        store = make_store(tmp_path, limits=Limits(max_total_bytes=1 << 30))
        store.open()
        data = storage_media.make("mp4") + (1 << 20).to_bytes(4, "big") + b"free" + bytes((1 << 20) - 8)
        recording = store.begin("cam0", "video/mp4")
        for _ in range(chunks):
            chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
            chunk.write([data])
            chunk.finish(ChunkFacts(final=False, duration_s=2.0, tracks={}))
        fill(root)
        if chunks == 1:
            with pytest.raises(StorageError, match="all recordings that may go would not give as much") as caught:
                recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
            assert caught.value.code == "no_space"
            assert "min_free" not in caught.value.message
            assert store.usage().chunks == 1
        else:
            deleted = store.rotate()
            assert [(entry.seq, entry.reason) for entry in deleted] == [(seq, "no_space") for seq in (1, 2, 3)]
            chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
            chunk.write([storage_media.make("mp4")])
            chunk.finish(ChunkFacts(final=True, duration_s=2.0, tracks={}))
        store.close()
        assert verify(root).is_proven


@pytest.mark.promise("reserve-of-2-mib")
def test_too_little_room_is_said_in_sizes_with_the_key_and_a_remedy(tmp_path: Path) -> None:
    store = make_store(tmp_path, limits=Limits(min_free_bytes=900 << 40))
    store.open()
    with pytest.raises(StorageError) as caught:
        store.require_room()
    assert re.search(r"iB of [\d.]+[GT]iB are free in ", caught.value.message)
    assert caught.value.message.endswith("storage.min_free = 900TiB is more than there is at all: lower it")
    store.close()


@pytest.mark.parametrize("place", ["recordings", "above/recordings"])
def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path, place: str) -> None:
    file = tmp_path / place.partition("/")[0]
    file.write_text("no folder")
    for create in (True, False):
        with pytest.raises(StorageError) as caught:
            open_medium(tmp_path / place, tmp_path / "state", create=create)
        assert f"{file} is a file; move it away, or name another folder" in caught.value.message
    assert file.read_text() == "no folder"


@needs_root
@pytest.mark.promise("limits-hold")
def test_a_ring_goes_round_on_a_disk_smaller_than_its_limit(tmp_path: Path) -> None:
    with mounted(tmp_path / "recordings", "-t", "tmpfs", "-o", "size=12m", "tmpfs") as root:
        store = make_store(tmp_path, limits=Limits(max_total_bytes=1 << 30))
        store.open()
        data = storage_media.make("mp4") + b"\0\0\x01\xe0free" + bytes(472)
        for _ in range(40):
            recording = store.begin("cam0", "video/mp4")
            chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
            chunk.write([data, (1 << 20).to_bytes(4, "big") + b"free" + bytes((1 << 20) - 8)])
            chunk.finish(ChunkFacts(final=True, duration_s=2.0, tracks={}))
            store.rotate()
        assert store._janitor.missing_room() is None
        assert 3 < store.usage().chunks < 12
        store.close()
        assert verify(root).is_proven


@needs_root
@pytest.mark.promise("no-disk-ends-a-recording", "medium-gone")
def test_a_medium_that_is_gone_is_not_replaced_by_the_folder_below_it(tmp_path: Path) -> None:
    point = tmp_path / "recordings"
    with mounted(point, "-t", "tmpfs", "-o", "size=8m", "tmpfs"):
        store = make_store(tmp_path)
        store.open()
        record(store, 1)
        recording = store.begin("cam0", "video/mp4")
        chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
        chunk.write([storage_media.make("mp4")])
        subprocess.run(["umount", "--lazy", str(point)], check=True, timeout=20)
        with pytest.raises(StorageError) as caught:
            store.begin("cam1", "video/mp4").open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
        assert caught.value.code == "missing_mount"
        assert str(point) in str(caught.value)
        store.limits = Limits(max_total_bytes=0)
        with pytest.raises(StorageError) as caught:
            store.rotate()
        assert caught.value.code == "missing_mount"
        assert store.index.totals()[1] == 1  # what is away is not forgotten
        chunk.abandon()
        assert store.finish_unfinished() == []
        recording.close()
        store.close()
    with pytest.raises(StorageError) as caught:
        make_store(tmp_path).open()
    assert caught.value.code == "missing_mount"
    assert list(point.iterdir()) == []


@needs_root
@pytest.mark.promise("medium-gone")
def test_a_medium_that_goes_while_a_chunk_is_being_opened_is_not_replaced_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = tmp_path / "recordings"
    with mounted(point, "-t", "tmpfs", "-o", "size=8m", "tmpfs"):
        store = make_store(tmp_path)
        store.open()
        recording = store.begin("cam0", "video/mp4")
        keep_journal = recording._keep_journal

        def keep_and_lose(root: int) -> None:
            keep_journal(root)
            monkeypatch.undo()
            subprocess.run(["umount", "--lazy", str(point)], check=True, timeout=20)

        monkeypatch.setattr(recording, "_keep_journal", keep_and_lose)
        chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())  # on the medium, by its descriptor
        chunk.write([storage_media.make("mp4")])
        chunk.finish(ChunkFacts(final=False))
        with pytest.raises(StorageError) as caught:
            recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
        assert caught.value.code == "missing_mount"
        recording.close()
        store.close()
    assert list(point.iterdir()) == []


@needs_root
def test_a_disk_that_turns_read_only_keeps_its_chunk_for_later(tmp_path: Path) -> None:
    with mounted(tmp_path / "recordings", "-t", "tmpfs", "-o", "size=8m", "tmpfs") as root:
        store = make_store(tmp_path)
        store.open()
        recording = store.begin("cam0", "video/mp4")
        chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
        chunk.write([storage_media.make("mp4")])
        # A file that is open for writing keeps a file system from being remounted: another view of it is.
        with mounted(tmp_path / "view", "--bind", str(root)) as view:
            subprocess.run(["mount", "-o", "remount,bind,ro", str(view)], check=True, timeout=20)
            with pytest.raises(OSError) as failed:
                (view / "x").touch()
            assert failed.value.errno == errno.EROFS
            with pytest.raises(StorageError) as caught, files.closing_fd(files.open_root(view)) as fd:
                store.root.append_line(fd, recording.manifest, {"seq": 1})
            assert caught.value.code == "read_only"
            assert "remount" in str(caught.value)
        assert chunk.finish(ChunkFacts(final=True))["seq"] == 1
        store.close()
        assert_true_to_its_manifests(root)


@needs_root
def test_vfat_gives_names_once_as_well(tmp_path: Path) -> None:
    if shutil.which("mkfs.vfat") is None:
        pytest.skip("mkfs.vfat (dosfstools) is not installed")
    image = tmp_path / "card.img"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.vfat", str(image)], check=True, capture_output=True, timeout=20)
    with mounted(tmp_path / "recordings", "-t", "vfat", "-o", "loop", str(image)) as root:
        store = make_store(tmp_path)
        store.open()
        assert "fat_limit" in {finding.code for finding in store.findings}
        record(store, 3)
        recording = store.begin("cam0", "video/mp4")
        chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
        chunk.write([storage_media.make("mp4")])
        chunk.abandon()
        store.close()
        store = make_store(tmp_path)
        assert len(store.open()) == 1
        store.close()
        assert len(assert_true_to_its_manifests(root)) == 4


# --- calls that fail -------------------------------------------------------------------------------------------------


class Failing:
    """A function of `os` that fails while `code` is set, for names that hold `where`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, code: int, where: str = "") -> None:
        self.code: int | None = code
        self.calls = 0
        real = getattr(os, name)

        def call(*args: object, **kwargs: object) -> object:
            if self.code is not None and (not where or any(where in str(arg) for arg in args)):
                self.calls += 1
                raise OSError(self.code, os.strerror(self.code))
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, call)


@pytest.mark.promise("undeletable-chunk")
def test_what_cannot_be_deleted_is_announced_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path, limits=Limits(max_total_bytes=2 * len(storage_media.make("mp4")), min_free_bytes=0))
    store.open()
    recording = store.begin("cam0", "video/mp4")
    failing = Failing(monkeypatch, "unlink", errno.EIO, "-0001.mp4")
    for number in range(5):
        chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
        chunk.write([storage_media.make("mp4")])
        chunk.finish(ChunkFacts(final=number == 4, duration_s=2.0, tracks={}))
        store.rotate()
    assert failing.calls >= 2
    root = tmp_path / "recordings"
    assert len(list(root.rglob("*.mp4"))) == 2  # others went in its place: the ring goes round
    (manifest,) = root.rglob("*.jsonl")
    deleted = [line["deleted"] for line in map(json.loads, manifest.read_text().splitlines()) if "deleted" in line]
    assert deleted.count(1) == 1
    assert store.index.totals()[1] == len(list(root.rglob("*.mp4")))  # it takes room: it is counted
    failing.code = None
    store.limits = Limits(max_total_bytes=len(storage_media.make("mp4")), min_free_bytes=0)
    store.rotate()
    assert [path.name[-8:-4] for path in root.rglob("*.mp4")] == ["0005"]
    store.close()
    assert verify(root).is_proven


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL])
@pytest.mark.parametrize("link", [0, errno.EPERM, errno.EOPNOTSUPP])
def test_without_renameat2_a_name_is_given_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, link: int
) -> None:
    monkeypatch.setattr(files, "_renameat2", lambda *_: code)
    if link:
        Failing(monkeypatch, "link", link)
    with files.closing_fd(files.open_root(tmp_path)) as folder:
        (tmp_path / "a.part").write_bytes(b"new")
        files.rename_new(folder, "a.part", "a")
        assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"new")]
        (tmp_path / "a.part").write_bytes(b"newer")
        with pytest.raises(FileExistsError):
            files.rename_new(folder, "a.part", "a")
        assert (tmp_path / "a").read_bytes() == b"new"
        assert (tmp_path / "a.part").read_bytes() == b"newer"
    store = make_store(tmp_path / "store")
    store.open()
    record(store, 2)
    store.close()
    assert_true_to_its_manifests(tmp_path / "store" / "recordings")


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.promise("unfinished-is-not-lost")
def test_a_failing_link_leaves_a_part_that_is_finished_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(files, "_renameat2", lambda *_: errno.ENOSYS)
    failing = Failing(monkeypatch, "link", code)
    store = make_store(tmp_path)
    store.open()
    recording = store.begin("cam0", "video/mp4")
    chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    chunk.write([storage_media.make("mp4")])
    gap = {"at_s": 0.0, "duration_s": 1.5, "reason": "no_space"}
    with pytest.raises(StorageError):
        chunk.finish(ChunkFacts(final=False, duration_s=2.0, tracks={}, gaps=[gap]))
    chunk.abandon()
    assert store.finish_unfinished() == []
    assert len(list((tmp_path / "recordings").rglob("*.part"))) == 1
    second = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    second.write([storage_media.make("mp4")])
    failing.code = None
    assert second.finish(ChunkFacts(final=True, duration_s=2.0, tracks={}))["seq"] == 2
    (line,) = store.finish_unfinished()
    assert (line["seq"], line["recovered"], line["final"]) == (1, True, False)
    assert line["gaps"] == [gap]
    assert store.finish_unfinished() == []
    assert store.index.totals()[1] == 2
    assert list((tmp_path / "recordings" / ".msrecd" / "open").iterdir()) == []
    store.close()
    lines = assert_true_to_its_manifests(tmp_path / "recordings")
    assert sorted(entry["seq"] for entry in lines) == [1, 2]


def test_what_waits_for_a_failing_disk_has_a_bound_and_the_next_start_finishes_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(files, "_renameat2", lambda *_: errno.ENOSYS)
    monkeypatch.setattr(recovery, "MAX_WAITING", 2)
    failing = Failing(monkeypatch, "link", errno.EIO)
    store = make_store(tmp_path)
    store.open()
    for _ in range(5):
        chunk = store.begin("cam0", "video/mp4").open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
        chunk.write([storage_media.make("mp4")])
        with pytest.raises(StorageError):
            chunk.finish(ChunkFacts(final=True, duration_s=2.0, tracks={}))
        chunk.abandon()
    assert caplog.text.count("stays unfinished until the next start: 2 wait already") == 3
    failing.code = None
    assert len(store.finish_unfinished()) == 2
    assert len(list((tmp_path / "recordings").rglob("*.part"))) == 3
    store.close()
    again = make_store(tmp_path)
    assert len(again.open()) == 3
    assert again.index.totals()[1] == 5
    again.close()
    assert len(assert_true_to_its_manifests(tmp_path / "recordings")) == 5


def test_a_manifest_that_could_not_be_written_gets_its_line_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path)
    store.open()
    recording = store.begin("cam0", "video/mp4")
    chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    chunk.write([storage_media.make("mp4")])
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
        with pytest.raises(StorageError):
            chunk.finish(ChunkFacts(final=True, duration_s=2.0, tracks={"video": {"frames": 20, "dropped": 3}}))
    chunk.abandon()
    recording.close()
    (line,) = store.finish_unfinished()
    assert line["tracks"] == {"video": {"frames": 20, "dropped": 3}}  # nothing of it was lost
    assert line["final"]
    assert not line["recovered"]
    assert list((tmp_path / "recordings" / ".msrecd" / "open").iterdir()) == []
    store.close()
    again = make_store(tmp_path)
    assert again.open() == []
    again.close()
    assert_true_to_its_manifests(tmp_path / "recordings")


def test_a_failing_close_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path)
    store.open()
    recording = store.begin("cam0", "video/mp4")
    chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    chunk.write([storage_media.make("mp4")])
    real, fd = os.close, chunk._file.fd

    def close(number: int) -> None:
        real(number)
        if number == fd:
            raise OSError(errno.EIO, "I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", close)
        assert chunk.finish(ChunkFacts(final=True))["seq"] == 1
    store.close()
    assert_true_to_its_manifests(tmp_path / "recordings")


def test_deleting_holds_no_recording_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(storage_media.make("mp4"))
    store = make_store(tmp_path)
    store.open()
    record(store, 3)
    store.limits = Limits(max_total_bytes=size * 2, min_free_bytes=0)
    deleting, go_on = threading.Event(), threading.Event()
    real = os.unlink

    def unlink(name: object, *, dir_fd: int | None = None) -> None:
        if str(name).endswith(".mp4"):
            deleting.set()
            assert go_on.wait(10)
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink)
    thread = threading.Thread(target=store.rotate)
    thread.start()
    assert deleting.wait(10)
    try:
        store.limits = Limits(min_free_bytes=0)
        recording = store.begin("cam0", "video/mp4")
        chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
        chunk.write([storage_media.make("mp4")])
        chunk.finish(ChunkFacts(final=True))
        assert store._janitor.missing_room() is None
        assert thread.is_alive()
    finally:
        go_on.set()
        thread.join(10)
    assert not thread.is_alive()
    store.close()
    assert verify(tmp_path / "recordings").is_proven
