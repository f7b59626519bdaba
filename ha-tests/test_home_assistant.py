"""A real Home Assistant core at a real broker, with a real daemon: what a person sees and presses there.

Run by scripts/ha-test.sh; not part of `make test`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from broker import Broker
from console import Console
from daemon import DaemonProcess, configuration

HASS = "/opt/ha/bin/hass"
CLIENT_ID = "http://127.0.0.1/"
READY_S = 240.0
RECORDER = """
[[recorder]]
name = "{name}"
video = {{ width = 320, height = 240, frame_rate = 15 }}
mime_type = "video/mp4"
timeslice = "500ms"
chunk_duration = "3s"
"""
DISCOVERY = "\n[homeassistant]\ndiscovery = true\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class HomeAssistant:
    """`hass` with the mqtt integration set up and an owner logged in."""

    def __init__(self, folder: Path, broker_port: int) -> None:
        self.port = free_port()
        self._url = f"http://127.0.0.1:{self.port}"
        self._token = ""
        self.log = folder / "hass.log"
        storage = folder / ".storage"
        storage.mkdir(parents=True)
        (folder / "configuration.yaml").write_text(
            f"http:\n  server_host: 127.0.0.1\n  server_port: {self.port}\napi:\nauth:\nonboarding:\nconfig:\n"
        )
        entry = {
            "entry_id": "mqtt00000000000000000000000000ab", "domain": "mqtt", "title": "broker", "version": 1,
            "minor_version": 2, "source": "user", "unique_id": None, "disabled_by": None, "pref_disable_polling": False,
            "pref_disable_new_entities": False, "discovery_keys": {}, "subentries": [],
            "created_at": "2026-01-01T00:00:00+00:00", "modified_at": "2026-01-01T00:00:00+00:00",
            "data": {"broker": "127.0.0.1", "port": broker_port, "protocol": "5"}, "options": {"discovery": True},
        }  # fmt: skip
        (storage / "core.config_entries").write_text(
            json.dumps({"version": 1, "minor_version": 5, "key": "core.config_entries", "data": {"entries": [entry]}})
        )
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [HASS, "-c", str(folder)], stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": ""}
            )

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    def _request(self, path: str, body: bytes | None = None, content_type: str = "application/json") -> Any:
        headers = {"Content-Type": content_type}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self._url + path, data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def log_in(self) -> None:
        """Wait until it answers, make the owner, take a token."""
        user = {"client_id": CLIENT_ID, "name": "Test", "username": "test", "password": "test-test", "language": "en"}
        deadline = time.monotonic() + READY_S
        while True:
            try:
                code = self._request("/api/onboarding/users", json.dumps(user).encode())["auth_code"]
                break
            except (OSError, ValueError) as exc:
                assert self._process.poll() is None, self.log.read_text()[-3000:]
                assert time.monotonic() < deadline, f"{exc}: {self.log.read_text()[-3000:]}"  # noqa: PT017
                time.sleep(1.0)
        form = {"grant_type": "authorization_code", "code": code, "client_id": CLIENT_ID}
        answer = self._request(
            "/auth/token", urllib.parse.urlencode(form).encode(), "application/x-www-form-urlencoded"
        )
        self._token = answer["access_token"]

    def states(self) -> dict[str, dict[str, Any]]:
        return {state["entity_id"]: state for state in self._request("/api/states")}

    def call(self, service: str, entity: str) -> None:
        self._request("/api/services/" + service, json.dumps({"entity_id": entity}).encode())

    def wait(self, what: str, condition: Callable[[dict[str, dict[str, Any]]], object], timeout: float = 60.0) -> Any:
        """Until the states satisfy the condition; the states."""
        deadline = time.monotonic() + timeout
        while not condition(states := self.states()):
            assert time.monotonic() < deadline, (
                f"{what}: { {name: state['state'] for name, state in states.items()} }\n{self.log.read_text()[-2000:]}"
            )
            time.sleep(0.25)
        return states


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, broker: Broker) -> Iterator[HomeAssistant]:
    running = HomeAssistant(tmp_path / "hass", broker.port)
    try:
        running.log_in()
        yield running
    finally:
        running.close()


def is_(states: dict[str, dict[str, Any]], entity: str, state: str) -> bool:
    return states.get(entity, {}).get("state") == state


@pytest.mark.timeout(600)
def test_discovered_used_and_removed(tmp_path: Path, broker: Broker, home: HomeAssistant) -> None:
    prefix = "recorder_test_device_"
    switch, state = f"switch.{prefix}cam0_recording", f"sensor.{prefix}cam0_state"
    event, image = f"event.{prefix}cam0_event", f"image.{prefix}cam0_snapshot"

    def config(*names: str, more: str = DISCOVERY) -> str:
        recorders = "".join(RECORDER.format(name=name) for name in names)
        return configuration(tmp_path, port=broker.port, recorders=more + recorders)

    with DaemonProcess(tmp_path, config("cam0", "cam1")) as daemon:
        console = Console(broker.port)
        console.wait("availability")
        states = home.wait("the switch", lambda states: is_(states, switch, "off") and is_(states, state, "inactive"))
        ours = {name for name in states if prefix in name}
        for verb in ("pause", "resume", "split", "snapshot"):
            assert f"button.{prefix}cam0_{verb}" in ours
        assert {event, image, f"binary_sensor.{prefix}cam0_problem", f"sensor.{prefix}disk_free"} <= ours
        assert f"switch.{prefix}cam1_recording" in ours

        home.call("switch/turn_on", switch)
        home.wait("recording", lambda states: is_(states, state, "recording") and is_(states, switch, "on"))
        assert console.command("recorder/cam0/get")["data"]["state"] == "recording"
        home.call("button/press", f"button.{prefix}cam0_pause")
        home.wait("paused", lambda states: is_(states, state, "paused") and is_(states, switch, "on"))
        home.call("button/press", f"button.{prefix}cam0_resume")
        home.wait("resumed", lambda states: is_(states, state, "recording"))
        before = home.states()[image]["state"]
        home.call("button/press", f"button.{prefix}cam0_snapshot")
        home.wait("snapshot", lambda states: states[image]["state"] not in (before, "unknown", "unavailable"))
        home.call("button/press", f"button.{prefix}cam0_split")
        home.wait("chunk", lambda states: states[event]["attributes"].get("event_type") == "chunk")
        home.wait("last chunk", lambda states: states[f"sensor.{prefix}cam0_last_chunk"]["state"].startswith("20"))
        home.call("switch/turn_off", switch)
        home.wait("stopped", lambda states: is_(states, switch, "off") and is_(states, state, "inactive"))
        home.wait("stopped event", lambda states: states[event]["attributes"].get("event_type") == "stopped")
        assert is_(home.states(), f"binary_sensor.{prefix}cam0_problem", "off")
        assert daemon.chunks()

        # What is no longer configured disappears; the rest stays.
        daemon.config.write_text(config("cam0"))
        assert console.command("daemon/reload")["status"] == "ok"
        states = home.wait("cam1 gone", lambda states: not any(f"{prefix}cam1" in name for name in states))
        assert switch in states
        console.close()
    home.wait("offline", lambda states: is_(states, switch, "unavailable"))

    # Switched off while the daemon was not running: nothing of it is left.
    with DaemonProcess(tmp_path, config("cam0", more="")):
        home.wait("all gone", lambda states: not any(prefix in name for name in states))
