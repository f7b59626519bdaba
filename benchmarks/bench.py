"""All that `make bench` measures, in one run: network cameras beside ffmpeg, GStreamer and mediamtx, what a kill costs,
encoding beside ffmpeg and GStreamer, growth, times; tables and a plot.

    python benchmarks/bench.py [--quick] [--out DIR] [--mediamtx PATH]

GStreamer is installed by apt-get where it is missing and can be, mediamtx is built where Go is there (see network.py);
without them their rows are missing. Some half an hour on a machine that does nothing else; with --quick some eight
minutes. Results go to `results.md`, `results.json`, `growth.svg`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import av
import cost
import growth
import latency
import network
import programs

GSTREAMER = ("tools", "plugins-base", "plugins-good", "plugins-bad", "libav")


def set_up() -> None:
    """Install GStreamer if that is possible without a question."""
    if shutil.which("gst-launch-1.0") or not shutil.which("apt-get"):
        return
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    packages = [f"gstreamer1.0-{part}" for part in GSTREAMER]
    print("installing " + " ".join(packages), file=sys.stderr)
    command = [*as_root, "apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    if subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        print("it cannot be installed: its rows will be missing", file=sys.stderr)


def machine() -> str:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine())
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    return (
        f"{os.cpu_count()} × {model}, {system}, Python {platform.python_version()}, PyAV {av.__version__}; "
        f"load average {os.getloadavg()[0]:.1f} when it began"
    )


def plot(rows: Sequence[dict[str, float]], path: Path) -> None:
    """CPU and memory over the number of recorders, as SVG."""
    width, height, left, bottom = 640, 360, 60, 300
    most = rows[-1]["recorders"]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<path d="M{left} 30V{bottom}H580V30" fill="none" stroke="black"/>',
        f'<text x="{left}" y="345">recorders of 1080p30 at 8 Mbit/s, passed through</text>',
    ]
    for row in rows:
        x = left + 520 * row["recorders"] / most
        parts.append(f'<text x="{x:.0f}" y="318" text-anchor="middle">{row["recorders"]:g}</text>')
    curves = (
        ("cpu_s_per_min", "CPU s a minute", "#0b5394", left - 8, "end", 20, 20),
        ("peak_rss_mib", "peak RSS MiB", "#b45f06", 588, "start", 440, 50),
    )
    for key, label, colour, x_label, anchor, x_title, step in curves:
        top = step * (int(max(row[key] for row in rows)) // step + 1)
        points = [(left + 520 * row["recorders"] / most, bottom - 270 * row[key] / top) for row in rows]
        parts.append(f'<text x="{x_title}" y="20" fill="{colour}">{label}</text>')
        parts += [
            f'<text x="{x_label}" y="{bottom - 270 * share / 4 + 4:.0f}" text-anchor="{anchor}" fill="{colour}">'
            f"{top * share / 4:g}</text>"
            for share in range(5)
        ]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
    path.write_text("\n".join([*parts, "</svg>", ""]))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=programs.CACHE)
    parser.add_argument("--mediamtx", help="path of the program")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    set_up()
    head = f"{datetime.now(UTC):%Y-%m-%d}, {machine()}"
    print(head, flush=True)
    seconds, repeat, times = (20, 1, 20) if args.quick else (60, 3, 100)
    peers = network.find_mediamtx(args.mediamtx)
    rounds = 1 if args.quick else 5
    cameras = {
        count: network.run(cameras=count, seconds=seconds, repeat=rounds, sound="aac", path=peers)
        for count in ((1,) if args.quick else (1, 8, 16))
    }
    killed = network.run_kills(3 if args.quick else 10, peers)
    text = [head, *(f"{count} cameras\n\n{network.table(one, network.COLUMNS)}" for count, one in cameras.items())]
    text.append(network.table(killed, network.KILL_COLUMNS))
    print("\n\n".join(text[1:]), flush=True)
    costs = {codec: cost.run(codec, seconds, repeat) for codec in cost.MIME_TYPES}
    text += [cost.table(codec, found) for codec, found in costs.items()]
    print("\n" + "\n\n".join(text[-len(costs) :]), flush=True)
    grown = growth.run(12 if args.quick else 30)
    text.append(growth.table(grown["recorders"], "recorders", "recorders, picture only"))
    text.append(growth.table(grown["chunks"], "chunk_s", "chunk length s, with sound"))
    print("\n" + "\n\n".join(text[-2:]), flush=True)
    waited = latency.run(times)
    text.append(latency.table(waited))
    print("\n" + text[-1])
    (args.out / "results.md").write_text("\n\n".join(text) + "\n")
    everything = {
        "machine": head,
        "cameras": cameras,
        "killed": killed,
        "cost": costs,
        "growth": grown,
        "latency": waited,
    }
    (args.out / "results.json").write_text(json.dumps(everything, indent=1))
    plot(grown["recorders"], args.out / "growth.svg")
    print(f"\nin {args.out}: results.md, results.json, growth.svg")
    most = max((row["recorders"] for row in grown["recorders"] if not row["dropped"]), default=0)
    print(f"without a dropped frame: {most:g} recorders")
    return 0


if __name__ == "__main__":
    sys.exit(main())
