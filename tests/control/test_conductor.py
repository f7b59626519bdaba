"""Windows, commands and limits together: the real conductor on a clock that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from model_recorder import Model, ModelUnit, TestClock

from msrecd.clock import NS
from msrecd.config.model import Config, Location
from msrecd.config.recorder_model import Recorder, Schedule
from msrecd.config.trigger_keys import Trigger
from msrecd.control.conductor import Planners
from msrecd.errors import CommandError
from msrecd.schedule.model import ScheduleError

MINUTE = 60 * NS
HOUR = 60 * MINUTE
BEGIN = datetime(2026, 6, 1, 0, 0, tzinfo=UTC)
MORNING = Schedule(start="06:00", stop="07:00", timezone="UTC")
CRON = Schedule(start="0 */2 * * *", duration_s=600, timezone="UTC")


def config(*schedules: Schedule, **more: object) -> Config:
    return Config(recorders=(replace(Recorder(name="cam0", video=True, schedules=schedules), **more),))  # type: ignore[arg-type]


def model(wanted: Config) -> Model:
    return Model(wanted, TestClock(BEGIN))


def on_model(wanted: Config) -> Callable[[Callable[[Model], Awaitable[None]]], Callable[[], None]]:
    """Run a test with a model on a loop."""

    def decorate(test: Callable[[Model], Awaitable[None]]) -> Callable[[], None]:
        def run() -> None:
            async def main() -> None:
                await test(model(wanted))

            asyncio.run(main())

        run.__name__ = test.__name__  # type: ignore[attr-defined]
        return run

    return decorate


@on_model(config(MORNING))
async def test_a_window_is_recorded_from_its_start_to_its_end(model: Model) -> None:
    assert model.conductor.upcoming()["cam0"]["next_start"] == "2026-06-01T06:00:00Z"
    await model.pass_until(6 * HOUR + MINUTE)
    assert model.unit().status.until_ns == 7 * HOUR
    assert model.conductor.upcoming()["cam0"]["next_stop"] == "2026-06-01T07:00:00Z"
    assert model.conductor.upcoming()["cam0"]["next_start"] == "2026-06-02T06:00:00Z"
    await model.pass_until(48 * HOUR)
    assert model.unit().spans == [(6 * HOUR, 7 * HOUR, "schedule"), (30 * HOUR, 31 * HOUR, "schedule")]
    assert model.told >= 4  # state/daemon follows each change


@on_model(config(CRON))
async def test_cron_windows_of_ten_minutes(model: Model) -> None:
    await model.pass_until(24 * HOUR - 1)
    assert model.unit().spans == [(2 * i * HOUR, 2 * i * HOUR + 10 * MINUTE, "schedule") for i in range(12)]


@on_model(config(MORNING))
async def test_a_stop_by_hand_holds_until_the_window_ends_and_no_longer(model: Model) -> None:
    await model.pass_until(6 * HOUR + 10 * MINUTE)
    assert await model.conductor.stop("cam0", "mqtt") is True
    await model.pass_until(30 * HOUR + 10 * MINUTE)
    assert model.unit().spans == [(6 * HOUR, 6 * HOUR + 10 * MINUTE, "mqtt")]
    assert model.unit().wanted_since_ns == 30 * HOUR


@on_model(config(MORNING))
async def test_a_start_by_hand_takes_a_stop_back_and_ends_with_the_window(model: Model) -> None:
    await model.pass_until(6 * HOUR + 10 * MINUTE)
    await model.conductor.stop("cam0", "mqtt")
    await model.pass_until(6 * HOUR + 20 * MINUTE)
    assert await model.conductor.start("cam0", "mqtt", None) is True
    await model.pass_until(8 * HOUR)
    assert [span[:2] for span in model.unit().spans][-1] == (6 * HOUR + 20 * MINUTE, 7 * HOUR)


@pytest.mark.promise("causes-of-an-end")
@on_model(config())
async def test_without_schedules_none_of_them_ends_a_recording(model: Model) -> None:
    await model.conductor.start("cam0", "mqtt", 600)
    await model.pass_until(HOUR)
    assert model.unit().spans == [(0, 10 * MINUTE, "duration")]


@pytest.mark.promise("causes-of-an-end")
@on_model(config(MORNING))
async def test_what_ends_last_has_ended_the_recording(model: Model) -> None:
    await model.pass_until(6 * HOUR + MINUTE)
    await model.conductor.stop("cam0", "mqtt")
    await model.conductor.start("cam0", "mqtt", 600)
    await model.pass_until(30 * HOUR + MINUTE)
    await model.conductor.stop("cam0", "mqtt")
    await model.conductor.start("cam0", "mqtt", 7200)
    await model.pass_until(40 * HOUR)
    ends = [(end, cause) for _, end, cause in model.unit().spans]
    assert ends[1::2] == [(7 * HOUR, "schedule"), (32 * HOUR + MINUTE, "duration")]


@pytest.mark.promise("restart-forgets-a-stop")
@on_model(config(MORNING))
async def test_after_a_power_cut_an_open_window_is_recorded_although_it_was_stopped(model: Model) -> None:
    await model.pass_until(6 * HOUR + 10 * MINUTE)
    await model.conductor.stop("cam0", "mqtt")
    await model.pass_until(6 * HOUR + 20 * MINUTE)
    assert not model.unit().is_wanted
    model.boot()
    await model.pass_until(8 * HOUR)
    assert model.unit().spans == [
        (6 * HOUR, 6 * HOUR + 10 * MINUTE, "mqtt"),
        (6 * HOUR + 20 * MINUTE, 7 * HOUR, "schedule"),
    ]


@on_model(config(MORNING))
async def test_a_start_with_a_duration_outside_of_windows(model: Model) -> None:
    await model.pass_until(HOUR)
    await model.conductor.start("cam0", "mqtt", 600)
    assert model.unit().status.until_ns == HOUR + 10 * MINUTE
    model.clock.error_ns = 3 * HOUR  # somebody sets the clock: what was asked for is elapsed time
    await model.pass_until(2 * HOUR)
    assert model.unit().spans == [(HOUR, HOUR + 10 * MINUTE, "duration")]


@on_model(config(MORNING))
async def test_a_start_that_fails_leaves_what_was_decided_before(model: Model) -> None:
    model.unit().refuse = CommandError("device_missing", "gone")
    with pytest.raises(CommandError):
        await model.conductor.start("cam0", "mqtt", None)
    model.unit().refuse = None
    await model.pass_until(5 * HOUR)
    assert not model.unit().is_wanted
    assert not model.unit().spans


@on_model(config(MORNING, max_duration_s=900.0))
async def test_the_limit_of_a_recording_holds_until_the_window_ends(model: Model) -> None:
    await model.pass_until(24 * HOUR)
    assert model.unit().spans == [(6 * HOUR, 6 * HOUR + 15 * MINUTE, "max_duration")]


@on_model(config(autostart=True, max_duration_s=900.0))
async def test_the_limit_ends_an_autostart_for_good(model: Model) -> None:
    await model.pass_until(24 * HOUR)
    assert model.unit().spans == [(0, 15 * MINUTE, "max_duration")]


@on_model(config(MORNING))
async def test_a_clock_that_is_not_trusted_is_waited_for(model: Model) -> None:
    model.walltime.trusted = False
    model.clock.error_ns = 6 * HOUR  # the window seems open
    model.boot()
    await model.pass_until(4 * MINUTE)
    assert model.conductor.upcoming()["cam0"]["waiting_for_clock"] is True
    assert not model.unit().is_wanted
    await model.pass_until(6 * MINUTE)
    assert model.unit().wanted_since_ns == 5 * MINUTE  # then the clock is believed, if its date can be true


@on_model(config(MORNING))
async def test_a_clock_that_shows_1970_is_not_believed_until_it_is_set(model: Model) -> None:
    model.walltime.trusted = False
    model.clock.error_ns = -int(BEGIN.timestamp()) * NS + 6 * HOUR
    model.boot()
    await model.pass_until(3 * HOUR)
    assert not model.unit().spans
    assert not model.unit().is_wanted
    model.walltime.trusted, model.clock.error_ns = True, 3 * HOUR + 30 * MINUTE  # it is half past six
    await model.pass_until(3 * HOUR + MINUTE)
    assert model.unit().wanted_since_ns == 3 * HOUR


@on_model(config(replace(MORNING, unsynchronized="run")))
async def test_a_schedule_that_runs_anyway_believes_the_clock(model: Model) -> None:
    model.walltime.trusted = False
    model.boot()
    await model.pass_until(8 * HOUR)
    assert model.unit().spans == [(6 * HOUR, 7 * HOUR, "schedule")]


@on_model(config(MORNING))
async def test_a_recorder_that_breaks_does_not_end_the_schedules_of_the_others(model: Model) -> None:
    class Broken(ModelUnit):
        async def start(self, cause: str, *, persistent: bool = False) -> bool:
            raise RuntimeError("a defect")

    both = (*model.config.recorders, Recorder(name="cam1", video=True, schedules=(MORNING,)))
    model.config = Config(recorders=both)
    model.units = {"cam0": Broken(model.clock), "cam1": ModelUnit(model.clock)}
    model.conductor.adopt(model.conductor.prepare(model.config))
    await model.pass_until(8 * HOUR)
    assert model.unit("cam1").spans == [(6 * HOUR, 7 * HOUR, "schedule")]


# --- reload ----------------------------------------------------------------------------------------------------------


def reload(model: Model, wanted: Config) -> None:
    model.config = wanted
    model.conductor.adopt(model.conductor.prepare(wanted))


@on_model(config(MORNING))
async def test_a_held_window_falls_with_its_schedule(model: Model) -> None:
    await model.pass_until(6 * HOUR + 10 * MINUTE)
    await model.conductor.stop("cam0", "mqtt")
    reload(model, config(MORNING, max_duration_s=3600.0))
    await model.pass_until(6 * HOUR + 20 * MINUTE)
    assert not model.unit().is_wanted
    reload(model, config(replace(MORNING, stop="08:00")))
    await model.pass_until(6 * HOUR + 30 * MINUTE)
    assert model.unit().wanted_since_ns == 6 * HOUR + 20 * MINUTE


@on_model(config(autostart=True))
async def test_a_schedule_takes_over_from_autostart(model: Model) -> None:
    await model.pass_until(HOUR)
    reload(model, config(MORNING))
    await model.pass_until(8 * HOUR)
    assert [span[:2] for span in model.unit().spans] == [(0, HOUR), (6 * HOUR, 7 * HOUR)]


@on_model(config())
async def test_autostart_that_is_switched_on_starts(model: Model) -> None:
    await model.pass_until(HOUR)
    reload(model, config(autostart=True))
    await model.pass_until(2 * HOUR)
    assert model.unit().wanted_since_ns == HOUR
    assert model.unit().status.cause == "autostart"


@on_model(replace(config(Schedule(start="sunrise", stop="sunset")), location=Location(latitude=52.5, longitude=13.4)))
async def test_a_new_place_has_another_sunrise(model: Model) -> None:
    before = model.conductor.upcoming()["cam0"]["next_start"]
    reload(model, replace(model.config, location=Location(latitude=40.0, longitude=-75.0)))
    assert model.conductor.upcoming()["cam0"]["next_start"] != before


@on_model(config(MORNING))
async def test_a_schedule_that_cannot_be_planned_changes_nothing(model: Model) -> None:
    wrong = config(Schedule(start="sunrise", stop="sunset"))
    with pytest.raises(ScheduleError, match=r"recorder cam0: schedule\[0\]"):
        model.conductor.prepare(wrong)
    await model.pass_until(8 * HOUR)
    assert model.unit().spans == [(6 * HOUR, 7 * HOUR, "schedule")]


@on_model(config(MORNING))
async def test_a_planner_is_kept_while_its_schedule_is_the_same(model: Model) -> None:
    first = model.conductor.prepare(model.config)["cam0"]
    assert isinstance(first, Planners)
    assert model.conductor.prepare(config(MORNING, autostart=True))["cam0"] is first
    assert model.conductor.prepare(config(CRON))["cam0"] is not first


@on_model(config(MORNING))
async def test_a_clock_that_is_set_while_a_camera_opens_is_seen(model: Model) -> None:
    looked: list[int] = []

    async def slow_look(**_: object) -> float:
        if not looked:
            model.clock.error_ns = 6 * HOUR  # set after the plan was made, before the sleep
        looked.append(len(looked))
        if len(looked) == 2:
            raise asyncio.CancelledError
        return 30.0

    model.conductor.look = slow_look  # type: ignore[method-assign]
    async with asyncio.timeout(20):
        with pytest.raises(asyncio.CancelledError):
            await model.conductor.run()
    assert looked == [0, 1]


@on_model(config(MORNING))
async def test_a_clock_that_was_believed_once_is_not_waited_for_again(model: Model) -> None:
    await model.pass_until(6 * HOUR + 10 * NS)
    assert model.unit().is_wanted
    model.walltime.trusted = False
    await model.pass_until(7 * HOUR + NS)
    assert model.unit().spans == [(6 * HOUR, 7 * HOUR, "schedule")]
    assert not model.conductor.upcoming()["cam0"]["waiting_for_clock"]


def test_a_camera_that_takes_its_time_does_not_delay_the_others() -> None:
    """cam0 hangs while it opens; cam1's window begins meanwhile."""

    async def main() -> None:
        wanted = Config(
            recorders=(
                Recorder(name="cam0", video=True, autostart=True),
                Recorder(name="cam1", video=True, schedules=(MORNING,)),
            )
        )
        model = Model(wanted, TestClock(BEGIN))
        opens, opened, begun = asyncio.Event(), asyncio.Event(), asyncio.Event()
        slow, other = model.unit("cam0"), model.unit("cam1")
        start, start_other = slow.start, other.start

        async def hangs(cause: str, *, persistent: bool = False) -> bool:
            opens.set()
            await opened.wait()
            return await start(cause, persistent=persistent)

        async def begins(cause: str, *, persistent: bool = False) -> bool:
            begun.set()
            return await start_other(cause, persistent=persistent)

        slow.start, other.start = hangs, begins  # type: ignore[method-assign]
        run = asyncio.create_task(model.conductor.run())
        async with asyncio.timeout(20):
            await opens.wait()
            model.clock.now_ns = 6 * HOUR + MINUTE  # and stays there, however long the next look takes to come
            model.conductor.wake()
            await begun.wait()
            assert not slow.is_wanted
            opened.set()
            while not slow.is_wanted:  # noqa: ASYNC110 - set within the conductor
                await asyncio.sleep(0.01)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(main())


def test_windows_follow_the_time_zone_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")

    @on_model(config(replace(MORNING, timezone=None)))
    async def follows(model: Model) -> None:
        await model.pass_until(HOUR)
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        await model.pass_until(24 * HOUR)
        assert model.unit().spans == [(21 * HOUR, 22 * HOUR, "schedule")]  # 06:00 to 07:00 in Tokyo

    follows()


def test_a_stop_by_hand_survives_a_change_of_the_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")

    @on_model(config(replace(MORNING, timezone=None)))
    async def stays_stopped(model: Model) -> None:
        await model.pass_until(6 * HOUR + 10 * MINUTE)
        await model.conductor.stop("cam0", "mqtt")
        monkeypatch.setenv("TZ", "Etc/GMT-0")  # the same times under another name
        await model.pass_until(8 * HOUR)
        assert model.unit().spans == [(6 * HOUR, 6 * HOUR + 10 * MINUTE, "mqtt")]

    stays_stopped()


MOTION = Trigger(kind="motion", hold_s=10.0, max_per_hour=2)


@on_model(config(triggers=(MOTION, replace(MOTION, kind="sound", hold_s=30.0))))
async def test_the_last_of_several_triggers_ends_the_recording(model: Model) -> None:
    await model.pass_until(MINUTE)
    assert model.conductor.found("cam0", 0) == "start"
    await model.pass_until(2 * MINUTE)
    assert model.unit().status.cause == "trigger:motion"
    assert model.conductor.found("cam0", 1) == "extend"
    model.conductor.lost("cam0", 0)
    await model.pass_until(5 * MINUTE)
    model.conductor.lost("cam0", 1)
    await model.pass_until(HOUR)
    assert model.unit().spans == [(MINUTE, 5 * MINUTE + 30 * NS, "trigger")]


@on_model(config(triggers=(MOTION,)))
async def test_so_many_recordings_an_hour_and_a_stop_needs_something_new(model: Model) -> None:
    outcomes = []
    for minute in (1, 10, 20, 62):
        await model.pass_until(minute * MINUTE)
        outcomes.append(model.conductor.found("cam0", 0))
        await model.pass_until(minute * MINUTE + 5 * NS)
        if minute == 1:
            await model.conductor.stop("cam0", "mqtt")
        await model.pass_until(minute * MINUTE + 6 * NS)
        model.conductor.lost("cam0", 0)
    assert outcomes == ["start", "start", "limited", "start"]
    await model.pass_until(2 * HOUR)
    spans = model.unit().spans
    assert [begin for begin, *_ in spans] == [MINUTE, 10 * MINUTE, 62 * MINUTE]
    assert spans[0][1:] == (MINUTE + 5 * NS, "mqtt"), "what still lasted began nothing"


@on_model(config(replace(MORNING, action="arm"), triggers=(MOTION,)))
@pytest.mark.promise("arming")
async def test_a_schedule_arms_the_triggers_and_records_nothing(model: Model) -> None:
    await model.pass_until(24 * HOUR)
    assert model.unit().armed == [(0, False), (6 * HOUR, True), (7 * HOUR, False)]
    assert model.unit().spans == []
    assert model.conductor.upcoming() == {}
