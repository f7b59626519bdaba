"""What was recorded after a given chunk: what nobody may have been told of."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from msrecd.clock.wall import WallTime
from msrecd.daemon.unpublished import unpublished_chunks
from msrecd.storage.manifest_lines import encode_line
from msrecd.storage.retention import Limits
from msrecd.storage.root import StorageRoot
from msrecd.storage.since import behind, lines_since
from msrecd.storage.store import Store

DAYS = {
    "20261119T235900Z-cam0-aaaa": "2026/11/19",
    "20261120T060000Z-cam0-bbbb": "2026/11/20",
    "20261120T070000Z-cam0-cccc": "2026/11/20",
    "boot0002-0000001000-cam0-dddd": "boot0002",
    "boot0003-0000001000-cam0-eeee": "boot0003",
}


def line(recording_id: str, seq: int) -> dict[str, object]:
    return {
        "seq": seq, "file": f"cam0/{DAYS[recording_id]}/{recording_id}-{seq:04d}.mp4", "bytes": 1, "sha256": "0" * 64,
        "mime_type": "video/mp4", "started": "2026-11-20T06:00:00Z", "ended": "2026-11-20T06:01:00Z", "final": False,
        "duration_s": 60.0, "clock": "synchronized", "recovered": False, "lost_s": 0.0, "tracks": {}, "gaps": [],
    }  # fmt: skip


def write(root: Path, recording_id: str, lines: Iterable[dict[str, object]]) -> None:
    folder = root / "cam0" / DAYS[recording_id]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{recording_id}.jsonl").write_bytes(b"".join(encode_line(one, "") + b"\n" for one in lines))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    for recording_id in DAYS:
        write(tmp_path / "r", recording_id, [line(recording_id, seq) for seq in (1, 2, 3)])
    store = Store(
        tmp_path / "r", tmp_path / "s", limits=Limits(), recorder_limits={}, sync_interval_s=2.0,
        walltime=WallTime(tmp_path / "s"),
    )  # fmt: skip
    store.root.open(create=True)
    return store


def numbers(ground: StorageRoot, recording_id: str, seq: int, **options: int) -> list[tuple[str, int]]:
    found = lines_since(ground, "cam0", recording_id, seq, **options)
    return [(str(one["file"]).rpartition("-")[0][-4:], one["seq"]) for one in found]


def test_only_what_lies_behind_and_in_order(store: Store) -> None:
    ground = store.root
    assert numbers(ground, "20261119T235900Z-cam0-aaaa", 2) == [
        ("aaaa", 3), *(("bbbb", n) for n in (1, 2, 3)), *(("cccc", n) for n in (1, 2, 3)),
    ]  # fmt: skip
    assert numbers(ground, "20261120T070000Z-cam0-cccc", 3) == []
    assert numbers(ground, "20261120T070000Z-cam0-cccc", 0) == [("cccc", 1), ("cccc", 2), ("cccc", 3)]
    assert numbers(ground, "20261119T235900Z-cam0-aaaa", 0, limit=4) == [("bbbb", 3), *(("cccc", n) for n in (1, 2, 3))]


def test_a_recording_that_is_gone_and_one_before_the_clock_was_set(store: Store) -> None:
    ground = store.root
    assert numbers(ground, "20261120T063000Z-cam0-0000", 7) == [("cccc", 1), ("cccc", 2), ("cccc", 3)]
    assert numbers(ground, "boot0002-0000001000-cam0-dddd", 2) == [("dddd", 3), *(("eeee", n) for n in (1, 2, 3))]
    assert lines_since(ground, "nobody", "20261120T063000Z-nobody-0000", 0) == []


def test_what_rotation_took_is_not_told(store: Store, tmp_path: Path) -> None:
    id_ = "20261120T070000Z-cam0-cccc"
    deletion = {"deleted": 2, "at": "2026-11-20T08:00:00Z", "reason": "max_total"}
    write(tmp_path / "r", id_, [line(id_, 1), line(id_, 2), deletion, line(id_, 3)])
    assert numbers(store.root, id_, 0) == [("cccc", 1), ("cccc", 3)]


def test_a_long_manifest_is_read_from_its_end() -> None:
    id_ = "20261120T070000Z-cam0-cccc"
    lines = [encode_line(line(id_, seq), "") for seq in range(1, 6)]
    deletion = encode_line({"deleted": 1, "at": "2026-11-20T08:00:00Z", "reason": "max_total"}, "")
    content = b"\n".join([*lines[:4], deletion, lines[4], deletion, b""])
    assert behind(content, 4) == b"\n".join([deletion, lines[4], deletion, b""])
    assert behind(content, 5) == deletion + b"\n"
    assert behind(content, 0) == content
    assert behind(b"", 3) == b""


def test_untold_joins_marks_and_what_this_start_recovered(store: Store) -> None:
    trusted, boot = "20261120T070000Z-cam0-cccc", "boot0003-0000001000-cam0-eeee"
    recovered = [line(trusted, 3), line(boot, 3)]
    found = unpublished_chunks(store, {"cam0": [(trusted, 1)]}, recovered)
    assert [(recorder, one["seq"], str(one["file"])[-9:-4]) for recorder, one in found] == [
        ("cam0", 2, "-0002"), ("cam0", 3, "-0003"), ("cam0", 3, "-0003"),
    ]  # fmt: skip
    assert json.loads(json.dumps(found[-1][1]))["file"] == line(boot, 3)["file"], "of its form nothing was told before"
    assert [one["file"] for _, one in unpublished_chunks(store, {}, recovered)] == [one["file"] for one in recovered]
    assert unpublished_chunks(store, {"cam0": [(trusted, 3), (boot, 3)]}, recovered) == []
