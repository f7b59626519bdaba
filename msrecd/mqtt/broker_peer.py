"""One client of a broker that is tried, with every wait bounded. Blocking."""

from __future__ import annotations

import queue
import time
from typing import Any

from msrecd.mqtt.client import connect_properties, new_client, publish_properties, subscribe_options
from msrecd.mqtt.settings import MqttSettings, is_about_login, password_hint
from msrecd.mqtt.wire import ConnectError, unreachable

ANSWER_S = 10.0  # for everything that a broker should do at once


class Broken(Exception):
    """The broker did something else; the message says what."""


class Untried(Exception):
    """The rule cannot be tried here; the message says why."""


class Peer:
    """One client of the broker."""

    def __init__(self, settings: MqttSettings, name: str, *, will: tuple[str, int] | None = None) -> None:
        self.messages: queue.Queue[Any] = queue.Queue()
        self._facts: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._will = will
        self._settings = settings
        self.name = name
        self.client: Any = None
        self.properties: Any = None
        self.refusal: str | None = None  # why the broker refused the last message that it acknowledged

    def connect(self, *, clean: bool = True, expiry_s: int = 0, limit_bytes: int | None = None) -> Peer:
        """Raises: ConnectError: refused, or no answer."""
        facts: queue.Queue[tuple[str, Any]] = queue.Queue()  # of this connection only
        self._facts = facts
        self.client = client = new_client(self._settings, self.name)
        if self._will is not None:
            topic, delay_s = self._will
            client.will_set(topic, b"gone", qos=1, retain=True, properties=publish_properties(will_delay_s=delay_s))
        client.max_inflight_messages_set(20)
        client.max_queued_messages_set(0)
        client.on_connect = lambda _c, _u, _f, code, properties: facts.put(("connect", (code, properties)))
        client.on_disconnect = lambda _c, _u, _f, code, _p: facts.put(("disconnect", code))
        client.on_subscribe = lambda _c, _u, _m, codes, _p: facts.put(("subscribe", codes))
        client.on_publish = lambda _c, _u, _m, code, _p: self._acknowledged(code)
        client.on_message = lambda _c, _u, message: self.messages.put(message)
        settings = self._settings
        try:
            client.connect(
                settings.address,
                settings.effective_port,
                keepalive=settings.keepalive_s,
                clean_start=clean,
                properties=connect_properties(session_expiry_s=expiry_s, packet_limit_bytes=limit_bytes),
            )
        except (OSError, ValueError) as exc:  # ValueError: a name that is none
            raise ConnectError(unreachable(exc)) from exc
        client.loop_start()
        kind, fact = self._fact("connect", "disconnect")
        if kind == "connect" and not fact[0].is_failure:
            self.properties = fact[1]
            return self
        self.close()
        reason = str(fact[0] if kind == "connect" else fact)
        raise ConnectError(
            f"refuses the connection: {reason}{password_hint(settings) if is_about_login(reason) else ''}"
        )

    def subscribe(self, *filters: str, handling: int = 0) -> None:
        """Raises: Broken: a subscription is refused, or not answered."""
        options = subscribe_options(retain_handling=handling)
        self.client.subscribe([(topic, options) for topic in filters])
        _, codes = self._fact("subscribe")
        for topic, code in zip(filters, codes, strict=False):
            if code.is_failure:
                raise Broken(f"the subscription to {topic} is refused: {code}")

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, **properties: Any) -> None:
        """With QoS 1, acknowledged. Raises: Broken."""
        info = self.client.publish(topic, payload, qos=1, retain=retain, properties=publish_properties(**properties))
        try:
            info.wait_for_publish(ANSWER_S)
        except (RuntimeError, ValueError) as exc:
            raise Broken(f"a message of {len(payload)} bytes is not taken: {exc}") from exc
        if not info.is_published():
            raise Broken(f"a message of {len(payload)} bytes is not acknowledged within {ANSWER_S:g} s")

    def next(self, timeout_s: float = ANSWER_S) -> Any:
        """The next message, None when none comes."""
        try:
            return self.messages.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def is_connected(self) -> bool:
        return bool(self.client.is_connected())

    def drop(self) -> None:
        """Lose the connection, as a device whose power fails."""
        client = self.client
        client.on_disconnect = None
        client.reconnect_delay_set(60, 60)
        socket = client.socket()
        if socket is not None:
            socket.close()
        client.loop_stop()

    def close(self) -> None:
        client, self.client = self.client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()
            # Nothing refers to it any more, so its sockets are closed now, not by a collection of garbage.
            client.on_connect = client.on_disconnect = client.on_subscribe = None
            client.on_publish = client.on_message = None

    def _acknowledged(self, code: Any) -> None:
        self.refusal = str(code) if code.is_failure else None

    def _fact(self, *kinds: str) -> tuple[str, Any]:
        deadline = time.monotonic() + ANSWER_S
        while (left := deadline - time.monotonic()) > 0:
            try:
                kind, fact = self._facts.get(timeout=left)
            except queue.Empty:
                break
            if kind in kinds:
                return kind, fact
            if kind == "disconnect":
                raise Broken(f"the broker ends the connection: {fact}")
        raise Broken(f"no answer within {ANSWER_S:g} s")
