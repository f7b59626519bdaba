"""Between clocks on the wall and instants. Pure, but for the zone data and the name of the machine's zone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from pathlib import Path

from msrecd.schedule.model import ScheduleError

_LOCALTIME = Path("/etc/localtime")
_WHOLE_DAY = timedelta(hours=23)
_LARGEST_CHANGE = timedelta(hours=25)  # islands changed sides of the date line


def zone_named(name: str | None) -> tzinfo:
    """The time zone of that name, or the machine's.

    Raises:
        ScheduleError: there is no such zone.
    """
    if name is None:
        return system_zone()
    zone = _known_zone(name)
    if zone is None:
        raise ScheduleError(f'"{name}" is no time zone of this machine')
    return zone


def system_zone() -> tzinfo:
    """The zone of $TZ or /etc/localtime, with its changes over the year; UTC where neither says."""
    name = os.environ.get("TZ", "").lstrip(":")
    if not name:
        _, found, name = os.path.realpath(_LOCALTIME).partition("/zoneinfo/")
        name = name.removeprefix("posix/").removeprefix("right/") if found else ""
    return (_known_zone(name) if name else None) or UTC


def _known_zone(name: str) -> tzinfo | None:
    # Here: with sysconfig, which it loads, it is a quarter of a megabyte, and many a daemon has no schedule.
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None


def dates_around(begin: datetime, end: datetime, zone: tzinfo) -> Iterator[date]:
    """All local dates of [begin, end), and two more at each end for offsets and odd zones."""
    day = begin.astimezone(zone).date() - timedelta(days=2)
    last = end.astimezone(zone).date() + timedelta(days=2)
    while day <= last:
        yield day
        day += timedelta(days=1)


def wall_times_around(begin: datetime, end: datetime, zone: tzinfo) -> tuple[datetime, datetime]:
    """The first and last wall time (naive) that can stand for an instant of [begin, end)."""
    first, last = (instant.astimezone(zone).replace(tzinfo=None, fold=0) for instant in (begin, end))
    return (
        first if _is_steady(begin, zone) else first - _LARGEST_CHANGE,
        last if _is_steady(end, zone) else last + _LARGEST_CHANGE,
    )


def _is_steady(instant: datetime, zone: tzinfo) -> bool:
    """Whether the zone's offset does not change for a day before and after."""
    around = (instant - _LARGEST_CHANGE, instant, instant + _LARGEST_CHANGE)
    return len({at.astimezone(zone).utcoffset() for at in around}) == 1


def every_instant(wall: datetime, zone: tzinfo) -> list[datetime]:
    """The instants at which clocks show `wall` (naive): none in a gap, two in a repeated hour."""
    found = []
    for fold in (0, 1):
        instant = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        if instant.astimezone(zone).replace(tzinfo=None, fold=0) == wall and instant not in found:
            found.append(instant)
    return found


def one_instant(wall: datetime, zone: tzinfo) -> datetime | None:
    """The one instant that stands for `wall` (naive): the first of two; in a gap the end of the gap.

    None when the whole local day was left out, as on the islands that moved across the date line.
    """
    instants = every_instant(wall, zone)
    if instants:
        return instants[0]
    low = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)  # before the gap
    high = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)  # after it
    if high - low >= _WHOLE_DAY:
        return None
    before = low.astimezone(zone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high


def midnight(day: date, zone: tzinfo) -> datetime:
    """The instant at which a local day begins."""
    instant = one_instant(datetime.combine(day, time()), zone)
    return instant if instant is not None else midnight(day + timedelta(days=1), zone)
