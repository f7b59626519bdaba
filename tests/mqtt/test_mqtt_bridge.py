"""The bridge of config/mosquitto between two real brokers: a site's devices, commanded from the centre."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from broker import Broker, Observer

EXAMPLE = Path(__file__).parents[2] / "config" / "mosquitto" / "bridge.conf"
BASE = "msrecd/v1/pi-test"


def bridge_to(centre: Broker) -> str:
    """The example, with this address, without passwords and TLS, and quick to try again."""
    text = EXAMPLE.read_text()
    changed = {
        r"^address .*$": f"address 127.0.0.1:{centre.port}",
        r"^(remote_username|remote_password|bridge_cafile) .*$": "",
        r"^restart_timeout .*$": "restart_timeout 1",
    }
    for pattern, replacement in changed.items():
        text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        assert count, f"the example has no line {pattern}"
    return text


@pytest.mark.timeout(300)
@pytest.mark.promise("bridge", "fleet-commands")
def test_a_site_is_commanded_from_the_centre_and_tells_it_everything(
    tmp_path: Path, service_for: Callable[..., Any]
) -> None:
    with Broker(tmp_path / "centre") as centre, Broker(tmp_path / "site", config=bridge_to(centre)) as site:
        with Observer(centre) as person:
            person.subscribe("msrecd/#")
            person.wait_for(lambda m: m.topic == "msrecd/bridge/north-field" and m.payload == b"1", 30)
            with service_for(site) as device:
                person.wait_for(lambda m: m.topic == f"{BASE}/availability" and m.payload == b"online", 30)
                person.publish(f"{BASE}/cmd/recorder/cam0/start", {"id": "far"})
                reply = person.wait_for(lambda m: m.topic == f"{BASE}/reply/recorder/cam0/start", 30)
                assert (reply.json["id"], reply.json["changed"]) == ("far", True)
                person.wait_for(lambda m: m.topic == f"{BASE}/event/recorder/cam0")
                person.wait_for(lambda m: m.topic == f"{BASE}/state/recorder/cam0" and b"recording" in m.payload)
                person.publish("msrecd/v1/group/all/cmd/recorder/cam0/stop", {"id": "everybody"})
                person.wait_for(lambda m: m.topic == f"{BASE}/reply/recorder/cam0/stop")
                # The line breaks: the site goes on, and what happened meanwhile comes later.
                centre.kill()
                for number in range(50):
                    device.publish_event("recorder/cam0", {"event_type": "gap", "n": number})
                device.wait(lambda service: service.health()["spooled"] == 0)
                person.clear()
                site.pause()  # so that the person is back before the bridge is
                centre.start()
                person.listening("msrecd/mark")
                site.resume()
                person.wait_for(lambda m: m.topic == f"{BASE}/event/recorder/cam0" and m.json.get("n") == 49, 60)
                numbers = [
                    m.json["n"] for m in person.messages if m.topic == f"{BASE}/event/recorder/cam0" and "n" in m.json
                ]
                assert list(dict.fromkeys(numbers)) == list(range(50))
            person.wait_for(lambda m: m.topic == f"{BASE}/availability" and m.payload == b"offline", 30)
        with Observer(centre) as late:
            late.subscribe("msrecd/v1/#")
            state = late.wait_for(lambda m: m.topic == f"{BASE}/availability", 10)
            assert (state.payload, state.retain) == (b"offline", True)
