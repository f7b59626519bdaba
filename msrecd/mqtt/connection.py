"""Keeps a connection to the broker: connects, watches, throws away, waits, connects again. On the loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection
from typing import Protocol

from msrecd.errors import ConfigError
from msrecd.mqtt.client import WINDOW, Session, failed
from msrecd.mqtt.settings import MqttSettings
from msrecd.mqtt.wire import Inbox, Message, PublishError, Will
from msrecd.vocabulary.backoff import BackOff, uniform

log = logging.getLogger(__name__)

CONNECT_DEADLINE_S = 20.0
# A client that hangs in a name server's or a handshake's time-out is left to end by itself; at most so many.
LINGERING_LIMIT = 3


class ClientListener(Protocol):
    """What the owner of a client is told, always on the loop."""

    def connected(self) -> None:
        """The broker accepted the connection and the subscriptions: commands arrive from now on."""

    def disconnected(self, reason: str) -> None:
        """The connection is over. Every outstanding publication has failed before this is called."""

    def message(self, message: Message) -> None:
        """A message arrived."""


class MqttClient:
    """Keeps one connection to the broker, for as long as it runs. All methods are called on the loop.

    With `retry` False the first failed attempt ends it: `failure` then holds the reason.
    """

    def __init__(
        self,
        settings: MqttSettings,
        listener: ClientListener,
        *,
        client_id: str,
        subscriptions: Collection[str] = (),
        plain_subscriptions: Collection[str] = (),
        will: Will | None = None,
        persistent: bool = True,
        retry: bool = True,
    ) -> None:
        """`subscriptions` are for commands (no retained ones), `plain_subscriptions` for everything else."""
        self._settings = settings
        self._listener = listener
        self._client_id = client_id
        self._subscriptions = tuple(subscriptions)
        self._plain_subscriptions = tuple(plain_subscriptions)
        self._will = will
        self._persistent = persistent
        self._retry = retry
        longest_s = max(settings.reconnect_min_s, settings.reconnect_max_s)
        self._backoff = BackOff(settings.reconnect_min_s, longest_s, spread=uniform)
        self._inbox = Inbox()
        self._session: Session | None = None
        self._window = WINDOW
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._lingering: list[Session] = []
        self._last_reason = ""
        self._dropped_logged = 0
        self.failure: str | None = None
        self.connections = 0

    @property
    def connected(self) -> bool:
        """Whether the broker accepted the connection and it is not known to be over."""
        return self._session is not None and self._session.ready

    @property
    def dropped(self) -> int:
        """How many messages arrived faster than the loop could read."""
        return self._inbox.dropped

    @property
    def outstanding(self) -> int:
        """How many publications wait for their acknowledgement."""
        return len(self._session.pending) if self._session is not None else 0

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"mqtt {self._client_id}")

    async def stop(self, timeout_s: float = 2.0) -> None:
        """Disconnect cleanly, within `timeout_s` seconds. No will is published."""
        self._stopping.set()
        if self._task is not None:
            done, _ = await asyncio.wait({self._task}, timeout=timeout_s)
            if not done:
                self._task.cancel()
                await asyncio.wait({self._task}, timeout=1.0)
        deadline = time.monotonic() + timeout_s
        for session in self._lingering:
            await asyncio.to_thread(session.join, deadline - time.monotonic())
        self._lingering = [session for session in self._lingering if session.thread_alive]
        if self._lingering:
            log.warning("%d MQTT network thread(s) still wait for the network and are left to it", len(self._lingering))

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int,
        retain: bool,
        correlation_data: bytes | None = None,
        response_topic: str | None = None,
        expiry_s: int | None = None,
    ) -> asyncio.Future[str]:
        """Send a message now; the future is done when the broker acknowledged it (QoS 0: when it is handed on).

        The result is the broker's reason ("Success", "No matching subscribers"). It fails with PublishError when
        the broker refuses it, when the connection is lost before, or when there is none. The future need not be
        awaited.
        """
        session = self._session
        if session is None or not session.ready:
            return failed(PublishError("not connected to the broker"))
        return session.publish(
            topic,
            payload,
            qos=qos,
            retain=retain,
            correlation_data=correlation_data,
            response_topic=response_topic,
            expiry_s=expiry_s,
        )

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            lasted_s = None
            session = Session(self._settings, self._inbox, self._drain, loop, self._window)
            try:
                reason, lasted_s = await self._connection(session)
            except ConfigError as exc:
                reason = str(exc)
            except Exception:
                log.exception("the MQTT client failed and is built anew")
                reason = "internal error"
            if self._stopping.is_set():
                return
            if not self._retry:
                self.failure = reason
                return
            delay_s = self._backoff.next_s(lasted_s)
            if reason != self._last_reason or lasted_s is not None:
                log.warning(
                    "MQTT broker %s:%d: %s; trying again", self._settings.host, self._settings.effective_port, reason
                )
            self._last_reason = reason
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)

    async def _connection(self, session: Session) -> tuple[str, float | None]:
        """Run one connection to its end; why it ended and how many seconds it lasted (None: never came to be)."""
        self._lingering = [other for other in self._lingering if other.thread_alive]
        if len(self._lingering) >= LINGERING_LIMIT:
            return "earlier attempts still hang in the network", None
        connected_at: float | None = None
        announced = False
        self._session = session
        try:
            session.open(self._client_id, self._will, persistent=self._persistent)
            stopping = asyncio.ensure_future(self._stopping.wait())
            try:
                accepted = await session.wait_accepted(stopping, CONNECT_DEADLINE_S)
                if accepted:
                    connected_at = time.monotonic()
                    if await session.subscribe(self._subscriptions, self._plain_subscriptions, stopping):
                        session.ready = True
                        self.connections += 1
                        announced = True
                        self._last_reason = ""
                        log.info(
                            "connected to the MQTT broker %s:%d", self._settings.host, self._settings.effective_port
                        )
                        self._listener.connected()
                        self._drain()
                        await session.wait_ended(stopping, self._settings.ack_timeout_s)
            finally:
                stopping.cancel()
        finally:
            reason = session.close()
            self._window = session.window
            self._lingering.append(session)
            self._session = None
            if announced:
                self._listener.disconnected(reason)
        return reason, None if connected_at is None else time.monotonic() - connected_at

    def _drain(self) -> None:
        """Hand on what has arrived. Nothing is read before the owner knows of the connection."""
        if not self.connected:
            return
        for message in self._inbox.take():
            try:
                self._listener.message(message)
            except Exception:
                log.exception("an MQTT message was not handled")
        if self._inbox.dropped != self._dropped_logged:
            log.warning("%d MQTT messages dropped: they came too fast", self._inbox.dropped - self._dropped_logged)
            self._dropped_logged = self._inbox.dropped
