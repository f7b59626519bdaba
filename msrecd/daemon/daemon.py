"""The daemon: builds everything from the configuration, connects it, and takes it down again.

Start: configuration, storage with recovery, devices, recorders, adapters, READY=1. Stop: STOPPING=1, recordings
finished, events delivered as far as the adapters can, exit 0. A second signal ends the process at once: the next start
recovers what is unfinished then.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msrecd
from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.clock.wall import WallTime
from msrecd.config.model import Config
from msrecd.config.recorder_model import Recorder
from msrecd.control import begun
from msrecd.control.actions import Actions
from msrecd.control.bus import Adapter, Bus, Event, Item, Mark, State
from msrecd.control.commands import Commands
from msrecd.control.conductor import Conductor
from msrecd.control.device_list import DeviceWatch
from msrecd.control.publisher import Publisher, Revisions
from msrecd.control.recorders import Recorders
from msrecd.control.snapshot_taker import SnapshotTaker
from msrecd.daemon import systemd
from msrecd.daemon.archive import DaemonArchive, recovered_event
from msrecd.daemon.backends import backends_for
from msrecd.daemon.from_config import mqtt_settings, recorder_settings, web_settings
from msrecd.daemon.reload import Reloader
from msrecd.daemon.rounds import Rounds
from msrecd.daemon.storing import limits_of, move_old_state, open_store, recorder_limits_of
from msrecd.daemon.unpublished import unpublished_chunks
from msrecd.daemon.vitals import Vitals
from msrecd.errors import CommandError, StorageError
from msrecd.local.server import LocalSocket
from msrecd.media.devices import MediaDevices
from msrecd.recorder.controller import RecorderController
from msrecd.storage.store import Usage
from msrecd.tasks import Tasks

if TYPE_CHECKING:
    from msrecd.daemon.offloading import Offloading
    from msrecd.daemon.triggering import Triggering
    from msrecd.recorder.watcher import Finding

log = logging.getLogger(__name__)

STOP_LIMIT_S = 25.0
ADAPTER_STOP_S = 5.0
_ONE_SIGNAL_NS = NS // 5
_GRAVE_FINDINGS = ("fat_limit", "read_only", "writeback")  # the others are advice for the log
_EXTEND_US = 10_000_000
_EXTEND_S = 5.0
_START_EXTENSIONS = 180  # a quarter of an hour: what a power cut left may be hashed at 10 MB a second
_DEVICE_LOOK_S = 0.5  # one look serves recorders that start or stop together


class Daemon:
    """One running daemon. Everything on the loop."""

    def __init__(self, config: Config, config_path: Path) -> None:
        move_old_state(config)
        self.walltime = WallTime(config.storage.state_path)
        self.recorders = Recorders(config, self.walltime)
        self.devices = MediaDevices(backends=backends_for(config))
        self._config_path = config_path
        self.bus = Bus()
        self.archive: DaemonArchive | None = None
        revisions = Revisions(config.storage.state_path / "revisions.json")
        self._revisions = revisions
        self.publisher = Publisher(
            self.bus,
            self.recorders,
            revisions,
            schedule=lambda: self.conductor.upcoming(),
            ended=lambda name: self.conductor.ended(name),
            found=self._trigger_found,
        )
        self.conductor = Conductor(self.recorders, self.publisher.publish_daemon)
        self._begun_path = config.storage.state_path / "triggers.json"
        if any(recorder.triggers for recorder in config.recorders):
            self.conductor.recall(begun.load(self._begun_path))
        self.watch = DeviceWatch(self.devices, self.bus, self.publisher.stamp, self._devices_looked)
        self.adapters: list[Adapter] = []
        self.vitals = Vitals(
            units=lambda: self.recorders.units,
            usage=self._usage,
            adapters=self.adapters,
            clock=self.publisher.clock_state,
            stamp=self.publisher.stamp,
            publish=lambda facts: self.bus.set_state("health", facts),
            snapshots=lambda name: self.snapshots.counts(name),
            offload=lambda: None if self.offloading is None else self.offloading.health(),
        )
        self.reloader = Reloader(
            config_path,
            self.recorders,
            self.conductor,
            self.publisher,
            make_unit=self.make_unit,
            set_limits=self._set_limits,
        )
        self.snapshots = SnapshotTaker(
            self.recorders, self.devices, self.publisher, self._save_snapshot, show=self.bus.show
        )
        self.commands = Commands(
            Actions(
                bus=self.bus,
                recorders=self.recorders,
                conductor=self.conductor,
                publisher=self.publisher,
                devices=self.devices,
                watch=self.watch,
                settled=self.reloader.settled,
                reload=self.reloader.reload,
                measure=self.vitals.measure,
                protect=self._protect,
                snapshot=self._take_snapshot,
            ).act,
            self.recorders.names,
            clock_trusted=lambda: self.walltime.trusted,
        )
        self._takes_snapshots = False
        self.offloading: Offloading | None = None
        self._device_timer: asyncio.TimerHandle | None = None
        self._triggering: Triggering | None = None
        self._at_work: set[str] = set()
        self._stop = asyncio.Event()
        self._exit_code = 0
        self._signals = 0
        self._signalled_ns = 0
        self._tasks = Tasks(log)
        self.rounds = Rounds(
            self.recorders,
            self.publisher,
            self.walltime,
            self.adapters,
            self._tasks,
            state_path=config.storage.state_path,
            end=self._end_for_a_restart,
        )

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
        extend = loop.create_task(self._extend_timeout(_START_EXTENSIONS))
        config = self.recorders.config
        store, recovered = await asyncio.to_thread(open_store, config, self.walltime, _report_index)
        archive = self.archive = DaemonArchive(
            store,
            lambda line: self.publisher.late_chunk(*recovered_event(line)),
            lambda message: self.publisher.report_error("no_space", message),
        )
        await asyncio.to_thread(self._revisions.open)
        for recorder in config.recorders:
            unit = self.recorders.units[recorder.name] = self.make_unit(recorder)
            self.publisher.recorder_state(unit)
            unit.arm()
        self.publisher.publish_daemon()
        self.bus.subscribe(self._on_bus)
        self.adapters += self._make_adapters(config)
        for adapter in self.adapters:
            await adapter.start()
        published: dict[str, Sequence[Mark]] = {}
        for adapter in self.adapters:
            published |= await adapter.published()
        for name, facts in await asyncio.to_thread(unpublished_chunks, store, published, recovered):
            self.publisher.late_chunk(name, facts)
        for finding in store.findings:
            if finding.code in _GRAVE_FINDINGS:
                self.publisher.report_error("internal", finding.message, logged=True)
        for lost in store.lost:
            message = f"{lost.file}: nothing of this chunk could be recovered"
            recorder_name = lost.file.partition("/")[0]
            self.publisher.report_error("internal", message, recorder=recorder_name, logged=True)
        self.devices.ondevicechange = lambda _: self._tasks.spawn(self.watch.look(), "devices")
        self._tasks.spawn(self.watch.look(), "devices")
        for round_, name in (
            (lambda: archive.run(self.publisher.publish_daemon), "rotation"),
            (self.vitals.rounds, "health"),
            (self.rounds.watchdog, "watchdog"),
            (self.rounds.sync, "sync"),
            (self.conductor.run, "schedule"),
        ):
            self._tasks.keep(round_, name, self._round_failed)
        self._keep_snapshots()
        if config.offload is not None:
            from msrecd.daemon.offloading import Offloading  # here: the client of a store, for those who have one

            self.offloading = Offloading(config.offload, store, self.publisher)
        self.reloader.ready.set()
        extend.cancel()
        systemd.notify("READY=1")
        self.rounds.notify_status()
        log.info("msrecd %s is ready; recorders: %s", msrecd.__version__, ", ".join(self.recorders.units) or "none")
        await self._stop.wait()
        await self._shut_down()
        return self._exit_code

    def _make_adapters(self, config: Config) -> list[Adapter]:
        greeting = {
            "device": config.device.id,
            "config": str(self._config_path.absolute()),
            "version": msrecd.__version__,
        }
        adapters: list[Adapter] = [LocalSocket(self.bus, self.commands, greeting, look=self._look)]
        settings = mqtt_settings(config)
        if settings is not None:
            from msrecd.mqtt.service import MqttService  # here: megabytes that a device without a broker saves

            adapters.append(
                MqttService(
                    settings,
                    self.bus,
                    self.commands,
                    state_path=config.storage.state_path,
                    boot_counter=self.walltime.boot,
                    version=msrecd.__version__,
                    model=_model(),
                    has_video=self._has_video,
                )
            )
        page = web_settings(config, msrecd.__version__)
        if page is not None:
            from msrecd.web.daemonside import (
                DaemonSide,
            )  # here: a device without a page neither loads nor opens anything
            from msrecd.web.webserver import WebServer

            assert self.archive is not None
            side = DaemonSide(
                bus=self.bus,
                commands=self.commands,
                recorders=self.recorders,
                devices=self.devices,
                store=self.archive.store,
            )
            adapters.append(WebServer(page, side))
        return adapters

    def _has_video(self, name: str) -> bool:
        recorder = self.recorders.config.recorder(name)
        return recorder is None or recorder.has_video

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

    def _end_for_a_restart(self) -> None:
        self._exit_code = 1
        self._stop.set()

    async def _shut_down(self) -> None:
        systemd.notify("STOPPING=1", f"EXTEND_TIMEOUT_USEC={_EXTEND_US}")
        systemd.notify_status("finishing files")
        self._tasks.cancel()
        extend = asyncio.get_running_loop().create_task(self._extend_timeout())
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                leaving = (*self.recorders.units.values(), *self.reloader.leaving)
                await asyncio.gather(*(unit.close() for unit in leaving), self.commands.close(STOP_LIMIT_S))
                self.publisher.flush()
                self.publisher.errors.close()
                await asyncio.gather(*(adapter.stop(ADAPTER_STOP_S) for adapter in self.adapters))
        except TimeoutError:
            log.error("the shutdown took longer than %g s; the next start recovers what is unfinished", STOP_LIMIT_S)
        extend.cancel()
        await self._close_devices()
        if self.offloading is not None:
            await self.offloading.stop()
        if self.archive is not None:
            await asyncio.to_thread(self.archive.store.close)
        log.info("stopped")

    async def _close_devices(self) -> None:
        try:
            async with asyncio.timeout(5):
                await self.devices.close()
        except (TimeoutError, OSError) as exc:
            log.warning("a device did not close: %s", exc or "no answer in 5 s")

    async def _extend_timeout(self, times: int | None = None) -> None:
        """Ask systemd for more time, `times` times at most: a start that hangs must end at some point."""
        for _ in itertools.count() if times is None else range(times):
            await asyncio.sleep(_EXTEND_S)
            systemd.notify(f"EXTEND_TIMEOUT_USEC={_EXTEND_US}")

    def make_unit(self, recorder: Recorder) -> RecorderController:
        """A controller for one `[[recorder]]`; it does nothing yet."""
        assert self.archive is not None
        settings = recorder_settings(recorder)
        if recorder.overlay is not None:
            from msrecd.daemon.overlays import with_overlay  # here: few recorders draw something

            settings = with_overlay(settings, self.recorders.config.device.id, self.walltime)
        return RecorderController(settings, devices=self.devices, archive=self.archive, listener=self.publisher)

    def _round_failed(self, message: str) -> None:
        self.publisher.report_error("internal", message, logged=True)

    def _trigger_found(self, unit: RecorderController, finding: Finding) -> None:
        if self._triggering is None:
            from msrecd.daemon.triggering import Triggering  # here: a device without triggers needs none of it

            assert self.archive is not None
            notes = self.archive.store.recordings.triggers
            self._triggering = Triggering(
                lambda: self.conductor,
                self.publisher,
                self._protect,
                self._tasks,
                notes,
                remember=partial(begun.save, self._begun_path),
            )
        self._triggering.found(unit, finding)

    # --- what others need to know ------------------------------------------------------------------------------------

    def _on_bus(self, item: Item) -> None:
        """What the daemon itself does about a state or an event."""
        match item:
            case State("daemon"):
                self.vitals.look()
            case State(path) if path.startswith("recorder/"):
                self.vitals.look()
                self.rounds.notify_status()
                at_work = self.recorders.at_work()
                if at_work != self._at_work:
                    self._at_work = at_work
                    self._look_at_devices_soon()  # some are busy now, or free
            case Event(_, {"event_type": "chunk"}) if self.archive is not None and not self._stop.is_set():
                self._tasks.spawn(self.archive.tidy(), "tidy")
                if self.offloading is not None:
                    self.offloading.poke()

    def _usage(self) -> Usage:
        assert self.archive is not None
        return self.archive.store.usage()

    async def _protect(self, unit: RecorderController, args: Mapping[str, object]) -> Mapping[str, object]:
        assert self.archive is not None
        return await self.archive.protect(unit, args)

    async def _take_snapshot(
        self, unit: RecorderController, is_full: bool, is_dng: bool
    ) -> Mapping[str, object] | None:
        """
        Raises: CommandError.
        """
        try:
            return await self.snapshots.take_now(unit, is_full=is_full, is_dng=is_dng)
        except StorageError as exc:
            raise CommandError("no_space", exc.message) from exc

    async def _save_snapshot(
        self, unit: RecorderController, data: bytes, taken_ns: int, mime_type: str
    ) -> Mapping[str, object]:
        assert self.archive is not None
        return await self.archive.add_snapshot(unit, data, taken_ns, mime_type)

    def _keep_snapshots(self) -> None:
        """Begin to take them, where a recorder has some: at the start, or after a reload."""
        if self.snapshots.is_wanted and not self._takes_snapshots:
            self._takes_snapshots = True
            self._tasks.keep(self.snapshots.run, "snapshots", self._round_failed)

    async def _look(self, name: str, with_jpeg: bool) -> Mapping[str, object]:
        """For `msrecd look`.

        Raises: CommandError.
        """
        from msrecd.recorder.looking import look_at  # here: few ask for it

        unit = self.recorders.units.get(name)
        if unit is None:
            raise CommandError("unknown_recorder", "this device has no recorder of that name")
        found = await look_at(unit.settings, unit.shared_input, self.devices, with_jpeg=with_jpeg)
        return found | {"triggers": triggers} if (triggers := unit.triggers) else found

    def _set_limits(self, config: Config) -> None:
        assert self.archive is not None
        self._keep_snapshots()
        self.archive.store.limits = limits_of(config)
        self.archive.store.sync_at_least_every(config.storage.sync_interval_s)
        self.archive.store.limit_recorders(recorder_limits_of(config))

    def _look_at_devices_soon(self) -> None:
        def look() -> None:
            self._device_timer = None
            if not self._stop.is_set():
                self._tasks.spawn(self.watch.look(), "devices")

        if self._device_timer is None:
            self._device_timer = asyncio.get_running_loop().call_later(_DEVICE_LOOK_S, look)

    def _devices_looked(self) -> None:
        for unit in self.recorders.units.values():
            unit.devices_changed()


def _model() -> str:
    """The board's name, for people."""
    try:
        return Path("/sys/firmware/devicetree/base/model").read_text().strip("\0\n")
    except OSError:
        return os.uname().machine


def _report_index(done: int, total: int) -> None:
    """From a worker thread, while an index is built before READY: the start may take longer."""
    if done % 100 == 0:
        systemd.notify_status(f"building the index of the recordings: {100 * done // max(1, total)} %")
        systemd.notify(f"EXTEND_TIMEOUT_USEC={_EXTEND_US}")


async def run(config: Config, config_path: Path) -> int:
    """Run a daemon until it is stopped.

    Raises:
        StorageError: the storage cannot be used.
    """
    return await Daemon(config, config_path).run()


__all__ = ["Daemon", "StorageError", "run"]
