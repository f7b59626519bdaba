"""A whole daemon whose broker is away: every event arrives, in order, also when the daemon is killed meanwhile.

Short in the ordinary run; `MSRECD_OUTAGE_EVENTS=10000` for the acceptance figures.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from broker import Broker, Observer
from config_text import configuration, microphone
from console import BASE
from daemon import DaemonProcess
from waiting import until

pytest.importorskip("jsonschema")
from payloads import judge

EVENTS = int(os.environ.get("MSRECD_OUTAGE_EVENTS", "90"))
RECORDERS = min(40, max(6, EVENTS // 250))
# mosquitto drops what waits for a slow subscriber beyond 1000 messages, and acknowledges it to the sender all the same.
KEEPS_ALL = "max_queued_messages 0"
MICROPHONE = """
[devices]
virtual = [ { kind = "microphone", label = "Test Microphone", sample_rate = 8000, channels = 1, signal = "tone" } ]
"""


@pytest.fixture
def at_last() -> Iterator[contextlib.ExitStack]:
    """Ends what a test that failed left running."""
    with contextlib.ExitStack() as stack:
        yield stack


def config(folder: Path, broker: Broker, *, autostart: bool) -> str:
    recorders = "".join(
        microphone(f"mic{number:02d}", mime_type="audio/wav", chunk_duration="1s", autostart=autostart)
        for number in range(RECORDERS)
    )
    return configuration(folder, port=broker.port, recorders=recorders, more=MICROPHONE)


def spooled(daemon: DaemonProcess) -> int:
    """How many events the daemon has ever put on the disk."""
    path = daemon.state / "mqtt-events.sqlite3"
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            rows = db.execute("SELECT value FROM meta WHERE name = 'next_seq'").fetchall()
        return int(rows[0][0]) - 1 if rows else 0
    except sqlite3.OperationalError:  # not made yet
        return 0


def waiting(daemon: DaemonProcess) -> int:
    """How many events are on the disk now."""
    path = daemon.state / "mqtt-events.sqlite3"
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as db:
        return int(db.execute("SELECT count(*) FROM event").fetchone()[0])


def wait_spooled(daemon: DaemonProcess, count: int, timeout: float) -> None:
    def is_enough() -> bool:
        assert daemon.is_running, daemon.log.read_text()[-3000:]
        return spooled(daemon) >= count

    until(is_enough, lambda: f"{spooled(daemon)} events of {count}: {daemon.log.read_text()[-1000:]}", timeout=timeout)


def recorded(daemon: DaemonProcess) -> dict[str, list[tuple[str, int]]]:
    """(recording_id, seq) of every chunk in the manifests, by recorder."""
    return {
        name: [(Path(line["file"]).name.rpartition("-")[0], line["seq"]) for line in daemon.manifest(name)]
        for name in (f"mic{number:02d}" for number in range(RECORDERS))
    }


@pytest.mark.slow
@pytest.mark.timeout(300 + EVENTS // 10)
@pytest.mark.promise("events-survive-outages")
def test_every_event_of_an_outage_arrives_although_the_daemon_is_killed_twice(
    tmp_path: Path, at_last: contextlib.ExitStack
) -> None:
    chance = random.Random(10)
    broker = Broker(tmp_path / "broker", config=KEEPS_ALL)  # not running yet
    daemon = DaemonProcess(tmp_path, config(tmp_path, broker, autostart=True))
    at_last.push(daemon)
    per_event_s = 2.0
    for part in (0.3, 0.7):
        daemon.start()
        wait_spooled(daemon, round(EVENTS * part), 30 + EVENTS * per_event_s)
        time.sleep(chance.uniform(0, 1.0))  # the moment of the kill is what varies
        daemon.kill()
    daemon.start()
    wait_spooled(daemon, EVENTS, 30 + EVENTS * per_event_s)
    assert daemon.stop() == 0
    kept = spooled(daemon)
    chunks = recorded(daemon)
    assert all(len({recording for recording, _ in found}) == 3 for found in chunks.values())
    assert "were dropped" not in daemon.log.read_text()

    daemon.config.write_text(config(tmp_path, broker, autostart=False))
    with broker, Observer(broker) as observer:
        observer.subscribe(BASE + "event/#")
        begun = time.monotonic()
        daemon.start()
        observer.wait_count(lambda message: message.topic.startswith(BASE + "event/"), kept, 60 + EVENTS / 20)
        took = time.monotonic() - begun
        until(lambda: not waiting(daemon), "the spool is not emptied")
        assert daemon.stop() == 0
        messages = observer.messages
    for message in messages:
        judge(message)
    contents: dict[str, bytes] = {}
    for message in messages:
        id_ = message.json["event_id"]
        assert contents.setdefault(id_, message.payload) == message.payload, f"two events are called {id_}"
    numbers = [int(message.json["event_id"].rpartition("/")[2]) for message in messages]
    first_come = list(dict.fromkeys(numbers))
    assert first_come == sorted(first_come), "not in order"
    assert first_come == list(range(1, len(first_come) + 1)), "not all"
    told: dict[str, list[tuple[str, int]]] = {name: [] for name in chunks}
    for id_ in dict.fromkeys(message.json["event_id"] for message in messages):
        event = json.loads(contents[id_])
        if event.get("event_type") == "chunk":
            told[event["recorder"]].append((event["recording_id"], event["seq"]))
    assert told == chunks, "what was recorded is not what was told"
    kinds = Counter(json.loads(payload)["event_type"] for payload in contents.values())
    recovered = sum(bool(json.loads(payload).get("recovered")) for payload in contents.values())
    print(
        f"{len(contents)} events of {RECORDERS} recorders ({dict(kinds)}, {recovered} chunks recovered), two kills: "
        f"all there, in order, {len(messages) - len(contents)} twice; delivered in {took:.1f} s"
    )


@pytest.mark.promise("chunk-told-after-a-crash")
@pytest.mark.effect("config: storage.path", "config: storage.state_path")
def test_a_chunk_is_told_although_the_kill_came_before_its_event(tmp_path: Path, at_last: contextlib.ExitStack) -> None:
    """The spool as it is when the daemon is killed between a file and its event; the manifest knows better."""
    broker = Broker(tmp_path / "broker", config=KEEPS_ALL)
    daemon = DaemonProcess(tmp_path, config(tmp_path, broker, autostart=True))
    at_last.push(daemon)
    daemon.start()
    wait_spooled(daemon, 3 * RECORDERS, 60)
    daemon.kill()
    with contextlib.closing(sqlite3.connect(daemon.state / "mqtt-events.sqlite3")) as db, db:
        (last,) = db.execute(
            'SELECT max(seq) FROM event WHERE CAST(payload AS TEXT) LIKE \'%"event_type":"chunk"%\''
        ).fetchone()
        (payload,) = db.execute("SELECT payload FROM event WHERE seq = ?", (last,)).fetchone()
        gone = json.loads(payload)
        db.execute("DELETE FROM event WHERE seq >= ?", (last,))
        db.execute("UPDATE meta SET value = ? WHERE name = 'next_seq'", (last,))
        topic = f"{BASE}event/recorder/{gone['recorder']}"
        db.execute("UPDATE mark SET seq = ? WHERE topic = ?", (gone["seq"] - 1, topic))
    daemon.config.write_text(config(tmp_path, broker, autostart=False))
    with broker, Observer(broker) as observer:
        observer.subscribe(BASE + "event/#")
        daemon.start()
        observer.wait_for(lambda message: message.topic == topic and message.json.get("file") == gone["file"])
        assert daemon.stop() == 0
    events = [json.loads(message.payload) for message in observer.messages]
    files = Counter(event["file"] for event in events if event["event_type"] == "chunk")
    assert set(files.values()) == {1}, "told twice"
    assert set(files) == {line["file"] for name in recorded(daemon) for line in daemon.manifest(name)}
