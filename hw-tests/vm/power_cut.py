"""In the machine: what did the last power cut cost? Then record until the next one.

The host calls this once a boot and kills the emulator while it records. What has its final name is told to the host
five times a second, and compared after the next boot with what the disk has. So a loss is measured from the last word
that got out, up to 0.3 s before the cut. The emulator's disk loses what the machine's kernel had not written yet, as a
real one does; what a real card has in its own cache it does not lose.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

HOST = Path("/mnt/host/results")
STATE = Path("/mnt/host/before")  # the results of the boot before
CARD = Path("/media/card")  # FAT32; there when the host gave one
RECORDINGS = CARD / "recordings" if CARD.exists() else Path("/var/lib/msrecd/recordings")
SYNC_INTERVAL_S, TIMESLICE_S = 2.0, 1.0
CONFIG = f"""config_version = 1
[device]
id = "power-cut"
[storage]
path = "{RECORDINGS}"
sync_interval = "2s"
[[recorder]]
name = "cam0"
video = {{ width = 160, height = 120, frame_rate = {{ ideal = 10 }} }}
audio = true
mime_type = "{os.environ["POWER_CUT_TYPE"]}"
timeslice = "1s"
chunk_duration = "5s"
autostart = true
"""


def write(path: Path, data: dict[str, Any]) -> None:
    """At once or not at all."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(data))
    new.replace(path)


def finished(known: dict[str, str]) -> dict[str, str]:
    """Digest of every file that has its final name; what is known is not read again."""
    names = {str(path.relative_to(RECORDINGS)): path for path in RECORDINGS.rglob("*.mp4")}
    return {
        name: known[name] if name in known else hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in names.items()
    }


def manifest_lines() -> list[dict[str, Any]]:
    lines = [json.loads(line) for path in sorted(RECORDINGS.rglob("*.jsonl")) for line in path.read_text().splitlines()]
    return [line for line in lines if "file" in line]


def end_of(line: dict[str, Any]) -> float:
    """Unix time at which the media of a chunk ends."""
    return datetime.fromisoformat(line["started"]).replace(tzinfo=UTC).timestamp() + float(line["duration_s"])


def wait_for(what: str, ready: Any, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not ready():
        assert time.monotonic() < deadline, f"no {what} within {timeout} s"
        time.sleep(0.1)


def is_recording() -> bool:
    return any(path.stat().st_size > 0 for path in RECORDINGS.rglob("*.part"))


@pytest.mark.timeout(0)
def test_power_cut() -> None:
    boot = int(os.environ["POWER_CUT_BOOT"])
    before = json.loads(STATE.read_text()) if STATE.exists() else None
    found: dict[str, Any] = {"boot": boot}
    Path("/etc/msrecd/msrecd.toml").write_text(CONFIG)
    known = finished({})
    if before is not None:
        found |= {"chunks_before": len(before["finished"]), "parts": len(list(RECORDINGS.rglob("*.part")))}
        changed = [name for name, digest in before["finished"].items() if known.get(name) != digest]
        assert not changed, f"finished chunks were harmed: {changed}"
    begun = time.time()
    subprocess.run(["systemctl", "start", "msrecd"], check=True, timeout=240)
    found["ready_s"] = round(time.time() - begun, 1)
    wait_for("recording", is_recording, 240)
    if before is not None:
        lines = [
            line for line in manifest_lines() if datetime.fromisoformat(line["started"]).timestamp() < before["at"]
        ]
        assert lines, "the last boot left nothing"
        last = max(lines, key=end_of)
        found["loss_s"] = round(before["at"] - end_of(last), 2)
        found["recovered"] = [line["file"] for line in lines if line["recovered"]][-1:]
        for line in lines[-3:]:
            path = RECORDINGS / line["file"]
            assert hashlib.sha256(path.read_bytes()).hexdigest() == line["sha256"], path
            done = subprocess.run(
                ["ffprobe", "-v", "warning", "-count_frames", "-show_streams", path], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            assert not done.stderr, f"{path}: {done.stderr}"
        done = subprocess.run(
            ["msrecd", "recordings", "verify", str(RECORDINGS)], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert found["loss_s"] <= SYNC_INTERVAL_S + TIMESLICE_S, found
        found["checked"] = True
    write(HOST / "power.json", found)
    if os.environ.get("POWER_CUT_LAST"):
        subprocess.run(["systemctl", "stop", "msrecd"], check=True, timeout=60)
        return
    while True:  # until the power goes
        known = finished(known)
        write(HOST / "beat.json", {"finished": known, "at": time.time()})
        time.sleep(0.2)
