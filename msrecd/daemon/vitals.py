"""Vitals: state/health, measured once a minute, on request, and when a recorder's state or the clock's has changed.

A person far away needs this message most when a disk hangs or has vanished: after a few seconds without an answer the
disk is published as unknown (null), with everything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msrecd.control import payloads
from msrecd.control.bus import Adapter
from msrecd.daemon import health
from msrecd.daemon.heap import Heap
from msrecd.errors import StorageError
from msrecd.recorder.controller import RecorderController
from msrecd.storage.store import Usage

log = logging.getLogger(__name__)

INTERVAL_S = 60.0
LEAST_S = 3.0  # between two that were not asked for
DISK_DEADLINE_S = 5.0


class Vitals:
    """Lives on the loop; what may block is read in worker threads, the disk by one at a time."""

    def __init__(
        self,
        *,
        units: Callable[[], Mapping[str, RecorderController]],
        usage: Callable[[], Usage],
        adapters: Sequence[Adapter],
        clock: Callable[[], str],
        stamp: Callable[[], str],
        publish: Callable[[Mapping[str, Any]], None],
        snapshots: Callable[[str], Mapping[str, int] | None] = lambda _: None,
        offload: Callable[[], Mapping[str, Any] | None] = lambda: None,
        disk_deadline_s: float = DISK_DEADLINE_S,
    ) -> None:
        """
        Args:
            units: the recorders by name.
            usage: of the storage; blocking; raises StorageError.
            adapters: each adds what it says of itself under its name; `mqtt` is null without a broker.
            clock: synchronized or unsynchronized.
            stamp: the time now, as it is published.
            publish: is given the payload.
            offload: what is sent to a store; None without one.
            snapshots: the counts of a recorder's snapshots, None where it takes none.
        """
        self._units = units
        self._usage = usage
        self._adapters = adapters
        self._clock = clock
        self._stamp = stamp
        self._publish = publish
        self._snapshots = snapshots
        self._offload = offload
        self._disk_deadline_s = disk_deadline_s
        self._disk_look: asyncio.Future[Usage] | None = None
        self._disk_answers = True
        self._heap = Heap()
        self._published: tuple[object, ...] = ()
        self._has_news = asyncio.Event()

    async def rounds(self) -> None:
        """Publish every minute, and soon after what `look` has seen; for ever."""
        while True:
            await self.measure()
            await asyncio.to_thread(self._heap.look)
            await asyncio.sleep(min(LEAST_S, INTERVAL_S))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_S - LEAST_S):
                    await self._has_news.wait()

    def look(self) -> None:
        """A state was published: what it says and the last state/health are not to differ for a minute."""
        if self._present() != self._published:
            self._has_news.set()

    def _present(self) -> tuple[object, ...]:
        return self._clock(), *((name, unit.status.state) for name, unit in self._units().items())

    async def measure(self) -> dict[str, Any]:
        """Measure and publish; returns the payload."""
        machine = await asyncio.to_thread(_machine)
        disk = await self._disk()
        self._published = self._present()
        self._has_news.clear()
        facts = {
            "ts": self._stamp(),
            **machine,
            "disk": disk,
            "clock": self._clock(),
            "mqtt": None,
            **{adapter.name: said for adapter in self._adapters if (said := adapter.health()) is not None},
            "recorders": {name: self._rates(name, unit) for name, unit in self._units().items()},
        }
        if (offload := self._offload()) is not None:
            facts["offload"] = dict(offload)
        self._publish(facts)
        return facts

    def _rates(self, name: str, unit: RecorderController) -> dict[str, Any]:
        counts = self._snapshots(name)
        return payloads.rates(unit) | ({} if counts is None else {"snapshots": dict(counts)})

    async def _disk(self) -> dict[str, Any] | None:
        """None: it does not answer, or cannot be read."""
        if self._disk_look is None:  # else the last one still waits for the disk: one thread is enough for that
            self._disk_look = asyncio.ensure_future(asyncio.to_thread(self._usage))
            self._disk_look.add_done_callback(_seen)
        await asyncio.wait({self._disk_look}, timeout=self._disk_deadline_s)
        if not self._disk_look.done():
            self._report_disk(f"the disk has not answered for {self._disk_deadline_s:g} s")
            return None
        look, self._disk_look = self._disk_look, None
        try:
            usage = look.result()
        except (StorageError, OSError) as exc:
            self._report_disk(f"the disk cannot be measured: {exc}")
            return None
        self._disk_answers = True
        return {
            "free_bytes": usage.free_bytes,
            "free_inodes": usage.free_inodes,
            "total_bytes": usage.capacity_bytes,
            "recordings_bytes": usage.total_bytes,
            "protected_bytes": usage.protected_bytes,
            "seconds_left_estimate": usage.seconds_left if self._is_written() else None,
            "written_bytes": usage.written_bytes,
            "sync_s_max": round(usage.sync_s_max, 3),
        }

    def _is_written(self) -> bool:
        """Whether all that records reaches the disk: else the free space says nothing about the time that is left."""
        units = self._units().values()
        blocked = any(unit.status.storage_problem is not None for unit in units)
        return not blocked and any(unit.is_recording for unit in units)

    def _report_disk(self, message: str) -> None:
        """Log it once, until the disk answers again."""
        if self._disk_answers:
            log.warning("%s", message)
        self._disk_answers = False


def _machine() -> dict[str, Any]:
    return {
        "uptime_s": health.uptime_s(),
        "cpu_temp_c": health.cpu_temperature_c(),
        "throttled": health.throttled(),
        "load1": health.load1(),
        **health.memory(),
    }


def _seen(look: asyncio.Future[Usage]) -> None:
    """Mark its error as seen: the next look reports it, or there is none."""
    if not look.cancelled():
        look.exception()
