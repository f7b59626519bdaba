"""The event spool: order, bounds, kills, full and damaged disks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from broker import Broker, Observer

from msrecd.mqtt.spool import Spool, SpoolStore

EVENTS = int(os.environ.get("MSRECD_OUTAGE_EVENTS", "2000"))
WRITER = Path(__file__).with_name("spool_writer.py")


def numbers(events):
    return [json.loads(event.payload)["n"] for event in events]


def filled(path, count, **options):
    store = SpoolStore(path, "pi-test/1", **options)
    store.append(("t", {"n": n}) for n in range(count))
    assert store.flush()
    return store


@pytest.mark.promise("events-in-order")
def test_events_come_back_in_order_after_a_restart(tmp_path):
    store = filled(tmp_path / "s.db", 30)
    store.delete([1, 2, 5])
    store.close()
    again = SpoolStore(tmp_path / "s.db", "pi-test/2")
    assert numbers(again.fetch(100)) == [2, 3, *range(5, 30)]
    assert numbers(again.fetch(3, without={3, 6})) == [3, 6, 7]
    again.append([("t", {"n": 30})])
    assert json.loads(again.fetch(100)[-1].payload)["event_id"] == "pi-test/2/000031"
    again.close()


def test_marks_say_how_far_the_events_of_each_recorder_came(tmp_path):
    path, topic = tmp_path / "s.db", "msrecd/v1/pi-test/event/recorder/cam0"
    store = SpoolStore(path, "pi-test/1")
    newer, boot = "20261120T070000Z-cam0-aaaa", "boot0002-0000001000-cam0-bbbb"
    store.append(
        [
            (topic, {"event_type": "started", "recording_id": "20261120T060000Z-cam0-ffff"}),
            (topic, {"event_type": "chunk", "recording_id": newer, "seq": 2}),
            (topic, {"event_type": "chunk", "recording_id": newer, "seq": 1}),  # a late one
            (topic, {"event_type": "chunk", "recording_id": boot, "seq": 7}),
            (topic, {"event_type": "error", "recording_id": None}),
            ("msrecd/v1/pi-test/event/error", {"event_type": "error"}),
        ]
    )
    assert store.flush()
    store.append([(topic, {"event_type": "chunk", "recording_id": newer, "seq": 3})])  # never on the disk
    # Killed here: what another process finds is what the last flush left.
    again = SpoolStore(path, "pi-test/2")
    marks = again.marks.of("msrecd/v1/pi-test/event/recorder/")
    assert {name: set(found) for name, found in marks.items()} == {"cam0": {(newer, 2), (boot, 7)}}
    again.delete([event.seq for event in again.fetch(100)])
    again.close()
    third = SpoolStore(path, "pi-test/3")
    assert set(third.marks.of("msrecd/v1/pi-test/event/recorder/")["cam0"]) == {(newer, 2), (boot, 7)}
    third.close()
    with contextlib.suppress(sqlite3.Error):
        store.close()


@pytest.mark.promise("event-ids")
def test_numbers_are_not_given_again_after_everything_was_sent(tmp_path):
    store = filled(tmp_path / "s.db", 5)
    store.delete([1, 2, 3, 4, 5])
    store.close()
    again = filled(tmp_path / "s.db", 1)
    assert [event.seq for event in again.fetch(9)] == [6]
    again.close()


@pytest.mark.promise("events-in-order")
def test_the_oldest_are_dropped_and_counted_over_restarts(tmp_path):
    store = filled(tmp_path / "s.db", 25, event_limit=10)
    assert numbers(store.fetch(100)) == list(range(15, 25))
    assert store.status.dropped == 15
    store.close()
    again = SpoolStore(tmp_path / "s.db", "pi-test/1", event_limit=10)
    assert (again.status.dropped, again.status.events) == (15, 10)
    again.close()


def test_the_bytes_are_bounded(tmp_path):
    store = SpoolStore(tmp_path / "s.db", "pi-test/1", bytes_limit=10_000)
    store.append([("t", {"n": n, "text": "x" * 900}) for n in range(50)])
    store.flush()
    assert store.status.bytes <= 10_000
    assert store.status.events + store.status.dropped == 50
    assert numbers(store.fetch(1)) == [store.status.dropped]
    store.close()


def test_topics_can_be_skipped(tmp_path):
    store = SpoolStore(tmp_path / "s.db", "pi-test/1")
    store.append([("a" if n % 2 else "b", {"n": n}) for n in range(10)])
    store.flush()
    assert numbers(store.fetch(3, skip_topics={"b"})) == [1, 3, 5]
    store.close()


def test_a_damaged_file_is_put_aside_and_numbers_are_new(tmp_path, caplog):
    filled(tmp_path / "s.db", 5).close()
    (tmp_path / "s.db").write_bytes(os.urandom(8192))
    store = SpoolStore(tmp_path / "s.db", "pi-test/1")
    assert "damaged" in caplog.text
    assert (tmp_path / "s.damaged").exists()
    store.append([("t", {"n": 1})])
    assert store.flush()
    assert store.fetch(1)[0].seq > 1_000_000
    store.close()


@pytest.mark.effect("state-health: spool_durable")
def test_a_disk_that_refuses_keeps_events_in_memory_until_it_works(tmp_path, caplog):
    store = filled(tmp_path / "s.db", 2)
    lock = sqlite3.connect(tmp_path / "s.db")
    lock.execute("BEGIN EXCLUSIVE")
    store.append([("t", {"n": 2}), ("t", {"n": 3})])
    assert not store.flush()
    assert not store.status.durable
    assert numbers(store.fetch(10)) == [0, 1, 2, 3]
    store.append([("t", {"n": 4})])
    assert caplog.text.count("cannot be written") == 1
    lock.rollback()
    lock.close()
    assert store.flush()
    assert store.status.durable
    store.close()
    again = SpoolStore(tmp_path / "s.db", "pi-test/1")
    assert numbers(again.fetch(10)) == [0, 1, 2, 3, 4]
    again.close()


def test_a_folder_that_cannot_be_made_costs_no_event(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    store = SpoolStore(tmp_path / "file" / "s.db", "pi-test/1")
    store.append([("t", {"n": 1})])
    assert not store.flush()
    assert numbers(store.fetch(10)) == [1]
    store.close()
    assert "1 events could not be written" in caplog.text


def test_the_thread_hands_over_without_waiting(tmp_path):
    changed, answered = threading.Event(), threading.Event()
    got = []
    spool = Spool(tmp_path / "s.db", "pi-test/1", changed.set)
    spool.append("t", {"n": 0})  # before the start
    spool.start()
    for n in range(1, 500):
        spool.append("t", {"n": n})
    assert changed.wait(10)

    def answer(events):
        got.extend(events)
        answered.set()

    spool.request(1000, (), (), answer)
    assert answered.wait(10)
    assert numbers(got) == list(range(500))
    for event in got[:400]:
        spool.acknowledge(event.seq)
    assert spool.close(10)
    again = SpoolStore(tmp_path / "s.db", "pi-test/1")
    assert numbers(again.fetch(1000)) == list(range(400, 500))
    again.close()


def run_and_kill(path, first, last, kill_at):
    """Write events until number `kill_at` is safe, then SIGKILL; the last number known to be safe."""
    with subprocess.Popen(
        [sys.executable, str(WRITER), str(path), str(first), str(last)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        safe = first - 1
        for line in writer.stdout:
            safe = int(line)
            if safe == kill_at:
                writer.send_signal(signal.SIGKILL)
        return safe


def check_kills(tmp_path, total, kills):
    path, first, safe = tmp_path / "s.db", 0, []
    for kill_at in [*kills, None]:
        last_safe = run_and_kill(path, first, total, kill_at)
        safe += range(first, last_safe + 1)
        first = last_safe + 1
    store = SpoolStore(path, "pi-test/1")
    events = store.fetch(total + 10)
    ids = [json.loads(event.payload)["event_id"] for event in events]
    store.close()
    assert len(set(ids)) == len(ids)
    found = numbers(events)
    # What was written but not yet said to be safe may be there twice, with an id of its own each.
    assert sorted(set(found)) == safe == list(range(total))
    assert found == sorted(found)


@pytest.mark.promise("events-survive-a-kill")
def test_a_kill_costs_nothing_that_was_safe(tmp_path):
    check_kills(tmp_path, 300, [60, 61, 200])


@pytest.mark.timeout(300 + EVENTS // 50)
def test_many_events_two_kills_and_a_broker_that_comes_late(tmp_path, service_for):
    check_kills(tmp_path, EVENTS, [EVENTS * 23 // 100, EVENTS * 7 // 10])
    state = tmp_path / "state"
    state.mkdir()
    for file in tmp_path.glob("s.db*"):
        file.rename(state / file.name.replace("s.db", "mqtt-events.sqlite3"))
    with Broker(tmp_path / "broker", config="max_queued_messages 0") as broker, Observer(broker) as observer:
        observer.subscribe("t")
        with service_for(broker) as thread:
            # Ten thousand messages may hold one twice (see check_kills), so the last one is waited for.
            observer.wait_count(lambda message: message.topic == "t" and message.json["n"] == EVENTS - 1, 1, 120)
            events = [message for message in observer.messages if message.topic == "t"]
            thread.wait(lambda service: service.health()["spooled"] == 0)
    seen = {}
    for event in events:
        value = event.json
        assert seen.setdefault(value["event_id"], value["n"]) == value["n"]
    order = [event.json["n"] for event in events]
    assert order == sorted(order)
    assert set(order) == set(range(EVENTS))


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE event SET payload = NULL",
        "UPDATE meta SET value = 'soon'",
        "UPDATE meta SET value = -5",
        "UPDATE mark SET seq = x'ff'",
        "UPDATE meta SET value = 9223372036854775807",
    ],
)
def test_values_of_another_type_are_damage(tmp_path: Path, damage: str) -> None:
    """A damaged card: still a database, and put aside like one that is none; numbers go on."""
    path = tmp_path / "spool.sqlite3"
    store = SpoolStore(path, "device/1")
    store.append(
        [("event/recorder/cam0", {"event_type": "chunk", "recording_id": "20260101T000000Z-cam0-0001", "seq": 1})]
    )
    store.close()
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        names = [name for (name,) in db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
        schema = [sql.replace(" NOT NULL", "").replace(" STRICT", "") for sql in names]
        assert schema
        db.execute("PRAGMA writable_schema = 1")
        for before, after in zip(names, schema, strict=True):
            db.execute("UPDATE sqlite_master SET sql = ? WHERE sql = ?", (after, before))
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        changed = db.execute(damage).rowcount
    again = SpoolStore(path, "device/1")
    again.append([("event/recorder/cam0", {"event_type": "started"})])
    assert again.status.events >= 1
    again.close()
    assert not changed or path.with_suffix(".damaged").exists()
