"""The points in time that a text like "06:30", "sunrise-30m" or "30 6 * * mon-fri" stands for. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Literal, Protocol, cast

from msrecd.schedule import cron
from msrecd.schedule.model import ScheduleError
from msrecd.schedule.sun import Sun, SunEvent
from msrecd.schedule.zones import dates_around, every_instant, midnight, one_instant, wall_times_around

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ALL_DAYS = frozenset(range(7))
MAX_OFFSET = timedelta(hours=12)
_CLOCK_TIME = re.compile(r"(\d{1,2}):(\d{2})", re.ASCII)
_SUN_TIME = re.compile(r"(sunrise|sunset)\s*(?:([+-])\s*(\S.*))?", re.IGNORECASE)
_OFFSET_PART = re.compile(r"(\d+)\s*(h|min|m|s)\s*", re.ASCII)
_OFFSET_UNITS = {"h": 3600, "min": 60, "m": 60, "s": 1}
_DAY = timedelta(days=1)


class Moments(Protocol):
    """A set of instants without end."""

    def between(self, begin: datetime, end: datetime) -> list[datetime]:
        """Those in [begin, end), in UTC, sorted, each once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockTime:
    """A time of the day, exactly once on each local day of `days`: the first of two, the end of a gap."""

    at: time
    zone: tzinfo
    days: frozenset[int] = ALL_DAYS

    def between(self, begin: datetime, end: datetime) -> list[datetime]:
        found = {
            one_instant(datetime.combine(day, self.at), self.zone)
            for day in dates_around(begin, end, self.zone)
            if day.weekday() in self.days
        }
        return sorted(instant for instant in found if instant is not None and begin <= instant < end)


@dataclass(frozen=True, slots=True, kw_only=True)
class CronTime:
    """The times of a cron expression: fixed times like `ClockTime`, intervals through repeated hours too."""

    expression: str
    zone: tzinfo

    def between(self, begin: datetime, end: datetime) -> list[datetime]:
        first, last = wall_times_around(begin, end, self.zone)
        fixed = cron.is_fixed_time(self.expression)
        found: set[datetime] = set()
        for wall in cron.wall_times(self.expression, first):
            if wall > last:
                break
            if not fixed:
                found.update(every_instant(wall, self.zone))
            elif (instant := one_instant(wall, self.zone)) is not None:
                found.add(instant)
        return sorted(instant for instant in found if begin <= instant < end)


@dataclass(frozen=True, slots=True, kw_only=True)
class SunTime:
    """Sunrise or sunset with an offset, where the event falls on a local day of `days`.

    polar: what stands for it on a day on which the sun does not both rise and set: nothing, or the local midnight at
    which the day begins or ends, without the offset.
    """

    event: SunEvent
    offset: timedelta
    zone: tzinfo
    sun: Sun
    days: frozenset[int] = ALL_DAYS
    polar: Literal["nothing", "begin", "end"] = "nothing"

    def between(self, begin: datetime, end: datetime) -> list[datetime]:
        found = set(filter(None, (self._instant_of(day) for day in dates_around(begin, end, self.zone))))
        return sorted(instant for instant in found if begin <= instant < end)

    def _instant_of(self, day: date) -> datetime | None:
        if self._is_polar(day):
            boundary = midnight(day if self.polar == "begin" else day + _DAY, self.zone)
            return boundary if day.weekday() in self.days else None
        event = self.sun.event(self.event, day)
        if event is None or event.astimezone(self.zone).weekday() not in self.days:
            return None
        instant = event + self.offset
        # Midnights alone count on polar days: the last sunset, just after midnight, must not end the first of them.
        return None if self._is_polar(instant.astimezone(self.zone).date()) else instant

    def _is_polar(self, day: date) -> bool:
        if self.polar == "nothing":
            return False
        return self.sun.event("sunrise", day) is None or self.sun.event("sunset", day) is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """A text that was understood: its kind with its parts."""

    kind: Literal["clock", "cron", "sun"]
    at: time = time()
    cron: str = ""
    event: SunEvent = "sunrise"
    offset: timedelta = timedelta()


def parse(text: str) -> Expression:
    """Understand the text of `start` or `stop`.

    Raises:
        ScheduleError: it is none; the message says what to write.
    """
    plain = text.strip()
    if match := _CLOCK_TIME.fullmatch(plain):
        hour, minute = int(match[1]), int(match[2])
        if hour > 23 or minute > 59:
            raise ScheduleError(f'"{text}" is not a time of the day; midnight is "00:00"')
        return Expression(kind="clock", at=time(hour, minute))
    if match := _SUN_TIME.fullmatch(plain):
        sign = -1 if match[2] == "-" else 1
        event = cast(SunEvent, match[1].lower())
        return Expression(kind="sun", event=event, offset=sign * _offset(match[3] or "0s", text))
    if len(plain.split()) == 5:
        cron.check(plain)
        return Expression(kind="cron", cron=plain)
    raise ScheduleError(
        f'"{text}" is not a time; write "06:30", "sunrise-30m", "sunset+1h" or five cron fields like "30 6 * * mon-fri"'
    )


def problem_of(text: str) -> str | None:
    """What is wrong with the text of `start` or `stop`; None when nothing is."""
    try:
        parse(text)
    except ScheduleError as exc:
        return str(exc)
    return None


def _offset(text: str, whole: str) -> timedelta:
    position, seconds = 0, 0
    while position < len(text):
        match = _OFFSET_PART.match(text, position)
        if match is None or len(match[1]) > 6:
            raise ScheduleError(f'the offset in "{whole}" is not a duration; write for example "+30m" or "-1h15m"')
        seconds += int(match[1]) * _OFFSET_UNITS[match[2]]
        position = match.end()
    if timedelta(seconds=seconds) > MAX_OFFSET:
        raise ScheduleError(f'the offset in "{whole}" is longer than 12 hours')
    return timedelta(seconds=seconds)
