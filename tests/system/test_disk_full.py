"""The whole daemon on a disk that fills up, turns read-only or goes away, and comes back: the recording goes on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from broker import Broker
from console import BASE, Console
from daemon import DaemonProcess, configuration
from judge import read_chunk

from msrecd.storage.verify import verify

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

RECORDER = """
[[recorder]]
name = "cam0"
video = { width = 320, height = 240, frame_rate = 30 }
audio = true
mime_type = "video/mp4"
timeslice = "500ms"
chunk_duration = "2s"
video_bits_per_second = 1_000_000
autostart = true
"""


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    point = tmp_path / "recordings"
    point.mkdir()
    try:
        run("mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(point))
    except RuntimeError as exc:
        pytest.skip(str(exc))
    yield point
    run("umount", "--lazy", str(point))


@pytest.fixture
def card(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """An ext4 image mounted at `recordings`; the function mounts it again."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 (e2fsprogs) is not installed")
    image, point = tmp_path / "card.img", tmp_path / "recordings"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    run("mkfs.ext4", "-q", "-F", str(image))
    point.mkdir()

    def mount() -> None:
        run("mount", "-t", "ext4", "-o", "loop,errors=remount-ro", str(image), str(point))

    try:
        mount()
    except RuntimeError as exc:
        pytest.skip(str(exc))
    yield mount
    with contextlib.suppress(RuntimeError):
        run("umount", "--lazy", str(point))


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    with Broker(tmp_path / "broker") as broker:
        console = Console(broker.port)
        console.port = broker.port  # type: ignore[attr-defined]
        yield console
        console.close()


def start(tmp_path: Path, console: Console) -> DaemonProcess:
    port = console.port  # type: ignore[attr-defined]
    return DaemonProcess(tmp_path, configuration(tmp_path, port=port, recorders=RECORDER))


def fill(folder: Path) -> Path:
    path = folder / "foreign"
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return path


def wait_for_state(console: Console, state: str, code: str | None) -> dict[str, object]:
    def fits(payload: dict[str, object]) -> bool:
        error = payload["error"]
        return payload["state"] == state and (error["code"] if isinstance(error, dict) else None) == code

    return console.wait("state/recorder/cam0", fits, timeout=40)


def assert_one_recording_with_a_gap(daemon: DaemonProcess, least_gap_s: float) -> None:
    """What is left: chunks without a hole in their numbers, the gap told, every chunk playable, nothing torn."""
    (manifest,) = (daemon.recordings / "cam0").rglob("*.jsonl")
    lines = sorted(map(json.loads, manifest.read_text().splitlines()), key=lambda line: line["seq"])
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    gaps = [gap for line in lines for gap in line["gaps"] if gap["duration_s"] >= least_gap_s]
    assert len(gaps) == 1, [line["gaps"] for line in lines]
    assert not daemon.parts()
    numbers: list[int] = []
    for path in daemon.chunks():
        numbers += read_chunk(path).numbers
    assert numbers == sorted(set(numbers))
    verdict = verify(daemon.recordings)
    assert verdict.is_proven, verdict.findings


def memory_of(pid: int) -> int:
    """Resident bytes of a process at its peak."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024


def outage_events(console: Console) -> list[str]:
    topic = BASE + "event/recorder/cam0"
    return [p["code"] for t, p in console.messages if t == topic and p["event_type"] == "error"]


def test_a_full_disk_is_told_and_the_same_recording_goes_on(tmp_path: Path, tmpfs: Path, console: Console) -> None:
    with start(tmp_path, console) as daemon:
        recording_id = wait_for_state(console, "recording", None)["recording_id"]
        daemon.wait_for_chunks(1)
        foreign = fill(tmpfs)
        failed = wait_for_state(console, "error", "no_space")
        assert failed["recording_id"] == recording_id
        time.sleep(3)  # how long the disk is full
        assert daemon.process is not None
        assert daemon.process.poll() is None
        before = len(daemon.chunks())
        foreign.unlink()
        assert wait_for_state(console, "recording", None)["recording_id"] == recording_id
        daemon.wait_for_chunks(before + 2)
        assert daemon.stop() == 0
    assert outage_events(console) == ["no_space"]
    assert_one_recording_with_a_gap(daemon, 2.0)


def test_a_file_system_that_turns_read_only_is_told_once(
    tmp_path: Path, card: Callable[[], None], console: Console
) -> None:
    with start(tmp_path, console) as daemon:
        recording_id = wait_for_state(console, "recording", None)["recording_id"]
        daemon.wait_for_chunks(1)
        device = daemon.recordings.stat().st_dev
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        trigger = Path(f"/sys/fs/ext4/{name}/trigger_fs_error")
        if not trigger.exists():
            pytest.skip("this kernel cannot pretend an error of ext4")
        trigger.write_text("test")
        failed = wait_for_state(console, "error", "internal")
        assert failed["recording_id"] == recording_id
        time.sleep(8)  # longer than the daemon waits between two tries
        assert len(outage_events(console)) == 1
        assert "read-only" in daemon.log.read_text()
        run("umount", str(daemon.recordings))
        time.sleep(6)  # nothing is mounted now: nothing may be written below
        assert list(daemon.recordings.iterdir()) == []
        card()
        assert wait_for_state(console, "recording", None)["recording_id"] == recording_id
        daemon.wait_for_chunks(3)
        assert daemon.stop() == 0
    assert len(outage_events(console)) == 1
    assert_one_recording_with_a_gap(daemon, 5.0)


@pytest.mark.parametrize("stall_s", [1, 5, pytest.param(30, marks=pytest.mark.slow)])
def test_a_disk_that_stalls_costs_nothing_or_is_told(
    tmp_path: Path, card: Callable[[], None], console: Console, stall_s: int
) -> None:
    with start(tmp_path, console) as daemon:
        wait_for_state(console, "recording", None)
        daemon.wait_for_chunks(1)
        assert daemon.process is not None
        before = memory_of(daemon.process.pid)
        try:
            run("fsfreeze", "--freeze", str(daemon.recordings))
        except (RuntimeError, FileNotFoundError) as exc:
            pytest.skip(str(exc))
        try:
            time.sleep(stall_s)  # no write and no sync returns in this time
        finally:
            run("fsfreeze", "--unfreeze", str(daemon.recordings))
        grown = memory_of(daemon.process.pid) - before
        daemon.wait_for_chunks(len(daemon.chunks()) + 2)
        assert daemon.stop() == 0
    (manifest,) = (daemon.recordings / "cam0").rglob("*.jsonl")
    lines = sorted(map(json.loads, manifest.read_text().splitlines()), key=lambda line: line["seq"])
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    numbers = [number for path in daemon.chunks() for number in read_chunk(path).numbers]
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    told_s = sum(gap["duration_s"] for line in lines for gap in line["gaps"])
    dropped = sum(line["tracks"]["video"]["dropped"] for line in lines)
    print(f"stall of {stall_s} s: {missing} frames missing, gaps of {told_s:.2f} s, memory +{grown / 1e6:.1f} MB")
    assert numbers == sorted(set(numbers))
    assert grown < 64 << 20
    if stall_s <= 5:
        assert missing == 0
        assert told_s == 0
    elif missing:
        assert dropped >= missing or told_s >= missing / 30 - 0.1
    assert verify(daemon.recordings).is_proven
