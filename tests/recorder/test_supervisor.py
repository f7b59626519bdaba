"""What a controller is made of: tasks that fail loudly, repairs until they succeed, blobs that wait for their files."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from msrecd.dom.blob import Blob
from msrecd.media.events import BlobEvent
from msrecd.recorder.pending_blobs import PendingBlobs
from msrecd.recorder.supervisor import Supervisor
from msrecd.tasks import Tasks

log = logging.getLogger("test-supervisor")


def run(main: Any) -> Any:
    async def guarded() -> Any:
        async with asyncio.timeout(20):
            return await main

    return asyncio.run(guarded())


class Work:
    """Succeeds at a given try."""

    def __init__(self, *, tries: int = 1, raises: bool = False) -> None:
        self.left = tries
        self.tried = 0
        self.done = asyncio.Event()
        self.at_try = asyncio.Event()
        self._raises = raises

    async def __call__(self) -> bool:
        self.tried += 1
        self.left -= 1
        self.at_try.set()
        if self.left <= 0:
            self.done.set()
        elif self._raises:
            raise ValueError("not foreseen")
        return self.left <= 0


def supervisor() -> Supervisor:
    return Supervisor("cam0", Tasks(log), log)


def at_once() -> float:
    return 0.001


@pytest.mark.parametrize("raises", [False, True])
def test_it_tries_until_it_is_over_and_only_once_at_a_time(raises: bool) -> None:
    async def main() -> None:
        work, made = Work(tries=3, raises=raises), supervisor()
        made.keep_trying("begin", work, limit_s=at_once, first_s=0.0)
        made.keep_trying("begin", work, limit_s=at_once, first_s=0.0)
        await work.done.wait()
        await asyncio.sleep(0.05)
        assert work.tried == 3

    run(main())


def test_a_device_that_comes_ends_the_waiting() -> None:
    async def main() -> None:
        work, made = Work(), supervisor()
        made.keep_trying("begin", work, limit_s=lambda: 60.0, first_s=60.0)
        await asyncio.sleep(0)  # it waits
        made.hurry()
        await work.done.wait()

    run(main())


def test_cancelled_it_tries_no_more() -> None:
    async def main() -> None:
        work, made = Work(tries=10**6), supervisor()
        made.keep_trying("begin", work, limit_s=at_once, first_s=0.0)
        await work.at_try.wait()
        made.cancel()
        before = work.tried
        await asyncio.sleep(0.05)
        assert work.tried <= before + 1

    run(main())


def test_tries_of_different_kinds_do_not_wait_for_each_other() -> None:
    async def main() -> None:
        slow, quick, made = Work(), Work(), supervisor()
        made.keep_trying("begin", slow, limit_s=lambda: 60.0, first_s=60.0)
        made.keep_trying("write", quick, limit_s=at_once, first_s=0.0)
        await quick.done.wait()
        assert slow.tried == 0

    run(main())


def test_a_task_that_fails_is_logged_under_its_name(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async def broken() -> None:
            raise ValueError("no such thing")

        task = Tasks(log).spawn(broken(), "cam0-begin")
        with pytest.raises(ValueError, match="no such thing"):
            await task

    with caplog.at_level(logging.ERROR):
        run(main())
    assert "cam0-begin failed: no such thing" in caplog.text


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


def test_pending_blobs_count_as_in_use_until_they_are_written() -> None:
    async def main() -> None:
        kept, written = PendingBlobs(), []
        events = [BlobEvent("dataavailable", data=Blob([bytes([i])])) for i in range(3)]
        waiting = [kept.keep(1, event, False) for event in events]
        pending: list[asyncio.Future[None]] = []

        def write(attempt: int, event: BlobEvent, may_be_last: bool) -> asyncio.Future[None]:
            assert (attempt, may_be_last) == (1, False)
            written.append(event)
            pending.append(asyncio.get_running_loop().create_future())
            return pending[-1]

        kept.pass_on(write)
        await asyncio.sleep(0)
        assert written == events
        assert not any(future.done() for future in waiting)
        for future in pending:
            future.set_result(None)
        await asyncio.gather(*waiting)
        kept.pass_on(write)
        assert len(written) == 3, "each is passed on once"

    run(main())


def test_pending_blobs_that_are_dropped_hold_nothing_back() -> None:
    async def main() -> None:
        kept = PendingBlobs()
        waiting = kept.keep(1, BlobEvent("dataavailable", data=Blob([b"x"])), False)
        kept.drop()
        await waiting
        assert len(kept) == 0

    run(main())
