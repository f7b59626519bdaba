"""Somebody tidies, or puts something, where a running daemon records."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from config_text import camera
from console import Console
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


@pytest.mark.promise("place-of-a-folder-is-taken")
@pytest.mark.parametrize("what", ["file", "link"])
def test_what_is_no_folder_in_the_place_of_one_is_one_error_until_it_is_gone(
    daemon_for: DaemonFor, console: Console, tmp_path: Path, what: str
) -> None:
    with daemon_for(camera(chunk_duration="2s")) as daemon:
        console.wait_state("inactive")
        place = daemon.recordings / "cam0"
        if what == "file":
            place.write_text("not a folder")
        else:
            (tmp_path / "elsewhere").mkdir()
            place.symlink_to(tmp_path / "elsewhere")
        console.command("recorder/cam0/start")
        state = console.wait_state("error", code="no_space")
        assert "cam0 is a file or a link, and no folder; move it away" in state["error"]["message"]
        since = len(console.messages)
        # Long enough for several tries, each of which once made the state well for a moment.
        with pytest.raises(AssertionError, match="nothing fitting"):
            console.wait("state/recorder/cam0", lambda state: state["state"] != "error", since=since, timeout=6)
        assert len([event for event in console.events() if event["event_type"] == "error"]) == 1
        assert daemon.log.read_text().count("is a file or a link") == 1
        assert not list((tmp_path / "elsewhere").glob("*") if what != "file" else ())
        place.unlink()
        console.wait_state("recording", since=since)
        daemon.wait_for_chunks(1)
