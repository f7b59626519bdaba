"""Everything a real daemon publishes, against the schemas in docs/schemas."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from broker import Broker, Observer, Received
from console import BASE, Console
from daemon import DaemonProcess, configuration

jsonschema = pytest.importorskip("jsonschema")

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
RECORDERS = """
[[recorder]]
name = "cam0"
video = { width = 320, height = 240, frame_rate = 30 }
audio = true
mime_type = "video/mp4"
timeslice = "500ms"
chunk_duration = "2s"

[[recorder]]
name = "mic0"
audio = true
mime_type = "audio/flac"
timeslice = "500ms"
[[recorder.schedule]]
start = "sunrise"
duration = "1h"

[[recorder]]
name = "broken"
audio = { device_id = { exact = "no-such-device" } }
autostart = true
"""
LOCATION = "\n[location]\nlatitude = 52.5\nlongitude = 13.4\n[homeassistant]\ndiscovery = true\n"
# Topic, schema, QoS, retained: the table of the documentation.
TABLE = (
    ("availability", "availability.json", 1, True),
    ("state/daemon", "state-daemon.json", 1, True),
    ("state/devices", "state-devices.json", 1, True),
    ("state/recorder/[a-z0-9-]+", "state-recorder.json", 1, True),
    ("state/health", "state-health.json", 0, True),
    ("event/recorder/[a-z0-9-]+", "event-recorder.json", 1, False),
    ("event/device", "event-device.json", 1, False),
    ("event/error", "event-error.json", 1, False),
    ("image/[a-z0-9-]+", "", 0, True),
    ("reply/.+", "reply.json", 1, False),
)
REPLIED = {"recorder/cam0/get": "state-recorder.json", "daemon/ping": "state-daemon.json",
           "daemon/health": "state-health.json"}  # fmt: skip


def validator(name: str) -> Any:
    return jsonschema.Draft202012Validator(json.loads((SCHEMAS / name).read_text()))


def described(schema: dict[str, Any]) -> set[str]:
    """The keys of the object that a schema knows, in whatever branch."""
    names = set(schema.get("properties", {}))
    for part in (*schema.get("allOf", ()), *schema.get("oneOf", ()), schema.get("then", {})):
        names |= described(part) if part else set()
    return names


def check(payload: Any, name: str) -> None:
    """Valid, and without a key that the documentation does not know."""
    used = validator(name)
    used.validate(payload)
    if isinstance(payload, dict):
        assert set(payload) <= described(used.schema), f"{name} does not describe all of {sorted(payload)}"


def judge(message: Received) -> str:
    """Check one message by its topic; the row of the table it belongs to."""
    topic = message.topic.removeprefix(BASE)
    row = next((row for row in TABLE if re.fullmatch(row[0], topic)), None)
    assert row is not None, f"{topic} is not in the contract"
    pattern, schema, qos, _ = row
    assert message.qos == qos, topic
    assert not message.retain, f"{topic}: an established subscriber gets it without the flag"
    if not schema:
        assert message.payload.startswith(b"\xff\xd8\xff")
        assert message.payload.endswith(b"\xff\xd9")
    elif topic == "availability":
        validator(schema).validate(message.payload.decode())
    else:
        check(message.json, schema)
    return pattern


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def console(broker: Broker) -> Iterator[Console]:
    console = Console(broker.port)
    yield console
    console.close()


@pytest.fixture
def observer(broker: Broker) -> Iterator[Observer]:
    with Observer(broker) as watching:
        watching.subscribe("msrecd/#", "homeassistant/#")
        yield watching


def test_the_schemas_are_schemas() -> None:
    for path in SCHEMAS.glob("*.json"):
        jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))


def test_all_that_is_published_is_as_documented(
    tmp_path: Path, broker: Broker, console: Console, observer: Observer
) -> None:
    config = configuration(tmp_path, port=broker.port, recorders=LOCATION + RECORDERS)
    replies: dict[str, Any] = {}
    with DaemonProcess(tmp_path, config) as daemon:
        console.wait("availability")
        console.wait("state/recorder/broken", lambda state: state["state"] == "error")
        console.command("recorder/cam0/start", {"duration_s": 600})
        console.command("recorder/mic0/start")
        daemon.wait_for_chunks(1)
        for verb in ("pause", "resume", "split", "snapshot", "get"):
            replies[f"recorder/cam0/{verb}"] = console.command(f"recorder/cam0/{verb}")
        for verb in ("ping", "devices", "health", "reload"):
            replies[f"daemon/{verb}"] = console.command(f"daemon/{verb}")
        for recorder in ("cam0", "mic0", "broken"):
            assert console.command(f"recorder/{recorder}/stop")["status"] == "ok"
        assert console.command("recorder/cam0/pause")["status"] == "error"
        # An error of the daemon: a configuration that it cannot take.
        daemon.config.write_text("config_version = 1\n[storage]\nmax_totl = 3\n")
        assert console.command("daemon/reload")["status"] == "error"
        console.wait("event/error")
        retained = _retained(broker)
    assert not [path for path, reply in replies.items() if reply["status"] != "ok"]
    for path, schema in REPLIED.items():
        check(replies[path]["data"], schema)
    validator("state-devices.json").validate(replies["daemon/devices"]["data"]["devices"])
    own = [m for m in observer.messages if m.topic.startswith(BASE) and not m.topic.startswith(BASE + "cmd/")]
    seen = Counter(judge(message) for message in own)
    never = {row[0] for row in TABLE} - set(seen) - {"event/device"}  # no virtual device comes or goes here
    assert not never
    kinds = {m.json["event_type"] for m in own if m.topic == BASE + "event/recorder/cam0"}
    assert kinds >= {"started", "chunk", "paused", "resumed", "stopped"}
    ids = [m.json["event_id"] for m in own if m.topic.startswith(BASE + "event/")]
    assert len(ids) == len(set(ids))
    for recorder in ("cam0", "mic0", "broken"):
        revisions = [m.json["rev"] for m in own if m.topic == f"{BASE}state/recorder/{recorder}"]
        assert revisions == sorted(revisions)
    discovery = [m for m in observer.messages if m.topic == "homeassistant/device/test-device/config"]
    assert discovery
    validator("homeassistant-discovery.json").validate(discovery[-1].json)
    kept = {pattern for topic in retained for pattern, *_ in TABLE if re.fullmatch(pattern, topic)}
    assert kept == {pattern for pattern, _, _, retain in TABLE if retain}


def _retained(broker: Broker) -> set[str]:
    """The topics below the device that a new subscriber gets at once."""
    with Observer(broker) as late:
        late.subscribe(BASE + "#")
        late.publish("test/mark", b"")
        late.wait_for(lambda message: message.topic == BASE + "availability")
        late.wait_for(lambda message: message.topic == BASE + "image/cam0")
        return {message.topic.removeprefix(BASE) for message in late.messages if message.retain}
