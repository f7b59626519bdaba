"""Section 6 of the contract at a whole daemon: what no other test looks at.

Where the rest is: topics, QoS, retention and schemas: test_payloads, and every test with a console; verbs, groups, the
switch, repeated ids, `issued_at`, snapshots, limits of duration: test_commands; wrong commands: test_daemon,
test_fuzz_broker; outages and kills: test_mqtt_outage, test_mqtt_kills; response topics, correlation, rate, sizes, TLS
and ACL, discovery: tests/mqtt.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from broker import Broker, Observer
from console import BASE, Console
from daemon import DaemonProcess, configuration

import msrecd.service.daemon as daemon_module
from msrecd.config.load import load
from msrecd.devices.virtual import VirtualBackend, VirtualCamera, VirtualMicrophone

CAM0 = """
[[recorder]]
name = "cam0"
video = { width = 320, height = 240, frame_rate = 15 }
mime_type = "video/mp4"
timeslice = "500ms"
chunk_duration = "1s"
"""
PACKET_LIMIT_BYTES = 20 * 1024
WILL_DELAY_S = 10


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def console(broker: Broker) -> Iterator[Console]:
    console = Console(broker.port)
    yield console
    console.close()


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


def test_what_it_says_when_it_connects(tmp_path: Path) -> None:
    ear = Ear()
    config = configuration(tmp_path, port=ear.port, recorders=CAM0)
    with DaemonProcess(tmp_path, config.replace("[mqtt]\n", '[mqtt]\ngroups = ["north"]\n')):
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
def test_a_killed_device_is_offline_after_ten_seconds_unless_it_is_back(
    tmp_path: Path, broker: Broker, console: Console
) -> None:
    daemon = DaemonProcess(tmp_path, configuration(tmp_path, port=broker.port, recorders=CAM0))
    with daemon:
        console.wait("availability", lambda text: text == "online")
        killed = time.monotonic()
        since = len(console.messages)
        daemon.kill()
        daemon.start()
        console.wait("availability", lambda text: text == "online", since=since)
        was_quick = time.monotonic() - killed < WILL_DELAY_S - 2  # not so on a very busy machine
        said = [payload for topic, payload in console.messages[since:] if topic == BASE + "availability"]
        assert "offline" not in said or not was_quick, "a short break was to be seen"
        killed = time.monotonic()
        since = len(console.messages)
        daemon.kill()
        console.wait("availability", lambda text: text == "offline", since=since, timeout=60)
        assert time.monotonic() - killed > WILL_DELAY_S - 2


# --- states and events -----------------------------------------------------------------------------------------------


def parse(stamp: str) -> float:
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def test_one_recording_in_its_states(tmp_path: Path, broker: Broker, console: Console) -> None:
    """Each change is seen once; `since` is when the state was entered; `rev` grows; inactive means: all is written."""
    with DaemonProcess(tmp_path, configuration(tmp_path, port=broker.port, recorders=CAM0)) as daemon:
        console.wait("state/recorder/cam0")
        for verb in ("start", "pause", "resume", "split"):
            assert console.command(f"recorder/cam0/{verb}")["changed"] is True
            daemon.wait_for_chunks(len(daemon.chunks()) + (verb != "pause"))
        assert console.command("recorder/cam0/stop")["changed"] is True
        console.wait("state/recorder/cam0", lambda state: state["state"] == "inactive" and state["rev"] > 3)
    topics = ("state/recorder/cam0", "event/recorder/cam0")
    told = [
        (topic.removeprefix(BASE), payload)
        for topic, payload in console.messages
        if topic.removeprefix(BASE) in topics and payload
    ]
    states = [payload for topic, payload in told if topic == topics[0]]
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
    events = [payload for topic, payload in told if topic == topics[1]]
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


def test_a_chunk_is_told_when_it_has_its_name(tmp_path: Path, broker: Broker) -> None:
    """At the moment the event arrives, the file is there, whole, and listed."""
    problems: list[str] = []
    enough = threading.Event()
    chunks = 0

    def look(_client: object, _data: object, message: Any) -> None:
        nonlocal chunks
        event = json.loads(message.payload)
        if event["event_type"] != "chunk":
            return
        chunks += 1
        path = tmp_path / "recordings" / event["file"]
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
    console = Console(broker.port)
    with DaemonProcess(tmp_path, configuration(tmp_path, port=broker.port, recorders=CAM0)) as daemon:
        console.wait("availability")
        console.command("recorder/cam0/start")
        daemon.wait_for_chunks(3)
        console.command("recorder/cam0/stop")
        assert enough.wait(20)
    console.close()
    listener.disconnect()
    listener.loop_stop()
    assert not problems
    assert chunks >= 4


def test_equal_errors_are_counted(tmp_path: Path, broker: Broker, console: Console) -> None:
    with DaemonProcess(tmp_path, configuration(tmp_path, port=broker.port, recorders=CAM0)) as daemon:
        console.wait("availability")
        daemon.config.write_text("config_version = 1\n[storage]\nmax_totl = 3\n")
        for _ in range(5):
            assert console.command("daemon/reload")["error"]["code"] == "bad_args"
        first = console.wait("event/error")
        assert (first["count"], first["code"]) == (1, "bad_args")
        assert first["first"] == first["ts"]
        assert daemon.stop() == 0  # what was only counted so far is told before the end
    console.wait("availability", lambda text: text == "offline")
    told = [payload for topic, payload in console.messages if topic == BASE + "event/error"]
    assert sum(event["count"] for event in told) == 5
    assert len(told) <= 3, "not coalesced"
    assert len({event["message"] for event in told}) == 1
    assert all(parse(event["first"]) <= parse(event["ts"]) for event in told)


# --- devices, health: a daemon in this process, so that its devices are at hand --------------------------------------


def run_inside(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: VirtualBackend,
    console: Console,
    config: str,
    script: Callable[[daemon_module.Daemon], Awaitable[None]],
) -> None:
    """Run a daemon with these devices, and a script beside it, on the loop."""
    monkeypatch.setattr(daemon_module, "backends_for", lambda _config: [backend])
    for name in ("recordings", "state"):
        (tmp_path / name).mkdir()
    path = tmp_path / "msrecd.toml"
    path.write_text(config)

    async def both() -> None:
        daemon = daemon_module.Daemon(load(path), path)
        running = asyncio.create_task(daemon.run())
        try:
            async with asyncio.timeout(60):
                await daemon.reloader.ready.wait()
                await asyncio.to_thread(console.wait, "availability", lambda text: text == "online")
                await script(daemon)
        finally:
            daemon._on_signal()
            assert await running == 0

    asyncio.run(both())


def test_devices_that_come_and_go_are_told(
    tmp_path: Path, broker: Broker, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = VirtualCamera("Garden", modes=[(320, 240, 15)])
    microphone = VirtualMicrophone("Nest", sample_rate=8000, channels=1)

    def listed(label: str, state: str, since: int = 0) -> Any:
        return console.wait(
            "state/devices",
            lambda devices: any(d["label"] == label and d["state"] == state for d in devices),
            since=since,
        )

    async def script(_: daemon_module.Daemon) -> None:
        def watch() -> None:
            listed("Garden", "free")
            console.command("recorder/cam0/start")
            listed("Garden", "busy")
            console.command("recorder/cam0/stop")
            since = len(console.messages)
            listed("Garden", "free", since)
            for change, event_type, state in (
                (microphone.unplug, "removed", "missing"),
                (microphone.plug, "added", "free"),
            ):
                since = len(console.messages)
                change()
                event = console.wait("event/device", lambda event: event["label"] == "Nest", since=since)
                assert event["event_type"] == event_type
                assert event["device_id"] == microphone.device_id
                assert event["kind"] == "audioinput"
                listed("Nest", state, since)

        await asyncio.to_thread(watch)

    config = configuration(tmp_path, port=broker.port, recorders=CAM0)
    run_inside(tmp_path, monkeypatch, VirtualBackend([camera, microphone]), console, config, script)
    assert len([1 for topic, _ in console.messages if topic == BASE + "event/device"]) == 2


def test_a_pause_outlives_a_camera_that_goes_and_comes(
    tmp_path: Path, broker: Broker, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = VirtualCamera("Garden", modes=[(320, 240, 15)])

    async def script(_: daemon_module.Daemon) -> None:
        def watch() -> None:
            recording = console.command("recorder/cam0/start")["data"]["recording_id"]
            console.wait("event/recorder/cam0", lambda event: event["event_type"] == "chunk")
            console.command("recorder/cam0/pause")
            since = len(console.messages)
            camera.unplug()
            lost = console.wait("state/recorder/cam0", lambda state: state["state"] == "error", since=since)
            assert lost["error"]["code"] == "device_missing"
            since = len(console.messages)
            camera.plug()
            back = console.wait("state/recorder/cam0", lambda state: state["state"] != "error", since=since)
            assert (back["state"], back["recording_id"]) == ("paused", recording)
            assert console.command("recorder/cam0/pause")["changed"] is False
            chunks = back["chunks"]
            assert console.command("recorder/cam0/resume")["changed"] is True
            console.wait("state/recorder/cam0", lambda state: state["chunks"] > chunks, since=since)
            assert console.command("recorder/cam0/stop")["changed"] is True

        await asyncio.to_thread(watch)

    config = configuration(tmp_path, port=broker.port, recorders=CAM0)
    run_inside(tmp_path, monkeypatch, VirtualBackend([camera]), console, config, script)


def test_the_first_device_of_all_is_told(
    tmp_path: Path, broker: Broker, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    microphone = VirtualMicrophone("Nest", sample_rate=8000, channels=1)
    microphone.unplug()

    async def script(_: daemon_module.Daemon) -> None:
        def watch() -> None:
            assert console.wait("state/devices") == []
            microphone.plug()
            assert console.wait("event/device")["event_type"] == "added"

        await asyncio.to_thread(watch)

    config = configuration(tmp_path, port=broker.port, recorders=CAM0)
    run_inside(tmp_path, monkeypatch, VirtualBackend([microphone]), console, config, script)


def test_health_comes_again_and_again(
    tmp_path: Path, broker: Broker, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert daemon_module.HEALTH_INTERVAL_S == 60
    monkeypatch.setattr(daemon_module, "HEALTH_INTERVAL_S", 0.1)

    async def script(_: daemon_module.Daemon) -> None:
        def watch() -> None:
            seen = set()
            while len(seen) < 3:
                health = console.wait("state/health", lambda health: health["ts"] not in seen)
                seen.add(health["ts"])
            assert health["mqtt"]["connected"] is True
            assert health["disk"]["free_bytes"] > 0
            assert health["recorders"]["cam0"]["state"] == "inactive"

        await asyncio.to_thread(watch)

    backend = VirtualBackend([VirtualCamera("Garden", modes=[(320, 240, 15)])])
    config = configuration(tmp_path, port=broker.port, recorders=CAM0)
    run_inside(tmp_path, monkeypatch, backend, console, config, script)


# --- codes -----------------------------------------------------------------------------------------------------------


def test_every_code_that_a_device_can_give(
    tmp_path: Path, broker: Broker, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the list but `expired`, `retained_rejected` and `rate_limited`, which are in test_commands and tests/mqtt;
    and no refused command leaves the recorder in another state or wanted."""
    busy, gone = VirtualCamera("Busy", modes=[(320, 240, 15)]), VirtualCamera("Gone", modes=[(320, 240, 15)])
    fine = VirtualCamera("Fine", modes=[(320, 240, 15)])
    recorders = "".join(
        CAM0.replace("cam0", name).replace("video = {", f'video = {{ device_id = {{ exact = "{device.device_id}" }},')
        for name, device in (("fine", fine), ("busy", busy), ("gone", gone), ("broken", fine))
    )
    expected = [
        ("recorder/fine/start", b"{", "bad_payload"),
        ("recorder/fine/start", b'{"args": {"duration_s": 0}}', "bad_args"),
        ("recorder/fine/fly", b"", "unknown_verb"),
        ("daemon/reboot", b"", "unknown_verb"),
        ("recorder/nobody/start", b"", "unknown_recorder"),
        ("recorder/fine/pause", b"", "wrong_state"),
        ("recorder/fine/resume", b"", "wrong_state"),
        ("recorder/fine/split", b"", "wrong_state"),
        ("recorder/busy/start", b"", "device_busy"),
        ("recorder/gone/start", b"", "device_missing"),
        ("recorder/gone/snapshot", b"", "device_missing"),
        ("recorder/broken/start", b"", "internal"),
    ]

    async def script(daemon: daemon_module.Daemon) -> None:
        busy.fail()
        gone.unplug()

        async def fails(*_: object, **__: object) -> bool:
            raise ZeroDivisionError("nobody thought of this")

        monkeypatch.setattr(daemon.units["broken"], "start", fails)

        def ask() -> None:
            for path, payload, code in expected:
                since = len(console.messages)
                console.raw(path, payload)
                reply = console.wait(f"reply/{path}", since=since)
                assert (reply["status"], reply["error"]["code"]) == ("error", code), path
            # Full is what the configuration calls full.
            daemon.archive.store.limits = type(daemon.archive.store.limits)(min_free_bytes=1 << 60)
            reply = console.command("recorder/fine/start")
            assert reply["error"]["code"] == "no_space"
            assert reply["error"]["retryable"] is True
            for name in ("fine", "busy", "gone", "broken"):
                state = console.command(f"recorder/{name}/get")["data"]
                assert (state["state"], state["cause"]) == ("inactive", None), name

        await asyncio.to_thread(ask)
        assert not [unit for unit in daemon.units.values() if unit.is_wanted]

    config = configuration(tmp_path, port=broker.port, recorders=recorders)
    run_inside(tmp_path, monkeypatch, VirtualBackend([fine, busy, gone]), console, config, script)
    with Observer(broker) as late:
        late.subscribe(BASE + "availability")
        assert late.wait_for(lambda message: message.payload == b"offline").retain
