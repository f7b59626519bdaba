"""Files cut anywhere, and every call to the kernel failing once."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import shutil
from pathlib import Path

import av
import fault_table
import pytest
import storage_media
from test_store import make_store

from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.clock.wall import Stamp
from msrecd.errors import StorageError
from msrecd.storage import files, fragments_sound, layout
from msrecd.storage.fragments import scan
from msrecd.storage.store import ChunkFacts


@pytest.mark.parametrize("extension", sorted(storage_media.FORMATS))
def test_a_whole_file_is_kept_whole_and_counted(extension: str) -> None:
    data = storage_media.make(extension)
    found = scan(io.BytesIO(data), len(data), extension)
    assert found.cut == len(data)
    assert found.duration_s == pytest.approx(2.0, abs=0.12)
    assert ("video" in found.tracks) == (storage_media.FORMATS[extension][2] is not None)
    if "video" in found.tracks:
        assert found.tracks["video"].units == storage_media.FRAMES
    assert found.tracks["audio"].units == pytest.approx(96_000, abs=3000)


@pytest.mark.parametrize("extension", sorted(storage_media.FORMATS))
def test_a_file_cut_anywhere_ends_with_a_whole_fragment(extension: str) -> None:
    data = storage_media.make(extension)
    edges = {scan(io.BytesIO(data), size, extension).cut for size in range(0, len(data) + 1, max(1, len(data) // 300))}
    last = 0
    for size in sorted({edge + step for edge in edges for step in (-1, 0, 1)} & set(range(len(data) + 1))):
        found = scan(io.BytesIO(data[:size]), size, extension)
        assert last <= found.cut <= size
        last = found.cut
        assert scan(io.BytesIO(data[: found.cut]), found.cut, extension).cut == found.cut
        if size in edges and size:
            assert found.cut == size
    for size in random.Random(extension).choices(range(len(data)), k=100):
        cut = scan(io.BytesIO(data[:size]), size, extension).cut
        assert cut <= size
        assert scan(io.BytesIO(data[:cut]), cut, extension).cut == cut
        assert not edges or max((edge for edge in edges if edge <= size), default=0) <= cut
    for edge in sorted(edges - {0})[::4]:
        with av.open(io.BytesIO(data[:edge])) as container:
            assert sum(1 for packet in container.demux() if packet.size) > 0


def test_a_long_flac_file_is_looked_through_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    data = storage_media.make("flac")
    expected = scan(io.BytesIO(data), len(data), "flac")
    for block in (64, 97, 1000, 4096, 9999):
        monkeypatch.setattr(fragments_sound, "_FLAC_BLOCK_BYTES", block)
        for size in (len(data), len(data) - 1, len(data) // 2):
            found = scan(io.BytesIO(data[:size]), size, "flac")
            monkeypatch.setattr(fragments_sound, "_FLAC_BLOCK_BYTES", 1 << 20)
            assert found == scan(io.BytesIO(data[:size]), size, "flac")
            monkeypatch.setattr(fragments_sound, "_FLAC_BLOCK_BYTES", block)
            assert size < len(data) or found == expected


CALLS = [
    (os, "writev"), (os, "fsync"), (os, "fdatasync"), (os, "ftruncate"), (os, "replace"), (os, "mkdir"),
    (files, "rename_new"), (files, "open_file"), (os, "close"), (os, "fstatvfs"),
]  # fmt: skip
ALL = bool(os.environ.get("MSRECD_FAULTS"))  # otherwise every so-many-th call of the many
CODES = [errno.ENOSPC, errno.EIO, errno.EROFS]


def play_through(base: Path) -> None:
    """One recording of two chunks as the daemon's sink does it: a failed chunk is finished or left."""
    store = make_store(base)
    store.recordings.sync_interval_s = 0
    try:
        store.open()
    except StorageError:
        return
    data = storage_media.make("mp4")
    recording = store.begin("cam0", "video/mp4")
    for number in range(2):
        try:
            chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
        except StorageError:
            continue
        try:
            try:
                for at in range(0, len(data), 2000):
                    chunk.write([data[at : at + 2000]])
            finally:
                chunk.finish(ChunkFacts(final=number == 1))
        except StorageError:
            chunk.abandon()
    recording.close()
    store.close()


@pytest.mark.timeout(900 if ALL else 300)
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize(("module", "name"), CALLS, ids=[name for _, name in CALLS])
def test_every_call_may_fail_and_nothing_lies(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch, module: object, name: str, code: int
) -> None:
    real = getattr(module, name)
    calls = 0
    fail_at = -1

    def failing(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        is_wanted = calls - 1 == fail_at
        if is_wanted and name != "close":
            raise OSError(code, os.strerror(code))
        result = real(*args, **kwargs)
        if is_wanted:  # a file that fails to close is closed
            raise OSError(code, os.strerror(code))
        return result

    def play(folder: Path) -> None:
        nonlocal calls
        calls = 0
        with monkeypatch.context() as patch:
            patch.setattr(module, name, failing)
            play_through(folder)

    play(quick_path / "whole")
    points = range(calls) if ALL else range(0, calls, 1 + calls // 30)
    for point in points:
        fail_at = point
        base = quick_path / str(point)
        play(base)
        assert calls > point, "the call did not happen again"
        again = make_store(base)
        again.open()
        again.close()
        root = base / "recordings"
        assert not list(root.rglob("*.part"))
        lines = [json.loads(raw) for path in root.rglob("*.jsonl") for raw in path.read_bytes().splitlines()]
        assert {root / line["file"] for line in lines if "file" in line} == set(root.rglob("*.mp4"))
        for line in lines:
            if "file" in line:
                data = (root / line["file"]).read_bytes()
                assert hashlib.sha256(data).hexdigest() == line["sha256"]
                assert scan(io.BytesIO(data), len(data), "mp4").cut == len(data)
        shutil.rmtree(base)
    assert points
    fault_table.row(
        f"{errno.errorcode[code]} at each {name}", cases=len(points), harmed=0, loss="the open chunk's", promise="told"
    )


def test_names_go_both_ways_and_nothing_else_passes() -> None:
    for trusted in (True, False):
        stamp = Stamp(monotonic_ns=5 * NS, utc_ns=1_800_000_000 * NS, boot=7, trusted=trusted)
        recording_id = layout.make_recording_id("cam-0", stamp, 0xAB)
        name = layout.chunk_name(recording_id, 3, "mp4")
        parsed = layout.parse_chunk_name(name + ".part")
        assert parsed is not None
        assert (parsed.recording_id, parsed.recorder, parsed.seq, parsed.is_part) == (recording_id, "cam-0", 3, True)
        assert layout.split_file(f"cam-0/{layout.day_folder(stamp)}/{name}") is not None
        for bad in (f"cam-0/../{name}", f"/etc/{name}", f"cam-1/2026/01/01/{name}", name, f"cam-0/2026/01/01/{name}\n"):
            assert layout.split_file(bad) is None
