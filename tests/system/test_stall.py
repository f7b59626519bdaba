"""A disk that stalls, as SD cards do: the file system is frozen while 8 Mbit/s are recorded to it.

Memory holds what comes; nothing is lost of it. What memory cannot hold goes in whole groups of pictures, is counted and
told as a gap: at 80 Mbit/s, where the 64 MiB of a recorder are full after some seconds. One second in the ordinary run;
`MSRECD_STALLS="1 5 30"` (`make faults`) for all, and the overflow.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import fault_table
import pytest
from card import Card, run
from config_text import configuration, recorder
from daemon import DaemonProcess
from waiting import until

from msrecd.storage.verify import verify

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("fsfreeze") or not shutil.which("mkfs.ext4"),
    reason="needs root, fsfreeze and mkfs.ext4",
)
STALLS = [float(text) for text in os.environ.get("MSRECD_STALLS", "1").split()]
RATE = 25


UNIT = Path(__file__).resolve().parents[2] / "systemd" / "msrecd.service"


def unit_environment() -> dict[str, str]:
    """What the shipped unit sets for the daemon."""
    lines = [line for line in UNIT.read_text().splitlines() if line.startswith("Environment=")]
    return dict(item.split("=", 1) for line in lines for item in line.removeprefix("Environment=").split())


def daemon_with_film(folder: Path, mbit: int) -> DaemonProcess:
    """As the service runs it. Ten seconds of H.264 again and again, at exactly this rate, a key frame each second."""
    path = folder / "film.mp4"
    rate = f"{mbit}M"
    run(
        *("ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"testsrc2=size=320x240:rate={RATE}:duration=10"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-g", str(RATE), "-bf", "0", "-pix_fmt", "yuv420p"),
        *("-b:v", rate, "-minrate", rate, "-maxrate", rate, "-bufsize", rate, "-x264-params", "nal-hrd=cbr:filler=1"),
        str(path),
    )
    source = {"url": str(path), "loop": True}
    recorders = recorder(
        "cam0", source=source, mime_type="video/mp4", timeslice="500ms", chunk_duration="2s", autostart=True
    )
    text = configuration(folder, port=None, recorders=recorders)
    return DaemonProcess(folder, text, environment=unit_environment())


def record_through(daemon: DaemonProcess, card: Card, stall_s: float) -> list[dict]:
    with daemon:
        daemon.wait_for_chunks(1)
        daemon.wait_for_part()
        with card.frozen():
            time.sleep(stall_s)  # the stall itself
        before = len(daemon.chunks())
        daemon.wait_for_chunks(before + 2 + int(stall_s / 2), timeout=90)
    assert not daemon.parts()
    lines = sorted(daemon.chunk_lines(), key=lambda line: line["seq"])
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert len(daemon.recording_ids()) == 1
    assert verify(daemon.recordings).is_proven
    return lines


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("stall_s", STALLS)
def test_a_stall_costs_nothing_while_memory_allows(tmp_path: Path, card: Card, stall_s: float) -> None:
    daemon = daemon_with_film(tmp_path, 8)
    lines = record_through(daemon, card, stall_s)
    assert all(line["gaps"] == [] for line in lines)
    assert all(line["tracks"]["video"]["dropped"] == 0 for line in lines)
    size = sum(line["bytes"] for line in lines)
    length_s = sum(line["duration_s"] for line in lines)
    assert size * 8 / length_s > 6e6, "that was not 8 Mbit/s"
    for line in lines:
        assert line["tracks"]["video"]["frames"] == pytest.approx(line["duration_s"] * RATE, abs=1.5)
    fault_table.row(
        f"disk frozen for {stall_s:g} s at 8 Mbit/s", cases=1, harmed=0, loss="0 frames", promise="0 frames"
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif("MSRECD_STALLS" not in os.environ, reason="MSRECD_STALLS is not set")
def test_what_waited_in_memory_goes_back_to_the_system(tmp_path: Path, card: Card) -> None:
    """glibc gives back the end of its heap only; the daemon asks for the rest within a minute."""
    daemon = daemon_with_film(tmp_path, 16)
    with daemon:
        daemon.wait_for_chunks(2)
        before = daemon.status("VmRSS")
        with card.frozen():
            until(lambda: daemon.status("VmRSS") > before + (20 << 20), "nothing waits in memory")
            stalled = daemon.status("VmRSS")
        until(
            lambda: daemon.status("VmRSS") < before + (stalled - before) // 2,
            lambda: f"{before >> 20} MiB before, {stalled >> 20} with the stall, {daemon.status('VmRSS') >> 20} after",
            timeout=150,
        )


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif("MSRECD_STALLS" not in os.environ, reason="MSRECD_STALLS is not set")
@pytest.mark.promise("disk-stalls")
def test_what_memory_cannot_hold_goes_in_whole_groups_and_is_told(tmp_path: Path, card: Card) -> None:
    daemon = daemon_with_film(tmp_path, 80)
    lines = record_through(daemon, card, 15)
    gaps = [gap for line in lines for gap in line["gaps"]]
    dropped = sum(line["tracks"]["video"]["dropped"] for line in lines)
    frames = sum(line["tracks"]["video"]["frames"] for line in lines)
    assert {gap["reason"] for gap in gaps} == {"slow_consumer"}, json.dumps(gaps)
    lost_s = sum(gap["duration_s"] for gap in gaps)
    assert dropped == pytest.approx(lost_s * RATE, abs=2 * len(gaps))
    length_s = sum(line["duration_s"] for line in lines)
    assert frames + dropped == pytest.approx(length_s * RATE, rel=0.05)
    fault_table.row(
        f"disk frozen for 15 s at 80 Mbit/s, {dropped} frames dropped of {frames + dropped}",
        cases=1,
        harmed=0,
        loss=f"{lost_s:.1f} s in {len(gaps)} gap(s)",
        promise="counted, and told as gaps",
    )
