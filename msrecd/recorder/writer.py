"""ChunkWriter: the blobs of one recording into chunk files, in a thread of its own, one operation at a time.

The loop hands blobs over and never waits; the future of each (given to BlobEvent.wait_until) says when the disk took
it, which bounds what is under way. After a storage error the open chunk is finished with what it has; blobs are
discarded until a new chunk begins and the storage takes it again.

It keeps the account of what no MediaRecorder sees: the time between two attempts, and what the storage did not take.
Each such loss is one gap: published as soon as it is over, and in the manifest line of the next chunk, at its beginning
(`at_s` 0). Where no chunk follows it stands in the line of the last one, at its end.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.errors import StorageError

if TYPE_CHECKING:
    from msrecd import ChunkInfo
    from msrecd.storage.recording import OpenChunk, Recording

log = logging.getLogger(__name__)

HANG_S = 10.0  # so long the disk may be silent; a USB drive that wakes up takes some five seconds
_SMALL = 1 << 20  # bytes of a blob whose answer may wait for the next one: little of what may be under way


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobData:
    """What the writer needs of a BlobEvent.

    chunk_key: (number of the attempt, its chunk): changes where a new file begins. may_be_last: this is the end of the
    attempt, and perhaps of the recording.
    """

    parts: Sequence[bytes]
    chunk_key: tuple[int, int]
    started_ns: int
    chunk_end: bool
    info: ChunkInfo | None
    may_be_last: bool


@dataclass(slots=True)
class WriterStats:
    """Counters of one recording; written by the writer's thread."""

    chunks: int = 0
    bytes: int = 0
    discarded_bytes: int = 0
    open_bytes: int = 0


@dataclass(slots=True)
class _Loss:
    """Nothing has reached the disk since `since_ns`; `published_s` of it have been published already."""

    since_ns: int
    reason: str
    until_ns: int = 0
    published_s: float = 0.0


class ChunkWriter:
    """One recording's files. All methods on the loop; callbacks are called there, too."""

    def __init__(
        self,
        recording: Recording,
        *,
        make_facts: Callable[..., Any],
        on_chunk: Callable[[Mapping[str, Any]], None],
        on_lost: Callable[[float, str], None],
        on_error: Callable[[StorageError], None],
        on_hang: Callable[[bool], None] = lambda _: None,
        on_renamed: Callable[[str], None] = lambda _: None,
        hang_s: float = HANG_S,
    ) -> None:
        """
        Args:
            make_facts: what the manifest says of a chunk; called in the writer's thread.
            on_chunk: the manifest line of a chunk that is finished.
            on_lost: seconds of media that are missing, and why (a code), once it is known how many.
            on_error: the storage refuses.
            on_hang: the disk has not answered for `hang_s` (True), or answers again (False).
            on_renamed: the recording goes on under another recording_id, on another medium; its old one.
        """
        self.recording = recording
        self.stats = WriterStats()
        self.is_hanging = False
        self._make_facts = make_facts
        self._on_chunk = on_chunk
        self._on_lost = on_lost
        self._on_error = on_error
        self._on_hang = on_hang
        self._on_renamed = on_renamed
        self._hang_s = hang_s
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"write-{recording.recording_id}")
        self._submitted_ns: deque[int] = deque()  # of the operations under way, oldest first
        self._done: deque[asyncio.Future[None]] = deque()  # of those that the thread is done with, in their order
        self._timer: asyncio.TimerHandle | None = None
        self._end_work: asyncio.Future[None] | None = None
        # What follows belongs to the thread.
        self._open: OpenChunk | None = None
        self._open_key: tuple[int, int] | None = None
        self._is_held = False  # the open chunk is complete, and perhaps the recording's last
        self._held_info: ChunkInfo | None = None
        self._dead_key: tuple[int, int] | None = None  # of a chunk whose file failed: the rest of it is discarded
        self._last_captured_s = 0.0  # time of capture in the chunk finished last
        self._last_ended_ns: int | None = None  # ... and when it ended
        self._paused_ns: deque[int] = deque(maxlen=64)  # when pauses began, since that chunk; the last ones count
        self._paused_s = 0.0  # between it and the open one
        self._loss: _Loss | None = None
        self._loss_before: _Loss | None = None  # the one that the open chunk accounts for

    @property
    def queue_s(self) -> float:
        """How long the oldest operation has been waiting for the disk."""
        done = len(self._done)
        return (SYSTEM_CLOCK.monotonic_ns() - self._submitted_ns[done]) / NS if len(self._submitted_ns) > done else 0.0

    def put(self, blob: BlobData, *, is_awaited: bool = True) -> asyncio.Future[None]:
        """Have a blob written; the future is done when it is (or is discarded), and never fails.

        Args:
            is_awaited: False: it may be done with the next call, or some seconds later, while the disk follows: waking
                the loop for each blob costs more than writing it.
        """
        may_wait = not is_awaited and sum(map(len, blob.parts)) <= _SMALL
        return self._submit(self._write, blob, may_wait=may_wait)

    def begin_loss(self, since_ns: int, reason: str) -> None:
        """Nothing is recorded since then (CLOCK_MONOTONIC); the next chunk, or the end, tells how long that lasted."""
        self._submit(self._begin_loss, since_ns, reason)

    def pause(self, at_ns: int) -> None:
        """A pause begins (CLOCK_MONOTONIC): what lies between two chunks from then on is no loss."""
        self._submit(self._paused_ns.append, at_ns)

    def release(self) -> None:
        """Finish a chunk that is held because it may be the last: it has waited long enough for what follows."""
        if self._end_work is None:
            self._submit(self._finish_held)

    async def sync(self) -> None:
        """Put what is written onto the disk now (under-voltage, shutdown)."""
        if self._end_work is None:  # that ends with a sync
            await self._submit(self._sync)

    async def close(self, until_ns: int = 0) -> None:
        """Wait for what is under way; the open chunk is the recording's last.

        A caller that stops waiting (cancelled, a deadline) leaves the work to the thread, which still does it.

        Args:
            until_ns: when the recording was ended, which ends a loss that is still under way.
        """
        if self._end_work is None:
            self._end_work = self._submit(self._end, until_ns)
            self._executor.shutdown(wait=False)
        await asyncio.shield(self._end_work)

    # --- on the loop: whether the disk answers -----------------------------------------------------------------------

    def _submit(self, work: Callable[..., None], *arguments: Any, may_wait: bool = False) -> asyncio.Future[None]:
        self._take_answers()
        future: asyncio.Future[None] = self._loop.create_future()
        self._submitted_ns.append(SYSTEM_CLOCK.monotonic_ns())
        self._watch()
        self._executor.submit(self._do, future, work, arguments, may_wait)
        return future

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(max(0.0, self._hang_s - self.queue_s), self._look)

    def _look(self) -> None:
        self._timer = None
        self._take_answers()
        if self._submitted_ns and not self.is_hanging:
            if self.queue_s >= self._hang_s:
                self.is_hanging = True
                self._on_hang(True)
                self._take_answers()  # one that came meanwhile was not posted
            else:
                self._watch()

    def _take_answers(self) -> None:
        while self._done:
            self._submitted_ns.popleft()
            future = self._done.popleft()
            if not future.done():
                future.set_result(None)
        # Not just below it: what waits has waited for nearly as long, and states would flap while a disk recovers.
        if self.is_hanging and self.queue_s < self._hang_s / 2:
            self.is_hanging = False
            self._on_hang(False)
        if self._end_work is not None and not self._submitted_ns and self._timer is not None:
            self._timer.cancel()

    # --- the thread --------------------------------------------------------------------------------------------------

    def _do(
        self, future: asyncio.Future[None], work: Callable[..., None], arguments: tuple[Any, ...], may_wait: bool
    ) -> None:
        try:
            work(*arguments)
        except Exception:
            log.exception("%s: internal error while writing", self.recording.recording_id)
        finally:
            self._done.append(future)
            if not may_wait or self.is_hanging or len(self._submitted_ns) > len(self._done):
                self._post(self._take_answers)

    def _write(self, blob: BlobData) -> None:
        try:
            self._write_or_raise(blob)
        except StorageError as exc:
            self._fail(exc, blob)
        except Exception as exc:
            log.exception("%s: internal error while writing", self.recording.recording_id)
            self._fail(StorageError(f"internal error while writing: {exc}", "internal"), blob)

    def _write_or_raise(self, blob: BlobData) -> None:
        size = sum(map(len, blob.parts))
        if blob.chunk_key == self._dead_key:
            self.stats.discarded_bytes += size
            self._lost_until(blob)
            return
        if self._open is not None and self._open_key != blob.chunk_key:
            if not size:  # an attempt that had nothing more to give
                self._is_held = self._is_held or blob.may_be_last
                return
            self._finish(self._open, self._held_info, final=False)
        if self._open is None:
            if not size:
                return
            before = self.recording.recording_id
            chunk = self.recording.open_chunk(started_ns=blob.started_ns)
            if self.recording.recording_id != before:
                self._post(self._on_renamed, before)
            self._open, self._open_key, self._dead_key = chunk, blob.chunk_key, None
            self.stats.open_bytes = 0
            self._paused_s = self._pause_before(blob.started_ns)
            self._end_loss(blob.started_ns)
        if size:
            self._open.write(blob.parts)
            self.stats.open_bytes += size
            self.stats.bytes += size
        if blob.chunk_end and blob.may_be_last:  # what follows, or that nothing follows, tells whether it is the last
            self._is_held, self._held_info = True, blob.info
            self._open.sync()
        elif blob.chunk_end:
            self._finish(self._open, blob.info, final=False)

    def _finish_held(self) -> None:
        if self._open is not None and self._is_held:
            self._finish(self._open, self._held_info, final=False)

    def _finish(
        self, chunk: OpenChunk, info: ChunkInfo | None, *, final: bool, after: Sequence[Mapping[str, Any]] = ()
    ) -> bool:
        """Give a chunk its name and its line; `after`: gaps behind its end. Whether it has them."""
        self._forget_open()
        self._last_ended_ns = None if info is None else info.ended_ns
        try:
            line = chunk.finish(self._facts(info, final=final, after=after))
        except StorageError as exc:
            self._not_finished(chunk, exc)
            if exc.code != "empty":
                self._post(self._on_error, exc)
            return exc.code != "empty"
        self._finished(line)
        return True

    def _finished(self, line: Mapping[str, Any]) -> None:
        self._loss_before = None
        self._last_captured_s = float((line.get("time_lapse") or {}).get("captured_s") or line.get("duration_s") or 0.0)
        self.stats.chunks += 1
        self._post(self._on_chunk, line)

    def _forget_open(self) -> None:
        self._open = self._open_key = self._held_info = None
        self._is_held = False
        self.stats.open_bytes = 0

    def _facts(self, info: ChunkInfo | None, *, final: bool, after: Sequence[Mapping[str, Any]] = ()) -> Any:
        before = [] if self._loss_before is None else [_gap(self._loss_before, self._loss_before.until_ns)]
        before = [gap for gap in before if gap["duration_s"]]
        lost_s = sum(float(gap["duration_s"]) for gap in (*before, *after))
        gaps = [*before, *after]
        return self._make_facts(
            info=info, final=final, gaps=gaps, lost_s=round(lost_s, 3), paused_s=round(self._paused_s, 3)
        )

    def _not_finished(self, chunk: OpenChunk, error: StorageError) -> None:
        if error.code == "empty":  # stopped before anything could be played: there is no chunk
            self._loss, self._loss_before = self._loss_before or self._loss, None
            return
        self._loss_before = None  # stands in what the janitor finishes
        log.warning("%s: chunk %d is finished later: %s", self.recording.recording_id, chunk.seq, error)
        try:
            chunk.abandon()
        except StorageError as exc:
            log.debug("%s: %s", self.recording.recording_id, exc)

    def _pause_before(self, started_ns: int) -> float:
        """Seconds between the chunk before and one that begins then, where a pause is what lies between them."""
        ended_ns, paused_ns = self._last_ended_ns, None
        while self._paused_ns and self._paused_ns[0] < started_ns:
            paused_ns = self._paused_ns.popleft()
        if ended_ns is None or paused_ns is None or paused_ns <= ended_ns - NS:
            return 0.0
        return max(0, started_ns - ended_ns) / NS

    # --- losses ---

    def _begin_loss(self, since_ns: int, reason: str) -> None:
        if self._loss is None:  # else it is part of a longer one
            self._loss = _Loss(since_ns, reason)

    def _end_loss(self, until_ns: int) -> None:
        """A chunk begins: what was lost before it is known."""
        self._loss_before, self._loss = self._loss, None
        if self._loss_before is not None:
            self._loss_before.until_ns = until_ns
            self._publish_loss(self._loss_before)

    def _publish_loss(self, loss: _Loss) -> None:
        lost_s = float(_gap(loss, loss.until_ns)["duration_s"])
        news_s = round(lost_s - loss.published_s, 3)
        loss.published_s = lost_s
        if news_s > 0:
            self._post(self._on_lost, news_s, loss.reason)

    def _lost_until(self, blob: BlobData) -> None:
        if self._loss is not None:
            until_ns = blob.started_ns if blob.info is None else blob.info.ended_ns
            self._loss.until_ns = max(self._loss.until_ns, until_ns)

    def _fail(self, error: StorageError, blob: BlobData) -> None:
        """The file of this chunk cannot go on: finish what it has, discard what follows of it."""
        self._dead_key = blob.chunk_key
        self.stats.discarded_bytes += sum(map(len, blob.parts))
        chunk, info = self._open, self._held_info
        self._forget_open()
        finished_s = 0.0
        if chunk is not None:
            try:
                line = chunk.finish(self._facts(info, final=False))
                self._finished(line)
                finished_s = self._last_captured_s
            except StorageError as exc:
                self._not_finished(chunk, exc)
        if self._loss is None:  # what the file has is not missing: the gap begins behind it
            self._loss = _Loss(blob.started_ns + round(finished_s * NS), error.code)
        self._lost_until(blob)
        self._post(self._on_error, error)

    # --- the end ---

    def _end(self, until_ns: int) -> None:
        try:
            loss, self._loss = self._loss, None
            if loss is not None:
                loss.until_ns = max(loss.until_ns, until_ns)
                self._publish_loss(loss)
            self._end_files(loss)
        except StorageError as exc:
            log.warning("%s: the end of the manifest could not be written: %s", self._name, exc)
        except Exception:
            log.exception("%s: the recording was not ended properly; the next start recovers it", self._name)
        finally:
            try:
                self.recording.close()
            except Exception:
                log.exception("%s: the recording was not ended properly; the next start recovers it", self._name)

    def _end_files(self, loss: _Loss | None) -> None:
        after: list[dict[str, Any]] = []
        if loss is not None and loss.until_ns > loss.since_ns:
            info = self._held_info
            at_s = self._last_captured_s if info is None else info.captured_s or info.duration_s
            after = [_gap(loss, loss.until_ns, at_s=at_s)]
        if self._open is not None and self._finish(self._open, self._held_info, final=True, after=after):
            return
        if after and loss is not None:  # the last chunk has its line already, or there is none
            self.recording.end_line(ended_ns=loss.until_ns, lost_s=float(after[0]["duration_s"]), gaps=after)

    @property
    def _name(self) -> str:
        return self.recording.recording_id

    def _sync(self) -> None:
        if self._open is not None:
            try:
                self._open.sync()
            except StorageError as exc:
                log.warning("%s: %s", self.recording.recording_id, exc)

    def _post(self, callback: Callable[..., None], *facts: Any) -> None:
        """On the loop. Where that has ended before a slow disk was done, the next start publishes it."""
        try:
            self._loop.call_soon_threadsafe(callback, *facts)
        except RuntimeError:
            log.debug("%s: the loop has ended", self.recording.recording_id)


def _gap(loss: _Loss, until_ns: int, *, at_s: float = 0.0) -> dict[str, Any]:
    duration_s = max(0.0, round((until_ns - loss.since_ns) / NS, 3))
    return {"at_s": round(at_s, 3), "duration_s": duration_s, "reason": loss.reason}
