"""`msrecd schedule`: when the recorders will record, as a table and a picture. Asks no daemon: the schedules decide."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from msrecd.cli.errors import Exit, UsageError
from msrecd.cli.output import can_show, print_json, print_table, timestamp
from msrecd.config import Config, load
from msrecd.config.units import format_duration
from msrecd.schedule import Planner, ScheduleError, Window
from msrecd.schedule.zones import midnight, one_instant, system_zone
from msrecd.service.checks import config_checks

_MAX_DAYS = 366
_MAX_ROWS = 400
_SLOTS = 48  # half hours of a day
_RULER = "0     3     6     9     12    15    18    21    "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=int, default=7, metavar="N", help="how many days ahead (default: 7)")
    parser.add_argument("--recorder", metavar="NAME", help="only this recorder")
    parser.add_argument("--json", action="store_true", help="print windows as JSON, times in UTC")


def run(args: argparse.Namespace) -> int:
    if not 1 <= args.days <= _MAX_DAYS:
        raise UsageError(f"--days takes a number from 1 to {_MAX_DAYS}, not {args.days}")
    config = load(args.config, checks=config_checks())
    names = [recorder.name for recorder in config.recorders]
    if args.recorder is not None and args.recorder not in names:
        raise UsageError(f'there is no recorder "{args.recorder}"; there are: {", ".join(names) or "none"}')
    chosen = [name for name in names if args.recorder in (None, name)]
    now = datetime.now(UTC).replace(microsecond=0)
    end = now + timedelta(days=args.days)
    windows = {name: planner_of(config, name).windows(now, end) for name in chosen}
    if args.json:
        print_json([_to_json(name, window, now) for name in chosen for window in windows[name]])
    else:
        _print(config, windows, now, end)
    return Exit.OK


def planner_of(config: Config, name: str) -> Planner:
    """The planner of a recorder of the configuration."""
    recorder = config.recorder(name)
    try:
        return Planner(recorder.schedules if recorder else (), config.location)
    except ScheduleError as exc:
        raise UsageError(f"recorder {name}: {exc}") from exc


def _to_json(name: str, window: Window, now: datetime) -> dict[str, object]:
    return {
        "recorder": name,
        "start": timestamp(window.start),
        "stop": timestamp(window.stop),
        "duration_s": window.duration.total_seconds(),
        "open": window.holds(now),
        "schedules": list(window.rules),
    }


def _print(config: Config, windows: dict[str, list[Window]], now: datetime, end: datetime) -> None:
    unplanned = [name for name in windows if not _has_schedule(config, name)]
    planned = {name: found for name, found in windows.items() if name not in unplanned}
    zone = system_zone()
    rows = [
        (
            name,
            _local(window.start, zone),
            _local(window.stop, zone),
            _length(window),
            "open" if window.holds(now) else "",
        )
        for name, found in planned.items()
        for window in found
    ]
    if planned:
        print(f"Times of {zone} from {_local(now, zone)}:")
        print_table(("RECORDER", "START", "STOP", "DURATION", ""), rows[:_MAX_ROWS], right=(3,))
        if len(rows) > _MAX_ROWS:
            print(f"... and {len(rows) - _MAX_ROWS} more; --json has all")
        print()
        print("\n".join(picture(planned, now, end, zone, full="█" if can_show("█·") else "#")))
    for name in unplanned:
        recorder = config.recorder(name)
        always = recorder is not None and recorder.autostart
        print(f"{name}: no schedule; {'records from the start of the service' if always else 'records on command'}")


def picture(
    windows: dict[str, list[Window]], now: datetime, end: datetime, zone: tzinfo, *, full: str = "#"
) -> list[str]:
    """A line for each day and recorder, a cell for each half hour on the wall: `full` where any of it is planned."""
    width = max(map(len, windows))
    lines = [" " * (width + 14) + _RULER.rstrip()]
    day, last = now.astimezone(zone).date(), (end - timedelta(seconds=1)).astimezone(zone).date()
    while day <= last:
        for i, (name, found) in enumerate(windows.items()):
            label = day.strftime("%a %m-%d") if i == 0 else ""
            lines.append(f"{label:10s}  {name:{width}s}  {_bar(found, day, zone, full)}")
        day += timedelta(days=1)
    return lines


def _bar(windows: Sequence[Window], day: date, zone: tzinfo, full: str) -> str:
    empty = "·" if full == "█" else "."
    edges = [_edge(day, slot, zone) for slot in range(_SLOTS + 1)]
    return "".join(full if _any_open(windows, a, b) else empty for a, b in itertools.pairwise(edges))


def _edge(day: date, slot: int, zone: tzinfo) -> datetime:
    if slot == _SLOTS:
        return midnight(day + timedelta(days=1), zone)
    wall = datetime.combine(day, time(slot // 2, slot % 2 * 30))
    return one_instant(wall, zone) or midnight(day, zone)


def _any_open(windows: Iterable[Window], begin: datetime, end: datetime) -> bool:
    return any(window.start < end and window.stop > begin for window in windows) and begin < end


def _has_schedule(config: Config, name: str) -> bool:
    recorder = config.recorder(name)
    return recorder is not None and bool(recorder.schedules)


def _local(instant: datetime, zone: tzinfo) -> str:
    return instant.astimezone(zone).strftime("%a %Y-%m-%d %H:%M %Z")


def _length(window: Window) -> str:
    return format_duration(window.duration.total_seconds())
