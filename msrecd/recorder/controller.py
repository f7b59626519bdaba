"""RecorderController: one configured recorder: what is wanted of it, and what it does.

A recording lives from `start` to `stop`. It has one attempt after the other (attempts.py): a device that went away and
came back continues the recording in a new chunk. The states and who performs each transition are in states.py; every
transition is performed on the loop: here, and in arming.py those of a recorder that is idle. What is said of it:
reporter.py; faults of the storage: storagefaults.py; the time of the next try: supervisor.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from msrecd import BlobEvent, GapEvent, MediaDevices, MediaStreamTrack
from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.errors import CommandError
from msrecd.recorder.arming import Arming
from msrecd.recorder.attempt import STOP_DEADLINE_S, Attempt
from msrecd.recorder.attempts import Attempts
from msrecd.recorder.files import Archive, RecordingFiles, has_media
from msrecd.recorder.input import RecorderInput
from msrecd.recorder.problems import Problem, problem_of
from msrecd.recorder.reporter import Listener, RecorderLog, Reporter, name_of
from msrecd.recorder.settings import RecorderSettings
from msrecd.recorder.states import WANTED, State, StateMachine, Trigger
from msrecd.recorder.status import RecorderStatus
from msrecd.recorder.storagefaults import StorageFaults
from msrecd.recorder.supervisor import Supervisor, retry_limit_s
from msrecd.tasks import Tasks

PROGRESS_LIMIT_S = 30.0  # a recorder whose data does not reach the disk for so long does not advance
_OTHER_MEDIUM = "medium"  # cause of the events where one recording ends and the next begins on another medium


class RecorderController:
    """Commands are coroutines and run one at a time; a command that fails or is cancelled undoes what it began."""

    def __init__(
        self, settings: RecorderSettings, *, devices: MediaDevices, archive: Archive, listener: Listener
    ) -> None:
        self.settings = settings
        self.log = RecorderLog(logging.getLogger(__name__), settings.name)
        self.status = RecorderStatus(lambda: listener.state_changed(self))
        self._listener = listener
        self._devices = devices
        self._tasks = Tasks(self.log)
        self._supervisor = Supervisor(settings.name, self._tasks, self.log)
        self._reporter = Reporter(self, self.status, self.log, listener)
        storage_faults = StorageFaults(
            self.status,
            self._reporter,
            self.log,
            self._supervisor,
            archive,
            settings.name,
            is_wanted=lambda: self.is_wanted,
            resume=self._split,
        )
        self.files = RecordingFiles(
            settings.name,
            archive,
            self.log,
            time_lapse=settings.time_lapse,
            on_chunk=self._chunk_done,
            on_lost=self._reporter.lost,
            on_error=storage_faults.failed,
            on_hang=storage_faults.hangs,
            on_renamed=self._medium_changed,
        )
        self.attempts = Attempts(settings, devices, self.files, self)
        self._machine = StateMachine()
        self._lock = asyncio.Lock()
        self.is_taking_still = False  # its camera gives no frames meanwhile, as it was asked to
        self._wanted_since_ns: int | None = None
        self._missing: Problem | None = None  # why the last try did not have all devices
        self._arming = Arming(
            settings,
            self.attempts,
            machine=self._machine,
            lock=self._lock,
            status=self.status,
            reporter=self._reporter,
            supervisor=self._supervisor,
            retry_limit_s=self._retry_limit_s,
            found=lambda finding: listener.found(self, finding),
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
        return self._arming.is_armed

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
        running = "" if self.attempts.current is None else self.attempts.current.mime_type
        return self.files.mime_type or running or str(self.settings.options.get("mime_type") or "")

    @property
    def input(self) -> RecorderInput | None:
        """What it has open."""
        return self.attempts.input

    @property
    def shared_input(self) -> RecorderInput | None:
        """What it has open that others may look at, too; a camera that rests between frames they open themselves."""
        return None if self.input is None or self.input.is_resting else self.input

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
        return self.attempts.current.pre_roll_bytes if self.is_armed and self.attempts.current is not None else 0

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
        if not self.is_recording or self.attempts.current is None:
            return True
        rhythm_s = self.settings.timeslice_ms / 1000 + self.attempts.current.frame_interval_s
        return now_ns - self.files.last_data_ns <= max(PROGRESS_LIMIT_S, 3 * rhythm_s) * NS

    @property
    def triggers(self) -> list[dict[str, Any]]:
        """For state/health: what its triggers score."""
        return self._arming.triggers

    # --- commands ----------------------------------------------------------------------------------------------------

    def arm_triggers(self, is_armed: bool) -> None:
        """Let the triggers look at the inputs, which are held open for them, or not; without triggers nothing."""
        self._arming.arm_triggers(is_armed)

    def arm(self) -> None:
        """Hold the inputs open while idle, for `pre_roll` or triggers; returns at once, and is kept up."""
        self._arming.arm()

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
            self._wanted_since_ns = SYSTEM_CLOCK.monotonic_ns()
            self.attempts.begin_recording()
            self.status.cause = cause
            try:
                await self._begin()
            except Exception as exc:
                problem = self._reporter.problem_of(exc)
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
            self.files.pause()
            self.status.phase = "paused"
            self._reporter.change("paused")
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
            self._reporter.change("resumed")
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
        """End what is under way, for good: at the end of the program, or when a reload replaces it."""
        self._arming.close()
        await self.stop(cause)
        self._supervisor.cancel()
        async with self._lock:
            if self.state is State.CLOSED:
                return
            self.attempts.close()
            self._machine.do(Trigger.CLOSE)
        self._tasks.cancel()

    def devices_changed(self) -> None:
        """Something was plugged in or out: what waits for a device tries again at once."""
        self._supervisor.hurry()

    # --- a recording -------------------------------------------------------------------------------------------------

    def _running(self, verb: str) -> Attempt:
        attempt = self.attempts.current
        if attempt is None or self.state not in (State.RECORDING, State.PAUSED) or not attempt.is_active:
            raise CommandError("wrong_state", f"{verb}: {self.name} is not recording")
        return attempt

    async def _begin(self, input: RecorderInput | None = None) -> None:
        """Begin an attempt in the present recording; see Attempts.begin."""
        attempt = await self.attempts.begin(input)
        self._reporter.unmet(attempt.input)
        if not attempt.is_active:
            self._attempt_ended(attempt)

    def _split(self) -> None:
        if self.attempts.current is not None:
            self.attempts.current.split()

    def _started(self) -> None:
        """The first attempt of a recording is under way."""
        self._machine.do(Trigger.STARTED)
        self._report_started()

    def _report_started(self) -> None:
        self.status.phase = "recording"
        self.status.recovered(run=True, arm=True)
        self._reporter.change("started", cause=self.status.cause, tracks=self.tracks)

    async def _refuse(self) -> None:
        """A start has failed: as if it had not been asked for."""
        self.attempts.close()
        await self.files.close()
        self._machine.do(Trigger.REFUSED)
        self._forget_recording()
        self.status.changed()
        self.arm()

    async def _end_recording(self, cause: str) -> None:
        was_down = self.status.run_problem is not None
        self._machine.do(Trigger.STOP)
        now_ns = SYSTEM_CLOCK.monotonic_ns()
        is_armed = False
        try:
            attempt = self.attempts.current
            if attempt is not None and await attempt.stop():
                is_armed = self._arming.is_wanted and self.attempts.arm_again(attempt)
            elif attempt is not None:
                self.log.error("the recording did not end within %g s; its last seconds are lost", STOP_DEADLINE_S)
        finally:
            if not is_armed:
                self.attempts.close()
            await self.files.close(now_ns if was_down else 0)
            self._reporter.event("stopped", cause=cause, chunks=self.files.chunks, bytes=self.files.bytes)
            self.files.forget()
            self._machine.do(Trigger.STOPPED)
            if is_armed:
                self._machine.do(Trigger.ARM)
            self._forget_recording()
            self.status.changed()
            self.arm()

    def _forget_recording(self) -> None:
        self._wanted_since_ns = None
        self._missing = None
        self.status.end()

    # --- what an attempt says (see Attempt) ----------------------------------------------------------------------

    def attempt_gave(self, attempt: Attempt, event: BlobEvent) -> None:
        """A blob. (One that has been replaced may only finish the files that it has begun.)"""
        if self.attempts.belongs(attempt):
            self.files.take(attempt.number, event, may_be_last=event.chunk_end and not attempt.is_active)
        if not attempt.has_media and has_media(event):
            attempt.has_media = True
            if attempt is self.attempts.current and self.state is State.RECORDING:
                self._recovered()

    def attempt_missed(self, event: GapEvent) -> None:
        """Media is lost that should have been recorded; it stands in the chunk's own account."""
        self._reporter.lost(event.gap.duration_s, event.gap.reason)

    def attempt_stopped(self, attempt: Attempt) -> None:
        """It gave its last blob: as it was told to, or because nothing is left to record."""
        if attempt is self.attempts.current and self.is_wanted and not self.attempts.is_beginning:
            self._attempt_ended(attempt)

    def _attempt_ended(self, attempt: Attempt) -> None:
        if attempt.input.has_played_out:
            self._listener.played_out(self)
            self._tasks.spawn(self.stop("ended"), f"{self.name}-ended")
            return
        problem = attempt.problem or self._missing or Problem("device_missing", "the device went away")
        self._missing = None
        self.attempts.note_end(attempt)
        self.attempts.close()
        self._go_down(problem)

    def attempt_lost_track(self, attempt: Attempt, track: MediaStreamTrack) -> None:
        """One of its devices went away. The others are recorded; what is only armed is opened again."""
        if attempt is not self.attempts.current:
            return
        if self.is_armed:
            self._arming.lost(attempt, track)
        elif self.is_wanted and not attempt.input.tracks:  # the attempt ends by itself
            self._missing = Problem("device_missing", f"{name_of(track)} went away")
        elif self.is_wanted and attempt.is_active and not attempt.input.is_file:
            self._reporter.error("device_missing", f"{name_of(track)} went away; the other tracks are recorded")
            self._missing = Problem("device_missing", "")
            self.status.changed()
            self._supervisor.keep_trying("complete", self._try_complete, limit_s=self._retry_limit_s)

    def attempt_muted(self, track: MediaStreamTrack, muted: bool) -> None:
        """One of its devices gives nothing (black and silence are recorded meanwhile, as a gap), or gives again."""
        if muted and self.state is State.RECORDING and not self.is_taking_still:
            self._reporter.no_data(track)

    def attempt_restarted(self, track: MediaStreamTrack, silent_s: float) -> None:
        """One of its devices is restarted because it gave nothing for so long."""
        if self.is_wanted:
            self._reporter.no_data(track, restarted_after_s=silent_s)

    def attempt_silent(self, track: MediaStreamTrack) -> None:
        """A microphone has given nothing but zeros for a minute: recorded as it is, but hardly what was wanted."""
        if self.is_wanted:
            self._reporter.digital_silence(track)

    # --- what the files say ------------------------------------------------------------------------------------------

    def _chunk_done(self, line: Mapping[str, Any]) -> None:
        """A chunk has its name."""
        self._listener.happened(self, "chunk", line)
        self.status.changed()

    def _medium_changed(self, before: str, chunks: int, size: int) -> None:
        """The recording continues under another recording_id: to a reader of ids one has ended and another begun."""
        self._reporter.event("stopped", recording_id=before, cause=_OTHER_MEDIUM, chunks=chunks, bytes=size)
        self._reporter.event("started", cause=_OTHER_MEDIUM, tracks=self.tracks)
        self.status.changed()

    # --- what the supervisor tries; each says whether it is over ----------------------------------------------------

    def _retry_limit_s(self) -> float:
        """At most so long to the next try."""
        problem = self.status.run_problem or self.status.arm_problem or self._missing
        is_network = self.settings.url is not None
        return retry_limit_s(problem, is_network=is_network, gave_nothing=self.attempts.gave_nothing)

    def _go_down(self, problem: Problem) -> None:
        """Nothing is recorded that should be."""
        self._machine.do(Trigger.LOST)
        self.status.recovered(arm=True)  # it is not idle any more
        if self.files.has_media and not self._is_paused:  # what is paused loses nothing
            self.files.begin_loss(self.files.media_until_ns or self._wanted_since_ns or 0, problem.code)
        self._reporter.run_problem(problem)
        back_off = self.attempts.back_off
        self._supervisor.keep_trying("begin", self._try_begin, limit_s=self._retry_limit_s, back_off=back_off)

    async def _try_begin(self) -> bool:
        """Record again, in a new chunk of the same recording."""
        async with self._lock:
            return self.state is not State.WAITING or await self._begin_again()

    async def _begin_again(self) -> bool:
        """Whether an attempt is under way; the recorder has recovered when that gives media."""
        try:
            await self._begin()
        except Exception as exc:
            self._reporter.run_problem(self._reporter.problem_of(exc))
            return False
        self._machine.do(Trigger.STARTED)
        self._pause_again()
        # A device has given its first frame by now; a network stream is known from its header on.
        attempt = self.attempts.current
        if self.settings.url is None or attempt is None or attempt.has_media or self._is_paused:
            self._recovered()
        return True

    def _recovered(self) -> None:
        """What is wanted is recorded, perhaps again."""
        self.attempts.reset()
        if self.status.phase == "inactive":
            self._report_started()
        elif self.status.run_problem is not None:
            self.status.recovered(run=True)
            self.log.info("recording again")
            self.status.changed()

    def _pause_again(self) -> None:
        """A new attempt is paused if the last one was."""
        if self._is_paused and self.attempts.current is not None:
            if self.state is State.RECORDING:
                self._machine.do(Trigger.PAUSE)
            self.attempts.current.pause()

    async def _try_complete(self) -> bool:
        """If all devices can be had again, record them in a new chunk of the same recording.

        What still records is not touched before that is certain; a camera that is in use is shared.
        """
        async with self._lock:
            old = self.attempts.current
            if self.state not in (State.RECORDING, State.PAUSED) or old is None or not old.input.has_lost_track:
                return True
            try:
                input = await RecorderInput.open(self.settings, self._devices, rests=True)
            except CommandError as exc:
                self._missing = problem_of(exc)
                return False
            self.attempts.current = None
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
                self._go_down(self._reporter.problem_of(exc))
                return True
            self._pause_again()
            self._missing = None
            self.log.info("all devices are recorded again")
            self.status.changed()
            return self.attempts.current is None or not self.attempts.current.input.has_lost_track


def _facts_of(track: MediaStreamTrack) -> dict[str, Any]:
    settings = dict(track.get_settings())
    return {
        "kind": track.kind,
        "device_id": settings.get("device_id"),
        "label": track.label,
        "settings": settings,
    }
