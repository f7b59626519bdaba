"""Reporter: what a recorder says: its events and log lines, each problem once until all is well again."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol

from msrecd import MediaStreamTrack
from msrecd.recorder.input import RecorderInput
from msrecd.recorder.problems import Problem, problem_of
from msrecd.recorder.status import RecorderStatus

if TYPE_CHECKING:
    from msrecd.recorder.controller import RecorderController
    from msrecd.recorder.watcher import Finding

_ENDS = "the sound ends at {} Hz"
_MEASURES = {"trigger.band": _ENDS, "audio_filters.frequency": _ENDS}  # what `got` is, where it is not what is asked


class Listener(Protocol):
    """Who is informed of what happens; called on the loop."""

    def state_changed(self, recorder: RecorderController) -> None: ...
    def happened(self, recorder: RecorderController, event_type: str, facts: Mapping[str, Any]) -> None: ...
    def played_out(self, recorder: RecorderController) -> None: ...
    def found(self, recorder: RecorderController, finding: Finding) -> None: ...


class RecorderLog(logging.LoggerAdapter[logging.Logger]):
    """Puts the recorder's name in front of each line and into the journal's MSRECD_RECORDER field."""

    def __init__(self, logger: logging.Logger, recorder: str) -> None:
        super().__init__(logger, {})
        self._recorder = recorder

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        extra = dict(kwargs.get("extra") or {})
        extra["MSRECD_RECORDER"] = self._recorder
        kwargs["extra"] = extra
        return f"{self._recorder}: {msg}", kwargs


class Reporter:
    """Lives on the loop. It changes no state but the problems of `status`, and repairs nothing."""

    def __init__(
        self, recorder: RecorderController, status: RecorderStatus, log: RecorderLog, listener: Listener
    ) -> None:
        self._recorder = recorder
        self._status = status
        self._log = log
        self._listener = listener
        self._unmet: list[dict[str, Any]] = []  # as it was last logged

    def event(self, event_type: str, **facts: Any) -> None:
        self._listener.happened(self._recorder, event_type, facts)

    def change(self, event_type: str, **facts: Any) -> None:
        """An event, and the state that it brought."""
        self.event(event_type, **facts)
        self._status.changed()

    def error(self, code: str, message: str, *, level: int = logging.WARNING) -> None:
        """An `error` event, and a line of the log."""
        self._log.log(level, "%s", message)
        self.event("error", code=code, message=message)

    def lost(self, lost_s: float, reason: str) -> None:
        """So many seconds are missing; that is over, or the recording has ended."""
        self._log.warning("gap of %.1f s: %s", lost_s, reason)
        self.event("gap", duration_s=lost_s, reason=reason)

    # --- problems ---

    def run_problem(self, problem: Problem) -> None:
        """Nothing is recorded that should be."""
        before = self._status.run_problem
        self._publish(problem, before, is_news=self._status.note_run_problem(problem))

    def arm_problem(self, problem: Problem) -> None:
        """The inputs cannot be held open while nothing is recorded."""
        before = self._status.arm_problem
        self._publish(problem, before, is_news=self._status.note_arm_problem(problem))

    def storage_problem(self, problem: Problem) -> None:
        """Nothing is written that is recorded."""
        before = self._status.storage_problem
        self._publish(problem, before, is_news=self._status.note_storage_problem(problem))

    def _publish(self, problem: Problem, before: Problem | None, *, is_news: bool) -> None:
        if is_news:
            self.error(problem.code, problem.message, level=logging.ERROR)
        if before is None or before.key != problem.key:
            self._status.changed()

    def problem_of(self, exc: Exception) -> Problem:
        """See problems.problem_of; an error of the program is logged with its traceback."""
        problem = problem_of(exc, is_input=self._recorder.settings.url is not None)
        if problem.code == "internal":
            self._log.error("%s", problem.message, exc_info=exc)
        return problem

    # --- inputs ---

    def unmet(self, input: RecorderInput) -> None:
        """Log what was asked of the devices and is not met, if that is not as it was."""
        news, self._unmet = input.unmet != self._unmet, input.unmet
        if news and input.unmet:
            text = ", ".join(
                f"{one['kind']} {one['constraint']} {one['asked']} "
                + (
                    "(it has none)"
                    if one["got"] is None
                    else f"({_MEASURES.get(one['constraint'], 'is {}').format(one['got'])})"
                )
                for one in input.unmet
            )
            self._log.warning("asked for and not met: %s", text)

    def no_data(self, track: MediaStreamTrack, restarted_after_s: float | None = None) -> None:
        """A device gives nothing: black and silence are recorded meanwhile, as a gap.

        Args:
            restarted_after_s: it is restarted, because it has given nothing for so long.
        """
        restarts = "" if restarted_after_s is None else f" for {restarted_after_s:.1f} s; restarting it"
        self.error("device_busy", f"no data from {name_of(track)}{restarts}")

    def digital_silence(self, track: MediaStreamTrack) -> None:
        """A microphone has given nothing but zeros for a minute: recorded as it is, but hardly what was wanted."""
        self.error("device_busy", f"digital silence from {name_of(track)} for a minute: mixer or wires")


def name_of(track: MediaStreamTrack) -> str:
    return f"{track.kind} device {track.label}"
