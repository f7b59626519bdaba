"""Between clocks on the wall and instants. Pure, but for the zone data and the zone of this machine."""

from __future__ import annotations

import functools
import io
import logging
import os
import re
import struct
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from pathlib import Path

from msrecd.schedule.model import ScheduleError

log = logging.getLogger(__name__)

_LOCALTIME = Path("/etc/localtime")
_WHOLE_DAY = timedelta(hours=23)
_LARGEST_CHANGE = timedelta(hours=25)  # islands changed sides of the date line
# tzset(3): a name of three letters or one in < >, its offset, perhaps the same of summer time, perhaps its rule.
_POSIX_NAME, _POSIX_OFFSET = r"(?:[A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)", r"[+-]?\d{1,3}(?::\d\d){0,2}"
_POSIX_ZONE = re.compile(
    rf"{_POSIX_NAME}{_POSIX_OFFSET}(?P<summer>{_POSIX_NAME}(?:{_POSIX_OFFSET})?(?P<rule>,.+)?)?", re.ASCII
)
_RULE_WITHOUT_A_RULE = ",M3.2.0,M11.1.0"  # what the C library takes: that of the United States

SystemZoneMark = tuple[object, ...]


def zone_named(name: str | None) -> tzinfo:
    """The time zone of that name, or the machine's.

    Raises:
        ScheduleError: there is no such zone.
    """
    if name is None:
        return system_zone()
    zone = _known_zone(name)
    if zone is None:
        raise ScheduleError(f'"{name}" is not a time zone of this machine')
    return zone


def system_zone_mark() -> SystemZoneMark:
    """Equal as long as the machine's zone is the same; cheap enough to be asked every second."""
    path = os.path.realpath(_LOCALTIME)
    try:
        status = os.stat(path)  # noqa: PTH116 - a string from realpath
        return os.environ.get("TZ"), path, status.st_ino, status.st_mtime_ns
    except OSError:
        return os.environ.get("TZ"), path


def system_zone() -> tzinfo:
    """The zone that `date` goes by: of $TZ in all its forms, else of /etc/localtime, a link or a copy.

    UTC where the C library takes it: without either, and for a $TZ that means nothing, with a warning.
    """
    setting = os.environ.get("TZ")
    if setting is None:
        return _zone_of_file(_LOCALTIME) or UTC
    text = setting.removeprefix(":")
    if not text:
        return UTC
    zone = _zone_of_file(Path(text)) if text.startswith("/") else _known_zone(text) or _posix_zone(text)
    if zone is None:
        _warn_of(setting)
    return zone or UTC


@functools.lru_cache(maxsize=8)
def _warn_of(setting: str) -> None:
    """Once for each."""
    log.warning("TZ=%s is not a time zone of this machine: UTC is used; set it with timedatectl", setting)


def _known_zone(name: str) -> tzinfo | None:
    # Here: with sysconfig, which it loads, it is a quarter of a megabyte, and many a daemon has no schedule.
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name.removeprefix("posix/").removeprefix("right/"))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _zone_of_file(path: Path) -> tzinfo | None:
    """By its name, if the path leads to one of the zones by name; else what the file says."""
    import zoneinfo

    _, found, name = os.path.realpath(path).partition("/zoneinfo/")
    zone = _known_zone(name) if found else None
    if zone is None:
        try:
            with path.open("rb") as file:
                zone = zoneinfo.ZoneInfo.from_file(file, key=str(path))
        except (OSError, ValueError, struct.error):
            return None
    return zone


def _posix_zone(text: str) -> tzinfo | None:
    """A zone in the notation of POSIX, like CET-1CEST,M3.5.0,M10.5.0/3."""
    import zoneinfo

    match = _POSIX_ZONE.fullmatch(text)
    if match is None:
        return None
    rule = _RULE_WITHOUT_A_RULE if match["summer"] and not match["rule"] else ""
    # A file of zone data (RFC 8536) with no transitions but this rule, twice: its first part is for old readers.
    part = b"TZif2" + bytes(15) + struct.pack(">6l", 0, 0, 0, 0, 1, 4) + bytes(6) + b"UTC\0"
    try:
        return zoneinfo.ZoneInfo.from_file(io.BytesIO(part * 2 + f"\n{text}{rule}\n".encode()), key=text)
    except ValueError:
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
