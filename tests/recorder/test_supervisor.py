"""What a unit is made of: tasks that fail loudly, tries until they succeed, blobs that wait for their files."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from msrecd.dom.blob import Blob
from msrecd.media.events import BlobEvent
from msrecd.recorder import supervisor as recovery
from msrecd.recorder.pending_blobs import PendingBlobs
from msrecd.recorder.supervisor import Supervisor
from msrecd.tasks import Tasks

log = logging.getLogger("test-recovery")


def run(main: Any) -> Any:
    async def guarded() -> Any:
        async with asyncio.timeout(20):
            return await main

    return asyncio.run(guarded())


class Patient:
    """Succeeds at a given try."""

    def __init__(self, *, tries: int = 1) -> None:
        self.waits_for_device = True
        self.left = tries
        self.tried: list[str] = []
        self.done = asyncio.Event()
        self.at_try = asyncio.Event()

    async def _try(self, what: str) -> bool:
        self.tried.append(what)
        self.left -= 1
        self.at_try.set()
        if self.left <= 0:
            self.done.set()
        return self.left <= 0

    async def try_run(self) -> bool:
        return await self._try("run")

    async def try_complete(self) -> bool:
        return await self._try("complete")

    async def try_write(self) -> bool:
        return await self._try("write")


def test_it_tries_until_it_is_over_and_only_once_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_DEVICE_RETRY_LIMIT_S", 0.001)

    async def main() -> None:
        patient, tasks = Patient(tries=3), Tasks(log)
        healer = Supervisor("cam0", patient, tasks)
        healer.run_again()
        healer.run_again()
        await patient.done.wait()
        await asyncio.sleep(0.05)
        assert patient.tried == ["run"] * 3

    run(main())


def test_a_device_that_comes_ends_the_waiting() -> None:
    async def main() -> None:
        patient, tasks = Patient(), Tasks(log)
        healer = Supervisor("cam0", patient, tasks)
        healer.complete()
        await asyncio.sleep(0)  # it waits
        begun = asyncio.get_running_loop().time()
        healer.hurry()
        await patient.done.wait()
        assert asyncio.get_running_loop().time() - begun < 0.9, "the first wait of the back-off is a second"

    run(main())


def test_disarmed_it_tries_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_DEVICE_RETRY_LIMIT_S", 0.001)

    async def main() -> None:
        patient, tasks = Patient(tries=10**6), Tasks(log)
        healer = Supervisor("cam0", patient, tasks)
        healer.run_again()
        await patient.at_try.wait()
        healer.disarm()
        before = len(patient.tried)
        await asyncio.sleep(0.05)
        assert len(patient.tried) <= before + 1

    run(main())


def test_room_is_looked_for_at_once() -> None:
    async def main() -> None:
        patient, tasks = Patient(), Tasks(log)
        Supervisor("cam0", patient, tasks).write_again()
        await patient.done.wait()
        assert patient.tried == ["write"]

    run(main())


def test_a_task_that_fails_is_logged_under_its_name(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async def broken() -> None:
            raise ValueError("no such thing")

        task = Tasks(log).spawn(broken(), "cam0-mend")
        with pytest.raises(ValueError, match="no such thing"):
            await task

    with caplog.at_level(logging.ERROR):
        run(main())
    assert "cam0-mend failed: no such thing" in caplog.text


def test_tasks_are_cancelled_together_but_not_by_themselves() -> None:
    async def main() -> None:
        tasks = Tasks(log)
        others = [tasks.spawn(asyncio.Event().wait(), f"wait-{i}") for i in range(3)]
        await asyncio.sleep(0)

        async def end() -> str:
            tasks.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            return "went on"

        assert await tasks.spawn(end(), "end") == "went on"
        assert all(task.cancelled() for task in others)

    run(main())


def test_early_blobs_count_as_under_way_until_they_are_written() -> None:
    async def main() -> None:
        early, written = PendingBlobs(), []
        events = [BlobEvent("dataavailable", data=Blob([bytes([i])])) for i in range(3)]
        waiting = [early.keep(None, event) for event in events]  # type: ignore[arg-type]  # which run: not looked at
        pending: list[asyncio.Future[None]] = []

        def write(_: Any, event: BlobEvent) -> asyncio.Future[None]:
            written.append(event)
            pending.append(asyncio.get_running_loop().create_future())
            return pending[-1]

        early.pass_on(write)
        await asyncio.sleep(0)
        assert written == events
        assert not any(future.done() for future in waiting)
        for future in pending:
            future.set_result(None)
        await asyncio.gather(*waiting)
        early.pass_on(write)
        assert len(written) == 3, "each is passed on once"

    run(main())


def test_early_blobs_that_nobody_wants_hold_nothing_back() -> None:
    async def main() -> None:
        early = PendingBlobs()
        waiting = early.keep(None, BlobEvent("dataavailable", data=Blob([b"x"])))  # type: ignore[arg-type]
        early.drop()
        await waiting

    run(main())
