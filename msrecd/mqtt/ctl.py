"""Sending commands from outside: what `msrecd ctl` uses. Blocking; every function has a deadline.

The settings are those of a connection: host, port, secrets. On a device its own may be used, as far as the broker's
ACL lets it; elsewhere those of a console user.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from msrecd.control.messages import command_path, encode_command
from msrecd.mqtt.connection import MqttClient
from msrecd.mqtt.settings import MqttSettings, is_about_login, password_hint
from msrecd.mqtt.topics import PREFIX
from msrecd.mqtt.wire import ConnectError, Message, PublishError
from msrecd.vocabulary.names import is_device_id, is_name

NOBODY_LISTENS = "No matching subscribers"
# After this long without another message, what the broker had retained has arrived.
QUIET_S = 0.5

Reply = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetDevice:
    """A device as its retained topics show it: `availability` and the state of every recorder."""

    device_id: str
    availability: str = "unknown"
    recorders: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


def send_command(
    settings: MqttSettings,
    device_id: str,
    recorder: str | None,
    verb: str,
    args: Mapping[str, object] | None = None,
    timeout_s: float = 10.0,
) -> Reply | None:
    """Send a command to a recorder (None: to the daemon) and wait for the reply; None when none comes.

    Raises:
        ConnectError: the broker cannot be reached or refuses the connection; nothing was sent.
        PublishError: the broker refuses the command (its ACL).
        ConfigError: a secret or certificate cannot be used.
        ValueError: a name that can be no device's or recorder's.
    """
    if not is_device_id(device_id):
        raise ValueError(f"{device_id!r} is not a device id")
    path = command_path(recorder, verb)
    response_topic = f"{PREFIX}/{device_id}/reply/ctl-{secrets.token_hex(6)}"
    call = _Call(settings, timeout_s, [response_topic])
    replies = asyncio.run(
        call.run(
            f"{PREFIX}/{device_id}/cmd/{path}", encode_command(call.id, args), response_topic, lambda got: bool(got)
        )
    )
    return next(iter(replies.values()), None)


def send_group(
    settings: MqttSettings,
    group: str,
    recorder: str | None,
    verb: str,
    args: Mapping[str, object] | None = None,
    timeout_s: float = 10.0,
    expect: Collection[str] = (),
) -> dict[str, Reply]:
    """Send one command to a group ("all" is everyone) and collect the replies by device for `timeout_s` seconds.

    Returns earlier when every device of `expect` has answered. Raises as `send_command`.
    """
    if not is_name(group):
        raise ValueError(f"{group!r} is not the name of a group")
    path = command_path(recorder, verb)
    call = _Call(settings, timeout_s, [f"{PREFIX}/+/reply/{path}"])
    wanted = frozenset(expect)
    return asyncio.run(
        call.run(
            f"{PREFIX}/group/{group}/cmd/{path}",
            encode_command(call.id, args),
            None,
            lambda got: bool(wanted) and wanted <= got.keys(),
        )
    )


def fleet_status(settings: MqttSettings, timeout_s: float = 5.0) -> list[FleetDevice]:
    """What every device last said of itself, from the broker's retained topics. Raises as `send_command`."""
    call = _Call(settings, timeout_s, [f"{PREFIX}/+/availability", f"{PREFIX}/+/state/recorder/+"])
    asyncio.run(call.collect())
    return fleet_of(call.messages)


def fleet_of(messages: Collection[Message]) -> list[FleetDevice]:
    """The devices that these retained messages describe, by name. What is not readable is left out."""
    availability: dict[str, str] = {}
    recorders: dict[str, dict[str, Mapping[str, object]]] = {}
    for message in messages:
        levels = message.topic.removeprefix(f"{PREFIX}/").split("/")
        if not is_device_id(levels[0]) or not message.payload:
            continue
        recorders.setdefault(levels[0], {})
        if levels[1:] == ["availability"]:
            availability[levels[0]] = message.payload[:20].decode("utf-8", "replace")
        elif len(levels) == 4 and is_name(levels[3]):
            value = _object(message.payload)
            if value is not None:
                recorders[levels[0]][levels[3]] = value
    return [
        FleetDevice(device_id=name, availability=availability.get(name, "unknown"), recorders=recorders[name])
        for name in sorted(recorders)
    ]


def _object(payload: bytes) -> Reply | None:
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class _Call:
    """One short connection: send at most one command, collect what comes. A ClientListener."""

    def __init__(self, settings: MqttSettings, timeout_s: float, subscriptions: Collection[str]) -> None:
        self.id = f"ctl-{secrets.token_hex(8)}"
        self.messages: list[Message] = []
        self._settings = settings
        self._timeout_s = timeout_s
        self._subscriptions = subscriptions
        self._replies: dict[str, Reply] = {}
        self._changed = asyncio.Event()
        self._lost: str | None = None

    async def run(
        self, topic: str, payload: bytes, response_topic: str | None, enough: Callable[[dict[str, Reply]], bool]
    ) -> dict[str, Reply]:
        """Publish the command and collect replies with its id until `enough` or the deadline."""
        client = await self._connect()
        deadline = time.monotonic() + self._timeout_s
        try:
            sent = client.publish(
                topic,
                payload,
                qos=1,
                retain=False,
                response_topic=response_topic,
                expiry_s=max(1, int(self._timeout_s)),
            )
            try:
                reason = await asyncio.wait_for(asyncio.shield(sent), self._timeout_s)
            except TimeoutError:
                return self._replies
            if reason == NOBODY_LISTENS:
                return self._replies
            while not enough(self._replies) and self._lost is None:
                if not await self._wait(deadline - time.monotonic()):
                    break
            if self._lost is not None and not self._replies:
                raise PublishError(f"{self._lost}; whether the command was run is not known")
            return self._replies
        finally:
            await client.stop(1.0)

    async def collect(self) -> None:
        """Collect messages until none comes for a moment, or the deadline."""
        client = await self._connect()
        deadline = time.monotonic() + self._timeout_s
        try:
            while await self._wait(min(QUIET_S, deadline - time.monotonic())):
                pass
        finally:
            await client.stop(1.0)

    async def _connect(self) -> MqttClient:
        client = MqttClient(
            self._settings,
            self,
            client_id=f"msrecd-ctl-{secrets.token_hex(6)}",
            plain_subscriptions=self._subscriptions,
            persistent=False,
            retry=False,
        )
        client.start()
        deadline = time.monotonic() + self._timeout_s
        while not client.connected and client.failure is None and time.monotonic() < deadline:
            await self._wait(0.05)
        if not client.connected:
            await client.stop(0.2)
            where = f"MQTT broker {self._settings.host}:{self._settings.effective_port}"
            reason = client.failure or "no answer"
            if is_about_login(reason):
                reason += password_hint(self._settings)
            raise ConnectError(f"{where}: {reason}")
        return client

    async def _wait(self, timeout_s: float) -> bool:
        """Whether something came within the time."""
        if timeout_s <= 0:
            return False
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    def connected(self, hears: bool) -> None:
        self._changed.set()

    def disconnected(self, reason: str) -> None:
        self._lost = reason
        self._changed.set()

    def message(self, message: Message) -> None:
        self.messages.append(message)
        reply = _object(message.payload)
        if reply is not None and reply.get("id") == self.id:
            self._replies.setdefault(message.topic.removeprefix(f"{PREFIX}/").partition("/")[0], reply)
        self._changed.set()
