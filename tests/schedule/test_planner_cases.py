"""Planned windows in cases that people and their clocks get wrong."""

from __future__ import annotations

import itertools
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from schedule_oracle import Rule

from msrecd.schedule import Planner, ScheduleError, Trust, Window, problem_of, zones
from msrecd.schedule.planner import EARLIEST_PLAUSIBLE, merge
from msrecd.schedule.sun import AstralSun
from msrecd.schedule.zones import system_zone

BERLIN = "Europe/Berlin"


@dataclass(frozen=True)
class At:
    latitude: float
    longitude: float


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def spans(rules: list[Rule], begin: str, end: str, place: At | None = None) -> list[tuple[str, str]]:
    found = Planner(rules, place).windows(utc(begin), utc(end))
    return [(f"{w.start:%m-%dT%H:%M}", f"{w.stop:%m-%dT%H:%M}") for w in found]


@pytest.mark.promise("window-over-midnight")
def test_across_midnight_and_from_friday_to_saturday() -> None:
    rule = Rule(start="22:00", stop="04:00", days=("fri",), timezone="UTC")
    assert spans([rule], "2026-06-01", "2026-06-15") == [("06-05T22:00", "06-06T04:00"), ("06-12T22:00", "06-13T04:00")]


def test_hour_and_minute_belong_together() -> None:
    # 09:30 to 17:15 holds at 10:20, where a comparison of hours and minutes one by one says no.
    plan = Planner([Rule(start="09:30", stop="17:15", timezone="UTC")]).at(utc("2026-06-01T10:20"))
    assert plan.current == Window(start=utc("2026-06-01T09:30"), stop=utc("2026-06-01T17:15"), rules=(0,))
    assert plan.next_start == utc("2026-06-02T09:30")
    assert plan.next_stop == utc("2026-06-01T17:15")


@pytest.mark.promise("summer-time")
def test_time_left_out_in_spring_comes_at_the_end_of_the_gap() -> None:
    rule = Rule(start="02:30", duration_s=7200, timezone=BERLIN)
    assert spans([rule], "2026-03-28T12:00", "2026-03-30T12:00") == [
        ("03-29T01:00", "03-29T03:00"),  # 03:00 to 05:00 on the wall, two hours in truth
        ("03-30T00:30", "03-30T02:30"),
    ]


@pytest.mark.promise("summer-time")
def test_time_shown_twice_in_autumn_comes_once() -> None:
    for start in ("02:30", "30 2 * * *"):
        rule = Rule(start=start, duration_s=600, timezone=BERLIN)
        assert spans([rule], "2026-10-25", "2026-10-26") == [("10-25T00:30", "10-25T00:40")]


@pytest.mark.promise("cron-intervals")
def test_intervals_go_on_through_the_repeated_hour() -> None:
    rule = Rule(start="0 * * * *", duration_s=60, timezone=BERLIN)
    assert len(spans([rule], "2026-10-24T22:00", "2026-10-25T23:00")) == 25


def test_intervals_of_a_zone_with_half_an_hour() -> None:
    rule = Rule(start="* 3 * * *", duration_s=60, timezone="Australia/Lord_Howe")
    found = Planner([rule]).windows(utc("2026-04-04T14:00"), utc("2026-04-05T14:00"))
    assert len(found) == 60


def test_a_window_over_the_change_ends_by_the_wall_and_is_longer() -> None:
    rule = Rule(start="22:00", stop="06:00", timezone=BERLIN)
    (window,) = Planner([rule]).windows(utc("2026-10-24T21:00"), utc("2026-10-24T22:00"))
    assert window.duration == timedelta(hours=9)


def test_a_day_that_the_zone_leaves_out_has_no_windows() -> None:
    rule = Rule(start="12:00", duration_s=3600, timezone="Pacific/Apia")
    days = [
        w.start.astimezone(ZoneInfo("Pacific/Apia")).day
        for w in Planner([rule]).windows(utc("2011-12-28"), utc("2012-01-02"))
    ]
    assert 30 not in days
    assert 31 in days


def test_29_february() -> None:
    rule = Rule(start="0 12 29 2 *", duration_s=60, timezone="UTC")
    assert Planner([rule]).windows(utc("2026-01-01"), utc("2033-01-01"))[0].start == utc("2028-02-29T12:00")


@pytest.mark.promise("windows-overlap", "windows-that-touch")
def test_overlapping_windows_are_one_and_touching_ones_two() -> None:
    rules = [
        Rule(start="08:00", stop="12:00", timezone="UTC"),
        Rule(start="11:00", stop="14:00", timezone="UTC"),
        Rule(start="14:00", stop="15:00", timezone="UTC"),
    ]
    first, second = Planner(rules).windows(utc("2026-06-01"), utc("2026-06-02"))
    assert (first.start.hour, first.stop.hour, first.rules) == (8, 14, (0, 1))
    assert (second.start.hour, second.stop.hour, second.rules) == (14, 15, (2,))


def test_merge_keeps_the_longer_end() -> None:
    a = Window(start=utc("2026-01-01T00:00"), stop=utc("2026-01-01T10:00"), rules=(0,))
    b = Window(start=utc("2026-01-01T01:00"), stop=utc("2026-01-01T02:00"), rules=(1,))
    assert merge([b, a]) == [Window(start=a.start, stop=a.stop, rules=(0, 1))]


def test_a_stop_at_the_instant_of_the_start_is_not_its_own() -> None:
    rule = Rule(start="06:00", stop="06:00", timezone="UTC")
    (window,) = Planner([rule]).windows(utc("2026-06-01T07:00"), utc("2026-06-01T08:00"))
    assert window.duration == timedelta(days=1)


def test_half_a_year_long_window_is_open_in_its_middle() -> None:
    rule = Rule(start="0 6 1 4 *", stop="0 6 30 9 *", timezone="UTC")
    plan = Planner([rule]).at(utc("2026-07-01"))
    assert plan.current is not None
    assert (plan.current.start, plan.current.stop) == (utc("2026-04-01T06:00"), utc("2026-09-30T06:00"))
    plan = Planner([rule]).at(utc("2026-12-01"))
    assert plan.current is None
    assert plan.next_start == utc("2027-04-01T06:00")


def test_endless_chain_of_overlaps_is_open_and_planned_quickly() -> None:
    plan = Planner([Rule(start="0 * * * *", duration_s=3700, timezone="UTC")]).at(utc("2026-06-01T10:30"))
    assert plan.current is not None
    assert plan.current.stop - utc("2026-06-01T10:30") > timedelta(days=7)


def test_no_schedule_at_all() -> None:
    plan = Planner([]).at(utc("2026-06-01"))
    assert (plan.current, plan.next, plan.next_start, plan.next_stop, plan.waiting) == (None, None, None, None, False)


def test_a_plan_goes_with_the_clock_forwards_and_backwards() -> None:
    planner = Planner([Rule(start="10:00", stop="11:00", timezone="UTC")])
    for text, is_open in (("09:59", False), ("10:00", True), ("10:59", True), ("11:00", False), ("10:30", True)):
        assert (planner.at(utc(f"2026-06-01T{text}")).current is not None) is is_open
    assert planner.at(utc("2020-06-01T10:30")).current is not None
    assert planner.at(utc("2040-06-01T11:30")).next_start == utc("2040-06-02T10:00")


def test_clock_that_is_not_trusted() -> None:
    wait, run = (
        Rule(start="00:00", duration_s=86400, timezone="UTC", unsynchronized=policy) for policy in ("wait", "run")
    )
    now = EARLIEST_PLAUSIBLE + timedelta(days=100)
    never_set = EARLIEST_PLAUSIBLE - timedelta(days=100)
    just_booted, waited = Trust(synchronized=False, waited_s=10), Trust(synchronized=False, waited_s=300)
    assert Planner([wait]).at(now, just_booted).current is None
    assert Planner([wait]).at(now, just_booted).waiting
    assert Planner([wait]).at(now, waited).current is not None
    assert Planner([wait]).at(never_set, waited).current is None
    assert Planner([wait]).at(never_set, Trust(synchronized=True)).current is not None
    assert Planner([run]).at(never_set, just_booted).current is not None
    both = Planner([wait, run])
    plan = both.at(now, just_booted)
    assert plan.waiting
    assert plan.current is not None
    assert plan.current.rules == (1,)
    assert not both.at(now, waited).waiting


@pytest.mark.parametrize(
    ("place", "day", "rise", "fall"),
    [  # times as they are generally known, not copied from a table: hence the two minutes of tolerance
        (At(52.52, 13.40), date(2026, 6, 21), "02:43", "19:33"),
        (At(52.52, 13.40), date(2026, 12, 21), "07:15", "14:54"),
        (At(-33.87, 151.21), date(2026, 6, 21), "21:00", "06:54"),
        (At(-0.18, -78.47), date(2026, 3, 20), "11:18", "23:25"),
    ],
)
def test_sun_against_known_times(place: At, day: date, rise: str, fall: str) -> None:
    sun = AstralSun(place)
    for event, expected in (("sunrise", rise), ("sunset", fall)):
        found = sun.event(event, day)  # type: ignore[arg-type]
        assert found is not None
        local = timezone(timedelta(hours=round(place.longitude / 15)))
        assert found.astimezone(local).date() == day
        hour, minute = map(int, expected.split(":"))
        apart = abs((found.hour * 60 + found.minute) - (hour * 60 + minute))
        assert min(apart, 1440 - apart) <= 2, found


TROMSO = At(69.65, 18.96)


@pytest.mark.promise("polar-days")
def test_polar_day_is_skipped_or_recorded_throughout() -> None:
    begin, end = "2026-06-10", "2026-06-13"
    skip = Rule(start="sunrise", stop="sunset", timezone="Europe/Oslo")
    always = Rule(start="sunrise", stop="sunset", timezone="Europe/Oslo", polar="always")
    assert spans([skip], begin, end, TROMSO) == []
    windows = Planner([always], TROMSO).windows(utc(begin), utc(end))
    assert windows[0].start <= utc(begin)
    assert windows[-1].stop >= utc(end)
    assert all(a.stop == b.start for a, b in itertools.pairwise(windows))


@pytest.mark.promise("polar-days")
def test_always_leaves_no_hole_when_polar_day_begins_and_ends() -> None:
    rule = Rule(start="sunrise", stop="sunset", timezone="Europe/Oslo", polar="always")
    windows = Planner([rule], TROMSO).windows(utc("2026-05-01"), utc("2026-08-10"))
    assert all(a.stop <= b.start for a, b in itertools.pairwise(windows))
    longest = max((b.start - a.stop for a, b in itertools.pairwise(windows)))
    assert longest < timedelta(hours=6)


def test_polar_skip_finds_the_first_day_after() -> None:
    plan = Planner([Rule(start="sunrise", stop="sunset", timezone="Europe/Oslo")], TROMSO).at(utc("2026-06-15"))
    assert plan.current is None
    assert plan.next_start is not None
    assert date(2026, 7, 20) < plan.next_start.date() < date(2026, 8, 1)


def test_sun_in_a_zone_far_from_the_place() -> None:
    # Chicago with its clock on UTC: sunset drifts across midnight of the zone in spring and is never lost.
    rule = Rule(start="sunset", duration_s=600, timezone="UTC")
    windows = Planner([rule], At(41.9, -87.6)).windows(utc("2026-01-01"), utc("2027-01-01"))
    assert 365 <= len(windows) <= 366
    gaps = {round((b.start - a.start).total_seconds() / 3600) for a, b in itertools.pairwise(windows)}
    assert gaps == {24}


@pytest.mark.parametrize("latitude", [90.0, -90.0, 0.0, 66.6])
def test_every_place_on_earth_has_a_plan(latitude: float) -> None:
    for longitude in (-180.0, 0.0, 180.0):
        Planner([Rule(start="sunset-1h", stop="sunrise+1h", timezone="UTC")], At(latitude, longitude)).at(
            utc("2026-03-20")
        )


@pytest.mark.parametrize(
    "text",
    [
        "06:30",
        "6:30",
        "00:00",
        "sunrise",
        "Sunset+1h",
        "sunrise - 1h30m",
        "30 6 * * mon-fri",
        "*/5 * * * *",
        "0 0 29 2 *",
    ],
)
def test_times_that_are_understood(text: str) -> None:
    assert problem_of(text) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("24:00", '"00:00"'),
        ("12:60", "not a time of the day"),
        ("noon", "not a time"),
        ("", "not a time"),
        ("sunrise+13h", "longer than 12 hours"),
        ("sunrise+", "not a time"),
        ("sunrise+x", "not a duration"),
        ("61 6 * * *", "bad minute"),
        ("0 6 * * funday", "bad day-of-week"),
        ("0 6 31 2 *", "never comes"),
        ("0 0 6 * * *", "not a time"),
        ("a b c d e", "no cron"),
        ("1/0 * * * *", "no cron"),
    ],
)
def test_times_that_are_not_understood(text: str, words: str) -> None:
    message = problem_of(text)
    assert message is not None
    assert words in message
    assert "\n" not in message


def test_planner_names_the_schedule_that_is_wrong() -> None:
    good = Rule(start="06:00", duration_s=60, timezone="UTC")
    for bad, words in (
        (Rule(start="sunrise", duration_s=60, timezone="UTC"), "location"),
        (Rule(start="06:00", timezone="UTC"), "stop or duration"),
        (Rule(start="06:00", duration_s=60, timezone="Europe/Berln"), "not a time zone"),
        (Rule(start="x", duration_s=60, timezone="UTC"), "not a time"),
    ):
        with pytest.raises(ScheduleError, match=rf"^schedule\[1\]: .*{words}"):
            Planner([good, bad])


@pytest.mark.parametrize(
    ("setting", "winter", "summer"),  # minutes that local time is ahead of UTC, as `date` has it
    [
        ("Asia/Tokyo", 540, 540),
        (":Europe/Berlin", 60, 120),
        ("/usr/share/zoneinfo/Asia/Tokyo", 540, 540),
        (":/usr/share/zoneinfo/Europe/Berlin", 60, 120),
        pytest.param(
            *("posix/Europe/Berlin", 60, 120),
            marks=pytest.mark.skipif(not Path("/usr/share/zoneinfo/posix").exists(), reason="no posix/ names here"),
        ),
        ("JST-9", 540, 540),
        ("<+0330>-3:30", 210, 210),
        ("EST5EDT", -300, -240),
        ("CET-1CEST,M3.5.0,M10.5.0/3", 60, 120),
        ("AEST-10AEDT,M10.1.0,M4.1.0/3", 660, 600),
        ("XXX-2YYY", 120, 180),
        ("", 0, 0),
        ("No/Such", 0, 0),
        ("/no/such/file", 0, 0),
    ],
)
def test_every_form_of_tz_is_what_the_c_library_makes_of_it(
    monkeypatch: pytest.MonkeyPatch, setting: str, winter: int, summer: int
) -> None:
    monkeypatch.setenv("TZ", setting)
    time.tzset()
    try:
        zone = system_zone()
        for month, minutes in ((1, winter), (7, summer)):
            instant = datetime(2026, month, 15, 12, tzinfo=UTC)
            assert instant.astimezone(zone).utcoffset() == timedelta(minutes=minutes)
            assert time.localtime(instant.timestamp()).tm_gmtoff == 60 * minutes
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_a_copied_localtime_is_read_and_a_change_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = tmp_path / "localtime"
    monkeypatch.delenv("TZ", raising=False)
    monkeypatch.setattr(zones, "_LOCALTIME", local)
    assert system_zone() is UTC
    local.symlink_to("/usr/share/zoneinfo/Asia/Tokyo")
    planner = Planner([Rule(start="06:30", duration_s=60.0)])
    named = Planner([Rule(start="06:30", duration_s=60.0, timezone="Europe/Berlin")])
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert planner.is_current
    assert planner.at(now).next_start == datetime(2026, 1, 1, 21, 30, tzinfo=UTC)
    local.unlink()
    shutil.copy("/usr/share/zoneinfo/Europe/Berlin", local)
    assert not planner.is_current
    assert named.is_current
    assert str(system_zone()) == str(local)
    assert Planner([Rule(start="06:30", duration_s=60.0)]).at(now).next_start == datetime(2026, 1, 2, 5, 30, tzinfo=UTC)


def test_system_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    assert str(system_zone()) == "Europe/Berlin"
    monkeypatch.setenv("TZ", "No/Such")
    assert system_zone() is UTC
    monkeypatch.delenv("TZ")
    assert datetime.now(system_zone()).utcoffset() is not None


def test_a_tz_that_is_none_is_warned_of_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("TZ", "No/Such/Zone")
    assert [system_zone(), system_zone()] == [UTC, UTC]
    assert caplog.text.count("is not a time zone of this machine") == 1
