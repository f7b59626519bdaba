"""Everything a real daemon publishes, against the schemas in docs/schemas."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest
from broker import Broker, Observer
from config_text import camera, microphone, recorder, window
from console import BASE, Console
from daemon import DaemonFor

jsonschema = pytest.importorskip("jsonschema")
from payloads import SCHEMAS, TABLE, check, judge, validator  # noqa: E402 - needs jsonschema

RECORDERS = (
    camera(audio=True)
    + microphone("mic0")
    + window(start="sunrise", duration="1h")
    + recorder("broken", audio={"device_id": {"exact": "no-such-device"}}, autostart=True)
)
LOCATION = "\n[location]\nlatitude = 52.5\nlongitude = 13.4\n[homeassistant]\ndiscovery = true\n"
REPLIED = {"recorder/cam0/get": "state-recorder.json", "daemon/ping": "state-daemon.json",
           "daemon/health": "state-health.json"}  # fmt: skip


def test_the_schemas_are_schemas() -> None:
    for path in SCHEMAS.glob("*.json"):
        jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))


@pytest.mark.promise("payloads-fit-schemas")
@pytest.mark.effect("config: homeassistant.discovery")
def test_all_that_is_published_is_as_documented(
    daemon_for: DaemonFor, broker: Broker, console: Console, observer: Observer
) -> None:
    replies: dict[str, Any] = {}
    with daemon_for(LOCATION + RECORDERS) as daemon:
        console.wait("availability")
        console.wait_state("error", recorder="broken")
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
