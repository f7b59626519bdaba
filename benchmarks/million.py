"""What many chunks cost: start, rotation, list of a day and a new index, at 1 000 and at 1 000 000 chunk files.

    python benchmarks/million.py [--chunks 1000 --chunks 1000000] [--folder DIR]

Each chunk is a sparse file of 60 MB by its manifest and its size, of 60 s; a recording has 60 of them, a day 24
recordings. The manifests are written as a recorder writes them, with hashes in a chain. Needs about 1.2 million inodes
for a million chunks. Prints JSON.

start_s, start_without_index_s: Store.open with and without an index, as the daemon does it before READY; rebuild_s: the
building of the index, beside which chunks are recorded; chunk_while_building_ms: the longest that one of these took to
get its name and its line; rotate_ms: one chunk (4 KiB and a hole) written, listed and the oldest one deleted, median of
200; list_day_ms: the catalog's answer for one day; peak_rss_bytes: of the whole program so far.

ready_s, ready_without_index_s: `msrecd run` on that storage from its start to READY=1, best of 3; once without index;
list_command_s: `msrecd recordings list` of the same day as a command, best of 3. With several numbers of chunks a table
in Markdown follows, with what grows and how much.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.clock.wall import Corrections, Stamp, WallTime
from msrecd.storage import layout
from msrecd.storage.catalog import open_catalog
from msrecd.storage.manifest_lines import ManifestLine, encode_line
from msrecd.storage.retention import Limits
from msrecd.storage.store import ChunkFacts, Store
from msrecd.vocabulary.times import format_utc

CHUNK_BYTES, CHUNK_S, CHUNKS_OF_RECORDING = 60_000_000, 60, 60
BEGIN_NS = 1_600_000_000 * NS  # long ago: all chunks lie in the past


def generate(root: Path, chunks: int) -> None:
    """Folders, sparse chunk files and manifests."""
    made = 0
    while made < chunks:
        began_ns = BEGIN_NS + made * CHUNK_S * NS
        recording_id = layout.make_recording_id("cam0", stamp(began_ns), 0)
        place = root / "cam0" / layout.day_folder(stamp(began_ns))
        prev, lines = "", []
        for seq in range(1, min(CHUNKS_OF_RECORDING, chunks - made) + 1):
            started_ns = began_ns + (seq - 1) * CHUNK_S * NS
            folder = root / "cam0" / layout.day_folder(stamp(started_ns))
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / layout.chunk_name(recording_id, seq, "mp4")
            fd = os.open(path, os.O_WRONLY | os.O_CREAT)
            os.ftruncate(fd, CHUNK_BYTES)
            os.close(fd)
            line = ManifestLine(
                seq=seq,
                file=str(path.relative_to(root)),
                bytes=CHUNK_BYTES,
                sha256="0" * 64,
                mime_type="video/mp4",
                started=format_utc(started_ns),
                ended=format_utc(started_ns + CHUNK_S * NS),
                duration_s=float(CHUNK_S),
                clock="synchronized",
                final=seq == CHUNKS_OF_RECORDING,
                recovered=False,
                lost_s=0.0,
                tracks={"video": {"frames": 1800, "dropped": 0}},
                gaps=[],
            )
            raw = encode_line(dict(line), prev)
            prev = hashlib.sha256(raw).hexdigest()
            lines.append(raw + b"\n")
        (place / layout.manifest_name(recording_id)).write_bytes(b"".join(lines))
        made += len(lines)


def stamp(utc_ns: int) -> Stamp:
    return Stamp(monotonic_ns=0, utc_ns=utc_ns, boot=1, trusted=True)


def make_store(base: Path, limits: Limits) -> Store:
    return Store(
        base / "recordings",
        base / "state",
        limits=limits,
        recorder_limits={},
        sync_interval_s=2.0,
        walltime=WallTime(base / "state", trusted=True),
    )


def ready_s(base: Path) -> float:
    """From the start of the daemon to READY=1; it is stopped then."""
    address = f"\0msrecd-million-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(address)
        ready.settimeout(600)
        begun = time.monotonic()
        daemon = subprocess.Popen(
            [sys.executable, "-m", "msrecd", "run", "--config", str(base / "msrecd.toml"), "--log-level", "error"],
            stdin=subprocess.DEVNULL,
            env=os.environ | {"NOTIFY_SOCKET": "@" + address[1:]},
        )
        try:
            while "READY=1" not in ready.recv(4096).decode().splitlines():
                pass
            return time.monotonic() - begun
        finally:
            daemon.terminate()
            daemon.wait(60)


def list_s(base: Path, since_ns: int, until_ns: int) -> float:
    """`msrecd recordings list` of a range."""
    command = [sys.executable, "-m", "msrecd", "recordings", "list", "--json", "--config", str(base / "msrecd.toml")]
    begun = time.monotonic()
    done = subprocess.run(
        [*command, "--since", format_utc(since_ns), "--until", format_utc(until_ns)],
        check=True,
        stdout=subprocess.PIPE,
        timeout=600,
    )
    assert json.loads(done.stdout)
    return time.monotonic() - begun


def measure(base: Path, chunks: int) -> dict[str, float]:
    """All figures at one number of chunks."""
    base.mkdir()
    begun = time.monotonic()
    generate(base / "recordings", chunks)
    (base / "msrecd.toml").write_text(
        f'config_version = 1\n[storage]\npath = "{base}/recordings"\nstate_path = "{base}/state"\n'
        '[devices]\nvirtual = true\n[[recorder]]\nname = "cam0"\nvideo = true\n'
    )
    result = {"chunks": float(chunks), "generate_s": time.monotonic() - begun}
    begun = time.monotonic()
    store = make_store(base, Limits())
    cpu = time.process_time()
    store.open()
    result["rebuild_s"] = time.monotonic() - begun
    result["rebuild_cpu_s"] = time.process_time() - cpu
    total = store.index.total_bytes(None)
    store.close()
    begun = time.monotonic()
    store = make_store(base, Limits(max_total_bytes=total, min_free_bytes=0))
    store.open()
    result["start_s"] = time.monotonic() - begun
    recording = store.begin("cam0", "video/mp4")
    costs = []
    for _ in range(200):
        begun = time.monotonic()
        chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
        chunk.write([b"x" * 4096])
        os.ftruncate(chunk._file.fd, CHUNK_BYTES)  # sparse, and as large as the chunk that has to go for it
        chunk._file.size = CHUNK_BYTES
        chunk.finish(ChunkFacts(final=False, duration_s=60.0, tracks={}))
        deleted = store.rotate()
        costs.append(time.monotonic() - begun)
        assert len(deleted) == 1, deleted
    recording.close()
    result["rotate_ms"] = statistics.median(costs) * 1000
    result["rotate_p99_ms"] = sorted(costs)[-3] * 1000
    store.close()
    day_ns = BEGIN_NS + chunks * CHUNK_S * NS // 2
    answers = []
    for _ in range(5):
        begun = time.monotonic()
        catalog = open_catalog(base / "recordings", base / "state", Corrections())
        found = catalog.recordings(since_ns=day_ns - 43_200 * NS, until_ns=day_ns + 43_200 * NS)
        catalog.close()
        answers.append(time.monotonic() - begun)
    assert found
    result["list_command_s"] = min(list_s(base, day_ns - 43_200 * NS, day_ns + 43_200 * NS) for _ in range(3))
    result["ready_s"] = min(ready_s(base) for _ in range(3))
    result["list_day_ms"] = statistics.median(answers) * 1000
    result["listed_chunks"] = float(sum(len(entry.chunks) for entry in found))
    result["index_bytes"] = float(next((base / "state").rglob("index.sqlite")).stat().st_size)
    for path in (base / "state").rglob("index*"):
        path.unlink()
    result["ready_without_index_s"] = ready_s(base)
    result["peak_rss_bytes"] = float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return result


ROWS = {
    "start of the daemon to READY, with its index": ("ready_s", "s"),
    "the same with its index lost": ("ready_without_index_s", "s"),
    "of that the storage, with its index": ("start_s", "s"),
    "a new index, before READY": ("rebuild_s", "s"),
    "CPU of a new index": ("rebuild_cpu_s", "s"),
    "write, list and rotate one chunk, median": ("rotate_ms", "ms"),
    "the same, 99 %": ("rotate_p99_ms", "ms"),
    "find the recordings of one day": ("list_day_ms", "ms"),
    "`msrecd recordings list` of one day": ("list_command_s", "s"),
    "chunks of that day": ("listed_chunks", ""),
    "size of the index": ("index_bytes", "MB"),
    "peak memory": ("peak_rss_bytes", "MB"),
}


def table(results: list[dict[str, float]]) -> str:
    """Markdown: a row a figure, a column a number of chunks, and the growth from the first to the last."""
    heads = [f"{result['chunks']:,.0f} chunks".replace(",", " ") for result in results]
    lines = [f"| | {' | '.join(heads)} | growth |", "|---" * (len(results) + 2) + "|"]
    for title, (name, unit) in ROWS.items():
        values = [result[name] / (1e6 if unit == "MB" else 1) for result in results]
        growth = f"{values[-1] / values[0]:.1f} ×" if values[0] else ""
        lines.append(f"| {title} | {' | '.join(f'{value:.3g} {unit}'.strip() for value in values)} | {growth} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, action="append")
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="msrecd-million-", dir=options.folder))
    try:
        results = []
        for chunks in options.chunks or [1000, 1_000_000]:
            result = measure(base / str(chunks), chunks)
            results.append(result)
            print(json.dumps({name: round(value, 3) for name, value in result.items()}), flush=True)
            shutil.rmtree(base / str(chunks))
        print(table(results))
    finally:
        print("removing files …", file=sys.stderr)
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
