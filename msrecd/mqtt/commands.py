"""Commands from their arrival to their reply: checked, made to act once, run in order.

Everything here runs on the loop. The decisions are in `topics`, `messages`, `ratelimit` and `dedupe`; this joins them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from msrecd.clock import NS, Clock
from msrecd.errors import CommandError
from msrecd.mqtt.dedupe import Dedupe
from msrecd.mqtt.messages import (
    PAYLOAD_LIMIT_BYTES,
    Command,
    Outcome,
    check_verb,
    decode_command,
    decode_switch,
    encode_reply,
    salvage_id,
    shorten,
)
from msrecd.mqtt.ratelimit import RateLimit
from msrecd.mqtt.topics import CommandTopic, Topics
from msrecd.mqtt.wire import Message
from msrecd.vocabulary.verbs import SWITCH_VERB

log = logging.getLogger(__name__)

LANE_LIMIT = 64
COPIES_LIMIT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """What a command that succeeded says: whether anything changed, and the reply's `data`."""

    changed: bool = False
    data: Mapping[str, object] = field(default_factory=dict)


class CommandHandler(Protocol):
    """Whoever acts on commands. Called on the loop, one command at a time per recorder."""

    async def command(
        self, target: str, name: str | None, verb: str, args: Mapping[str, object], cause: str
    ) -> CommandResult:
        """Run `verb` on the recorder `name` (target "recorder") or on the daemon (target "daemon").

        `args` are checked: for `start` perhaps `duration_s`. `cause` is `mqtt` or `mqtt:<id of the command>`.

        Raises: CommandError with a code of the contract.
        """


@dataclass(slots=True, kw_only=True)
class _Job:
    topic: CommandTopic
    message: Message
    verb: str = ""
    command: Command = field(default_factory=Command)


class CommandRunner:
    """Takes messages, calls the handler, sends replies. One lane per recorder and one for the daemon."""

    def __init__(
        self,
        topics: Topics,
        handler: CommandHandler,
        recorders: Callable[[], Collection[str]],
        reply: Callable[[str, bytes, bytes | None], None],
        *,
        clock: Clock,
        clock_trusted: Callable[[], bool],
        allow_verbs: Collection[str] | None = None,
        max_age_s: float = 60.0,
        timeout_s: float = 120.0,
    ) -> None:
        """`reply` is given the topic, the payload and the correlation data."""
        self._topics = topics
        self._handler = handler
        self._recorders = recorders
        self._reply = reply
        self._clock = clock
        self._clock_trusted = clock_trusted
        self._allow_verbs = allow_verbs
        self._max_age_s = max_age_s
        self._timeout_s = timeout_s
        self._dedupe = Dedupe(clock)
        self._rate = RateLimit(clock)
        # A flood is answered too, but not without end.
        self._refusals = RateLimit(clock, per_s=100.0, burst=500)
        self._flood_log = RateLimit(clock, per_s=0.2, burst=1)
        self._lanes: dict[str, deque[_Job]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._copies: dict[str, list[_Job]] = {}
        self._closing = False

    @property
    def refused_for_rate(self) -> int:
        """How many commands came too fast."""
        return self._rate.refused

    def receive(self, message: Message) -> None:
        """Take a message that arrived. Never raises for what is in it."""
        topic = self._topics.parse_command(message.topic)
        if topic is None:
            return
        if message.retain and not message.payload:
            return  # a retained command is being cleared
        job = _Job(topic=topic, message=message)
        if not self._rate.take():
            self._refuse_for_rate(job)
            return
        try:
            self._admit(job)
        except CommandError as exc:
            if job.command.id is None:
                job.command = Command(id=salvage_id(message.payload))
            self._finish(job, Outcome(error=exc))

    async def close(self, timeout_s: float) -> None:
        """Refuse what comes from now on and wait for what runs, at most `timeout_s` seconds."""
        self._closing = True
        tasks = set(self._tasks.values())
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=timeout_s)
        for task in late:
            task.cancel()
        if late:
            log.warning("%d command(s) did not finish before the stop", len(late))
            await asyncio.wait(late, timeout=1.0)

    def _admit(self, job: _Job) -> None:
        """Check a command and put it in its lane.

        Raises: CommandError when it is refused.
        """
        payload = job.message.payload
        if job.message.retain:
            raise CommandError("retained_rejected", "commands must not be retained: clear the topic and send it again")
        if len(payload) > PAYLOAD_LIMIT_BYTES:
            raise CommandError("bad_payload", f"{len(payload)} bytes; at most {PAYLOAD_LIMIT_BYTES} are read")
        job.verb = check_verb(job.topic, self._allow_verbs)
        if job.topic.recorder is not None and job.topic.recorder not in self._recorders():
            raise CommandError("unknown_recorder", f"this device has no recorder {shorten(job.topic.recorder)}")
        if job.verb == SWITCH_VERB:
            job.verb = decode_switch(payload, self._allow_verbs)
        else:
            job.command = decode_command(payload, job.verb)
        command_id = job.command.id
        if command_id is not None and not self._dedupe.begin(command_id):
            self._answer_copy(command_id, job)
            return
        try:
            if self._closing:
                raise CommandError("wrong_state", "the daemon is stopping", retryable=True)
            self._check_age(job)
            self._enqueue(job)
        except CommandError:
            if command_id is not None:
                self._dedupe.abandon(command_id)
            raise

    def _answer_copy(self, command_id: str, job: _Job) -> None:
        outcome = self._dedupe.outcome(command_id)
        if outcome is not None:
            self._send(job, outcome)
            return
        copies = self._copies.setdefault(command_id, [])
        if len(copies) < COPIES_LIMIT:
            copies.append(job)

    def _check_age(self, job: _Job) -> None:
        """Refuse what is older than the sender or the configuration wants.

        Raises: CommandError `expired`.
        """
        expiry_s = job.message.expiry_s
        if expiry_s is not None and job.message.arrived_ns:
            waited_s = (self._clock.monotonic_ns() - job.message.arrived_ns) / NS
            if waited_s > max(expiry_s, 1):
                raise CommandError("expired", "the message's expiry interval passed before it could be run")
        issued_at = job.command.issued_at
        if issued_at is None or not self._clock_trusted():
            return
        age_s = self._clock.realtime_ns() / NS - issued_at
        if age_s > self._max_age_s:
            raise CommandError("expired", f"issued {age_s:.0f} s ago; at most {self._max_age_s:g} s are accepted")

    def _enqueue(self, job: _Job) -> None:
        key = job.topic.recorder or ""
        lane = self._lanes.setdefault(key, deque())
        if len(lane) >= LANE_LIMIT:
            raise CommandError("rate_limited", f"{LANE_LIMIT} commands are waiting already")
        lane.append(job)
        if key not in self._tasks:
            name = f"mqtt commands {key or 'daemon'}"
            self._tasks[key] = asyncio.get_running_loop().create_task(self._work(key, lane), name=name)

    async def _work(self, key: str, lane: deque[_Job]) -> None:
        try:
            while lane:
                job = lane.popleft()
                outcome = replace(await self._run(job), done_ns=self._clock.realtime_ns())
                if job.command.id is not None:
                    self._dedupe.finish(job.command.id, outcome)
                self._finish(job, outcome)
                for copy in self._copies.pop(job.command.id or "", ()):
                    self._send(copy, outcome)
        finally:
            self._tasks.pop(key, None)
            self._lanes.pop(key, None)

    async def _run(self, job: _Job) -> Outcome:
        cause = "mqtt" if job.command.id is None else f"mqtt:{job.command.id}"
        deadline = asyncio.timeout(self._timeout_s)
        try:
            self._check_age(job)
            async with deadline:
                result = await self._handler.command(
                    job.topic.target, job.topic.recorder, job.verb, job.command.args, cause
                )
            return Outcome(changed=result.changed, data=result.data)
        except CommandError as exc:
            return Outcome(error=exc)
        except TimeoutError:
            if deadline.expired():
                log.error("%s did not finish within %.0f s", job.topic.path, self._timeout_s)
            else:
                log.exception("%s failed", job.topic.path)
        except Exception:
            log.exception("%s failed", job.topic.path)
        return Outcome(error=CommandError("internal", "the command failed; the device's log says why"))

    def _refuse_for_rate(self, job: _Job) -> None:
        if self._flood_log.take():
            log.warning("commands come too fast: %d refused since the start", self._rate.refused)
        if self._refusals.take():
            job.command = Command(id=salvage_id(job.message.payload))
            self._send(
                job, Outcome(error=CommandError("rate_limited", "more than 10 commands a second; send it again"))
            )

    def _finish(self, job: _Job, outcome: Outcome) -> None:
        """One line for the audit, and the reply."""
        if outcome.error is None:
            result = "ok" if outcome.changed else "ok, nothing changed"
        else:
            result = f"{outcome.error.code}: {outcome.error.message}"
        via = f" (group {job.topic.group})" if job.topic.group else ""
        command_id = "-" if job.command.id is None else job.command.id
        log.info("command %s%s id %s: %s", shorten(job.topic.path, 120, quote=False), via, command_id, result)
        self._send(job, outcome)

    def _send(self, job: _Job, outcome: Outcome) -> None:
        topic = self._topics.reply_topic(job.topic, job.message.response_topic)
        if topic is None:
            return
        now_ns = self._clock.realtime_ns() if outcome.done_ns is None else outcome.done_ns
        try:
            payload = encode_reply(job.command.id, outcome, now_ns)
        except (TypeError, ValueError):
            log.exception("the reply to %s cannot be written as JSON", job.topic.path)
            failure = CommandError("internal", "the reply could not be written; the device's log says why")
            payload = encode_reply(job.command.id, Outcome(error=failure), now_ns)
        self._reply(topic, payload, job.message.correlation_data)
