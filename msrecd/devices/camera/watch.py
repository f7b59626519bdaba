"""FrameWatch: notices that a camera gives no frames, by their age on the monotonic clock, and walks up a ladder.

When frames stop, picamera2 raises nothing: the watch alone tells. Its rungs: is the camera still there, muted, one
restart of the stream, the end with an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from msrecd.clock import MS, NS, Clock
from msrecd.dom.exceptions import NotReadableError
from msrecd.flow.source import SourceThread

_TICK_S = 0.25
_LONGEST_STEP_NS = 500 * MS
STUCK_AFTER_NS = 10 * NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Ages of the last frame at which the watch acts.

    A slow camera has longer ones, as libcamera waits for five frames before it calls a camera dead (ipa_base.cpp).
    """

    look_ns: int = NS
    muted_ns: int = 2 * NS
    restart_ns: int = 5 * NS
    failed_ns: int = 12 * NS

    def for_frames_of(self, frame_ns: int) -> Limits:
        """These, or longer ones that leave room for some frames of that length."""
        return Limits(
            look_ns=max(self.look_ns, 3 * frame_ns),
            muted_ns=max(self.muted_ns, 5 * frame_ns),
            restart_ns=max(self.restart_ns, 10 * frame_ns),
            failed_ns=max(self.failed_ns, 15 * frame_ns),
        )


LIMITS = Limits()


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

    def __init__(self, watched: Watched, failed: Callable[[Exception], None], clock: Clock, frame_ns: int = 0) -> None:
        """
        Args:
            frame_ns: how long the longest frames may take.
            failed: called in the thread with a NotReadableError at the end of the ladder; it may raise nothing.
        """
        self._watched = watched
        self._limits = LIMITS.for_frames_of(frame_ns)
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
        watched, limits = self._watched, self._limits
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
            if age_ns > limits.failed_ns:
                raise NotReadableError(f"{watched.label} gave no frame for {age_ns // NS} s")
            if age_ns <= limits.look_ns:
                looked_ns, restarted = 0, False
                watched.set_muted(False)
            elif age_ns - looked_ns >= limits.look_ns and not running_ns:
                looked_ns = age_ns  # again and again: libcamera may hear of it later than we
                watched.look()
            if age_ns > limits.muted_ns:
                watched.set_muted(True)
            if age_ns > limits.restart_ns and not restarted:
                restarted = True
                watched.restart(age_ns)
