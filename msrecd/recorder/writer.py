"""ChunkWriter: the blobs of one recording into chunk files, in a thread of its own, one operation at a time.

The loop hands blobs over and never waits; the future of each (given to BlobEvent.wait_until) tells the recorder how
much is still on its way to the disk. After a storage error the open chunk is finished with what it has; blobs are
discarded and accounted as a gap until a new chunk begins and the storage takes it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from msrecd.clock import NS
from msrecd.errors import StorageError
from msrecd.muxing.facts import ChunkInfo

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobData:
    """What the sink needs of a BlobEvent."""

    parts: Sequence[bytes]
    chunk_key: tuple[int, int]  # (number of the MediaRecorder run, its chunk): changes where a new file begins
    started_ns: int
    chunk_end: bool
    info: ChunkInfo | None
    final: bool


class OpenChunk(Protocol):
    """What the sink uses of storage.OpenChunk."""

    seq: int

    def write(self, parts: Sequence[bytes]) -> None: ...
    def sync(self) -> None: ...
    def finish(self, facts: Any) -> Mapping[str, Any]: ...
    def abandon(self) -> None: ...


class Recording(Protocol):
    """What the sink uses of storage.Recording."""

    recording_id: str

    def open_chunk(self, *, started_ns: int) -> Any: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class WriterStats:
    """Counters of one recording; written by the sink's thread."""

    chunks: int = 0
    bytes: int = 0
    discarded_bytes: int = 0
    open_bytes: int = 0


class ChunkWriter:
    """One recording's files. `put` and `close` on the loop; callbacks are called on the loop."""

    def __init__(
        self,
        recording: Recording,
        *,
        make_facts: Callable[..., Any],
        on_chunk: Callable[[Mapping[str, Any]], None],
        on_lost: Callable[[float, str], None],
        on_error: Callable[[StorageError], None],
    ) -> None:
        """
        Args:
            make_facts: what the manifest says of a chunk; called in the sink's thread.
            on_chunk: the manifest line of a chunk that is finished.
            on_lost: seconds of media that were discarded, and why (an error code), once it is known how many.
            on_error: the storage refuses.
        """
        self.recording = recording
        self.stats = WriterStats()
        self._make_facts = make_facts
        self._on_chunk = on_chunk
        self._on_lost = on_lost
        self._on_error = on_error
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"write-{recording.recording_id}")
        self._open: OpenChunk | None = None
        self._open_key: tuple[int, int] | None = None
        self._dead_key: tuple[int, int] | None = None  # of a chunk whose file failed: the rest of it is discarded
        self._written_until_ns = 0
        self._lost_from_ns: int | None = None
        self._lost_until_ns = 0
        self._lost_reason = ""
        self._is_closing = False
        self._ended = asyncio.Event()

    @property
    def failed(self) -> bool:
        """Whether blobs are being discarded."""
        return self._lost_from_ns is not None

    def put(self, blob: BlobData) -> asyncio.Future[None]:
        """Have a blob written; the future is done when it is (or is discarded), and never fails."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._executor.submit(self._write, blob, future)
        return future

    async def close(self) -> None:
        """Wait for what is under way; an open chunk without its end is finished as it is.

        Whoever stops waiting (cancelled, a deadline) leaves the work to the thread, which does it as soon as it can.
        """
        if not self._is_closing:
            self._is_closing = True
            self._executor.submit(self._end)
            self._executor.shutdown(wait=False)
        await self._ended.wait()

    async def sync(self) -> None:
        """Put what is written onto the disk now (under-voltage, shutdown)."""
        if self._is_closing:
            return  # that ends with a sync
        await self._loop.run_in_executor(self._executor, self._sync)

    # --- the thread --------------------------------------------------------------------------------------------------

    def _write(self, blob: BlobData, future: asyncio.Future[None]) -> None:
        try:
            self._write_or_raise(blob)
        except StorageError as exc:
            self._fail(exc, blob)
        except Exception as exc:
            log.exception("%s: writing failed", self.recording.recording_id)
            self._fail(StorageError(str(exc)), blob)
        finally:
            self._tell(_done, future)

    def _write_or_raise(self, blob: BlobData) -> None:
        size = sum(map(len, blob.parts))
        if blob.chunk_key == self._dead_key:
            self.stats.discarded_bytes += size
            self._lost_until(blob)
            return
        if self._open is not None and self._open_key != blob.chunk_key:
            self._finish(self._open, None, final=False)
        if self._open is None:
            if not size:
                return
            chunk: OpenChunk = self.recording.open_chunk(started_ns=blob.started_ns)
            self._open, self._open_key, self._dead_key = chunk, blob.chunk_key, None
            self.stats.open_bytes = 0
        if size:
            self._open.write(blob.parts)
            self.stats.open_bytes += size
            self.stats.bytes += size
        if blob.chunk_end:
            self._finish(self._open, blob.info, final=blob.final)

    def _finish(self, chunk: OpenChunk, info: ChunkInfo | None, *, final: bool) -> None:
        self._open = self._open_key = None
        self.stats.open_bytes = 0
        gaps, lost_s = self._account_gap(info)
        try:
            line = chunk.finish(self._make_facts(info=info, final=final, gaps_before=gaps, lost_s=lost_s))
        except StorageError as exc:
            if exc.code == "empty":  # stopped before anything could be played: there is no chunk
                return
            # What it holds is not lost: the janitor finishes it as soon as the storage lets it.
            log.warning("%s: chunk %d stays unfinished for now: %s", self.recording.recording_id, chunk.seq, exc)
            self._abandon(chunk)
            self._tell(self._on_error, exc)
            return
        self.stats.chunks += 1
        if info is not None:
            self._written_until_ns = info.ended_ns
        self._tell(self._on_chunk, line)

    def _account_gap(self, info: ChunkInfo | None) -> tuple[list[dict[str, Any]], float]:
        """What was discarded before this chunk, as a gap at its beginning."""
        if self._lost_from_ns is None or info is None:
            return [], 0.0
        lost_s = max(0.0, round((info.started_ns - self._lost_from_ns) / NS, 3))
        reason, self._lost_from_ns = self._lost_reason, None
        self._tell(self._on_lost, lost_s, reason)
        return [{"at_s": 0.0, "duration_s": lost_s, "reason": reason}], lost_s

    def _lost_until(self, blob: BlobData) -> None:
        until_ns = blob.started_ns if blob.info is None else blob.info.ended_ns
        self._lost_until_ns = max(self._lost_until_ns, until_ns)

    def _fail(self, error: StorageError, blob: BlobData) -> None:
        """The file of this chunk cannot go on: finish what it has, discard what follows of it."""
        self._dead_key = blob.chunk_key
        self.stats.discarded_bytes += sum(map(len, blob.parts))
        if self._lost_from_ns is None:
            self._lost_from_ns = blob.started_ns
            self._lost_reason = error.code
        self._lost_until(blob)
        chunk, self._open, self._open_key = self._open, None, None
        if chunk is not None:
            try:
                line = chunk.finish(self._make_facts(info=None, final=False, gaps_before=[], lost_s=0.0))
                self.stats.chunks += 1
                # What the file has is not missing: the gap begins behind it.
                self._lost_from_ns += round(float(line["duration_s"]) * NS)
                self._tell(self._on_chunk, line)
            except StorageError as exc:
                if exc.code != "empty":
                    log.warning("%s: the chunk stays unfinished for now: %s", self.recording.recording_id, exc)
                self._abandon(chunk)
        self._tell(self._on_error, error)

    def _abandon(self, chunk: OpenChunk) -> None:
        try:
            chunk.abandon()
        except StorageError as exc:
            log.debug("%s: %s", self.recording.recording_id, exc)

    def _end(self) -> None:
        try:
            try:
                if self._open is not None:
                    self._finish(self._open, None, final=True)
                if self._lost_from_ns is not None:  # no chunk came that could tell it
                    lost_s = max(0.0, round((self._lost_until_ns - self._lost_from_ns) / NS, 3))
                    self._tell(self._on_lost, lost_s, self._lost_reason)
            finally:
                self.recording.close()
        except Exception:
            log.exception("%s: its end failed; the next start sees to it", self.recording.recording_id)
        finally:
            self._tell(self._ended.set)

    def _sync(self) -> None:
        if self._open is not None:
            try:
                self._open.sync()
            except StorageError as exc:
                log.warning("%s: %s", self.recording.recording_id, exc)

    def _tell(self, callback: Callable[..., None], *facts: Any) -> None:
        """On the loop. Where that has ended before a slow disk was done, the next start tells it."""
        try:
            self._loop.call_soon_threadsafe(callback, *facts)
        except RuntimeError:
            log.debug("%s: nobody listens any more", self.recording.recording_id)


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
