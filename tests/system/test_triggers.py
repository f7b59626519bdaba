"""Triggers in a running daemon: what they begin, extend, leave alone, and publish."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import wave
from array import array
from datetime import datetime, timedelta
from typing import Any

import pytest
from config_text import camera, microphone, trigger, window
from console import Console
from daemon import DaemonFor
from waiting import until

# The virtual microphone beeps at 1 kHz for a tenth of every second.
BEEP = {"kind": "sound", "band": [900, 1100], "threshold_db": 15.0, "hold": "300ms"}


def event(console: Console, recorder: str, event_type: str) -> Any:
    return console.wait(f"event/recorder/{recorder}", lambda said: said.get("event_type") == event_type)


@pytest.mark.promise("triggers")
@pytest.mark.effect(
    "config: recorder.trigger.kind",
    "config: recorder.trigger.hold",
    "config: recorder.trigger.max_per_hour",
    "event-recorder: action",
    "event-recorder: at",
    "event-recorder: kind",
    "event-recorder: score",
    "manifest-line: trigger",
    "manifest-line: score",
    "state-health: active",
    "state-health: armed",
    "state-health: score",
    "state-health: events",
    "state-health: kind",
    "state-health: triggers",
)
def test_a_sound_begins_a_recording_from_before_it(daemon_for: DaemonFor, console: Console) -> None:
    recorder = microphone(mime_type="audio/wav", pre_roll="800ms") + trigger(**BEEP | {"max_per_hour": 1})
    with daemon_for(recorder) as daemon:
        found = event(console, "mic0", "trigger")
        assert (found["kind"], found["action"]) == ("sound", "start")
        assert found["score"] > 12
        assert found["at"].endswith("Z")
        assert event(console, "mic0", "started")["cause"] == "trigger:sound"
        assert event(console, "mic0", "stopped")["cause"] == "trigger"
        (chunk,) = daemon.wait_for_chunks(1, recorder="mic0")
        limited = console.wait("event/recorder/mic0", lambda said: said.get("action") == "limited")
        assert limited["event_type"] == "trigger"
        assert console.wait("state/recorder/mic0", lambda said: said["state"] == "inactive" and said["armed"])
        health = console.command("daemon/health")["data"]["recorders"]["mic0"]["triggers"]
        assert health[0]["armed"]
        assert health[0]["events"] >= 2
        assert health[0]["kind"] == "sound"
        assert health[0]["score"] >= 15, "of the beep that began nothing"
        assert isinstance(health[0]["active"], bool)
        assert len(daemon.recording_ids("mic0")) == 1
        manifests = list((daemon.folder / "recordings").rglob("*.jsonl"))
        lines = [json.loads(line) for path in manifests for line in path.read_text().splitlines()]
        (noted,) = [line for line in lines if "trigger" in line]
        assert (noted["trigger"], noted["score"], noted["started"]) == ("sound", found["score"], found["at"])
        begun, ended = (datetime.fromisoformat(noted[name]) for name in ("started", "ended"))
        assert timedelta(0) < ended - begun < timedelta(seconds=3), "a beep of a tenth of a second"
    since = len(console.messages)
    with daemon:  # what began before a restart counts, too
        console.wait("event/recorder/mic0", lambda said: said.get("action") == "limited", since=since)
        assert len(daemon.recording_ids("mic0")) == 1
    with wave.open(str(chunk)) as file:
        sound, channels = array("h", file.readframes(1 << 30)), file.getnchannels()
        rate = file.getframerate()
    (line,) = [line for line in lines if line.get("file")]
    cause_s = (datetime.fromisoformat(found["at"]) - datetime.fromisoformat(line["started"])).total_seconds()
    assert 0.8 <= cause_s < 1.5, "800 ms before the cause, what the decision may take, and a block"

    def loudest(since_s: float, until_s: float) -> int:
        first, last = (max(0, round((cause_s + moment) * rate) * channels) for moment in (since_s, until_s))
        return max(map(abs, sound[first:last]))

    assert loudest(-0.2, 0.15) > 1000, "the beep that began it"
    assert loudest(-0.7, -0.25) < 1000, "what came before it"


@pytest.mark.effect("config: recorder.trigger.band", "config: recorder.trigger.threshold_db", "state-health: threshold")
def test_a_sound_in_the_band_and_above_the_threshold_counts(daemon_for: DaemonFor, console: Console) -> None:
    recorders = (
        microphone("other", pre_roll="0s")
        + trigger(**BEEP | {"band": [3000, 8000], "threshold_db": 60.0})
        + microphone("heard")
        + trigger(**BEEP)
        + microphone("bats")
        + trigger(**BEEP | {"band": [30_000, 90_000]})
    )
    with daemon_for(recorders) as daemon:
        event(console, "heard", "stopped")
        event(console, "heard", "started")
        health = console.command("daemon/health")["data"]["recorders"]
        assert health["heard"]["triggers"][0]["threshold"] == 15.0
        assert health["other"]["triggers"][0]["threshold"] == 60.0
        assert health["other"]["triggers"][0]["events"] == 0
        assert not daemon.recording_ids("other")
        (unmet,) = console.wait("state/recorder/bats", lambda said: said["armed"])["unmet"]
        assert (unmet["constraint"], unmet["asked"], unmet["got"]) == ("trigger.band", 30_000, 24_000)
        assert "bats: asked for and not met: audio trigger.band 30000 (the sound ends at 24000 Hz)" in (
            daemon.log.read_text()
        )


@pytest.mark.effect("config: recorder.trigger.mask", "config: recorder.trigger.sensitivity")
def test_motion_outside_of_the_mask_begins_nothing(daemon_for: DaemonFor, console: Console) -> None:
    """The virtual camera's frames change everywhere but in a corner."""
    still = [[[0, 0.12], [0.02, 0.12], [0.02, 0.14], [0, 0.14]]]
    recorders = camera("unseen") + trigger(kind="motion", mask=still, sensitivity=1.0)
    with daemon_for(recorders) as daemon:

        def look() -> Any:
            return console.command("daemon/health")["data"]["recorders"]["unseen"]["triggers"][0]

        until(lambda: look()["threshold"] is not None, "it has not looked")
        assert look()["threshold"] == 5.0, "what sensitivity = 1.0 wants"
        assert look()["events"] == 0
        assert console.command("recorder/unseen/get")["data"]["armed"]
        assert not daemon.recording_ids("unseen")


@pytest.mark.promise("triggers")
def test_motion_begins_and_extends_a_recording(daemon_for: DaemonFor, console: Console) -> None:
    """A block moves over the virtual camera's colour bars, beside a light that blinks once a second."""
    with daemon_for(camera("cam0", pre_roll="2s") + trigger(kind="motion", hold="30s")) as daemon:
        found = event(console, "cam0", "trigger")
        assert (found["kind"], found["action"]) == ("motion", "start")
        assert event(console, "cam0", "started")["cause"] == "trigger:motion"
        daemon.wait_for_chunks(1)
        state = console.command("recorder/cam0/get")["data"]
        assert (state["state"], state["cause"]) == ("recording", "trigger:motion")
        console.command("recorder/cam0/stop")


@pytest.mark.effect("config: recorder.schedule.action")
@pytest.mark.promise("arming")
def test_a_schedule_arms_and_a_command_goes_first(daemon_for: DaemonFor, console: Console) -> None:
    later = (datetime.now() + timedelta(hours=12)).strftime("%H:%M")  # noqa: DTZ005 - the wall's time, as schedules have it
    off = window(start=later, duration="1m", action="arm", unsynchronized="run")
    on = window(start="00:00", duration="24h", action="arm", unsynchronized="run")
    recorders = microphone("off") + off + trigger(**BEEP) + microphone("on") + on + trigger(**BEEP | {"hold": "1h"})
    with daemon_for(recorders) as daemon:
        assert event(console, "on", "started")["cause"] == "trigger:sound"
        assert console.command("recorder/on/stop")["data"]["state"] == "inactive"
        event(console, "on", "stopped")
        again = event(console, "on", "started")
        assert again["cause"] == "trigger:sound", "the next beep is something new"
        health = console.command("daemon/health")["data"]["recorders"]["off"]["triggers"]
        assert not health[0]["armed"]
        assert not console.command("recorder/off/get")["data"]["armed"]
        assert console.command("recorder/off/start")["status"] == "ok"
        assert console.command("recorder/off/get")["data"]["cause"].startswith("mqtt")
        assert len(daemon.recording_ids("off")) == 0


@pytest.mark.effect("config: recorder.trigger.protect")
def test_what_a_trigger_records_is_protected(daemon_for: DaemonFor, console: Console) -> None:
    recorder = microphone(mime_type="audio/wav") + trigger(**BEEP | {"protect": True, "max_per_hour": 1})
    with daemon_for(recorder) as daemon:
        event(console, "mic0", "stopped")
        daemon.wait_for_chunks(1, recorder="mic0")
        (recording_id,) = daemon.recording_ids("mic0")
        folder = daemon.recordings / ".msrecd/protected"
        until(lambda: (folder / recording_id).exists(), daemon.log.read_text, timeout=30)


@pytest.mark.promise("scores-can-be-watched", "look-at-triggers")
def test_scores_can_be_watched(daemon_for: DaemonFor) -> None:
    later = datetime.now() + timedelta(hours=12)  # noqa: DTZ005 - the wall's time, as schedules have it
    off = window(start=f"{later:%H:%M}", duration="1m", action="arm", unsynchronized="run")
    recorders = microphone() + trigger(**BEEP) + microphone("plain") + microphone("night") + off + trigger(**BEEP)
    with daemon_for(recorders) as daemon:
        command = [sys.executable, "-m", "msrecd", "look", "--config", str(daemon.config), "--trigger", "--looks", "3"]
        environment = os.environ | {"RUNTIME_DIRECTORY": str(daemon.runtime)}

        def look(name: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*command, name], env=environment, capture_output=True, text=True, timeout=120, check=False
            )

        done = look("mic0")
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == 3
        assert all("sound" in line and "of 15.0" in line for line in lines[1:]), lines
        for line in look("night").stdout.splitlines():
            assert line.endswith(f"off until {later:%a %Y-%m-%d %H:%M}")
        refused = look("plain")
        assert refused.returncode == 2
        assert "plain has no [[recorder.trigger]]" in refused.stderr
