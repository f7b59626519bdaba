"""Supervisor: how a recording that is wanted gets there again: tries, with a back-off, until it does or is not wanted.

Three things can be missing, each with a task of its own that runs while it is: the whole run (nothing is recorded), one
of several devices (the others are), and room on the disk. What a try is, the recorder's unit knows.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Protocol

from msrecd.tasks import Tasks
from msrecd.vocabulary.backoff import BackOff

_STORAGE_RETRY_S = 5.0
_RETRY_LIMIT_S = 60.0
_DEVICE_RETRY_LIMIT_S = 3.0  # where hot-plug does not tell that a device is back, a recording goes on within 5 s too


class Patient(Protocol):
    """What is to be brought back. Each try tells whether it is over: done, or not wanted any more."""

    @property
    def waits_for_device(self) -> bool:
        """Whether a device is missing, which may come at any moment; not one that is busy, and nothing of our own."""

    async def try_run(self) -> bool:
        """Record again, in a new chunk of the same recording."""

    async def try_complete(self) -> bool:
        """Record again with all devices, if they can be had."""

    async def try_write(self) -> bool:
        """Make room and write again."""


class Supervisor:
    """Lives on the loop. Each of the three is asked for as often as it is noticed; one task at a time does it."""

    def __init__(self, name: str, patient: Patient, tasks: Tasks) -> None:
        self._name = name
        self._patient = patient
        self._tasks = tasks
        self._under_way: dict[str, asyncio.Task[Any]] = {}
        self._hurry = asyncio.Event()
        self._back_off = BackOff()

    def run_again(self) -> None:
        """Nothing is recorded. The back-off goes on where it was, until `well`."""
        self._once("retry", self._run_again)

    def complete(self) -> None:
        """One of several devices is away."""
        self._once("mend", self._complete)

    def write_again(self) -> None:
        """The storage takes nothing."""
        self._once("storage", self._write_again)

    def hurry(self) -> None:
        """Something was plugged in or out: what waits for a device tries again at once."""
        self._hurry.set()

    def well(self) -> None:
        """It records: the next fault is a new one."""
        self._back_off.reset()

    def disarm(self) -> None:
        """Nobody wants it any more."""
        for task in self._under_way.values():
            if task is not asyncio.current_task():
                task.cancel()
        self._under_way.clear()

    def _once(self, purpose: str, work: Any) -> None:
        task = self._under_way.get(purpose)
        if task is None or task.done():
            self._under_way[purpose] = self._tasks.spawn(work(), f"{self._name}-{purpose}")

    async def _run_again(self) -> None:
        self._hurry.clear()
        over = False
        while not over:
            self._back_off.limit_s = _DEVICE_RETRY_LIMIT_S if self._patient.waits_for_device else _RETRY_LIMIT_S
            await self._wait(self._back_off)
            over = await self._patient.try_run()

    async def _complete(self) -> None:
        back_off = BackOff()
        self._hurry.clear()
        over = False
        while not over:
            back_off.limit_s = _DEVICE_RETRY_LIMIT_S if self._patient.waits_for_device else _RETRY_LIMIT_S
            await self._wait(back_off)
            over = await self._patient.try_complete()

    async def _write_again(self) -> None:
        over = await self._patient.try_write()
        while not over:
            await asyncio.sleep(_STORAGE_RETRY_S)
            over = await self._patient.try_write()

    async def _wait(self, back_off: BackOff) -> None:
        """Not longer than until something is plugged in or out; what came during the last try counts, too."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(back_off.next_s()):
                await self._hurry.wait()
                self._hurry.clear()
                back_off.reset()  # what has just come may need a moment until it works
