"""Keeps a connection to the broker: connects, watches, throws away, waits, connects again. On the loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection
from typing import Protocol

from msrecd.errors import ConfigError
from msrecd.mqtt.client import WINDOW, Session, failed
from msrecd.mqtt.settings import MqttSettings
from msrecd.mqtt.wire import Inbox, Message, PublishError, Will
from msrecd.vocabulary.backoff import STABLE_S, BackOff, uniform

log = logging.getLogger(__name__)

CONNECT_DEADLINE_S = 20.0
SUBSCRIBE_AGAIN_S = 60.0
SUSPECTED_AT = 2  # short connections in a row
SLOWED_AT = 4
# A client that hangs in a name server's or a handshake's time-out is left to end by itself; at most so many.
LINGERING_LIMIT = 3


class Rival:
    """Recognises another client with our client id: the broker ends the older connection when the newer one comes.

    The two throw each other out for ever. Long random waits give each of them minutes instead of seconds. Pure.
    """

    def __init__(self, longest_wait_s: float) -> None:
        self._wait_s = longest_wait_s
        # A rival that waits at most this long is back within it.
        self._quiet_s = max(STABLE_S, 4 * longest_wait_s)
        self._is_certain = False
        self.losses = 0

    @property
    def is_suspected(self) -> bool:
        return self._is_certain or self.losses >= SUSPECTED_AT

    def lost(self, lasted_s: float | None, *, taken_over: bool) -> bool:
        """A connection that lasted so long was lost (None: none came about); whether a rival is suspected just now."""
        was_suspected = self.is_suspected
        if not taken_over and (lasted_s is None or lasted_s >= self._quiet_s):
            # While a rival is there, so is the broker.
            self.forget()
            return False
        self.losses += 1
        self._is_certain = self._is_certain or taken_over
        return self.is_suspected and not was_suspected

    def delay_s(self, usual_s: float, uniform: Callable[[float, float], float]) -> float:
        """How long to wait before the next attempt. Two short connections in a row may still be the broker's fault."""
        if self._is_certain or self.losses >= SLOWED_AT:
            return uniform(self._wait_s, 2 * self._wait_s)
        return usual_s

    def is_gone(self, lasted_s: float) -> bool:
        """Whether a rival was suspected, and this connection has lasted longer than it would have let it."""
        return self.is_suspected and lasted_s >= self._quiet_s

    def forget(self) -> int:
        """Start over; how many connections were lost."""
        losses, self.losses, self._is_certain = self.losses, 0, False
        return losses


class ClientListener(Protocol):
    """Callbacks to the owner of a client, always on the loop."""

    def connected(self, hears: bool) -> None:
        """The broker accepted the connection. `hears`: commands arrive from now on.

        Called again when the broker grants a subscription that it had refused.
        """

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
        shared: Callable[[int], None] = lambda _: None,
    ) -> None:
        """
        Args:
            subscriptions: for commands (no retained ones); without the first of them the client hears nothing.
            plain_subscriptions: for everything else.
            shared: called when another client with this id seems to be gone; with the number of connections lost to it.
        """
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
        self._shared = shared
        self._rival = Rival(settings.reconnect_max_s)
        self._refused: dict[str, str] = {}
        self._subscribe_at = 0.0
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
                log.exception("internal error in the MQTT client; reconnecting with a new one")
                reason = "internal error"
            if self._stopping.is_set():
                return
            if not self._retry:
                self.failure = reason
                return
            delay_s = self._backoff.next_s(lasted_s)
            if self._rival.lost(lasted_s, taken_over=session.taken_over):
                log.warning(
                    "MQTT: the connection was lost after %.0f s, %d times in a row: another client seems to use the "
                    "client id %s. Has a cloned card the same device.id? Reconnecting more slowly",
                    lasted_s or 0.0,
                    self._rival.losses,
                    self._client_id,
                )
            delay_s = self._rival.delay_s(delay_s, uniform)
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
                    if await self._subscribe(session, self._subscriptions, self._plain_subscriptions, stopping):
                        session.ready = True
                        self.connections += 1
                        announced = True
                        self._last_reason = ""
                        log.info(
                            "connected to the MQTT broker %s:%d", self._settings.host, self._settings.effective_port
                        )
                        self._listener.connected(self._hears)
                        self._drain()
                        while not await session.is_over(stopping, self._settings.ack_timeout_s):
                            await self._look_after(session, time.monotonic() - connected_at, stopping)
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

    @property
    def _hears(self) -> bool:
        return not self._subscriptions or self._subscriptions[0] not in self._refused

    async def _subscribe(
        self, session: Session, commands: Collection[str], plain: Collection[str], stopping: asyncio.Task[bool]
    ) -> bool:
        """Whether the broker answered. What it refuses is logged once and asked for again later."""
        refused = await session.subscribe(commands, plain, stopping)
        if refused is None:
            return False
        for topic, reason in refused.items():
            if topic not in self._refused:
                log.error(
                    "the MQTT broker refuses the subscription to %s (%s): its ACL must allow the user to read it; "
                    "next try in %g s",
                    topic,
                    reason,
                    SUBSCRIBE_AGAIN_S,
                )
        self._refused = refused
        self._subscribe_at = time.monotonic() + SUBSCRIBE_AGAIN_S
        return True

    async def _look_after(self, session: Session, lasted_s: float, stopping: asyncio.Task[bool]) -> None:
        """What an established connection needs now and then."""
        if self._rival.is_gone(lasted_s):
            log.warning(
                "MQTT: connected for %.0f s; the other client with the client id %s seems to be gone",
                lasted_s,
                self._client_id,
            )
            self._shared(self._rival.forget())
        if self._refused and time.monotonic() >= self._subscribe_at:
            heard = self._hears
            commands = [topic for topic in self._subscriptions if topic in self._refused]
            plain = [topic for topic in self._plain_subscriptions if topic in self._refused]
            if await self._subscribe(session, commands, plain, stopping) and self._hears and not heard:
                log.info("the MQTT broker grants the subscription to %s now", self._subscriptions[0])
                self._listener.connected(True)

    def _drain(self) -> None:
        """Hand on what has arrived. Nothing is read before the owner knows of the connection."""
        if not self.connected:
            return
        for message in self._inbox.take():
            try:
                self._listener.message(message)
            except Exception:
                log.exception("an MQTT message could not be handled")
        if self._inbox.dropped != self._dropped_logged:
            log.warning("%d MQTT messages dropped: they came too fast", self._inbox.dropped - self._dropped_logged)
            self._dropped_logged = self._inbox.dropped
