"""StorageFaults: whether the storage takes what a recorder gives it, which the recorder's state does not depend on.

A recording under way continues: what the storage refuses becomes a gap, what it takes too long for waits in memory.
"""

from __future__ import annotations

from collections.abc import Callable

from msrecd.errors import StorageError
from msrecd.recorder.files import Archive
from msrecd.recorder.problems import Problem, problem_of
from msrecd.recorder.reporter import RecorderLog, Reporter
from msrecd.recorder.status import RecorderStatus
from msrecd.recorder.supervisor import Supervisor
from msrecd.recorder.writer import HANG_S

_RETRY_S = 5.0
_HANGS = "hangs"  # cause of a problem


class StorageFaults:
    """Lives on the loop. Keeps `status.storage_problem`."""

    def __init__(
        self,
        status: RecorderStatus,
        reporter: Reporter,
        log: RecorderLog,
        supervisor: Supervisor,
        archive: Archive,
        recorder: str,
        *,
        is_wanted: Callable[[], bool],
        resume: Callable[[], None],
    ) -> None:
        """
        Args:
            is_wanted: whether a recording is under way.
            resume: the storage can be written again: begin a new chunk.
        """
        self._status = status
        self._reporter = reporter
        self._log = log
        self._supervisor = supervisor
        self._archive = archive
        self._recorder = recorder
        self._is_wanted = is_wanted
        self._resume = resume

    def failed(self, error: StorageError) -> None:
        """A write was refused; it is tried again until the storage takes it."""
        if self._is_wanted():
            self._reporter.storage_problem(problem_of(error))
            self._supervisor.keep_trying("write", self._try_write, limit_s=lambda: _RETRY_S, first_s=0.0)
        else:
            self._log.error("%s", error)

    def hangs(self, is_hanging: bool) -> None:
        """The disk has not answered for HANG_S, or answers again."""
        problem = self._status.storage_problem
        if is_hanging:
            message = f"the disk has not answered for {HANG_S:g} s; recording continues in memory until that is full"
            self._reporter.storage_problem(Problem("no_space", message, cause=_HANGS))
        elif problem is not None and problem.cause == _HANGS:
            self._log.info("the disk answers again")
            self._status.recovered(storage=True)
            self._status.changed()

    async def _try_write(self) -> bool:
        """If there is room again, the same recording continues in a new chunk; whether that is over."""
        if not self._is_wanted():
            return True
        error = await self._archive.make_room(self._recorder)
        if not self._is_wanted():
            return True
        if error is not None:
            self._reporter.storage_problem(problem_of(error))
            return False
        self._status.recovered(storage=True)
        self._resume()
        self._log.info("the storage can be written again; recording resumes in a new chunk")
        self._status.changed()
        return True
