"""A writer that is killed at any moment, and files that end anywhere: through the whole recovery of a start.

The ordinary run takes a sample; `MSRECD_FAULTS=1` (`make faults`) all of it, on ext4 and on FAT where there is one.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av
import fault_table
import pytest
import storage_media
from test_disks import mounted, needs_root
from test_store import make_store, record

from msrecd.clock import SYSTEM_CLOCK
from msrecd.storage.fragments import scan
from msrecd.storage.retention import Limits
from msrecd.storage.store import Store

ALL = bool(os.environ.get("MSRECD_FAULTS"))
KILLS = 500 if ALL else 25
CUTS = 500 if ALL else 40  # at random offsets, of each container
MIME_TYPES = {"mp4": "video/mp4", "m4a": "audio/mp4", "mkv": "video/x-matroska", "webm": "video/webm"}
STEP = 1000  # bytes of a write

# Loads everything once, then makes a writer for each line it is sent. What a writer has written it tells in a shared
# page: number of the recording, of its chunk, bytes.
_WRITERS = """
import mmap, os, struct, sys
from pathlib import Path
base, media, page, step, *paths = sys.argv[1:]
sys.path[:0] = paths
import test_store
from msrecd.clock import SYSTEM_CLOCK
data = Path(media).read_bytes()

def write(told):
    store = test_store.make_store(Path(base))
    store.open()
    os.write(1, b"writing\\n")
    while True:
        recording = store.begin("cam0", "video/mp4")
        for number in range(3):
            chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
            told[8:] = str(chunk.path).encode().ljust(1016)
            for at in range(0, len(data), int(step)):
                chunk.write([data[at:at + int(step)]])
                told[:8] = (at + int(step)).to_bytes(8, "little")
            told[:8] = bytes(8)
            chunk.finish(test_store.ChunkFacts(final=number == 2, duration_s=2.0, tracks={}))

for _ in sys.stdin.buffer:
    pid = os.fork()
    if not pid:
        with open(page, "r+b") as file:
            write(mmap.mmap(file.fileno(), 1024))
    os.write(1, b"%d\\n" % pid)
    os.waitpid(pid, 0)
    os.write(1, b"gone\\n")
"""


def read_lines(root: Path) -> tuple[dict[Path, dict], set[Path]]:
    """Lines of chunks by their file, and what is said to be deleted; the chains are whole."""
    lines: dict[Path, dict] = {}
    deleted: set[Path] = set()
    for manifest in root.rglob("*.jsonl"):
        prev = ""
        own: dict[int, Path] = {}
        for raw in manifest.read_bytes().splitlines():
            line = json.loads(raw)
            assert line["prev"] == prev
            prev = hashlib.sha256(raw).hexdigest()
            if "deleted" in line:
                deleted.add(own[line["deleted"]])
            else:
                own[line["seq"]] = root / line["file"]
                lines[root / line["file"]] = line
    return lines, deleted


@contextlib.contextmanager
def storage_on(kind: str, tmp_path: Path) -> Iterator[Path]:
    """A folder whose `recordings` lie on a file system of that kind."""
    if kind == "here":
        yield tmp_path
        return
    make = shutil.which({"ext4": "mkfs.ext4", "vfat": "mkfs.vfat"}[kind])
    if make is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    image = tmp_path / "card.img"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run([make, *(["-q", "-F"] if kind == "ext4" else []), str(image)], check=True, capture_output=True)
    with mounted(tmp_path / "recordings", "-t", kind, "-o", "loop", str(image)):
        yield tmp_path


FILE_SYSTEMS = [
    "here",
    pytest.param("ext4", marks=needs_root),
    pytest.param("vfat", marks=needs_root),
]


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
@pytest.mark.timeout(300 + 2 * KILLS)
@pytest.mark.promise("finished-is-complete")
def test_a_kill_at_any_moment_harms_no_finished_chunk(tmp_path: Path, kind: str) -> None:
    """Nothing is lost that had been written: a kill does not take what the kernel has."""
    rng = random.Random(5)
    kills = KILLS if kind == "here" or ALL else 5
    with storage_on(kind, tmp_path) as base:
        media, page = tmp_path / "media.mp4", tmp_path / "page"
        media.write_bytes(storage_media.make("mp4"))
        whole = media.read_bytes()
        page.write_bytes(bytes(1024))
        paths = [str(Path(__file__).parent), str(Path(storage_media.__file__).parent), str(Path(__file__).parents[2])]
        recovered = 0
        with (
            page.open("r+b") as file,
            mmap.mmap(file.fileno(), 1024) as told,
            subprocess.Popen(
                [sys.executable, "-c", _WRITERS, str(base), str(media), str(page), str(STEP), *paths],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            ) as writers,
        ):
            assert writers.stdin is not None
            assert writers.stdout is not None
            for number in range(kills):
                told[:] = bytes(1024)
                writers.stdin.write(b"go\n")
                writers.stdin.flush()
                first, second = writers.stdout.readline(), writers.stdout.readline()
                pid = int(second if first == b"writing\n" else first)
                if number % 2:  # a moment; on a slow disk most of them lie in a sync
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        writers.wait(rng.uniform(0, 0.1))
                else:  # a size, which is within a chunk however slow the disk is
                    wait_until_written(told, rng.randrange(len(whole)))
                os.kill(pid, signal.SIGKILL)
                assert writers.stdout.readline() == b"gone\n"
                recovered += judge_after_kill(base, whole, told)
            writers.stdin.close()
    assert recovered >= kills // 10  # the kills hit chunks
    fault_table.row(
        f"kill -9 of a writer ({'ext4' if kind == 'here' else kind + ' image'})",
        cases=kills,
        harmed=0,
        loss="0 whole fragments",
        promise="0 (the kernel has it)",
    )


def wait_until_written(told: mmap.mmap, size: int) -> None:
    deadline = time.monotonic() + 60
    while int.from_bytes(told[:8], "little") <= size:
        assert time.monotonic() < deadline, f"the writer has not come to {size} bytes"


def judge_after_kill(base: Path, media: bytes, told: mmap.mmap) -> int:
    """How many chunks were recovered."""
    (written,) = struct.unpack_from("<Q", told)
    part = Path(os.fsdecode(bytes(told[8:]).rstrip(b"\0 ")))
    root = base / "recordings"
    store = make_store(base, limits=Limits(max_total_bytes=2_000_000, min_free_bytes=0))
    recovered = len(store.open())
    assert not list(root.rglob("*.part"))
    lines, deleted = read_lines(root)
    for file, line in lines.items():
        if file.exists():
            assert hashlib.sha256(file.read_bytes()).hexdigest() == line["sha256"]
            assert line["recovered"] or line["bytes"] == len(media)
        else:
            assert file in deleted
    assert set(root.rglob("*.mp4")) <= set(lines)
    assert store.index.totals()[1] == len(list(root.rglob("*.mp4")))
    kept = scan(io.BytesIO(media[:written]), min(written, len(media)), "mp4").cut
    if kept:
        content = part.with_suffix("").read_bytes()
        assert len(content) >= kept, f"{written} bytes were written, {kept} of them whole, {len(content)} are left"
        assert media.startswith(content)
    store.rotate()
    store.close()
    return recovered


def edges_of(data: bytes, extension: str) -> set[int]:
    """All sizes at which a fragment ends: each is found from the one behind it."""
    if extension == "wav":  # one of 16 bits
        return set(range(data.index(b"data") + 10, len(data) + 1, 2))
    edges, size = set(), len(data)
    while size > 0:
        cut = scan(io.BytesIO(data[:size]), size, extension).cut
        if not cut:
            break
        edges.add(cut)
        size = cut - 1
    return edges


@pytest.mark.timeout(1200 if ALL else 300)
@pytest.mark.parametrize("extension", sorted(storage_media.FORMATS))
def test_a_part_that_ends_anywhere_becomes_what_it_holds(quick_path: Path, extension: str) -> None:
    """Through a start: the file of another chunk is untouched, the loss is less than one fragment."""
    cases, worst_s = cut_everywhere(quick_path, extension)
    fault_table.row(
        f".part cut at fragments ± 1 byte and at random, {extension}",
        cases=cases,
        harmed=0,
        loss=f"{worst_s:.2f} s",
        promise="less than one fragment",
    )


def cut_everywhere(base: Path, extension: str) -> tuple[int, float]:
    """How many sizes, and the largest loss in seconds: by its share of a fragment that was cut."""
    data = storage_media.make(extension)
    edges = edges_of(data, extension)
    assert len(edges) >= 5
    ends = sorted({0, *edges, len(data)})
    lengths = {end: scan(io.BytesIO(data[:end]), end, extension).duration_s for end in ends}
    near = {edge + step for edge in edges for step in (-1, 0, 1)} & set(range(len(data) + 1))
    sample = random.Random(extension)
    near = set(sample.sample(sorted(near), min(500 if ALL else 30, len(near))))
    sizes = [*sorted(near), *(sample.randrange(len(data)) for _ in range(CUTS))]
    store = make_store(base)
    store.open()
    (neighbour,) = record(store, 1)
    kept = base / "recordings" / neighbour["file"]
    worst_s = 0.0
    for size in sizes:
        store = cut_once(base, store, data, extension, size)
        found = [path for path in (base / "recordings").rglob(f"*.{extension}") if path != kept]
        content = found[0].read_bytes() if found else b""
        before = max(end for end in ends if end <= size and (end in edges or not end))
        assert len(content) == before
        if extension not in ("wav", "flac"):  # their lengths are written in when they are finished
            assert data.startswith(content)
        if found and size % 7 == 0:
            with av.open(str(found[0])) as container:
                assert sum(1 for packet in container.demux() if packet.size)
        if size > before:
            behind = min(end for end in ends if end >= size)
            share = (size - before) / (behind - before)
            worst_s = max(worst_s, share * (lengths[behind] - lengths[before]))
        for path in found:
            path.unlink()
    lines, _ = read_lines(base / "recordings")
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == lines[kept]["sha256"]
    store.close()
    longest_s = max(lengths[after] - lengths[before] for before, after in itertools.pairwise(ends))
    assert worst_s <= longest_s
    return len(sizes), worst_s


def cut_once(base: Path, store: Store, data: bytes, extension: str, size: int) -> Store:
    """A chunk cut at `size`, as a power cut leaves it; the store after the next start."""
    recording = store.begin("cam0", MIME_TYPES.get(extension, f"audio/{extension}"))
    chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
    chunk.write([data])
    os.truncate(chunk.path, size)
    chunk._file.close()
    store.close()
    again = make_store(base)
    recovered = again.open()
    assert len(recovered) + len(again.lost) == 1
    assert not list((base / "recordings").rglob("*.part"))
    return again
