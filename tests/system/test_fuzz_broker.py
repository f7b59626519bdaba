"""Hostile messages, as fast as a real broker takes them, at a whole daemon that is recording.

Five thousand in the ordinary run; `MSRECD_FUZZ_BROKER=50000` for the acceptance figure.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from broker import Broker, Observer
from config_text import camera
from console import BASE, Console
from daemon import DaemonFor, DaemonProcess
from judge import assert_consecutive, numbers_of

COUNT = int(os.environ.get("MSRECD_FUZZ_BROKER", "5000"))
PART = max(250, COUNT // 20)  # the first quarter of what is measured is the warming up
OWN_FILES = r"clock\.jsonl|mqtt-.*|open|boot\d{4}-\d+-cam0-[0-9a-f]{4}\.json"  # what appears with the first recording
NAMES = (
    "cam0",
    "../cam0",
    "cam0/../../etc",
    "$(reboot)",
    "cam0;id",
    "a" * 300,
    "CAM0",
    "..",
    "%2e%2e",
    "cam\u00e9",
    "-",
)
VERBS = ("start", "stop", "pause", "resume", "split", "snapshot", "get", "set", "explode", "..", "")
HOSTILE = (
    b"", b"\0", b"\xff\xfe", b"{", b"[" * 8000, b'{"args":' * 1500, b'{"args":{"duration_s":NaN}}',
    b'{"args":{"duration_s":1e999}}', b'{"args":{"duration_s":-1}}', b'{"args":{"duration_s":' + b"9" * 4000 + b"}}",
    b'{"args":{"path":"../../etc/passwd"}}', b'{"id":"../../x\\n"}',
    b'{"id":"' + b"i" * 9000 + b'"}', b'{"id":"\\ud800"}',
    b'{"issued_at":"soon"}', b'{"__class__":"os.system"}', b'"ON"', b"TRUE", b"on", b"null", b"x" * 16_385,
    b'{"id":"a","id":"b"}', "\u202eON".encode(), b"<?xml version='1.0'?>", b"${jndi:ldap://x}",
)  # fmt: skip
HANDLED = re.compile(r"command \S.* id ")
TOO_FAST = re.compile(r"too fast: (\d+) refused")
# What is valid there must not be sent: an empty payload is a command.
_HARMLESS = (b"", b"{}")


def refused_for_rate(daemon: DaemonProcess) -> int:
    """What the daemon's log said last about it."""
    return max((int(number) for number in TOO_FAST.findall(daemon.log.read_text())), default=0)


def hostile(chance: random.Random) -> tuple[str, bytes]:
    """A topic below cmd/ and a payload, at least one of which is wrong."""
    if chance.random() < 0.5:
        path = f"recorder/cam0/{chance.choice(VERBS[:8])}"
    elif chance.random() < 0.5:
        path = f"recorder/{chance.choice(NAMES)}/{chance.choice(VERBS)}"
    else:
        path = f"{chance.choice(('daemon', 'recorder', 'x', ''))}/{chance.choice(('reload', 'explode', '..', 'cam0'))}"
    payload = chance.choice(HOSTILE) if chance.random() < 0.7 else b"\x80" + chance.randbytes(chance.randrange(300))
    if payload in _HARMLESS:
        payload = b"]"
    return path, payload


class Flood:
    """A client that sends as fast as the broker acknowledges."""

    def __init__(self, port: int) -> None:
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.max_inflight_messages_set(200)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def send(self, messages: list[tuple[str, bytes]], timeout_s: float) -> None:
        last: Any = None
        for path, payload in messages:
            last = self._client.publish(BASE + "cmd/" + path, payload, qos=1)
        last.wait_for_publish(timeout_s)
        assert last.is_published()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Keeps what waits for a slow subscriber, however much it is."""
    with Broker(tmp_path / "broker", config="max_queued_messages 0") as running:
        yield running


def attack(tmp_path: Path, broker: Broker, daemon: DaemonProcess, count: int, seed: int) -> None:
    """Send `count` messages; nothing changes, nothing grows, and people are heard afterwards."""
    chance = random.Random(seed)
    console = Console(broker.port)
    with daemon, Observer(broker) as observer:
        console.wait("availability")
        recording = console.command("recorder/cam0/start")["data"]["recording_id"]
        before = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if "cam0" not in path.parts}
        console.close()
        observer.subscribe(BASE + "reply/#")
        flood = Flood(broker.port)
        begun, sizes, sent = time.monotonic(), [daemon.status("RssAnon")], 0
        while sent < count:
            part = [hostile(chance) for _ in range(min(PART, count - sent))]
            flood.send(part, 60)
            sent += len(part)
            sizes.append(daemon.status("RssAnon"))
        # The daemon says now and then how many it refused for coming too fast; the others it looked into.
        deadline = time.monotonic() + 60
        while (refused := refused_for_rate(daemon)) + len(HANDLED.findall(daemon.log.read_text())) < count:
            assert time.monotonic() < deadline, f"of {count} messages {refused} are known to have arrived"
            flood.send([hostile(chance) for _ in range(100)], 30)
            time.sleep(1.0)
        flood.close()
        took = time.monotonic() - begun
        replies = [message for message in observer.messages if message.topic.startswith(BASE + "reply/")]
        console = Console(broker.port)
        console.wait("availability")
        deadline = time.monotonic() + 60
        while (state := console.command("recorder/cam0/get")).get("status") != "ok":
            assert time.monotonic() < deadline, f"nobody is heard any more: {state}"
            time.sleep(0.5)
        assert state["data"]["state"] == "recording"
        assert state["data"]["recording_id"] == recording
        assert state["data"]["until"] is None
        after = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if "cam0" not in path.parts}
        assert console.command("recorder/cam0/stop")["status"] == "ok"
        console.close()
    print(
        f"{sent} messages in {took:.0f} s; resident MiB before and after each {PART}: "
        f"{[round(size / 2**20, 1) for size in sizes]}; {len(replies)} replies, "
        f"the longest of {max(len(reply.payload) for reply in replies)} bytes"
    )
    assert "Traceback" not in daemon.log.read_text()
    assert daemon.log.stat().st_size < 200 * count, "the log grows with the flood"
    strange = [path for path in after - before if not re.fullmatch(OWN_FILES, path.name)]
    assert not strange, "the flood made files"
    assert replies, "not even the first ones were answered"
    for reply in replies:
        value = json.loads(reply.payload)
        assert value["status"] == "error"
        assert value["error"]["code"] in ("bad_payload", "bad_args", "unknown_verb", "unknown_recorder", "rate_limited")
        assert len(reply.payload) < 1500
    quarter = max(1, len(sizes) // 4)
    assert max(sizes[-quarter:]) - max(sizes[:quarter]) < 16 << 20, [size >> 20 for size in sizes]
    assert_consecutive(numbers_of(daemon.chunks()))


@pytest.mark.timeout(300 + COUNT // 200)
@pytest.mark.promise("malformed-messages")
def test_hostile_messages(tmp_path: Path, broker: Broker, daemon_for: DaemonFor) -> None:
    attack(tmp_path, broker, daemon_for(camera(chunk_duration="5s")), COUNT, 2)
