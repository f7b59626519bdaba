"""FrameWatch: notices that a camera gives no frames, by their age on the monotonic clock, and walks up a ladder.

When frames stop, picamera2 raises nothing: the watch alone tells. Its rungs: is the camera still there, muted, one
restart of the stream, the end with an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from msrecd.clock import MS, NS, Clock
from msrecd.dom.exceptions import NotReadableError
from msrecd.flow.source import SourceThread

_TICK_S = 0.25
_LONGEST_STEP_NS = 500 * MS
LOOK_AFTER_NS = NS
MUTED_AFTER_NS = 2 * NS
RESTART_AFTER_NS = 5 * NS
FAILED_AFTER_NS = 12 * NS
STUCK_AFTER_NS = 10 * NS


class Watched(Protocol):
    """What the watch asks and tells; called in its thread, must not wait."""

    label: str

    @property
    def last_frame_ns(self) -> int:
        """When the last frame came; CLOCK_MONOTONIC."""

    def call_under_way(self) -> tuple[str, int]:
        """The call into picamera2 that runs, and for how many ns; ("", 0) when none does."""

    def look(self) -> None:
        """Find out whether the camera is still there."""

    def set_muted(self, muted: bool) -> None: ...

    def restart(self, age_ns: int) -> None: ...


class FrameWatch:
    """A thread that looks four times a second."""

    def __init__(self, watched: Watched, failed: Callable[[Exception], None], clock: Clock) -> None:
        """
        Args:
            failed: called in the thread with a NotReadableError at the end of the ladder; it may raise nothing.
        """
        self._watched = watched
        self._clock = clock
        self._thread = SourceThread(f"camera {watched.label}", self._run, failed)

    @property
    def stopping(self) -> threading.Event:
        return self._thread.stopping

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """
        Raises:
            ZombieThread: it did not end.
        """
        self._thread.stop(timeout_s)

    def _run(self, stop: threading.Event) -> None:
        watched = self._watched
        looked_ns, restarted = 0, False  # age at the last look
        before_ns, seen_ns, age_ns = self._clock.monotonic_ns(), watched.last_frame_ns, 0
        while not stop.wait(_TICK_S):
            now_ns = self._clock.monotonic_ns()
            step_ns = min(now_ns - before_ns, _LONGEST_STEP_NS)  # a stop of the whole process counts for little
            age_ns = age_ns + step_ns if watched.last_frame_ns == seen_ns else 0
            before_ns, seen_ns = now_ns, watched.last_frame_ns
            call, running_ns = watched.call_under_way()
            if running_ns > STUCK_AFTER_NS:
                raise NotReadableError(f"{watched.label} hangs in {call}")
            if age_ns > FAILED_AFTER_NS:
                raise NotReadableError(f"{watched.label} gave no frame for {age_ns // NS} s")
            if age_ns <= LOOK_AFTER_NS:
                looked_ns, restarted = 0, False
                watched.set_muted(False)
            elif age_ns - looked_ns >= LOOK_AFTER_NS and not running_ns:
                looked_ns = age_ns  # again and again: libcamera may hear of it later than we
                watched.look()
            if age_ns > MUTED_AFTER_NS:
                watched.set_muted(True)
            if age_ns > RESTART_AFTER_NS and not restarted:
                restarted = True
                watched.restart(age_ns)
