"""Supervisor: tries again, with a back-off, until it has succeeded or is not wanted any more.

What a recorder may have to try: begin a new attempt (nothing is recorded), open all devices (one of several is away),
write again (the storage refuses), hold the inputs open (pre-roll). What one try does, the controller knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.recorder.problems import Problem
from msrecd.tasks import Tasks
from msrecd.vocabulary.backoff import BackOff

_RETRY_LIMIT_S = 60.0
_DEVICE_RETRY_LIMIT_S = 3.0  # where hot-plug does not say that a device is back, recording resumes within 5 s too
_INPUT_RETRY_S = 1.0  # an input that answers again is recorded within 2 s …
_INPUT_QUICKLY_NS = 120 * NS  # … unless it has been away for so long
_INPUT_RETRY_LIMIT_S = 10.0

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


class Supervisor:
    """Lives on the loop. One task for each kind of try, however often it is asked for."""

    def __init__(self, name: str, tasks: Tasks, log: Log) -> None:
        self._name = name
        self._tasks = tasks
        self._log = log
        self._under_way: dict[str, asyncio.Task[Any]] = {}
        self._hurries: dict[str, asyncio.Event] = {}

    def keep_trying(
        self,
        kind: str,
        try_once: Callable[[], Awaitable[bool]],
        *,
        limit_s: Callable[[], float],
        first_s: float = 1.0,
        back_off: BackOff | None = None,
    ) -> None:
        """Call `try_once` until it returns True: first after `first_s`, then after at most `limit_s()` each time.

        A try that raises counts as one that has failed; it is logged.

        Args:
            kind, try_once, limit_s, first_s: as above.
            back_off: what goes on growing where a try that returned True did not last; `first_s` does not count then.
        """
        if back_off is not None:
            back_off.limit_s = limit_s()
            first_s = back_off.next_s()
        task = self._under_way.get(kind)
        if task is None or task.done() or task is asyncio.current_task():
            self._hurries[kind] = asyncio.Event()
            work = self._repeat(kind, try_once, limit_s, first_s, back_off or BackOff(1.0, limit_s()))
            self._under_way[kind] = self._tasks.spawn(work, f"{self._name}-{kind}")

    def hurry(self) -> None:
        """A device was plugged in or out: whatever waits tries again at once."""
        for hurry in self._hurries.values():
            hurry.set()

    def cancel(self) -> None:
        """End all tries."""
        for task in self._under_way.values():
            if task is not asyncio.current_task():
                task.cancel()
        self._under_way.clear()
        self._hurries.clear()

    async def _repeat(
        self,
        kind: str,
        try_once: Callable[[], Awaitable[bool]],
        limit_s: Callable[[], float],
        first_s: float,
        back_off: BackOff,
    ) -> None:
        hurry = self._hurries[kind]
        wait_s = first_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await hurry.wait()
                    back_off.reset()  # what has just come may need a moment until it works
            hurry.clear()  # before the try: what comes during it counts for the next one
            try:
                if await try_once():
                    return
            except Exception:
                self._log.exception("%s failed; trying again", kind)
            back_off.limit_s = limit_s()
            wait_s = back_off.next_s()


def retry_limit_s(problem: Problem | None, *, is_network: bool, gave_nothing: bool) -> float:
    """At most so long to the next try to record.

    Args:
        problem: why nothing is recorded, or not all of it.
        is_network: a file or network stream is recorded, no device.
        gave_nothing: the last attempt began, and ended without any media.
    """
    if is_network and gave_nothing:
        return _INPUT_RETRY_LIMIT_S
    if is_network:
        since_ns = None if problem is None else problem.since_ns
        away_ns = 0 if since_ns is None else SYSTEM_CLOCK.monotonic_ns() - since_ns
        return _INPUT_RETRY_S if away_ns < _INPUT_QUICKLY_NS else _INPUT_RETRY_LIMIT_S
    # A missing device may be plugged in at any moment; one that is there and refuses will hardly change soon.
    return _DEVICE_RETRY_LIMIT_S if problem is None or problem.code == "device_missing" else _RETRY_LIMIT_S
