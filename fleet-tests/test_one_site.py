"""Without RabbitMQ: mosquitto, the consumer as an MQTT client, and PostgreSQL, each killed while events come."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from network import ROOT, Database, Host, Network, eventually, tail

COUNT = 5000
CONSUMER = str(ROOT / "examples" / "fleet" / "events_to_postgres.py")


def publish(host: Host, first: int, last: int) -> None:
    """Events of one device, acknowledged."""
    lines = "".join(
        json.dumps({"event_type": "resumed", "event_id": f"pi-1/1/{n:06d}", "ts": "2026-11-30T12:00:00Z"}) + "\n"
        for n in range(first, last)
    )
    topic = "msrecd/v1/pi-1/event/recorder/cam0"
    command = ["mosquitto_pub", "-V", "mqttv5", "-q", "1", "-h", "127.0.0.1", "-t", topic, "-l"]
    subprocess.run(host.command(*command), input=lines, text=True, check=True, timeout=300)


@pytest.mark.promise("one-site-without-rabbitmq")
def test_a_consumer_at_the_broker_stores_each_event_once_and_in_order() -> None:
    folder = Path("/srv/run/one-site")
    folder.mkdir()
    with Network(folder) as network:
        database, site = Database(network), network.host("site")
        database.make()
        database.start()
        database.load_schema()
        config = site.folder / "mosquitto.conf"
        config.write_text("user root\nlistener 1883 0.0.0.0\nallow_anonymous true\nmax_queued_messages 20000\n")
        site.start("mosquitto", "-c", str(config), log="mosquitto.log")

        def start() -> subprocess.Popen[bytes]:
            return site.start(
                sys.executable, CONSUMER, "--mqtt", "127.0.0.1:1883", "--dsn", database.dsn, log="consumer.log"
            )

        def stored() -> list[int]:
            with psycopg.connect(database.dsn) as connection:
                return [n for (n,) in connection.execute("SELECT number FROM msrecd.event ORDER BY arrival")]

        consumer = start()
        ready = site.folder / "consumer.log"
        eventually("the consumer is ready", lambda: "ready" in tail(ready))
        publish(site, 0, 1)
        eventually("the first is there", lambda: stored() == [0])
        site.end(consumer, signal.SIGKILL)
        publish(site, 1, COUNT // 2)
        consumer = start()
        time.sleep(0.5)
        database.kill()
        publish(site, COUNT // 2, COUNT)
        database.start()
        eventually("all are there", lambda: len(stored()) >= COUNT)
        assert stored() == list(range(COUNT))
        site.end(consumer)
        assert "ended" in tail(ready)
    shutil.rmtree(folder)
