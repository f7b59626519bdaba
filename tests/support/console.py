"""A person at the broker: sends commands to a daemon under test, sees states, events and replies."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as mqtt
from waiting import until

BASE = "msrecd/v1/test-device/"


class Console:
    """A person at the broker: sends commands, sees states, events and replies."""

    def __init__(self, port: int) -> None:
        self.messages: list[tuple[str, Any]] = []
        self.times: list[float] = []  # monotonic, of each message
        self.unlawful: list[str] = []  # what was published and is not as documented
        self._arrived = threading.Condition()
        self._hears = False  # the device: commands that come before it has subscribed are lost
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe("msrecd/#", qos=1)
        self._client.on_message = self._take
        # Sooner than the daemon (at least 1 s), or its first words after an outage would go unheard.
        self._client.reconnect_delay_set(0.02, 0.05)  # type: ignore[arg-type]
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._port = port
        self._number = 0

    def _take(self, _client: object, _data: object, message: Any) -> None:
        try:
            payload = json.loads(message.payload)
        except ValueError:
            payload = message.payload.decode("utf-8", "replace")
        self._judge(message)
        with self._arrived:
            self.messages.append((message.topic, payload))
            self.times.append(time.monotonic())
            if message.topic == BASE + "availability":
                self._hears = payload == "online"
            self._arrived.notify_all()

    def _judge(self, message: Any) -> None:
        """Hold what a device published against the schemas, in every test that has a console."""
        path = message.topic.removeprefix(BASE)
        if path == message.topic or path.startswith("cmd/"):
            return
        with contextlib.suppress(ImportError):  # without jsonschema the test of the payloads is skipped as well
            from payloads import judge

            try:
                judge(message, stored=True)
            except Exception as exc:  # of whatever kind: it must not end this thread
                self.unlawful.append(f"{path}: {str(exc)[:300]} in {message.payload[:600]!r}")

    def wait(
        self, topic: str, predicate: Callable[[Any], object] = lambda _: True, *, timeout: float = 40.0, since: int = 0
    ) -> Any:
        """The first message of a topic (below the device) that fits."""
        deadline = time.monotonic() + timeout
        with self._arrived:
            while True:
                for known, payload in self.messages[since:]:
                    if known == BASE + topic and predicate(payload):
                        return payload
                left = deadline - time.monotonic()
                assert left > 0, f"nothing fitting on {topic}; last: {self.messages[-5:]}"
                self._arrived.wait(left)

    def command(self, path: str, args: dict[str, object] | None = None, *, timeout: float = 30.0) -> dict[str, Any]:
        """Send a command as soon as the device hears commands, and wait for its reply; `timeout` is for each."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: self._hears, timeout), f"not online; last: {self.messages[-5:]}"
        self._number += 1
        id_ = f"test-{id(self)}-{self._number}"
        since = len(self.messages)
        self._client.publish(BASE + "cmd/" + path, json.dumps({"id": id_, "args": args or {}}), qos=1)
        reply: dict[str, Any] = self.wait(
            "reply/" + path, lambda reply: reply.get("id") == id_, timeout=timeout, since=since
        )
        return reply

    def raw(self, path: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(BASE + "cmd/" + path, payload, qos=1, retain=retain)

    def close(self) -> None:
        """
        Raises:
            AssertionError: something was published that is not as documented.
        """
        self._client.disconnect()
        self._client.loop_stop()
        assert not self.unlawful, "\n".join(self.unlawful[:5])

    def send(self, path: str) -> None:
        """Send a command without waiting for anything."""
        self._client.publish(BASE + "cmd/" + path, b"{}", qos=1)

    def wait_connected(self, timeout: float = 60.0) -> None:
        """Wait until this client is connected (again)."""
        until(self._client.is_connected, "the test's own client does not reconnect", timeout=timeout)

    def wait_online(self, timeout: float = 60.0) -> None:
        """Wait until the daemon answers a ping."""

        def answers() -> bool:
            try:
                self.command("daemon/ping", timeout=2.0)
            except AssertionError:
                return False
            return True

        until(answers, "the daemon does not come back to the broker", timeout=timeout)

    def wait_delivered(self, timeout: float = 60.0) -> None:
        """Wait until no event waits in the daemon's spool."""
        until(
            lambda: not self.command("daemon/health")["data"]["mqtt"]["spooled"],
            "events stay in the spool",
            timeout=timeout,
        )

    def wait_state(
        self, state: str, *, recorder: str = "cam0", code: str | None = None, timeout: float = 40.0, since: int = 0
    ) -> Any:
        """Wait until a recorder is in this state, with an error of this code if one is named."""

        def fits(said: Any) -> bool:
            return said["state"] == state and (code is None or (said["error"] or {}).get("code") == code)

        return self.wait(f"state/recorder/{recorder}", fits, timeout=timeout, since=since)

    def wait_event(
        self, event_type: str, *, recorder: str = "cam0", timeout: float = 40.0, since: int = 0, **fields: object
    ) -> Any:
        """Wait for an event of a recorder with these fields."""
        wanted = {"event_type": event_type} | fields
        return self.wait(
            f"event/recorder/{recorder}", lambda event: event.items() >= wanted.items(), timeout=timeout, since=since
        )

    def told(self, topic: str, since: int = 0) -> list[Any]:
        """What came on a topic (below the device) so far."""
        with self._arrived:
            return [payload for known, payload in self.messages[since:] if known == BASE + topic]

    def events(self, recorder: str = "cam0") -> list[Any]:
        """Those of a recorder that came so far, as often as they came."""
        return self.told(f"event/recorder/{recorder}")

    def retained(self, topic: str, timeout: float = 10.0) -> Any:
        """What a new subscriber of a topic gets."""
        got: list[Any] = []
        arrived = threading.Event()

        def take(_client: object, _data: object, message: Any) -> None:
            got.append(json.loads(message.payload))
            arrived.set()

        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        client.on_connect = lambda client, *_: client.subscribe(BASE + topic, qos=1)
        client.on_message = take
        client.connect("127.0.0.1", self._port)
        client.loop_start()
        try:
            assert arrived.wait(timeout), f"nothing retained on {topic}"
        finally:
            client.disconnect()
            client.loop_stop()
        return got[0]
