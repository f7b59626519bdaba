"""Cron expressions, by cronsim (Debian cron's rules); the only importer of it.

cronsim walks over naive wall times here; `zones` makes instants of them. Its own handling of zones counts an hour
of elapsed time at a time and misses matches where an offset is not a whole hour.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from msrecd.schedule.model import ScheduleError

_SECOND = timedelta(seconds=1)


def check(expression: str) -> None:
    """Refuse what is no cron expression of five fields, or can never come.

    Raises:
        ScheduleError: with the field that is wrong.
    """
    if len(expression.split()) != 5:
        raise ScheduleError(f'"{expression}" has not five cron fields: minute, hour, day, month, weekday')
    some_day = datetime(2000, 1, 1)  # noqa: DTZ001 - on the wall
    try:
        comes = next(wall_times(expression, some_day), None) is not None
    except ScheduleError:
        # cronsim calls 31 in "31 2" a bad day; it is a good one that February does not have.
        minute, hour, day, month, weekday = expression.split()
        if month == "*":
            raise
        next(wall_times(f"{minute} {hour} {day} * {weekday}", some_day), None)
        next(wall_times(f"{minute} {hour} * {month} {weekday}", some_day), None)
        comes = False
    if not comes:
        raise ScheduleError(f'"{expression}" never comes: none of its months has such a day')


def wall_times(expression: str, begin: datetime) -> Iterator[datetime]:
    """Wall times (naive) at or after `begin` (naive) that match, in their order.

    Raises:
        ScheduleError: no valid expression.
    """
    from cronsim import CronSim, CronSimError  # here: many a daemon has no schedule

    try:
        yield from CronSim(expression, begin - _SECOND)
    except CronSimError as exc:
        raise ScheduleError(f'"{expression}" is no cron expression: {str(exc).lower()}') from exc


def is_fixed_time(expression: str) -> bool:
    """Whether it names times of the day; with a star in minute or hour it names intervals.

    A fixed time comes exactly once a day, an interval goes on through a repeated hour.
    """
    minute, hour, *_ = expression.split()
    return not minute.startswith("*") and not hour.startswith("*")
