"""Conductor: decides for each recorder, from its schedule, commands and limits, whether it records, and until when.

The rules are `msrecd.schedule`'s pure functions; here they meet the clocks and the units. A decision is looked at
again when it may change: at the end of a window or limit, after a command or a reload, within a second after the wall
clock was set or became trusted or the machine's time zone was changed, and at least every 30 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from msrecd.clock import NS, SYSTEM_CLOCK, Clock
from msrecd.config.model import Config, Location
from msrecd.config.recorder_model import Recorder
from msrecd.control.begun import Begun
from msrecd.control.recorders import Recorders
from msrecd.control.watched import Watched
from msrecd.errors import CommandError
from msrecd.recorder.controller import RecorderController
from msrecd.schedule import override
from msrecd.schedule.model import ScheduleError, Trust
from msrecd.schedule.override import Cause, Facts, Follow, Held, Override, Started, Triggered
from msrecd.schedule.planner import WAIT_FOR_CLOCK_S, Planner
from msrecd.schedule.zones import system_zone

log = logging.getLogger(__name__)

_LONGEST_S = 30.0
_POLL_INTERVAL_S = 1.0
_SHORTEST_S = 0.05
_SLICE_S = 1.0  # nothing wakes a sleeper when the clock is set
_STEP_NS = NS // 5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Planners:
    """Of one recorder: when it is to record, and when its triggers may begin a recording (None: always)."""

    record: Planner
    arm: Planner | None

    @property
    def is_current(self) -> bool:
        return self.record.is_current and (self.arm is None or self.arm.is_current)


@dataclass(slots=True)
class _Part:
    recorder: Recorder
    planners: Planners
    state: Override
    cause: str = ""  # who gave the last command, for the recorder's state
    watched: Watched = field(default_factory=Watched)


class Conductor:
    """Belongs to the loop."""

    def __init__(self, owner: Recorders, changed: Callable[[], None], *, clock: Clock = SYSTEM_CLOCK) -> None:
        """
        Args:
            changed: called on the loop when what `upcoming` says is another than before, or the trust in the clock.

        Raises:
            ScheduleError: a schedule of the owner's configuration cannot be planned.
        """
        self._owner = owner
        self._changed = changed
        self._clock = clock
        self._parts: dict[str, _Part] = {}
        self._looking: dict[str, asyncio.Task[float]] = {}  # recorders that are being looked at
        self._wake = asyncio.Event()
        self._began_ns = clock.monotonic_ns()
        self._was_trusted = False
        self._published: tuple[bool, dict[str, Any]] | None = None
        self._place: Location | None = None
        self.adopt(self.prepare(owner.config))

    def prepare(self, config: Config) -> Mapping[str, Planners]:
        """What can go wrong with a new configuration; nothing changes yet.

        Raises:
            ScheduleError: a schedule cannot be planned; the message begins with the recorder's name.
        """
        planners = {}
        for recorder in config.recorders:
            known = self._parts.get(recorder.name)
            is_same = known is not None and known.recorder.schedules == recorder.schedules
            if known is not None and is_same and self._place == config.location and known.planners.is_current:
                planners[recorder.name] = known.planners
                continue
            arming = recorder.schedules_that("arm")
            try:
                planners[recorder.name] = Planners(
                    Planner(recorder.schedules_that("record"), config.location),
                    Planner(arming, config.location) if arming else None,
                )
            except ScheduleError as exc:
                raise ScheduleError(f"recorder {recorder.name}: {exc}") from exc
        return planners

    def adopt(self, planners: Mapping[str, Planners]) -> None:
        """Go by the owner's configuration as it is now; `planners` are what `prepare` made of it.

        What was decided by hand stays. A stop that holds until the end of a window falls with the schedule it was meant
        for, a recording by `autostart` with the `autostart`.
        """
        config = self._owner.config
        kept, self._parts, self._place = self._parts, {}, config.location
        for recorder in config.recorders:
            part = kept.get(recorder.name)
            if part is None:
                part, starts = _Part(recorder, planners[recorder.name], Follow()), recorder.autostart
            else:
                starts = recorder.autostart and not part.recorder.autostart and isinstance(part.state, Follow)
                part.state = _carried_over(part, recorder)
                part.watched = part.watched.after(is_same=part.recorder.triggers == recorder.triggers)
                part.recorder, part.planners = recorder, planners[recorder.name]  # in place: a command may be using it
            if starts:
                part.state = override.start(part.state, self._facts(part), cause=Cause.AUTOSTART)
            self._parts[recorder.name] = part
        self._wake.set()

    def wake(self) -> None:
        """Look at everything again soon: units have come."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self._wake.clear()
                seen = (
                    self._clocks()
                )  # before the look: opening a camera takes its time, the clock may be set meanwhile
                wait_s = await self.look(poll_interval_s=_POLL_INTERVAL_S)
                await self._sleep(max(_SHORTEST_S, wait_s), seen)
        finally:
            for task in self._looking.values():
                task.cancel()

    async def look(self, *, poll_interval_s: float | None = None) -> float:
        """Bring all recorders to where they have to be; seconds until a decision may change.

        Args:
            poll_interval_s: how long to wait for those that take their time (None: until they are done). They go on by
                themselves, and what comes of them is looked at when they are done.
        """
        self._follow_time_zone()
        for name in self._parts:  # each by itself: a camera that hangs must not delay the others
            if name not in self._looking:
                task = asyncio.get_running_loop().create_task(self._look_safely(name), name=f"{name}-schedule")
                self._looking[name] = task
                task.add_done_callback(partial(self._looked, name))
        waits = [_LONGEST_S]
        if self._looking:
            done, late = await asyncio.wait(self._looking.values(), timeout=poll_interval_s)
            waits += [task.result() for task in done]
            for task in late:
                task.add_done_callback(lambda _: self._wake.set())
        now = (self._owner.walltime.trusted, self.upcoming())
        if now != self._published:
            self._published = now
            self._changed()
        return min(waits)

    def _follow_time_zone(self) -> None:
        """Plan again what goes by the machine's time zone if that is another one now."""
        if all(part.planners.is_current for part in self._parts.values()):
            return
        try:
            self.adopt(self.prepare(self._owner.config))
        except ScheduleError as exc:
            log.error("the time zone of this machine has changed, but schedules stay as they were: %s", exc)
        else:
            log.info("the time zone of this machine is %s now; schedules follow it", system_zone())

    def _looked(self, name: str, _: object) -> None:
        del self._looking[name]

    async def _sleep(self, seconds: float, seen: tuple[int, bool]) -> None:
        """Until time is up, a command comes, the clock is set (since `seen`) or the machine's zone is changed."""
        until_ns = self._clock.monotonic_ns() + round(seconds * NS)
        while (left_ns := until_ns - self._clock.monotonic_ns()) > 0 and not self._wake.is_set():
            offset_ns, trusted = self._clocks()
            if abs(offset_ns - seen[0]) > _STEP_NS or trusted != seen[1]:
                return
            if not all(part.planners.is_current for part in self._parts.values()):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_SLICE_S, left_ns / NS)):
                    await self._wake.wait()

    def _clocks(self) -> tuple[int, bool]:
        """How far the wall clock is ahead of the monotonic one, in ns, and whether it is trusted."""
        return self._clock.realtime_ns() - self._clock.monotonic_ns(), self._owner.walltime.trusted

    async def start(self, name: str, cause: str, duration_s: float | None) -> bool:
        """A command: start.

        Raises:
            CommandError: it could not begin; what was decided before holds again, as it does when this is cancelled.
        """
        unit, part = self._owner.units[name], self._parts[name]
        before, before_cause = part.state, part.cause
        part.state = override.start(before, self._facts(part), duration_s=duration_s)
        part.cause = cause
        try:
            changed = await unit.start(cause)
        except BaseException:  # also of a command that is given up after its time limit
            part.state, part.cause = before, before_cause
            raise
        self._update_end(part, unit)
        self._wake.set()
        return changed

    async def stop(self, name: str, cause: str) -> bool:
        """A command: stop; it holds until the end of an open window.

        Raises:
            CommandError: internal.
        """
        part = self._parts[name]
        part.state = override.stop(part.state, self._facts(part))
        part.cause = cause
        changed = await self._owner.units[name].stop(cause)
        self._wake.set()
        return changed

    def ended(self, name: str) -> None:
        """A recording came to its own end (a file was played out): it is not begun again."""
        part = self._parts.get(name)
        if part is not None:
            part.state = override.stop(part.state, self._facts(part))

    def found(self, name: str, number: int) -> str:
        """A trigger of this recorder has found something that lasts: it begins or extends a recording.

        Returns:
            What comes of it: `start`, `extend`, `held` (by a command, until the end of the window) or `limited`
            (`max_per_hour`).
        """
        part, unit = self._parts[name], self._owner.units[name]
        trigger = part.recorder.triggers[number]
        now_ns = self._clock.monotonic_ns()
        part.state, decision = override.step(part.state, self._facts(part))
        if isinstance(part.state, Held):
            return "held"
        begins = not unit.is_wanted and not decision.record
        if begins and not part.watched.may_begin(number, now_ns, trigger.max_per_hour):
            return "limited"
        part.watched.found(number, now_ns, begins=begins)
        part.state = override.trigger(part.state, self._facts(part), kind=trigger.kind, until_ns=None)
        self._wake.set()
        return "start" if begins else "extend"

    def lost(self, name: str, number: int) -> None:
        """What a trigger had found is over: it is recorded on for as long as the trigger holds."""
        part = self._parts.get(name)
        if part is None or number >= len(part.recorder.triggers):
            return
        until_ns = self._clock.monotonic_ns() + round(part.recorder.triggers[number].hold_s * NS)
        last_ns = part.watched.lost(number, until_ns)
        if last_ns is not None:
            part.state = override.trigger(part.state, self._facts(part), kind="", until_ns=last_ns)
            self._wake.set()

    def begun(self) -> Begun:
        """Which recordings triggers have begun, as far as it counts for `max_per_hour`."""
        return {name: dict(part.watched.begun_ns) for name, part in self._parts.items() if part.watched.begun_ns}

    def recall(self, begun: Begun) -> None:
        """What `begun` said before this program was started."""
        for name, triggers in begun.items():
            part = self._parts.get(name)
            if part is not None:
                part.watched.begun_ns = {
                    number: times for number, times in triggers.items() if number < len(part.recorder.triggers)
                }

    def upcoming(self) -> dict[str, Any]:
        """For state/daemon: next planned start and stop of each recorder that has a schedule."""
        upcoming = {}
        for name, part in self._parts.items():
            if not part.recorder.schedules_that("record"):
                continue
            plan = part.planners.record.at(self._now(), self._trust())
            upcoming[name] = {
                "next_start": _text(plan.next_start),
                "next_stop": _text(plan.next_stop),
                "waiting_for_clock": plan.waiting,
            }
        return upcoming

    async def _look_safely(self, name: str) -> float:
        """One recorder's fault, of whatever kind, must not end the schedules of the others for good."""
        try:
            return await self._look_at(name)
        except Exception:
            log.exception("%s: its schedule could not be followed; next try in %g s", name, _LONGEST_S)
            return _LONGEST_S

    async def _look_at(self, name: str) -> float:
        """Bring one recorder to where it has to be; seconds until the decision may change."""
        part, unit = self._parts.get(name), self._owner.units.get(name)
        if part is None or unit is None:
            return _LONGEST_S
        facts = self._facts(part)
        part.state, decision = override.step(part.state, facts)
        arming = None if part.planners.arm is None else part.planners.arm.at(facts.now, self._trust())
        unit.arm_triggers(arming is None or arming.current is not None)
        try:
            if decision.record and not unit.is_wanted:
                await unit.start(self._cause(part, decision.cause), persistent=True)
                part.state, decision = override.step(part.state, self._facts(part))
            elif not decision.record and unit.is_wanted:
                await unit.stop(str(decision.cause) if decision.cause is not Cause.NONE else "schedule")
        except CommandError as exc:
            if self._owner.units.get(name) is not unit:
                return 0.0  # a reload has replaced it meanwhile
            log.error("%s: %s", name, exc.message)
        unit.status.set_until(decision.until_ns if decision.record else None)
        ends = [decision.until_ns] if decision.until_ns is not None else []
        plan = part.planners.record.at(facts.now, self._trust())
        if plan.next_start is not None:
            ends.append(facts.ns_of(plan.next_start))
        if arming is not None:
            ends += [facts.ns_of(at) for at in (arming.next_start, arming.next_stop) if at is not None]
        if plan.waiting:
            usable_ns = self._began_ns + round(WAIT_FOR_CLOCK_S * NS)  # if the clock shows a date that can be true
            ends += [usable_ns] if usable_ns > facts.now_ns else []
        now = self._clock.monotonic_ns()
        return min([_LONGEST_S, *(max(0.0, (end - now) / NS) for end in ends)])

    def _update_end(self, part: _Part, unit: RecorderController) -> None:
        part.state, decision = override.step(part.state, self._facts(part))
        unit.status.set_until(decision.until_ns if decision.record else None)

    def _facts(self, part: _Part) -> Facts:
        now = self._now()
        unit = self._owner.units.get(part.recorder.name)
        return Facts(
            now=now,
            now_ns=self._clock.monotonic_ns(),
            window=part.planners.record.at(now, self._trust()).current,
            recording_since_ns=unit.wanted_since_ns if unit is not None else None,
            max_duration_s=part.recorder.max_duration_s,
        )

    def _trust(self) -> Trust:
        """What schedules go by. Once believed, the clock is not waited for again when it is set by hand: that
        would end recordings."""
        synchronized = self._owner.walltime.trusted
        self._was_trusted = self._was_trusted or synchronized
        waited = math.inf if self._was_trusted else (self._clock.monotonic_ns() - self._began_ns) / NS
        return Trust(synchronized=synchronized, waited_s=waited)

    def _now(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self._clock.realtime_ns() // 1000)

    def _cause(self, part: _Part, cause: Cause) -> str:
        if isinstance(part.state, Triggered) and cause is Cause.TRIGGER:
            return f"trigger:{part.state.kind}"
        return part.cause if cause is Cause.COMMAND and part.cause else str(cause)


def _carried_over(part: _Part, recorder: Recorder) -> Override:
    """What was decided for a recorder, after its configuration has changed."""
    if isinstance(part.state, Held) and part.recorder.schedules != recorder.schedules:
        return Follow()
    if isinstance(part.state, Triggered) and part.recorder.triggers != recorder.triggers:
        return Follow(cause=Cause.TRIGGER)
    if isinstance(part.state, Started) and part.state.cause is Cause.AUTOSTART and not recorder.autostart:
        return Follow(cause=Cause.RELOAD)
    return part.state


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds").replace("+00:00", "Z")
