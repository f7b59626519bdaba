"""Tasks: asyncio tasks of one owner; kept until done, cancelled together, and each failure is logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

AGAIN_S = 5.0


class Tasks:
    """Lives on the loop."""

    def __init__(self, log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        self._log = log
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `work` beside the caller; an exception that ends it is logged under `name`."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def keep(
        self, round_: Callable[[], Coroutine[Any, Any, None]], name: str, failed: Callable[[str], None]
    ) -> asyncio.Task[Any]:
        """Run what never ends by itself; if it fails, that is logged and reported, and it restarts after AGAIN_S.

        A daemon that stays alive without its schedules or its rotation would be worse than one that has died.
        """
        return self.spawn(self._keep(round_, name, failed), name)

    async def _keep(
        self, round_: Callable[[], Coroutine[Any, Any, None]], name: str, failed: Callable[[str], None]
    ) -> None:
        while True:
            try:
                await round_()
                return
            except Exception as exc:
                self._log.exception("%s failed; restarting it in %g s", name, AGAIN_S)
                failed(f"{name} failed and is restarted: {_first_line(exc)}")
            await asyncio.sleep(AGAIN_S)

    def cancel(self) -> None:
        """Cancel all but the calling one."""
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._log.error("%s failed: %s", task.get_name(), exc, exc_info=exc)


def _first_line(exc: BaseException) -> str:
    """Of the exception, or of the first one in a group."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return f"{type(exc).__name__}: {exc}".splitlines()[0]


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
