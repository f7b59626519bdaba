"""state/health goes on whatever the disk does: it is waited for a moment and told as unknown."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from msrecd.daemon import vitals as module
from msrecd.daemon.vitals import Vitals
from msrecd.errors import StorageError
from msrecd.storage.store import Usage

WELL = Usage(
    total_bytes=5,
    open_bytes=1,
    chunks=2,
    free_bytes=10,
    capacity_bytes=20,
    seconds_left=3.0,
    unsynced_s=0.0,
    written_bytes=7,
    sync_s_max=0.12345,
    protected_bytes=2,
    free_inodes=4,
)


class Disk:
    """Answers, refuses, or hangs until it is let go."""

    def __init__(self) -> None:
        self.error: StorageError | None = None
        self.answers = threading.Event()
        self.answers.set()
        self.asked = 0

    def usage(self) -> Usage:
        self.asked += 1
        assert self.answers.wait(30)
        if self.error is not None:
            raise self.error
        return WELL


def vitals(disk: Disk, told: list[Mapping[str, Any]]) -> Vitals:
    return Vitals(
        units=dict,
        usage=disk.usage,
        adapters=[],
        clock=lambda: "synchronized",
        stamp=lambda: "2026-01-01T00:00:00Z",
        publish=told.append,
        disk_deadline_s=0.1,
    )


@pytest.mark.effect("state-health: sync_s_max")
def test_a_disk_that_is_well() -> None:
    told: list[Mapping[str, Any]] = []
    facts = asyncio.run(vitals(Disk(), told).measure())
    assert told == [facts]
    assert facts["disk"] == {
        "free_bytes": 10,
        "free_inodes": 4,
        "total_bytes": 20,
        "recordings_bytes": 5,
        "protected_bytes": 2,
        "seconds_left_estimate": None,  # nothing is recorded
        "written_bytes": 7,
        "sync_s_max": 0.123,
    }


def recorder(*, is_recording: bool, storage_problem: object = None) -> Any:
    """What state/health reads of a recorder."""
    files = SimpleNamespace(last_chunk=None, chunks=0, queue_s=0.0, discarded_bytes=0)
    status = SimpleNamespace(state="recording", storage_problem=storage_problem)
    return SimpleNamespace(is_recording=is_recording, status=status, files=files, pre_roll_bytes=0, triggers=[])


@pytest.mark.parametrize(
    ("recorders", "expected"),
    [
        ([recorder(is_recording=True)], 3.0),
        ([recorder(is_recording=True), recorder(is_recording=False)], 3.0),
        ([recorder(is_recording=False)], None),
        ([recorder(is_recording=True), recorder(is_recording=False, storage_problem="full")], None),
    ],
)
def test_the_time_that_is_left_is_said_only_while_all_is_written(recorders: list[Any], expected: float | None) -> None:
    told: list[Mapping[str, Any]] = []
    health = vitals(Disk(), told)
    health._units = lambda: {str(number): recorder for number, recorder in enumerate(recorders)}
    facts = asyncio.run(health.measure())
    assert facts["disk"]["seconds_left_estimate"] == expected


def test_a_disk_that_hangs_costs_one_thread_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Mapping[str, Any]] = []
    disk = Disk()
    disk.answers.clear()

    async def run() -> None:
        reports = vitals(disk, told)
        for _ in range(5):
            await reports.measure()
        assert [facts["disk"] for facts in told] == [None] * 5
        assert all(facts["rss_bytes"] for facts in told)
        assert disk.asked == 1
        disk.answers.set()
        async with asyncio.timeout(20):
            while (await reports.measure())["disk"] is None:  # until its thread has come back
                pass

    asyncio.run(run())
    assert [record.getMessage() for record in caplog.records] == ["the disk has not answered for 0.1 s"]


def test_a_disk_that_cannot_be_read_is_told_once_and_does_not_end_the_reports(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Mapping[str, Any]] = []
    disk = Disk()

    async def run() -> None:
        reports = vitals(disk, told)
        disk.error = StorageError("nothing is mounted", "missing_mount")
        await reports.measure()
        await reports.measure()
        disk.error = None
        await reports.measure()
        disk.error = StorageError("nothing is mounted again", "missing_mount")
        await reports.measure()

    asyncio.run(run())
    assert [facts["disk"] is None for facts in told] == [True, True, False, True]
    assert [record.getMessage() for record in caplog.records] == [
        "the disk cannot be measured: nothing is mounted",
        "the disk cannot be measured: nothing is mounted again",
    ]


def test_each_round_looks_at_the_memory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 0.01)
    told: list[Mapping[str, Any]] = []
    looks: list[int] = []
    monkeypatch.setattr(module.Heap, "look", lambda _: looks.append(len(told)))

    async def run() -> None:
        rounds = asyncio.create_task(vitals(Disk(), told).rounds())
        async with asyncio.timeout(20):
            while len(looks) < 3:  # noqa: ASYNC110 - a thread looks
                await asyncio.sleep(0.01)
        rounds.cancel()

    asyncio.run(run())
    assert looks[:3] == [1, 2, 3]


@pytest.mark.promise("health-follows-states")
def test_it_follows_what_the_states_say_and_comes_for_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_S", 0.01)
    told: list[Mapping[str, Any]] = []
    unit = recorder(is_recording=True)

    async def until(count: int) -> None:
        async with asyncio.timeout(20):
            while len(told) < count:  # noqa: ASYNC110 - a thread measures
                await asyncio.sleep(0.01)

    async def run() -> None:
        health = vitals(Disk(), told)
        health._units = lambda: {"cam0": unit}
        rounds = asyncio.create_task(health.rounds())
        await until(1)
        health.look()
        await asyncio.sleep(0.2)
        assert len(told) == 1, "no news"
        for state in ("error", "recording"):
            unit.status.state = state
            health.look()
            await until(len(told) + 1)
        health._clock = lambda: "unsynchronized"
        health.look()
        await until(4)
        rounds.cancel()

    asyncio.run(run())
    assert [facts["recorders"]["cam0"]["state"] for facts in told] == ["recording", "error", "recording", "recording"]
    assert [facts["clock"] for facts in told] == ["synchronized"] * 3 + ["unsynchronized"]
