"""The planner agrees, minute by minute, with a judge that only looks at the clocks on the wall."""

from __future__ import annotations

import itertools
import os
import random
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from schedule_oracle import WEEKDAYS, Rule, open_minutes

from msrecd.schedule import Planner

# A pool for each zone keeps the judge's tables of wall times small: days around changes of the offset, and others.
ZONES = {
    "UTC": ["2028-02-29", "2026-12-31"],
    "Europe/Berlin": ["2026-03-29", "2026-10-25", "2031-03-30", "2027-07-01", "2028-02-29"],
    "Europe/London": ["2026-03-29", "2033-10-30"],
    "America/New_York": ["2026-03-08", "2026-11-01", "2030-01-01"],
    "America/Sao_Paulo": ["2017-10-15", "2018-02-18"],  # midnight itself is left out and repeated
    "Australia/Lord_Howe": ["2026-04-05", "2026-10-04"],  # half an hour
    "Asia/Kolkata": ["2026-06-01"],
    "Asia/Tehran": ["2021-03-22", "2021-09-22"],
    "Pacific/Chatham": ["2026-04-05", "2026-09-27"],
    "Africa/Casablanca": ["2026-02-15", "2026-03-22"],
    "Antarctica/Troll": ["2026-03-29", "2026-10-25"],  # two hours
    "Pacific/Apia": ["2011-12-30", "2012-04-01"],  # a whole day is left out
}
MINUTE = timedelta(minutes=1)


class MadeUpSun:
    """Rises and sets at random minutes of its day; on some days it does not."""

    def __init__(self, key: int) -> None:
        self._key = key
        self._polar = key % 3 == 0
        self._events: dict[tuple[str, date], datetime | None] = {}

    def event(self, event: str, day: date) -> datetime | None:
        if (event, day) not in self._events:
            self._events[event, day] = self._made_up(event, day)
        return self._events[event, day]

    def _made_up(self, event: str, day: date) -> datetime | None:
        dice = random.Random(f"{self._key} {day}")
        rise, drop = dice.randrange(0, 700), dice.randrange(700, 1440)
        if self._polar and dice.random() < 0.4:
            return None
        noon = datetime(day.year, day.month, day.day, tzinfo=UTC)
        return noon + (rise if event == "sunrise" else drop) * MINUTE


clock_times = st.builds("{:02d}:{:02d}".format, st.integers(0, 23), st.sampled_from([0, 1, 15, 30, 45, 59]))
sun_times = st.builds(
    "{}{}".format, st.sampled_from(["sunrise", "sunset"]), st.sampled_from(["", "-30m", "+60m", "+700m", "-180m"])
)
cron_times = st.builds(
    "{} {} {} {} {}".format,
    st.sampled_from(["0", "30", "15,45", "*/20", "*", "10-12", "59"]),
    st.sampled_from(["*", "2", "1,3", "*/6", "0", "6-9", "23"]),
    st.sampled_from(["*", "*", "*", "29", "1-15", "*/2"]),
    st.sampled_from(["*", "*", "*", "3,10"]),
    st.sampled_from(["*", "*", "mon-fri", "0", "6,7", "sat"]),
)
daily_times = st.one_of(clock_times, sun_times)


@st.composite
def rules(draw: st.DrawFn, zone: str) -> Rule:
    start = draw(st.one_of(daily_times, cron_times))
    days = tuple(draw(st.one_of(st.just(WEEKDAYS), st.lists(st.sampled_from(WEEKDAYS), min_size=1, unique=True))))
    polar = draw(st.sampled_from(["skip", "always"]))
    if draw(st.booleans()):
        minutes = draw(st.sampled_from([1, 20, 60, 90, 480, 1440, 1500, 2880]))
        return Rule(start=start, duration_s=minutes * 60, days=days, timezone=zone, polar=polar)
    stop = draw(st.one_of(daily_times, st.sampled_from(["0 */6 * * *", "30 2 * * *", "*/45 * * * *"])))
    return Rule(start=start, stop=stop, days=days, timezone=zone, polar=polar)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Rule], date, int]:
    zone = draw(st.sampled_from(sorted(ZONES)))
    day = date.fromisoformat(draw(st.sampled_from(ZONES[zone]))) - timedelta(days=draw(st.integers(0, 2)))
    return draw(st.lists(rules(zone), min_size=1, max_size=3)), day, draw(st.integers(0, 999))


def planned_minutes(planner: Planner, first: date, days: int) -> list[bool]:
    begin = datetime(first.year, first.month, first.day, tzinfo=UTC)
    end = begin + timedelta(days=days)
    result = [False] * (days * 1440)
    windows = planner.windows(begin, end)
    for a, b in itertools.pairwise(windows):
        assert a.stop <= b.start
    for window in windows:
        assert window.start < window.stop
        low, high = max(window.start, begin), min(window.stop, end)
        assert low < high
        for i in range((low - begin) // MINUTE, (high - begin) // MINUTE):
            result[i] = True
    return result


def agree(case: tuple[list[Rule], date, int]) -> None:
    given_rules, first, key = case
    sun = MadeUpSun(key)
    expected = open_minutes(given_rules, first, 3, sun.event)
    planner = Planner(given_rules, sun=sun)
    found = planned_minutes(planner, first, 3)
    differing = [i for i, (a, b) in enumerate(zip(expected, found, strict=True)) if a != b]
    assert not differing, f"{len(differing)} minutes differ, first {divmod(differing[0], 1440)}: {given_rules} {first}"
    begin = datetime(first.year, first.month, first.day, tzinfo=UTC)
    for minute in (key * 4 % 4320, 2000):  # the plan at an instant says the same
        now = begin + minute * MINUTE
        plan = planner.at(now)
        assert (plan.current is not None) == expected[minute]
        if plan.current is not None:
            rest = expected[minute : minute + (plan.current.stop - now) // MINUTE]
            assert all(rest)
        elif plan.next_start is not None:
            ahead = expected[minute : minute + (plan.next_start - now) // MINUTE]
            assert not any(ahead)
        else:
            assert not any(expected[minute:])


COMMON = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
ALL = int(os.environ.get("MSRECD_SCHEDULES", "0"))
SHARE = 500
PARTS = 5  # of the ordinary run: workers share them
more = pytest.mark.skipif(ALL <= 0, reason="MSRECD_SCHEDULES=10000 judges so many schedules; four minutes and more")


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.promise("cron-days")
def test_planner_agrees_with_the_judge(part: int) -> None:
    @settings(max_examples=SHARE // PARTS, **COMMON)
    @seed(20260329 + part)
    @given(cases())
    def judged(case: tuple[list[Rule], date, int]) -> None:
        agree(case)

    judged()


@more
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("share", range(-(-ALL // SHARE)))
def test_planner_agrees_with_the_judge_in_many_more_cases(share: int) -> None:
    """The acceptance, in shares so that each keeps to the deadline of a test and other cores can help."""

    @settings(max_examples=SHARE, **COMMON)
    @seed(20260329_000 + share)
    @given(cases())
    def judge(case: tuple[list[Rule], date, int]) -> None:
        agree(case)

    judge()
