"""Every command rule of the contract, over a real mosquitto."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from broker import Observer

from msrecd.errors import CommandError

BASE = "msrecd/v1/pi-test"


def ask(observer, path, payload=b"", *, prefix=BASE, reply=None, **options):
    """Send a command, return its reply."""
    observer.clear()
    reply_topic = reply or f"{BASE}/reply/{path}"
    observer.publish(f"{prefix}/cmd/{path}", payload, **options)
    return observer.wait_for(lambda message: message.topic == reply_topic).json


@pytest.fixture
def running(broker, service_for):
    with service_for(broker) as thread, Observer(broker) as observer:
        observer.subscribe("msrecd/v1/#")
        thread.connected()
        observer.wait_for(lambda message: message.topic == f"{BASE}/availability" and message.payload == b"online")
        yield thread, observer


def test_start_and_stop_say_whether_anything_changed(running):
    thread, observer = running
    first = ask(observer, "recorder/cam0/start", {"id": "a1", "args": {"duration_s": 600}})
    assert first["id"] == "a1"
    assert first["status"] == "ok"
    assert first["changed"] is True
    assert first["data"] == {"state": "recording"}
    assert first["ts"].endswith("Z")
    again = ask(observer, "recorder/cam0/start")
    assert (again["status"], again["changed"], again["id"]) == ("ok", False, None)
    assert ask(observer, "recorder/cam0/stop")["changed"] is True
    assert ask(observer, "recorder/cam0/stop")["changed"] is False
    assert thread.handler.calls[0] == ("recorder", "cam0", "start", {"duration_s": 600}, "mqtt:a1")
    assert thread.handler.calls[1][-1] == "mqtt"


@pytest.mark.parametrize("verb", ["ping", "devices", "reload", "health"])
def test_daemon_verbs(running, verb):
    thread, observer = running
    assert ask(observer, f"daemon/{verb}", b"{}")["data"] == {"verb": verb}
    assert thread.handler.calls == [("daemon", None, verb, {}, "mqtt")]


@pytest.mark.parametrize("verb", ["start", "pause", "resume", "split", "snapshot", "get", "stop"])
def test_recorder_verbs(running, verb):
    thread, observer = running
    thread.handler.states["cam0"] = "recording"
    assert ask(observer, f"recorder/cam0/{verb}")["status"] == "ok"
    assert thread.handler.calls[0][:3] == ("recorder", "cam0", verb)


def test_set_is_a_switch(running):
    thread, observer = running
    assert ask(observer, "recorder/cam0/set", b"ON")["data"] == {"state": "recording"}
    assert ask(observer, "recorder/cam0/set", b"OFF")["data"] == {"state": "inactive"}
    assert ask(observer, "recorder/cam0/set", b"on")["error"]["code"] == "bad_payload"
    assert ask(observer, "recorder/cam0/set", b"{}")["error"]["code"] == "bad_payload"
    assert [call[2] for call in thread.handler.calls] == ["start", "stop"]


@pytest.mark.parametrize(
    ("path", "payload", "code"),
    [
        ("recorder/cam0/start", b"no json", "bad_payload"),
        ("recorder/cam0/start", b"[]", "bad_payload"),
        ("recorder/cam0/start", b'{"x": 1}', "bad_payload"),
        ("recorder/cam0/start", b'{"args": {"duration_s": NaN}}', "bad_payload"),
        ("recorder/cam0/start", b" " * 17_000, "bad_payload"),
        ("recorder/cam0/start", b"\xff\xfe", "bad_payload"),
        ("recorder/cam0/start", b'{"id": "\\u0000"}', "bad_payload"),
        ("recorder/cam0/start", b"[" * 10_000, "bad_payload"),
        ("recorder/cam0/start", b'{"args": {"duration_s": -1}}', "bad_args"),
        ("recorder/cam0/start", b'{"args": {"duration_s": true}}', "bad_args"),
        ("recorder/cam0/start", b'{"args": {"path": "/etc"}}', "bad_args"),
        ("recorder/cam0/stop", b'{"args": {"duration_s": 1}}', "bad_args"),
        ("recorder/cam0/start", b'{"id": 7}', "bad_args"),
        ("recorder/cam0/start", b'{"issued_at": "yesterday"}', "bad_args"),
        ("recorder/cam0/fly", b"", "unknown_verb"),
        ("daemon/reboot", b"", "unknown_verb"),
        ("system/reboot", b"", "unknown_verb"),
        ("recorder/nope/start", b"", "unknown_recorder"),
        ("recorder/../../../etc/passwd/start", b"", "unknown_recorder"),
        ("recorder//start", b"", "unknown_recorder"),
        ("recorder/cam0/pause", b"", "wrong_state"),
    ],
)
def test_refusals_change_nothing(running, path, payload, code):
    thread, observer = running
    reply = ask(observer, path, payload)
    assert reply["status"] == "error"
    assert reply["error"]["code"] == code
    assert reply["error"]["retryable"] is False
    assert 0 < len(reply["error"]["message"]) < 400
    assert thread.handler.states == {"cam0": "inactive", "mic": "inactive"}
    assert [call[2] for call in thread.handler.calls] in ([], ["pause"])


def test_a_refused_command_keeps_its_id(running):
    _, observer = running
    assert ask(observer, "recorder/cam0/fly", {"id": "z9"})["id"] == "z9"
    assert ask(observer, "recorder/cam0/start", {"id": "z8", "args": {"nope": 1}})["id"] == "z8"


def test_what_exceeds_the_packet_limit_never_arrives(running):
    thread, observer = running
    observer.publish(f"{BASE}/cmd/recorder/cam0/start", b" " * 21_000)
    assert ask(observer, "daemon/ping")["status"] == "ok"
    assert [call[2] for call in thread.handler.calls] == ["ping"]


@pytest.mark.promise("old-commands-are-refused")
def test_a_repeated_id_acts_once_and_gets_the_stored_reply(running):
    thread, observer = running
    first = ask(observer, "recorder/cam0/start", {"id": "same"})
    second = ask(observer, "recorder/cam0/start", {"id": "same"})
    assert first["changed"] is True
    assert second["changed"] is True
    assert second["data"] == first["data"]
    assert len(thread.handler.calls) == 1


def test_the_second_copy_of_a_running_command_waits_for_its_reply(running):
    thread, observer = running
    gate = thread.call(asyncio.Event)
    thread.handler.gate = gate
    for correlation in (b"one", b"two"):
        observer.publish(f"{BASE}/cmd/recorder/cam0/start", {"id": "slow"}, correlation_data=correlation)
    thread.wait(lambda _: len(thread.handler.calls) == 1)
    thread.call(gate.set)
    replies = observer.wait_count(lambda message: message.topic == f"{BASE}/reply/recorder/cam0/start", 2)
    assert [reply.json["changed"] for reply in replies] == [True, True]
    assert {reply.correlation_data for reply in replies} == {b"one", b"two"}
    assert len(thread.handler.calls) == 1


def test_commands_of_one_recorder_run_one_after_another_and_recorders_side_by_side(running):
    thread, observer = running
    gate = thread.call(asyncio.Event)
    thread.handler.gate = gate
    for path in ("recorder/cam0/start", "recorder/cam0/pause", "recorder/mic/start"):
        observer.publish(f"{BASE}/cmd/{path}", b"")
    thread.wait(lambda _: thread.handler.running == 2)
    assert [call[1:3] for call in thread.handler.calls] == [("cam0", "start"), ("mic", "start")]
    thread.call(gate.set)
    observer.wait_for(lambda message: message.topic == f"{BASE}/reply/recorder/cam0/pause")
    assert [call[2] for call in thread.handler.calls if call[1] == "cam0"] == ["start", "pause"]
    assert thread.handler.most_running == 2


def test_groups_reach_the_device_and_replies_stay_in_its_own_tree(running):
    thread, observer = running
    for group in ("all", "north"):
        reply = ask(observer, "recorder/cam0/start", {"id": f"g-{group}"}, prefix=f"msrecd/v1/group/{group}")
        assert reply["id"] == f"g-{group}"
    observer.publish("msrecd/v1/group/south/cmd/recorder/cam0/stop", {"id": "g-south"})
    ask(observer, "daemon/ping")
    assert [call[2] for call in thread.handler.calls] == ["start", "start", "ping"]


@pytest.mark.promise("response-topics")
@pytest.mark.promise("replies-in-the-own-tree")
def test_a_response_topic_is_honoured_below_the_own_reply_tree_only(running):
    _, observer = running
    own = f"{BASE}/reply/desk-7"
    reply = ask(observer, "daemon/ping", reply=own, response_topic=own, correlation_data=b"\x00\x01")
    assert reply["status"] == "ok"
    assert [m.correlation_data for m in observer.messages if m.topic == own] == [b"\x00\x01"]
    for foreign in ("homeassistant/x", "msrecd/v1/other/reply/x", f"{BASE}/replyx", f"{BASE}/reply/{'x' * 250}"):
        assert ask(observer, "daemon/ping", response_topic=foreign)["status"] == "ok"
        assert not [m for m in observer.messages if m.topic == foreign]


@pytest.mark.promise("expired-commands")
@pytest.mark.promise("old-commands-are-refused")
def test_an_old_command_is_expired_when_the_clock_is_trusted(running):
    thread, observer = running
    old = (datetime.now(UTC) - timedelta(seconds=90)).strftime("%Y-%m-%dT%H:%M:%SZ")
    fresh = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert ask(observer, "recorder/cam0/start", {"issued_at": old, "id": "o1"})["error"]["code"] == "expired"
    assert ask(observer, "recorder/cam0/start", {"issued_at": fresh})["status"] == "ok"
    thread.trusted = False
    assert ask(observer, "recorder/cam0/stop", {"issued_at": old})["status"] == "ok"


@pytest.mark.promise("retained-is-rejected")
@pytest.mark.promise("old-commands-are-refused")
def test_a_retained_command_is_refused_even_while_subscribed(running):
    thread, observer = running
    reply = ask(observer, "recorder/cam0/start", {"id": "ghost"}, retain=True)
    assert reply["error"]["code"] == "retained_rejected"
    assert reply["id"] == "ghost"
    observer.publish(f"{BASE}/cmd/recorder/cam0/start", b"", retain=True)  # clearing it is no command
    ask(observer, "daemon/ping")
    assert [call[2] for call in thread.handler.calls] == ["ping"]


@pytest.mark.promise("retained-is-rejected", "retained-can-be-cleared")
@pytest.mark.promise("old-commands-are-refused")
def test_a_retained_command_from_before_is_not_run(broker, service_for):
    with Observer(broker) as observer:
        observer.subscribe("msrecd/v1/#")
        observer.publish(f"{BASE}/cmd/recorder/cam0/start", b"", retain=True)
        observer.publish(f"{BASE}/cmd/recorder/cam0/start", b"{}", retain=True)
        with service_for(broker) as thread:
            thread.connected()
            ask(observer, "daemon/ping")
            assert [call[2] for call in thread.handler.calls] == ["ping"]


@pytest.mark.promise("rate-limit")
def test_more_than_the_rate_is_refused_and_may_be_sent_again(running):
    thread, observer = running
    observer.clear()
    for number in range(120):  # ten seconds' worth
        observer.send(f"{BASE}/cmd/daemon/ping", json.dumps({"id": f"r{number}"}).encode())
    replies = observer.wait_count(lambda message: message.topic == f"{BASE}/reply/daemon/ping", 120)
    refused = [reply.json for reply in replies if reply.json["status"] == "error"]
    assert len(thread.handler.calls) == 120 - len(refused)
    assert 20 <= len(thread.handler.calls) < 120
    assert {reply["error"]["code"] for reply in refused} == {"rate_limited"}
    assert all(reply["error"]["retryable"] for reply in refused)
    known = {reply["id"] for reply in refused}

    def accepted():
        return ask(observer, "daemon/ping", {"id": sorted(known)[0]})["status"] == "ok"

    assert any(accepted() for _ in range(50))


@pytest.mark.promise("internal-is-logged")
def test_an_unexpected_error_is_internal_and_the_next_command_works(running, caplog):
    thread, observer = running
    thread.handler.failure = ZeroDivisionError("secret /path")
    reply = ask(observer, "recorder/cam0/start", {"id": "boom"})
    assert reply["error"]["code"] == "internal"
    assert "secret" not in json.dumps(reply)
    assert "ZeroDivisionError" in caplog.text
    thread.handler.failure = None
    assert ask(observer, "recorder/cam0/start")["status"] == "ok"


@pytest.mark.parametrize("code", ["device_missing", "device_busy", "no_space"])
def test_what_may_pass_is_retryable(running, code):
    thread, observer = running
    thread.handler.failure = CommandError(code, "later")
    assert ask(observer, "recorder/cam0/start")["error"] == {"code": code, "message": "later", "retryable": True}


@pytest.mark.promise("verbs-can-be-withheld")
def test_verbs_can_be_withheld(broker, service_for):
    with service_for(broker, allow_verbs=frozenset({"start", "get"})) as thread, Observer(broker) as observer:
        observer.subscribe("msrecd/v1/#")
        thread.connected()
        assert ask(observer, "recorder/cam0/start")["status"] == "ok"
        assert ask(observer, "recorder/cam0/stop")["error"]["code"] == "unknown_verb"
        assert ask(observer, "recorder/cam0/set", b"OFF")["error"]["code"] == "unknown_verb"
        assert ask(observer, "daemon/reload")["error"]["code"] == "unknown_verb"
        assert thread.handler.states["cam0"] == "recording"


def test_a_command_that_hangs_ends(broker, service_for):
    with service_for(broker, timeout_s=0.2) as thread, Observer(broker) as observer:
        observer.subscribe("msrecd/v1/#")
        thread.connected()
        thread.handler.gate = thread.call(asyncio.Event)
        assert ask(observer, "recorder/cam0/start")["error"]["code"] == "internal"
        thread.handler.gate = None
        assert ask(observer, "recorder/cam0/start")["status"] == "ok"
