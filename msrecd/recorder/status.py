"""RecorderStatus: what a recorder is for those outside: its state, since and until when, who asked, and what is wrong.

A MediaRecorder that is replaced after a fault, or whose last chunk is still being written, changes nothing about it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msrecd.clock import SYSTEM_CLOCK
from msrecd.recorder.problems import Problem

Phase = Literal["inactive", "recording", "paused"]

_SAME_END_NS = 50_000_000  # the end of a window moves by microseconds each time it is computed


class RecorderStatus:
    """Lives on the loop. What is set is told with the next `changed`, which counts `rev` up.

    Attributes:
        phase: what is under way; inactive when the files of a recording are finished, not before.
        cause: who asked for the recording, until its last file is finished.
        until_ns: when it will end as far as is decided, on CLOCK_MONOTONIC; others see to it.
        since_ns: when the present state was entered, on CLOCK_MONOTONIC.
        run_problem: why nothing is recorded that should be.
        storage_problem: why nothing is written that is recorded.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._told = "inactive"
        self.phase: Phase = "inactive"
        self.cause: str | None = None
        self.until_ns: int | None = None
        self.since_ns = SYSTEM_CLOCK.monotonic_ns()
        self.run_problem: Problem | None = None
        self.storage_problem: Problem | None = None
        self.rev = 0

    @property
    def state(self) -> str:
        """inactive, recording, paused or error."""
        return "error" if self.problem is not None else self.phase

    @property
    def problem(self) -> Problem | None:
        return self.storage_problem or self.run_problem

    @property
    def is_paused(self) -> bool:
        return self.phase == "paused"

    def set_until(self, until_ns: int | None) -> None:
        """Tell when it will end, unless that is known."""
        if until_ns is not None and self.until_ns is not None and abs(until_ns - self.until_ns) < _SAME_END_NS:
            return
        if until_ns != self.until_ns:
            self.until_ns = until_ns
            self.changed()

    def note_run_problem(self, problem: Problem) -> bool:
        """Nothing is recorded, for this reason; whether that is news."""
        known = self.run_problem
        self.run_problem = problem.begun(known)
        return known is None or known.code != problem.code or known.since_ns is None

    def note_storage_problem(self, problem: Problem) -> bool:
        """Nothing is written, for this reason unless one is known; whether that is news."""
        if self.storage_problem is not None:
            return False
        self.storage_problem = problem.begun()
        return True

    def end(self) -> None:
        """There is no recording any more."""
        self.phase = "inactive"
        self.cause = None
        self.run_problem = self.storage_problem = None

    def changed(self) -> None:
        """Tell what it is now."""
        if self.state != self._told:
            self._told, self.since_ns = self.state, SYSTEM_CLOCK.monotonic_ns()
        self.rev += 1
        self._tell()
