"""The MQTT side of the daemon: one object that the service starts, tells things, and stops.

All methods are called on the loop. Nothing here waits for the broker or a disk except `start` and `stop`, which
have deadlines. Recording goes on whatever happens here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from msrecd.clock import SYSTEM_CLOCK, Clock
from msrecd.mqtt.commands import CommandHandler, CommandResult, CommandRunner
from msrecd.mqtt.connection import MqttClient
from msrecd.mqtt.marks import Mark
from msrecd.mqtt.memory import Memory
from msrecd.mqtt.messages import encode
from msrecd.mqtt.outbox import EventPump, Refusals, Replies, StateBoard
from msrecd.mqtt.settings import MqttSettings
from msrecd.mqtt.spool import Spool
from msrecd.mqtt.topics import BIRTH_TOPIC, Topics
from msrecd.mqtt.wire import Message, PublishError, Will
from msrecd.vocabulary.backoff import uniform
from msrecd.vocabulary.times import format_utc

log = logging.getLogger(__name__)

__all__ = ["CommandHandler", "CommandResult", "MqttService", "MqttSettings", "MqttStatus"]

ONLINE = b"online"
OFFLINE = b"offline"
IMAGE_LIMIT_BYTES = 256 * 1024
BIRTH_DELAY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttStatus:
    """How the connection and the spool are. `dropped` counts events lost because the spool was full."""

    connected: bool
    reconnects: int
    spooled: int
    dropped: int
    commands_refused_for_rate: int = 0
    messages_dropped: int = 0
    spool_durable: bool = True


class MqttService:
    """Commands in, states and events out, below `msrecd/v1/<device>/`."""

    def __init__(
        self,
        settings: MqttSettings,
        handler: CommandHandler,
        *,
        recorders: Callable[[], Collection[str]],
        state_path: Path,
        boot_counter: int,
        clock_trusted: Callable[[], bool],
        clock: Clock = SYSTEM_CLOCK,
        version: str = "",
        model: str = "",
    ) -> None:
        """`recorders` gives the names configured now; `model` and `version` are what Home Assistant shows.

        Raises: ValueError when the device id or a group is no name.
        """
        self._settings = settings
        self._recorders = recorders
        self._clock = clock
        self._version = version
        self._model = model
        self._topics = Topics(settings.device_id, settings.groups)
        self._client = MqttClient(
            settings,
            self,
            client_id=f"msrecd-{settings.device_id}",
            subscriptions=self._topics.subscriptions(),
            plain_subscriptions=[BIRTH_TOPIC] if settings.homeassistant else [],
            will=Will(topic=self._topics.availability, payload=OFFLINE, delay_s=settings.will_delay_s),
        )
        refusals = Refusals()
        self._states = StateBoard(self._client, refusals)
        self._replies = Replies(self._client, refusals, clock)
        self._spool = Spool(
            state_path / "mqtt-events.sqlite3",
            f"{settings.device_id}/{boot_counter}",
            self._spool_changed,
            clock=clock,
        )
        self._pump = EventPump(self._spool, self._client, refusals, self._report_losses)
        self._commands = CommandRunner(
            self._topics,
            handler,
            recorders,
            self._replies.send,
            clock=clock,
            clock_trusted=clock_trusted,
            allow_verbs=settings.allow_verbs,
            max_age_s=settings.command_max_age_s,
            timeout_s=settings.command_timeout_s,
        )
        self._memory_path = state_path / "mqtt-memory.json"
        self._memory = Memory()
        self._saving: asyncio.Task[None] | None = None
        self._save_again = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    @property
    def status(self) -> MqttStatus:
        """A look at the connection and the spool, for the health message."""
        spool = self._spool.status
        return MqttStatus(
            connected=self._client.connected,
            reconnects=max(0, self._client.connections - 1),
            spooled=spool.events,
            dropped=spool.dropped + self._pump.too_large,
            commands_refused_for_rate=self._commands.refused_for_rate,
            messages_dropped=self._client.dropped,
            spool_durable=spool.durable,
        )

    async def start(self) -> None:
        """Open the spool and begin to connect. Never waits for the broker."""
        self._loop = asyncio.get_running_loop()
        self._memory = await asyncio.to_thread(Memory.load, self._memory_path)
        self._spool.start()
        self._states.put(self._topics.availability, ONLINE)
        self.recorders_changed()
        self._client.start()
        self._spawn(self._heartbeat(), "mqtt heartbeat")

    def publish_state(self, topic: str, payload: Mapping[str, object] | Sequence[object] | None) -> None:
        """Set a retained state, below the device's tree (`state/recorder/cam0`); None clears it.

        The latest value is kept and sent again after every reconnection.
        """
        if payload is None:
            self.forget_state(topic)
            return
        self._states.put(self._topics.below(topic), encode(payload))

    def publish_health(self, payload: Mapping[str, object]) -> None:
        """Set `state/health` (QoS 0)."""
        self._states.put(self._topics.below("state/health"), encode(payload), qos=0)

    def publish_image(self, recorder: str, jpeg: bytes) -> None:
        """Set the picture of the last snapshot (QoS 0). One that is too large is refused with a log line."""
        if len(jpeg) > IMAGE_LIMIT_BYTES:
            log.error("the snapshot of %s has %d bytes, at most %d are sent", recorder, len(jpeg), IMAGE_LIMIT_BYTES)
            return
        self._states.put(self._topics.below(f"image/{recorder}"), jpeg, qos=0)

    def publish_event(self, topic: str, payload: Mapping[str, object]) -> None:
        """Spool an event, below the device's tree (`event/recorder/cam0`); returns at once. Adds `event_id`."""
        self._spool.append(self._topics.below(topic), dict(payload))

    async def told(self, timeout_s: float = 5.0) -> Mapping[str, list[Mark]]:
        """How far the recorder events of earlier runs have come, by recorder; nothing if the spool does not answer."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Mapping[str, list[Mark]]] = loop.create_future()

        def answer(marks: Mapping[str, list[Mark]]) -> None:
            loop.call_soon_threadsafe(lambda: None if answered.done() else answered.set_result(marks))

        self._spool.request_marks(self._topics.below("event/recorder/"), answer)
        try:
            async with asyncio.timeout(timeout_s):
                return await answered
        except TimeoutError:
            log.error("the event spool does not answer: chunks that were finished just before a crash may go untold")
            return {}

    def forget_state(self, topic: str) -> None:
        """Clear the retained topic of something that is no longer configured."""
        self._states.put(self._topics.below(topic), b"")

    def recorders_changed(self) -> None:
        """Call it after a reload: clears what recorders left behind that are no longer configured."""
        current = frozenset(self._recorders())
        for name in self._memory.recorders - current:
            self._states.put(self._topics.below(f"image/{name}"), b"")
            self._states.put(self._topics.below(f"state/recorder/{name}"), b"", on_ack=partial(self._cleared, name))
        if not current <= self._memory.recorders:
            self._remember(recorders=self._memory.recorders | current)
        if self._client.connected:
            self._spawn(self._announce(), "mqtt discovery")

    async def stop(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - a budget that its steps share
        """Finish commands, send what can be sent, say `offline`, disconnect; within `timeout` seconds."""
        if self._stopping or self._loop is None:
            return
        self._stopping = True
        deadline = time.monotonic() + timeout
        for task in self._tasks:
            task.cancel()
        await self._commands.close(timeout * 0.4)
        while self._client.connected and time.monotonic() < deadline - timeout * 0.4:
            if not self._spool.status.events and not self._pump.busy and self._states.settled():
                break
            self._pump.kick()
            await asyncio.sleep(0.02)
        if self._client.connected:
            farewell = self._client.publish(self._topics.availability, OFFLINE, qos=1, retain=True)
            await asyncio.wait({farewell}, timeout=max(0.2, timeout * 0.2))
            if not farewell.done() or farewell.exception() is not None:
                log.warning("the broker did not confirm `offline`; its last will says it")
        self._states.close()
        self._pump.close()
        await self._client.stop(max(0.5, timeout * 0.2))
        await asyncio.to_thread(self._spool.close, max(0.5, deadline - time.monotonic()))
        if self._saving is not None:
            await asyncio.wait({self._saving}, timeout=1.0)

    # What the client says (ClientListener).

    def connected(self) -> None:
        """The broker is there and commands arrive: say so, then everything that is true now, then what happened."""
        self._states.republish()
        self._replies.flush()
        self._spawn(self._announce(), "mqtt discovery")
        self._pump.kick()

    def disconnected(self, reason: str) -> None:
        """The connection is over; what was on its way is sent again later."""
        self._pump.disconnected()

    def message(self, message: Message) -> None:
        """A command, or Home Assistant's birth."""
        if message.topic == BIRTH_TOPIC:
            if message.payload == ONLINE and not message.retain:
                self._spawn(self._greet_homeassistant(), "mqtt birth")
            return
        self._commands.receive(message)

    def _spool_changed(self) -> None:
        """Called in the spool's thread."""
        if self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._pump.kick)
        except RuntimeError:
            log.debug("the loop is closed; events stay in the spool")

    def _report_losses(self) -> None:
        """Say how many events were dropped, once there is room again: the report must not push out another."""
        dropped = self._spool.status.dropped
        lost = dropped - self._memory.dropped_reported
        if lost <= 0:
            return
        self._remember(dropped_reported=dropped)
        log.warning("%d events were dropped because the spool was full", lost)
        self.publish_event(
            "event/error",
            {
                "event_type": "error",
                "code": "events_dropped",
                "message": f"{lost} events were dropped: the broker was away for too long",
                "recorder": None,
                "ts": format_utc(self._clock.realtime_ns()),
                "count": lost,
            },
        )

    async def _heartbeat(self) -> None:
        """Something that must be acknowledged, now and then: the client is rebuilt when it is not."""
        while True:
            await asyncio.sleep(self._settings.heartbeat_s)
            if not self._states.again(self._topics.below("state/daemon")):
                self._states.again(self._topics.availability)
            self._pump.kick()

    async def _greet_homeassistant(self) -> None:
        # Random, so that a fleet does not answer a restart in one moment.
        await asyncio.sleep(uniform(0, BIRTH_DELAY_S))
        await self._announce()
        self._states.republish()

    async def _announce(self) -> None:
        """Publish the discovery message, or remove what an earlier configuration published."""
        topic, known = self._topics.discovery, self._memory.components
        if not self._settings.homeassistant:
            if known and await self._deliver(topic, b""):
                self._remember(components={})
            return
        from msrecd.mqtt import homeassistant  # here: few want it

        payload = homeassistant.discovery(
            self._settings.device_id, sorted(self._recorders()), version=self._version, model=self._model
        )
        current = homeassistant.platforms(payload)
        if any(key not in current for key in known):
            removal = homeassistant.with_removals(payload, known)
            if not await self._deliver(topic, encode(removal)):
                return
        # Remembered before it is published: a kill in between must not leave something that nobody removes.
        if dict(known) != current:
            self._remember(components={**known, **current})
        if await self._deliver(topic, encode(payload)) and self._memory.components != current:
            self._remember(components=current)

    async def _deliver(self, topic: str, payload: bytes) -> bool:
        try:
            await self._client.publish(topic, payload, qos=1, retain=True)
        except PublishError as exc:
            if exc.refused:
                log.error("Home Assistant discovery on %s: %s: check the broker's ACL", topic, exc)
            return False
        return True

    def _cleared(self, recorder: str) -> None:
        if recorder not in self._recorders():
            self._remember(recorders=self._memory.recorders - {recorder})

    def _remember(
        self,
        *,
        recorders: frozenset[str] | None = None,
        components: Mapping[str, str] | None = None,
        dropped_reported: int | None = None,
    ) -> None:
        """Change the memory and write it, in a thread, one write at a time."""
        memory = self._memory
        self._memory = replace(
            memory,
            recorders=memory.recorders if recorders is None else recorders,
            components=memory.components if components is None else components,
            dropped_reported=memory.dropped_reported if dropped_reported is None else dropped_reported,
        )
        self._save_again = True
        if self._saving is None or self._saving.done():
            self._saving = asyncio.get_running_loop().create_task(self._save(), name="mqtt memory")

    async def _save(self) -> None:
        while self._save_again:
            self._save_again = False
            await asyncio.to_thread(self._memory.save, self._memory_path)

    def _spawn(self, coroutine: Coroutine[object, object, None], name: str) -> None:
        if self._stopping or self._loop is None:
            coroutine.close()
            return
        task = self._loop.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("%s failed", task.get_name(), exc_info=task.exception())
