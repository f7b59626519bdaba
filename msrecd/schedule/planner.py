"""From schedules to windows: when a recorder is to record. Pure: time comes in as an argument.

Rules, in the order of what surprises people:
- A fixed time comes exactly once on each local day: in the hour that spring leaves out at the end of the gap, in the
  hour that autumn repeats the first time. Ends are instants and durations elapsed time.
- A window ends at the first `stop` after its `start`; a `stop` at the same instant belongs to the window before.
- Windows that overlap are one; windows that only touch stay two, and recording goes on across.
- A window that is open now is to be recorded now, late; one that is over is skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from msrecd.schedule.model import TRUSTED, Place, Plan, Rule, ScheduleError, Trust, Window
from msrecd.schedule.moments import ALL_DAYS, WEEKDAYS, ClockTime, CronTime, Moments, SunTime, parse
from msrecd.schedule.sun import AstralSun, Sun
from msrecd.schedule.zones import system_zone_mark, zone_named

EARLIEST_PLAUSIBLE = datetime(2026, 1, 1, tzinfo=UTC)  # a clock that shows less has never been set
WAIT_FOR_CLOCK_S = 300.0
_HORIZONS = tuple(timedelta(days=days) for days in (2, 8, 40, 400, 1600))
_LONGEST = timedelta(days=400)
_LOOKS = (timedelta(hours=12), *(timedelta(days=days) for days in (2, 8, 40, 400)))
_FAR = timedelta(days=7)
_LAST_LOOK = timedelta(days=366)
_SUN_LIMIT = timedelta(hours=36)  # a stop by the sun that is later has missed its day
_POLAR_LIMIT = timedelta(hours=72)  # midnight comes even when the sunset before it does not count
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compiled:
    """A rule made ready. Exactly one of stops and duration is given; no window is longer than `limit`."""

    index: int
    starts: Moments
    stops: Moments | None
    duration: timedelta | None
    limit: timedelta
    believes_clock: bool

    def windows(self, begin: datetime, end: datetime) -> list[Window]:
        """Windows that are open somewhere in [begin, end), with their true ends, not merged."""
        if self.duration is not None:
            spans = [(start, start + self.duration) for start in self.starts.between(begin - self.duration, end)]
        else:
            spans = self._until_stops(begin, end)
        return [Window(start=a, stop=b, rules=(self.index,)) for a, b in spans if b > begin]

    def _until_stops(self, begin: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
        """Spans from the first start after a stop to the next stop; starts in between change nothing."""
        if self.stops is None:
            return []
        spans = []
        past = _last(self.stops, begin - self.limit, begin + _SECOND)  # what began before the last stop is over
        position = begin - self.limit if past is None else past
        while (start := _first(self.starts, position, end)) is not None:
            stop = _first(self.stops, start + _SECOND, start + _HORIZONS[-1])
            if stop is None:
                break
            if stop - start <= self.limit:
                spans.append((start, stop))
                position = stop
            else:
                position = max(start + _SECOND, stop - self.limit)
        return spans


def _first(moments: Moments, begin: datetime, end: datetime) -> datetime | None:
    """The first instant in [begin, end), looked for in growing steps."""
    known = begin
    for horizon in _HORIZONS:
        until = min(begin + horizon, end)
        if until > known and (found := moments.between(known, until)):
            return found[0]
        known = max(known, until)
    return None


def _last(moments: Moments, begin: datetime, end: datetime) -> datetime | None:
    """The last instant in [begin, end), looked for in growing steps."""
    known = end
    for horizon in _HORIZONS:
        since = max(end - horizon, begin)
        if since < known and (found := moments.between(since, known)):
            return found[-1]
        known = min(known, since)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What has been worked out: the windows of some rules that are open somewhere in [begin, end)."""

    rules: tuple[int, ...]
    begin: datetime
    end: datetime
    windows: tuple[Window, ...]

    def plan(self, now: datetime, *, waiting: bool) -> Plan | None:
        """The plan at `now`; None when this does not reach far enough to tell."""
        if not self.begin <= now < self.end:
            return None
        current = next((window for window in self.windows if window.holds(now)), None)
        following = next((window for window in self.windows if window.start > now), None)
        enough = _FAR if current is not None and current.stop >= self.end else _LAST_LOOK
        if following is None and self.end - now < enough:
            return None
        return Plan(current=current, next=following, waiting=waiting)


class Planner:
    """The windows of one recorder. May be used from any thread; it remembers what it worked out last.

    Raises:
        ScheduleError: a rule cannot be planned; the message begins with `schedule[i]`.
    """

    def __init__(self, rules: Iterable[Rule], place: Place | None = None, *, sun: Sun | None = None) -> None:
        if sun is None and place is not None:
            sun = AstralSun(place)
        rules = tuple(rules)
        self._zone_mark = system_zone_mark() if any(rule.timezone is None for rule in rules) else None
        self._rules = [_compile(i, rule, sun) for i, rule in enumerate(rules)]
        self._known: _Known | None = None

    @property
    def is_current(self) -> bool:
        """Whether the machine's time zone, if the rules go by it, is that for which they were planned."""
        return self._zone_mark is None or self._zone_mark == system_zone_mark()

    def windows(self, begin: datetime, end: datetime) -> list[Window]:
        """All windows that are open somewhere in [begin, end), in their order; overlapping ones merged."""
        return merge(window for rule in self._rules for window in rule.windows(begin, end))

    def at(self, now: datetime, trust: Trust = TRUSTED) -> Plan:
        """What is to be done at `now` (UTC), and next.

        Looks a year ahead for the next window, but only a week past an open one that lasts that long; an endless
        chain of overlapping windows ends, for this purpose, about then. Plan again when the clock stepped, and at
        least every 30 s: after a long sleep the wall clock may stand anywhere.
        """
        rules = [rule for rule in self._rules if rule.believes_clock or clock_usable(now, trust)]
        if not rules:
            return Plan(current=None, next=None, waiting=bool(self._rules))
        waiting = len(rules) < len(self._rules)
        indices = tuple(rule.index for rule in rules)
        known = self._known
        plan = known.plan(now, waiting=waiting) if known is not None and known.rules == indices else None
        for horizon in _LOOKS if plan is None else ():
            end = now + horizon
            windows = merge(window for rule in rules for window in rule.windows(now, end))
            known = self._known = _Known(rules=indices, begin=now, end=end, windows=tuple(windows))
            plan = known.plan(now, waiting=waiting)
            if plan is not None:
                break
        assert plan is not None  # the last look always has an answer
        return plan


def clock_usable(now: datetime, trust: Trust) -> bool:
    """Whether a schedule that waits for the clock may go by it: it is synchronized, or has been waited for long enough
    and shows a date that can be true."""
    return trust.synchronized or (trust.waited_s >= WAIT_FOR_CLOCK_S and now >= EARLIEST_PLAUSIBLE)


def merge(windows: Iterable[Window]) -> list[Window]:
    """Windows in their order, those that overlap made one; those that only touch stay apart."""
    merged: list[Window] = []
    for window in sorted(windows, key=lambda window: (window.start, window.stop)):
        if merged and window.start < merged[-1].stop:
            last = merged[-1]
            rules = tuple(sorted({*last.rules, *window.rules}))
            merged[-1] = replace(last, stop=max(last.stop, window.stop), rules=rules)
        else:
            merged.append(window)
    return merged


def _compile(index: int, rule: Rule, sun: Sun | None) -> _Compiled:
    try:
        if (rule.stop is None) == (rule.duration_s is None):
            raise ScheduleError("needs either stop or duration")
        starts, _ = _moments(rule.start, rule, sun, stop=False)
        stops, limit = _moments(rule.stop, rule, sun, stop=True) if rule.stop is not None else (None, _LONGEST)
    except ScheduleError as exc:
        raise ScheduleError(f"schedule[{index}]: {exc}") from exc
    return _Compiled(
        index=index,
        starts=starts,
        stops=stops,
        duration=None if rule.duration_s is None else timedelta(seconds=rule.duration_s),
        limit=limit,
        believes_clock=rule.unsynchronized == "run",
    )


def _moments(text: str, rule: Rule, sun: Sun | None, *, stop: bool) -> tuple[Moments, timedelta]:
    """The instants of a text, and how long after the start a stop of this kind can come."""
    expression = parse(text)
    zone = zone_named(rule.timezone)
    days = ALL_DAYS if stop else _weekdays(rule.days)
    if expression.kind == "clock":
        return ClockTime(at=expression.at, zone=zone, days=days), _HORIZONS[0]
    if expression.kind == "cron":
        return CronTime(expression=expression.cron, zone=zone), _LONGEST
    if sun is None:
        raise ScheduleError(f'"{text}" needs [location] with latitude and longitude')
    sun_time = SunTime(event=expression.event, offset=expression.offset, zone=zone, sun=sun, days=days)
    if rule.polar == "always":
        return replace(sun_time, polar="end" if stop else "begin"), _POLAR_LIMIT
    return sun_time, _SUN_LIMIT


def _weekdays(names: Sequence[str]) -> frozenset[int]:
    return frozenset(WEEKDAYS.index(name) for name in names)
