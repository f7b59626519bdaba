"""What the contract says of topics and payloads, and judges of what is really published. Needs jsonschema."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any, Protocol

import jsonschema
from console import BASE

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
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


class Message(Protocol):
    """broker.Received, or anything like it."""

    @property
    def topic(self) -> str: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def retain(self) -> bool: ...
    @property
    def qos(self) -> int: ...


@functools.cache
def validator(name: str) -> Any:
    return jsonschema.Draft202012Validator(json.loads((SCHEMAS / name).read_text()))


@functools.cache
def known_keys(name: str) -> frozenset[str]:
    """The keys of the object that a schema knows, in whatever branch."""

    def described(schema: dict[str, Any]) -> set[str]:
        names = set(schema.get("properties", {}))
        for part in (*schema.get("allOf", ()), *schema.get("oneOf", ()), schema.get("then", {})):
            names |= described(part) if part else set()
        return names

    return frozenset(described(validator(name).schema))


def check(payload: Any, name: str) -> None:
    """Valid, and without a key that the documentation does not know.

    Raises:
        AssertionError, jsonschema.ValidationError
    """
    validator(name).validate(payload)
    if isinstance(payload, dict):
        assert set(payload) <= known_keys(name), f"{name} does not describe all of {sorted(payload)}"


def judge(message: Message, *, stored: bool = False) -> str:
    """Check one message below the device by its topic; the row of the table it belongs to.

    Args:
        stored: the broker may have sent what was retained before the subscription.

    Raises:
        AssertionError, jsonschema.ValidationError
    """
    topic = message.topic.removeprefix(BASE)
    row = next((row for row in TABLE if re.fullmatch(row[0], topic)), None)
    assert row is not None, f"{topic} is not in the contract"
    pattern, schema, qos, retained = row
    if not message.payload and retained:
        return pattern  # cleared, and not to be lost: it is no longer configured
    assert message.qos == qos, f"{topic} came with QoS {message.qos}"
    assert not message.retain or (stored and retained), f"{topic}: an established subscriber gets it without the flag"
    if not schema:
        assert message.payload.startswith(b"\xff\xd8\xff")
        assert message.payload.endswith(b"\xff\xd9")
    elif topic == "availability":
        validator(schema).validate(message.payload.decode())
    else:
        check(json.loads(message.payload), schema)
    return pattern
