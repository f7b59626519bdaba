"""Commands, autostart and limits beside the schedule."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrecd.schedule.model import Window
from msrecd.schedule.override import (
    Cause,
    Facts,
    Follow,
    Held,
    Override,
    Started,
    Triggered,
    start,
    step,
    stop,
    trigger,
)

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
S = 1_000_000_000
HOUR = timedelta(hours=1)
WINDOW = Window(start=NOON - HOUR, stop=NOON + HOUR)


def facts(after_s: float = 0, window: Window | None = None, **known: object) -> Facts:
    now = NOON + timedelta(seconds=after_s)
    if window is not None and not window.holds(now):
        window = None
    base = Facts(now=now, now_ns=round((1000 + after_s) * S), window=window)
    return replace(base, **known)  # type: ignore[arg-type]


def decide(state: Override, given_facts: Facts) -> tuple[bool, Cause]:
    _, decision = step(state, given_facts)
    return decision.record, decision.cause


def test_schedule_alone() -> None:
    assert decide(Follow(), facts()) == (False, Cause.NONE)
    state, decision = step(Follow(), facts(window=WINDOW))
    assert (decision.record, decision.cause, decision.until) == (True, Cause.SCHEDULE, WINDOW.stop)
    assert decision.until_ns == (1000 + 3600) * S
    assert decide(state, facts(3600, WINDOW)) == (False, Cause.NONE)


@pytest.mark.promise("start-outside-of-windows")
def test_start_outside_of_windows_goes_on_across_them() -> None:
    state = start(Follow(), facts())
    assert step(state, facts())[1].until is None
    later = Window(start=NOON + HOUR, stop=NOON + 2 * HOUR)
    for after_s in (0, 3600, 7199, 7200, 100_000):
        state, decision = step(state, facts(after_s, later))
        assert (decision.record, decision.cause) == (True, Cause.COMMAND)
    assert decide(stop(state, facts(100_000)), facts(100_000)) == (False, Cause.COMMAND)


def test_start_with_duration_ends_by_itself() -> None:
    state = start(Follow(), facts(), duration_s=600)
    _, decision = step(state, facts(599))
    assert (decision.record, decision.until) == (True, NOON + timedelta(seconds=600))
    state, decision = step(state, facts(600))
    assert (decision.record, decision.cause) == (False, Cause.DURATION)
    assert isinstance(state, Follow)
    later = Window(start=NOON + HOUR, stop=NOON + 2 * HOUR)
    state, decision = step(state, facts(5000, later))
    assert (decision.record, decision.cause) == (True, Cause.SCHEDULE)
    assert decide(state, facts(8000)) == (False, Cause.NONE)  # the window's end, whatever ended before it


@pytest.mark.parametrize("cause", [Cause.COMMAND, Cause.MAX_DURATION, Cause.TRIGGER, Cause.DURATION, Cause.RELOAD])
def test_what_ended_the_recording_before_did_not_end_that_of_a_window(cause: Cause) -> None:
    state, _ = step(Follow(cause=cause), facts(window=WINDOW))
    assert decide(state, facts(7200)) == (False, Cause.NONE)


def test_start_with_duration_within_a_window_lasts_until_the_later_end() -> None:
    short = start(Follow(), facts(window=WINDOW), duration_s=60)
    assert step(short, facts(window=WINDOW))[1].until == WINDOW.stop
    assert decide(short, facts(61, WINDOW)) == (True, Cause.SCHEDULE)
    long = start(Follow(), facts(window=WINDOW), duration_s=7200)
    assert step(long, facts(window=WINDOW))[1].until == NOON + 2 * HOUR
    assert decide(long, facts(3601, WINDOW)) == (True, Cause.COMMAND)
    assert decide(long, facts(7201, WINDOW)) == (False, Cause.DURATION)
    assert decide(short, facts(3601, WINDOW)) == (False, Cause.NONE)  # the window ended it


@pytest.mark.promise("stop-in-a-window")
def test_stop_holds_until_the_end_of_the_window_and_the_next_begins_as_planned() -> None:
    state = stop(Follow(), facts(window=WINDOW))
    _, decision = step(state, facts(window=WINDOW))
    assert (decision.record, decision.cause, decision.until) == (False, Cause.COMMAND, WINDOW.stop)
    assert decide(state, facts(3599, WINDOW))[0] is False
    tomorrow = Window(start=NOON + 24 * HOUR, stop=NOON + 25 * HOUR)
    state, _ = step(state, facts(3600))
    assert isinstance(state, Follow)
    assert decide(state, facts(86_400, tomorrow)) == (True, Cause.SCHEDULE)


def test_start_takes_a_hold_away() -> None:
    held = stop(Follow(), facts(window=WINDOW))
    assert decide(start(held, facts(60, WINDOW)), facts(60, WINDOW)) == (True, Cause.SCHEDULE)


def test_second_start_changes_nothing_and_a_longer_duration_extends() -> None:
    running = start(Follow(), facts(), duration_s=600)
    assert start(running, facts(10)) == running
    assert start(running, facts(10), duration_s=10) == running
    assert start(running, facts(10), duration_s=1000) == Started(until_ns=(1000 + 1010) * S)
    endless = start(Follow(), facts())
    assert start(endless, facts(10), duration_s=10) == endless


def test_second_stop_does_not_end_a_hold() -> None:
    held = stop(Follow(), facts(window=WINDOW))
    assert stop(held, facts(10)) == held


def test_max_duration_limits_what_was_started_by_hand() -> None:
    state = start(Follow(), facts())
    _, decision = step(state, facts(10, recording_since_ns=1000 * S, max_duration_s=60.0))
    assert (decision.record, decision.until) == (True, NOON + timedelta(seconds=60))
    state, decision = step(state, facts(60, recording_since_ns=1000 * S, max_duration_s=60.0))
    assert (decision.record, decision.cause) == (False, Cause.MAX_DURATION)
    assert decide(state, facts(61, max_duration_s=60.0)) == (False, Cause.MAX_DURATION)


def test_max_duration_within_a_window_holds_until_its_end() -> None:
    limit = {"recording_since_ns": 1000 * S, "max_duration_s": 60.0}
    state, decision = step(Follow(), facts(60, WINDOW, **limit))
    assert (decision.record, decision.cause, decision.until) == (False, Cause.MAX_DURATION, WINDOW.stop)
    state, decision = step(state, facts(70, WINDOW, **limit))  # the recording has not ended yet
    assert decision.record is False
    assert decide(state, facts(80, WINDOW, max_duration_s=60.0)) == (False, Cause.MAX_DURATION)


def test_autostart_records_without_a_window_and_beyond_one() -> None:
    state = start(Follow(), facts(window=WINDOW), cause=Cause.AUTOSTART)
    assert decide(state, facts(window=WINDOW)) == (True, Cause.AUTOSTART)
    assert decide(state, facts(3601, WINDOW)) == (True, Cause.AUTOSTART)


def test_steps_of_the_wall_clock_do_not_touch_durations() -> None:
    state = start(Follow(), facts(), duration_s=600)
    stepped = replace(facts(10), now=NOON + timedelta(days=9000))
    assert decide(state, stepped)[0] is True
    assert decide(state, replace(facts(600), now=NOON - timedelta(days=9000)))[0] is False


def test_clock_set_back_does_not_hold_for_years() -> None:
    state = stop(Follow(), facts(window=WINDOW))
    assert isinstance(state, Held)
    back = NOON - timedelta(days=2000)
    assert isinstance(step(state, replace(facts(10), now=back))[0], Held)
    assert isinstance(step(state, replace(facts(3600), now=back))[0], Follow)


@given(
    st.lists(st.tuples(st.sampled_from(["start", "start 90", "stop", "wait"]), st.integers(1, 200)), max_size=12),
    st.one_of(st.none(), st.integers(10, 300)),
)
def test_whatever_is_commanded_limits_hold_and_planned_ends_come(
    commands: list[tuple[str, int]], max_duration_s: int | None
) -> None:
    window = Window(start=NOON + timedelta(seconds=100), stop=NOON + timedelta(seconds=400))
    state: Override = Follow()
    since: int | None = None
    at = 0
    for command, pause_s in commands:
        now = facts(at, window, recording_since_ns=since, max_duration_s=max_duration_s)
        if command.startswith("start"):
            state = start(state, now, duration_s=90 if command.endswith("90") else None)
        elif command == "stop":
            state = stop(state, now)
            assert step(state, now)[1].record is False
        for at in range(at, at + pause_s):  # noqa: B020 - time goes on from where it was
            now = facts(at, window, recording_since_ns=since, max_duration_s=max_duration_s)
            state, decision = step(state, now)
            assert (decision.until is None) == (decision.until_ns is None)
            assert decision.until_ns is None or decision.until_ns > now.now_ns
            since = (since or now.now_ns) if decision.record else None
            if since is not None and max_duration_s is not None:
                assert now.now_ns - since < max_duration_s * S
            if isinstance(state, Follow):
                assert decision.record == (now.window is not None)
        at += 1


def test_a_trigger_records_while_it_lasts_and_so_long_after() -> None:
    state = trigger(Follow(), facts(), kind="motion", until_ns=None)
    _, decision = step(state, facts(5000))
    assert (decision.record, decision.cause, decision.until_ns) == (True, Cause.TRIGGER, None)
    state = trigger(state, facts(5000), kind="", until_ns=(1000 + 5010) * S)
    assert decide(state, facts(5009)) == (True, Cause.TRIGGER)
    assert decide(state, facts(5010)) == (False, Cause.TRIGGER)


@pytest.mark.promise("commands-before-triggers")
def test_a_command_goes_before_a_trigger() -> None:
    endless = start(Follow(), facts())
    assert trigger(endless, facts(), kind="motion", until_ns=None) == endless
    held = stop(Follow(), facts(window=WINDOW))
    assert trigger(held, facts(10, WINDOW), kind="motion", until_ns=None) == held
    stopped = stop(Triggered(kind="sound"), facts(5))
    assert decide(stopped, facts(6)) == (False, Cause.COMMAND)
    assert trigger(stopped, facts(7), kind="", until_ns=(1000 + 17) * S) == stopped, "its hold begins nothing"


@pytest.mark.promise("commands-before-triggers")
def test_a_trigger_extends_a_recording_that_has_an_end() -> None:
    asked = start(Follow(), facts(), duration_s=100)
    state = trigger(asked, facts(95), kind="motion", until_ns=None)
    assert decide(state, facts(150))[0]
    state = trigger(state, facts(20), kind="", until_ns=(1000 + 30) * S)
    assert decide(state, facts(99))[0], "the duration that was asked for holds as well"
    assert not decide(state, facts(100))[0]


def test_a_trigger_extends_a_window_and_a_duration_a_trigger() -> None:
    state = trigger(Follow(), facts(3590, WINDOW), kind="motion", until_ns=None)
    assert decide(state, facts(3595, WINDOW)) == (True, Cause.SCHEDULE)
    state = trigger(state, facts(3598, WINDOW), kind="", until_ns=(1000 + 3608) * S)
    assert decide(state, facts(3607, WINDOW)) == (True, Cause.TRIGGER)
    longer = start(state, facts(3600, WINDOW), duration_s=60)
    assert decide(longer, facts(3659, WINDOW))[0]
    assert not decide(longer, facts(3660, WINDOW))[0]


@pytest.mark.promise("causes-of-an-end")
def test_what_ends_later_ended_the_recording() -> None:
    """Of a trigger and a window, of a trigger and a duration; also where nothing looked in between."""
    state, _ = step(trigger(Follow(), facts(3500, WINDOW), kind="motion", until_ns=None), facts(3500, WINDOW))
    within, _ = step(trigger(state, facts(3580, WINDOW), kind="", until_ns=(1000 + 3590) * S), facts(3580, WINDOW))
    assert decide(within, facts(3595, WINDOW)) == (True, Cause.SCHEDULE)
    assert decide(within, facts(3600, WINDOW)) == (False, Cause.NONE), "the window's end"
    beyond, _ = step(trigger(state, facts(3595, WINDOW), kind="", until_ns=(1000 + 3605) * S), facts(3595, WINDOW))
    assert decide(beyond, facts(3605, WINDOW)) == (False, Cause.TRIGGER)
    asked = trigger(start(Follow(), facts(), duration_s=100), facts(5), kind="motion", until_ns=None)
    short = trigger(asked, facts(20), kind="", until_ns=(1000 + 30) * S)
    assert decide(short, facts(100)) == (False, Cause.DURATION)
    long = trigger(asked, facts(95), kind="", until_ns=(1000 + 105) * S)
    assert decide(long, facts(105)) == (False, Cause.TRIGGER)


def test_the_limit_of_a_recording_ends_a_triggered_one() -> None:
    state = trigger(Follow(), facts(), kind="motion", until_ns=None)
    limit = {"recording_since_ns": 1000 * S, "max_duration_s": 60.0}
    assert decide(state, facts(59, **limit))[0]
    assert decide(state, facts(60, **limit)) == (False, Cause.MAX_DURATION)
