"""A private mosquitto on a free loopback port, and a client that collects messages.

with Broker(tmp_path) as broker, Observer(broker) as observer:
    observer.subscribe("msrecd/v1/#")
    observer.publish("msrecd/v1/pi-test/cmd/recorder/cam0/start", b"")
    reply = observer.wait_for(lambda m: m.topic.endswith("/reply/recorder/cam0/start"))
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from ports import free_port

WAIT_S = 40.0  # how long a busy machine may take
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin") or ""


@dataclass(frozen=True)
class Certificates:
    """A small authority made by openssl: paths of PEM files."""

    ca: Path
    broker: Path
    broker_key: Path
    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Self:
        """An authority and a certificate for `localhost` and 127.0.0.1."""
        folder.mkdir(parents=True, exist_ok=True)
        ca, ca_key = folder / "ca.crt", folder / "ca.key"
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                 "-subj", "/CN=test authority", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
                 "-keyout", str(ca_key), "-out", str(ca))  # fmt: skip
        made = cls(ca=ca, broker=folder / "broker.crt", broker_key=folder / "broker.key", folder=folder)
        made.issue("broker", "localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        return made

    def issue(self, name: str, common_name: str, extension: str = "basicConstraints=CA:FALSE") -> tuple[Path, Path]:
        """A certificate of this authority; certificate and key file."""
        key, request, certificate = (self.folder / f"{name}.{suffix}" for suffix in ("key", "csr", "crt"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(extension + "\n")
        _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                 "-subj", f"/CN={common_name}", "-keyout", str(key), "-out", str(request))  # fmt: skip
        _openssl("x509", "-req", "-in", str(request), "-CA", str(self.ca), "-CAkey", str(self.folder / "ca.key"),
                 "-CAcreateserial", "-days", "30", "-extfile", str(extensions), "-out", str(certificate))  # fmt: skip
        key.chmod(0o600)
        return certificate, key


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


class Broker:
    """mosquitto as a child process. `config` adds lines; with `certificates` its listener speaks TLS."""

    def __init__(
        self,
        folder: Path,
        *,
        config: str = "",
        certificates: Certificates | None = None,
        anonymous: bool = True,
        log_type: str = "all",
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.host = "127.0.0.1"
        self.certificates = certificates
        self.log_file = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None
        lines = [f"listener {self.port} 127.0.0.1", f"allow_anonymous {'true' if anonymous else 'false'}"]
        if certificates is not None:
            lines += [f"cafile {certificates.ca}", f"certfile {certificates.broker}",
                      f"keyfile {certificates.broker_key}"]  # fmt: skip
        # Before its listener: options above the first listener are the general ones.
        self._text = f"log_type {log_type}\nuser root\n{config}\n" + "\n".join(lines) + "\n"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, timeout_s: float = 15.0) -> None:
        """Start it and wait until it listens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "mosquitto.conf"
        config.write_text(self._text)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-c", str(config)], stdout=log, stderr=log)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1.0):
                return
            time.sleep(0.02)
        raise RuntimeError(f"mosquitto does not listen: {self.log()[-2000:]}")

    @property
    def pid(self) -> int:
        """Of the running broker; 0 while it is down."""
        return 0 if self._process is None else self._process.pid

    def stop(self) -> None:
        """Let it end in order; it disconnects its clients."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: connections just break."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP: connections stay and nothing answers."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def restart(self, *, kill: bool = False) -> None:
        """Down and up again on the same port."""
        self._end(signal.SIGKILL if kill else signal.SIGTERM)
        self.start()

    def log(self) -> str:
        """What it logged so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


@dataclass(frozen=True)
class Received:
    """One message, and when it came (monotonic seconds)."""

    topic: str
    payload: bytes
    retain: bool
    qos: int
    correlation_data: bytes | None
    at: float

    @property
    def json(self) -> Any:
        return json.loads(self.payload)


class Observer:
    """A client that keeps what it receives; reconnects by itself and subscribes again."""

    def __init__(
        self,
        broker: Broker,
        *,
        client_id: str = "",
        username: str | None = None,
        password: str | None = None,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self._condition = threading.Condition()
        self._messages: list[Received] = []
        self._filters: list[str] = []
        self._acks: dict[int, Any] = {}
        self._subscribed: set[int] = set()
        self._connected = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5)
        self._client.suppress_exceptions = True
        self._client.reconnect_delay_set(1, 1)
        self._client.max_inflight_messages_set(20)
        if username is not None:
            self._client.username_pw_set(username, password)
        if broker.certificates is not None:
            context = ssl.create_default_context(cafile=str(broker.certificates.ca))
            if certificate is not None:
                context.load_cert_chain(*certificate)
            self._client.tls_set_context(context)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = lambda *_: self._connected.clear()
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._client.on_subscribe = self._on_subscribe
        self._broker = broker

    def __enter__(self) -> Self:
        self._client.connect_async(self._broker.host, self._broker.port, keepalive=20)
        self._client.loop_start()
        assert self._connected.wait(WAIT_S), f"no connection: {self._broker.log()[-1000:]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._client._reset_sockets()

    @property
    def messages(self) -> list[Received]:
        """What came so far, oldest first."""
        with self._condition:
            return list(self._messages)

    def clear(self) -> None:
        """Forget what came so far."""
        with self._condition:
            self._messages.clear()

    def subscribe(self, *filters: str, timeout: float = WAIT_S) -> None:
        """Subscribe (QoS 1) and wait for the broker's word."""
        self._filters += filters
        _, mid = self._client.subscribe([(topic, 1) for topic in filters])
        with self._condition:
            assert self._condition.wait_for(lambda: mid in self._subscribed, timeout), "no SUBACK"

    def publish(
        self,
        topic: str,
        payload: bytes | str | dict[str, Any] = b"",
        *,
        qos: int = 1,
        retain: bool = False,
        response_topic: str | None = None,
        correlation_data: bytes | None = None,
        expiry_s: int | None = None,
        timeout: float = WAIT_S,
    ) -> str:
        """Publish and wait for the acknowledgement; its reason."""
        properties = Properties(PacketTypes.PUBLISH)
        if response_topic is not None:
            properties.ResponseTopic = response_topic
        if correlation_data is not None:
            properties.CorrelationData = correlation_data
        if expiry_s is not None:
            properties.MessageExpiryInterval = expiry_s
        if isinstance(payload, dict):
            payload = json.dumps(payload)
        info = self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties)
        with self._condition:
            assert self._condition.wait_for(lambda: info.mid in self._acks, timeout), f"no PUBACK for {topic}"
            return str(self._acks.pop(info.mid))

    def listening(self, topic: str, timeout: float = WAIT_S) -> None:
        """Until this client hears itself on `topic`: after a broker's restart it needs a moment."""
        deadline = time.monotonic() + timeout
        while True:
            mark = f"{time.monotonic()}".encode()
            self.publish(topic, mark)
            with contextlib.suppress(AssertionError):
                self.wait_for(lambda message: message.payload == mark, 0.5)  # noqa: B023 - used at once
                return
            assert time.monotonic() < deadline, "the observer hears nothing"

    def send(self, topic: str, payload: bytes = b"") -> None:
        """Publish with QoS 1 and wait for nothing."""
        self._client.publish(topic, payload, qos=1)

    def wait_for(self, predicate: Callable[[Received], bool], timeout: float = WAIT_S) -> Received:
        """The first message that satisfies `predicate`, of those that came and those to come."""
        return self.wait_count(predicate, 1, timeout)[0]

    def wait_count(self, predicate: Callable[[Received], bool], count: int, timeout: float = WAIT_S) -> list[Received]:
        """The first `count` messages that satisfy `predicate`."""
        deadline = time.monotonic() + timeout
        found: list[Received] = []
        seen = 0
        with self._condition:
            while True:
                found += [message for message in self._messages[seen:] if predicate(message)]
                seen = len(self._messages)
                if len(found) >= count:
                    return found[:count]
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not self._condition.wait(remaining):
                    last = [(message.topic, message.payload[:120]) for message in self._messages[-8:]]
                    raise AssertionError(f"{len(found)} of {count} within {timeout} s; last of {seen}: {last}")

    def _on_connect(self, client: Any, _userdata: Any, _flags: Any, reason_code: Any, _properties: Any) -> None:
        if not reason_code.is_failure:
            if self._filters:
                client.subscribe([(topic, 1) for topic in self._filters])
            self._connected.set()

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        received = Received(
            topic=message.topic,
            payload=bytes(message.payload),
            retain=bool(message.retain),
            qos=message.qos,
            correlation_data=getattr(message.properties, "CorrelationData", None),
            at=time.monotonic(),
        )
        with self._condition:
            self._messages.append(received)
            self._condition.notify_all()

    def _on_publish(self, _client: Any, _userdata: Any, mid: int, reason_code: Any, _properties: Any) -> None:
        with self._condition:
            self._acks[mid] = reason_code
            self._condition.notify_all()

    def _on_subscribe(self, _client: Any, _userdata: Any, mid: int, _codes: Any, _properties: Any) -> None:
        with self._condition:
            self._subscribed.add(mid)
            self._condition.notify_all()
