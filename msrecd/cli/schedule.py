"""`msrecd schedule`: when the recorders will record, or their triggers be armed, as a table and a drawing.

Asks no daemon: the schedules decide.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Literal, NamedTuple

from msrecd.cli.errors import Exit, UsageError
from msrecd.cli.output import can_show, print_json, print_table, timestamp
from msrecd.config import Config, load
from msrecd.daemon.checks import config_checks
from msrecd.schedule import Planner, ScheduleError, Window
from msrecd.schedule.zones import midnight, one_instant, system_zone
from msrecd.vocabulary.units import format_duration

Action = Literal["record", "arm"]
_MAX_DAYS = 366
_MAX_ROWS = 400
_MANY = 6  # windows of a recorder on one day that are one row of the table
_SLOTS = 48  # half hours of a day
_ACTIONS: tuple[Action, ...] = ("record", "arm")
_RULER = "0     3     6     9     12    15    18    21    "


class _Line(NamedTuple):
    """What has windows of its own: a recorder, or its triggers."""

    recorder: str
    action: Action

    @property
    def label(self) -> str:
        return self.recorder if self.action == "record" else f"{self.recorder} (arm)"


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
    lines = [_Line(name, action) for name in chosen for action in _ACTIONS if _has_schedule(config, name, action)]
    windows = {line: planner_of(config, *line).windows(now, end) for line in lines}
    if args.json:
        print_json([_to_json(config, line, window, now) for line in lines for window in windows[line]])
    else:
        _print(config, chosen, windows, now, end)
    return Exit.OK


def planner_of(config: Config, name: str, action: Action) -> Planner:
    """The planner of what a recorder of the configuration does by schedules."""
    recorder = config.recorder(name)
    try:
        return Planner(recorder.schedules_that(action) if recorder else (), config.location)
    except ScheduleError as exc:
        raise UsageError(f"recorder {name}: {exc}") from exc


def _to_json(config: Config, line: _Line, window: Window, now: datetime) -> dict[str, object]:
    recorder = config.recorder(line.recorder)
    schedules = recorder.schedules if recorder else ()
    numbers = [number for number, schedule in enumerate(schedules) if schedule.action == line.action]
    return {
        "recorder": line.recorder,
        "action": line.action,
        "start": timestamp(window.start),
        "stop": timestamp(window.stop),
        "duration_s": window.duration.total_seconds(),
        "open": window.holds(now),
        "schedules": [numbers[rule] for rule in window.rules],
    }


def _print(
    config: Config, names: Sequence[str], windows: dict[_Line, list[Window]], now: datetime, end: datetime
) -> None:
    planned = {line.label: found for line, found in windows.items()}
    zone = system_zone()
    rows = [row for name, found in planned.items() for row in _rows(name, found, now, zone)]
    if planned:
        print(f"Times of {zone} from {_local(now, zone)}:")
        print_table(("RECORDER", "START", "STOP", "DURATION", "WINDOWS"), rows[:_MAX_ROWS], right=(3,))
        if len(rows) > _MAX_ROWS:
            print(f"... and {len(rows) - _MAX_ROWS} more; --json has all")
        print()
        cells = "·▒█" if can_show("·▒█") else ".-#"
        print("\n".join(drawing(planned, now, end, zone, cells)))
        print(f"{'':{max(map(len, planned)) + 12}}  {cells[2]} planned   {cells[1]} partly   half an hour each")
    for name in names:
        if words := _otherwise(config, name):
            print(f"{name}: {words}")


def _otherwise(config: Config, name: str) -> str:
    """What else makes a recorder record, as far as a table of windows does not say it."""
    recorder = config.recorder(name)
    kinds = sorted({one.kind for one in recorder.triggers}) if recorder else []
    has_windows = _has_schedule(config, name, "record")
    found = [f"on {' and '.join(kinds)}"] if kinds else []
    if found and _has_schedule(config, name, "arm"):
        found[0] += " while armed"
    if recorder is not None and recorder.autostart:
        found = ["from the start of the service"]
    elif not has_windows:
        found.append("on command")
    elif not found:
        return ""
    no_schedule = "" if has_windows or _has_schedule(config, name, "arm") else "no schedule; "
    return f"{no_schedule}records {', '.join(found)}"


def _rows(
    name: str, windows: Sequence[Window], now: datetime, zone: tzinfo
) -> Iterator[tuple[str, str, str, str, str]]:
    """A row for each window; many short ones of one day are a row together."""
    for _, day in itertools.groupby(windows, lambda window: window.start.astimezone(zone).date()):
        found = list(day)
        for group in [found] if len(found) > _MANY else [[window] for window in found]:
            length = sum((window.duration for window in group), timedelta())
            words = [f"{len(group)} windows"] if len(group) > 1 else []
            words += ["open now"] if any(window.holds(now) for window in group) else []
            start, stop = _local(group[0].start, zone), _local(group[-1].stop, zone)
            yield name, start, stop, format_duration(length.total_seconds()), ", ".join(words) or "1"


def drawing(
    windows: dict[str, list[Window]], now: datetime, end: datetime, zone: tzinfo, cells: str = ".-#"
) -> list[str]:
    """A line for each day and recorder, a cell for each half hour on the wall.

    cells: what stands for a half hour in which nothing is planned, a part of it, all of it.
    """
    width = max(map(len, windows))
    lines = [" " * (width + 14) + _RULER.rstrip()]
    day, last = now.astimezone(zone).date(), (end - timedelta(seconds=1)).astimezone(zone).date()
    while day <= last:
        for i, (name, found) in enumerate(windows.items()):
            label = day.strftime("%a %m-%d") if i == 0 else ""
            lines.append(f"{label:10s}  {name:{width}s}  {_bar(found, day, zone, cells)}")
        day += timedelta(days=1)
    return lines


def _bar(windows: Sequence[Window], day: date, zone: tzinfo, cells: str) -> str:
    edges = [_edge(day, slot, zone) for slot in range(_SLOTS + 1)]
    near = [window for window in windows if window.start < edges[-1] and window.stop > edges[0]]
    return "".join(cells[_share(near, a, b)] for a, b in itertools.pairwise(edges))


def _edge(day: date, slot: int, zone: tzinfo) -> datetime:
    if slot == _SLOTS:
        return midnight(day + timedelta(days=1), zone)
    wall = datetime.combine(day, time(slot // 2, slot % 2 * 30))
    return one_instant(wall, zone) or midnight(day, zone)


def _share(windows: Iterable[Window], begin: datetime, end: datetime) -> int:
    """How much of [begin, end) is planned: 0 nothing, 1 a part, 2 all of it."""
    planned = sum(
        (min(w.stop, end) - max(w.start, begin) for w in windows if w.start < end and w.stop > begin), timedelta()
    )
    return 0 if begin >= end or not planned else 2 if planned >= end - begin else 1


def _has_schedule(config: Config, name: str, action: Action) -> bool:
    recorder = config.recorder(name)
    return recorder is not None and bool(recorder.schedules_that(action))


def _local(instant: datetime, zone: tzinfo) -> str:
    return instant.astimezone(zone).strftime("%a %Y-%m-%d %H:%M %Z")
