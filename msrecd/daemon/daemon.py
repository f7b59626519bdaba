"""The daemon: builds everything from the configuration, connects it, and takes it down again.

Start: configuration, storage with recovery, devices, recorders, MQTT, READY=1. Stop: STOPPING=1, recordings finished,
events delivered as far as the broker takes them, `offline`, exit 0. A second signal leaves at once: what is unfinished
then is the recovery's business at the next start.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msrecd
from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.clock.wall import WallTime
from msrecd.config.model import Config, Recorder
from msrecd.control import payloads
from msrecd.control.conductor import Conductor
from msrecd.control.device_list import changes, device_list
from msrecd.control.reports import ErrorReports
from msrecd.daemon import health, systemd
from msrecd.daemon.archive import DaemonArchive, recovered_event
from msrecd.daemon.backends import backends_for
from msrecd.daemon.commands import Commands
from msrecd.daemon.driver_restart import LastResort
from msrecd.daemon.from_config import mqtt_settings, recorder_settings
from msrecd.daemon.reload import Reloader
from msrecd.daemon.storing import open_store
from msrecd.daemon.unpublished import untold_chunks
from msrecd.daemon.vitals import Vitals
from msrecd.devices.deadline import left_behind
from msrecd.errors import StorageError
from msrecd.media.devices import MediaDevices
from msrecd.mqtt.service import MqttService
from msrecd.recorder.controller import RecorderController
from msrecd.storage.store import Usage
from msrecd.tasks import Tasks
from msrecd.vocabulary.times import format_utc

log = logging.getLogger(__name__)

PROGRESS_LIMIT_NS = 30 * NS
STOP_LIMIT_S = 25.0
_ONE_SIGNAL_NS = NS // 5
_GRAVE_FINDINGS = ("fat_limit", "read_only", "writeback")  # the others are advice for the log
_EXTEND_US = 10_000_000
_BEGIN_AGAIN = ("schedule", "autostart")  # causes of recordings that a start begins by itself
_DEVICE_LOOK_S = 0.5  # recorders that start or stop together are one look


class Daemon:
    """One running daemon. Everything on the loop."""

    def __init__(self, config: Config, config_path: Path) -> None:
        self.config = config
        self.units: dict[str, RecorderController] = {}
        self.walltime = WallTime(config.storage.state_path)
        self.devices = MediaDevices(backends=backends_for(config))
        self.conductor = Conductor(self, self.publish_daemon)
        self.mqtt: MqttService | None = None
        self.archive: DaemonArchive | None = None
        self._device_states: list[dict[str, Any]] | None = None
        self._device_look = asyncio.Lock()
        self._device_timer: asyncio.TimerHandle | None = None
        self._at_work: set[str] = set()
        self.errors = ErrorReports(self._publish_error, self.stamp)
        self.vitals = Vitals(
            units=lambda: self.units,
            usage=self._usage,
            mqtt=lambda: None if self.mqtt is None else self.mqtt.status,
            clock=self._clock_state,
            stamp=self.stamp,
            publish=self._publish_health,
        )
        self._stop = asyncio.Event()
        self._exit_code = 0
        self._last_resort = LastResort(config.storage.state_path)
        self._signals = 0
        self._signalled_ns = 0
        self._tasks = Tasks(log)
        self._started_ns = SYSTEM_CLOCK.monotonic_ns()
        self._ticked_ns = SYSTEM_CLOCK.monotonic_ns()
        self.reloader = Reloader(self, config_path)

    # --- life --------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Until a signal; returns the exit code.

        Raises:
            StorageError: the recordings' folder cannot be used at all.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._tasks.spawn(self.reloader.by_signal(), "reload"))
        systemd.notify_status("recovering recordings")
        store, recovered = await asyncio.to_thread(open_store, self.config, self.walltime)
        self.archive = DaemonArchive(store, lambda line: self._told_late(*recovered_event(line)))
        for recorder in self.config.recorders:
            self.units[recorder.name] = self.make_unit(recorder)
        await self._start_mqtt()
        told = {} if self.mqtt is None else await self.mqtt.told()
        for name, facts in await asyncio.to_thread(untold_chunks, store, told, recovered):
            self._told_late(name, facts)
        for finding in store.findings:
            if finding.code in _GRAVE_FINDINGS:
                self.report_error("internal", finding.message, logged=True)
        for lost in store.lost:
            message = f"{lost.file}: nothing of this chunk could be recovered"
            self.report_error("internal", message, recorder=lost.file.partition("/")[0], logged=True)
        self.devices.ondevicechange = lambda _: self._tasks.spawn(self.refresh_devices(), "devices")
        for unit in self.units.values():
            self.state_changed(unit)
        self.publish_daemon()
        self._tasks.spawn(self.refresh_devices(), "devices")
        archive = self.archive
        for name, round_ in (
            ("rotation", lambda: archive.run(self.publish_daemon)),
            ("health", self.vitals.rounds),
            ("watchdog", self._watchdog_rounds),
            ("sync", self._sync_rounds),
            ("schedule", self.conductor.run),
        ):
            self._tasks.keep(round_, name, self._round_failed)
        self.reloader.ready.set()
        systemd.notify("READY=1")
        self.notify_status()
        log.info("msrecd %s is ready; recorders: %s", msrecd.__version__, ", ".join(self.units) or "none")
        await self._stop.wait()
        await self._shut_down()
        return self._exit_code

    def _on_signal(self) -> None:
        now = SYSTEM_CLOCK.monotonic_ns()
        if self._signals and now - self._signalled_ns < _ONE_SIGNAL_NS:
            return  # `timeout` and some process managers signal the process and its group: that is one signal
        self._signals += 1
        self._signalled_ns = now
        if self._signals > 1:
            log.warning("second signal: leaving at once; unfinished chunks are recovered at the next start")
            logging.shutdown()
            os._exit(1)
        log.info("stopping")
        self._stop.set()

    async def _shut_down(self) -> None:
        systemd.notify("STOPPING=1", f"EXTEND_TIMEOUT_USEC={_EXTEND_US}")
        systemd.notify_status("finishing files")
        self._tasks.cancel()
        extend = asyncio.get_running_loop().create_task(self._extend_timeout())
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                await asyncio.gather(*(unit.close() for unit in (*self.units.values(), *self.reloader.leaving)))
                self.errors.close()
                if self.mqtt is not None:
                    await self.mqtt.stop()
        except TimeoutError:
            log.error("stopping took longer than %g s; the rest is recovered at the next start", STOP_LIMIT_S)
        extend.cancel()
        await self._close_devices()
        if self.archive is not None:
            await asyncio.to_thread(self.archive.store.close)
        log.info("stopped")

    async def _close_devices(self) -> None:
        try:
            async with asyncio.timeout(5):
                await self.devices.close()
        except (TimeoutError, OSError) as exc:
            log.warning("a device does not close: %s", exc or "no answer in 5 s")

    async def _extend_timeout(self) -> None:
        while True:
            await asyncio.sleep(5)
            systemd.notify(f"EXTEND_TIMEOUT_USEC={_EXTEND_US}")

    async def _start_mqtt(self) -> None:
        settings = mqtt_settings(self.config)
        if settings is None:
            return
        self.mqtt = MqttService(
            settings,
            Commands(self),
            recorders=lambda: [recorder.name for recorder in self.config.recorders],
            state_path=self.config.storage.state_path,
            boot_counter=self.walltime.boot,
            clock_trusted=lambda: self.walltime.trusted,
            version=msrecd.__version__,
            model=_model(),
        )
        await self.mqtt.start()

    def make_unit(self, recorder: Recorder) -> RecorderController:
        """A unit for one `[[recorder]]`; it does nothing yet."""
        assert self.archive is not None
        settings = recorder_settings(recorder)
        return RecorderController(settings, devices=self.devices, archive=self.archive, listener=self)

    # --- what is told ------------------------------------------------------------------------------------------------

    def stamp(self, monotonic_ns: int | None = None) -> str:
        """RFC 3339 UTC with Z of a moment on CLOCK_MONOTONIC (default: now)."""
        return format_utc(self.walltime.stamp(monotonic_ns).utc_ns)

    def state_changed(self, unit: RecorderController) -> None:
        """A unit's listener: publish its retained state."""
        if self.mqtt is not None:
            self.mqtt.publish_state(f"state/recorder/{unit.name}", self.recorder_state(unit))
        self.notify_status()
        at_work = {name for name, known in self.units.items() if known.status.state in ("recording", "paused")}
        if at_work != self._at_work:
            self._at_work = at_work
            self._look_at_devices_soon()  # some are busy now, or free

    def recorder_state(self, unit: RecorderController) -> dict[str, Any]:
        return payloads.recorder_state(unit, self.stamp)

    def happened(self, unit: RecorderController, event_type: str, facts: Mapping[str, Any]) -> None:
        """A unit's listener: publish an event, write a log line."""
        if event_type in ("started", "stopped", "paused", "resumed"):
            unit.log.info("%s%s", event_type, f" ({unit.files.recording_id})" if unit.files.recording_id else "")
        if event_type == "chunk":
            unit.log.info("chunk %s: %.2f s, %d bytes", facts["file"], facts.get("duration_s") or 0.0, facts["bytes"])
            if self.archive is not None and not self._stop.is_set():
                self._tasks.spawn(self.archive.tidy(), "tidy")
        self._event(unit.name, payloads.recorder_event(unit, event_type, facts, self.stamp()))

    def played_out(self, unit: RecorderController) -> None:
        """A unit's listener: its input came to its end."""
        self.conductor.ended(unit.name)

    def _event(self, recorder: str, event: Mapping[str, Any]) -> None:
        if self.mqtt is not None:
            self.mqtt.publish_event(f"event/recorder/{recorder}", event)

    def _told_late(self, recorder: str, line: Mapping[str, Any]) -> None:
        """The event of a chunk that was recovered, or finished just before a crash."""
        if line["recovered"]:
            log.warning("recovered %s: %.2f s, %.2f s lost", line["file"], line["duration_s"], line["lost_s"])
        else:
            log.info("%s was finished and is told now", line["file"])
        event = {"event_type": "chunk", "ts": self.stamp(), "recorder": recorder} | dict(line)
        for key in ("prev", "line_sha256"):  # they belong to the manifest
            event.pop(key, None)
        event["recording_id"] = Path(str(line["file"])).name.rsplit("-", 1)[0]
        self._event(recorder, event)

    def _round_failed(self, message: str) -> None:
        self.report_error("internal", message, logged=True)

    def report_error(self, code: str, message: str, *, recorder: str | None = None, logged: bool = False) -> None:
        """Tell an error that is not one of a recording: in the log and as event/error; repetitions are counted."""
        if not logged:
            log.error("%s", message)
        self.errors.report(code, message, recorder)

    def _publish_error(self, event: Mapping[str, Any]) -> None:
        if self.mqtt is not None:
            self.mqtt.publish_event("event/error", event)

    def _publish_health(self, facts: Mapping[str, Any]) -> None:
        if self.mqtt is not None:
            self.mqtt.publish_health(facts)

    def _usage(self) -> Usage:
        assert self.archive is not None
        return self.archive.store.usage()

    def _clock_state(self) -> str:
        return "synchronized" if self.walltime.trusted else "unsynchronized"

    def publish_image(self, recorder: str, jpeg: bytes) -> None:
        if self.mqtt is not None:
            self.mqtt.publish_image(recorder, jpeg)

    def daemon_state(self) -> dict[str, Any]:
        """state/daemon."""
        return {
            "version": msrecd.__version__,
            "boot_id": f"{self.walltime.boot:04d}",
            "started": self.stamp(self._started_ns),
            "clock": self._clock_state(),
            "config_hash": self.config.hash,
            "recorders": sorted(self.units),
            "schedule": self.conductor.upcoming(),
        }

    def publish_daemon(self) -> None:
        if self.mqtt is not None:
            self.mqtt.publish_state("state/daemon", self.daemon_state())

    def _look_at_devices_soon(self) -> None:
        def look() -> None:
            self._device_timer = None
            if not self._stop.is_set():
                self._tasks.spawn(self.refresh_devices(), "devices")

        if self._device_timer is None:
            self._device_timer = asyncio.get_running_loop().call_later(_DEVICE_LOOK_S, look)

    async def refresh_devices(self) -> list[dict[str, Any]]:
        """Look at the devices, publish the list and what changed, and let waiting recorders try again."""
        async with self._device_look:  # the answers of two looks at a time could come in the wrong order
            now = await device_list(self.devices)
            before, self._device_states = self._device_states, now
            if self.mqtt is not None:
                self.mqtt.publish_state("state/devices", now)
                for event_type, device in changes(before, now) if before is not None else []:
                    log.info("%s %s %s", device["kind"], device["label"], event_type)
                    self.mqtt.publish_event("event/device", payloads.device_event(event_type, device, self.stamp()))
        for unit in self.units.values():
            unit.devices_changed()
        return now

    # --- rounds ------------------------------------------------------------------------------------------------------

    async def _watchdog_rounds(self) -> None:
        """WATCHDOG=1 only while recordings really advance; see `is_healthy`."""
        interval = systemd.watchdog_interval_s() or 5.0
        while True:
            self._ticked_ns = SYSTEM_CLOCK.monotonic_ns()
            self.walltime.poll()
            if self.is_healthy():
                systemd.notify("WATCHDOG=1")
                self.notify_status()
            self._look_for_stuck_devices()
            await asyncio.sleep(min(interval, 5.0))

    async def _sync_rounds(self) -> None:
        """Written data is synced as more is written; this sees to what nothing follows (a pause, a stalled device),
        and to everything at once when the supply voltage falls: the next thing may be a power cut."""
        interval = self.config.storage.sync_interval_s
        was_low = False
        while True:
            await asyncio.sleep(interval)
            is_low = await asyncio.to_thread(health.under_voltage)
            if is_low and not was_low:
                self.report_error("internal", "under-voltage: the power supply is too weak; open chunks are synced now")
            now = SYSTEM_CLOCK.monotonic_ns()
            for unit in list(self.units.values()):
                if (is_low and not was_low) or now - unit.files.last_data_ns > interval * NS:
                    self._tasks.spawn(unit.sync(), f"{unit.name}-sync")  # a disk that hangs holds up no other
            was_low = is_low

    def is_healthy(self) -> bool:
        """Whether every recorder that says it records got data lately."""
        now = SYSTEM_CLOCK.monotonic_ns()
        for unit in self.units.values():
            limit = max(PROGRESS_LIMIT_NS, int(3 * unit.settings.timeslice_ms * 1_000_000))
            if unit.is_recording and now - unit.files.last_data_ns > limit:
                log.critical("%s has got no data for %d s", unit.name, (now - unit.files.last_data_ns) // NS)
                return False
        return True

    def _look_for_stuck_devices(self) -> None:
        """See lastresort.py; only where somebody starts the process again."""
        wanted = [unit for unit in self.units.values() if unit.is_wanted]
        stuck = left_behind()
        if systemd.is_managed() and self._last_resort.look(
            stuck,
            is_waited_for=any(unit.lacks_device for unit in wanted),
            begins_again=all(unit.status.cause in _BEGIN_AGAIN for unit in wanted),
        ):
            message = f"the driver of {', '.join(stuck)} hangs: the service starts anew to free the device"
            self.report_error("internal", message)
            self._exit_code = 1
            self._stop.set()

    def notify_status(self) -> None:
        """For `systemctl status`."""
        systemd.notify_status(self._status())

    def _status(self) -> str:
        recording = sum(1 for unit in self.units.values() if unit.is_recording)
        mqtt = "no broker" if self.mqtt is None else ("online" if self.mqtt.status.connected else "offline")
        return f"recording {recording}/{len(self.units)}, mqtt {mqtt}"


def _model() -> str:
    """The board's name, for people."""
    try:
        return Path("/sys/firmware/devicetree/base/model").read_text().strip("\0\n")
    except OSError:
        return os.uname().machine


async def run(config: Config, config_path: Path) -> int:
    """Run a daemon until it is told to stop.

    Raises:
        StorageError: the storage cannot be used.
    """
    return await Daemon(config, config_path).run()


__all__ = ["Daemon", "StorageError", "run"]
