"""Whether memory after a day is memory after a minute: records with rotation for a long time and fits a line.

    python benchmarks/soak.py [--minutes 120] [--folder DIR]

The daemon with its broker passes H.264 1080p30 at 8 Mbit/s through and encodes PCM to AAC, in chunks of 10 s, of which
`max_total` leaves the last 200 MB. Resident memory, threads and open files are sampled every ten seconds into a CSV
file; the slope is Theil and Sen's (the median of the slopes of all pairs) over what comes after the first tenth.
Exit code 1: more than the limit, a dropped frame, or a hole in the sequence of chunks.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path

import programs

LIMIT_MIB_PER_HOUR = 1.0
MIME_TYPE = "video/mp4;codecs=avc1,mp4a.40.2"


def slope_per_hour(samples: Sequence[tuple[float, float]]) -> float:
    """The median slope of (seconds, value) over all pairs that are at least a quarter of the whole apart."""
    thinned = samples[:: max(1, len(samples) // 300)]
    least_s = (thinned[-1][0] - thinned[0][0]) / 4
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(thinned, 2) if b[0] - a[0] >= least_s > 0]
    return 3600 * statistics.median(slopes) if slopes else float("nan")


def watch(daemon: programs.Daemon, seconds: float, interval_s: float, table: Path) -> list[tuple[float, float]]:
    """(seconds since the beginning, MiB resident) every so often; everything else goes into the table."""
    found = []
    begun = time.monotonic()
    cpu = programs.cpu_s(daemon.pid)
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seconds", "rss_mib", "anonymous_mib", "threads", "files", "cpu_s"])
        while (now := time.monotonic() - begun) < seconds:
            rss = programs.memory_mib(daemon.pid, "VmRSS")
            found.append((now, rss))
            anonymous = programs.memory_mib(daemon.pid, "RssAnon")
            threads, files = programs.count(daemon.pid, "task"), programs.count(daemon.pid, "fd")
            used = programs.cpu_s(daemon.pid) - cpu
            writer.writerow([f"{now:.1f}", f"{rss:.3f}", f"{anonymous:.3f}", threads, files, f"{used:.2f}"])
            file.flush()
            time.sleep(max(0.0, begun + len(found) * interval_s - time.monotonic()))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--interval", type=float, default=10, help="seconds between samples")
    parser.add_argument("--folder", type=Path, help="where to record (default: a temporary folder)")
    parser.add_argument("--limit", type=float, default=LIMIT_MIB_PER_HOUR, help="MiB an hour")
    args = parser.parse_args()
    source = programs.make_input(70)
    table = programs.CACHE / "soak.csv"
    with tempfile.TemporaryDirectory(prefix="msrecd-soak-", dir=args.folder) as temporary:
        folder = Path(temporary)
        body = 'max_total = "200MB"\n' + programs.recorder("cam0", source, MIME_TYPE)
        with programs.Broker(folder) as broker, programs.Daemon(folder / "msrecd", broker.port, body) as daemon:
            daemon.begin()
            found = watch(daemon, args.minutes * 60, args.interval, table)
            daemon.end()
            lines = [line for line in daemon.manifest if "file" in line]
    begin = found[-1][0] / 10
    settled = [sample for sample in found if sample[0] >= begin]
    slope = slope_per_hour(settled)
    dropped = sum(line["tracks"]["video"]["dropped"] for line in lines)
    numbers = [line["seq"] for line in lines]
    holes = sum(b != a + 1 for a, b in pairwise(numbers))
    print(
        f"{args.minutes:g} min, {numbers[-1] if numbers else 0} chunks, the last {len(numbers)} of them looked at: "
        f"{dropped} frames dropped, {holes} holes\n"
        f"RSS {settled[0][1]:.1f} MiB after {settled[0][0]:.0f} s, {settled[-1][1]:.1f} MiB at the end, "
        f"{min(v for _, v in settled):.1f} to {max(v for _, v in settled):.1f} in between\n"
        f"slope {slope:+.2f} MiB an hour (limit ± {args.limit:g}); samples in {table}"
    )
    return 0 if abs(slope) <= args.limit and not dropped and not holes and numbers else 1


if __name__ == "__main__":
    sys.exit(main())
