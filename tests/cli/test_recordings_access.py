"""Beside a daemon: whose files they become, whose lock it is, and what a second look takes back."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from msrecd.clock import SYSTEM_CLOCK
from msrecd.clock.wall import WallTime
from msrecd.storage.files import is_locked
from msrecd.storage.retention import Limits
from msrecd.storage.store import ChunkFacts, Store
from msrecd.storage.verify import Fault, still_holds, verify

SOMEBODY = 54_321


def make_store(folder: Path) -> Store:
    for name in ("recordings", "state"):
        (folder / name).mkdir(exist_ok=True)
    return Store(
        folder / "recordings",
        folder / "state",
        limits=Limits(min_free_bytes=0),
        recorder_limits={},
        sync_interval_s=2.0,
        walltime=WallTime(folder / "state", trusted=True),
    )


def record(folder: Path, chunks: int = 3) -> str:
    """A recording of small chunks that differ; its id."""
    store = make_store(folder)
    store.open()
    recording = store.begin("cam0", "audio/wav")
    for number in range(chunks):
        chunk = recording.open_chunk(started_ns=SYSTEM_CLOCK.monotonic_ns())
        chunk.write([bytes([number]) * 1000])
        chunk.finish(ChunkFacts(final=number == chunks - 1, duration_s=1.0, tracks={}))
    store.close()
    return recording.recording_id


def configure(folder: Path) -> Path:
    path = folder / "msrecd.toml"
    path.write_text(
        f'[device]\nid = "x"\n[storage]\npath = "{folder / "recordings"}"\nstate_path = "{folder / "state"}"\n'
    )
    return path


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="msrecd-access-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.promise("root-becomes-the-service")
def test_what_root_changes_belongs_to_the_service(open_folder: Path) -> None:
    recording_id = record(open_folder)
    config = configure(open_folder)
    for path in (open_folder / "state", open_folder / "recordings"):
        for below in [path, *path.rglob("*")]:
            os.chown(below, SOMEBODY, SOMEBODY)
    for arguments in (("protect", recording_id), ("prune",), ("recover",)):
        done = subprocess.run(
            [sys.executable, "-m", "msrecd", "recordings", *arguments, "--config", str(config)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    below = [*(open_folder / "state").rglob("*"), *(open_folder / "recordings").rglob("*")]
    assert open_folder / "recordings" / ".msrecd" / "protected" / recording_id in below
    assert {(path.stat().st_uid, path.stat().st_gid) for path in below} == {(SOMEBODY, SOMEBODY)}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.promise("sudo-is-named")
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_a_user_who_may_not_is_told_so_and_not_that_nothing_is_there(open_folder: Path, mode: int) -> None:
    recording_id = record(open_folder)
    config = configure(open_folder)
    for path in (open_folder / "recordings").rglob("*"):
        if path.is_dir():
            path.chmod(mode)
    reading = [("list",), ("export", "--recorder", "cam0", "--from", "1h", "--to", "now", str(open_folder / "x.mp4"))]
    changing = [("protect", recording_id), ("unprotect", recording_id), ("prune",), ("prune", "--dry-run")]
    for what, arguments in [("read", one) for one in reading] + [("changed", one) for one in changing]:
        done = subprocess.run(
            [sys.executable, "-m", "msrecd", "recordings", *arguments, "--config", str(config)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            user=SOMEBODY,
            group=SOMEBODY,
            extra_groups=[],
        )
        assert (done.returncode, done.stdout) == (1, ""), done
        assert done.stderr == (
            f"msrecd: the recordings in {open_folder / 'recordings'} cannot be {what} by this user; try with sudo\n"
        )


def verify_as_somebody(folder: Path) -> subprocess.CompletedProcess[str]:
    """`recordings verify` by a user who owns nothing of it; by the one who runs the tests where that is not root."""
    user = {"user": SOMEBODY, "group": SOMEBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    command = [sys.executable, "-m", "msrecd", "recordings", "verify", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/", **user)


@pytest.mark.promise("verify-says-what-cannot-be-read")
def test_what_may_not_be_read_is_not_called_a_wrong_folder(open_folder: Path) -> None:
    record(open_folder)
    recordings = open_folder / "recordings"
    try:
        (recordings / "cam0").chmod(0)
        done = verify_as_somebody(recordings)
        assert (done.returncode, done.stderr) == (1, "")
        assert "right folder" not in done.stdout
        assert "could not be read; let this user read there, or try with sudo" in done.stdout
        recordings.chmod(0)
        done = verify_as_somebody(recordings)
        assert (done.returncode, done.stdout) == (1, "")
        assert "let the user who runs this read there" in done.stderr
        assert "write" not in done.stderr
    finally:
        recordings.chmod(0o755)
        (recordings / "cam0").chmod(0o755)


@pytest.mark.promise("verify-says-what-cannot-be-read")
def test_a_file_that_may_not_be_read_is_not_called_altered(open_folder: Path) -> None:
    """A manifest, and a chunk of another recording: nothing is said of the chunks that only that manifest lists."""
    unread, other = record(open_folder), record(open_folder)
    recordings = open_folder / "recordings"
    for path in recordings.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    (manifest,) = recordings.rglob(f"{unread}.jsonl")
    (chunk,) = recordings.rglob(f"{other}-0002.wav")
    for path in (manifest, chunk):
        path.chmod(0)
    done = verify_as_somebody(recordings)
    assert (done.returncode, done.stderr) == (1, "")
    *findings, said = done.stdout.splitlines()
    advice = "cannot be read: Permission denied; let this user read it, or try with sudo"
    assert findings == [f"{path.relative_to(recordings)}: {advice}" for path in (manifest, chunk)]
    assert "NOT proven: 2 unreadable; 3 chunks of 2 recordings" in said
    for path in (manifest, chunk):
        path.chmod(0o644)
    assert verify_as_somebody(recordings).returncode == 0


def test_a_lock_is_seen_without_taking_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    with path.open("w") as file:
        assert not is_locked(path)
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_locked(path)
    assert not is_locked(path)


def test_chunks_that_rotation_took_meanwhile_are_no_findings(tmp_path: Path) -> None:
    record(tmp_path)
    folder = tmp_path / "recordings"
    paths = sorted(folder.rglob("*.wav"))
    kept = paths[0].read_bytes()
    paths[0].unlink()
    (finding,) = verify(folder).findings
    assert finding.fault is Fault.MISSING
    assert still_holds(folder, finding)
    paths[0].write_bytes(kept)
    store = make_store(tmp_path)
    store.open_beside()
    store.limits = Limits(max_total_bytes=2000, min_free_bytes=0)
    assert [entry.seq for entry in store.rotate()] == [1]
    assert not still_holds(folder, finding)
    store.limits = Limits(max_total_bytes=0, min_free_bytes=0)
    store.rotate()
    store.close()
    assert not list(folder.rglob("*.jsonl"))
    assert not still_holds(folder, finding)


def test_chunks_that_were_listed_meanwhile_are_no_findings(tmp_path: Path) -> None:
    record(tmp_path)
    folder = tmp_path / "recordings"
    (manifest,) = folder.rglob("*.jsonl")
    whole = manifest.read_bytes()
    lines = whole.splitlines(keepends=True)
    manifest.write_bytes(lines[0] + lines[1] + lines[2][:20])
    findings = sorted(verify(folder).findings, key=lambda finding: finding.fault)
    assert [finding.fault for finding in findings] == [Fault.TORN, Fault.UNENDED, Fault.UNLISTED]
    assert all(still_holds(folder, finding) for finding in findings)
    manifest.write_bytes(whole)
    assert not any(still_holds(folder, finding) for finding in findings)


def test_an_altered_chunk_stays_a_finding(tmp_path: Path) -> None:
    record(tmp_path)
    folder = tmp_path / "recordings"
    next(folder.rglob("*.wav")).write_bytes(bytes([9]) * 1000)
    (finding,) = verify(folder).findings
    assert still_holds(folder, finding)


def test_progress_on_a_terminal_and_nothing_of_it_in_a_pipe(tmp_path: Path) -> None:
    record(tmp_path)
    command = [sys.executable, "-m", "msrecd", "recordings", "verify", str(tmp_path / "recordings"), "--json"]
    ours, theirs = pty.openpty()
    try:
        on_terminal = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, timeout=60, check=True)
        os.close(theirs)
        theirs = -1
        shown = os.read(ours, 4096).decode()
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
    assert "verifying" in shown
    assert shown.endswith("\r")  # and taken away
    piped = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert piped.stderr == b""
    assert json.loads(piped.stdout) == json.loads(on_terminal.stdout)
