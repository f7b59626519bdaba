"""States, events, availability and the connection, against a real mosquitto that comes and goes."""

from __future__ import annotations

import logging
import os
import random
import resource
import select
import socket
import threading
import time

import pytest
from broker import Broker, Observer
from waiting import until

from msrecd.mqtt import client, wire
from msrecd.mqtt.service import IMAGE_LIMIT_BYTES

BASE = "msrecd/v1/pi-test"
KILLS = int(os.environ.get("MSRECD_BROKER_KILLS", "20"))


def at(path):
    return lambda message: message.topic == f"{BASE}/{path}"


def test_states_are_retained_and_the_latest_is_kept_without_a_broker(broker, service_for):
    broker.stop()
    with service_for(broker) as thread:
        for rev in range(5):
            thread.publish_state("recorder/cam0", {"state": "inactive", "rev": rev})
        thread.publish_state("devices", [])
        thread.publish_state("health", {"ts": "now"})
        thread.publish_image("cam0", b"\xff\xd8jpeg")
        assert not thread.health()["connected"]
        broker.start()
        thread.connected()
        with Observer(broker) as observer:
            observer.subscribe("msrecd/v1/#")
            state = observer.wait_for(at("state/recorder/cam0"))
            assert (state.json["rev"], state.retain) == (4, True)
            assert observer.wait_for(at("state/devices")).json == []
            assert observer.wait_for(at("state/health")).retain
            assert observer.wait_for(at("image/cam0")).payload == b"\xff\xd8jpeg"
            assert observer.wait_for(at("availability")).payload == b"online"


@pytest.mark.effect("state-health: reconnects")
def test_states_come_again_after_a_broker_without_memory_restarts(broker, service_for):
    with service_for(broker) as thread:
        thread.connected()
        thread.publish_state("daemon", {"version": "1"})
        broker.restart(kill=True)
        with Observer(broker) as observer:
            observer.subscribe("msrecd/v1/#")
            assert observer.wait_for(at("state/daemon")).json == {"version": "1"}
            assert observer.wait_for(at("availability")).payload == b"online"
        thread.wait(lambda service: service.health()["reconnects"] == 1)


def test_offline_is_said_on_a_clean_stop(broker, service_for):
    with Observer(broker) as observer:
        observer.subscribe(f"{BASE}/availability")
        with service_for(broker) as thread:
            observer.wait_for(lambda message: message.payload == b"online")
            thread.publish_event("device", {"event_type": "added"})
        observer.wait_for(lambda message: message.payload == b"offline")


def test_the_last_events_leave_before_the_clean_stop(broker, service_for):
    with Observer(broker) as observer:
        observer.subscribe(f"{BASE}/#")
        with service_for(broker) as thread:
            thread.stop_timeout = 60.0  # a disk that others keep busy may stall for seconds
            thread.connected()
            for number in range(40):
                thread.publish_event("recorder/cam0", {"n": number})
        observer.wait_for(lambda message: message.payload == b"offline")
        assert [m.json["n"] for m in observer.messages if m.topic.endswith("event/recorder/cam0")] == list(range(40))


def test_the_stop_is_bounded_when_the_broker_hangs(broker, service_for):
    thread = service_for(broker)
    thread.stop_timeout = 2.0
    with thread:
        thread.connected()
        broker.pause()
        began = time.monotonic()
        thread.stop()
        assert time.monotonic() - began < 15
        broker.resume()


def test_the_will_says_offline_when_the_connection_breaks(broker, service_for):
    with (
        Observer(broker) as observer,
        service_for(broker, will_delay_s=1, reconnect_min_s=60, reconnect_max_s=60) as thread,
    ):
        observer.subscribe(f"{BASE}/availability")
        observer.wait_for(lambda message: message.payload == b"online")
        broken = time.monotonic()
        thread.call(lambda: thread.service._client._session._client.socket().shutdown(socket.SHUT_RDWR))
        will = observer.wait_for(lambda message: message.payload == b"offline")
        assert will.at - broken > 0.5  # the delay keeps short breaks quiet


@pytest.mark.effect(
    "event-recorder: event_id", "event-error: event_id", "event-error: event_type", "state-health: spooled"
)
def test_events_wait_for_the_broker_in_order_and_carry_their_ids(broker, service_for):
    broker.stop()
    with service_for(broker) as thread:
        for number in range(300):
            thread.publish_event("recorder/cam0", {"event_type": "chunk", "n": number})
        thread.wait(lambda service: service.health()["spooled"] == 300)
    broker.start()
    with Observer(broker) as observer:
        observer.subscribe(f"{BASE}/event/#")
        with service_for(broker) as thread:
            events = observer.wait_count(at("event/recorder/cam0"), 300)
            assert [event.json["n"] for event in events] == list(range(300))
            assert [event.json["event_id"] for event in events] == [f"pi-test/7/{n:06d}" for n in range(1, 301)]
            assert not any(event.retain for event in events)
            thread.wait(lambda service: service.health()["spooled"] == 0)
            thread.publish_event("error", {"event_type": "error"})
            assert observer.wait_for(at("event/error")).json["event_id"] == "pi-test/7/000301"


def test_what_was_on_its_way_when_the_connection_broke_is_sent_again(broker, service_for):
    with service_for(broker) as thread:
        thread.connected()
        broker.pause()
        for number in range(100):
            thread.publish_event("recorder/cam0", {"event_type": "chunk", "n": number})
        thread.wait(lambda service: service.health()["spooled"] == 100 and service._client.outstanding >= 10)
        broker.restart(kill=True)
        thread.wait(lambda service: service.health()["reconnects"] and service.health()["spooled"] == 0)
        assert thread.health()["dropped"] == 0


def kill_during_traffic(broker, service_for, times, seed):
    """Commands with ids are sent, each again until it is answered, while the broker is killed again and again."""
    chance = random.Random(seed)
    with service_for(broker) as thread, Observer(broker) as observer:
        observer.subscribe(f"{BASE}/#")
        thread.connected()
        expected = "inactive"
        for number in range(times):
            verb = chance.choice(["start", "stop", "pause", "resume"])
            command = b'{"id": "k%d"}' % number
            kill_after_s = chance.uniform(0, 0.02)
            observer.send(f"{BASE}/cmd/recorder/cam0/{verb}", command)
            time.sleep(kill_after_s)  # the moment of the kill is what varies
            broker.restart(kill=True)
            deadline = time.monotonic() + 30
            while True:
                assert time.monotonic() < deadline, f"no reply to command {number}"
                answers = [m for m in observer.messages if "/reply/" in m.topic and m.json["id"] == f"k{number}"]
                answers = [m for m in answers if m.json.get("error", {}).get("code") != "rate_limited"]
                if answers:
                    break
                if thread.health()["connected"]:
                    observer.send(f"{BASE}/cmd/recorder/cam0/{verb}", command)
                time.sleep(0.2)
            if answers[0].json["status"] == "ok":
                expected = answers[0].json["data"]["state"]
        causes = [call[-1] for call in thread.handler.calls]
        assert len(causes) == len(set(causes)) == times  # each once, none twice
        assert thread.handler.states["cam0"] == expected
        observer.listening(f"{BASE}/probe")  # the last reply may have come before the last kill
        thread.publish_event("device", {"event_type": "last"})
        observer.wait_for(at("event/device"))
        thread.wait(lambda service: service.health()["spooled"] == 0)
    with Observer(broker) as fresh:
        fresh.subscribe(f"{BASE}/#")
        if any(call[2] != "stop" for call in thread.handler.calls):
            assert fresh.wait_for(at("state/recorder/cam0")).json["state"] == expected


@pytest.mark.timeout(300 + 10 * KILLS)
def test_a_broker_killed_during_commands(broker, service_for):
    kill_during_traffic(broker, service_for, KILLS, 1)


def test_a_broker_that_accepts_and_does_not_acknowledge_is_left(broker, service_for, caplog):
    with service_for(broker, ack_timeout_s=1.0, keepalive_s=60, reconnect_max_s=0.2) as thread:
        thread.connected()
        broker.pause()
        thread.publish_state("daemon", {"version": "2"})
        thread.wait(lambda service: not service.health()["connected"])
        assert "does not acknowledge" in caplog.text
        broker.resume()
        thread.connected()
        with Observer(broker) as observer:
            observer.subscribe(f"{BASE}/state/#")
            assert observer.wait_for(at("state/daemon")).json == {"version": "2"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_network_thread_is_noticed(broker, service_for, monkeypatch, caplog):
    import paho.mqtt.client as paho

    whole = paho.Client._loop
    victims = []

    def dies_once(self, timeout=1.0):
        if victims and self in victims:
            raise SystemExit  # what ends a thread without a word
        return whole(self, timeout)

    monkeypatch.setattr(paho.Client, "_loop", dies_once)
    with service_for(broker) as thread:
        thread.connected()
        victims.append(thread.service._client._session._client)
        thread.wait(lambda service: service.health()["reconnects"] == 1 and service.health()["connected"])
        assert "network thread died" in caplog.text


@pytest.mark.promise("too-many-files")
def test_too_many_open_files_are_named(broker, service_for, monkeypatch, caplog):
    with service_for(broker) as thread:
        thread.connected()
        broker.stop()
        monkeypatch.setattr(client, "DESCRIPTOR_LIMIT", 1)  # every socket is beyond it
        broker.start()
        thread.wait(lambda _: "files are open here" in caplog.text)
        assert not thread.health()["connected"]
        monkeypatch.setattr(client, "DESCRIPTOR_LIMIT", 1024)
        thread.connected()


def test_the_limit_is_that_of_select():
    limit = client.DESCRIPTOR_LIMIT
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard <= limit:
        pytest.skip(f"at most {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit + 1), hard))
    try:
        for number in (limit - 1, limit):
            os.dup2(0, number)
        select.select([limit - 1], [], [], 0)
        with pytest.raises(ValueError, match="out of range"):
            select.select([limit], [], [], 0)
    finally:
        for number in (limit - 1, limit):
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_wrong_password_is_one_line_and_tried_again(tmp_path, service_for, caplog):
    caplog.set_level(logging.INFO)
    secret = tmp_path / "secret"
    secret.write_text("tell-nobody\n")
    secret.chmod(0o600)
    with (
        Broker(tmp_path / "strict", anonymous=False) as broker,
        service_for(broker, username="pi-test", password_file=secret) as thread,
    ):
        thread.wait(lambda _: "refused: Not authorized" in caplog.text)
        assert not thread.health()["connected"]
    assert caplog.text.count("refused: Not authorized") == 1
    assert "tell-nobody" not in caplog.text


@pytest.mark.promise("wide-secrets-are-refused", "password-is-read-anew")
def test_an_open_password_file_is_refused_and_recording_goes_on(broker, tmp_path, service_for, caplog):
    secret = tmp_path / "secret"
    secret.write_text("tell-nobody\n")
    secret.chmod(0o644)
    with service_for(broker, password_file=secret) as thread:
        thread.wait(lambda _: "mqtt.password_file" in caplog.text)
        assert "chmod 0600" in caplog.text
        secret.chmod(0o600)
        thread.connected()  # read anew for every connection


@pytest.mark.promise("retained-topics-are-cleared")
def test_what_is_no_longer_configured_is_cleared_after_a_restart(broker, service_for):
    with Observer(broker) as observer:
        with service_for(broker) as thread:
            thread.connected()
            thread.publish_state("recorder/mic", {"state": "inactive"})
            thread.publish_image("mic", b"jpeg")
            observer.subscribe(f"{BASE}/#")
            observer.wait_for(at("state/recorder/mic"))
        second = service_for(broker)
        second.handler.states = {"cam0": "inactive"}
        with second:
            observer.wait_for(lambda m: m.topic == f"{BASE}/state/recorder/mic" and not m.payload)
            observer.wait_for(lambda m: m.topic == f"{BASE}/image/mic" and not m.payload)
        with Observer(broker) as fresh:
            fresh.subscribe(f"{BASE}/#")
            fresh.wait_for(at("availability"))
            assert not [m for m in fresh.messages if "mic" in m.topic]


def test_too_large_for_the_broker_does_not_end_the_connection(tmp_path, service_for, caplog):
    with (
        Broker(tmp_path / "small", config="max_packet_size 5000") as broker,
        service_for(broker) as thread,
        Observer(broker) as observer,
    ):
        observer.subscribe(f"{BASE}/#")
        thread.connected()
        thread.publish_image("cam0", b"x" * 8000)
        thread.publish_event("device", {"text": "x" * 8000})
        thread.publish_event("device", {"text": "short"})
        assert observer.wait_for(at("event/device")).json["text"] == "short"
        assert "more than the broker takes" in caplog.text
        thread.wait(lambda service: service.health()["dropped"] == 1 and service.health()["spooled"] == 0)
        thread.publish_image("cam0", b"x" * (IMAGE_LIMIT_BYTES + 1))
        assert thread.health()["reconnects"] == 0


def test_a_broker_with_a_smaller_window(tmp_path, service_for):
    with (
        Broker(tmp_path / "narrow", config="max_inflight_messages 3") as broker,
        service_for(broker) as thread,
        Observer(broker) as observer,
    ):
        observer.subscribe(f"{BASE}/event/#")
        thread.connected()
        for number in range(100):
            thread.publish_event("device", {"n": number})
        events = observer.wait_count(at("event/device"), 100)
        assert [event.json["n"] for event in events] == list(range(100))


@pytest.mark.effect("state-health: messages_dropped")
def test_messages_that_come_while_the_loop_stands_still_are_dropped_above_a_limit(
    broker, service_for, monkeypatch, caplog
):
    monkeypatch.setattr(wire.Inbox.__init__, "__defaults__", (20, wire.INBOX_LIMIT_BYTES))
    with service_for(broker) as thread, Observer(broker) as observer:
        observer.subscribe(f"{BASE}/reply/#")
        thread.connected()
        goes_on = threading.Event()
        thread.loop.call_soon_threadsafe(goes_on.wait, 30)
        for number in range(50):
            observer.publish(f"{BASE}/cmd/daemon/ping", b'{"id": "m%d"}' % number)
        observer.listening(f"{BASE}/reply/mark")
        inbox = thread.service._client._inbox
        until(lambda: inbox.dropped + len(inbox._messages) == 50, lambda: inbox.dropped)
        goes_on.set()
        assert thread.health()["messages_dropped"] == 30
        thread.wait(lambda _: "30 MQTT messages dropped" in caplog.text)
