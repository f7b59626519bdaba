"""The whole daemon on a disk that fills up, turns read-only or goes away, and comes back: the recording goes on."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import fault_table
import pytest
from card import Card, run
from config_text import camera
from console import Console
from daemon import DaemonFor, DaemonProcess
from judge import numbers_of

from msrecd.storage.verify import verify

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

RECORDER = camera(audio=True, video_bits_per_second=1_000_000, autostart=True)
BUSY_MACHINE = {"no_frames", "lost_sound", "slow_consumer", "encoder"}  # reasons of gaps that are not the disk's


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


def fill(folder: Path) -> Path:
    path = folder / "foreign"
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return path


def outage_events(console: Console) -> list[str]:
    return [event["code"] for event in console.events() if event["event_type"] == "error"]


def assert_sound(daemon: DaemonProcess) -> list[dict]:
    """Lines of one recording's chunks without a hole in their numbers; every chunk playable, no picture twice."""
    assert len(daemon.recording_ids()) == 1
    lines = sorted(daemon.chunk_lines(), key=lambda line: line["seq"])
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert not daemon.parts()
    assert all(a < b for a, b in itertools.pairwise(numbers_of(daemon.chunks())))
    verdict = verify(daemon.recordings)
    assert verdict.is_proven, verdict.findings
    return lines


def assert_one_gap(lines: list[dict], least_gap_s: float) -> float:
    gaps = [
        gap
        for line in lines
        for gap in line["gaps"]
        if gap["duration_s"] >= least_gap_s and gap["reason"] not in BUSY_MACHINE
    ]
    assert len(gaps) == 1, [line["gaps"] for line in lines]
    return float(gaps[0]["duration_s"])


@pytest.mark.promise("losses-are-counted", "no-disk-ends-a-recording", "disk-full", "reserve-of-2-mib")
def test_a_full_disk_is_told_and_the_same_recording_goes_on(
    tmpfs: Path, daemon_for: DaemonFor, console: Console
) -> None:
    with daemon_for(RECORDER) as daemon:
        recording_id = console.wait_state("recording")["recording_id"]
        daemon.wait_for_chunks(1)
        foreign = fill(tmpfs)
        assert console.wait_state("error", code="no_space")["recording_id"] == recording_id
        time.sleep(3)  # how long the disk is full
        assert daemon.is_running
        before = len(daemon.chunks())
        foreign.unlink()
        since = len(console.messages)
        assert console.wait_state("recording", since=since)["recording_id"] == recording_id
        daemon.wait_for_chunks(before + 2)
        assert daemon.stop() == 0
    assert outage_events(console) == ["no_space"]
    gap_s = assert_one_gap(assert_sound(daemon), 2.0)
    fault_table.seen(
        "file system full",
        state="error no_space",
        event=" ".join(outage_events(console)),
        log=fault_table.loud_lines(daemon.log.read_text(), "[Nn]o space|free"),
        figure=f"one gap of {gap_s:.0f} s in the manifest",
    )


@pytest.fixture
def few_inodes(tmp_path: Path) -> Iterator[Path]:
    point = tmp_path / "recordings"
    point.mkdir()
    try:
        run("mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=200", "tmpfs", str(point))
    except RuntimeError as exc:
        pytest.skip(str(exc))
    yield point
    run("umount", "--lazy", str(point))


@pytest.mark.effect("state-health: free_inodes")
@pytest.mark.promise("inodes")
def test_inodes_that_run_out_are_told_as_such(few_inodes: Path, daemon_for: DaemonFor, console: Console) -> None:
    foreign = few_inodes / "mail"
    foreign.mkdir()
    with daemon_for(RECORDER) as daemon:
        recording_id = console.wait_state("recording")["recording_id"]
        daemon.wait_for_chunks(1)
        with contextlib.suppress(OSError):
            for number in range(200):
                (foreign / str(number)).touch()
        told = console.wait_state("error", code="no_space")
        disk = console.command("daemon/health")["data"]["disk"]
        assert disk["free_inodes"] == os.statvfs(few_inodes).f_favail
        assert disk["free_bytes"] > 32 << 20, "bytes are not what is missing"
        since = len(console.messages)
        for path in foreign.iterdir():
            path.unlink()
        assert console.wait_state("recording", since=since)["recording_id"] == recording_id
        assert daemon.stop() == 0
    assert_sound(daemon)
    fault_table.seen(
        "inodes exhausted",
        state=f"{told['state']} {told['error']['code']}",
        event=" ".join(outage_events(console)),
        log=fault_table.loud_lines(daemon.log.read_text(), "inode"),
        figure=f"disk.free_inodes {disk['free_inodes']}",
    )


@pytest.fixture
def full_state(tmp_path: Path) -> Iterator[Path]:
    """A state folder without a free byte, of a service that has not been started before."""
    point = tmp_path / "state"
    point.mkdir()
    try:
        run("mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(point))
    except RuntimeError as exc:
        pytest.skip(str(exc))
    fill(point)
    yield point
    run("umount", "--lazy", str(point))


@pytest.mark.promise("full-state-folder")
def test_a_full_state_folder_is_one_line_and_no_recording_suffers(
    full_state: Path, daemon_for: DaemonFor, console: Console
) -> None:
    with daemon_for(RECORDER) as daemon:
        console.wait_state("recording")
        daemon.wait_for_chunks(2)
        assert daemon.stop() == 0
    assert outage_events(console) == []
    said = [line for line in daemon.log.read_text().splitlines() if "warning" in line and str(full_state) in line]
    assert len(said) == 1, said
    assert "No space left on device" in said[0]
    assert "damaged" not in daemon.log.read_text()
    fault_table.seen(
        "state folder full, on a file system of its own",
        state="recording",
        event=" ".join(outage_events(console)) or "-",
        log=fault_table.loud_lines(daemon.log.read_text(), "state"),
        figure=no_gap_of(assert_sound(daemon)),
    )


def no_gap_of(lines: list[dict]) -> str:
    own = [gap for line in lines for gap in line["gaps"] if gap["reason"] not in BUSY_MACHINE]
    return "no gap" if not own else str(own)


@pytest.mark.promise("full-state-folder")
def test_a_state_folder_that_turns_read_only_is_one_line_and_no_recording_suffers(
    tmp_path: Path, daemon_for: DaemonFor, console: Console
) -> None:
    with contextlib.ExitStack() as stack:
        try:
            card = stack.enter_context(Card.inserted(tmp_path / "state.img", tmp_path / "state"))
        except RuntimeError as exc:
            pytest.skip(str(exc))
        if not card.error_trigger.exists():
            pytest.skip("this kernel cannot pretend an error of ext4")
        daemon = stack.enter_context(daemon_for(RECORDER))
        console.wait_state("recording")
        daemon.wait_for_chunks(1)
        card.error_trigger.write_text("test")
        before = len(daemon.chunks())
        daemon.wait_for_chunks(before + 2)
        assert console.command("recorder/cam0/get")["data"]["state"] == "recording"
        assert daemon.stop() == 0
    fault_table.seen(
        "state folder turns read-only, on a file system of its own",
        state="recording",
        event=" ".join(outage_events(console)) or "-",
        log=fault_table.loud_lines(daemon.log.read_text(), "state"),
        figure=no_gap_of(assert_sound(daemon)),
    )


@pytest.mark.promise("no-disk-ends-a-recording", "disk-read-only")
def test_a_file_system_that_turns_read_only_is_told_once(card: Card, daemon_for: DaemonFor, console: Console) -> None:
    with daemon_for(RECORDER) as daemon:
        recording_id = console.wait_state("recording")["recording_id"]
        console.wait_event("chunk")  # from now on it is on the card for good: what has just got its name may go
        if not card.error_trigger.exists():
            pytest.skip("this kernel cannot pretend an error of ext4")
        card.error_trigger.write_text("test")
        told = console.wait_state("error", code="no_space")
        assert told["recording_id"] == recording_id
        assert "read-only" in told["error"]["message"]
        time.sleep(8)  # longer than the daemon waits between two tries
        assert len(outage_events(console)) == 1
        assert "read-only" in daemon.log.read_text()
        card.remove()
        time.sleep(6)  # nothing is mounted now: nothing may be written below
        assert list(daemon.recordings.iterdir()) == []
        since = len(console.messages)
        card.insert()
        assert console.wait_state("recording", since=since)["recording_id"] == recording_id
        daemon.wait_for_chunks(3)
        assert daemon.stop() == 0
    assert len(outage_events(console)) == 2, "read-only, then not mounted"
    gap_s = assert_one_gap(assert_sound(daemon), 5.0)
    fault_table.seen(
        "file system turns read-only",
        state=f"{told['state']} {told['error']['code']}",
        event=outage_events(console)[0],
        log=fault_table.loud_lines(daemon.log.read_text(), "read-only"),
        figure=f"one gap of {gap_s:.0f} s in the manifest",
    )


@pytest.mark.parametrize("stall_s", [1, 5, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.promise("no-camera-waits-for-a-disk", "disk-stalls")
def test_a_disk_that_stalls_costs_nothing_or_is_told(
    card: Card, daemon_for: DaemonFor, console: Console, stall_s: int
) -> None:
    with daemon_for(RECORDER) as daemon:
        console.wait_state("recording")
        daemon.wait_for_chunks(1)
        before = daemon.status("VmHWM")
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(card.frozen())
            except RuntimeError as exc:
                pytest.skip(str(exc))
            time.sleep(stall_s)  # no write and no sync returns in this time
        grown = daemon.status("VmHWM") - before
        daemon.wait_for_chunks(len(daemon.chunks()) + 2)
        assert daemon.stop() == 0
    lines = assert_sound(daemon)
    numbers = numbers_of(daemon.chunks())
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    told_s = sum(gap["duration_s"] for line in lines for gap in line["gaps"])
    dropped = sum(line["tracks"]["video"]["dropped"] for line in lines)
    print(f"stall of {stall_s} s: {missing} frames missing, gaps of {told_s:.2f} s, memory +{grown / 1e6:.1f} MB")
    assert grown < 64 << 20
    if stall_s <= 5:
        assert missing == 0
        assert told_s == 0
    elif missing:
        assert dropped >= missing or told_s >= missing / 30 - 0.1
