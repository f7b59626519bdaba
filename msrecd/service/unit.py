"""RecorderUnit: one configured recorder: what is wanted of it, what it does, and what those outside see of it.

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
from msrecd.service import black
from msrecd.service.black import Black
from msrecd.service.capture import Capture
from msrecd.service.early import EarlyBlobs
from msrecd.service.logs import RecorderLog
from msrecd.service.problems import Problem, problem_of
from msrecd.service.recovery import Recovery
from msrecd.service.run import STOP_DEADLINE_S, Run
from msrecd.service.settings import RecorderSettings
from msrecd.service.sink import BlobData, ChunkSink
from msrecd.service.tasks import Tasks

_SAME_END_NS = 50_000_000  # the end of a window moves by microseconds each time it is computed


class Archive(Protocol):
    """Where recordings go: the daemon's view of the storage."""

    def begin(self, recorder: str, mime_type: str) -> Any:
        """Draw a recording id (blocking); returns a storage.Recording."""

    def facts(self, *, info: ChunkInfo | None, final: bool, gaps_before: list[dict[str, Any]], lost_s: float) -> Any:
        """storage.ChunkFacts."""

    async def make_room(self) -> bool:
        """Rotate; whether there is room to write now."""


class Listener(Protocol):
    """Who is told what happens."""

    def state_changed(self, unit: RecorderUnit) -> None: ...
    def happened(self, unit: RecorderUnit, event_type: str, facts: Mapping[str, Any]) -> None: ...
    def played_out(self, unit: RecorderUnit) -> None: ...


@dataclass(frozen=True, slots=True)
class Wish:
    """Since when (monotonic ns) a recording is wanted."""

    since_ns: int


class RecorderUnit:
    """Commands are coroutines and run one at a time; faults are handled by tasks of the unit's own."""

    def __init__(
        self, settings: RecorderSettings, *, devices: MediaDevices, archive: Archive, listener: Listener
    ) -> None:
        self.settings = settings
        self.log = RecorderLog(logging.getLogger(__name__), settings.name)
        self._devices = devices
        self._archive = archive
        self._listener = listener
        self._tasks = Tasks(self.log)
        self._recovery = Recovery(settings.name, self, self._tasks)
        self._lock = asyncio.Lock()
        self._wish: Wish | None = None
        self._run: Run | None = None
        self._runs = 0
        self._sink: ChunkSink | None = None
        self._early = EarlyBlobs()
        self._problem: Problem | None = None
        self._storage_problem: Problem | None = None
        self._closed = False
        # What the recording is for those outside: a recorder that is replaced after a fault, or whose last chunk is
        # still being written, changes nothing about it.
        self._phase = "inactive"
        self._shown = "inactive"
        self._cause: str | None = None
        self._mime_type = ""
        self._down_since_ns: int | None = None
        self._lacking: Problem | None = None  # why the last try did not have all devices
        self._black = Black()
        self._media_until_ns = 0  # capture time up to which the chunks of this recording reach
        self.since_ns = SYSTEM_CLOCK.monotonic_ns()  # when the present state was entered
        self.recording_id: str | None = None
        self.chunks = 0
        self.bytes = 0
        self.dropped_frames = 0
        self.last_chunk: Mapping[str, Any] | None = None
        self.last_data_ns = 0
        self.until_ns: int | None = None
        self.rev = 0

    # --- what it is doing --------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def state(self) -> str:
        """inactive, recording, paused or error; inactive when the files of a recording are finished, not before."""
        return "error" if self.problem is not None else self._phase

    @property
    def problem(self) -> Problem | None:
        return self._storage_problem or self._problem

    @property
    def is_wanted(self) -> bool:
        return self._wish is not None

    @property
    def cause(self) -> str | None:
        """Who asked for the recording, until its last file is finished."""
        return self._cause

    @property
    def wanted_since_ns(self) -> int | None:
        """When the present recording was asked for, on CLOCK_MONOTONIC."""
        return None if self._wish is None else self._wish.since_ns

    @property
    def mime_type(self) -> str:
        """What the present recording is; before one, what is configured."""
        running = "" if self._run is None else self._run.mime_type
        return self._mime_type or running or str(self.settings.options.get("mime_type") or "")

    @property
    def capture(self) -> Capture | None:
        return None if self._run is None else self._run.capture

    @property
    def open_bytes(self) -> int:
        """Bytes in the chunk that is being written."""
        return 0 if self._sink is None else self._sink.stats.open_bytes

    @property
    def is_recording(self) -> bool:
        return self._run is not None and self._run.state == "recording" and self._storage_problem is None

    def rates(self) -> dict[str, Any]:
        """For the health message: what is written, and what waits to be."""
        now = SYSTEM_CLOCK.monotonic_ns()
        line = self.last_chunk or {}
        duration = float(line.get("duration_s") or 0.0)
        video = (line.get("tracks") or {}).get("video") or {}
        return {
            "state": self.state,
            "fps": round(video["frames"] / duration, 2) if duration and "frames" in video else None,
            "bitrate_bps": round(8 * line["bytes"] / duration) if duration else None,
            "queue_ms": round((now - self.last_data_ns) / 1e6) if self.is_recording else 0,
            "discarded_bytes": 0 if self._sink is None else self._sink.stats.discarded_bytes,
        }

    # --- commands ----------------------------------------------------------------------------------------------------

    def set_until(self, until_ns: int | None) -> None:
        """When the recording will end as far as is decided; others see to it."""
        if until_ns is not None and self.until_ns is not None and abs(until_ns - self.until_ns) < _SAME_END_NS:
            return
        if until_ns != self.until_ns:
            self.until_ns = until_ns
            self._changed()

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
            self._cause = cause
            try:
                await self._begin_recording()
            except CommandError as exc:
                if persistent:
                    self._set_problem(Problem(exc.code, exc.message))
                    self._bring_back()
                    return True
                self._give_up()
                await self._release()
                self._changed()
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
            self._phase = "paused"
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
            self._phase = "recording"
            self._told("resumed")
            return True

    async def split(self) -> bool:
        """Raises: CommandError: wrong_state."""
        async with self._lock:
            self._running("split").split()
            return True

    async def sync(self) -> None:
        """Put what is written onto the disk now."""
        if self._sink is not None:
            await self._sink.sync()

    async def close(self, cause: str = "shutdown") -> None:
        """End whatever is going on, for good: at the end of the program, or when a reload replaces it."""
        self._closed = True
        await self.stop(cause)
        self._tasks.cancel()

    def devices_changed(self) -> None:
        """Something was plugged in or out: what waits for a device tries again at once."""
        self._recovery.hurry()

    # --- a recording -------------------------------------------------------------------------------------------------

    def _running(self, verb: str) -> Run:
        if self._run is None or not self._run.is_active:
            raise CommandError("wrong_state", f"{verb}: {self.name} is not recording")
        return self._run

    def _give_up(self) -> None:
        self._wish = None
        self.until_ns = None
        self._recovery.disarm()

    async def _begin_recording(self) -> None:
        """
        Raises:
            CommandError: it could not begin; what was opened has to be released.
        """
        await self._begin_run()
        self._recovery.well()
        self._phase = "recording"
        self._problem = None
        self._told("started", cause=self.cause)

    async def _begin_run(self, capture: Capture | None = None) -> None:
        """Record a stream (open it, or take an open one) into the present recording; begin that if there is none.

        Raises:
            CommandError: it could not begin.
        """
        self._runs += 1
        self.last_data_ns = SYSTEM_CLOCK.monotonic_ns()  # from now on some is to come
        run = self._run = Run(self._runs, self.settings, self)
        try:
            await run.begin(self._devices, capture)
            if self._sink is None and run.has_started:
                await self._open_sink(run)
        except CommandError:
            self._run = None
            raise
        except StorageError as exc:
            self._run = None
            self._early.drop()  # each try would leave its own behind
            await run.end()
            problem = problem_of(exc)
            raise CommandError(problem.code, problem.message) from exc
        self.last_data_ns = SYSTEM_CLOCK.monotonic_ns()
        if self._run is not run and self._problem is not None:
            raise CommandError(self._problem.code, self._problem.message)

    async def _open_sink(self, run: Run) -> None:
        """The full type, with codecs, is known from the `start` event on; blobs that come meanwhile wait."""
        mime_type = run.file_type
        recording = await asyncio.to_thread(self._archive.begin, self.name, mime_type)
        self._mime_type = mime_type
        self.recording_id = recording.recording_id
        self.chunks = self.bytes = self.dropped_frames = 0
        self.last_chunk = None
        self._media_until_ns = 0
        self._sink = ChunkSink(
            recording,
            make_facts=self._facts,
            on_chunk=self._chunk_done,
            on_lost=self._storage_lost,
            on_error=self._storage_failed,
        )
        self._early.pass_on(self._write)

    def _facts(self, *, info: ChunkInfo | None, gaps_before: list[dict[str, Any]], **known: Any) -> Any:
        """In the sink's thread: what the manifest says of a chunk."""
        return self._archive.facts(info=info, gaps_before=gaps_before + self._black.gaps(info), **known)

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
        self._happened("stopped", cause=cause, chunks=self.chunks, bytes=self.bytes)
        self.recording_id = None
        self._changed()

    async def _release(self) -> None:
        if self._run is not None:
            self._run.close()
        self._run = None
        self._early.drop()
        await self._close_sink()
        self._lacking = None
        self._black = Black()
        self._problem = self._storage_problem = None
        self._down_since_ns = None
        self._phase = "inactive"
        self._cause = None
        self._mime_type = ""

    async def _close_sink(self) -> None:
        """What a disk that hangs does not take in time stays with the sink's thread, which finishes it if it can."""
        sink, self._sink = self._sink, None
        if sink is None:
            return
        try:
            async with asyncio.timeout(STOP_DEADLINE_S):
                await sink.close()
        except TimeoutError:
            self.log.error("the disk did not take the end of the recording within %g s", STOP_DEADLINE_S)

    # --- what a run says (RunListener) -------------------------------------------------------------------------------

    def run_gave(self, run: Run, event: BlobEvent) -> None:
        """A blob: written, or kept until the recording has its files; the recorder bounds what is under way."""
        if self._sink is not None:
            event.wait_until(self._write(run, event))
        elif run is self._run and self._wish is not None:
            event.wait_until(self._early.keep(run, event))

    def _write(self, run: Run, event: BlobEvent) -> asyncio.Future[None]:
        assert self._sink is not None
        self.last_data_ns = SYSTEM_CLOCK.monotonic_ns()
        if event.chunk_info is not None:
            self._media_until_ns = event.chunk_info.ended_ns
            self.dropped_frames += sum(t.dropped for t in event.chunk_info.tracks if t.kind == "video")
        return self._sink.put(
            BlobData(
                parts=event.data.parts,
                chunk_key=(run.number, event.chunk or 1),
                started_ns=event.chunk_started_ns or self.last_data_ns,
                chunk_end=event.chunk_end,
                info=event.chunk_info,
                final=event.chunk_end and self._wish is None,
            )
        )

    def run_missed(self, event: GapEvent) -> None:
        """Media is lost that should have been recorded."""
        self.log.warning("%.1f s are missing: %s", event.gap.duration_s, event.gap.reason)
        self._happened("gap", duration_s=event.gap.duration_s, reason=event.gap.reason)

    def run_stopped(self, run: Run) -> None:
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
                self._black.muted(now_ns, paused=self._phase == "paused")
            else:
                self._tell_black(self._black.unmuted(now_ns))
        if muted and self._phase == "recording":
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

    def _chunk_done(self, line: Mapping[str, Any]) -> None:
        self.chunks += 1
        self.bytes += int(line.get("bytes", 0))
        self.last_chunk = line
        self._listener.happened(self, "chunk", line)
        self._changed()

    # --- faults (Patient) --------------------------------------------------------------------------------------------

    def _bring_back(self) -> None:
        if self._down_since_ns is None:
            self._down_since_ns = self._media_until_ns or SYSTEM_CLOCK.monotonic_ns()
        self._recovery.run_again()

    @property
    def lacks_device(self) -> bool:
        """Whether one of its devices is away while it is wanted, whatever else is recorded."""
        if self._problem is not None and self._problem.code in ("device_missing", "device_busy"):
            return True
        return self._run is not None and self._run.has_lost_track

    @property
    def waits_for_device(self) -> bool:
        problem = self._problem if self._run is None else self._lacking
        return problem is not None and problem.code == "device_missing"

    async def try_run(self) -> bool:
        """Nothing is recorded: begin, or go on in a new chunk, paused if it was paused."""
        async with self._lock:
            if self._wish is None:
                return True
            try:
                if self._sink is None:
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
                capture = await Capture.open(self.settings, self._devices)
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
            lost_s = self._lost_s(self._media_until_ns)
            self.log.info("all devices are recorded again, after a pause of %.1f s for all", lost_s)
            self._happened("gap", duration_s=lost_s, reason="device_missing")
            self._changed()
            return self._run is None or not self._run.has_lost_track

    async def try_write(self) -> bool:
        """If there is room again, the same recording goes on in a new chunk."""
        if self._wish is None:
            return True
        if not await self._archive.make_room():
            return False
        self._storage_problem = None
        if self._run is not None:
            self._run.split()
        self.log.info("there is room again; recording goes on")
        self._changed()
        return True

    async def _continue(self, capture: Capture | None = None) -> None:
        await self._begin_run(capture)
        if self._phase == "paused" and self._run is not None:
            self._run.pause()

    def _recovered(self) -> None:
        lost_s = self._lost_s(self._down_since_ns or self._media_until_ns)
        reason = self._problem.code if self._problem is not None else "device_missing"
        self._problem = None
        self._recovery.well()
        self.log.info("recording again after %.1f s", lost_s)
        self._happened("gap", duration_s=lost_s, reason=reason)
        self._changed()

    def _lost_s(self, since_ns: int) -> float:
        """Seconds since then, which nobody has recorded; a recording that is paused loses nothing."""
        if self._phase == "paused" or not since_ns:
            return 0.0
        return round(max(0, SYSTEM_CLOCK.monotonic_ns() - since_ns) / NS, 3)

    def _storage_lost(self, lost_s: float, reason: str) -> None:
        """The storage took nothing for so long; it takes again, or the recording has ended."""
        self.log.warning("%.1f s are missing: %s", lost_s, reason)
        self._happened("gap", duration_s=lost_s, reason=reason)

    def _storage_failed(self, error: StorageError) -> None:
        problem = problem_of(error)
        self.log.error("cannot write: %s", problem.message)
        if self._storage_problem is None:
            self._storage_problem = problem.begun()
            self._happened("error", code=problem.code, message=problem.message)
            self._changed()
        self._recovery.write_again()

    # --- telling -----------------------------------------------------------------------------------------------------

    def _set_problem(self, problem: Problem) -> None:
        known = self._problem
        self._problem = problem.begun(known)
        if known is None or known.code != problem.code or known.since_ns is None:
            self.log.error("%s", problem.message)
            self._happened("error", code=problem.code, message=problem.message)
        self._changed()

    def _told(self, event_type: str, **facts: Any) -> None:
        self._happened(event_type, **facts)
        self._changed()

    def _happened(self, event_type: str, **facts: Any) -> None:
        self._listener.happened(self, event_type, facts)

    def _changed(self) -> None:
        if self.state != self._shown:
            self._shown, self.since_ns = self.state, SYSTEM_CLOCK.monotonic_ns()
        self.rev += 1
        self._listener.state_changed(self)
