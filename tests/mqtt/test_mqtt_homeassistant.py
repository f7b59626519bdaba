"""Home Assistant's discovery messages, and every published payload against its schema in docs/schemas."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from broker import Observer

from msrecd.mqtt.homeassistant import discovery, platforms, with_removals
from msrecd.vocabulary.verbs import RECORDER_EVENTS, RETRYABLE

jsonschema = pytest.importorskip("jsonschema")
SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
BASE = "msrecd/v1/pi-test"
CONFIG = "homeassistant/device/pi-test/config"
HEALTH = 6  # components of the device


def check(value, name):
    schema = json.loads((SCHEMAS / name).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(value, schema, cls=jsonschema.Draft202012Validator)


def refused(value, name):
    with pytest.raises(jsonschema.ValidationError):
        check(value, name)


@pytest.mark.promise("home-assistant-entities", "recipe-sensors")
def test_every_recorder_gets_its_entities():
    payload = discovery("pi-test", dict.fromkeys(["cam0", "a-b"], True), version="1.2", model="Pi")
    check(payload, "homeassistant-discovery.json")
    components = payload["components"]
    assert components["cam0_rec"]["command_topic"] == f"{BASE}/cmd/recorder/cam0/set"
    assert components["cam0_rec"]["optimistic"] is False
    assert "paused" in components["cam0_rec"]["value_template"]
    assert components["a-b_event"]["state_topic"] == f"{BASE}/event/recorder/a-b"
    assert "retain" not in components["a-b_event"]
    assert [key for key in components if key.startswith("cam0_")] == [
        f"cam0_{part}"
        for part in (
            "rec",
            "state",
            "event",
            "image",
            "last_chunk",
            "problem",
            "bitrate",
            "pause",
            "resume",
            "split",
            "snapshot",
        )
    ]
    ids = [component["unique_id"] for component in components.values()]
    assert len(set(ids)) == len(ids)


def test_no_recorders_name_meets_another_key():
    names = ["disk", "clock", "cpu", "under", "spooled", "a", "a-rec", "a-last"]
    components = discovery("pi-test", dict.fromkeys(names, True), version="", model="")["components"]
    per_recorder = len(discovery("pi-test", {"a": True}, version="", model="")["components"]) - HEALTH
    assert len(components) == len(names) * per_recorder + HEALTH


def test_a_recorder_of_sound_has_no_snapshots():
    """Home Assistant's duration needs its unit: https://www.home-assistant.io/integrations/sensor/#device-class"""
    components = discovery("pi-test", {"cam0": True, "mic0": False}, version="", model="")["components"]
    gone = {f"mic0{key[4:]}" for key in components if key.startswith("cam0")} - set(components)
    assert gone == {"mic0_image", "mic0_snapshot"}
    left = components["disk_time_left"]
    assert (left["device_class"], left["unit_of_measurement"]) == ("duration", "s")


def test_a_recorder_whose_camera_goes_loses_its_snapshots(broker, service_for):
    video = {"cam0", "mic"}
    with Observer(broker) as observer:
        observer.subscribe("homeassistant/#")
        with service_for(broker, homeassistant=True, has_video=lambda name: name in video) as thread:
            message = observer.wait_for(lambda m: m.topic == CONFIG)
            assert "mic_image" in message.json["components"]
            video.remove("mic")
            thread.publish_state("recorder/mic", {"state": "inactive"})
            observer.wait_for(lambda m: m.topic == CONFIG and "mic_image" not in m.json["components"])


def test_removal_reduces_a_component_to_its_platform():
    old = platforms(discovery("pi-test", {"cam0": True, "mic": True}, version="", model=""))
    new = discovery("pi-test", {"cam0": True}, version="", model="")
    removal = with_removals(new, old)
    assert removal["components"]["mic_rec"] == {"platform": "switch"}
    assert removal["components"]["cam0_rec"] == new["components"]["cam0_rec"]
    check(removal, "homeassistant-discovery.json")


def test_discovery_birth_and_removal_over_a_broker(broker, service_for, monkeypatch):
    monkeypatch.setattr("msrecd.mqtt.service.BIRTH_DELAY_S", 0.05)
    with Observer(broker) as observer:
        observer.subscribe("homeassistant/#")
        with service_for(broker, homeassistant=True) as thread:
            message = observer.wait_for(lambda m: m.topic == CONFIG)
            check(message.json, "homeassistant-discovery.json")
            assert "mic_rec" in message.json["components"]
            observer.clear()
            observer.publish("homeassistant/status", b"online", retain=True)
            observer.wait_for(lambda m: m.topic == CONFIG)
            observer.clear()
            thread.publish_state("recorder/mic", None)
            first, second = observer.wait_count(lambda m: m.topic == CONFIG, 2)
            assert first.json["components"]["mic_rec"] == {"platform": "switch"}
            assert "mic_rec" not in second.json["components"]
        observer.clear()
        with service_for(broker, homeassistant=False):
            observer.wait_for(lambda m: m.topic == CONFIG and not m.payload)


@pytest.mark.promise("home-assistant-forgets")
def test_what_is_removed_while_the_daemon_is_off_disappears(broker, service_for):
    with Observer(broker) as observer:
        observer.subscribe("homeassistant/#")
        with service_for(broker, homeassistant=True):
            observer.wait_for(lambda m: m.topic == CONFIG)
        observer.clear()
        second = service_for(broker, homeassistant=True)
        del second.handler.states["mic"]
        with second:
            messages = observer.wait_count(lambda m: m.topic == CONFIG, 2)
            assert messages[0].json["components"]["mic_image"] == {"platform": "image"}
            assert "mic_image" not in messages[1].json["components"]


def test_replies_and_events_as_published_fit_their_schemas(broker, service_for):
    with service_for(broker) as thread, Observer(broker) as observer:
        observer.subscribe(f"{BASE}/#")
        thread.connected()
        commands = [("recorder/cam0/start", b'{"id":"a","args":{"duration_s":5}}'), ("recorder/cam0/fly", b""),
                    ("daemon/ping", b"{}"), ("recorder/cam0/stop", b"x"), ("recorder/nope/get", b"")]  # fmt: skip
        for path, payload in commands:
            observer.publish(f"{BASE}/cmd/{path}", payload)
        for reply in observer.wait_count(lambda m: "/reply/" in m.topic, len(commands)):
            check(reply.json, "reply.json")
            assert (reply.qos, reply.retain) == (1, False)
        device = {
            "device_id": "d",
            "kind": "videoinput",
            "label": "Camera",
            "group_id": "g",
            "ts": "2026-11-20T18:00:00Z",
        }
        thread.publish_event("device", {"event_type": "added"} | device)
        check(observer.wait_for(lambda m: m.topic == f"{BASE}/event/device").json, "event-device.json")
        check(observer.wait_for(lambda m: m.topic == f"{BASE}/availability").payload.decode(), "availability.json")


@pytest.mark.promise("lost-events-are-told")
@pytest.mark.effect("state-health: dropped")
def test_lost_events_are_reported_with_their_number(broker, service_for, monkeypatch):
    monkeypatch.setattr("msrecd.mqtt.spool.EVENT_LIMIT", 100)
    broker.stop()
    with service_for(broker) as thread:
        for number in range(150):
            thread.publish_event("recorder/cam0", {"event_type": "gap", "n": number})
        thread.wait(lambda service: service.health()["dropped"] == 50 and service.health()["spooled"] == 100)
    broker.start()
    with Observer(broker) as observer:
        observer.subscribe(f"{BASE}/event/#")
        with service_for(broker):
            report = observer.wait_for(lambda m: m.topic == f"{BASE}/event/error").json
        check(report, "event-error.json")
        assert (report["code"], report["count"]) == ("events_dropped", 50)
        events = [m.json["n"] for m in observer.messages if m.topic == f"{BASE}/event/recorder/cam0"]
        assert events == list(range(events[0], 150))
        observer.clear()
        with service_for(broker) as thread:
            thread.connected()
            thread.wait(lambda service: service.health()["spooled"] == 0)
        assert not [m for m in observer.messages if m.topic == f"{BASE}/event/error"]


def test_the_schemas_refuse_what_is_wrong():
    refused({"id": None, "status": "ok", "ts": "2026-11-20T18:00:00Z"}, "reply.json")
    refused({"event_type": "chunk", "event_id": "pi-test/7/000001"}, "event-recorder.json")
    refused({"event_type": "dropped", "event_id": "pi-test/7/000001"}, "event-recorder.json")
    refused({"state": "busy"}, "state-recorder.json")
    refused({"profile": 1}, "command.json")
    codes = json.loads((SCHEMAS / "reply.json").read_text())["oneOf"][1]["properties"]["error"]["properties"]["code"][
        "enum"
    ]
    assert set(codes) == set(RETRYABLE)
    events = json.loads((SCHEMAS / "event-recorder.json").read_text())["properties"]["event_type"]["enum"]
    assert set(events) == set(RECORDER_EVENTS)
