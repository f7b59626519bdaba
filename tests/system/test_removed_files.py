"""Somebody cleans up below a running daemon: what it is writing is finished all the same."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from config_text import camera
from daemon import DaemonFor
from waiting import until

pytestmark = pytest.mark.slow


@pytest.mark.promise("removed-part-is-written-again")
@pytest.mark.parametrize("what", ["part", "folder"])
def test_a_chunk_whose_part_is_removed_is_finished_all_the_same(daemon_for: DaemonFor, what: str) -> None:
    with daemon_for(camera(autostart=True, chunk_duration="6s")) as daemon:
        daemon.wait_for_part(least_bytes=20_000)
        (part,) = daemon.parts()
        if what == "part":
            part.unlink()
        else:
            shutil.rmtree(daemon.recordings / "cam0")
        final = part.with_suffix("")
        until(final.exists, daemon.log.read_text, timeout=60)
        until(lambda: daemon.chunk_lines(), daemon.log.read_text, timeout=60)
        assert f"{part.name} was removed by another program; it has been written again" in daemon.log.read_text()
    verified = subprocess.run(
        [sys.executable, "-m", "msrecd", "recordings", "verify", daemon.recordings], capture_output=True, text=True
    )
    assert verified.returncode == 0, verified
    line = daemon.chunk_lines()[0]
    assert (line["seq"], final.stat().st_size) == (1, line["bytes"])
    assert line["duration_s"] > 5
    assert line["gaps"] == []
