"""RecorderStatus: what a recorder publishes of itself: state, since and until when, who asked, and what is wrong.

An attempt that is replaced after a fault, or whose last chunk is still being written, changes nothing about it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msrecd.clock import SYSTEM_CLOCK
from msrecd.recorder.problems import Problem

Phase = Literal["inactive", "recording", "paused"]

_SAME_END_NS = 50_000_000  # the end of a window moves by microseconds each time it is computed


class RecorderStatus:
    """Lives on the loop. What is set is published with the next `changed`, which counts `rev` up.

    Attributes:
        phase: what is under way; inactive when the files of a recording are finished, not before.
        cause: who asked for the recording, until its last file is finished.
        until_ns: when it will end as far as is decided, on CLOCK_MONOTONIC; the conductor ends it.
        since_ns: when the present state was entered, on CLOCK_MONOTONIC.
        run_problem: why nothing is recorded that should be.
        arm_problem: why the inputs are not held open while idle, as pre-roll or triggers want.
        storage_problem: why nothing is written that is recorded.
        rev: number of the published content; no two contents have the same.
    """

    def __init__(self, publish: Callable[[], None]) -> None:
        self._publish = publish
        self._published_state = "inactive"
        self.phase: Phase = "inactive"
        self.cause: str | None = None
        self.until_ns: int | None = None
        self.since_ns = SYSTEM_CLOCK.monotonic_ns()
        self.run_problem: Problem | None = None
        self.arm_problem: Problem | None = None
        self.storage_problem: Problem | None = None
        self.rev = 0
        self._reported: set[tuple[str, str]] = set()  # problems since the last time that all was well

    @property
    def state(self) -> str:
        """inactive, recording, paused or error."""
        return "error" if self.storage_problem or self.run_problem else self.phase

    @property
    def problem(self) -> Problem | None:
        """What is published as `error`: the gravest."""
        return self.storage_problem or self.run_problem or self.arm_problem

    def set_until(self, until_ns: int | None) -> None:
        """Publish when it will end, unless that is known."""
        if until_ns is not None and self.until_ns is not None and abs(until_ns - self.until_ns) < _SAME_END_NS:
            return
        if until_ns != self.until_ns:
            self.until_ns = until_ns
            self.changed()

    def note_run_problem(self, problem: Problem) -> bool:
        """Nothing is recorded, for this reason; whether it is to be reported: it was not yet since all was well."""
        before = self.run_problem
        if before is None or before.key != problem.key:
            self.run_problem = problem.begun(before)
        return self._is_news(problem)

    def note_arm_problem(self, problem: Problem) -> bool:
        """The inputs are not held open, for this reason; as note_run_problem."""
        before = self.arm_problem
        if before is None or before.key != problem.key:
            self.arm_problem = problem.begun(before)
        return self._is_news(problem)

    def note_storage_problem(self, problem: Problem) -> bool:
        """Nothing is written, for this reason; as note_run_problem."""
        before = self.storage_problem
        if before is None or before.key != problem.key:
            self.storage_problem = problem.begun(before)
        return self._is_news(problem)

    def recovered(self, *, run: bool = False, arm: bool = False, storage: bool = False) -> None:
        """A problem is over: that of the recording (`run`), of the inputs while idle (`arm`), of the storage."""
        if arm:
            self.arm_problem = None
        if run:
            self.run_problem = None
        if storage:
            self.storage_problem = None
        if self.problem is None:
            self._reported.clear()

    def end(self) -> None:
        """There is no recording any more."""
        self.phase = "inactive"
        self.cause = None
        self.until_ns = None
        self.recovered(run=True, storage=True)

    def changed(self) -> None:
        """Publish what it is now, under a new `rev`."""
        if self.state != self._published_state:
            self._published_state, self.since_ns = self.state, SYSTEM_CLOCK.monotonic_ns()
        self.rev += 1
        self._publish()

    def _is_news(self, problem: Problem) -> bool:
        if problem.key in self._reported:
            return False
        self._reported.add(problem.key)
        return True
