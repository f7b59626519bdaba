"""What is fuzzed beside inputs: all that is read from a card. `python -m tests.fuzz.spoiled_card FOLDER SECONDS SEED`.

A recording with finished and unfinished chunks, manifests, index, spool and configuration is made once; then, round by
round, some of its files are spoiled, and what a start, a list, a rotation, a proof and a check of the configuration do
with them must end without any exception but those that are documented. Prints a JSON object of counts.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import sys
import time
from collections import Counter
from pathlib import Path

from msrecd.clock.wall import Corrections, WallTime
from msrecd.config.load import check
from msrecd.daemon.checks import config_checks
from msrecd.errors import MsrecdError
from msrecd.mqtt.spool import SpoolStore
from msrecd.storage.catalog import open_catalog
from msrecd.storage.retention import Limits
from msrecd.storage.store import Store
from msrecd.storage.verify import verify
from tests.fuzz.seeds import spoiled

ROUND_S = 20.0  # one that takes longer hangs


def rounds(pristine: Path, work: Path, seconds: float, seed: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        chance = random.Random(f"{seed}/{counts['rounds']}")
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(pristine, work)
        files = sorted(path for path in work.rglob("*") if path.is_file() and path.name != "lock")
        for path in chance.sample(files, min(len(files), chance.choice((1, 2, 5)))):
            path.write_bytes(spoiled(path.read_bytes(), chance, chance.choice(files).read_bytes() or b"x"))
            counts[path.suffix or path.name] += 1
        begun = time.monotonic()
        one_round(work, counts)
        assert time.monotonic() - begun < ROUND_S, f"round {counts['rounds']} of seed {seed} took too long"
        counts["rounds"] += 1
    return counts


def one_round(work: Path, counts: Counter[str]) -> None:
    root, state = work / "recordings", work / "state"
    verify(root)
    try:
        walltime = WallTime(state)
        store = Store(root, state, limits=Limits(), recorder_limits={}, sync_interval_s=0.5, walltime=walltime)
        store.open(everywhere=True)
        list(store.rotate())
        store.close()
        counts["started"] += 1
    except MsrecdError:
        counts["refused"] += 1
    try:
        catalog = open_catalog(root, state, Corrections())
        for entry in catalog.recordings():
            counts["chunks listed"] += len(entry.chunks)
        catalog.close()
    except MsrecdError:
        counts["not listed"] += 1
    spool = SpoolStore(state / "mqtt-events.sqlite3", "device/1")
    spool.append([("event/recorder/cam0", {"event_type": "started"})])
    spool.close()
    counts["problems"] += len(check(work / "msrecd.toml", checks=config_checks()))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    try:
        counted = rounds(folder / "pristine", folder / "work", float(sys.argv[2]), int(sys.argv[3]))
    except sqlite3.Error as exc:  # documented nowhere
        raise SystemExit(f"sqlite: {exc}") from exc
    status = Path("/proc/self/status").read_text()  # getrusage would count the process that started this one
    counted["peak MiB"] = int(status.split("VmHWM:")[1].split()[0]) >> 10
    print(json.dumps(counted))
