"""Whom the wall clock's trust comes from, and moments as people type them."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from msrecd.clock import NS
from msrecd.clock import synchronization as clocksync
from msrecd.clock.wall import ReadOnlyWallTime, WallTime, parse_moment
from msrecd.vocabulary.times import parse_utc

NOW_NS = parse_utc("2026-05-02T12:00:00Z")


@pytest.mark.parametrize(
    ("state", "status", "max_error_us", "expected"),
    [
        pytest.param(5, 0x40, 16_000_000, False, id="a-virtual-machine-whose-host-sets-the-clock"),
        pytest.param(0, 0x2001, 250_000, True, id="chrony"),
        pytest.param(0, 0x0001, 500_000, True, id="ntpd"),
        pytest.param(1, 0x0011, 500_000, True, id="a-leap-second-is-announced"),
        pytest.param(5, 0x0001, 250_000, False, id="the-kernel-sees-an-error"),
        pytest.param(0, 0x40, 250_000, False, id="set-by-hand"),
        pytest.param(0, 0x0001, 16_000_000, False, id="the-servers-went-away-long-ago"),
        pytest.param(-1, 0, 0, False, id="no-answer"),
    ],
)
@pytest.mark.promise("trusted-clock")
def test_what_the_kernel_says(state: int, status: int, max_error_us: int, expected: bool) -> None:
    assert clocksync.judge(state, status, max_error_us) is expected


def test_a_kernel_that_may_not_be_asked_is_asked_once_and_timedated_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [False, True]
    clock = clocksync.KernelClock(lambda: answers.pop(0))  # type: ignore[arg-type]
    asked = []

    def refuse(_: object) -> int:
        asked.append(True)
        ctypes.set_errno(errno.EPERM)
        return -1

    monkeypatch.setattr(clock, "_adjtimex", refuse)
    assert [clock(), clock()] == [False, True]
    assert asked == [True]


def test_the_kernels_answer_has_the_shape_of_this_machines_libc() -> None:
    clock = clocksync.KernelClock()
    assert clock() in (True, False)
    answer = clocksync._Timex()
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(answer))
    assert state == -1 or 0 <= state <= 5
    if state >= 0:
        assert 0 <= answer.maxerror <= 10**9
        assert bool(answer.status & 0x40) == (state == 5)


class Machine:
    """A clock, its kernel and timesyncd's marker, as a test wants them."""

    def __init__(self, folder: Path) -> None:
        self.now_ns, self.offset_ns, self.synchronized = 100 * NS, NOW_NS, True
        self.marker = folder / "marker"
        self.walltime = self.start(folder)

    def start(self, folder: Path) -> WallTime:
        return WallTime(folder / "state", clock=self, marker=self.marker, kernel=lambda: self.synchronized)

    def monotonic_ns(self) -> int:
        return self.now_ns

    def realtime_ns(self) -> int:
        return self.now_ns + self.offset_ns

    def wait_until(self, deadline_ns: int, stop: object) -> bool:
        raise NotImplementedError


@pytest.mark.promise("clock-set-by-hand")
def test_a_clock_set_by_hand_is_not_trusted_until_somebody_vouches_for_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert machine.walltime.trusted
    machine.offset_ns += 3600 * NS
    machine.synchronized = False  # as the kernel does when the clock is set
    assert not machine.walltime.trusted
    assert machine.walltime.age_now_ns() is None
    # What was recorded since then is known all the same: from the time before.
    corrected = machine.walltime.corrections.correct(machine.walltime.boot_id, machine.realtime_ns())
    assert corrected == machine.now_ns + NOW_NS
    assert not machine.start(tmp_path).trusted  # a restart of the program changes nothing
    machine.marker.touch()
    assert machine.walltime.trusted


@pytest.mark.promise("clock-marker")
def test_an_old_marker_does_not_vouch_for_a_step_and_a_new_one_does(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.synchronized = False
    machine.marker.touch()
    machine.walltime = machine.start(tmp_path)
    assert machine.walltime.trusted
    machine.offset_ns -= 100 * NS
    assert not machine.walltime.trusted
    os.utime(machine.marker, ns=(1, 1))
    assert machine.walltime.trusted


@pytest.mark.promise("no-step-makes-old")
def test_no_step_that_is_vouched_for_makes_anything_old(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    for step_s in (400 * 86_400, -800 * 86_400, 10, 400 * 86_400):
        machine.offset_ns += step_s * NS
        machine.now_ns += NS
        assert machine.walltime.trusted
        age_now_ns = machine.walltime.age_now_ns()
        assert age_now_ns is not None
        assert age_now_ns <= min(machine.realtime_ns(), machine.now_ns + NOW_NS)


def test_what_was_recorded_by_a_wrong_clock_is_corrected_by_the_time_that_came_next(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    truth = machine.offset_ns
    machine.offset_ns, machine.synchronized = truth - 7200 * NS, False
    assert not machine.walltime.trusted
    recorded = machine.realtime_ns()
    machine.now_ns += 60 * NS
    machine.offset_ns, machine.synchronized = truth + 5 * NS, True  # right, and a little off what was believed first
    assert machine.walltime.trusted
    assert machine.walltime.corrections.correct(machine.walltime.boot_id, recorded) == recorded + 7205 * NS


@pytest.mark.promise("trusted-clock", "trust-lasts")
def test_trust_comes_from_the_kernel_and_stays_for_this_boot(tmp_path: Path) -> None:
    answers = [False, False, True]
    walltime = WallTime(
        tmp_path, marker=tmp_path / "none", kernel=lambda: answers.pop(0) if answers else pytest.fail("asked again")
    )
    assert not walltime.trusted
    assert walltime.poll() is not None
    assert walltime.trusted
    again = WallTime(tmp_path, marker=tmp_path / "none", kernel=lambda: False)
    assert again.trusted
    assert again.boot == walltime.boot
    assert ReadOnlyWallTime(tmp_path, marker=tmp_path / "none").corrections.offset_of(walltime.boot_id) is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-05-01T06:30:00Z", parse_utc("2026-05-01T06:30:00Z")),
        ("2026-05-01T06:30:00+02:00", parse_utc("2026-05-01T04:30:00Z")),
        ("2026-05-01T06:30:00", parse_utc("2026-05-01T06:30:00Z")),
        ("2026-05-01", parse_utc("2026-05-01T00:00:00Z")),
        ("2h", NOW_NS - 7200 * NS),
        ("7d ago", NOW_NS - 7 * 86400 * NS),
        ("1.5s", NOW_NS - 1_500_000_000),
        ("250ms", NOW_NS - 250_000_000),
        ("0m", NOW_NS),
        ("now", NOW_NS),
    ],
)
def test_moments(text: str, expected: int) -> None:
    assert parse_moment(text, NOW_NS) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2h30m", "-2h", "2026-13-01", "h", "12"])
def test_what_is_no_moment_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is no time; write") as caught:
        parse_moment(text, NOW_NS)
    assert repr(text) in str(caught.value)
