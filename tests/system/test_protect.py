"""The verb `protect` in a running daemon."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from config_text import camera, microphone
from console import Console
from daemon import DaemonFor


@pytest.mark.promise("protect-by-message")
@pytest.mark.effect("verb: protect")
def test_protect_by_message(daemon_for: DaemonFor, console: Console) -> None:
    with daemon_for(camera(frame_rate=15, chunk_duration="1s")) as daemon:
        console.wait("state/recorder/cam0")
        refused = console.command("recorder/cam0/protect", {"last_s": 60})
        assert refused["error"]["code"] == "bad_args", "there is nothing yet"
        assert console.command("recorder/cam0/protect", {"whole": True})["error"]["code"] == "wrong_state"
        recording_id = console.command("recorder/cam0/start")["data"]["recording_id"]
        daemon.wait_for_chunks(2)
        reply = console.command("recorder/cam0/protect", {"last_s": 600})
        assert (reply["status"], reply["changed"]) == ("ok", True)
        assert reply["data"]["recording_ids"] == [recording_id]
        assert reply["data"]["chunks"] >= 2
        assert reply["data"]["bytes"] > 0
        now = datetime.now(UTC)
        past = {"from": _text(now - timedelta(days=400)), "to": _text(now - timedelta(days=399))}
        assert console.command("recorder/cam0/protect", past)["error"]["code"] == "bad_args"
        around = {"from": _text(now - timedelta(hours=1)), "to": _text(now + timedelta(hours=1))}
        assert console.command("recorder/cam0/protect", around)["status"] == "ok"
        whole = console.command("recorder/cam0/protect", {"whole": True})
        assert "no_space" in whole["data"]["warning"]
        console.command("recorder/cam0/stop")
        done = subprocess.run(
            [sys.executable, "-m", "msrecd", "recordings", "list", "--config", str(daemon.config), "--json"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert '"protected": true' in done.stdout


@pytest.mark.promise("protection-and-limits")
def test_what_protection_does_to_the_limit_is_said_before_it_hurts(daemon_for: DaemonFor, console: Console) -> None:
    sound = microphone(mime_type="audio/wav", chunk_duration="1s", autostart=True)  # 188 KiB a second
    with daemon_for(sound, storage='max_total = "2MiB"') as daemon:
        console.wait("state/recorder/mic0")
        daemon.wait_for_chunks(1, recorder="mic0")
        few = console.command("recorder/mic0/protect", {"last_s": 2})
        assert few["status"] == "ok", few
        assert "warning" not in few["data"], few
        daemon.wait_for_chunks(7, recorder="mic0")
        much = console.command("recorder/mic0/protect", {"last_s": 600})
        assert "of storage.max_total is protected" in much["data"]["warning"], much
        console.command("recorder/mic0/protect", {"whole": True})
        console.wait("event/error", lambda event: "% of storage.max_total is protected" in event["message"])


@pytest.mark.promise("max-protected", "protection-and-limits")
@pytest.mark.effect("config: storage.max_protected", "state-health: protected_bytes")
def test_a_limit_of_its_own(daemon_for: DaemonFor, console: Console) -> None:
    """What would be above it is refused; what a whole recording still brings goes by the limits again."""
    sound = microphone(mime_type="audio/wav", chunk_duration="1s", autostart=True)  # 188 KiB a second
    with daemon_for(sound, storage='max_total = "2MiB"\nmax_protected = "1MiB"') as daemon:
        console.wait("state/recorder/mic0")
        daemon.wait_for_chunks(1, recorder="mic0")
        warning = console.command("recorder/mic0/protect", {"whole": True})["data"]["warning"]
        assert "until storage.max_protected = 1MiB is reached" in warning
        warned = console.wait("event/error", lambda event: "storage.max_protected is reached" in event["message"])
        assert warned["code"] == "no_space"
        last = console.command("recorder/mic0/get")["data"]["chunks"]
        console.wait_event("chunk", recorder="mic0", seq=last + 2)
        refused = console.command("recorder/mic0/protect", {"last_s": 60})
        assert refused["error"]["code"] == "no_space", refused
        assert "storage.max_protected = 1MiB" in refused["error"]["message"]
        whole = console.command("recorder/mic0/protect", {"whole": True})
        assert whole["error"]["code"] == "no_space", whole
        first = daemon.chunks("mic0")[0]
        console.wait_event("chunk", recorder="mic0", seq=last + 5)
        assert first.exists()
        kept = console.command("daemon/health")["data"]["disk"]["protected_bytes"]
        assert (1 << 20) - 200_000 < kept < (1 << 20) + 200_000
        assert console.command("recorder/mic0/get")["data"]["state"] == "recording", "the rest is a ring"
        raised = daemon.config.read_text().replace(
            'max_protected = "1MiB"', 'max_protected = "2MiB"\nsync_interval = "1s"'
        )
        daemon.config.write_text(raised)
        recording = console.command("recorder/mic0/get")["data"]["recording_id"]
        assert console.command("daemon/reload")["status"] == "ok"
        accepted = console.command("recorder/mic0/protect", {"last_s": 2})
        assert accepted["status"] == "ok", accepted
        assert console.command("recorder/mic0/get")["data"]["recording_id"] == recording


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
