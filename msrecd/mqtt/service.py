"""The MQTT adapter: publishes what is on the bus below `msrecd/v1/<device>/`, and takes the commands from there.

All methods are called on the loop. Nothing here waits for the broker or a disk except `stop` and `published`, which
have deadlines. Recording continues whatever happens here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from msrecd.clock import NS, SYSTEM_CLOCK, Clock
from msrecd.control.bus import Adapter, Bus, Event, Image, Item, Mark, State
from msrecd.control.commands import Commands, Request
from msrecd.control.messages import encode
from msrecd.errors import CommandError
from msrecd.mqtt.connection import MqttClient
from msrecd.mqtt.memory import Memory
from msrecd.mqtt.outbox import EventPump, Refusals, Replies, StateBoard
from msrecd.mqtt.settings import MqttSettings
from msrecd.mqtt.spool import Spool
from msrecd.mqtt.topics import BIRTH_TOPIC, Topics
from msrecd.mqtt.wire import Message, PublishError, Will
from msrecd.vocabulary.backoff import uniform
from msrecd.vocabulary.times import format_utc

log = logging.getLogger(__name__)

_RETAINED = CommandError("retained_rejected", "commands must not be retained: clear the topic and send it again")

ONLINE = b"online"
OFFLINE = b"offline"
IMAGE_LIMIT_BYTES = 256 * 1024
BIRTH_DELAY_S = 5.0
PUBLISHED_DEADLINE_S = 5.0


class MqttService(Adapter):
    """See `Adapter`."""

    name = "mqtt"

    def __init__(
        self,
        settings: MqttSettings,
        bus: Bus,
        commands: Commands,
        *,
        state_path: Path,
        boot_counter: int,
        clock: Clock = SYSTEM_CLOCK,
        version: str = "",
        model: str = "",
        has_video: Callable[[str], bool] = lambda recorder: True,
    ) -> None:
        """`model` and `version` are what Home Assistant shows; a recorder that never has video has no snapshots there.

        Raises: ValueError when the device id or a group is not a valid name.
        """
        self._settings = settings
        self._bus = bus
        self._clock = clock
        self._version = version
        self._model = model
        self._has_video = has_video
        self._topics = Topics(settings.device_id, settings.groups)
        self._port = commands.port(self.name, allow_verbs=settings.allow_verbs, max_age_s=settings.command_max_age_s)
        self._client = MqttClient(
            settings,
            self,
            client_id=f"msrecd-{settings.device_id}",
            subscriptions=self._topics.subscriptions(),
            plain_subscriptions=[BIRTH_TOPIC] if settings.homeassistant else [],
            will=Will(topic=self._topics.availability, payload=OFFLINE, delay_s=settings.will_delay_s),
            shared=self._report_rival,
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
        self._memory_path = state_path / "mqtt-memory.json"
        self._memory = Memory()
        self._announced: Mapping[str, bool] = {}  # the recorders that were known last, and whether they have video
        self._saving: asyncio.Task[None] | None = None
        self._save_again = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    def health(self) -> Mapping[str, object]:
        """`dropped` are events that were lost: the spool was full, or the broker takes no packet so large."""
        spool = self._spool.status
        return {
            "connected": self._client.connected,
            "reconnects": max(0, self._client.connections - 1),
            "spooled": spool.events,
            "dropped": spool.dropped + self._pump.too_large,
            "spool_durable": spool.durable,
            "commands_refused": self._port.refused_for_rate,
            "messages_dropped": self._client.dropped,
            "replies_dropped": self._replies.dropped,
        }

    def summary(self) -> str:
        return "mqtt online" if self._client.connected else "mqtt offline"

    async def start(self) -> None:
        """Open the spool, subscribe to the bus, begin to connect. Never waits for the broker."""
        self._loop = asyncio.get_running_loop()
        self._memory = await asyncio.to_thread(Memory.load, self._memory_path)
        self._spool.start()
        self._states.put(self._topics.availability, OFFLINE)  # until commands are heard
        self._bus.subscribe(self._publish)
        self._recorders_changed()
        self._client.start()
        self._spawn(self._heartbeat(), "mqtt heartbeat")

    async def published(self) -> Mapping[str, Sequence[Mark]]:
        """From the spool; nothing if it does not answer in time."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Mapping[str, list[Mark]]] = loop.create_future()

        def answer(marks: Mapping[str, list[Mark]]) -> None:
            loop.call_soon_threadsafe(lambda: None if answered.done() else answered.set_result(marks))

        self._spool.request_marks(self._topics.below("event/recorder/"), answer)
        try:
            async with asyncio.timeout(PUBLISHED_DEADLINE_S):
                return await answered
        except TimeoutError:
            log.error("the event spool does not answer; chunks finished just before a crash may get no event")
            return {}

    def _publish(self, item: Item) -> None:
        """What comes from the bus."""
        match item:
            case State(path, None):
                self._states.put(self._topics.below(f"state/{path}"), b"")
            case State(path, payload):
                # The next value of health follows in a minute: not worth an acknowledgement.
                self._states.put(self._topics.below(f"state/{path}"), encode(payload), qos=0 if path == "health" else 1)
            case Event(path, payload):
                self._spool.append(self._topics.below(f"event/{path}"), dict(payload))
            case Image(recorder, jpeg) if len(jpeg) > IMAGE_LIMIT_BYTES:
                log.error(
                    "%s: the snapshot has %d bytes, more than the %d that are published; the former one stays",
                    recorder,
                    len(jpeg),
                    IMAGE_LIMIT_BYTES,
                )
            case Image(recorder, jpeg):
                self._states.put(self._topics.below(f"image/{recorder}"), jpeg, qos=0)
        if isinstance(item, State) and self._present() != self._announced:
            self._recorders_changed()

    def _present(self) -> Mapping[str, bool]:
        return {name: self._has_video(name) for name in self._bus.recorders}

    def _recorders_changed(self) -> None:
        """Clear what recorders left behind that are no longer configured, and announce the present ones."""
        self._announced = self._present()
        current = self._bus.recorders
        for name in self._memory.recorders - current:
            self._states.put(self._topics.below(f"image/{name}"), b"")
            self._states.put(self._topics.below(f"state/recorder/{name}"), b"", on_ack=partial(self._cleared, name))
        if not current <= self._memory.recorders:
            self._remember(recorders=self._memory.recorders | current)
        if self._client.connected:
            self._spawn(self._announce(), "mqtt discovery")

    async def stop(self, timeout_s: float) -> None:
        """Send what can be sent, publish `offline`, disconnect; within `timeout_s` seconds."""
        if self._stopping or self._loop is None:
            return
        self._stopping = True
        self._bus.unsubscribe(self._publish)
        deadline = time.monotonic() + timeout_s
        for task in self._tasks:
            task.cancel()
        while self._client.connected and time.monotonic() < deadline - timeout_s * 0.4:
            if not self._spool.status.events and not self._pump.busy and self._states.settled():
                break
            self._pump.kick()
            await asyncio.sleep(0.02)
        if self._client.connected:
            farewell = self._client.publish(self._topics.availability, OFFLINE, qos=1, retain=True)
            await asyncio.wait({farewell}, timeout=max(0.2, timeout_s * 0.2))
            if not farewell.done() or farewell.exception() is not None:
                log.warning("the broker did not confirm `offline`; it will publish the last will instead")
        self._states.close()
        self._pump.close()
        await self._client.stop(max(0.5, timeout_s * 0.2))
        await asyncio.to_thread(self._spool.close, max(0.5, deadline - time.monotonic()))
        if self._saving is not None:
            await asyncio.wait({self._saving}, timeout=1.0)

    # What the client says (ClientListener).

    def connected(self, hears: bool) -> None:
        """Publish whether commands arrive, then everything that is true now, then what happened."""
        self._states.put(self._topics.availability, ONLINE if hears else OFFLINE, send=False)
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
        command = self._topics.split_command(message.topic)
        if command is None or (message.retain and not message.payload):
            return  # the latter: a retained command is being cleared
        path, group = command
        self._port.receive(
            Request(
                path=path,
                payload=message.payload,
                answer=partial(self._answer, path, message),
                via="" if group is None else f"group {group}",
                refusal=_RETAINED if message.retain else None,
                expires_ns=None if message.expiry_s is None else message.arrived_ns + max(message.expiry_s, 1) * NS,
            )
        )

    def _answer(self, path: str, message: Message, reply: bytes) -> None:
        topic = self._topics.reply_topic(path, message.response_topic)
        if topic is not None:
            self._replies.send(topic, reply, message.correlation_data)

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
        self._emit_error("events_dropped", f"{lost} events were dropped: the broker was away for too long", lost)

    def _report_rival(self, losses: int) -> None:
        message = f"another client used this device's client id; {losses} connections to the broker were lost to it"
        self._emit_error("client_id_shared", message, losses)

    def _emit_error(self, code: str, message: str, count: int) -> None:
        event = {"event_type": "error", "code": code, "message": message, "recorder": None}
        self._bus.emit("error", event | {"ts": format_utc(self._clock.realtime_ns()), "count": count})

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
            self._settings.device_id, dict(sorted(self._present().items())), version=self._version, model=self._model
        )
        current = homeassistant.platforms(payload)
        if any(key not in current for key in known):
            removal = homeassistant.with_removals(payload, known)
            if not await self._deliver(topic, encode(removal)):
                return
        # Remembered before it is published: a kill in between must not leave something behind for good.
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
        if recorder not in self._bus.recorders:
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
