"""What a schedule is made of and what planning yields. All instants are aware datetimes in UTC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from msrecd.errors import MsrecdError


class ScheduleError(MsrecdError):
    """A schedule that cannot be planned; the message says what to write instead."""


class Rule(Protocol):
    """One `[[recorder.schedule]]`; the configuration's `Schedule` is one. Either stop or duration_s is given."""

    @property
    def start(self) -> str: ...
    @property
    def stop(self) -> str | None: ...
    @property
    def duration_s(self) -> float | None: ...
    @property
    def days(self) -> Sequence[str]: ...
    @property
    def timezone(self) -> str | None: ...
    @property
    def unsynchronized(self) -> str: ...
    @property
    def polar(self) -> str: ...


class Place(Protocol):
    """Degrees, north and east positive; the configuration's `Location` is one."""

    @property
    def latitude(self) -> float: ...
    @property
    def longitude(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A time to record in: [start, stop). `rules` are the indices of the schedules that make it up."""

    start: datetime
    stop: datetime
    rules: tuple[int, ...] = ()

    @property
    def duration(self) -> timedelta:
        """Elapsed time, whatever the clocks on the wall do meanwhile."""
        return self.stop - self.start

    def holds(self, now: datetime) -> bool:
        """Whether it is open."""
        return self.start <= now < self.stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What is known of the wall clock: whether it is synchronized, and for how long that has been waited for."""

    synchronized: bool = True
    waited_s: float = 0.0


TRUSTED = Trust()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the schedules want at one instant. `current` is the open window, `next` the one after.

    waiting: some schedules are left out because the clock is not trusted; plan again when it is, or within 30 s.
    """

    current: Window | None
    next: Window | None
    waiting: bool = False

    @property
    def next_start(self) -> datetime | None:
        """When the next window begins."""
        return self.next.start if self.next else None

    @property
    def next_stop(self) -> datetime | None:
        """When the open window ends, or else the next one."""
        window = self.current or self.next
        return window.stop if window else None
