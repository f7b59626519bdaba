"""RecorderController: one configured recorder: what is wanted of it, and what it does.

A recording lives from `start` to `stop`. It has one attempt (attempt.py) after the other: a device that went away and
came back continues the recording in a new chunk. The states and who performs each transition are in states.py; faults
are reported here and repaired by the supervisor. Everything happens on the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from msrecd import BlobEvent, GapEvent, MediaDevices, MediaStreamTrack
from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.errors import CommandError, StorageError
from msrecd.recorder.attempt import STOP_DEADLINE_S, Attempt
from msrecd.recorder.files import Archive, RecordingFiles, has_media
from msrecd.recorder.input import RecorderInput
from msrecd.recorder.logs import RecorderLog
from msrecd.recorder.problems import Problem, problem_of
from msrecd.recorder.settings import RecorderSettings
from msrecd.recorder.states import WANTED, State, StateMachine, Trigger
from msrecd.recorder.status import RecorderStatus
from msrecd.recorder.supervisor import Supervisor
from msrecd.recorder.writer import HANG_S
from msrecd.tasks import Tasks
from msrecd.vocabulary.backoff import BackOff

if TYPE_CHECKING:
    from msrecd.recorder.watcher import Finding, TriggerWatch

PROGRESS_LIMIT_S = 30.0  # a recorder whose data does not reach the disk for so long does not advance
_RETRY_LIMIT_S = 60.0
_DEVICE_RETRY_LIMIT_S = 3.0  # where hot-plug does not say that a device is back, recording resumes within 5 s too
_INPUT_RETRY_S = 1.0  # an input that answers again is recorded within 2 s …
_INPUT_QUICKLY_NS = 120 * NS  # … unless it has been away for so long
_INPUT_RETRY_LIMIT_S = 10.0
_STORAGE_RETRY_S = 5.0
_HANGS = "hangs"  # cause of a storage problem
_OTHER_MEDIUM = "medium"  # cause of the events where one recording ends and the next begins on another medium


class Listener(Protocol):
    """Who is told what happens."""

    def state_changed(self, recorder: RecorderController) -> None: ...
    def happened(self, recorder: RecorderController, event_type: str, facts: Mapping[str, Any]) -> None: ...
    def played_out(self, recorder: RecorderController) -> None: ...
    def found(self, recorder: RecorderController, finding: Finding) -> None: ...


class RecorderController:
    """Commands are coroutines and run one at a time; a command that fails or is cancelled undoes what it began."""

    def __init__(
        self, settings: RecorderSettings, *, devices: MediaDevices, archive: Archive, listener: Listener
    ) -> None:
        self.settings = settings
        self.log = RecorderLog(logging.getLogger(__name__), settings.name)
        self.status = RecorderStatus(lambda: listener.state_changed(self))
        self.files = RecordingFiles(
            settings.name,
            archive,
            self.log,
            time_lapse=settings.time_lapse,
            on_chunk=self._chunk_done,
            on_lost=self._lost,
            on_error=self._storage_failed,
            on_hang=self._disk_hangs,
            on_renamed=self._medium_changed,
        )
        self._devices = devices
        self._archive = archive
        self._listener = listener
        self._tasks = Tasks(self.log)
        self._supervisor = Supervisor(settings.name, self._tasks, self.log)
        self._back_off = BackOff()  # between attempts that give nothing
        self._gave_nothing = False  # the last attempt began, and ended without any media
        self._machine = StateMachine()
        self._lock = asyncio.Lock()
        self._wanted_since_ns: int | None = None
        self._attempt: Attempt | None = None  # armed, beginning or under way
        self._attempts = 0
        self._first_attempt = 1  # of the present recording
        self._is_beginning = False  # what ends an attempt is the business of whoever begins it
        self._unmet: list[dict[str, Any]] = []  # as it was last logged
        self._missing: Problem | None = None  # why the last try did not have all devices
        self._watch = self._make_watch() if settings.triggers else None

    def _make_watch(self) -> TriggerWatch:
        from msrecd.recorder.watcher import TriggerWatch  # here: recorders without triggers need none of it

        return TriggerWatch(
            self.name,
            self.settings.triggers,
            input=lambda: self.input,
            found=lambda finding: self._listener.found(self, finding),
            log=self.log,
            tasks=self._tasks,
        )

    # --- what it is doing --------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def state(self) -> State:
        return self._machine.state

    @property
    def _is_paused(self) -> bool:
        return self.status.phase == "paused"

    @property
    def is_wanted(self) -> bool:
        return self.state in WANTED

    @property
    def is_armed(self) -> bool:
        """Whether it is idle, holds its inputs open and keeps a pre-roll."""
        return self.state is State.ARMED

    @property
    def is_recording(self) -> bool:
        return self.state is State.RECORDING and self.status.storage_problem is None

    @property
    def wanted_since_ns(self) -> int | None:
        """When the present recording was asked for, on CLOCK_MONOTONIC."""
        return self._wanted_since_ns

    @property
    def mime_type(self) -> str:
        """What the present recording is; before one, what is configured."""
        running = "" if self._attempt is None else self._attempt.mime_type
        return self.files.mime_type or running or str(self.settings.options.get("mime_type") or "")

    @property
    def input(self) -> RecorderInput | None:
        """What it has open."""
        return None if self._attempt is None else self._attempt.input

    @property
    def tracks(self) -> list[dict[str, Any]]:
        """Kind, device, label and settings of each track that is recorded now."""
        if self.status.state == "inactive" or self.input is None:
            return []
        return [_facts_of(track) for track in self.input.tracks]

    @property
    def unmet(self) -> list[dict[str, Any]]:
        """What was asked for and is not met by what is open: kind, constraint, asked, got."""
        return [] if self.input is None else self.input.unmet

    @property
    def pre_roll_bytes(self) -> int:
        """What the pre-roll holds in memory."""
        return self._attempt.pre_roll_bytes if self.is_armed and self._attempt is not None else 0

    @property
    def lacks_device(self) -> bool:
        """Whether one of its devices is away while it is wanted, whatever else is recorded."""
        problem = self.status.run_problem
        if problem is not None and problem.code in ("device_missing", "device_busy"):
            return True
        return self.is_wanted and self.input is not None and self.input.has_lost_track

    def is_advancing(self, now_ns: int) -> bool:
        """Whether what it says it records reaches the disk: for the watchdog.

        A recorder in error does not claim to record, one whose disk hangs neither: a restart would cure nothing, lose
        what waits in memory and interrupt the others.
        """
        if not self.is_recording or self._attempt is None:
            return True
        rhythm_s = self.settings.timeslice_ms / 1000 + self._attempt.frame_interval_s
        return now_ns - self.files.last_data_ns <= max(PROGRESS_LIMIT_S, 3 * rhythm_s) * NS

    @property
    def triggers(self) -> list[dict[str, Any]]:
        """For state/health: what its triggers score."""
        return [] if self._watch is None else self._watch.facts()

    @property
    def _holds_inputs(self) -> bool:
        """Whether its inputs are open while it is idle."""
        return bool(self.settings.options.get("pre_roll")) or (self._watch is not None and self._watch.is_armed)

    # --- commands ----------------------------------------------------------------------------------------------------

    def arm_triggers(self, is_armed: bool) -> None:
        """Let the triggers look at the inputs, which are held open for them, or not; without triggers nothing."""
        if self._watch is None or self._watch.is_armed == is_armed or self.state is State.CLOSED:
            return
        self._watch.arm(is_armed)
        if is_armed:
            self.arm()
        elif self.is_armed and not self._holds_inputs:
            self._close_attempt()
            self._machine.do(Trigger.DISARM)
            self.status.changed()

    def arm(self) -> None:
        """Hold the inputs open while idle, for `pre_roll` or triggers; it takes its time, and is kept up."""
        if self._holds_inputs and not self._is_file and self.state is State.IDLE:
            self._supervisor.keep_trying("arm", self._try_arm, limit_s=self._retry_limit_s, first_s=0.0)

    async def start(self, cause: str, *, persistent: bool = False) -> bool:
        """Begin a recording; False when one is under way already.

        Args:
            cause: who asked, for the state.
            persistent: a fault at the beginning is retried (autostart, schedule) instead of being the answer.

        Raises:
            CommandError: device_missing, device_busy, no_space, bad_args, internal: nothing is recorded.
        """
        async with self._lock:
            if self.state is State.WAITING and not persistent:
                return await self._begin_now(cause)
            if self.is_wanted:
                return False
            self._machine.do(Trigger.START)
            self._supervisor.cancel()
            self._back_off.reset()
            self._gave_nothing = False
            self._wanted_since_ns = SYSTEM_CLOCK.monotonic_ns()
            self._first_attempt = self._attempts + 1 if self._attempt is None else self._attempt.number
            self.status.cause = cause
            try:
                await self._begin()
            except Exception as exc:
                problem = self._problem_of(exc)
                if persistent:
                    self._go_down(problem)
                    return True
                await self._refuse()
                raise problem.error() from exc
            except BaseException:
                await self._refuse()
                raise
            self._started()
            return True

    async def _begin_now(self, cause: str) -> bool:
        """A start while nothing can be recorded: try at once, and tell what is wrong. It is wanted in any case.

        Raises:
            CommandError: why nothing is recorded still.
        """
        before, self.status.cause = self.status.cause, cause
        if not await self._begin_again():
            self.status.cause = before
            raise (self.status.run_problem or Problem("internal", "nothing is recorded")).error()
        self._recovered()
        return True

    async def stop(self, cause: str) -> bool:
        """End the recording, all files finished; False when there is none."""
        if self.is_wanted:
            self._supervisor.cancel()  # a device that takes long to open must not hold this up
        async with self._lock:
            if not self.is_wanted:
                return False
            self._supervisor.cancel()
            await self._end_recording(cause)
            return True

    async def pause(self) -> bool:
        """Raises: CommandError: wrong_state."""
        async with self._lock:
            if self.state is State.PAUSED:
                return False
            attempt = self._running("pause")
            self._recovered()  # what is paused gives nothing
            self._machine.do(Trigger.PAUSE)
            attempt.pause()
            self.status.phase = "paused"
            self._report("paused")
            return True

    async def resume(self) -> bool:
        """Raises: CommandError: wrong_state."""
        async with self._lock:
            attempt = self._running("resume")
            if self.state is State.RECORDING:
                return False
            self._machine.do(Trigger.RESUME)
            attempt.resume()
            self.status.phase = "recording"
            self._report("resumed")
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
        if self._watch is not None:
            self._watch.arm(False)
        await self.stop(cause)
        self._supervisor.cancel()
        async with self._lock:
            if self.state is State.CLOSED:
                return
            self._close_attempt()
            self._machine.do(Trigger.CLOSE)
        self._tasks.cancel()

    def devices_changed(self) -> None:
        """Something was plugged in or out: what waits for a device tries again at once."""
        self._supervisor.hurry()

    # --- a recording -------------------------------------------------------------------------------------------------

    def _running(self, verb: str) -> Attempt:
        if self._attempt is None or self.state not in (State.RECORDING, State.PAUSED) or not self._attempt.is_active:
            raise CommandError("wrong_state", f"{verb}: {self.name} is not recording")
        return self._attempt

    async def _begin(self, input: RecorderInput | None = None) -> None:
        """Record into the present recording; begin that if there is none.

        Args:
            input: open; None: what is armed, else it is opened.

        Raises:
            CommandError, DOMException, StorageError, …: it could not begin; nothing is open, files excepted.
        """
        self.files.expect_data()
        self._is_beginning = True
        try:
            attempt = self._attempt
            if attempt is None:
                attempt = self._attempt = await self._new_attempt(input)
            await attempt.start()
            if not self.files.is_open and attempt.has_started:
                await self.files.open(attempt.file_type)
            if not attempt.is_active and not attempt.input.has_played_out:
                self._note_what_it_gave(attempt)
                raise (attempt.problem or Problem("device_missing", "the device went away")).error()
        except BaseException:
            self._close_attempt()
            if not self.files.is_open:
                self.files.drop_pending()  # each try would leave its own behind
            raise
        finally:
            self._is_beginning = False
        self.files.expect_data()
        self._warn_of_unmet(attempt.input)
        if not attempt.is_active:
            self._attempt_ended(attempt)

    async def _new_attempt(self, input: RecorderInput | None = None) -> Attempt:
        """
        Raises:
            CommandError, DOMException, TypeError: nothing is open then.
        """
        if input is None:
            try:
                input = await RecorderInput.open(self.settings, self._devices)
            except CommandError:
                self._gave_nothing = False
                raise
        self._attempts += 1
        try:
            return Attempt(self._attempts, self.settings, input, self)
        except BaseException:
            input.close()
            raise

    def _started(self) -> None:
        """The first attempt of a recording is under way."""
        self._machine.do(Trigger.STARTED)
        self._report_started()

    def _report_started(self) -> None:
        self.status.phase = "recording"
        self.status.recovered(run=True)
        self._report("started", cause=self.status.cause, tracks=self.tracks)

    async def _refuse(self) -> None:
        """A start has failed: as if it had not been asked for."""
        self._close_attempt()
        await self.files.close()
        self._machine.do(Trigger.REFUSED)
        self._forget_recording()
        self.status.changed()
        self.arm()

    async def _end_recording(self, cause: str) -> None:
        was_down = self.status.run_problem is not None
        self._machine.do(Trigger.STOP)
        now_ns = SYSTEM_CLOCK.monotonic_ns()
        armed: Attempt | None = None
        try:
            attempt = self._attempt
            if attempt is not None and await attempt.stop():
                armed = self._rearmed(attempt)
            elif attempt is not None:
                self.log.error("the recording did not end within %g s; its last seconds are lost", STOP_DEADLINE_S)
        finally:
            self._attempt = armed or self._attempt
            if armed is None:
                self._close_attempt()
            await self.files.close(now_ns if was_down else 0)
            self._happened("stopped", cause=cause, chunks=self.files.chunks, bytes=self.files.bytes)
            self.files.forget()
            self._machine.do(Trigger.STOPPED)
            if armed is not None:
                self._machine.do(Trigger.ARM)
            self._forget_recording()
            self.status.changed()
            self.arm()

    def _rearmed(self, attempt: Attempt) -> Attempt | None:
        """The next attempt, on the same input, whose MediaRecorder keeps a pre-roll since this one has ended."""
        if not self._holds_inputs or self._is_file:
            return None
        if attempt.problem is not None or attempt.input.has_lost_track:
            return None
        self._attempts += 1
        return Attempt(self._attempts, self.settings, attempt.input, self, before=attempt)

    def _close_attempt(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.close()

    def _forget_recording(self) -> None:
        self._wanted_since_ns = None
        self._missing = None
        self.status.end()

    # --- what an attempt says (AttemptListener) ----------------------------------------------------------------------

    def attempt_gave(self, attempt: Attempt, event: BlobEvent) -> None:
        """A blob. (One that has been replaced may only finish the files that it has begun.)"""
        if attempt is self._attempt or (self.files.is_open and attempt.number >= self._first_attempt):
            self.files.take(attempt.number, event, may_be_last=event.chunk_end and not attempt.is_active)
        if not attempt.has_media and has_media(event):
            attempt.has_media = True
            if attempt is self._attempt and self.state is State.RECORDING:
                self._recovered()

    def attempt_missed(self, event: GapEvent) -> None:
        """Media is lost that should have been recorded; it stands in the chunk's own account."""
        self._lost(event.gap.duration_s, event.gap.reason)

    def attempt_stopped(self, attempt: Attempt) -> None:
        """It gave its last blob: as it was told to, or because nothing is left to record."""
        if attempt is self._attempt and self.is_wanted and not self._is_beginning:
            self._attempt_ended(attempt)

    def _attempt_ended(self, attempt: Attempt) -> None:
        if attempt.input.has_played_out:
            self._listener.played_out(self)
            self._tasks.spawn(self.stop("ended"), f"{self.name}-ended")
            return
        problem = attempt.problem or self._missing or Problem("device_missing", "the device went away")
        self._missing = None
        self._note_what_it_gave(attempt)
        self._close_attempt()
        self._go_down(problem)

    def _note_what_it_gave(self, attempt: Attempt) -> None:
        if not attempt.has_media and not self._gave_nothing:
            self._back_off.reset()  # until now it could not be opened, or all was well
        self._gave_nothing = not attempt.has_media

    def attempt_lost_track(self, attempt: Attempt, track: MediaStreamTrack) -> None:
        """One of its devices went away. The others are recorded; what is only armed is opened again."""
        if attempt is not self._attempt:
            return
        if self.is_armed:
            self.log.warning("%s went away; the pre-roll resumes when it is back", _name_of(track))
            self._close_attempt()
            self._machine.do(Trigger.DISARM)
            self.status.changed()
            self.arm()
        elif self.is_wanted and not attempt.input.tracks:  # the attempt ends by itself
            self._missing = Problem("device_missing", f"{_name_of(track)} went away")
        elif self.is_wanted and attempt.is_active and not attempt.input.is_file:
            self._report_error("device_missing", f"{_name_of(track)} went away; the other tracks are recorded")
            self._missing = Problem("device_missing", "")
            self.status.changed()
            self._supervisor.keep_trying("complete", self._try_complete, limit_s=self._retry_limit_s)

    def attempt_muted(self, track: MediaStreamTrack, muted: bool) -> None:
        """One of its devices gives nothing (black and silence are recorded meanwhile, as a gap), or gives again."""
        if muted and self.state is State.RECORDING:
            self._report_error("device_busy", f"no data from {_name_of(track)}")

    def attempt_restarted(self, track: MediaStreamTrack, silent_s: float) -> None:
        """One of its devices is restarted because it gave nothing for so long."""
        if self.is_wanted:
            self._report_error("device_busy", f"no data from {_name_of(track)} for {silent_s:.1f} s; restarting it")

    def attempt_silent(self, track: MediaStreamTrack) -> None:
        """A microphone has given nothing but zeros for a minute: recorded as it is, but hardly what was wanted."""
        if self.is_wanted:
            self._report_error("device_busy", f"digital silence from {_name_of(track)} for a minute: mixer or wires")

    # --- what the files say ------------------------------------------------------------------------------------------

    def _chunk_done(self, line: Mapping[str, Any]) -> None:
        """A chunk has its name."""
        self._listener.happened(self, "chunk", line)
        self.status.changed()

    def _lost(self, lost_s: float, reason: str) -> None:
        """So many seconds are missing; that is over, or the recording has ended."""
        self.log.warning("gap of %.1f s: %s", lost_s, reason)
        self._happened("gap", duration_s=lost_s, reason=reason)

    def _storage_failed(self, error: StorageError) -> None:
        if self.is_wanted:
            self._set_storage_problem(problem_of(error))
            self._supervisor.keep_trying("write", self._try_write, limit_s=lambda: _STORAGE_RETRY_S, first_s=0.0)
        else:
            self.log.error("%s", error)

    def _medium_changed(self, before: str, chunks: int, size: int) -> None:
        """The recording goes on under another recording_id: for who follows ids, one has ended and one begun."""
        self._happened("stopped", recording_id=before, cause=_OTHER_MEDIUM, chunks=chunks, bytes=size)
        self._happened("started", cause=_OTHER_MEDIUM, tracks=self.tracks)
        self.status.changed()

    def _disk_hangs(self, is_hanging: bool) -> None:
        if is_hanging:
            message = f"the disk has not answered for {HANG_S:g} s; recording continues in memory until that is full"
            self._set_storage_problem(Problem("no_space", message, cause=_HANGS))
        elif self.status.storage_problem is not None and self.status.storage_problem.cause == _HANGS:
            self.log.info("the disk answers again")
            self.status.recovered(storage=True)
            self.status.changed()

    def _set_storage_problem(self, problem: Problem) -> None:
        before = self.status.storage_problem
        if self.status.note_storage_problem(problem):
            self._report_error(problem.code, problem.message, level=logging.ERROR)
        if before is None or before.key != problem.key:
            self.status.changed()

    # --- what the supervisor tries; each says whether it is over ----------------------------------------------------

    @property
    def _is_file(self) -> bool:
        return self.input is not None and self.input.is_file

    def _retry_limit_s(self) -> float:
        """At most so long to the next try."""
        problem = self.status.run_problem or self._missing
        if self.settings.url is not None and self._gave_nothing:
            return _INPUT_RETRY_LIMIT_S
        if self.settings.url is not None:
            since_ns = None if problem is None else problem.since_ns
            away_ns = 0 if since_ns is None else SYSTEM_CLOCK.monotonic_ns() - since_ns
            return _INPUT_RETRY_S if away_ns < _INPUT_QUICKLY_NS else _INPUT_RETRY_LIMIT_S
        # A device that is missing may come at any moment; one that is there and refuses, less so.
        return _DEVICE_RETRY_LIMIT_S if problem is None or problem.code == "device_missing" else _RETRY_LIMIT_S

    def _go_down(self, problem: Problem) -> None:
        """Nothing is recorded that should be."""
        self._machine.do(Trigger.LOST)
        if self.files.has_media and not self._is_paused:  # what is paused loses nothing
            self.files.begin_loss(self.files.media_until_ns or self._wanted_since_ns or 0, problem.code)
        self._set_run_problem(problem)
        self._supervisor.keep_trying("begin", self._try_begin, limit_s=self._retry_limit_s, back_off=self._back_off)

    async def _try_begin(self) -> bool:
        """Record again, in a new chunk of the same recording."""
        async with self._lock:
            return self.state is not State.WAITING or await self._begin_again()

    async def _begin_again(self) -> bool:
        """Whether an attempt is under way; the recorder has recovered when that gives media."""
        try:
            await self._begin()
        except Exception as exc:
            self._set_run_problem(self._problem_of(exc))
            return False
        self._machine.do(Trigger.STARTED)
        self._pause_again()
        # A device has given its first frame by now; a network stream is known from its header on.
        if self.settings.url is None or self._attempt is None or self._attempt.has_media or self._is_paused:
            self._recovered()
        return True

    def _recovered(self) -> None:
        """What is wanted is recorded, perhaps again."""
        self._back_off.reset()
        self._gave_nothing = False
        if self.status.phase == "inactive":
            self._report_started()
        elif self.status.run_problem is not None:
            self.status.recovered(run=True)
            self.log.info("recording again")
            self.status.changed()

    def _pause_again(self) -> None:
        """A new attempt goes on as the last one was."""
        if self._is_paused and self._attempt is not None:
            if self.state is State.RECORDING:
                self._machine.do(Trigger.PAUSE)
            self._attempt.pause()

    async def _try_complete(self) -> bool:
        """If all devices can be had again, record them in a new chunk of the same recording.

        What still records is not touched before that is certain; a camera that is in use is shared.
        """
        async with self._lock:
            old = self._attempt
            if self.state not in (State.RECORDING, State.PAUSED) or old is None or not old.input.has_lost_track:
                return True
            try:
                input = await RecorderInput.open(self.settings, self._devices)
            except CommandError as exc:
                self._missing = problem_of(exc)
                return False
            self._attempt = None
            try:
                await old.stop()
            except BaseException:
                input.close()
                raise
            finally:
                old.close()
            if self.state is State.RECORDING:
                self.files.begin_loss(self.files.media_until_ns, "device_missing")
            try:
                await self._begin(input)
            except Exception as exc:
                self._go_down(self._problem_of(exc))
                return True
            self._pause_again()
            self._missing = None
            self.log.info("all devices are recorded again")
            self.status.changed()
            return self._attempt is None or not self._attempt.input.has_lost_track

    async def _try_write(self) -> bool:
        """If there is room again, the same recording goes on in a new chunk."""
        if not self.is_wanted:
            return True
        error = await self._archive.make_room()
        if not self.is_wanted:
            return True
        if error is not None:
            self._set_storage_problem(problem_of(error))
            return False
        self.status.recovered(storage=True)
        if self._attempt is not None:
            self._attempt.split()
        self.log.info("the storage can be written again; recording resumes in a new chunk")
        self.status.changed()
        return True

    async def _try_arm(self) -> bool:
        """Open the inputs while idle, and keep a pre-roll."""
        async with self._lock:
            if self.state is not State.IDLE or not self._holds_inputs:
                return True
            try:
                attempt = await self._new_attempt()
                try:
                    if attempt.input.is_file:  # nothing of it passes while it is not played
                        attempt.close()
                        return True
                    await attempt.arm()
                except BaseException:
                    attempt.close()
                    raise
            except Exception as exc:
                problem = self._problem_of(exc)
                if self._missing is None or self._missing.message != problem.message:
                    self.log.warning("no pre-roll for now: %s; trying again", problem.message)
                self._missing = problem
                return False
            self._missing = None
            self._attempt = attempt
            self._machine.do(Trigger.ARM)
            self.status.changed()
            return True

    # --- reporting ---------------------------------------------------------------------------------------------------

    def _problem_of(self, exc: Exception) -> Problem:
        problem = problem_of(exc, is_input=self.settings.url is not None)
        if problem.code == "internal":
            self.log.error("%s", problem.message, exc_info=exc)
        return problem

    def _set_run_problem(self, problem: Problem) -> None:
        before = self.status.run_problem
        if self.status.note_run_problem(problem):
            self._report_error(problem.code, f"{problem.message}", level=logging.ERROR)
        if before is None or before.key != problem.key:
            self.status.changed()

    def _warn_of_unmet(self, input: RecorderInput) -> None:
        news, self._unmet = input.unmet != self._unmet, input.unmet
        if news and input.unmet:
            text = ", ".join(
                f"{one['kind']} {one['constraint']} {one['asked']} "
                + ("(it has none)" if one["got"] is None else f"(is {one['got']})")
                for one in input.unmet
            )
            self.log.warning("asked for and not met: %s", text)

    def _report_error(self, code: str, message: str, *, level: int = logging.WARNING) -> None:
        self.log.log(level, "%s", message)
        self._happened("error", code=code, message=message)

    def _report(self, event_type: str, **facts: Any) -> None:
        self._happened(event_type, **facts)
        self.status.changed()

    def _happened(self, event_type: str, **facts: Any) -> None:
        self._listener.happened(self, event_type, facts)


def _facts_of(track: MediaStreamTrack) -> dict[str, Any]:
    settings = dict(track.get_settings())
    return {
        "kind": track.kind,
        "device_id": settings.get("device_id"),
        "label": track.label,
        "settings": settings,
    }


def _name_of(track: MediaStreamTrack) -> str:
    return f"{track.kind} device {track.label}"
