"""What never ends by itself is restarted when it fails: a daemon without its schedules is worse than a dead one."""

from __future__ import annotations

import asyncio
import logging

import pytest

from msrecd import tasks
from msrecd.tasks import Tasks

log = logging.getLogger("test")


def test_a_round_that_fails_is_told_and_begins_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tasks, "AGAIN_S", 0.01)
    told: list[str] = []
    begun = 0

    async def main() -> None:
        well = asyncio.Event()

        async def rounds() -> None:
            nonlocal begun
            begun += 1
            if begun == 1:
                raise ValueError("a surprise\nin two lines")
            if begun == 2:
                async with asyncio.TaskGroup() as group:
                    group.create_task(asyncio.sleep(30))
                    raise KeyError("within a group")
            well.set()
            await asyncio.sleep(30)

        kept = Tasks(log)
        kept.keep(rounds, "rotation", told.append)
        async with asyncio.timeout(20):
            await well.wait()
        kept.cancel()

    asyncio.run(main())
    assert told == [
        "rotation failed and is restarted: ValueError: a surprise",
        "rotation failed and is restarted: KeyError: 'within a group'",
    ]
    assert sum(record.exc_info is not None for record in caplog.records) == 2


def test_one_that_is_cancelled_stays_so() -> None:
    told: list[str] = []

    async def main() -> None:
        begun = asyncio.Event()

        async def rounds() -> None:
            begun.set()
            await asyncio.sleep(30)

        kept = Tasks(log)
        task = kept.keep(rounds, "schedule", told.append)
        await begun.wait()
        kept.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert told == []
