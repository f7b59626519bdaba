"""scripts/vm-until.sh: what continuous integration makes of the virtual machine's tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "vm-until.sh"
SHIMS = {  # a host that can run it
    "uname": "echo x86_64",
    "id": "echo 0",
    "dpkg-query": "echo install ok installed",
    "df": "echo 99999999",
}


def executable(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def run(folder: Path, *, left_s: int, ends: str = "exit 0", **shims: str) -> tuple[int, str]:
    """Exit status and output on a host with so much time, where the run of the machine ends in this way."""
    script = folder / "scripts" / SCRIPT.name
    script.parent.mkdir()
    for name in (SCRIPT.name, "apt-install.sh"):
        shutil.copy2(SCRIPT.with_name(name), script.with_name(name))
    for name, body in (SHIMS | shims).items():
        executable(folder / "shims" / name, body)
    executable(folder / "venv" / "bin" / "python", f'echo "ran $*"\n{ends}')
    done = subprocess.run(
        [script, str(int(time.time()) + left_s)],
        env=os.environ | {"PATH": f"{folder / 'shims'}:{os.environ['PATH']}", "VENV": str(folder / "venv")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def test_it_runs_where_it_can(tmp_path: Path) -> None:
    status, said = run(tmp_path, left_s=1500)
    assert status == 0
    assert "ran hw-tests/vm/run.py --times 1 --cuts 1" in said
    assert "LEFT OUT" not in said


@pytest.mark.parametrize("ends", ["exit 1", "exit 2", "exit 137", "kill -SEGV $$"])
def test_what_fails_fails(tmp_path: Path, ends: str) -> None:
    status, said = run(tmp_path, left_s=1500, ends=ends)
    assert status == 1, said


@pytest.mark.parametrize(
    ("left_s", "ends", "shims", "why"),
    [
        (300, "exit 0", {}, "it takes some 20 minutes, and"),
        (-60, "exit 0", {}, "it takes some 20 minutes, and"),
        (1500, "exit 124", {}, "it was not done in time"),
        (1500, "exit 3", {}, "the machine cannot be made here"),
        (1500, "exit 0", {"uname": "echo aarch64"}, "it wants an amd64 host"),
        (1500, "exit 0", {"id": "echo 1000", "sudo": "exit 1"}, "it needs root"),
        (1500, "exit 0", {"dpkg-query": "exit 1", "apt-get": "exit 100"}, "QEMU cannot be installed"),
        (1500, "exit 0", {"df": "echo 1000000"}, "it takes 8 GiB of disk"),
    ],
)
def test_what_cannot_be_is_left_out_and_said(
    tmp_path: Path, left_s: int, ends: str, shims: dict[str, str], why: str
) -> None:
    status, said = run(tmp_path, left_s=left_s, ends=ends, **shims)
    assert status == 0, said
    assert f"LEFT OUT: {why}" in said
