"""When the process ends itself to free a device whose driver hangs, and when it does not."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from msrecd.clock import NS
from msrecd.daemon.driver_restart import DriverRestart, is_due
from msrecd.devices.deadline import CallTimeout, DeadlineWorker, left_behind

HOUR_NS = 3600 * NS


class SetClock:
    """CLOCK_MONOTONIC as the test says."""

    now_ns = 1000 * NS

    def monotonic_ns(self) -> int:
        return self.now_ns


class Machine:
    """Processes that come one after the other in one boot."""

    def __init__(self, folder: Path) -> None:
        self.clock = SetClock()
        self.boot_id = folder / "boot_id"
        self.boot_id.write_text("first\n")
        self.state = folder / "state"
        self.state.mkdir()

    def process(self) -> DriverRestart:
        return DriverRestart(self.state, clock=self.clock, boot_id=self.boot_id)  # type: ignore[arg-type]

    def passes(self, seconds: float) -> None:
        self.clock.now_ns += round(seconds * NS)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def look(process: DriverRestart, *, stuck: bool = True, waited_for: bool = True, again: bool = True) -> bool:
    return process.look(["Front"] if stuck else [], is_waited_for=waited_for, begins_again=again)


@pytest.mark.promise("restart-for-a-driver")
def test_after_a_minute_in_which_a_recorder_waits(machine: Machine) -> None:
    process = machine.process()
    assert not look(process)
    machine.passes(59)
    assert not look(process)
    machine.passes(2)
    assert look(process)


@pytest.mark.parametrize("comes_back", [{"stuck": False}, {"waited_for": False}])
def test_the_minute_is_one_without_a_break(machine: Machine, comes_back: dict[str, bool]) -> None:
    process = machine.process()
    look(process)
    machine.passes(50)
    assert not look(process, **comes_back)
    machine.passes(50)
    assert not look(process)
    machine.passes(61)
    assert look(process)


def test_not_while_a_recording_would_end_by_it(machine: Machine) -> None:
    """One that was started by hand does not begin again by itself."""
    process = machine.process()
    for _ in range(100):
        assert not look(process, again=False)
        machine.passes(60)
    assert look(process)


@pytest.mark.promise("restart-for-a-driver")
def test_three_times_a_day_over_all_processes(machine: Machine) -> None:
    taken = 0
    for _ in range(40):  # an hour and a minute each
        process = machine.process()
        look(process)
        machine.passes(61)
        taken += look(process)
        machine.passes(3600)
    assert taken == 6  # in 40 hours and 40 minutes: three, and three more a day after them


def test_a_boot_begins_anew(machine: Machine) -> None:
    for boot in ("first", "second"):
        machine.boot_id.write_text(boot)
        machine.clock.now_ns = 5 * NS  # smaller than before: another boot's time
        for _ in range(3):
            process = machine.process()
            look(process)
            machine.passes(61)
            assert look(process)
        process = machine.process()
        look(process)
        machine.passes(61)
        assert not look(process)


def test_what_cannot_be_written_down_is_not_done(machine: Machine) -> None:
    machine.state.rmdir()
    process = machine.process()
    look(process)
    machine.passes(61)
    assert not look(process)


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"boot_id": "first"}', '{"boot_id": "first", "taken_ns": [null]}'])
def test_a_damaged_memory_is_none(machine: Machine, damaged: str) -> None:
    (machine.state / "restarts.json").write_text(damaged)
    process = machine.process()
    look(process)
    machine.passes(61)
    assert look(process)


def test_the_rule() -> None:
    now = 100 * HOUR_NS
    assert not is_due(now, None, [])
    assert is_due(now, now - 60 * NS, [])
    assert not is_due(now, now - 60 * NS, [now - HOUR_NS, now - 2 * HOUR_NS, now - 23 * HOUR_NS])
    assert is_due(now, now - 60 * NS, [now - HOUR_NS, now - 2 * HOUR_NS, now - 24 * HOUR_NS])


def test_a_thread_that_was_left_behind_counts_until_it_comes_back() -> None:
    release, entered = threading.Event(), threading.Event()
    worker = DeadlineWorker("camera")

    def hang() -> None:
        entered.set()
        release.wait(60)

    with pytest.raises(CallTimeout):
        worker.call("closing the camera", hang, 0.05)
    assert entered.wait(10)
    worker.leave_behind("Front")
    assert "Front" in left_behind()
    release.set()
    assert worker.stop(10)
    assert "Front" not in left_behind()
