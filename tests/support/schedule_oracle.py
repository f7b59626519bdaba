"""A naive judge of schedules: walks minute by minute over what the clocks on the wall show.

Shares nothing with the planner but the text of the rules. A minute is open when a window that began at or before it has
not ended.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Sun = Callable[[str, date], datetime | None]


@dataclass(frozen=True)
class Rule:
    """A schedule as the planner takes it."""

    start: str
    stop: str | None = None
    duration_s: float | None = None
    days: tuple[str, ...] = WEEKDAYS
    timezone: str | None = None
    unsynchronized: Literal["wait", "run"] = "wait"
    polar: Literal["skip", "always"] = "skip"


@functools.lru_cache(maxsize=4096)
def wall_day(zone: str, day: date) -> tuple[datetime, ...]:
    """What the clocks of the zone show in each minute of a day of UTC."""
    info = ZoneInfo(zone)
    first = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return tuple((first + i * MINUTE).astimezone(info).replace(tzinfo=None, fold=0) for i in range(1440))


@dataclass(frozen=True, eq=False)
class Shown:
    """What the clocks show, minute by minute; `first_at` has the first minute at which they show something."""

    walls: list[datetime]
    first_at: dict[datetime, int]
    dates: list[date]
    turns: list[int]  # minutes at which the date is later than ever before


@functools.lru_cache(maxsize=256)
def shown_by(zone: str, first: date, days: int) -> Shown:
    walls = [wall for i in range(days) for wall in wall_day(zone, first + i * DAY)]
    first_at: dict[datetime, int] = {}
    turns: list[int] = []
    latest = walls[0].date()
    for i, wall in enumerate(walls):
        first_at.setdefault(wall, i)
        if wall.date() > latest:
            latest = wall.date()
            turns.append(i)
    return Shown(walls, first_at, sorted({wall.date() for wall in walls}), turns)


def _field(text: str, low: int, high: int, names: Sequence[str] = ()) -> set[int]:
    values: set[int] = set()
    for term in text.split(","):
        span, _, step = term.partition("/")
        if span == "*":
            a, b = low, high
        else:
            ends = [names.index(end) if end in names else int(end) for end in span.split("-")]
            a, b = ends[0], ends[-1]
        values.update(range(a, b + 1, int(step or 1)))
    return values


@functools.lru_cache(maxsize=4096)
def _cron(text: str) -> tuple[set[int], set[int], set[int], set[int], set[int], bool]:
    minute, hour, day, month, weekday = text.split()
    weekdays = {value % 7 for value in _field(weekday, 0, 7, ("sun", *WEEKDAYS[:6]))}
    return (
        _field(minute, 0, 59),
        _field(hour, 0, 23),
        _field(day, 1, 31),
        _field(month, 1, 12),
        weekdays,
        day.startswith("*") or weekday.startswith("*"),
    )


def _cron_day(text: str, day: date) -> bool:
    _, _, days, months, weekdays, both = _cron(text)
    a, b = day.day in days, day.isoweekday() % 7 in weekdays
    return day.month in months and ((a and b) if both else (a or b))


def _fixed(wanted: Callable[[date], set[int]], shown: Shown) -> set[int]:
    """Indices of the minutes at which the times of the day (in minutes) of each local day come, once each.

    A time comes at the first minute at which the clock shows it or, if it never does, has gone past it.
    """
    found: set[int] = set()
    for day in shown.dates:
        for minute in wanted(day):
            wall = datetime.combine(day, time()) + minute * MINUTE
            while wall not in shown.first_at and shown.walls[0] <= wall <= shown.walls[-1]:
                wall += MINUTE
            if wall in shown.first_at:
                found.add(shown.first_at[wall])
    return found


def _moments(text: str, rule: Rule, shown: Shown, start: datetime, sun: Sun | None, *, stop: bool) -> set[int]:
    days = set(WEEKDAYS) if stop else set(rule.days)
    if text.startswith("sun"):
        assert sun is not None
        return _sun_moments(text, rule, shown, start, sun, days, stop=stop)
    if len(text.split()) == 5:
        minutes, hours, *_ = _cron(text)
        first, second = text.split()[:2]
        if first.startswith("*") or second.startswith("*"):
            days_that_match = {day for day in shown.dates if _cron_day(text, day)}
            return {
                i
                for i, wall in enumerate(shown.walls)
                if wall.minute in minutes and wall.hour in hours and wall.date() in days_that_match
            }
        times = {hour * 60 + minute for hour in hours for minute in minutes}
        return _fixed(lambda day: times if _cron_day(text, day) else set(), shown)
    hour, minute = map(int, text.split(":"))
    return _fixed(lambda day: {hour * 60 + minute} if WEEKDAYS[day.weekday()] in days else set(), shown)


def _sun_moments(
    text: str, rule: Rule, shown: Shown, start: datetime, sun: Sun, days: set[str], *, stop: bool
) -> set[int]:
    name = text[: 7 if text.startswith("sunrise") else 6]
    rest = text[len(name) :]
    offset = int(rest.rstrip("m") or 0) * MINUTE
    zone = ZoneInfo(rule.timezone or "UTC")

    def polar(day: date) -> bool:
        return rule.polar == "always" and (sun("sunrise", day) is None or sun("sunset", day) is None)

    found: set[int] = set()
    reached = shown.dates[0]
    for i in shown.turns:
        while reached < shown.walls[i].date():  # also the days that the zone leaves out
            day = reached if stop else reached + DAY
            if polar(day) and WEEKDAYS[day.weekday()] in days:
                found.add(i)
            reached += DAY
    first = shown.dates[0] - 2 * DAY
    for k in range((shown.dates[-1] - first).days + 4):
        day = first + k * DAY
        event = None if polar(day) else sun(name, day)
        if event is None or WEEKDAYS[event.astimezone(zone).weekday()] not in days:
            continue
        if not polar((event + offset).astimezone(zone).date()):
            found.add((event + offset - start) // MINUTE)
    return found


def open_minutes(rules: Sequence[Rule], first: date, days: int, sun: Sun | None = None, run_in: int = 4) -> list[bool]:
    """Whether each minute of the days of UTC from `first` is open, `run_in` days before being walked over too."""
    begin = first - run_in * DAY
    start = datetime(begin.year, begin.month, begin.day, tzinfo=UTC)
    total = (run_in + days) * 1440
    result = [False] * total
    for rule in rules:
        shown = shown_by(rule.timezone or "UTC", begin, run_in + days + 3)
        starts = _moments(rule.start, rule, shown, start, sun, stop=False)
        if rule.stop is None:
            assert rule.duration_s is not None
            left = 0
            for i in range(total):
                if i in starts:
                    left = int(rule.duration_s // 60)
                if left > 0:
                    result[i] = True
                    left -= 1
            continue
        stops = _moments(rule.stop, rule, shown, start, sun, stop=True)
        limit = 36 * 60 if rule.stop.startswith("sun") and rule.polar == "skip" else None
        is_open = False
        for i in range(total):
            if i in stops:
                is_open = False
            if i in starts and not is_open:
                is_open = limit is None or any(i < k <= i + limit for k in stops)
            if is_open:
                result[i] = True
    return result[run_in * 1440 :]
