"""What goes wrong between a device and its broker, and what a person reads then; mostly a real mosquitto."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from broker import Broker, Certificates, Observer

from msrecd.clock import SYSTEM_CLOCK
from msrecd.mqtt import connection
from msrecd.mqtt.connection import SLOWED_AT, Rival
from msrecd.mqtt.outbox import REPLY_TRIES, Refusals, Replies
from msrecd.mqtt.wire import PublishError

BASE = "msrecd/v1/pi-test"
DYNAMIC_SECURITY = sorted(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"))


def at(path):
    return lambda message: message.topic == f"{BASE}/{path}"


# --- reaching it -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_with_and_without_brackets(tmp_path, service_for, host):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
            port = probe.getsockname()[1]
    except OSError:
        pytest.skip("no IPv6 on loopback")
    with (
        Broker(tmp_path / "six", config=f"listener {port} ::1") as broker,
        service_for(broker, host=host, port=port) as it,
    ):
        it.connected()


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("speaks", ["broker", "device"])
@pytest.mark.promise("says-tls")
def test_one_side_speaks_tls_and_the_other_does_not(tmp_path, service_for, caplog, speaks):
    certificates = Certificates.make(tmp_path / "certificates")
    with (
        Broker(tmp_path / "b", certificates=certificates if speaks == "broker" else None) as broker,
        service_for(broker, ca_file=None if speaks == "broker" else certificates.ca) as thread,
    ):
        thread.wait(lambda _: "trying again" in caplog.text)
        assert not thread.health()["connected"]
    assert "TLS" in caplog.text
    assert ("allow_plaintext" in caplog.text) == (speaks == "device")
    assert str(broker.port) in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.promise("says-ca-file")
def test_an_unknown_authority_names_ca_file(tmp_path, service_for, caplog):
    ours, theirs = (Certificates.make(tmp_path / name) for name in ("ours", "theirs"))
    with Broker(tmp_path / "b", certificates=theirs) as broker, service_for(broker, ca_file=ours.ca) as thread:
        thread.wait(lambda _: "mqtt.ca_file" in caplog.text)


# --- two clients with one id -----------------------------------------------------------------------------------------


def test_a_rival_is_suspected_slowed_down_for_and_forgotten():
    rival = Rival(30.0)
    middle = lambda low, high: (low + high) / 2  # noqa: E731

    assert not rival.lost(2.0, taken_over=False)
    assert rival.lost(3.0, taken_over=False)
    assert not rival.lost(3.0, taken_over=False), "suspected already"
    assert rival.delay_s(1.0, middle) == 1.0
    while rival.losses < SLOWED_AT:
        rival.lost(3.0, taken_over=False)
    assert rival.delay_s(1.0, middle) == 45.0
    assert not rival.lost(59.0, taken_over=False), "the rival waits as long as this one"
    assert rival.is_suspected
    assert not rival.is_gone(119.0)
    assert rival.is_gone(120.0)
    assert rival.forget() == SLOWED_AT + 1
    assert not rival.is_suspected


def test_a_broker_that_is_away_is_no_rival():
    rival = Rival(30.0)
    for _ in range(5):
        assert not rival.lost(2.0, taken_over=False)
        assert not rival.lost(None, taken_over=False)
    assert not rival.is_suspected


def test_a_broker_that_says_taken_over_makes_it_certain():
    rival = Rival(30.0)
    assert rival.lost(300.0, taken_over=True)
    assert rival.delay_s(1.0, lambda low, _: low) == 30.0


@pytest.mark.promise("shared-client-id")
def test_two_devices_with_one_id_recognise_it_and_say_when_it_is_over(broker, service_for, caplog, monkeypatch):
    monkeypatch.setattr(connection, "STABLE_S", 1.0)
    caplog.set_level(logging.INFO)
    with service_for(broker) as first, Observer(broker) as observer:
        observer.subscribe(f"{BASE}/event/#")
        with service_for(broker, state="clone"):
            first.wait(lambda _: "client id msrecd-pi-test" in caplog.text)
            assert "device.id" in caplog.text
            first.wait(lambda _: caplog.text.count("the connection was lost") >= 1)
        event = observer.wait_for(at("event/error"), timeout=120).json
    assert event["code"] == "client_id_shared"
    assert event["count"] >= 2


# --- packets that are too large --------------------------------------------------------------------------------------


@pytest.mark.promise("replies-fit-the-broker")
@pytest.mark.effect("state-health: replies_dropped")
def test_a_reply_that_the_broker_does_not_take_is_shortened_or_dropped(tmp_path, service_for, caplog):
    with (
        Broker(tmp_path / "small", config="max_packet_size 8000") as broker,
        service_for(broker) as thread,
        Observer(broker) as observer,
    ):
        observer.subscribe(f"{BASE}/reply/#")
        thread.connected()
        observer.publish(f"{BASE}/cmd/daemon/ping", b'{"id": "dropped"}', correlation_data=b"c" * 7850)
        thread.wait(lambda service: service.health()["replies_dropped"] == 1)
        thread.handler.data = {"text": "x" * 9000}
        observer.publish(f"{BASE}/cmd/daemon/ping", b'{"id": "long"}', correlation_data=b"c" * 100)
        reply = observer.wait_for(lambda m: b'"long"' in m.payload)
        assert reply.correlation_data == b"c" * 100
        assert reply.json["error"]["code"] == "internal"
        assert "more than the broker takes" in reply.json["error"]["message"]
        thread.handler.data = {}
        observer.publish(f"{BASE}/cmd/daemon/ping", b'{"id": "later"}')
        assert observer.wait_for(lambda m: b'"later"' in m.payload).json["status"] == "ok"
        assert thread.health()["reconnects"] == 0
        assert not [m for m in observer.messages if b'"dropped"' in m.payload]


@pytest.mark.promise("malformed-messages")
def test_a_reply_with_which_the_connection_ends_is_not_sent_for_ever():
    class Breaking:
        """A broker that ends the connection at every publication, and announces no limit."""

        connected = True
        tries = 0

        def publish(self, *_: object, **__: object) -> asyncio.Future[str]:
            self.tries += 1
            future = asyncio.get_running_loop().create_future()
            future.set_exception(PublishError("connection lost"))
            self.connected = False
            return future

    async def run() -> None:
        publisher = Breaking()
        replies = Replies(publisher, Refusals(), SYSTEM_CLOCK)
        replies.send("t", b"{}", None)
        for _ in range(5):
            await asyncio.sleep(0)
            publisher.connected = True
            replies.flush()
            await asyncio.sleep(0)
        assert publisher.tries == REPLY_TRIES
        assert replies.dropped == 1

    asyncio.run(run())


class Greedy:
    """A broker of a few lines (MQTT 5, sections 3.1, 3.2, 3.8, 3.9): grants everything, then sends one huge packet."""

    def __init__(self, *, length: int) -> None:
        self._length = length
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listening.getsockname()
        self.sent = 0
        self.ended = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Greedy:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                with client, contextlib.suppress(OSError):
                    self._talk(client)

    def _talk(self, client: socket.socket) -> None:
        client.settimeout(20)
        self._packet(client)  # CONNECT
        client.sendall(b"\x20\x03\x00\x00\x00")
        kind, body = self._packet(client)
        while kind != 0x82:  # SUBSCRIBE
            kind, body = self._packet(client)
        filters, position = 0, 3 + body[2]
        while position < len(body):
            position += 2 + int.from_bytes(body[position : position + 2]) + 1
            filters += 1
        client.sendall(bytes([0x90, 3 + filters]) + body[:2] + b"\x00" + b"\x01" * filters)
        self._then(client)

    def _then(self, client: socket.socket) -> None:
        """What it does after the subscription."""
        client.sendall(b"\x30" + _length(self._length) + b"\x00\x01t\x00")
        try:
            while self.sent < self._length - 4:
                self.sent += client.send(b"x" * 65536)
        finally:
            self.ended.set()

    def _packet(self, client: socket.socket) -> tuple[int, bytes]:
        kind = client.recv(1)[0]
        length, shift = 0, 0
        while True:
            byte = client.recv(1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        body = b""
        while len(body) < length:
            body += client.recv(length - len(body))
        return kind, body


def _length(value: int) -> bytes:
    """A variable byte integer."""
    out = b""
    while True:
        value, digit = value // 128, value % 128
        out += bytes([digit | (128 if value else 0)])
        if not value:
            return out


@pytest.mark.promise("malformed-messages")
def test_a_packet_above_the_announced_size_is_cut_before_it_is_buffered(service_for):
    with Greedy(length=200 << 20) as greedy, service_for(greedy) as thread:
        assert greedy.ended.wait(30)
        # What the sockets of both sides hold; nothing of it is read.
        assert greedy.sent < 16 << 20
        thread.wait(lambda service: service.health()["reconnects"] >= 1, timeout=60)


class Malformed(Greedy):
    """A broker whose messages break a rule of MQTT 5, section 3.3.2.3.2: the payload format is neither 0 nor 1."""

    def _then(self, client: socket.socket) -> None:
        client.sendall(b"\x30\x06\x00\x01t\x02\x01\x07")
        with contextlib.suppress(OSError):
            client.recv(1)  # until the connection ends
        self.ended.set()


@pytest.mark.promise("malformed-messages")
def test_a_malformed_packet_ends_the_connection_with_its_reason(service_for, caplog):
    with Malformed(length=0) as broker, service_for(broker) as thread:
        thread.wait(lambda service: service.health()["reconnects"] >= 1)
    assert "trying again" in caplog.text
    assert "network thread died" not in caplog.text


# --- subscriptions that are refused ----------------------------------------------------------------------------------


def dynamic_security(folder: Path, *, subscribe: bool) -> str:
    """mosquitto's plugin (mosquitto_dynamic_security(8)): only it refuses a SUBACK; its ACL file grants them all."""
    folder.mkdir(parents=True, exist_ok=True)
    access = {"publishClientSend": True, "publishClientReceive": True, "subscribe": subscribe, "unsubscribe": True}
    own = {"acltype": "subscribePattern", "topic": "homeassistant/#", "priority": 0, "allow": True}
    content: dict[str, Any] = {
        "defaultACLAccess": access,
        "roles": [{"rolename": "all", "acls": [own]}],
        "groups": [{"groupname": "all", "roles": [{"rolename": "all"}], "clients": []}],
        "anonymousGroup": "all",
        "clients": [],
    }
    file = folder / "dynamic-security.json"
    file.write_text(json.dumps(content))
    return f"plugin {DYNAMIC_SECURITY[0]}\nplugin_opt_config_file {file}"


@pytest.mark.skipif(not DYNAMIC_SECURITY, reason="mosquitto comes without its dynamic security plugin")
@pytest.mark.promise("online-when-heard", "refused-subscription")
def test_online_only_with_granted_subscriptions(tmp_path, service_for, caplog, monkeypatch):
    monkeypatch.setattr(connection, "SUBSCRIBE_AGAIN_S", 0.5)
    folder = tmp_path / "strict"
    with Broker(folder, config=dynamic_security(folder, subscribe=False)) as broker, service_for(broker) as thread:
        thread.connected()
        thread.wait(lambda service: service._states.settled())
        assert thread.service._states._states[f"{BASE}/availability"].payload == b"offline"
        assert f"subscription to {BASE}/cmd/#" in caplog.text
        assert "ACL" in caplog.text
        assert caplog.text.count(f"subscription to {BASE}/cmd/#") == 1, "once, not with every try"
        broker.stop()
        dynamic_security(folder, subscribe=True)
        broker.start()
        with Observer(broker) as observer:
            observer.subscribe(f"{BASE}/#")
            observer.wait_for(lambda m: at("availability")(m) and m.payload == b"online")
