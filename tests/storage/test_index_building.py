"""An index that was lost is built again beside the recordings: nothing waits for it, nothing goes wrongly before."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest
import storage_media
from test_store import make_store, record

from msrecd.cli.main import main
from msrecd.clock import SYSTEM_CLOCK
from msrecd.clock.wall import Corrections
from msrecd.daemon.archive import DaemonArchive
from msrecd.errors import StorageError
from msrecd.storage.catalog import open_catalog
from msrecd.storage.janitor import LEAST_ROOM_BYTES
from msrecd.storage.listing import Listing
from msrecd.storage.retention import Limits
from msrecd.storage.store import ChunkFacts, Store
from msrecd.storage.verify import verify

SIZE = len(storage_media.make("mp4"))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Five recordings of two chunks, and no index."""
    store = make_store(tmp_path)
    store.open()
    for _ in range(5):
        record(store, 2)
    store.close()
    (tmp_path / "state" / "index.sqlite").unlink()
    return tmp_path


def opened(base: Path, limits: Limits | None = None) -> Store:
    store = make_store(base, limits=limits)
    store.open(build_later=True)
    assert store.is_building
    return store


def files(base: Path) -> list[str]:
    return sorted(str(path.relative_to(base / "recordings")) for path in (base / "recordings").rglob("*.mp4"))


def test_recording_goes_on_while_the_index_is_built(base: Path) -> None:
    store = opened(base)
    lines = record(store, 2)
    open_ = store.begin("cam0", "video/mp4").open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    assert store.build_index() == 12  # some had been there, and both of the new ones have their lines already
    assert not store.is_building
    open_.write([storage_media.make("mp4")])
    open_.finish(ChunkFacts(final=True))
    assert store.index.totals() == (13 * SIZE, 13)
    order = [chunk.file for chunk in store.index.oldest(None)]
    assert order[:10] == files(base)[:10]
    assert order[10:12] == [line["file"] for line in lines]
    store.close()
    again = make_store(base)
    again.open(build_later=True)
    assert not again.is_building
    assert again.index.totals()[1] == 13
    again.close()


def test_where_nothing_was_recorded_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.open(build_later=True)
    assert not store.is_building
    catalog = open_catalog(tmp_path / "recordings", tmp_path / "state", Corrections())
    assert catalog.is_indexed
    catalog.close()
    store.close()


def test_a_list_made_meanwhile_is_complete_and_says_where_it_comes_from(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = base / "msrecd.toml"
    config.write_text(
        f'config_version = 1\n[storage]\npath = "{base}/recordings"\nstate_path = "{base}/state"\n'
        '[devices]\nvirtual = true\n[[recorder]]\nname = "cam0"\nvideo = true\n'
    )
    store = opened(base)
    record(store, 1)
    said = []
    for _ in range(2):
        assert main(["recordings", "list", "--json", "--config", str(config)]) == 0
        out, err = capsys.readouterr()
        assert sum(len(recording["chunks"]) for recording in json.loads(out)) == 11
        said.append(err)
        store.build_index()
    assert "the index is being built again" in said[0]
    assert said[1] == ""
    store.close()


def test_what_goes_is_kept_and_comes_meanwhile_is_known_afterwards(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The builder has read all manifests when a chunk goes, one comes, one is protected and one no longer is."""
    store = opened(base)
    ids = sorted({Path(file).name.rsplit("-", 1)[0] for file in files(base)})
    store.protect(ids[0])
    store.protect(ids[1])
    read, go_on = threading.Event(), threading.Event()
    real = Listing._all_files

    def slow(self: Listing, root: int) -> object:
        yield from real(self, root)
        read.set()
        assert go_on.wait(20)

    with monkeypatch.context() as patch:
        patch.setattr(Listing, "_all_files", slow)
        builder = threading.Thread(target=store.build_index)
        builder.start()
        assert read.wait(20)
        patch.setattr(Listing, "_all_files", real)
    store.unprotect(ids[0])
    new = record(store, 1)[0]["file"]
    free = store.ground.status().f_bavail * store.ground.status().f_frsize
    monkeypatch.setattr(store.ground, "status", lambda: _Status(free - SIZE // 2 if len(files(base)) > 10 else free))
    store.limits = Limits(min_free_bytes=free)
    (deleted,) = store.rotate()
    assert deleted.file == files_of(ids[0])[0]  # the oldest, which is not protected any more
    go_on.set()
    builder.join(20)
    assert not builder.is_alive()
    known = {chunk.file for chunk in store.index.oldest(None)}
    assert known == {file for file in files(base) if ids[1] not in file}
    assert new in known
    assert store.index.totals()[1] == len(files(base)) == 10
    store.close()
    assert verify(base / "recordings").is_proven


class _Status:
    def __init__(self, free: int) -> None:
        self.f_bavail, self.f_frsize, self.f_blocks = free, 1, 1 << 40


def files_of(recording_id: str) -> list[str]:
    day = f"cam0/{recording_id[:4]}/{recording_id[4:6]}/{recording_id[6:8]}"
    return [f"{day}/{recording_id}-{seq:04d}.mp4" for seq in (1, 2)]


def test_only_for_room_anything_goes_before_it_is_built(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(base, Limits(max_total_bytes=SIZE, max_age_s=0, min_free_bytes=LEAST_ROOM_BYTES))
    assert store.rotate() == []
    assert len(files(base)) == 10
    monkeypatch.setattr(store.ground, "status", lambda: _Status(LEAST_ROOM_BYTES + SIZE * (7 - len(files(base)))))
    assert [entry.reason for entry in store.rotate()] == ["min_free"] * 3
    assert len(list((base / "recordings").rglob("*.jsonl"))) == 4  # the first recording has gone as a whole
    store.build_index()
    store.rotate()
    assert len(files(base)) == 1
    store.close()


def test_lists_and_commands_beside_it_know(base: Path) -> None:
    store = opened(base)
    catalog = open_catalog(base / "recordings", base / "state", Corrections())
    assert sum(len(entry.chunks) for entry in catalog.recordings()) == 10
    catalog.close()
    beside = make_store(base, limits=Limits(max_total_bytes=0))
    beside.open_beside()
    for action in (beside.plan, beside.rotate):
        with pytest.raises(StorageError) as caught:
            action()
        assert caught.value.code == "busy"
    kept = Path(files(base)[0]).name.rsplit("-", 1)[0]
    beside.protect(kept)
    with pytest.raises(StorageError) as caught:
        beside.protect(kept.replace("cam0", "cam9"))
    assert caught.value.code == "not_found"
    beside.close()
    store.build_index()
    store.limits = Limits(max_total_bytes=0, min_free_bytes=0)
    store.rotate()
    assert [Path(file).name.rsplit("-", 1)[0] for file in files(base)] == [kept, kept]
    store.close()


def test_an_end_meanwhile_gives_up_and_the_next_start_builds_it(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(base)
    real = Listing._listed_files
    reading, go_on = threading.Event(), threading.Event()

    def slow(*args: object) -> object:
        reading.set()
        assert go_on.wait(20)
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Listing, "_listed_files", slow)
        builder = threading.Thread(target=store.build_index)
        builder.start()
        assert reading.wait(20)
        store.close()
        go_on.set()
        builder.join(20)
        assert not builder.is_alive()
    assert not list((base / "state").glob("index.new*"))
    again = opened(base)
    assert again.build_index() == 10
    again.close()


def test_the_daemon_tries_again_when_it_cannot_be_built(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(base, Limits(max_total_bytes=SIZE, min_free_bytes=0))
    monkeypatch.setattr("msrecd.daemon.archive.JANITOR_INTERVAL_S", 0.05)
    real, tried = store.build_index, []

    def build() -> int:
        tried.append(True)
        if len(tried) == 1:
            raise StorageError("no")
        return real()

    monkeypatch.setattr(store, "build_index", build)

    async def story() -> None:
        tidied = asyncio.Event()
        task = asyncio.create_task(DaemonArchive(store).run(tidied.set))
        async with asyncio.timeout(20):
            while store.is_building or len(files(base)) > 1:
                await tidied.wait()
                tidied.clear()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(story())
    assert len(tried) == 2
    store.close()
