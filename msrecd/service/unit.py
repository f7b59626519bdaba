"""RecorderUnit: one configured recorder: what is wanted of it, what it does, and how it gets there again after a fault.

A recording lives from `start` to `stop`. Inside it there may be several runs of a MediaRecorder: a device that went
away and came back continues the recording in a new chunk. Everything here happens on the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.codecs.table import Unsupported, check_type
from msrecd.dom.exceptions import DOMException
from msrecd.errors import CommandError, StorageError
from msrecd.media.devices import MediaDevices
from msrecd.media.events import BlobEvent, GapEvent
from msrecd.media.recorder import MediaRecorder
from msrecd.media.track import MediaStreamTrack
from msrecd.muxing.facts import ChunkInfo
from msrecd.service.backoff import BackOff
from msrecd.service.capture import Capture
from msrecd.service.logs import RecorderLog
from msrecd.service.problems import Problem, problem_of
from msrecd.service.settings import RecorderSettings
from msrecd.service.sink import BlobData, ChunkSink

START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 20.0
_STORAGE_RETRY_S = 5.0
_RETRY_LIMIT_S = 60.0
_DEVICE_RETRY_LIMIT_S = 3.0  # where hot-plug does not tell that a device is back, a recording goes on within 5 s too
_MAX_EARLY = 100  # blobs that may come before the recording has its id
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
        self._lock = asyncio.Lock()
        self._wish: Wish | None = None
        self._capture: Capture | None = None
        self._recorder: MediaRecorder | None = None
        self._sink: ChunkSink | None = None
        self._early: list[BlobEvent] = []
        self._problem: Problem | None = None
        self._storage_problem: Problem | None = None
        self._closed = False
        # What the recording is for those outside: a recorder that is replaced after a fault, or whose last chunk is
        # still being written, changes nothing about it.
        self._phase = "inactive"
        self._shown = "inactive"
        self._cause: str | None = None
        self._mime_type = ""
        self._runs = 0
        self._stopped = asyncio.Event()
        self._stopped.set()
        self._retry: asyncio.Task[None] | None = None
        self._mending: asyncio.Task[None] | None = None
        self._storage_retry: asyncio.Task[None] | None = None
        self._retry_now = asyncio.Event()
        self._back_off = BackOff()
        self._down_since_ns: int | None = None
        self._media_until_ns = 0  # capture time up to which the chunks of this recording reach
        self._tasks: set[asyncio.Task[Any]] = set()
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
        asked = str(self.settings.options.get("mime_type") or "")
        return (self._recorder.mime_type if self._recorder is not None else self._mime_type) or asked

    @property
    def capture(self) -> Capture | None:
        return self._capture

    @property
    def open_bytes(self) -> int:
        """Bytes in the chunk that is being written."""
        return 0 if self._sink is None else self._sink.stats.open_bytes

    @property
    def is_recording(self) -> bool:
        return self._recorder is not None and self._recorder.state == "recording" and self._storage_problem is None

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
                    self._retry_later()
                    return True
                self._wish = None
                self._disarm()
                await self._release()
                self._changed()
                raise
            return True

    async def stop(self, cause: str) -> bool:
        """End the recording, all files finished; False when there is none.

        Raises:
            CommandError: internal: it did not end in time.
        """
        async with self._lock:
            if self._wish is None:
                return False
            self._wish = None
            self._disarm()
            await self._end_recording(cause)
            return True

    async def pause(self) -> bool:
        """Raises: CommandError: wrong_state."""
        async with self._lock:
            recorder = self._running("pause")
            if recorder.state == "paused":
                return False
            recorder.pause()
            self._phase = "paused"
            self._told("paused")
            return True

    async def resume(self) -> bool:
        """Raises: CommandError: wrong_state."""
        async with self._lock:
            recorder = self._running("resume")
            if recorder.state == "recording":
                return False
            recorder.resume()
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
        with contextlib.suppress(CommandError):
            await self.stop(cause)
        for task in list(self._tasks):
            task.cancel()

    def devices_changed(self) -> None:
        """Something was plugged in or out: what waits for a device tries again at once."""
        self._retry_now.set()

    # --- a recording -------------------------------------------------------------------------------------------------

    def _running(self, verb: str) -> MediaRecorder:
        if self._recorder is None or self._recorder.state == "inactive":
            raise CommandError("wrong_state", f"{verb}: {self.name} is not recording")
        return self._recorder

    def _disarm(self) -> None:
        self.until_ns = None
        for task in (self._retry, self._mending, self._storage_retry):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        self._retry = self._mending = self._storage_retry = None

    async def _begin_recording(self) -> None:
        """
        Raises:
            CommandError: it could not begin; what was opened has to be released.
        """
        await self._run_recorder()
        self._back_off.reset()
        self._phase = "recording"
        self._problem = None
        self._told("started", cause=self.cause)

    async def _run_recorder(self, capture: Capture | None = None) -> None:
        """Open the stream (or take an open one) and record it, into the present recording if there is one."""
        try:
            if self.settings.options.get("mime_type"):
                check_type(str(self.settings.options["mime_type"]), can_provide=lambda _: True)
            self._capture = capture or await Capture.open(self.settings, self._devices)
            recorder = MediaRecorder(self._capture.stream, self.settings.options)
            started = asyncio.Event()
            recorder.onstart = lambda _: started.set()
            recorder.ondataavailable = self._take
            recorder.onstop = lambda _: self._recorder_stopped(recorder)
            recorder.onerror = lambda event: self._recorder_failed(event.error)
            recorder.ongap = self._gap
            self._runs += 1
            self._stopped.clear()
            self._recorder = recorder
            self._capture.on_track_ended(self._track_ended)
            recorder.start(self.settings.timeslice_ms)
            await self._capture.begin()
            async with asyncio.timeout(START_DEADLINE_S):
                await self._first(started, self._stopped)
            if self._sink is None and started.is_set():
                await self._open_sink(recorder)
            self.last_data_ns = SYSTEM_CLOCK.monotonic_ns()
        except (DOMException, TimeoutError, Unsupported, StorageError, TypeError) as exc:
            problem = problem_of(exc)
            if self._recorder is not None and self._recorder.state != "inactive":
                self._recorder.stop()
            self._recorder = None
            self._stopped.set()
            if self._capture is not None:
                self._capture.close()
                self._capture = None
            raise CommandError(problem.code, problem.message) from exc
        if self._stopped.is_set() and self._recorder is None and self._problem is not None:
            raise CommandError(self._problem.code, self._problem.message)

    async def _continue(self, capture: Capture | None = None) -> None:
        """Record again after a fault, paused if it was paused.

        Raises:
            CommandError: as `_run_recorder`.
        """
        await self._run_recorder(capture)
        if self._phase == "paused" and self._recorder is not None:
            self._recorder.pause()

    async def _first(self, *events: asyncio.Event) -> None:
        tasks = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _open_sink(self, recorder: MediaRecorder) -> None:
        """The full type, with codecs, is known from the `start` event on; blobs that come meanwhile wait."""
        kinds = {track.kind for track in recorder.stream.get_tracks()}
        mime_type = recorder.mime_type or ("video/mp4" if "video" in kinds else "audio/mp4")
        if "video" not in kinds and mime_type.startswith("video/"):
            mime_type = "audio/" + mime_type.removeprefix("video/")
        recording = await asyncio.to_thread(self._archive.begin, self.name, mime_type)
        self._mime_type = mime_type
        self.recording_id = recording.recording_id
        self.chunks = self.bytes = self.dropped_frames = 0
        self.last_chunk = None
        self._media_until_ns = 0
        self._sink = ChunkSink(
            recording, make_facts=self._archive.facts, on_chunk=self._chunk_done, on_error=self._storage_failed
        )
        early, self._early = self._early, []
        for event in early:
            self._take(event)

    async def _end_recording(self, cause: str) -> None:
        recorder = self._recorder
        if recorder is not None and recorder.state != "inactive":
            recorder.stop()
        try:
            async with asyncio.timeout(STOP_DEADLINE_S):
                await self._stopped.wait()
                if self._sink is not None:
                    await self._sink.close()
        except TimeoutError:
            self.log.error(
                "the recording did not end within %g s; its last chunk may be finished later", STOP_DEADLINE_S
            )
        await self._release()
        self._happened("stopped", cause=cause, chunks=self.chunks, bytes=self.bytes)
        self.recording_id = None
        self._changed()

    async def _release(self) -> None:
        if self._capture is not None:
            self._capture.close()
            self._capture = None
        if self._sink is not None:
            await self._sink.close()
        self._recorder = None
        self._sink = None
        self._early.clear()
        self._problem = self._storage_problem = None
        self._down_since_ns = None
        self._phase = "inactive"
        self._cause = None
        self._mime_type = ""

    # --- what the recorder says --------------------------------------------------------------------------------------

    def _take(self, event: BlobEvent) -> None:
        sink = self._sink
        if sink is None:
            if self._wish is not None and len(self._early) < _MAX_EARLY:
                self._early.append(event)
            return
        self.last_data_ns = SYSTEM_CLOCK.monotonic_ns()
        future = sink.put(
            BlobData(
                parts=event.data.parts,
                chunk_key=(self._runs, event.chunk or 1),
                started_ns=event.chunk_started_ns or self.last_data_ns,
                chunk_end=event.chunk_end,
                info=event.chunk_info,
                final=event.chunk_end and self._wish is None,
            )
        )
        event.wait_until(future)
        if event.chunk_info is not None:
            self._media_until_ns = event.chunk_info.ended_ns
            self.dropped_frames += sum(t.dropped for t in event.chunk_info.tracks if t.kind == "video")

    def _gap(self, event: GapEvent) -> None:
        self.log.warning("%.1f s are missing: %s", event.gap.duration_s, event.gap.reason)
        self._happened("gap", duration_s=event.gap.duration_s, reason=event.gap.reason)

    def _recorder_failed(self, error: BaseException | None) -> None:
        self._problem = problem_of(error if error is not None else RuntimeError("unknown"))

    def _recorder_stopped(self, recorder: MediaRecorder) -> None:
        if recorder is not self._recorder:
            return
        self._stopped.set()
        if self._wish is None:
            return
        self._recorder = None
        capture = self._capture
        if capture is not None and capture.has_played_out:
            self._listener.played_out(self)
            self._spawn(self.stop("ended"), "ended")
            return
        if self._problem is None:
            error = capture.error if capture is not None else None
            self._problem = (
                problem_of(error) if error is not None else Problem("device_missing", "the device went away")
            )
        if capture is not None:
            capture.close()
            self._capture = None
        self._set_problem(self._problem)
        self._retry_later()

    def _track_ended(self, track: MediaStreamTrack) -> None:
        if self._wish is not None and self._recorder is not None and self._recorder.state != "inactive":
            self.log.warning("the %s device %s went away", track.kind, track.label)
            self._happened("error", code="device_missing", message=f"{track.kind} device {track.label} went away")
            if self._mending is None or self._mending.done():
                self._mending = self._spawn(self._mend(), "mend")

    def _chunk_done(self, line: Mapping[str, Any]) -> None:
        self.chunks += 1
        self.bytes += int(line.get("bytes", 0))
        self.last_chunk = line
        self._listener.happened(self, "chunk", line)
        self._changed()

    # --- faults ------------------------------------------------------------------------------------------------------

    def _lost_tracks(self) -> bool:
        return self._capture is not None and any(
            track.ready_state == "ended" for track in self._capture.stream.get_tracks()
        )

    async def _mend(self) -> None:
        """While one of several devices is away: try again and again to have all of them."""
        back_off = BackOff(limit_s=_DEVICE_RETRY_LIMIT_S)
        self._retry_now.clear()
        while self._wish is not None and self._recorder is not None and self._lost_tracks():
            await self._pause_before_retry(back_off)
            await self._renew()

    async def _pause_before_retry(self, back_off: BackOff) -> None:
        """Wait, but not longer than until something is plugged in or out; what came during the last try counts too."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(back_off.next_s()):
                await self._retry_now.wait()
                self._retry_now.clear()
                back_off.reset()  # what has just come may need a moment until it works

    async def _renew(self) -> None:
        """If all devices can be had again, record them in a new chunk of the same recording.

        What still records is not touched before that is certain; a camera that is in use is shared.
        """
        async with self._lock:
            if self._wish is None or not self._lost_tracks() or self._recorder is None or self._capture is None:
                return
            try:
                capture = await Capture.open(self.settings, self._devices)
            except (DOMException, TimeoutError, TypeError):
                return  # not yet
            old, self._recorder = self._recorder, None
            await self._wait_stopped(old)
            self._capture.close()
            self._capture = None
            try:
                await self._continue(capture)
            except CommandError as exc:
                self._set_problem(Problem(exc.code, exc.message))
                self._retry_later()
                return
            lost_s = self._lost_s(self._media_until_ns)
            self.log.info("all devices are recorded again, after a pause of %.1f s for all", lost_s)
            self._happened("gap", duration_s=lost_s, reason="device_missing")
            self._changed()

    async def _wait_stopped(self, recorder: MediaRecorder) -> None:
        stopped = asyncio.Event()
        recorder.onstop = lambda _: stopped.set()
        if recorder.state != "inactive":
            recorder.stop()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_DEADLINE_S):
                    await stopped.wait()

    def _retry_later(self) -> None:
        if self._retry is None or self._retry.done():
            self._retry = self._spawn(self._retry_until_it_runs(), "retry")

    async def _retry_until_it_runs(self) -> None:
        if self._down_since_ns is None:
            self._down_since_ns = self._media_until_ns or SYSTEM_CLOCK.monotonic_ns()
        self._retry_now.clear()
        while self._wish is not None:
            is_device = self._problem is not None and self._problem.code in ("device_missing", "device_busy")
            self._back_off.limit_s = _DEVICE_RETRY_LIMIT_S if is_device else _RETRY_LIMIT_S
            await self._pause_before_retry(self._back_off)
            async with self._lock:
                if self._wish is None:
                    return
                try:
                    if self._sink is None:
                        await self._begin_recording()
                    else:
                        await self._continue()
                        self._recovered()
                except CommandError as exc:
                    self._set_problem(Problem(exc.code, exc.message))
                    continue
                self._down_since_ns = None
                return

    def _recovered(self) -> None:
        lost_s = self._lost_s(self._down_since_ns or self._media_until_ns)
        reason = self._problem.code if self._problem is not None else "device_missing"
        self._problem = None
        self._back_off.reset()
        self.log.info("recording again after %.1f s", lost_s)
        self._happened("gap", duration_s=lost_s, reason=reason)
        self._changed()

    def _lost_s(self, since_ns: int) -> float:
        """Seconds since then, which nobody has recorded; a recording that is paused loses nothing."""
        if self._phase == "paused" or not since_ns:
            return 0.0
        return round(max(0, SYSTEM_CLOCK.monotonic_ns() - since_ns) / NS, 3)

    def _storage_failed(self, error: StorageError) -> None:
        problem = problem_of(error)
        self.log.error("cannot write: %s", problem.message)
        if self._storage_problem is None:
            self._storage_problem = problem.begun()
            self._happened("error", code=problem.code, message=problem.message)
            self._changed()
        if self._storage_retry is None or self._storage_retry.done():
            self._storage_retry = self._spawn(self._make_room(), "storage")

    async def _make_room(self) -> None:
        """Until there is room again; then the same recording goes on in a new chunk."""
        wait_s = 0.0
        while self._wish is not None:
            await asyncio.sleep(wait_s)
            wait_s = _STORAGE_RETRY_S
            if not await self._archive.make_room():
                continue
            recorder = self._recorder
            self._storage_problem = None
            if recorder is not None and recorder.state != "inactive":
                recorder.split()
            self.log.info("there is room again; recording goes on")
            self._changed()
            return

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

    def _spawn(self, work: Any, purpose: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=f"{self.name}-{purpose}")
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            self.log.error("%s failed: %s", task.get_name(), exc, exc_info=exc)
