"""Arming: the inputs of a recorder that is idle, held open for its triggers or its pre-roll.

The supervisor's tries open them: what cannot be opened now is opened later, and what was lost is opened again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from msrecd import MediaStreamTrack
from msrecd.recorder.attempt import Attempt
from msrecd.recorder.attempts import Attempts
from msrecd.recorder.problems import Problem
from msrecd.recorder.reporter import RecorderLog, Reporter, name_of
from msrecd.recorder.settings import RecorderSettings
from msrecd.recorder.states import State, StateMachine, Trigger
from msrecd.recorder.status import RecorderStatus
from msrecd.recorder.supervisor import Supervisor
from msrecd.tasks import Tasks

if TYPE_CHECKING:
    from msrecd.recorder.watcher import Finding, TriggerWatch


class Arming:
    """Lives on the loop. It performs the transitions between idle and armed."""

    def __init__(
        self,
        settings: RecorderSettings,
        attempts: Attempts,
        *,
        machine: StateMachine,
        lock: asyncio.Lock,
        status: RecorderStatus,
        reporter: Reporter,
        supervisor: Supervisor,
        retry_limit_s: Callable[[], float],
        found: Callable[[Finding], None],
        log: RecorderLog,
        tasks: Tasks,
    ) -> None:
        """
        Args:
            lock: held by the recorder's commands, and by a try to open the inputs.
            retry_limit_s: the longest time to the next try.
            found: called with what a trigger found.
        """
        self._settings = settings
        self._attempts = attempts
        self._machine = machine
        self._lock = lock
        self._status = status
        self._reporter = reporter
        self._supervisor = supervisor
        self._retry_limit_s = retry_limit_s
        self._log = log
        self._watch = self._make_watch(found, tasks) if settings.triggers else None

    def _make_watch(self, found: Callable[[Finding], None], tasks: Tasks) -> TriggerWatch:
        from msrecd.recorder.watcher import TriggerWatch  # here: recorders without triggers need none of it

        return TriggerWatch(
            self._settings.name,
            self._settings.triggers,
            input=lambda: self._attempts.input,
            found=found,
            log=self._log,
            tasks=tasks,
        )

    @property
    def is_armed(self) -> bool:
        """Whether the recorder is idle, holds its inputs open and keeps a pre-roll."""
        return self._machine.state is State.ARMED

    @property
    def is_wanted(self) -> bool:
        """Whether the inputs are to be open while the recorder is idle."""
        return bool(self._reasons)

    @property
    def _reasons(self) -> str:
        """What wants the inputs open while the recorder is idle, in words; "" if nothing does."""
        triggers = ["triggers"] if self._watch is not None and self._watch.is_armed else []
        return " and ".join([*triggers, *(["pre-roll"] if self._settings.options.get("pre_roll") else [])])

    @property
    def triggers(self) -> list[dict[str, Any]]:
        """For state/health: what the triggers score."""
        return [] if self._watch is None else self._watch.facts(holds_inputs=self.is_armed)

    def arm_triggers(self, is_armed: bool) -> None:
        """Let the triggers look at the inputs, which are held open for them, or not; without triggers nothing."""
        if self._watch is None or self._watch.is_armed == is_armed or self._machine.state is State.CLOSED:
            return
        self._watch.arm(is_armed)
        if is_armed and self._machine.state is State.IDLE:
            self.arm()  # logged when there is something to look at
        elif is_armed:
            self._log.info("triggers armed")
        elif not self.is_wanted and self._machine.state in (State.IDLE, State.ARMED):
            self._disarm()
            self._status.recovered(arm=True)
            self._status.changed()

    def arm(self) -> None:
        """Hold the inputs open while idle, if anything wants that; returns at once, and is kept up."""
        if self.is_wanted and not self._attempts.is_file and self._machine.state is State.IDLE:
            self._supervisor.keep_trying("arm", self._try_once, limit_s=self._retry_limit_s, first_s=0.0)

    def lost(self, attempt: Attempt, track: MediaStreamTrack) -> None:
        """A device went away while armed: all inputs are closed, and opened again when that is possible."""
        problem = attempt.problem or Problem("device_missing", f"{name_of(track)} went away")
        self._disarm()
        self._report(problem)
        back_off = self._attempts.arming_back_off()
        self._supervisor.keep_trying("arm", self._try_once, limit_s=self._retry_limit_s, back_off=back_off)

    def close(self) -> None:
        """The triggers look no more."""
        if self._watch is not None:
            self._watch.arm(False)

    def _disarm(self) -> None:
        if self.is_armed:
            self._attempts.close()
            self._machine.do(Trigger.DISARM)

    async def _try_once(self) -> bool:
        """Open the inputs, and keep a pre-roll; whether no further try is needed."""
        async with self._lock:
            if self._machine.state is not State.IDLE or not self.is_wanted:
                return True
            try:
                attempt = await self._armed_attempt()
            except Exception as exc:
                if self.is_wanted:
                    self._report(self._reporter.problem_of(exc))
                return not self.is_wanted
            was_missing = self._status.arm_problem is not None
            self._status.recovered(arm=True)
            if attempt.input.is_file or not self.is_wanted:
                attempt.close()
                if was_missing:
                    self._log.info("the input is there again")
            else:
                self._attempts.arm(attempt)
                self._reporter.unmet(attempt.input)
                self._machine.do(Trigger.ARM)
                self._log.info("%s armed%s", self._reasons, ", the input is there again" if was_missing else "")
            if was_missing or self.is_armed:
                self._status.changed()
            return True

    async def _armed_attempt(self) -> Attempt:
        """An attempt that keeps a pre-roll; one on a file, of which nothing passes before it is played, does not.

        Raises:
            CommandError, DOMException, TypeError: why not; nothing is open then.
        """
        attempt = await self._attempts.make()
        try:
            if not attempt.input.is_file:
                await attempt.arm()
                if attempt.problem or attempt.input.has_lost_track:  # meanwhile
                    raise (attempt.problem or Problem("device_missing", "the device went away")).error()
        except BaseException:
            attempt.close()
            raise
        return attempt

    def _report(self, problem: Problem) -> None:
        """The inputs should be open, and are not."""
        known = self._status.arm_problem
        beginning = f"no {self._reasons.replace(' and ', ' and no ')} for now: "
        if known is not None and not known.message.startswith(beginning):
            self._status.arm_problem = None  # what wants them has changed: the state says so, and nothing is news
        self._reporter.arm_problem(replace(problem, message=beginning + problem.message, cause=problem.cause or "arm"))
