"""Rounds: what the daemon looks at every few seconds: the watchdog, drivers that hang, data that is not on the disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.clock.wall import WallTime
from msrecd.control.bus import Adapter
from msrecd.control.publisher import Publisher
from msrecd.control.recorders import Recorders
from msrecd.daemon import health, systemd
from msrecd.daemon.driver_restart import DriverRestart
from msrecd.devices.deadline import left_behind
from msrecd.tasks import Tasks

log = logging.getLogger(__name__)

_BEGIN_AGAIN = ("schedule", "autostart")  # causes of recordings that a start begins by itself


class Rounds:
    """Lives on the loop."""

    def __init__(
        self,
        recorders: Recorders,
        publisher: Publisher,
        walltime: WallTime,
        adapters: Sequence[Adapter],
        tasks: Tasks,
        *,
        state_path: Path,
        end: Callable[[], None],
    ) -> None:
        """
        Args:
            adapters: each says in the status line how it is.
            end: end the daemon, so that the service manager starts it again.
        """
        self._recorders = recorders
        self._publisher = publisher
        self._walltime = walltime
        self._adapters = adapters
        self._tasks = tasks
        self._driver_restart = DriverRestart(state_path)
        self._end = end
        self._stuck = ""  # the recorder for which the watchdog is not fed

    async def watchdog(self) -> None:
        """WATCHDOG=1 only while recordings really advance; see `is_healthy`."""
        interval = systemd.watchdog_interval_s() or 5.0
        while True:
            self._walltime.poll()
            if self.is_healthy():
                systemd.notify("WATCHDOG=1")
                self.notify_status()
            self._look_for_stuck_devices()
            await asyncio.sleep(min(interval, 5.0))

    async def sync(self) -> None:
        """Written data is synced as more is written; this sees to what nothing follows (a pause, a stalled device),
        and to everything at once when the supply voltage falls: the next thing may be a power cut."""
        was_low = False
        while True:
            interval = self._recorders.config.storage.sync_interval_s
            await asyncio.sleep(interval)
            is_low = await asyncio.to_thread(health.under_voltage)
            if is_low and not was_low:
                self._publisher.report_error(
                    "internal", "under-voltage: the power supply is too weak; open chunks are synced now"
                )
            now = SYSTEM_CLOCK.monotonic_ns()
            for unit in list(self._recorders.units.values()):
                if (is_low and not was_low) or now - unit.files.last_data_ns > interval * NS:
                    self._tasks.spawn(unit.sync(), f"{unit.name}-sync")  # a disk that hangs holds up no other
            was_low = is_low

    def is_healthy(self) -> bool:
        """Whether every recorder that says it records got data lately."""
        now_ns = SYSTEM_CLOCK.monotonic_ns()
        for unit in self._recorders.units.values():
            if not unit.is_advancing(now_ns):
                if unit.name != self._stuck:  # once
                    silent_s = (now_ns - unit.files.last_data_ns) // NS
                    log.critical(
                        "%s: no data has reached the disk for %d s; the watchdog is not fed", unit.name, silent_s
                    )
                self._stuck = unit.name
                return False
        self._stuck = ""
        return True

    def _look_for_stuck_devices(self) -> None:
        """See driver_restart.py; only where a service manager starts the process again."""
        wanted = [unit for unit in self._recorders.units.values() if unit.is_wanted]
        stuck = left_behind()
        if systemd.is_managed() and self._driver_restart.look(
            stuck,
            is_waited_for=any(unit.lacks_device for unit in wanted),
            begins_again=all(unit.status.cause in _BEGIN_AGAIN for unit in wanted),
        ):
            message = f"the driver of {', '.join(stuck)} hangs; restarting the service to free the device"
            self._publisher.report_error("internal", message)
            self._end()

    def notify_status(self) -> None:
        """For `systemctl status`."""
        systemd.notify_status(self._status())

    def _status(self) -> str:
        recording = sum(1 for unit in self._recorders.units.values() if unit.is_recording)
        adapters = [summary for adapter in self._adapters if (summary := adapter.summary())]
        return ", ".join([f"recording {recording}/{len(self._recorders.units)}", *adapters])
