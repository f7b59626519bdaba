"""RecorderController: one configured recorder: what is wanted of it, and what it does.

A recording lives from `start` to `stop`. Inside it there may be several runs of a MediaRecorder (run.py): a device that
went away and came back continues the recording in a new chunk; recovery.py tries until it does. Everything here happens
on the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.dom.exceptions import DOMException
from msrecd.errors import CommandError, StorageError
from msrecd.media.devices import MediaDevices
from msrecd.media.events import BlobEvent, GapEvent
from msrecd.media.track import MediaStreamTrack
from msrecd.muxing.facts import ChunkInfo
from msrecd.recorder import black
from msrecd.recorder.attempt import STOP_DEADLINE_S, Attempt
from msrecd.recorder.black import Black
from msrecd.recorder.files import Archive, RecordingFiles
from msrecd.recorder.input import RecorderInput
from msrecd.recorder.logs import RecorderLog
from msrecd.recorder.problems import Problem, problem_of
from msrecd.recorder.settings import RecorderSettings
from msrecd.recorder.status import RecorderStatus
from msrecd.recorder.supervisor import Supervisor
from msrecd.tasks import Tasks


class Listener(Protocol):
    """Who is told what happens."""

    def state_changed(self, unit: RecorderController) -> None: ...
    def happened(self, unit: RecorderController, event_type: str, facts: Mapping[str, Any]) -> None: ...
    def played_out(self, unit: RecorderController) -> None: ...


@dataclass(frozen=True, slots=True)
class Wish:
    """Since when (monotonic ns) a recording is wanted."""

    since_ns: int


class RecorderController:
    """Commands are coroutines and run one at a time; faults are handled by tasks of the unit's own."""

    def __init__(
        self, settings: RecorderSettings, *, devices: MediaDevices, archive: Archive, listener: Listener
    ) -> None:
        self.settings = settings
        self.log = RecorderLog(logging.getLogger(__name__), settings.name)
        self._devices = devices
        self._archive = archive
        self.files = RecordingFiles(settings.name, archive, self, self.log)
        self._listener = listener
        self._tasks = Tasks(self.log)
        self._recovery = Supervisor(settings.name, self, self._tasks)
        self._lock = asyncio.Lock()
        self._wish: Wish | None = None
        self._run: Attempt | None = None
        self._runs = 0
        self._closed = False
        self.status = RecorderStatus(lambda: listener.state_changed(self))
        self._down_since_ns: int | None = None
        self._lacking: Problem | None = None  # why the last try did not have all devices
        self._black = Black()

    # --- what it is doing --------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def is_wanted(self) -> bool:
        return self._wish is not None

    @property
    def wanted_since_ns(self) -> int | None:
        """When the present recording was asked for, on CLOCK_MONOTONIC."""
        return None if self._wish is None else self._wish.since_ns

    @property
    def mime_type(self) -> str:
        """What the present recording is; before one, what is configured."""
        running = "" if self._run is None else self._run.mime_type
        return self.files.mime_type or running or str(self.settings.options.get("mime_type") or "")

    @property
    def capture(self) -> RecorderInput | None:
        return None if self._run is None else self._run.capture

    @property
    def is_recording(self) -> bool:
        return self._run is not None and self._run.state == "recording" and self.status.storage_problem is None

    # --- commands ----------------------------------------------------------------------------------------------------

    async def start(self, cause: str, *, persistent: bool = False) -> bool:
        """Begin a recording; False when one is under way already.

        Args:
            cause: who asked, for the state.
            persistent: a fault at the beginning is retried (autostart, schedule) instead of being the answer.

        Raises:
            CommandError: device_missing, device_busy, no_space, bad_args, internal.
        """
        async with self._lock:
            if self._closed:
                raise CommandError("wrong_state", f"{self.name} is being taken down")
            if self._wish is not None:
                return False
            self._wish = Wish(SYSTEM_CLOCK.monotonic_ns())
            self.status.cause = cause
            try:
                await self._begin_recording()
            except CommandError as exc:
                if persistent:
                    self._set_problem(Problem(exc.code, exc.message))
                    self._bring_back()
                    return True
                self._give_up()
                await self._release()
                self.status.changed()
                raise
            return True

    async def stop(self, cause: str) -> bool:
        """End the recording, all files finished; False when there is none."""
        async with self._lock:
            if self._wish is None:
                return False
            self._give_up()
            await self._end_recording(cause)
            return True

    async def pause(self) -> bool:
        """Raises: CommandError: wrong_state."""
        async with self._lock:
            run = self._running("pause")
            if run.state == "paused":
                return False
            run.pause()
            self._tell_black(self._black.paused(SYSTEM_CLOCK.monotonic_ns()))
            self.status.phase = "paused"
            self._told("paused")
            return True

    async def resume(self) -> bool:
        """Raises: CommandError: wrong_state."""
        async with self._lock:
            run = self._running("resume")
            if run.state == "recording":
                return False
            run.resume()
            self._black.resumed(SYSTEM_CLOCK.monotonic_ns())
            self.status.phase = "recording"
            self._told("resumed")
            return True

    async def split(self) -> bool:
        """Raises: CommandError: wrong_state."""
        async with self._lock:
            self._running("split").split()
            return True

    async def sync(self) -> None:
        """Put what is written onto the disk now."""
        await self.files.sync()

    async def close(self, cause: str = "shutdown") -> None:
        """End whatever is going on, for good: at the end of the program, or when a reload replaces it."""
        self._closed = True
        await self.stop(cause)
        self._tasks.cancel()

    def devices_changed(self) -> None:
        """Something was plugged in or out: what waits for a device tries again at once."""
        self._recovery.hurry()

    # --- a recording -------------------------------------------------------------------------------------------------

    def _running(self, verb: str) -> Attempt:
        if self._run is None or not self._run.is_active:
            raise CommandError("wrong_state", f"{verb}: {self.name} is not recording")
        return self._run

    def _give_up(self) -> None:
        self._wish = None
        self.status.until_ns = None
        self._recovery.disarm()

    async def _begin_recording(self) -> None:
        """
        Raises:
            CommandError: it could not begin; what was opened has to be released.
        """
        await self._begin_run()
        self._recovery.well()
        self.status.phase = "recording"
        self.status.run_problem = None
        self._told("started", cause=self.status.cause)

    async def _begin_run(self, capture: RecorderInput | None = None) -> None:
        """Record a stream (open it, or take an open one) into the present recording; begin that if there is none.

        Raises:
            CommandError: it could not begin.
        """
        self._runs += 1
        self.files.expect_data()
        run = self._run = Attempt(self._runs, self.settings, self)
        try:
            await run.begin(self._devices, capture)
            if not self.files.is_open and run.has_started:
                await self.files.open(run.file_type)
        except CommandError:
            self._run = None
            raise
        except StorageError as exc:
            self._run = None
            self.files.forget_early()  # each try would leave its own behind
            await run.end()
            problem = problem_of(exc)
            raise CommandError(problem.code, problem.message) from exc
        self.files.expect_data()
        known = self.status.run_problem
        if self._run is not run and known is not None:
            raise CommandError(known.code, known.message)

    async def _end_recording(self, cause: str) -> None:
        run = self._run
        if run is not None:
            run.stop()
        self._tell_black(self._black.unmuted(SYSTEM_CLOCK.monotonic_ns()))
        if run is not None:
            try:
                async with asyncio.timeout(STOP_DEADLINE_S):
                    await run.wait_stopped()
            except TimeoutError:
                self.log.error("the recording did not end within %g s; its last seconds are lost", STOP_DEADLINE_S)
        await self._release()
        self._happened("stopped", cause=cause, chunks=self.files.chunks, bytes=self.files.bytes)
        self.files.recording_id = None
        self.status.changed()

    async def _release(self) -> None:
        if self._run is not None:
            self._run.close()
        self._run = None
        await self.files.close()
        self._lacking = None
        self._black = Black()
        self._down_since_ns = None
        self.status.end()

    # --- what an attempt says (AttemptListener) ----------------------------------------------------------------------

    def run_gave(self, run: Attempt, event: BlobEvent) -> None:
        """A blob. (A run that is not ours any more may only finish the files that it has begun.)"""
        if run is self._run or self.files.is_open:
            self.files.take(run, event, final=self._wish is None)

    def run_missed(self, event: GapEvent) -> None:
        """Media is lost that should have been recorded."""
        self.log.warning("%.1f s are missing: %s", event.gap.duration_s, event.gap.reason)
        self._happened("gap", duration_s=event.gap.duration_s, reason=event.gap.reason)

    def run_stopped(self, run: Attempt) -> None:
        """It gave its last blob: as it was told to, or because nothing is left to record."""
        if run is not self._run or self._wish is None:
            return
        if run.has_played_out:
            self._listener.played_out(self)
            self._tasks.spawn(self.stop("ended"), f"{self.name}-ended")
            return
        self._run = None
        self._tell_black(self._black.unmuted(SYSTEM_CLOCK.monotonic_ns()))
        problem = run.problem or Problem("device_missing", "the device went away")
        run.close()
        self._set_problem(problem)
        self._bring_back()

    def run_lost_track(self, track: MediaStreamTrack) -> None:
        """One of its devices went away; the others are recorded."""
        if self._wish is not None and self._run is not None and self._run.is_active:
            if track.kind == "video":
                self._tell_black(self._black.unmuted(SYSTEM_CLOCK.monotonic_ns()))
            self.log.warning("the %s device %s went away", track.kind, track.label)
            self._happened("error", code="device_missing", message=f"{track.kind} device {track.label} went away")
            self._lacking = Problem("device_missing", "")
            self._recovery.complete()

    def run_muted(self, track: MediaStreamTrack, muted: bool) -> None:
        """One of its devices gives nothing (black and silence are recorded meanwhile), or gives again."""
        if self._wish is None:
            return
        now_ns = SYSTEM_CLOCK.monotonic_ns()
        if track.kind == "video":  # silence is accounted when the sound comes back
            if muted:
                self._black.muted(now_ns, paused=self.status.is_paused)
            else:
                self._tell_black(self._black.unmuted(now_ns))
        if muted and self.status.phase == "recording":
            self.log.warning("the %s device %s gives nothing", track.kind, track.label)
            self._happened("error", code="device_busy", message=f"{track.kind} device {track.label} gives nothing")

    def run_restarts(self, track: MediaStreamTrack, silent_s: float) -> None:
        """One of its devices is started anew because it gave nothing for so long."""
        if self._wish is not None:
            message = f"{track.kind} device {track.label} gave nothing for {silent_s:.1f} s and is started anew"
            self.log.warning("the %s", message)
            self._happened("error", code="device_busy", message=message)

    def _tell_black(self, lasted_s: float) -> None:
        """Black that stood in for pictures is a loss."""
        if lasted_s:
            self._happened("gap", duration_s=lasted_s, reason=black.REASON)

    # --- what the files say (FilesListener) --------------------------------------------------------------------------

    def chunk_done(self, line: Mapping[str, Any]) -> None:
        """A chunk has its name."""
        self._listener.happened(self, "chunk", line)
        self.status.changed()

    def black_within(self, info: ChunkInfo | None) -> list[dict[str, Any]]:
        """In the writing thread: the black in a chunk."""
        return self._black.gaps(info)

    def storage_lost(self, lost_s: float, reason: str) -> None:
        """The storage took nothing for so long; it takes again, or the recording has ended."""
        self.log.warning("%.1f s are missing: %s", lost_s, reason)
        self._happened("gap", duration_s=lost_s, reason=reason)

    def storage_failed(self, error: StorageError) -> None:
        problem = problem_of(error)
        self.log.error("cannot write: %s", problem.message)
        if self.status.note_storage_problem(problem):
            self._happened("error", code=problem.code, message=problem.message)
            self.status.changed()
        self._recovery.write_again()

    # --- faults (Patient) --------------------------------------------------------------------------------------------

    def _bring_back(self) -> None:
        if self._down_since_ns is None:
            self._down_since_ns = self.files.media_until_ns or SYSTEM_CLOCK.monotonic_ns()
        self._recovery.run_again()

    @property
    def lacks_device(self) -> bool:
        """Whether one of its devices is away while it is wanted, whatever else is recorded."""
        problem = self.status.run_problem
        if problem is not None and problem.code in ("device_missing", "device_busy"):
            return True
        return self._run is not None and self._run.has_lost_track

    @property
    def waits_for_device(self) -> bool:
        problem = self.status.run_problem if self._run is None else self._lacking
        return problem is not None and problem.code == "device_missing"

    async def try_run(self) -> bool:
        """Nothing is recorded: begin, or go on in a new chunk, paused if it was paused."""
        async with self._lock:
            if self._wish is None:
                return True
            try:
                if not self.files.is_open:
                    await self._begin_recording()
                else:
                    await self._continue()
                    self._recovered()
            except CommandError as exc:
                self._set_problem(Problem(exc.code, exc.message))
                return False
            self._down_since_ns = None
            return True

    async def try_complete(self) -> bool:
        """If all devices can be had again, record them in a new chunk of the same recording.

        What still records is not touched before that is certain; a camera that is in use is shared.
        """
        async with self._lock:
            old = self._run
            if self._wish is None or old is None or not old.has_lost_track:
                return True
            try:
                capture = await RecorderInput.open(self.settings, self._devices)
            except (DOMException, TimeoutError, TypeError) as exc:
                self._lacking = problem_of(exc)
                return False
            self._run = None
            await old.end()
            try:
                await self._continue(capture)
            except CommandError as exc:
                self._set_problem(Problem(exc.code, exc.message))
                self._bring_back()
                return True
            lost_s = self._lost_s(self.files.media_until_ns)
            self.log.info("all devices are recorded again, after a pause of %.1f s for all", lost_s)
            self._happened("gap", duration_s=lost_s, reason="device_missing")
            self.status.changed()
            return self._run is None or not self._run.has_lost_track

    async def try_write(self) -> bool:
        """If there is room again, the same recording goes on in a new chunk."""
        if self._wish is None:
            return True
        if not await self._archive.make_room():
            return False
        self.status.storage_problem = None
        if self._run is not None:
            self._run.split()
        self.log.info("there is room again; recording goes on")
        self.status.changed()
        return True

    async def _continue(self, capture: RecorderInput | None = None) -> None:
        await self._begin_run(capture)
        if self.status.is_paused and self._run is not None:
            self._run.pause()

    def _recovered(self) -> None:
        lost_s = self._lost_s(self._down_since_ns or self.files.media_until_ns)
        problem, self.status.run_problem = self.status.run_problem, None
        reason = problem.code if problem is not None else "device_missing"
        self._recovery.well()
        self.log.info("recording again after %.1f s", lost_s)
        self._happened("gap", duration_s=lost_s, reason=reason)
        self.status.changed()

    def _lost_s(self, since_ns: int) -> float:
        """Seconds since then, which nobody has recorded; a recording that is paused loses nothing."""
        if self.status.is_paused or not since_ns:
            return 0.0
        return round(max(0, SYSTEM_CLOCK.monotonic_ns() - since_ns) / NS, 3)

    # --- telling -----------------------------------------------------------------------------------------------------

    def _set_problem(self, problem: Problem) -> None:
        if self.status.note_run_problem(problem):
            self.log.error("%s", problem.message)
            self._happened("error", code=problem.code, message=problem.message)
        self.status.changed()

    def _told(self, event_type: str, **facts: Any) -> None:
        self._happened(event_type, **facts)
        self.status.changed()

    def _happened(self, event_type: str, **facts: Any) -> None:
        self._listener.happened(self, event_type, facts)
