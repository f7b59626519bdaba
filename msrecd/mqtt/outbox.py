"""What is published: the latest of every state, replies, and events from the spool. All on the loop."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from msrecd.clock import NS, Clock
from msrecd.control.messages import Result, encode_reply
from msrecd.errors import CommandError
from msrecd.mqtt.spool import Spool, SpooledEvent
from msrecd.mqtt.wire import PublishError

if TYPE_CHECKING:
    from msrecd.mqtt.connection import MqttClient

log = logging.getLogger(__name__)

STATE_WINDOW = 4
EVENT_WINDOW = 20
REPLY_LIMIT = 256
REPLY_KEEP_S = 60.0
REPLY_TRIES = 2
RETRY_S = 1.0
REFUSED_RETRY_S = 60.0


class Refusals:
    """Logs what the broker refuses once per topic, until it accepts that topic again."""

    def __init__(self) -> None:
        self._topics: set[str] = set()

    def refused(self, topic: str, error: PublishError) -> None:
        """Log it, unless it is known."""
        if topic not in self._topics and len(self._topics) < 1000:
            self._topics.add(topic)
            hint = " (check its ACL)" if error.refused and "uthori" in error.refused else ""
            log.error("%s: %s%s", topic, error, hint)

    def accepted(self, topic: str) -> None:
        """The broker takes this topic."""
        self._topics.discard(topic)


@dataclass(slots=True)
class _State:
    payload: bytes
    qos: int
    in_flight: int = 0
    dirty: bool = True
    on_ack: Callable[[], None] | None = None


class StateBoard:
    """The retained topics: the latest value of each, sent at once and again after every reconnection.

    At most a few values of one topic are on their way; while they are, only the latest of the rest is kept. An empty
    payload clears the topic, and is forgotten when the broker has it.
    """

    def __init__(self, publisher: MqttClient, refusals: Refusals) -> None:
        self._publisher = publisher
        self._refusals = refusals
        self._states: dict[str, _State] = {}
        self._timers: set[asyncio.TimerHandle] = set()

    def __contains__(self, topic: str) -> bool:
        return topic in self._states

    def put(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        on_ack: Callable[[], None] | None = None,
        send: bool = True,
    ) -> None:
        """Set the value of a topic; `on_ack` is called when the broker has it. `send` False: `republish` follows."""
        state = self._states.get(topic)
        if state is None:
            state = self._states[topic] = _State(payload, qos)
        state.payload, state.qos, state.dirty, state.on_ack = payload, qos, True, on_ack
        if send:
            self._send(topic, state)

    def republish(self) -> None:
        """Send every value again."""
        for topic, state in list(self._states.items()):
            state.dirty = True
            self._send(topic, state)

    def again(self, topic: str) -> bool:
        """Send one topic again; whether there is one."""
        state = self._states.get(topic)
        if state is None:
            return False
        state.dirty = True
        self._send(topic, state)
        return True

    def settled(self) -> bool:
        """Whether the broker has every value."""
        return not any(state.dirty or state.in_flight for state in self._states.values())

    def close(self) -> None:
        """Send nothing more by itself."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _send(self, topic: str, state: _State) -> None:
        if not self._publisher.connected or state.in_flight >= STATE_WINDOW:
            return
        state.dirty = False
        state.in_flight += 1
        payload, on_ack = state.payload, state.on_ack
        future = self._publisher.publish(topic, payload, qos=state.qos, retain=True)
        future.add_done_callback(lambda done: self._sent(topic, state, payload, on_ack, done))

    def _sent(
        self,
        topic: str,
        state: _State,
        payload: bytes,
        on_ack: Callable[[], None] | None,
        done: asyncio.Future[str],
    ) -> None:
        state.in_flight -= 1
        error = None if done.cancelled() else done.exception()
        if error is None:
            self._refusals.accepted(topic)
            if not state.payload and not state.dirty and not payload and self._states.get(topic) is state:
                del self._states[topic]
            if on_ack is not None:
                on_ack()
        elif isinstance(error, PublishError) and (error.refused or error.too_large):
            self._refusals.refused(topic, error)
        else:
            state.dirty = True
            self._later(topic)
            return
        if state.dirty and self._states.get(topic) is state:
            self._send(topic, state)

    def _later(self, topic: str) -> None:
        if not self._publisher.connected:
            return  # everything is sent again after the reconnection

        def retry() -> None:
            self._timers.discard(timer)
            state = self._states.get(topic)
            if state is not None and state.dirty:
                self._send(topic, state)

        timer = asyncio.get_running_loop().call_later(RETRY_S, retry)
        self._timers.add(timer)


@dataclass(frozen=True, slots=True)
class _Reply:
    topic: str
    payload: bytes
    correlation_data: bytes | None
    until_ns: int
    tries: int = 1


class Replies:
    """Replies: sent at once, or within a minute if the connection is lost meanwhile; the oldest give way.

    One that the broker does not take is not sent for ever: too large a reply becomes a short error, and what is too
    large even then, or was on its way when two connections ended, is dropped and counted.
    """

    def __init__(self, publisher: MqttClient, refusals: Refusals, clock: Clock) -> None:
        self._publisher = publisher
        self._refusals = refusals
        self._clock = clock
        self._waiting: deque[_Reply] = deque()
        self.dropped = 0

    def send(self, topic: str, payload: bytes, correlation_data: bytes | None) -> None:
        """Publish a reply, QoS 1, never retained."""
        reply = _Reply(topic, payload, correlation_data, self._clock.monotonic_ns() + int(REPLY_KEEP_S * NS))
        if self._publisher.connected:
            self._publish(reply)
        else:
            self._keep(reply)

    def flush(self) -> None:
        """Send what waits; call it after a reconnection."""
        waiting, self._waiting = self._waiting, deque()
        now_ns = self._clock.monotonic_ns()
        for reply in waiting:
            if reply.until_ns > now_ns:
                self._publish(reply)
            else:
                self.dropped += 1

    def _publish(self, reply: _Reply) -> None:
        future = self._publisher.publish(
            reply.topic, reply.payload, qos=1, retain=False, correlation_data=reply.correlation_data
        )
        future.add_done_callback(lambda done: self._published(reply, done))

    def _published(self, reply: _Reply, done: asyncio.Future[str]) -> None:
        error = None if done.cancelled() else done.exception()
        if error is None:
            return
        if isinstance(error, PublishError) and error.too_large and (short := _too_large(reply)) is not None:
            self._refusals.refused(reply.topic, error)
            self._publish(short)
        elif isinstance(error, PublishError) and (error.refused or error.too_large):
            self.dropped += 1
            self._refusals.refused(reply.topic, error)
        elif self._publisher.connected:
            self.dropped += 1  # the connection is there but full: the sender asks faster than it listens
        elif reply.tries < REPLY_TRIES:
            self._keep(replace(reply, tries=reply.tries + 1))
        else:
            self.dropped += 1  # a broker that cannot take it may end the connection instead of saying so

    def _keep(self, reply: _Reply) -> None:
        if len(self._waiting) >= REPLY_LIMIT:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(reply)


def _too_large(reply: _Reply) -> _Reply | None:
    """A short error in place of a reply that the broker does not take; None when that would not be shorter."""
    value = json.loads(reply.payload)  # our own
    message = f"the reply has {len(reply.payload)} bytes, more than the broker takes"
    error = CommandError("internal", message, retryable=False)
    payload = encode_reply(value["id"], Result(error=error), value["ts"])
    return replace(reply, payload=payload) if len(payload) < len(reply.payload) else None


class EventPump:
    """Sends the spool's events in order, at most 20 on their way, and lets the spool forget what the broker has.

    What the broker refuses stays in the spool and is tried again later; it does not hold up other topics.
    """

    def __init__(
        self, spool: Spool, publisher: MqttClient, refusals: Refusals, on_idle: Callable[[], None] = lambda: None
    ) -> None:
        """`on_idle` is called when everything that was on its way has arrived: there is room in the spool then."""
        self._spool = spool
        self._on_idle = on_idle
        self._publisher = publisher
        self._refusals = refusals
        self._in_flight: set[int] = set()
        self._refused: set[str] = set()
        self._asking = False
        self._connection = 0
        self._retry: asyncio.TimerHandle | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self.too_large = 0

    @property
    def busy(self) -> bool:
        """Whether events are on their way."""
        return bool(self._in_flight) or self._asking

    def kick(self) -> None:
        """Look for something to send; call it when there is a connection or a new event."""
        room = EVENT_WINDOW - len(self._in_flight)
        # Half the window at a time: fewer questions to the spool's thread.
        if self._asking or room < EVENT_WINDOW // 2 or not self._publisher.connected or not self._spool.status.events:
            return
        self._asking = True
        loop = asyncio.get_running_loop()
        connection = self._connection

        def answer(events: list[SpooledEvent]) -> None:
            try:
                loop.call_soon_threadsafe(self._send, events, connection)
            except RuntimeError:
                log.debug("the loop is closed; %d events stay in the spool", len(events))

        self._spool.request(room, self._in_flight, self._refused, answer)

    def disconnected(self) -> None:
        """What was on its way is sent again after the reconnection."""
        self._connection += 1
        self._in_flight.clear()
        self._refused.clear()

    def close(self) -> None:
        """Send nothing more by itself."""
        for timer in (*self._timers, self._retry):
            if timer is not None:
                timer.cancel()
        self._timers.clear()
        self._retry = None

    def _send(self, events: list[SpooledEvent], connection: int) -> None:
        self._asking = False
        if connection != self._connection:
            # Asked for before the connection was lost: older events may be due again, and come first.
            self.kick()
            return
        for event in events:
            if not self._publisher.connected:
                return
            if event.seq in self._in_flight or event.topic in self._refused:
                continue
            self._in_flight.add(event.seq)
            future = self._publisher.publish(event.topic, event.payload, qos=1, retain=False)
            failed_at_once = future.done()
            future.add_done_callback(lambda done, event=event: self._sent(event, done))  # type: ignore[misc]
            if failed_at_once:
                return  # nothing overtakes it
        if events:
            self.kick()

    def _sent(self, event: SpooledEvent, done: asyncio.Future[str]) -> None:
        if event.seq not in self._in_flight:
            return
        self._in_flight.discard(event.seq)
        error = None if done.cancelled() else done.exception()
        if error is None:
            self._refusals.accepted(event.topic)
            self._spool.acknowledge(event.seq)
            if not self._in_flight:
                self._on_idle()
            self.kick()
        elif isinstance(error, PublishError) and error.too_large:
            self.too_large += 1
            self._refusals.refused(event.topic, error)
            self._spool.acknowledge(event.seq)
            self.kick()
        elif isinstance(error, PublishError) and error.refused:
            self._refusals.refused(event.topic, error)
            self._refused.add(event.topic)
            self._try_topic_later(event.topic)
            self.kick()
        elif self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._kick_again)

    def _kick_again(self) -> None:
        self._retry = None
        self.kick()

    def _try_topic_later(self, topic: str) -> None:
        def retry() -> None:
            self._timers.discard(timer)
            self._refused.discard(topic)
            self.kick()

        timer = asyncio.get_running_loop().call_later(REFUSED_RETRY_S, retry)
        self._timers.add(timer)
