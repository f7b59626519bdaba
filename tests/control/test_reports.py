"""event/error: the first of a kind at once, repetitions counted, whatever comes bounded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from msrecd.clock import NS
from msrecd.control.reports import KINDS_LIMIT, MESSAGES_LIMIT, Coalescer, ErrorReports, Report


class Feeder:
    """Errors at given seconds, and what is published then."""

    def __init__(self) -> None:
        self.coalescer = Coalescer()
        self.published: list[tuple[float, Report]] = []
        self.now_s = 0.0

    def until(self, second: float) -> None:
        """Let time pass, looking whenever the coalescer wants."""
        while (next_ns := self.coalescer.next_ns()) is not None and next_ns <= second * NS:
            self.now_s = next_ns / NS
            self.published += [(self.now_s, report) for report in self.coalescer.due(next_ns)]
        self.now_s = second

    def error(self, second: float, message: str = "it burns", code: str = "internal") -> None:
        self.until(second)
        report = self.coalescer.add(code, None, message, ts=f"t{second:g}", now_ns=round(second * NS))
        if report is not None:
            self.published.append((second, report))

    @property
    def counts(self) -> list[tuple[float, int, str, str]]:
        return [(second, report.count, report.first, report.ts) for second, report in self.published]


def test_the_first_is_told_at_once_and_its_like_together_later() -> None:
    feeder = Feeder()
    for second in (0, 1, 2, 9):
        feeder.error(second)
    assert feeder.counts == [(0, 1, "t0", "t0")]
    feeder.until(100)
    assert feeder.counts == [(0, 1, "t0", "t0"), (10, 3, "t1", "t9")]
    assert feeder.coalescer.next_ns() is None
    feeder.error(100)
    assert feeder.counts[-1] == (100, 1, "t100", "t100")


def test_what_goes_on_is_told_ever_more_rarely_and_nothing_is_lost() -> None:
    feeder = Feeder()
    for second in range(7200):
        feeder.error(second)
    feeder.until(10_000)
    assert sum(count for _, count, _, _ in feeder.counts) == 7200
    assert [round(second) for second, *_ in feeder.counts[:5]] == [0, 10, 30, 70, 150]
    assert len(feeder.counts) < 25


def test_different_errors_do_not_hide_one_another() -> None:
    feeder = Feeder()
    feeder.error(0, "one")
    feeder.error(0, "two")
    feeder.error(0, "one", code="no_space")
    assert [(report.code, report.message) for _, report in feeder.published] == [
        ("internal", "one"), ("internal", "two"), ("no_space", "one"),
    ]  # fmt: skip


@pytest.mark.promise("equal-errors-are-counted")
def test_figures_and_ids_make_no_other_error() -> None:
    feeder = Feeder()
    for number in range(9):
        feeder.error(
            number,
            f"what 20261201T00300{number}Z-cam0-a{number}f3 brings is not protected: {1000 + number / 10:.1f}KiB are,"
            f" {number} KiB more, {80 + number}%",
        )
    assert len(feeder.published) == 1
    for device in ("/dev/video0", "/dev/video2", "cam1 and cam2", "cam1 and cam3"):
        feeder.error(9, f"{device} hangs for {number} s")
    assert len(feeder.published) == 5
    feeder.until(10)
    assert (feeder.published[-1][1].count, feeder.published[-1][1].message.endswith(" 8 KiB more, 88%")) == (8, True)


def test_messages_that_are_never_the_same_are_bounded() -> None:
    feeder = Feeder()
    for number in range(1000):
        feeder.error(number / 1000, f"x{number} burns")
    assert len(feeder.published) == MESSAGES_LIMIT + 1
    feeder.until(11)
    (_, last) = feeder.published[-1]
    assert (last.count, last.message) == (1000 - MESSAGES_LIMIT - 1, "x999 burns")


def test_kinds_are_bounded() -> None:
    feeder = Feeder()
    for number in range(5 * KINDS_LIMIT):
        feeder.error(0, "x", code=f"code{number}")
    assert len(feeder.published) == KINDS_LIMIT + 1
    feeder.until(11)
    assert sum(count for _, count, _, _ in feeder.counts) == 5 * KINDS_LIMIT


def test_the_timer_publishes_and_the_end_leaves_nothing_behind() -> None:
    published: list[dict[str, Any]] = []
    came = asyncio.Event()

    def publish(event: Any) -> None:
        published.append(dict(event))
        if len(published) == 2:
            came.set()

    async def run() -> None:
        reports = ErrorReports(publish, lambda: "now", window_s=0.05)
        for _ in range(3):
            reports.report("internal", "it burns", "cam0")
        async with asyncio.timeout(20):
            await came.wait()
        reports.report("internal", "it burns", "cam0")
        assert len(published) == 2, "its window is open"
        reports.close()

    asyncio.run(run())
    assert [event["count"] for event in published] == [1, 2, 1]
    assert published[1] == {
        "event_type": "error", "code": "internal", "message": "it burns", "recorder": "cam0", "ts": "now", "count": 2,
        "first": "now",
    }  # fmt: skip


def test_a_new_error_is_not_held_back_by_the_long_window_of_another() -> None:
    """One kind that has come for hours is told every ten minutes; a fresh one is told again after ten seconds."""
    published: list[str] = []
    came = asyncio.Event()

    def publish(event: Any) -> None:
        published.append(event["message"])
        if published.count("fresh") == 2:
            came.set()

    async def run() -> None:
        reports = ErrorReports(publish, lambda: "now", window_s=3600.0)
        reports.report("internal", "old")  # its window ends in an hour
        reports._coalescer._window_ns = 50_000_000
        reports.report("internal", "fresh")
        reports.report("internal", "fresh")
        async with asyncio.timeout(20):
            await came.wait()
        reports.close()

    asyncio.run(run())
    assert published == ["old", "fresh", "fresh"]


def test_the_log_has_the_first_and_then_how_many_more(caplog: pytest.LogCaptureFixture) -> None:
    """An error that comes each second for an hour is no hour of the log; one that its reporter has logged is none."""

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name.startswith("msrecd")]  # not asyncio

    async def run() -> None:
        reports = ErrorReports(lambda event: None, lambda: "10:00", window_s=3600.0)
        for number in range(1000):
            reports.report("no_space", f"{number} bytes are free")
            reports.report("internal", "it burns", logged=True)
        assert told() == ["0 bytes are free"]
        reports.close()

    asyncio.run(run())
    assert told() == [
        "0 bytes are free",
        "999 bytes are free (999 more since 10:00)",
    ]
