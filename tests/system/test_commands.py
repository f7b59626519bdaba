"""Commands as a person at a broker gives them, and what a real daemon makes of them."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from broker import Broker, Observer
from console import BASE, Console
from daemon import DaemonProcess, configuration
from judge import assert_consecutive, read_chunk

from msrecd.walltime import WallTime

CAM0 = """
[[recorder]]
name = "cam0"
video = { width = 320, height = 240, frame_rate = 30 }
mime_type = "video/mp4"
timeslice = "500ms"
chunk_duration = "2s"
"""
CAM1 = CAM0.replace("cam0", "cam1")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def console(broker: Broker) -> Iterator[Console]:
    console = Console(broker.port)
    yield console
    console.close()


@pytest.fixture
def observer(broker: Broker) -> Iterator[Observer]:
    with Observer(broker) as watching:
        watching.subscribe("msrecd/#")
        yield watching


def trust_the_clock(daemon: DaemonProcess) -> None:
    """Leave a note of this boot as if somebody had set the clock: trust lasts until the next boot."""
    WallTime(daemon.state, trusted=True)


def wait_state(console: Console, state: str, *, since: int = 0, recorder: str = "cam0", timeout: float = 20.0) -> Any:
    return console.wait(f"state/recorder/{recorder}", lambda s: s["state"] == state, since=since, timeout=timeout)


def test_a_snapshot_does_not_disturb_a_recording(
    tmp_path: Path, broker: Broker, console: Console, observer: Observer
) -> None:
    with DaemonProcess(tmp_path, configuration(tmp_path, port=broker.port, recorders=CAM0)) as daemon:
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
    pictures = [message for message in observer.messages if message.topic == BASE + "image/cam0"]
    assert len(pictures) == 9
    for picture in pictures:
        assert picture.payload.startswith(b"\xff\xd8\xff")
    assert len({picture.payload for picture in pictures}) > 1, "always the same picture"
    assert_consecutive([number for path in daemon.chunks() for number in read_chunk(path).numbers])


def test_a_duration_ends_a_recording(tmp_path: Path, broker: Broker, console: Console) -> None:
    with DaemonProcess(tmp_path, configuration(tmp_path, port=broker.port, recorders=CAM0)) as daemon:
        console.wait("availability")
        console.command("recorder/cam0/start", {"duration_s": 3})
        began = time.monotonic()
        until = console.command("recorder/cam0/get")["data"]["until"]
        assert until is not None
        console.wait("event/recorder/cam0", lambda event: event["event_type"] == "stopped")
        assert 2.5 < time.monotonic() - began < 8
        assert console.command("recorder/cam0/get")["data"]["state"] == "inactive"
        lines = daemon.manifest()
    assert lines[-1]["final"]
    assert sum(line["duration_s"] for line in lines) == pytest.approx(3, abs=1)


def test_a_dead_mans_limit_ends_what_nobody_ends(tmp_path: Path, broker: Broker, console: Console) -> None:
    recorders = CAM0 + 'max_duration = "3s"\n'
    with DaemonProcess(tmp_path, configuration(tmp_path, port=broker.port, recorders=recorders)) as daemon:
        console.wait("availability")
        console.command("recorder/cam0/start", {"duration_s": 600})  # cannot stretch the limit
        console.wait("event/recorder/cam0", lambda event: event["event_type"] == "stopped", timeout=10)
        assert console.command("recorder/cam0/get")["data"]["state"] == "inactive"
        # And it does not begin again by itself.
        count = len(console.messages)
        assert console.command("daemon/ping")["status"] == "ok"
        with pytest.raises(AssertionError):
            wait_state(console, "recording", since=count, timeout=1.5)
        lines = daemon.manifest()
    assert sum(line["duration_s"] for line in lines) == pytest.approx(3, abs=1)


def test_groups_and_the_plain_switch(tmp_path: Path, broker: Broker, console: Console, observer: Observer) -> None:
    config = configuration(tmp_path, port=broker.port, recorders=CAM0 + CAM1)
    config = config.replace(f"port = {broker.port}\n", f'port = {broker.port}\ngroups = ["north-field"]\n')
    with DaemonProcess(tmp_path, config):
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
            wait_state(console, state, since=since)
        for wrong in (b"on", b"TRUE", b'"ON"', b"ON\n", b""):
            since = len(console.messages)
            console.raw("recorder/cam0/set", wrong)
            console.wait("reply/recorder/cam0/set", lambda r: r["status"] == "error", since=since)
        assert console.command("recorder/cam0/get")["data"]["state"] == "inactive"
    assert not any("not-mine" in message.payload.decode("latin-1") for message in observer.messages
                   if message.topic.startswith(BASE))  # fmt: skip


def test_a_repeated_command_acts_once(tmp_path: Path, broker: Broker, console: Console, observer: Observer) -> None:
    with DaemonProcess(tmp_path, configuration(tmp_path, port=broker.port, recorders=CAM0)) as daemon:
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
        assert len({line["file"].rsplit("-", 1)[0] for line in daemon.manifest()}) == 1


def _stamp(seconds_ago: float) -> str:
    return (
        (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


@pytest.mark.parametrize("trusted", [True, False])
def test_old_commands_expire_if_the_clock_is_trusted(
    tmp_path: Path, broker: Broker, console: Console, observer: Observer, trusted: bool
) -> None:
    daemon = DaemonProcess(tmp_path, configuration(tmp_path, port=broker.port, recorders=CAM0))
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
        observer.publish(BASE + "cmd/recorder/cam0/start", {"id": "new", "issued_at": _stamp(5)})
        assert console.wait("reply/recorder/cam0/start", lambda r: r["id"] == "new")["status"] == "ok"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_stop_holds_until_the_windows_end_and_start_overrides_it(
    tmp_path: Path, broker: Broker, console: Console
) -> None:
    """Two windows, a minute apart: the first is stopped by hand, the second comes all the same."""
    recorders = f'{CAM0}\n[[recorder.schedule]]\nstart = "* * * * *"\nduration = "40s"\n'
    daemon = DaemonProcess(tmp_path, configuration(tmp_path, port=broker.port, recorders=recorders))
    trust_the_clock(daemon)
    with daemon:
        since = len(console.messages)
        wait_state(console, "recording", timeout=70)
        second = datetime.now(UTC).second
        if second > 25:  # too near to the window's end for what follows
            wait_state(console, "inactive", timeout=60)
            since = len(console.messages)
            wait_state(console, "recording", since=since, timeout=70)
        assert console.command("recorder/cam0/get")["data"]["cause"] == "schedule"
        assert console.command("recorder/cam0/stop")["changed"] is True
        since = len(console.messages)
        # Whatever makes it think again does not begin the same window anew.
        assert console.command("daemon/reload")["status"] == "ok"
        began = wait_state(console, "recording", since=since, timeout=80)
        assert datetime.fromisoformat(began["since"]).second < 10, "it began within the window that was stopped"
        assert began["cause"] == "schedule"
        # Started by hand in the gap between windows, it goes on over the next window's beginning.
        since = len(console.messages)
        wait_state(console, "inactive", since=since, timeout=60)
        reply = console.command("recorder/cam0/start")
        assert reply["changed"] is True
        first = reply["data"]["recording_id"]
        since = len(console.messages)
        deadline = time.monotonic() + 60
        while datetime.now(UTC).second > 30:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        got = console.command("recorder/cam0/get")["data"]
        assert (got["state"], got["recording_id"]) == ("recording", first)
        assert console.command("recorder/cam0/stop")["changed"] is True


def test_reload_over_mqtt(tmp_path: Path, broker: Broker, console: Console) -> None:
    config = configuration(tmp_path, port=broker.port, recorders=CAM0)
    with DaemonProcess(tmp_path, config) as daemon:
        before = console.wait("state/daemon")["config_hash"]
        console.command("recorder/cam0/start")
        daemon.config.write_text(config + CAM1)
        reply = console.command("daemon/reload")
        assert reply["changed"] is True
        assert reply["data"]["config_hash"] != before
        wait_state(console, "inactive", recorder="cam1")
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
    assert_consecutive([number for path in daemon.chunks() for number in read_chunk(path).numbers])


def test_commands_in_a_burst_are_answered_in_order(tmp_path: Path, broker: Broker, console: Console) -> None:
    with DaemonProcess(tmp_path, configuration(tmp_path, port=broker.port, recorders=CAM0)):
        console.wait("availability")
        verbs = [verb for _ in range(3) for verb in ("start", "pause", "resume", "stop")]
        since = len(console.messages)
        for number, verb in enumerate(verbs):
            console.raw(f"recorder/cam0/{verb}", json.dumps({"id": f"burst-{number}"}).encode())
        console.wait(
            "reply/recorder/cam0/stop", lambda r: r["id"] == f"burst-{len(verbs) - 1}", since=since, timeout=40
        )
        replies = [p for topic, p in console.messages[since:] if topic.startswith(BASE + "reply/recorder/cam0/")]
        assert [reply["id"] for reply in replies] == [f"burst-{number}" for number in range(len(verbs))]
        assert [reply["status"] for reply in replies] == ["ok"] * len(verbs)
        states = [reply["data"]["state"] for reply in replies]
        assert states == list(itertools.chain(*[["recording", "paused", "recording", "inactive"]] * 3))
