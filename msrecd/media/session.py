"""Session: one recording of a MediaRecorder, from start() to its `stop` event. Lives on the loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from msrecd.clock import MS, Clock
from msrecd.codecs.table import full_type
from msrecd.dom.blob import Blob
from msrecd.dom.events import ErrorEvent, Event, queue_task
from msrecd.dom.exceptions import DOMException, InvalidModificationError, NotSupportedError, UnknownError
from msrecd.flow.source import Source
from msrecd.media.events import BlobEvent, GapEvent
from msrecd.media.plan import Plan
from msrecd.media.preroll import unwatch_gates, watch_gates
from msrecd.media.stream import MediaStream
from msrecd.media.track import MediaStreamTrack
from msrecd.muxing.facts import Data, Fact, Finished, GapSeen, Ready
from msrecd.muxing.recording import WorkerOptions
from msrecd.muxing.worker import RecorderWorker

if TYPE_CHECKING:
    from msrecd.media.recorder import MediaRecorder

_FOREVER_NS = 1 << 62


class _Task:
    """Something to fire in its turn; `run` is None while it waits for the worker's answer."""

    __slots__ = ("request", "run")

    def __init__(self, run: Callable[[], None] | None, request: int = 0) -> None:
        self.run, self.request = run, request


class Session:
    """Its worker, what it watches, the order of its events, and its one terminal sequence.

    Events come in the order of their causes: `start` first; what pause, resume and request_data cause in the order of
    the calls; nothing before the session before has fired its `stop`.
    """

    def __init__(self, owner: MediaRecorder, plan: Plan, clock: Clock, after: Session | None) -> None:
        self._owner = owner
        self.over = asyncio.Event()  # its `stop` event has been delivered
        self._plan = plan
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._worker: RecorderWorker | None = None
        self._stream = owner.stream
        self._after = after if after is not None and not after.is_over else None
        # While the session before is not over, some seconds at most; their bytes count as buffered, which bounds them.
        self._facts: deque[Fact] = deque()
        self._successors: list[Callable[[], None]] = []
        self._started = False
        self._ending = False
        self._error: DOMException | None = None
        self._tasks: deque[_Task] = deque()
        self._full_type = ""
        self._first_created_ns: int | None = None
        self._timecode = 0.0
        self._requests = 0
        self._rest: Data | None = None  # what came after the end was asked for, of the chunk at hand

    @property
    def worker(self) -> RecorderWorker:
        assert self._worker is not None, "not begun"
        return self._worker

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that its events are fired on."""
        return self._loop

    def begin(self, worker: RecorderWorker, options: WorkerOptions) -> bool:
        """Record by this worker; False when it has ended in the meantime."""
        if not worker.begin(options, self._post, self._clock.monotonic_ns()):
            return False
        self._worker = worker
        self._gates = watch_gates(self._plan, worker)
        for track in self._plan.tracks:
            track._observe(self._track_ended)
        self._stream._observe(self._tracks_changed)
        if self._after is not None:
            self._after._successors.append(self._go_on)
        return True

    def pause(self) -> None:
        self.worker.pause(self._clock.monotonic_ns())
        self._queue(_Task(lambda: self._owner._fire(Event("pause"))))

    def resume(self) -> None:
        self.worker.resume(self._clock.monotonic_ns())
        self._queue(_Task(lambda: self._owner._fire(Event("resume"))))

    def request_data(self) -> None:
        if self._started:
            self._requests += 1
            self._queue(_Task(None, self._requests))
            self.worker.request_data(self._requests)
        else:
            now = self._clock.monotonic_ns()
            self._queue(_Task(lambda: self._fire_blob(Data(parts=(), created_ns=now, chunk=1, started_ns=now))))

    def end(self, error: DOMException | None, *, at_ns: int | None = None) -> None:
        """Stop gathering; the terminal sequence follows when everything is collected. The first reason counts."""
        if self._ending:
            return
        self._ending = True
        self._error = error
        self.worker.stop(self._stop_ns() if at_ns is None else at_ns)

    def _stop_ns(self) -> int:
        """Now; where a program writes all that is recorded, behind what it has written, however far ahead that is."""
        until_ns = [track._source.written_until_ns for track in self._plan.tracks]
        if any(one is None for one in until_ns):
            return self._clock.monotonic_ns()
        return max(self._clock.monotonic_ns(), *(one + 1 for one in until_ns if one is not None))

    # --- what happens by itself --------------------------------------------------------------------------------------

    def _tracks_changed(self, _: MediaStream) -> None:
        self.end(InvalidModificationError("the set of tracks of the stream changed while recording"))

    def _track_ended(self, _: MediaStreamTrack) -> None:
        tracks = self._plan.tracks
        if all(track.ready_state == "ended" for track in tracks):
            # What a source still had under way when it ended by itself belongs to the recording.
            by_itself = all(_has_ended(track._source) for track in tracks)
            self.end(None, at_ns=_FOREVER_NS if by_itself else None)

    # --- the order of events -----------------------------------------------------------------------------------------

    def _post(self, fact: Fact) -> None:
        """In the worker's thread."""
        try:
            self._loop.call_soon_threadsafe(self._take, fact)
        except RuntimeError:  # the loop is closed: nobody is left to record for
            self.worker.stop(0)

    def _go_on(self) -> None:
        self._after = None
        while self._facts:
            fact = self._facts.popleft()
            self.worker.outstanding_bytes -= _size(fact)
            self._take(fact)

    def _queue(self, task: _Task) -> None:
        self._tasks.append(task)
        self._advance()

    def _advance(self) -> None:
        while self._started and self._tasks and (run := self._tasks[0].run) is not None:
            self._tasks.popleft()
            queue_task(run, self._loop)

    def _take(self, fact: Fact) -> None:
        if self._after is not None:
            self._facts.append(fact)
            self.worker.outstanding_bytes += _size(fact)
        elif isinstance(fact, Ready):
            self._full_type = full_type(self._plan.selection, fact.codec_strings)
            self._fire_start()
        elif isinstance(fact, Data) and fact.request is not None:
            self._answer(fact.request, fact)
        elif isinstance(fact, Data) and self._ending and not fact.chunk_end:
            self._keep_rest(fact)  # exactly one `dataavailable` follows stop(), however late an encoder is
        elif isinstance(fact, Data):
            self._fire_blob(self._with_rest(fact))
        elif isinstance(fact, GapSeen):
            self._owner._fire(GapEvent("gap", gap=fact.gap, at_ns=fact.at_ns))
        else:
            self._finish(fact)

    def _keep_rest(self, data: Data) -> None:
        self.worker.outstanding_bytes += _size(data)
        self._rest = self._with_rest(data)

    def _with_rest(self, data: Data) -> Data:
        """The data with what was kept before it, of the same chunk."""
        rest, self._rest = self._rest, None
        if rest is None:
            return data
        return replace(data, parts=(*rest.parts, *data.parts), created_ns=rest.created_ns)

    def _answer(self, request: int, data: Data) -> None:
        for task in self._tasks:
            if task.run is None and task.request == request:
                task.run = lambda: self._fire_blob(data)
        self._advance()

    def _fire_start(self) -> None:
        self._started = True
        self._owner._session_started(self, self._full_type)
        self._owner._fire(Event("start"))
        self._advance()

    def _fire_blob(self, data: Data) -> None:
        if self._first_created_ns is None:
            self._first_created_ns = data.created_ns
        self._timecode = max(self._timecode, (data.created_ns - self._first_created_ns) / MS)
        event = BlobEvent(
            "dataavailable",
            data=Blob._of(data.parts, self._full_type or self._owner.mime_type),  # nothing known before `start`
            timecode=self._timecode,
            chunk=data.chunk,
            chunk_end=data.chunk_end,
            chunk_info=data.info,
            chunk_started_ns=data.started_ns,
        )
        size = event.data.size  # not the event itself: a cycle would keep its bytes until the garbage collector comes
        event._extend = lambda awaitable: self._extend(size, awaitable)
        self._owner._fire(event)

    def _extend(self, size: int, awaitable: Awaitable[object]) -> None:
        """A listener is busy with a blob: it counts as buffered until then."""
        self.worker.outstanding_bytes += size
        future = asyncio.ensure_future(awaitable, loop=self._loop)

        def done(finished: asyncio.Future[object]) -> None:
            self.worker.outstanding_bytes -= size
            if not finished.cancelled():
                finished.exception()  # the listener's own affair; it is taken so that nobody warns about it

        future.add_done_callback(done)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _finish(self, finished: Finished) -> None:
        unwatch_gates(self._gates)
        for track in self._plan.tracks:
            track._unobserve(self._track_ended)
        self._stream._unobserve(self._tracks_changed)
        error = self._error
        if error is None and finished.error is not None:
            error = _as_dom_exception(finished.error, started=self._started)
        never_started = isinstance(error, NotSupportedError) and not self._started
        if not self._started and not never_started:
            self._fire_start()
        queue_task(lambda: self._terminate(error, finished.data, never_started), self._loop)

    @property
    def is_over(self) -> bool:
        """Whether its `stop` event has been delivered."""
        return self.over.is_set()

    def _terminate(self, error: DOMException | None, data: Data | None, never_started: bool) -> None:
        self._owner._session_over(self)
        if error is not None:
            self._owner._fire(ErrorEvent("error", error=error, message=str(error)))
        if not never_started:
            now = self._clock.monotonic_ns()
            last = data or Data(parts=(), created_ns=now, chunk=1, started_ns=now, chunk_end=True)
            self._fire_blob(self._with_rest(last))
        self._owner._fire(Event("stop"))
        self.over.set()
        for go_on in self._successors:
            go_on()
        self._successors.clear()


def _size(fact: Fact) -> int:
    return sum(map(len, fact.parts)) if isinstance(fact, Data) else 0


def _has_ended(source: Source) -> bool:
    try:
        return source.raw().ended
    except DOMException:
        return True  # encoded units only: such a source ends with its input


def _as_dom_exception(error: BaseException, *, started: bool) -> DOMException:
    from msrecd.flow.encoded import EncodingError
    from msrecd.libav import LibavError

    if isinstance(error, DOMException):
        return error
    if isinstance(error, (LibavError, EncodingError)) and not started:
        return NotSupportedError(str(error))
    return UnknownError(str(error) or type(error).__name__)
