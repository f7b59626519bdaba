"""Off-load to a real store over a bad line, while the daemon and the store are killed again and again."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from config_text import configuration, microphone
from daemon import DaemonProcess
from offloading import record
from ports import free_port
from s3proxy import FAULTS, FaultyLine
from s3server import KEYS, VERSITYGW, versitygw
from waiting import until

from msrecd.clock.wall import WallTime
from msrecd.storage.retention import Limits
from msrecd.storage.store import Store

# How many chunks, kills of the daemon (with each fourth one the store is killed, too), and what part of the answers is
# wrong. The long version, some forty minutes: MSRECD_OFFLOAD_KILLS=10000,200,0.05
CHUNKS, KILLS, WRONG = os.environ.get("MSRECD_OFFLOAD_KILLS", "8,1,0.1").split(",")
PREFIX = "pi/"
WAIT_S = 60 if int(CHUNKS) < 1000 else 900  # a long run may share its machine with others


def recorded(folder: Path, chunks: int) -> dict[str, str]:
    """Recordings on the disk, some three times of what `storage.max_total` allows at least: file -> SHA-256."""
    chosen = random.Random(3)
    store = Store(
        folder / "recordings",
        folder / "state",
        limits=Limits(),
        recorder_limits={},
        sync_interval_s=2.0,
        walltime=WallTime(folder / "state"),
    )
    store.open()
    try:
        for begun in range(0, chunks, 100):
            size = chosen.randrange(1000, 6000) + (3 << 20) // chunks
            record(store, min(100, chunks - begun), size=size, recorder="mic0")
    finally:
        store.close()
    root = folder / "recordings"
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.wav")
    }


class Judge:
    """Looks at the two folders from outside, that of the daemon and that of the store."""

    def __init__(self, recordings: Path, bucket: Path, chunks: dict[str, str]) -> None:
        self.recordings = recordings
        self.bucket = bucket
        self.chunks = chunks
        self.deleted: set[str] = set()

    def see(self) -> None:
        """What the daemon does not have any more, the store has, bit by bit."""
        left = {path.relative_to(self.recordings).as_posix() for path in self.recordings.rglob("*.wav")}
        for file in self.chunks.keys() - left - self.deleted:
            assert self.is_stored(file), f"{file} was deleted before the store had it"
            self.deleted.add(file)

    def is_stored(self, file: str) -> bool:
        path = self.bucket / PREFIX / file
        return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == self.chunks[file]

    def lines(self) -> dict[str, bytes]:
        """Lines of the manifests, by the name that each has in the store."""
        found = {}
        for path in self.recordings.rglob("*.jsonl"):
            place = path.relative_to(self.recordings).as_posix()
            for number, line in enumerate(path.read_bytes().splitlines(), 1):
                found[f"{place}.{number:06d}"] = line
        return found

    def check_lines(self, there: Mapping[str, Path]) -> int:
        """Judge the lines that the store has, and their order; how many there are.

        A manifest goes with the last chunk of its recording: what the store has of one is all its lines, or the first
        ones of those that there were.
        """
        local = self.lines()
        names = {name for name in there if name.rpartition(".")[2].isdigit()}
        assert local.keys() <= names, "a line is missing"
        assert all(there[name].read_bytes() == content for name, content in local.items())
        stored: dict[str, list[bytes]] = {}
        for name in sorted(names):
            place, _, number = name.rpartition(".")
            lines = stored.setdefault(place, [])
            lines.append(there[name].read_bytes())
            assert int(number) == len(lines), f"{place}: lines before {number} are missing"
        for place, content in stored.items():
            proven: list[int] = []
            for line in map(json.loads, content):
                if "offloaded" in line:
                    proven.append(line["offloaded"])
                elif "deleted" in line:
                    assert line["deleted"] in proven, f"{place}: {line['deleted']} was deleted before its proof"
            assert len(proven) == len(set(proven)), f"{place}: a chunk is proven twice"
        return len(names)


@pytest.mark.slow
@pytest.mark.promise("offload-with-proof")
@pytest.mark.timeout(300 if int(CHUNKS) < 1000 else 3 * 3600)
def test_all_arrives_at_a_real_store_through_kills_and_a_bad_line(tmp_path: Path) -> None:
    if not Path(VERSITYGW).exists():
        pytest.skip("versitygw is not installed: scripts/setup.sh --tests builds it where there is Go")
    chunks, kills = int(CHUNKS), int(KILLS)
    chosen, port = random.Random(5), free_port()
    judge = Judge(tmp_path / "recordings", tmp_path / "gateway/bucket", recorded(tmp_path, chunks))
    assert len(judge.chunks) == chunks
    credentials = tmp_path / "credentials"
    credentials.write_text(f"[default]\naws_access_key_id={KEYS.access_key}\naws_secret_access_key={KEYS.secret_key}\n")
    credentials.chmod(0o600)
    begun_s = time.monotonic()
    with FaultyLine(port, wrong=float(WRONG)) as line:
        table = f"""
[offload]
kind = "s3"
endpoint = "{line.endpoint}"
bucket = "bucket"
prefix = "{PREFIX}"
credentials_file = "{credentials}"
delete = "proven"
"""
        config = configuration(
            tmp_path, port=None, recorders=microphone(mime_type="audio/wav") + table, storage='max_total = "1MiB"'
        )
        daemon = DaemonProcess(tmp_path, config)
        gateway = versitygw(tmp_path / "gateway", port)
        gateway.__enter__()
        try:
            for life in range(kills):
                daemon.start(timeout=WAIT_S)
                wanted = (life + 1) * chunks // (kills + 2)
                until(lambda: line.arrived(".wav") >= wanted, lambda: daemon.log.read_text()[-3000:], timeout=WAIT_S)  # noqa: B023
                time.sleep(chosen.uniform(0, 0.1))  # at any moment of a file
                if life % 4 == 0:
                    gateway.__exit__(None, None, None)  # SIGKILL
                    time.sleep(chosen.uniform(0, 0.1))
                daemon.kill()
                judge.see()
                if life % 4 == 0:
                    gateway = versitygw(tmp_path / "gateway", port)
                    gateway.__enter__()
            # A wrong hash of what is there makes a file wait for an hour, or for the next start: this is the last one.
            line.faults = tuple(fault for fault in FAULTS if fault != "lie")
            with daemon:
                until(lambda: line.arrived(".wav") == chunks, lambda: daemon.log.read_text()[-3000:], timeout=1800)
                until(
                    lambda: all((judge.bucket / PREFIX / name).exists() for name in judge.lines()),
                    lambda: daemon.log.read_text()[-3000:],
                    timeout=900,
                )
                line.wrong = 0.0
            judge.see()
            there = {
                path.relative_to(judge.bucket / PREFIX).as_posix(): path
                for path in (judge.bucket / PREFIX).rglob("*")
                if path.is_file()
            }
            media = {name for name in there if not name.rpartition(".")[2].isdigit()}
            assert media == judge.chunks.keys(), "nothing else, nothing twice"
            assert all(map(judge.is_stored, judge.chunks))
            assert max(line.stored.values()) == 1, "nothing is stored twice"
            lines = judge.check_lines(there)
            assert len(judge.deleted) >= (1 if chunks < 1000 else chunks // 4), "rotation had something to do"
            verified = subprocess.run(
                [
                    *(sys.executable, "-m", "msrecd", "recordings", "verify", "--store", "--json"),
                    *("--config", str(daemon.config)),
                ],
                capture_output=True,
                text=True,
                timeout=1800,
                check=False,
            )
            verdict = json.loads(verified.stdout)
            assert (verified.returncode, verdict["proven"], verdict["chunks"]) == (0, True, chunks), verdict
        finally:
            if daemon.is_running:
                daemon.kill()
            gateway.__exit__(None, None, None)
    print(
        f"{chunks} chunks, {kills} kills of the daemon, {len(range(0, kills, 4))} of the store, "
        f"{line.requests} requests, {line.met.total()} of them wrong ({dict(line.met)}), "
        f"{len(judge.deleted)} chunks deleted after their proof, {lines} lines, {time.monotonic() - begun_s:.0f} s"
    )
