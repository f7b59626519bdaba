"""Commands as a person at a broker gives them, and what a real daemon makes of them."""

from __future__ import annotations

import itertools
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from broker import Observer
from config_text import camera
from console import BASE, Console
from daemon import DaemonFor, DaemonProcess
from judge import assert_consecutive, numbers_of

from msrecd.clock.wall import WallTime

CAM0, CAM1 = camera(), camera("cam1")
LATE_S = 2.0  # what the end of a recording may be late on a busy machine


def trust_the_clock(daemon: DaemonProcess) -> None:
    """Leave a note of this boot as if somebody had set the clock: trust lasts until the next boot."""
    WallTime(daemon.state, trusted=True)


@pytest.mark.effect("verb: snapshot")
def test_a_snapshot_does_not_disturb_a_recording(daemon_for: DaemonFor, console: Console, observer: Observer) -> None:
    with daemon_for(CAM0) as daemon:
        console.wait("availability")
        # Also while nothing is recorded; the camera is released again.
        assert console.command("recorder/cam0/snapshot")["data"]["state"] == "inactive"
        console.command("recorder/cam0/start")
        daemon.wait_for_chunks(1)
        for _ in range(8):
            reply = console.command("recorder/cam0/snapshot")
            assert (reply["status"], reply["data"]["state"]) == ("ok", "recording")
        daemon.wait_for_chunks(3)
        console.command("recorder/cam0/stop")
    observer.wait_count(lambda message: message.topic == BASE + "image/cam0", 9)
    pictures = [message for message in observer.messages if message.topic == BASE + "image/cam0"]
    assert len(pictures) == 9
    for picture in pictures:
        assert picture.payload.startswith(b"\xff\xd8\xff")
    assert len({picture.payload for picture in pictures}) > 1, "always the same picture"
    assert_consecutive(numbers_of(daemon.chunks()))


def assert_three_seconds(daemon: DaemonProcess, planned: dict[str, Any]) -> None:
    """Planned so, and so much was recorded; less where the first picture came late."""
    begin, end = (datetime.fromisoformat(planned[key]) for key in ("since", "until"))
    assert (end - begin).total_seconds() == pytest.approx(3, abs=1)
    assert 0 < sum(line["duration_s"] for line in daemon.chunk_lines()) < 3 + LATE_S


@pytest.mark.promise("start-takes-a-duration")
@pytest.mark.effect("command: args", "command: duration_s", "state-recorder: until", "verb: start")
def test_a_duration_ends_a_recording(daemon_for: DaemonFor, console: Console) -> None:
    with daemon_for(CAM0) as daemon:
        console.wait("availability")
        began = time.monotonic()
        console.command("recorder/cam0/start", {"duration_s": 3})
        planned = console.command("recorder/cam0/get")["data"]
        console.wait_event("stopped")
        assert time.monotonic() - began >= 3
        assert console.command("recorder/cam0/get")["data"]["state"] == "inactive"
        assert daemon.chunk_lines()[-1]["final"]
    assert_three_seconds(daemon, planned)


@pytest.mark.effect("config: recorder.max_duration")
def test_a_dead_mans_limit_ends_what_nobody_ends(daemon_for: DaemonFor, console: Console) -> None:
    with daemon_for(camera(max_duration="3s")) as daemon:
        console.wait("availability")
        console.command("recorder/cam0/start", {"duration_s": 600})  # cannot stretch the limit
        planned = console.command("recorder/cam0/get")["data"]
        console.wait_event("stopped")
        assert console.command("recorder/cam0/get")["data"]["state"] == "inactive"
        # And it does not begin again by itself.
        count = len(console.messages)
        assert console.command("daemon/ping")["status"] == "ok"
        with pytest.raises(AssertionError):
            console.wait_state("recording", since=count, timeout=1.5)
    assert_three_seconds(daemon, planned)


@pytest.mark.promise("groups-are-heard")
@pytest.mark.effect("config: mqtt.groups", "verb: set")
def test_groups_and_the_plain_switch(daemon_for: DaemonFor, console: Console, observer: Observer) -> None:
    with daemon_for(CAM0 + CAM1, groups=["north-field"]):
        console.wait("availability")
        for group, verb, state in (("north-field", "start", "recording"), ("all", "stop", "inactive")):
            for recorder in ("cam0", "cam1"):
                id_ = f"{group}-{recorder}"
                observer.publish(f"msrecd/v1/group/{group}/cmd/recorder/{recorder}/{verb}", {"id": id_})
                reply = console.wait(f"reply/recorder/{recorder}/{verb}", lambda r: r["status"] == "ok")
                assert reply["id"] == id_
                assert reply["changed"] is True
                assert reply["data"]["state"] == state
        observer.publish("msrecd/v1/group/south-field/cmd/recorder/cam0/start", {"id": "not-mine"})
        for text, state in (("ON", "recording"), ("OFF", "inactive")):
            since = len(console.messages)
            console.raw("recorder/cam0/set", text.encode())
            console.wait_state(state, since=since)
        for wrong in (b"on", b"TRUE", b'"ON"', b"ON\n", b""):
            since = len(console.messages)
            console.raw("recorder/cam0/set", wrong)
            console.wait("reply/recorder/cam0/set", lambda r: r["status"] == "error", since=since)
        assert console.command("recorder/cam0/get")["data"]["state"] == "inactive"
    assert not any("not-mine" in message.payload.decode("latin-1") for message in observer.messages
                   if message.topic.startswith(BASE))  # fmt: skip


@pytest.mark.promise("an-id-acts-once")
@pytest.mark.effect("command: id", "reply: changed")
def test_a_repeated_command_acts_once(daemon_for: DaemonFor, console: Console, observer: Observer) -> None:
    with daemon_for(CAM0) as daemon:
        console.wait("availability")
        for _ in range(3):
            observer.publish(BASE + "cmd/recorder/cam0/start", {"id": "once"})
        replies = observer.wait_count(lambda m: m.topic == BASE + "reply/recorder/cam0/start", 3)
        assert len({reply.payload for reply in replies}) == 1, "a repeated id gets the stored reply"
        assert replies[0].json["changed"] is True
        console.command("recorder/cam0/stop")
        observer.publish(BASE + "cmd/recorder/cam0/start", {"id": "once"})
        observer.wait_count(lambda m: m.topic == BASE + "reply/recorder/cam0/start", 4)
        assert console.command("recorder/cam0/get")["data"]["state"] == "inactive", "an old id began a recording"
        assert len(daemon.recording_ids()) == 1


def _stamp(seconds_ago: float) -> str:
    return (
        (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.promise("old-commands-expire")
@pytest.mark.effect("command: issued_at", "state-daemon: clock")
def test_old_commands_expire_if_the_clock_is_trusted(
    daemon_for: DaemonFor, console: Console, observer: Observer, trusted: bool
) -> None:
    daemon = daemon_for(CAM0)
    if trusted:
        trust_the_clock(daemon)
    with daemon:
        clock = console.wait("state/daemon")["clock"]
        if clock == "synchronized" and not trusted:
            pytest.skip("this machine's clock is kept by somebody")
        assert clock == ("synchronized" if trusted else "unsynchronized")
        observer.publish(BASE + "cmd/recorder/cam0/start", {"id": "old", "issued_at": _stamp(90)})
        reply = console.wait("reply/recorder/cam0/start", lambda r: r["id"] == "old")
        assert (reply.get("error") or {}).get("code") == ("expired" if trusted else None)
        expected = "inactive" if trusted else "recording"
        assert console.command("recorder/cam0/get")["data"]["state"] == expected
        for number, issued_at in enumerate((_stamp(-90), "2099-01-01T00:00:00Z")):
            observer.publish(BASE + "cmd/recorder/cam0/start", {"id": f"ahead{number}", "issued_at": issued_at})
            reply = console.wait("reply/recorder/cam0/start", lambda r, own=f"ahead{number}": r["id"] == own)
            assert (reply.get("error") or {}).get("code") == ("expired" if trusted else None)
        assert console.command("recorder/cam0/get")["data"]["state"] == expected
        for number, issued_at in enumerate((_stamp(5), _stamp(-30))):
            observer.publish(BASE + "cmd/recorder/cam0/start", {"id": f"new{number}", "issued_at": issued_at})
            reply = console.wait("reply/recorder/cam0/start", lambda r, own=f"new{number}": r["id"] == own)
            assert reply["status"] == "ok"


@pytest.mark.effect("verb: reload", "state-daemon: config_hash", "reply: message")
def test_reload_over_mqtt(daemon_for: DaemonFor, console: Console) -> None:
    with daemon_for(CAM0) as daemon:
        config = daemon.config.read_text()
        before = console.wait("state/daemon")["config_hash"]
        console.command("recorder/cam0/start")
        daemon.config.write_text(config + CAM1)
        reply = console.command("daemon/reload")
        assert reply["changed"] is True
        assert reply["data"]["config_hash"] != before
        console.wait_state("inactive", recorder="cam1")
        assert console.command("recorder/cam1/start")["data"]["state"] == "recording"
        assert console.command("daemon/reload")["changed"] is False
        daemon.config.write_text(config)
        assert console.command("daemon/reload")["changed"] is True
        assert console.command("recorder/cam1/start")["error"]["code"] == "unknown_recorder"
        assert console.command("recorder/cam0/get")["data"]["state"] == "recording"
        daemon.config.write_text("config_version = 1\n[[recorder]]\nname = 'Cam 0'\n")
        refused = console.command("daemon/reload")
        assert "recorder[0].name" in refused["error"]["message"]
        assert console.command("recorder/cam0/get")["data"]["state"] == "recording", "the old configuration holds"
    assert_consecutive(numbers_of(daemon.chunks()))


@pytest.mark.promise("commands-are-answered", "commands-in-order")
@pytest.mark.effect("verb: pause", "verb: resume", "verb: stop", "reply: id", "reply: status", "reply: data")
def test_commands_in_a_burst_are_answered_in_order(daemon_for: DaemonFor, console: Console) -> None:
    with daemon_for(CAM0):
        console.wait("availability")
        verbs = [verb for _ in range(3) for verb in ("start", "pause", "resume", "stop")]
        since = len(console.messages)
        for number, verb in enumerate(verbs):
            console.raw(f"recorder/cam0/{verb}", json.dumps({"id": f"burst-{number}"}).encode())
        console.wait("reply/recorder/cam0/stop", lambda r: r["id"] == f"burst-{len(verbs) - 1}", since=since)
        replies = [p for topic, p in console.messages[since:] if topic.startswith(BASE + "reply/recorder/cam0/")]
        assert [reply["id"] for reply in replies] == [f"burst-{number}" for number in range(len(verbs))]
        assert [reply["status"] for reply in replies] == ["ok"] * len(verbs)
        states = [reply["data"]["state"] for reply in replies]
        assert states == list(itertools.chain(*[["recording", "paused", "recording", "inactive"]] * 3))
