"""Takes what devices tell out of a queue of RabbitMQ, or from an MQTT broker, and puts it into PostgreSQL.

    python events_to_postgres.py --amqp amqps://consumer@rabbit1,rabbit2,rabbit3 --ca-file ca.crt --queue msrecd.events
    python events_to_postgres.py --mqtt broker.example.org:1883 --username console

The database is libpq's affair (PGHOST, PGUSER, PGPASSFILE ...), and its schema is config/fleet/schema.sql. The password
of the broker stands in the file that --password-file names. Needs psycopg 3, and pika or paho-mqtt.

A message is acknowledged after the database has committed it, so none is lost; one that comes again changes nothing,
since `msrecd.take()` knows events by their ids. Run two for a queue: the second takes over (single active consumer).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import queue
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg

log = logging.getLogger("events_to_postgres")

BATCH = 500  # messages of one transaction
FILL_S = 0.2  # how long a batch waits for more
RETRY_S = (1.0, 30.0)
REPORT_S = 60.0
DEADLINES: dict[str, Any] = {  # a database that is cut off is noticed, not waited for
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "options": "-c statement_timeout=60s -c application_name=msrecd-events",
}
PREFETCH = 2 * BATCH  # unacknowledged at the broker: one batch is written while the next one comes


class SourceError(Exception):
    """The broker is away, or ends the connection."""


@dataclass(frozen=True, slots=True)
class Message:
    """`token` is what acknowledges it at its source."""

    topic: str
    payload: bytes
    token: Any


class Amqp:
    """A queue of RabbitMQ. Of several hosts the first one that answers is taken."""

    def __init__(self, url: str, queue_name: str, password: str | None, ca_file: str | None) -> None:
        import ssl

        import pika

        parts = urlsplit(url)
        user = unquote(parts.username or "guest")
        secret = password if password is not None else unquote(parts.password or "guest")
        hosts = parts.netloc.rpartition("@")[2].split(",")
        random.shuffle(hosts)
        tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "amqps" else None
        nodes = [
            pika.ConnectionParameters(
                host=host.partition(":")[0],
                port=int(host.partition(":")[2] or (5672 if tls is None else 5671)),
                virtual_host=unquote(parts.path[1:]) or "/",
                credentials=pika.PlainCredentials(user, secret),
                ssl_options=None if tls is None else pika.SSLOptions(tls, host.partition(":")[0]),
                heartbeat=20,
                blocked_connection_timeout=60,
                socket_timeout=5,
                stack_timeout=15,
            )
            for host in hosts
        ]
        self._errors = (pika.exceptions.AMQPError, OSError)
        try:
            self._connection = pika.BlockingConnection(nodes)
            self._channel = self._connection.channel()
            self._channel.basic_qos(prefetch_count=PREFETCH)
            self._incoming = self._channel.consume(queue_name, inactivity_timeout=FILL_S)
        except self._errors as exc:
            raise SourceError(f"RabbitMQ at {', '.join(hosts)}: {str(exc) or type(exc).__name__}") from exc

    def batch(self) -> list[Message]:
        """What is there now, at most BATCH; nothing if nothing comes in FILL_S."""
        taken: list[Message] = []
        try:
            for method, _, payload in self._incoming:
                if method is None:
                    break
                # The MQTT plugin turns the levels of a topic into words: no name of msrecd has a dot.
                taken.append(Message(method.routing_key.replace(".", "/"), payload, method.delivery_tag))
                if len(taken) >= BATCH:
                    break
        except self._errors as exc:
            raise SourceError(str(exc) or type(exc).__name__) from exc
        return taken

    def acknowledge(self, messages: Sequence[Message]) -> None:
        try:
            self._channel.basic_ack(messages[-1].token, multiple=True)
        except self._errors as exc:
            raise SourceError(str(exc) or type(exc).__name__) from exc

    def wait(self, seconds: float) -> None:
        """And stay connected."""
        try:
            self._connection.sleep(seconds)
        except self._errors as exc:
            raise SourceError(str(exc) or type(exc).__name__) from exc

    def close(self) -> None:
        # Without a word. pika's close() first cancels the consumer, and RabbitMQ gives its place to the next one before
        # it has what this one held: later messages would overtake those.
        with contextlib.suppress(AttributeError):
            self._connection._impl._transport.abort()


class Mqtt:
    """A broker that the devices speak to, without RabbitMQ in between. Its session keeps what comes meanwhile."""

    TOPICS = ("availability", "event/#", "state/#")

    def __init__(self, address: str, username: str | None, password: str | None, ca_file: str | None) -> None:
        import paho.mqtt.client as paho
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        host, _, port = address.rpartition(":") if ":" in address else (address, "", "")
        self._messages: queue.Queue[Message] = queue.Queue()  # the broker's receive maximum bounds it
        self._over = threading.Event()
        self._ready = threading.Event()
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 7 * 86_400
        properties.ReceiveMaximum = PREFETCH
        # One name, so that the session is found again. A second consumer with this name would push out the first.
        self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, "msrecd-events-to-postgres", protocol=paho.MQTTv5, manual_ack=True
        )
        if username is not None:
            self._client.username_pw_set(username, password)
        if ca_file is not None:
            self._client.tls_set(ca_file)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = lambda *_: self._over.set()
        self._client.on_message = lambda _c, _u, m: self._messages.put(Message(m.topic, m.payload, (m.mid, m.qos)))
        try:
            self._client.connect(
                host, int(port or (1883 if ca_file is None else 8883)), clean_start=False, properties=properties
            )
        except (OSError, ValueError) as exc:
            raise SourceError(f"MQTT broker at {address}: {exc}") from exc
        self._client.loop_start()
        if not self._ready.wait(10):
            self.close()
            raise SourceError(f"MQTT broker at {address}: refused, or no answer")

    def _on_connect(self, client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if code.is_failure:
            log.error("the MQTT broker refuses the connection: %s", code)
            self._over.set()
            return
        client.subscribe([(f"msrecd/v1/+/{topic}", 1) for topic in self.TOPICS] + [("msrecd/bridge/+", 1)])
        self._ready.set()

    def batch(self) -> list[Message]:
        """As `Amqp.batch`."""
        taken: list[Message] = []
        deadline = time.monotonic() + FILL_S
        while len(taken) < BATCH:
            try:
                taken.append(self._messages.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                break
        if not taken and self._over.is_set():
            raise SourceError("the MQTT connection is over")
        return taken

    def acknowledge(self, messages: Sequence[Message]) -> None:
        for message in messages:
            mid, qos = message.token
            if qos:
                self._client.ack(mid, qos)

    def wait(self, seconds: float) -> None:
        """And stay connected: paho has a thread of its own."""
        self._over.wait(seconds)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def store(database: psycopg.Connection[Any], messages: Sequence[Message]) -> Counter[str]:
    """One transaction; what became of the messages. Raises: psycopg.Error: nothing was stored."""
    topics, payloads = [message.topic for message in messages], [message.payload for message in messages]
    with database.transaction(), database.cursor() as cursor:
        # In the order in which they came, one statement for all: a turn to the server costs more than most messages.
        cursor.execute(
            "SELECT msrecd.take(topic, payload) FROM unnest(%s::text[], %s::bytea[]) WITH ORDINALITY"
            " AS sent (topic, payload, place) ORDER BY place",
            (topics, payloads),
        )
        return Counter(became for (became,) in cursor.fetchall())


def run(connect: Callable[[], Amqp | Mqtt], dsn: str, ended: threading.Event) -> Counter[str]:
    """Until `ended`. A connection that breaks is made anew, with pauses that grow; its messages come again."""
    counts: Counter[str] = Counter()
    pauses = growing_pauses()
    while not ended.is_set():
        try:
            source = connect()
        except SourceError as exc:
            wait(exc, pauses, ended.wait)
            continue
        pauses = growing_pauses()
        try:
            feed(source, dsn, ended, counts)
        except SourceError as exc:
            wait(exc, pauses, ended.wait)
        finally:
            source.close()
    return counts


def feed(source: Amqp | Mqtt, dsn: str, ended: threading.Event, counts: Counter[str]) -> None:
    """From one connection. While the database is away what was taken is held, so that it stays in its order.

    Raises: SourceError.
    """
    database: psycopg.Connection[Any] | None = None
    messages: list[Message] = []
    pauses = growing_pauses()
    reported = time.monotonic()
    while not ended.is_set():
        try:
            if database is None or database.closed:
                database = psycopg.connect(dsn, autocommit=True, **DEADLINES)
                log.info("ready")
            if messages := messages or source.batch():
                counts.update(store(database, messages))
                pauses = growing_pauses()
                source.acknowledge(messages)
                messages = []
        except psycopg.Error as exc:
            if database is not None:
                database.close()
            wait(exc, pauses, source.wait)
        if time.monotonic() - reported > REPORT_S:
            reported = time.monotonic()
            log.info("so far: %s", json.dumps(dict(sorted(counts.items()))))


def wait(exc: Exception, pauses: Iterator[float], sleep: Callable[[float], object]) -> None:
    pause = next(pauses)
    log.warning("%s; again in %.0f s", (str(exc).splitlines() or [type(exc).__name__])[0], pause)
    sleep(pause)


def growing_pauses() -> Iterator[float]:
    for doubled in itertools.count():
        yield min(RETRY_S[1], RETRY_S[0] * 2 ** min(doubled, 10)) * random.uniform(0.5, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--amqp", metavar="URL", help="amqp(s)://user@host,host,.../vhost")
    source.add_argument("--mqtt", metavar="HOST[:PORT]")
    parser.add_argument("--queue", default="msrecd.events", help="of RabbitMQ (default: %(default)s)")
    parser.add_argument("--username", help="at the MQTT broker")
    parser.add_argument("--password-file", type=Path, metavar="FILE", help="the broker's password, one line")
    parser.add_argument("--ca-file", metavar="FILE", help="of the authority that signs the broker's certificate")
    parser.add_argument("--dsn", default="", help="as libpq takes it (default: its environment variables)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # its errors come here, as one line
    password = options.password_file.read_text().strip() if options.password_file else None

    def connect() -> Amqp | Mqtt:
        if options.amqp:
            return Amqp(options.amqp, options.queue, password, options.ca_file)
        return Mqtt(options.mqtt, options.username, password, options.ca_file)

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    counts = run(connect, options.dsn, ended)
    log.info("ended: %s", json.dumps(dict(sorted(counts.items()))))


if __name__ == "__main__":
    try:
        main()
    except OSError as exc:
        sys.exit(f"events_to_postgres: {exc}")
