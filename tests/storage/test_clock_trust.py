"""Whom the wall clock's trust comes from, and moments as people type them."""

from __future__ import annotations

import ctypes
import errno
from pathlib import Path

import pytest

from msrecd import clocksync
from msrecd.clock import NS
from msrecd.walltime import ReadOnlyWallTime, WallTime, parse_moment, parse_utc

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
def test_what_the_kernel_says(state: int, status: int, max_error_us: int, expected: bool) -> None:
    assert clocksync.judge(state, status, max_error_us) is expected


def test_a_kernel_that_may_not_be_asked_is_asked_once_and_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = clocksync.KernelClock()
    asked = []

    def refuse(_: object) -> int:
        asked.append(True)
        ctypes.set_errno(errno.EPERM)
        return -1

    monkeypatch.setattr(clock, "_adjtimex", refuse)
    assert [clock(), clock(), clock()] == [False, False, False]
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
    assert ReadOnlyWallTime(tmp_path, marker=tmp_path / "none").corrections.offset_of(walltime.boot) is not None


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
    ],
)
def test_moments(text: str, expected: int) -> None:
    assert parse_moment(text, NOW_NS) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2h30m", "-2h", "2026-13-01", "h", "12"])
def test_what_is_no_moment_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is no time; write") as caught:
        parse_moment(text, NOW_NS)
    assert repr(text) in str(caught.value)
