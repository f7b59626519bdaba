"""Black: the time in which black stood in for the pictures of a camera that gives nothing, a loss of its recording.

Told once it is over, and in the accounts of each chunk that it reaches into. What is paused loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msrecd import ChunkInfo
from msrecd.clock import NS

REASON = "no_frames"
_LEAST_NS = 100_000_000  # less than that is within what a camera's frames vary
_SPANS_LIMIT = 64  # more in one chunk only ever come from a contact that flutters; the oldest go first

Span = tuple[int, int | None]  # since when and until when on CLOCK_MONOTONIC; None: it is black still


def gaps_within(spans: Sequence[Span], info: ChunkInfo) -> list[dict[str, Any]]:
    """The parts of `spans` within a finished chunk, for its manifest line. Pure.

    `at_s` counts from the chunk's beginning on the monotonic clock, but never beyond the chunk's own length: where it
    was paused in between, its own time line is shorter.
    """
    gaps = []
    for since_ns, until_ns in spans:
        begin_ns = max(since_ns, info.started_ns)
        end_ns = info.ended_ns if until_ns is None else min(until_ns, info.ended_ns)
        if end_ns - begin_ns < _LEAST_NS:
            continue
        at_s = min((begin_ns - info.started_ns) / NS, info.duration_s)
        gaps.append({"at_s": round(at_s, 3), "duration_s": round((end_ns - begin_ns) / NS, 3), "reason": REASON})
    return gaps


class Black:
    """Of one recording. Everything but `gaps` on the loop; the times are CLOCK_MONOTONIC's."""

    def __init__(self) -> None:
        self._spans: tuple[Span, ...] = ()  # replaced, never changed: the sink's thread reads it
        self._gives_nothing = False

    def muted(self, now_ns: int, *, paused: bool = False) -> None:
        """The camera gives nothing from now on."""
        self._gives_nothing = True
        if not paused:
            self._begin(now_ns)

    def unmuted(self, now_ns: int) -> float:
        """It gives again, or is gone; the seconds of black that this ends, 0.0 for none that are worth telling."""
        self._gives_nothing = False
        return self._end(now_ns)

    def paused(self, now_ns: int) -> float:
        """Nothing is recorded from now on; the seconds of black that this ends."""
        return self._end(now_ns)

    def resumed(self, now_ns: int) -> None:
        if self._gives_nothing:
            self._begin(now_ns)

    def gaps(self, info: ChunkInfo | None) -> list[dict[str, Any]]:
        """See gaps_within; from any thread."""
        return [] if info is None else gaps_within(self._spans, info)

    def _begin(self, now_ns: int) -> None:
        if not self._is_black:
            self._spans = (*self._spans, (now_ns, None))[-_SPANS_LIMIT:]

    def _end(self, now_ns: int) -> float:
        if not self._is_black:
            return 0.0
        *before, (since_ns, _) = self._spans
        self._spans = (*before, (since_ns, now_ns))
        lasted_ns = now_ns - since_ns
        return round(lasted_ns / NS, 3) if lasted_ns >= _LEAST_NS else 0.0

    @property
    def _is_black(self) -> bool:
        return bool(self._spans) and self._spans[-1][1] is None
