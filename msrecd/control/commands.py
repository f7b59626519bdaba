"""Commands from their arrival to their reply: checked, made to act once, run in order; the same for every adapter.

    adapter -> CommandPort: rate, form, verb, id, age -> Commands: one queue a recorder, one for the daemon -> act

Everything here runs on the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from msrecd.clock import NS, SYSTEM_CLOCK, Clock
from msrecd.control.messages import (
    PAYLOAD_LIMIT_BYTES,
    Address,
    Command,
    Result,
    check_verb,
    decode_command,
    decode_switch,
    encode_reply,
    parse_path,
    salvage_id,
    shorten,
)
from msrecd.errors import CommandError
from msrecd.vocabulary.times import format_utc
from msrecd.vocabulary.verbs import SWITCH_VERB

log = logging.getLogger(__name__)

SHOWN_RECORDERS = 8  # in the answer to a name that is none of them
QUEUE_LIMIT = 64
COPIES_LIMIT = 64
TIMEOUT_S = 120.0

# Acts on a checked command: (address, args, cause) -> Result. Raises CommandError with a code of the contract.
Act = Callable[[Address, Mapping[str, object], str], Awaitable[Result]]


@dataclass(slots=True, kw_only=True)
class Request:
    """One command as an adapter received it.

    Attributes:
        path: `recorder/<name>/<verb>` or `daemon/<verb>`, as sent.
        payload: a JSON object or nothing; for the verb `set` the text ON or OFF.
        answer: is given the encoded reply, once.
        via: for the log: which way it came, where there are several.
        refusal: why it must not run, if its transport knows a reason.
        expires_ns: when it is no longer wanted, on CLOCK_MONOTONIC; None: never.
    """

    path: str
    payload: bytes
    answer: Callable[[bytes], None]
    via: str = ""
    refusal: CommandError | None = None
    expires_ns: int | None = None


@dataclass(slots=True)
class _Job:
    port: CommandPort
    request: Request
    address: Address
    command: Command = field(default_factory=Command)


class RateLimit:
    """A token bucket: at most `per_s` in the long run, `burst` at once. Counts what it refuses."""

    def __init__(self, clock: Clock, *, per_s: float = 10.0, burst: int = 20) -> None:
        self._clock = clock
        self._per_s = per_s
        self._burst = float(burst)
        self._tokens = float(burst)
        self._last_ns = clock.monotonic_ns()
        self.refused = 0

    def take(self) -> bool:
        """Whether one more may pass now."""
        now_ns = self._clock.monotonic_ns()
        self._tokens = min(self._burst, self._tokens + (now_ns - self._last_ns) / NS * self._per_s)
        self._last_ns = now_ns
        if self._tokens < 1.0:
            self.refused += 1
            return False
        self._tokens -= 1.0
        return True


@dataclass(slots=True)
class _Seen:
    until_ns: int
    result: Result | None = None


class Dedupe:
    """The last 256 ids of ten minutes with the result of each.

    A command in flight has an id without a result: `begin` says so, and the caller keeps its second copy until
    `finish`. QoS 1 may deliver twice, and a controller that saw no reply sends again: both act once.
    """

    def __init__(self, clock: Clock, *, limit: int = 256, keep_s: float = 600.0) -> None:
        self._clock = clock
        self._limit = limit
        self._keep_ns = int(keep_s * NS)
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def begin(self, command_id: str) -> bool:
        """Whether this id is new; if so it is in flight from now on."""
        self._forget()
        if command_id in self._seen:
            return False
        self._seen[command_id] = _Seen(self._clock.monotonic_ns() + self._keep_ns)
        self._forget()
        return True

    def result(self, command_id: str) -> Result | None:
        """What became of a known id; None while it is in flight or when it is unknown."""
        seen = self._seen.get(command_id)
        return seen.result if seen is not None else None

    def finish(self, command_id: str, result: Result) -> None:
        """Keep the result for the copies to come. The ten minutes run from now."""
        self._seen.pop(command_id, None)
        self._seen[command_id] = _Seen(self._clock.monotonic_ns() + self._keep_ns, result)
        self._forget()

    def abandon(self, command_id: str) -> None:
        """Forget an id whose command was not tried, so that the same command may be sent again."""
        self._seen.pop(command_id, None)

    def _forget(self) -> None:
        now_ns = self._clock.monotonic_ns()
        for command_id, seen in list(self._seen.items()):
            # What is in flight stays, whatever its age: forgetting it would let its copy act a second time.
            if seen.result is None:
                continue
            if seen.until_ns > now_ns and len(self._seen) <= self._limit:
                break
            del self._seen[command_id]


class Commands:
    """Runs commands: those of one recorder one after another, in the order of their arrival, from all adapters."""

    def __init__(
        self,
        act: Act,
        recorders: Callable[[], Collection[str]],
        *,
        clock_trusted: Callable[[], bool],
        clock: Clock = SYSTEM_CLOCK,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """`recorders` gives the names that are configured now."""
        self.recorders = recorders
        self.clock_trusted = clock_trusted
        self.clock = clock
        self.is_closing = False
        self._act = act
        self._timeout_s = timeout_s
        self._queues: dict[str, deque[_Job]] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}

    def port(
        self,
        name: str,
        *,
        allow_verbs: Collection[str] | None = None,
        max_age_s: float = 60.0,
        cause_has_id: bool = True,
    ) -> CommandPort:
        """A port for one adapter, with ids and rate limits of its own.

        Args:
            name: the cause of what it starts, `name` or `name:<id of the command>`.
            allow_verbs: None allows all.
            max_age_s: how old `issued_at` may be.
        """
        return CommandPort(self, name, allow_verbs=allow_verbs, max_age_s=max_age_s, cause_has_id=cause_has_id)

    async def close(self, timeout_s: float) -> None:
        """Refuse what comes from now on and wait for what runs, at most `timeout_s` seconds."""
        self.is_closing = True
        workers = set(self._workers.values())
        if not workers:
            return
        _, late = await asyncio.wait(workers, timeout=timeout_s)
        for task in late:
            task.cancel()
        if late:
            log.warning("%d commands did not finish before the shutdown and were cancelled", len(late))
            await asyncio.wait(late, timeout=1.0)

    def enqueue(self, job: _Job) -> None:
        """Raises: CommandError `rate_limited` when too many wait."""
        key = job.address.recorder or ""
        queue = self._queues.setdefault(key, deque())
        if len(queue) >= QUEUE_LIMIT:
            raise CommandError("rate_limited", f"{QUEUE_LIMIT} commands are already waiting")
        queue.append(job)
        if key not in self._workers:
            name = f"commands of {key or 'the daemon'}"
            self._workers[key] = asyncio.get_running_loop().create_task(self._work(key, queue), name=name)

    async def _work(self, key: str, queue: deque[_Job]) -> None:
        try:
            while queue:
                job = queue.popleft()
                result = replace(await self._run(job), done_ns=self.clock.realtime_ns())
                job.port.finished(job, result)
        finally:
            self._workers.pop(key, None)
            self._queues.pop(key, None)

    async def _run(self, job: _Job) -> Result:
        path = shorten(job.address.path, 120, quote=False)
        deadline = asyncio.timeout(self._timeout_s)
        try:
            job.port.check_age(job)
            async with deadline:
                return await self._act(job.address, job.command.args, job.port.cause(job.command))
        except CommandError as exc:
            return Result(error=exc)
        except TimeoutError:
            if deadline.expired():
                log.error("command %s did not finish within %.0f s and was cancelled", path, self._timeout_s)
            else:
                log.exception("command %s failed", path)
        except Exception:
            log.exception("command %s failed", path)
        return Result(error=CommandError("internal", "the command failed; the device's log says why"))


class CommandPort:
    """Where one adapter hands in its commands: `receive` checks them; each gets exactly one reply."""

    def __init__(
        self,
        commands: Commands,
        name: str,
        *,
        allow_verbs: Collection[str] | None,
        max_age_s: float,
        cause_has_id: bool,
    ) -> None:
        self._commands = commands
        self._name = name
        self._allow_verbs = allow_verbs
        self._max_age_s = max_age_s
        self._cause_has_id = cause_has_id
        clock = self._clock = commands.clock
        self._dedupe = Dedupe(clock)
        self._rate = RateLimit(clock)
        # A flood is answered too, but not without end.
        self._refusals = RateLimit(clock, per_s=100.0, burst=500)
        self._flood_log = RateLimit(clock, per_s=0.2, burst=1)
        self._copies: dict[str, list[_Job]] = {}

    @property
    def refused_for_rate(self) -> int:
        """How many commands came too fast."""
        return self._rate.refused

    def cause(self, command: Command) -> str:
        """What the state names as the reason of a recording that this command starts."""
        return self._name if command.id is None or not self._cause_has_id else f"{self._name}:{command.id}"

    def receive(self, request: Request) -> None:
        """Take a command. Never raises for what is in it; it is answered now or when it has run."""
        job = _Job(self, request, parse_path(request.path))
        if not self._rate.take():
            self._refuse_for_rate(job)
            return
        try:
            self._admit(job)
        except CommandError as exc:
            if job.command.id is None:
                job.command = Command(id=salvage_id(request.payload))
            self._finish(job, Result(error=exc))

    def check_age(self, job: _Job) -> None:
        """Refuse what is older than its sender or the configuration wants, and what comes from the future.

        Raises: CommandError `expired`.
        """
        expires_ns = job.request.expires_ns
        if expires_ns is not None and self._clock.monotonic_ns() > expires_ns:
            raise CommandError("expired", "the message's expiry interval passed before it could be run")
        issued_at = job.command.issued_at
        if issued_at is None or not self._commands.clock_trusted():
            return
        age_s = self._clock.realtime_ns() / NS - issued_at
        if age_s > self._max_age_s:
            raise CommandError("expired", f"issued {age_s:.0f} s ago; at most {self._max_age_s:g} s are accepted")
        if age_s < -self._max_age_s:
            # A recorded command with a date in the future would otherwise be valid until that date.
            raise CommandError("expired", f"issued {-age_s:.0f} s in the future: is the sender's clock right?")

    def finished(self, job: _Job, result: Result) -> None:
        """The job has run: answer it and its copies."""
        if job.command.id is not None:
            self._dedupe.finish(job.command.id, result)
        self._finish(job, result)
        if job.command.id is not None:
            for copy in self._copies.pop(job.command.id, ()):
                self._answer(copy, result)

    def _admit(self, job: _Job) -> None:
        """Check a command and queue it.

        Raises: CommandError when it is refused.
        """
        request, address = job.request, job.address
        if request.refusal is not None:
            raise request.refusal
        if len(request.payload) > PAYLOAD_LIMIT_BYTES:
            raise CommandError("bad_payload", f"{len(request.payload)} bytes; at most {PAYLOAD_LIMIT_BYTES} are read")
        verb = check_verb(address, self._allow_verbs)
        known = self._commands.recorders()
        if address.recorder is not None and address.recorder not in known:
            there = ", ".join(sorted(known)[:SHOWN_RECORDERS]) + (", ..." if len(known) > SHOWN_RECORDERS else "")
            message = f"this device has no recorder {shorten(address.recorder)}; there are: {there or 'none'}"
            raise CommandError("unknown_recorder", message)
        if verb == SWITCH_VERB:
            job.address = replace(address, verb=decode_switch(request.payload, self._allow_verbs))
        else:
            job.command = decode_command(request.payload, verb)
        command_id = job.command.id
        if command_id is not None and not self._dedupe.begin(command_id):
            self._answer_copy(command_id, job)
            return
        try:
            if self._commands.is_closing:
                raise CommandError("wrong_state", "the daemon is shutting down", retryable=True)
            self.check_age(job)
            self._commands.enqueue(job)
        except CommandError:
            if command_id is not None:
                self._dedupe.abandon(command_id)
            raise

    def _answer_copy(self, command_id: str, job: _Job) -> None:
        result = self._dedupe.result(command_id)
        if result is not None:
            self._answer(job, result)
            return
        copies = self._copies.setdefault(command_id, [])
        if len(copies) < COPIES_LIMIT:
            copies.append(job)

    def _refuse_for_rate(self, job: _Job) -> None:
        if self._flood_log.take():
            log.warning("%s commands come too fast: %d refused since the start", self._name, self._rate.refused)
        if self._refusals.take():
            job.command = Command(id=salvage_id(job.request.payload))
            error = CommandError("rate_limited", "more than 10 commands a second; send it again")
            self._answer(job, Result(error=error))

    def _finish(self, job: _Job, result: Result) -> None:
        """One line for the audit, and the reply."""
        if result.error is None:
            outcome = "ok" if result.changed else "ok, nothing changed"
        else:
            outcome = f"{result.error.code}: {result.error.message}"
        via = f" ({job.request.via})" if job.request.via else ""
        command_id = "-" if job.command.id is None else job.command.id
        path = shorten(job.address.path, 120, quote=False)
        log.info("%s command %s%s id %s: %s", self._name, path, via, command_id, outcome)
        self._answer(job, result)

    def _answer(self, job: _Job, result: Result) -> None:
        ts = format_utc(self._clock.realtime_ns() if result.done_ns is None else result.done_ns)
        try:
            payload = encode_reply(job.command.id, result, ts)
        except (TypeError, ValueError):
            log.exception("the reply to %s cannot be written as JSON", shorten(job.address.path, 120, quote=False))
            failure = CommandError("internal", "the reply could not be written; the device's log says why")
            payload = encode_reply(job.command.id, Result(error=failure), ts)
        job.request.answer(payload)
