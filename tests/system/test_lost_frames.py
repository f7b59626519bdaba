"""What a network camera's frames lose on the way: each of them is counted, over TCP as over UDP."""

from __future__ import annotations

import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pytest
from config_text import recorder
from daemon import DaemonFor
from waiting import until

from tests.inputs.cameras import RATE, Faults, RtspCamera, clip


def missing(path: Path) -> int:
    """Frames for which there would have been room between those of a file."""
    listed = subprocess.run(
        ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "packet=pts_time", "-of", "csv=p=0", path],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    times = sorted(float(line.strip(",")) for line in listed.split())
    return sum(round((after - before) * RATE) - 1 for before, after in pairwise(times))


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("lost", [range(300, 301), range(300, 360), range(300, 500)], ids=["piece", "frames", "group"])
@pytest.mark.promise("frames-lost-on-the-way")
def test_frames_that_are_lost_on_the_way_are_counted(daemon_for: DaemonFor, transport: str, lost: range) -> None:
    sent: list[int] = []

    def loses(number: int) -> bool:
        sent.append(number)
        return number in lost

    with RtspCamera(clip(640, 480), Faults(loses=loses), has_sound=False) as camera:
        source = {"url": camera.url, "transport": transport}
        with daemon_for(recorder("cam0", source=source, chunk_duration="1h", autostart=True)) as daemon:
            until(lambda: bool(sent) and sent[-1] > lost[-1] + 400, lambda: f"{sent[-1:]}: {daemon.log.read_text()}")
            time.sleep(1)  # what the last look at the connection has brought
            assert daemon.stop() == 0
            (line,) = daemon.chunk_lines("cam0")
            (path,) = daemon.chunks("cam0")
    counted = line["tracks"]["video"]["dropped"]
    assert missing(path) > 0
    assert abs(counted - missing(path)) <= 0.03 * missing(path)  # times follow arrival, by 2 % at most
