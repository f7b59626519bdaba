"""`rev` and the first state after a command, in a running daemon that is killed in between."""

from __future__ import annotations

import pytest
from config_text import camera
from console import Console
from daemon import DaemonFor


@pytest.mark.promise("rev-grows", "state-is-atomic")
def test_rev_grows_over_a_kill_and_the_first_state_holds_all(daemon_for: DaemonFor, console: Console) -> None:
    with daemon_for(camera()) as daemon:
        before = console.wait("state/recorder/cam0", lambda state: state["state"] == "inactive")
        since = len(console.messages)
        reply = console.command("recorder/cam0/start", {"duration_s": 600})
        first = console.wait("state/recorder/cam0", since=since)
        assert (first["state"], first["recording_id"]) == ("recording", reply["data"]["recording_id"])
        assert first["until"] is not None
        assert first["cause"].startswith("mqtt")
        assert first["rev"] > before["rev"]
        daemon.wait_for_chunks(1)
        daemon.kill()
        last = max(state["rev"] for state in console.told("state/recorder/cam0") if state)
        since = len(console.messages)
        daemon.start()
        again = console.wait("state/recorder/cam0", lambda state: state["state"] == "inactive", since=since)
        assert again["rev"] > last
    states = [state for state in console.told("state/recorder/cam0") if state]
    contents: dict[int, object] = {}
    for state in states:
        assert contents.setdefault(state["rev"], state) == state, "two contents under one rev"
