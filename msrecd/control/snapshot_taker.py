"""Snapshots to disk: when each recorder takes one, and what is published of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from msrecd.clock import NS, SYSTEM_CLOCK, Clock
from msrecd.config.model import Location
from msrecd.config.recorder_model import Recorder, Schedule
from msrecd.config.recorder_tables import Snapshots
from msrecd.control.publisher import Publisher
from msrecd.control.recorders import Recorders
from msrecd.errors import CommandError, StorageError
from msrecd.media.devices import MediaDevices
from msrecd.recorder.controller import RecorderController
from msrecd.schedule.planner import Planner

if TYPE_CHECKING:
    from msrecd.recorder.snapshot import Photographer

log = logging.getLogger(__name__)

KEEPS_OPEN_S = 30.0  # an idle camera that is photographed more often than this stays open
_LOOK_S = 0.5
_AHEAD = timedelta(minutes=1)
Save = Callable[[RecorderController, bytes, int, str], Awaitable[Mapping[str, Any]]]


class SnapshotTimes:
    """When a recorder's next snapshot is due. Pure but for its memory: the times come in as arguments."""

    def __init__(self, snapshots: Snapshots, location: Location | None) -> None:
        """
        Raises:
            ScheduleError: `at` cannot be planned.
        """
        self._every_s = snapshots.every_s
        self._next_ns: int | None = None
        self._planner: Planner | None = None
        if snapshots.at is not None:
            self._planner = Planner((Schedule(start=snapshots.at, duration_s=1.0),), location)
        self._looked_until: datetime | None = None

    def is_due(self, monotonic_ns: int, now: datetime) -> bool:
        """Whether one is due; asked for every half second while snapshots are wanted."""
        due = False
        if self._every_s is not None:
            step_ns = round(self._every_s * NS)
            if self._next_ns is None or monotonic_ns >= self._next_ns:
                due = True
                before_ns = monotonic_ns if self._next_ns is None else self._next_ns
                missed = max(0, (monotonic_ns - before_ns) // step_ns)
                self._next_ns = before_ns + (missed + 1) * step_ns
        if self._planner is not None:
            since = self._looked_until
            # A clock that was set goes on from where it is; what lies in between is no time of taking pictures.
            if since is None or not timedelta() <= now - since <= _AHEAD:
                since = now - timedelta(seconds=1)
            starts = [window.start for window in self._planner.windows(since, now + timedelta(seconds=1))]
            due = due or any(since < start <= now for start in starts)
            self._looked_until = now
        return due

    def rest(self) -> None:
        """None are wanted for now: the first one comes at once when they are wanted again."""
        self._next_ns = None
        self._looked_until = None


class _Part:
    def __init__(self, settings: Snapshots, times: SnapshotTimes, unit: RecorderController) -> None:
        self.settings = settings
        self.times = times
        self.unit = unit
        self.photographer: Photographer | None = None
        self.task: asyncio.Task[None] | None = None
        self.has_failed = False

    def close(self) -> None:
        """Let go of the camera."""
        if self.photographer is not None:
            self.photographer.close()
            self.photographer = None


class SnapshotTaker:
    """Belongs to the loop. One snapshot of a recorder at a time; one that is due meanwhile is left out and counted."""

    def __init__(
        self,
        recorders: Recorders,
        devices: MediaDevices,
        publisher: Publisher,
        save: Save,
        *,
        show: Callable[[str, bytes], None] = lambda recorder, jpeg: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """
        Args:
            save: puts a JPEG or DNG, taken then on CLOCK_MONOTONIC, on the disk, by its MIME type; its facts for the
                event. Raises StorageError.
            show: publishes the JPEG of a recorder.
        """
        self._recorders = recorders
        self._devices = devices
        self._publisher = publisher
        self._save = save
        self._show = show
        self._clock = clock
        self._parts: dict[str, _Part] = {}
        self._counts: dict[str, dict[str, int]] = {}

    @property
    def is_wanted(self) -> bool:
        """Whether a recorder has snapshots."""
        return any(recorder.snapshots is not None for recorder in self._recorders.config.recorders)

    def counts(self, recorder: str) -> Mapping[str, int] | None:
        """For state/health: how many were taken, have failed, and were left out because one took too long
        or its recording ended before.
        """
        return self._counts.get(recorder)

    async def run(self) -> None:
        """Take them, until cancelled."""
        try:
            while True:
                self._look()
                await asyncio.sleep(_LOOK_S)
        finally:
            for part in self._parts.values():
                if part.task is not None:
                    part.task.cancel()
                part.close()

    async def take_now(
        self, unit: RecorderController, *, is_full: bool = False, is_dng: bool = False
    ) -> Mapping[str, Any] | None:
        """One by command, where snapshots are configured, or one of full resolution or with its raw frame; the facts
        of its file.

        Raises:
            CommandError, StorageError: there is none.
        """
        recorder = self._recorders.config.recorder(unit.name)
        if recorder is None or (recorder.snapshots is None and not is_full and not is_dng):
            return None
        from msrecd.recorder.snapshot import Photographer  # here: the JPEG encoder, for those few who want one

        settings = recorder.snapshots or Snapshots()
        photographer = Photographer(unit, self._devices, settle_s=settings.settle_s)
        try:
            _, facts = await self._take(unit, photographer, is_full=is_full, is_dng=is_dng or settings.dng)
            return facts
        finally:
            photographer.close()

    def _look(self) -> None:
        config = self._recorders.config
        self._counts = {name: counts for name, counts in self._counts.items() if config.recorder(name) is not None}
        for name in [name for name in self._parts if self._is_over(name)]:
            self._parts.pop(name).close()
        now = datetime.fromtimestamp(self._recorders.walltime.stamp().utc_ns / NS, UTC)
        monotonic_ns = self._clock.monotonic_ns()
        for recorder in config.recorders:
            unit = self._recorders.units.get(recorder.name)
            if recorder.snapshots is None or unit is None:
                continue
            part = self._part(recorder, recorder.snapshots, unit)
            if not (unit.is_recording or (recorder.snapshots.idle and not unit.is_wanted)):
                part.times.rest()
                if part.task is None or part.task.done():
                    part.close()
            elif part.times.is_due(monotonic_ns, now):
                self._begin(part)

    def _is_over(self, name: str) -> bool:
        part, recorder = self._parts[name], self._recorders.config.recorder(name)
        same = recorder is not None and recorder.snapshots == part.settings
        return not same or self._recorders.units.get(name) is not part.unit

    def _part(self, recorder: Recorder, settings: Snapshots, unit: RecorderController) -> _Part:
        part = self._parts.get(recorder.name)
        if part is None:
            times = SnapshotTimes(settings, self._recorders.config.location)
            part = self._parts[recorder.name] = _Part(settings, times, unit)
        return part

    def _begin(self, part: _Part) -> None:
        if part.task is not None and not part.task.done():
            self._count(part.unit.name, "missed")
            return
        part.task = asyncio.get_running_loop().create_task(self._take_part(part), name=f"snapshot-{part.unit.name}")

    async def _take_part(self, part: _Part) -> None:
        from msrecd.recorder.snapshot import Photographer  # here: the JPEG encoder, for those few who want one

        unit = part.unit
        if part.photographer is None:
            part.photographer = Photographer(unit, self._devices, settle_s=part.settings.settle_s)
        recorded = unit.input if unit.is_recording else None
        try:
            jpeg, _ = await self._take(unit, part.photographer, is_dng=part.settings.dng)
            part.has_failed = False
            await self._publish(unit, part.photographer, jpeg)
        except CommandError as exc:
            if recorded is not None and not (unit.is_recording and unit.input is recorded):
                # The camera went with its recording: what ended that the recorder reports.
                self._count(unit.name, "missed")
                unit.log.debug("its recording ended before the snapshot was taken: %s", exc.message)
            else:
                self._failed(part, exc.code, exc.message)
        except StorageError as exc:
            self._failed(part, "no_space", exc.message)
        except Exception as exc:
            log.exception("%s: a snapshot failed", unit.name)
            self._failed(part, "internal", f"{type(exc).__name__}: {exc}")
        finally:
            if part.settings.every_s is None or part.settings.every_s > KEEPS_OPEN_S:
                part.close()

    def _failed(self, part: _Part, code: str, message: str) -> None:
        self._count(part.unit.name, "failed")
        if not part.has_failed:  # and until it succeeds again no more
            self._publisher.report_error(code, f"{part.unit.name}: no snapshot: {message}", recorder=part.unit.name)
        part.has_failed = True

    async def _publish(self, unit: RecorderController, photographer: Photographer, jpeg: bytes) -> None:
        if self._recorders.config.mqtt is None:
            return
        from msrecd.recorder.snapshot import small  # as above

        try:
            self._show(unit.name, await small(photographer, jpeg))
        except CommandError as exc:  # the file is there, and the former image stays
            unit.log.debug("the snapshot is not published: %s", exc.message)

    async def _take(
        self, unit: RecorderController, photographer: Photographer, *, is_full: bool = False, is_dng: bool = False
    ) -> tuple[bytes, Mapping[str, Any]]:
        photo = await photographer.take(is_full=is_full, is_dng=is_dng)
        facts = await self._save(unit, photo.jpeg, photo.taken_ns, "image/jpeg")
        self._publisher.happened(unit, "snapshot", facts)
        if photo.dng is not None:
            raw = await self._save(unit, photo.dng, photo.taken_ns, "image/x-adobe-dng")
            self._publisher.happened(unit, "snapshot", raw)
            facts = {**facts, "dng": raw["file"]}
        self._count(unit.name, "taken")
        return photo.jpeg, facts

    def _count(self, recorder: str, name: str) -> None:
        counts = self._counts.setdefault(recorder, {"taken": 0, "failed": 0, "missed": 0})
        counts[name] += 1
