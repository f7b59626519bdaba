"""What the daemon does when a trigger finds something: a recording, an event, protection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from msrecd.clock import NS, SYSTEM_CLOCK, Clock
from msrecd.control.begun import Begun
from msrecd.control.conductor import Conductor
from msrecd.control.publisher import Publisher
from msrecd.errors import CommandError
from msrecd.recorder.controller import RecorderController
from msrecd.recorder.watcher import Finding
from msrecd.storage.triggerlines import TriggerNotes
from msrecd.tasks import Tasks

log = logging.getLogger(__name__)

Protect = Callable[[RecorderController, Mapping[str, object]], Awaitable[Mapping[str, object]]]
_PROTECT_BESIDE_S = 1.0
_AGAIN_S = (1.0, 5.0, 15.0)
_PUBLISH_S = 10.0  # what begins nothing is published no more often: a sound may come each second


class Triggering:
    """Belongs to the loop."""

    def __init__(
        self,
        conductor: Callable[[], Conductor],
        publisher: Publisher,
        protect: Protect,
        tasks: Tasks,
        notes: TriggerNotes,
        *,
        remember: Callable[[Begun], None] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """
        Args:
            protect: the verb `protect`.
            notes: for the manifest.
            remember: keeps for the next start what has begun; blocking.
        """
        self._remember = remember
        self._conductor = conductor
        self._publisher = publisher
        self._protect = protect
        self._tasks = tasks
        self._notes = notes
        self._clock = clock
        self._published_ns: dict[tuple[str, int, str], int] = {}
        self._since_ns: dict[tuple[str, int], int] = {}  # what is to be protected when it is over
        self._limited: set[tuple[str, int]] = set()
        self._unprotected: set[str] = set()  # recorders of which something is not protected, and that was logged

    def found(self, unit: RecorderController, finding: Finding) -> None:
        """A trigger has found something, or that is over."""
        key = (unit.name, finding.number)
        if finding.change == "end":
            self._conductor().lost(unit.name, finding.number)
            self._notes.end(unit.name, finding.number, at_ns=finding.at_ns)
            since_ns = self._since_ns.pop(key, None)
            if since_ns is not None:
                self._tasks.spawn(self._keep(unit, finding.number, since_ns), f"{unit.name}-protect")
            return
        action = self._conductor().found(unit.name, finding.number)
        if action == "start" and self._remember is not None:
            keep = asyncio.to_thread(self._remember, self._conductor().begun())
            self._tasks.spawn(keep, f"{unit.name}-begun")
        if action in ("start", "extend"):  # what is recorded
            score, at_ns = finding.score, finding.at_ns
            self._notes.begin(unit.name, finding.number, kind=finding.kind, score=score, at_ns=at_ns)
        self._warn_of_limit(unit, finding, key, action)
        self._publish(unit, finding, action)
        if finding.protect and action in ("start", "extend"):
            pre_roll_ms = float(str(unit.settings.options.get("pre_roll") or 0))
            self._since_ns[key] = finding.at_ns - round((pre_roll_ms / 1000 + _PROTECT_BESIDE_S) * NS)

    def _publish(self, unit: RecorderController, finding: Finding, action: str) -> None:
        key, now_ns = (unit.name, finding.number, action), self._clock.monotonic_ns()
        published_ns = self._published_ns.get(key)
        is_published = action == "start" or published_ns is None or now_ns - published_ns >= _PUBLISH_S * NS
        level = logging.INFO if is_published and action != "extend" else logging.DEBUG
        unit.log.log(level, "%s trigger: score %.1f (%s)", finding.kind, finding.score, action)
        if not is_published:
            return  # it is counted in state/health
        self._published_ns[key] = now_ns
        facts = {
            "kind": finding.kind,
            "score": finding.score,
            "at": self._publisher.stamp(finding.at_ns),
            "action": action,
        }
        self._publisher.happened(unit, "trigger", facts)

    def _warn_of_limit(self, unit: RecorderController, finding: Finding, key: tuple[str, int], action: str) -> None:
        if action != "limited":
            self._limited.discard(key)
        elif key not in self._limited:
            self._limited.add(key)
            unit.log.warning("%s trigger: max_per_hour reached; it begins no recording for now", finding.kind)

    async def _keep(self, unit: RecorderController, number: int, since_ns: int) -> None:
        """Protect the chunks that have something of what was found: at once, and what the hold has added.

        A chunk that is just being finished may be found only a moment later.
        """
        problem, kept = "", "not"
        for wait_s in (0.0, unit.settings.triggers[number].hold_s, *_AGAIN_S):
            await asyncio.sleep(wait_s)
            try:
                await self._protect(unit, {"last_s": (SYSTEM_CLOCK.monotonic_ns() - since_ns) / NS})
            except CommandError as exc:
                problem = exc.message
                if exc.code == "no_space":  # waiting does not help
                    self._refused(unit, exc.code, f"{unit.name}: what a trigger found is {kept} protected: {problem}")
                    return
                continue
            problem, kept = "", "only in part"
            self._unprotected.discard(unit.name)
            if wait_s:
                return
        if problem:
            unit.log.warning("what trigger %d found could not be protected: %s", number, problem)

    def _refused(self, unit: RecorderController, code: str, message: str) -> None:
        """An error, and a line of the log when it is not as before: what is found may come each second."""
        level = logging.DEBUG if unit.name in self._unprotected else logging.ERROR
        self._unprotected.add(unit.name)
        log.log(level, "%s", message)
        self._publisher.report_error(code, message, recorder=unit.name, logged=True)
