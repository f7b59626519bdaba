"""LapseGate: which frames of a camera a time-lapse keeps. Pure."""

from __future__ import annotations

from msrecd.clock import MS, NS

_USUAL_TOLERANCE_NS = 20 * MS


class LapseGate:
    """One frame an interval, on a grid that begins with the first one: small delays do not add up."""

    def __init__(self, interval_ns: int, frame_rate: float | None) -> None:
        """
        Args:
            frame_rate: of the frames that come; the one that is nearest to its time is kept.
        """
        frame_ns = NS / frame_rate if frame_rate else 2 * _USUAL_TOLERANCE_NS
        self._interval_ns = interval_ns
        self._tolerance_ns = min(round(frame_ns / 2), interval_ns // 4)
        self._due_ns: int | None = None

    def keep(self, pts_ns: int) -> bool:
        """Whether the frame captured at `pts_ns` is kept; times must rise."""
        due_ns = self._due_ns
        if due_ns is not None and pts_ns < due_ns - self._tolerance_ns:
            return False
        # After a longer delay the grid begins anew: two frames never come shortly one after the other.
        is_late = due_ns is None or pts_ns > due_ns + self._interval_ns // 4
        self._due_ns = self._interval_ns + (pts_ns if due_ns is None or is_late else due_ns)
        return True
