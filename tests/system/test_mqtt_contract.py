"""Section 6 of the contract at a whole daemon: what no other test looks at.

Where the rest is: topics, QoS, retention and schemas: test_payloads, and every test with a console; verbs, groups, the
switch, repeated ids, `issued_at`, snapshots, limits of duration: test_commands; devices that come and go, health, error
codes: test_mqtt_devices; wrong commands: test_daemon, test_fuzz_broker; outages and kills: test_mqtt_outage,
test_mqtt_kills; response topics, correlation, rate, sizes, TLS and ACL, discovery: tests/mqtt.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import socket
import struct
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from broker import Broker
from config_text import camera, configuration
from console import BASE, Console
from daemon import DaemonFor, DaemonProcess

CAM0 = camera(frame_rate=15, chunk_duration="1s")
PACKET_LIMIT_BYTES = 20 * 1024
WILL_DELAY_S = 10


# --- the connection --------------------------------------------------------------------------------------------------


class Ear:
    """A server that understands so much of MQTT 5 that a client says who it is and what it wants to hear."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.packets: dict[int, bytes] = {}  # type -> body
        self.heard = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        self._server.settimeout(60)
        connection, _ = self._server.accept()
        with connection, connection.makefile("rb") as stream:
            connection.settimeout(60)
            while 8 not in self.packets:
                kind, body = stream.read(1)[0], stream.read(self._length(stream))
                self.packets[kind >> 4] = body
                if kind >> 4 == 1:
                    connection.sendall(b"\x20\x03\x00\x00\x00")  # CONNACK, success, no properties
            self.heard.set()

    @staticmethod
    def _length(stream: Any) -> int:
        value, shift = 0, 0
        while True:
            byte = stream.read(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def close(self) -> None:
        self._server.close()


class Reader:
    """The fields of a packet, one after another (MQTT 5, section 1.5)."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    @property
    def is_empty(self) -> bool:
        return self._at >= len(self._body)

    def take(self, form: str) -> Any:
        (value,) = struct.unpack_from(">" + form, self._body, self._at)
        self._at += struct.calcsize(">" + form)
        return value

    def text(self) -> bytes:
        length = self.take("H")
        self._at += length
        return self._body[self._at - length : self._at]

    def properties(self) -> dict[int, int]:
        forms = {17: "I", 33: "H", 39: "I", 24: "I", 11: "B"}  # session expiry, receive, packet size, will delay, id
        end = self.take("B") + self._at
        found = {}
        while self._at < end:
            name = self.take("B")
            found[name] = self.take(forms[name])
        return found


@pytest.mark.promise("states-are-retained")
def test_what_it_says_when_it_connects(tmp_path: Path) -> None:
    ear = Ear()
    with DaemonProcess(tmp_path, configuration(tmp_path, port=ear.port, recorders=CAM0, groups=["north"])):
        assert ear.heard.wait(30), sorted(ear.packets)
    ear.close()
    connect = Reader(ear.packets[1])
    assert (connect.text(), connect.take("B")) == (b"MQTT", 5)
    flags = connect.take("B")
    assert not flags & 0b0000_0010, "a clean start would lose what was sent meanwhile"
    assert flags & 0b0000_0100, "no will"
    assert (flags >> 3) & 3 == 1, "the will's QoS"
    assert flags & 0b0010_0000, "the will is retained"
    assert 5 <= connect.take("H") <= 120, "keep-alive"
    properties = connect.properties()
    assert properties[39] == PACKET_LIMIT_BYTES
    assert properties[17] > WILL_DELAY_S, "without a session that lasts the broker ignores the will's delay"
    assert connect.text() == b"msrecd-test-device"
    assert connect.properties()[24] == WILL_DELAY_S
    assert (connect.text(), connect.text()) == (f"{BASE}availability".encode(), b"offline")

    subscribe = Reader(ear.packets[8])
    subscribe.take("H")
    subscribe.properties()
    filters = {}
    while not subscribe.is_empty:
        topic = subscribe.text().decode()
        filters[topic] = subscribe.take("B")
    # QoS 1, retain as published, never what was retained before.
    assert filters == dict.fromkeys(
        [f"{BASE}cmd/#", "msrecd/v1/group/all/cmd/#", "msrecd/v1/group/north/cmd/#"], 0b0010_1001
    )


@pytest.mark.slow
@pytest.mark.promise("offline-after-ten-seconds")
def test_a_killed_device_is_offline_after_ten_seconds_unless_it_is_back(
    daemon_for: DaemonFor, console: Console
) -> None:
    daemon = daemon_for(CAM0)
    with daemon:
        console.wait("availability", lambda text: text == "online")
        killed = time.monotonic()
        since = len(console.messages)
        daemon.kill()
        daemon.start()
        console.wait("availability", lambda text: text == "online", since=since)
        was_quick = time.monotonic() - killed < WILL_DELAY_S - 2  # not so on a very busy machine
        said = console.told("availability", since)
        assert "offline" not in said or not was_quick, "a short break was to be seen"
        killed = time.monotonic()
        since = len(console.messages)
        daemon.kill()
        console.wait("availability", lambda text: text == "offline", since=since, timeout=60)
        assert time.monotonic() - killed > WILL_DELAY_S - 2


# --- states and events -----------------------------------------------------------------------------------------------


def parse(stamp: str) -> float:
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


@pytest.mark.promise("inactive-means-finished", "start-is-published-when-done")
@pytest.mark.effect(
    "state-recorder: state",
    "state-recorder: since",
    "state-recorder: rev",
    "state-recorder: chunks",
    "state-recorder: last_chunk",
    "state-recorder: file",
    "event-recorder: event_type",
    "event-recorder: ts",
)
def test_one_recording_in_its_states(daemon_for: DaemonFor, console: Console) -> None:
    """Each change is seen once; `since` is when the state was entered; `rev` grows; inactive means: all is written."""
    with daemon_for(CAM0) as daemon:
        console.wait("state/recorder/cam0")
        for verb in ("start", "pause", "resume", "split"):
            assert console.command(f"recorder/cam0/{verb}")["changed"] is True
            daemon.wait_for_chunks(len(daemon.chunks()) + (verb != "pause"))
        assert console.command("recorder/cam0/stop")["changed"] is True
        console.wait("state/recorder/cam0", lambda state: state["state"] == "inactive" and state["rev"] > 3)
    console.wait("availability", lambda text: text == "offline")  # all that was told before is here
    states = [state for state in console.told("state/recorder/cam0") if state]
    phases = [(name, list(group)) for name, group in itertools.groupby(states, key=lambda state: state["state"])]
    assert [name for name, _ in phases] == ["inactive", "recording", "paused", "recording", "inactive"]
    for name, group in phases:
        assert len({state["since"] for state in group}) == 1, f"`since` moved while {name}"
    since = [parse(group[0]["since"]) for _, group in phases]
    assert since == sorted(since)
    assert len(set(since)) == len(since)
    assert len(phases[-1][1]) == 1, "more than one inactive"
    revisions = [state["rev"] for state in states]
    assert revisions == sorted(revisions)
    assert len(set(revisions)) == len(revisions)
    events = console.events()
    times = {event["event_type"]: parse(event["ts"]) for event in events}
    for event_type, (_, group) in zip(("paused", "resumed", "stopped"), phases[2:], strict=True):
        assert abs(times[event_type] - parse(group[0]["since"])) < 1.0
    kinds = [event["event_type"] for event in events if event["event_type"] != "chunk"]
    assert kinds == ["started", "paused", "resumed", "stopped"]
    final = states[-1]
    assert (final["recording_id"], final["cause"], final["until"], final["error"]) == (None, None, None, None)
    assert final["tracks"] == []
    assert final["chunks"] == len(daemon.chunks())
    (last,) = [event for event in events if event.get("final")]
    assert final["last_chunk"]["file"] == last["file"], "inactive before the last chunk"


@pytest.mark.promise("chunks-are-events")
@pytest.mark.effect(
    "event-recorder: file",
    "event-recorder: bytes",
    "event-recorder: sha256",
    "event-recorder: seq",
    "event-recorder: recording_id",
    "manifest-line: file",
)
def test_a_chunk_is_told_when_it_has_its_name(daemon_for: DaemonFor, broker: Broker, console: Console) -> None:
    """At the moment the event arrives, the file is there, whole, and listed."""
    daemon = daemon_for(CAM0)
    problems: list[str] = []
    enough = threading.Event()
    chunks = 0

    def look(_client: object, _data: object, message: Any) -> None:
        nonlocal chunks
        event = json.loads(message.payload)
        if event["event_type"] != "chunk":
            return
        chunks += 1
        path = daemon.recordings / event["file"]
        try:
            content = path.read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (event["bytes"], event["sha256"])
            manifest = path.parent / f"{event['recording_id']}.jsonl"
            assert any(json.loads(line)["seq"] == event["seq"] for line in manifest.read_text().splitlines())
        except (OSError, AssertionError) as exc:
            problems.append(f"{event['file']}: {exc}")
        if event["final"]:
            enough.set()

    listener = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    listener.on_connect = lambda client, *_: client.subscribe(BASE + "event/#", qos=1)
    listener.on_message = look
    listener.connect("127.0.0.1", broker.port)
    listener.loop_start()
    with daemon:
        console.wait("availability")
        console.command("recorder/cam0/start")
        daemon.wait_for_chunks(3)
        console.command("recorder/cam0/stop")
        assert enough.wait(20)
    listener.disconnect()
    listener.loop_stop()
    assert not problems
    assert chunks >= 4


@pytest.mark.promise("equal-errors-are-counted")
@pytest.mark.effect("event-error: code", "event-error: count", "event-error: first", "event-error: ts")
def test_equal_errors_are_counted(daemon_for: DaemonFor, console: Console) -> None:
    with daemon_for(CAM0) as daemon:
        console.wait("availability")
        daemon.config.write_text("config_version = 1\n[storage]\nmax_totl = 3\n")
        for _ in range(5):
            assert console.command("daemon/reload")["error"]["code"] == "bad_args"
        first = console.wait("event/error")
        assert (first["count"], first["code"]) == (1, "bad_args")
        assert first["first"] == first["ts"]
        assert daemon.stop() == 0  # what was only counted so far is told before the end
    console.wait("availability", lambda text: text == "offline")
    told = console.told("event/error")
    assert sum(event["count"] for event in told) == 5
    assert len(told) <= 3, "not coalesced"
    assert len({event["message"] for event in told}) == 1
    assert all(parse(event["first"]) <= parse(event["ts"]) for event in told)
