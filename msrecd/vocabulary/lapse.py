"""Time-lapse: one frame an interval, played faster than it was captured."""

from __future__ import annotations

from dataclasses import dataclass

NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class TimeLapse:
    """interval_s: from one frame to the next when they are captured; frame_rate: at which they are played."""

    interval_s: float
    frame_rate: float

    @property
    def interval_ns(self) -> int:
        return round(self.interval_s * NS)

    def captured_s(self, playing_s: float) -> float:
        """How long it took to capture what is played in so many seconds."""
        return playing_s * self.frame_rate * self.interval_s

    def playing_ns(self, frame: int) -> int:
        """When a frame is shown, counted from 0 at the beginning of its file."""
        return round(frame * NS / self.frame_rate)
