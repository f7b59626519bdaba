"""What more recorders cost, and shorter chunks: CPU, memory and dropped frames of one daemon.

    python benchmarks/growth.py [--seconds 30] [--json]

Each recorder plays its own copy of the input (H.264 1080p30 at 8 Mbit/s, passed through) into chunks of 10 s; then one
recorder with its sound into chunks of 2, 10 and 60 s. A frame is dropped when a manifest says so or when a finished
chunk holds fewer than its length asks for.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import programs

RECORDERS = (1, 2, 4, 8, 16)
CHUNKS_S = (2, 10, 60)
FRAME_RATE = 30
WITH_SOUND = "video/mp4;codecs=avc1,mp4a.40.2"


def video_only(source: Path) -> Path:
    """The input without its sound."""
    path = source.with_name(source.stem + "-video.mkv")
    if not path.exists():
        programs.copy_video(source, path)
    return path


def measure(source: Path, mime_type: str, *, recorders: int, chunk_s: int, seconds: float) -> dict[str, float]:
    """One daemon with so many recorders."""
    names = [f"cam{number}" for number in range(recorders)]
    body = "".join(programs.recorder(name, source, mime_type, chunk=f"{chunk_s}s") for name in names)
    with tempfile.TemporaryDirectory(prefix="msrecd-bench-") as temporary:
        folder = Path(temporary)
        with (
            programs.Broker(folder) as broker,
            programs.Daemon(folder / "msrecd", broker.port, body, recorders=names) as daemon,
        ):
            daemon.begin()
            time.sleep(2)
            before, begun = programs.cpu_s(daemon.pid), time.monotonic()
            time.sleep(seconds)
            minutes = (time.monotonic() - begun) / 60
            result = {
                "recorders": recorders,
                "chunk_s": chunk_s,
                "cpu_s_per_min": (programs.cpu_s(daemon.pid) - before) / minutes,
                "peak_rss_mib": programs.memory_mib(daemon.pid),
            }
            daemon.end()
            lines = [line for line in daemon.manifest if "file" in line]
    frames = sum(line["tracks"]["video"]["frames"] for line in lines)
    wanted = sum(line["duration_s"] * FRAME_RATE for line in lines)
    dropped = sum(line["tracks"]["video"]["dropped"] for line in lines)
    recorded = {line["file"].split("/")[0] for line in lines}
    assert len(recorded) == recorders, f"only {len(recorded)} of {recorders} recorders have a chunk"
    return result | {"frames": frames, "dropped": max(dropped, round(wanted - frames - len(lines)), 0)}


def run(seconds: float) -> dict[str, list[dict[str, float]]]:
    """Growth with the number of recorders and with the length of chunks."""
    source = programs.make_input(70)
    video = video_only(source)
    return {
        "recorders": [
            measure(video, "video/mp4;codecs=avc1", recorders=number, chunk_s=10, seconds=seconds)
            for number in RECORDERS
        ],
        "chunks": [
            measure(source, WITH_SOUND, recorders=1, chunk_s=chunk_s, seconds=max(seconds, chunk_s + 5))
            for chunk_s in CHUNKS_S
        ],
    }


def table(rows: Sequence[dict[str, float]], key: str, title: str) -> str:
    lines = [f"| {title} | CPU s a minute | peak RSS MiB | frames | dropped |", "|---|---|---|---|---|"]
    for row in rows:
        cost = f"{row['cpu_s_per_min']:.2f} | {row['peak_rss_mib']:.1f}"
        lines.append(f"| {row[key]:g} | {cost} | {row['frames']:g} | {row['dropped']:g} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = run(args.seconds)
    if args.json:
        print(json.dumps(found))
        return 0
    print(table(found["recorders"], "recorders", "recorders, picture only") + "\n")
    print(table(found["chunks"], "chunk_s", "chunk length s, with sound"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
