"""Commands from outside: what `msrecd ctl` sees."""

from __future__ import annotations

import errno
import socket
import ssl
import time

import pytest
from ports import free_port

from msrecd.mqtt.ctl import fleet_of, fleet_status, send_command, send_group
from msrecd.mqtt.settings import MqttSettings
from msrecd.mqtt.wire import ConnectError, Message, unreachable


def test_a_command_and_its_reply(broker, service_for, settings_for):
    with service_for(broker) as thread:
        thread.connected()
        reply = send_command(settings_for(broker), "pi-test", "cam0", "start", {"duration_s": 60})
        assert reply is not None
        assert (reply["status"], reply["changed"]) == ("ok", True)
        assert thread.handler.calls[0][:4] == ("recorder", "cam0", "start", {"duration_s": 60})
        refused = send_command(settings_for(broker), "pi-test", "nope", "start")
        assert refused is not None
        assert refused["error"]["code"] == "unknown_recorder"
        ping = send_command(settings_for(broker), "pi-test", None, "ping")
        assert ping is not None
        assert ping["status"] == "ok"


def test_nobody_there_is_known_at_once(broker, settings_for):
    began = time.monotonic()
    assert send_command(settings_for(broker), "pi-absent", "cam0", "start", timeout_s=60) is None
    assert time.monotonic() - began < 30


def test_no_broker_is_an_error_that_names_it():
    settings = MqttSettings(host="127.0.0.1", port=free_port(), device_id="pi-test")
    with pytest.raises(ConnectError, match=rf"127\.0\.0\.1:{settings.port}.*refused"):
        send_command(settings, "pi-test", "cam0", "start", timeout_s=30)


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "is the port right?"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "is the name right"),
        (TimeoutError("timed out"), "is the network up"),
        (ssl.SSLCertVerificationError(1, "certificate is not yet valid"), "is this machine's clock right?"),
    ],
)
@pytest.mark.promise("says-where-the-password-is")
def test_why_a_broker_cannot_be_reached_and_where_to_look(error, hint):
    text = unreachable(error)
    assert text.startswith(f"cannot be reached: {error.strerror or error} (")
    assert hint in text
    assert "Errno" not in text
    assert unreachable(None) == "cannot be reached"


@pytest.mark.parametrize(
    ("device", "recorder"), [("a/b", "cam0"), ("group", "cam0"), ("pi-test", "#"), ("pi-test", "a/b")]
)
@pytest.mark.promise("names-are-compared")
def test_names_are_checked_before_anything_is_sent(device, recorder):
    with pytest.raises(ValueError, match="is no"):
        send_command(MqttSettings(host="127.0.0.1", port=1, device_id="pi-test"), device, recorder, "start")


@pytest.mark.promise("ctl-group")
def test_a_group_answers_device_by_device(broker, service_for, settings_for):
    with (
        service_for(broker, device_id="pi-one", state="one") as one,
        service_for(broker, device_id="pi-two", state="two") as two,
        service_for(broker, device_id="pi-three", groups=(), state="three") as three,
    ):
        for thread in (one, two, three):
            thread.connected()
        replies = send_group(settings_for(broker), "north", "cam0", "start", timeout_s=30, expect=["pi-one", "pi-two"])
        assert {name: reply["status"] for name, reply in replies.items()} == {"pi-one": "ok", "pi-two": "ok"}
        assert three.handler.calls == []
        for thread in (one, two, three):
            thread.publish_state("recorder/cam0", {"state": thread.handler.states["cam0"]})
            thread.wait(lambda service: service._states.settled())
        fleet = {device.device_id: device for device in fleet_status(settings_for(broker))}
        assert {name: device.recorders["cam0"]["state"] for name, device in fleet.items()} == {
            "pi-one": "recording",
            "pi-two": "recording",
            "pi-three": "inactive",
        }
        assert {device.availability for device in fleet.values()} == {"online"}


def test_an_empty_group_is_known_at_once(broker, settings_for):
    began = time.monotonic()
    assert send_group(settings_for(broker), "nobody", "cam0", "start", timeout_s=60) == {}
    assert time.monotonic() - began < 30


@pytest.mark.promise("ctl-status")
def test_the_fleet_is_read_from_what_is_readable():
    messages = [
        Message(topic="msrecd/v1/pi-a/availability", payload=b"online"),
        Message(topic="msrecd/v1/pi-a/state/recorder/cam0", payload=b'{"state": "paused"}'),
        Message(topic="msrecd/v1/pi-a/state/recorder/cam1", payload=b"[[["),
        Message(topic="msrecd/v1/pi-b/availability", payload=b""),
        Message(topic="msrecd/v1/group/availability", payload=b"online"),
    ]
    (device,) = fleet_of(messages)
    assert (device.device_id, device.availability, dict(device.recorders)) == (
        "pi-a",
        "online",
        {"cam0": {"state": "paused"}},
    )
