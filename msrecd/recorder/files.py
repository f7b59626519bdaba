"""RecordingFiles: where the blobs of one recorder go, recording by recording, and the count of what is in them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from msrecd.clock import SYSTEM_CLOCK
from msrecd.errors import StorageError
from msrecd.media.events import BlobEvent
from msrecd.muxing.facts import ChunkInfo
from msrecd.recorder.attempt import STOP_DEADLINE_S, Attempt
from msrecd.recorder.pending_blobs import PendingBlobs
from msrecd.recorder.writer import BlobData, ChunkWriter

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


class Archive(Protocol):
    """Where recordings go: the daemon's view of the storage."""

    def begin(self, recorder: str, mime_type: str) -> Any:
        """Draw a recording id (blocking); returns a storage.Recording."""

    def facts(self, *, info: ChunkInfo | None, final: bool, gaps_before: list[dict[str, Any]], lost_s: float) -> Any:
        """storage.ChunkFacts."""

    async def make_room(self) -> bool:
        """Rotate; whether there is room to write now."""


class FilesListener(Protocol):
    """Who is told what becomes of them; called on the loop, but for `black_within`."""

    def chunk_done(self, line: Mapping[str, Any]) -> None:
        """A chunk has its name, and this manifest line."""

    def storage_lost(self, lost_s: float, reason: str) -> None:
        """The storage took nothing for so long; it takes again, or the recording has ended."""

    def storage_failed(self, error: StorageError) -> None:
        """The storage refuses."""

    def black_within(self, info: ChunkInfo | None) -> list[dict[str, Any]]:
        """From the writing thread: gaps of a chunk that nobody else knows of."""


class RecordingFiles:
    """Lives on the loop. The counts are those of the last recording until the next one begins."""

    def __init__(self, recorder: str, archive: Archive, listener: FilesListener, log: Log) -> None:
        self._recorder = recorder
        self._archive = archive
        self._listener = listener
        self._log = log
        self._sink: ChunkWriter | None = None
        self._pending = PendingBlobs()
        self._is_syncing = False
        self.recording_id: str | None = None
        self.mime_type = ""
        self.chunks = 0
        self.bytes = 0
        self.dropped_frames = 0
        self.last_chunk: Mapping[str, Any] | None = None
        self.last_data_ns = 0  # when the last blob came
        self.media_until_ns = 0  # capture time up to which the chunks of this recording reach

    @property
    def is_open(self) -> bool:
        """Whether there is a recording to write to."""
        return self._sink is not None

    @property
    def open_bytes(self) -> int:
        """Bytes in the chunk that is being written."""
        return 0 if self._sink is None else self._sink.stats.open_bytes

    @property
    def discarded_bytes(self) -> int:
        """What the storage did not take of this recording."""
        return 0 if self._sink is None else self._sink.stats.discarded_bytes

    async def open(self, mime_type: str) -> None:
        """Begin a recording. Its full type, with codecs, is known from the `start` event on: blobs came before.

        Raises:
            StorageError: it cannot be written; those blobs are still kept.
        """
        recording = await asyncio.to_thread(self._archive.begin, self._recorder, mime_type)
        self.mime_type = mime_type
        self.recording_id = recording.recording_id
        self.chunks = self.bytes = self.dropped_frames = 0
        self.last_chunk = None
        self.media_until_ns = 0
        self._sink = ChunkWriter(
            recording,
            make_facts=self._facts,
            on_chunk=self._chunk_done,
            on_lost=self._listener.storage_lost,
            on_error=self._listener.storage_failed,
        )
        self._pending.pass_on(self._write)

    def take(self, run: Attempt, event: BlobEvent, *, final: bool) -> None:
        """A blob: written, or kept until there is a recording; the recorder bounds what is under way.

        final: whether no other run follows this one in the recording.
        """
        if self._sink is not None:
            event.wait_until(self._write(run, event, final=final))
        elif not final:
            event.wait_until(self._pending.keep(run, event))

    def forget_early(self) -> None:
        """Nobody wants what came before there was a recording."""
        self._pending.drop()

    def expect_data(self) -> None:
        """From now on some is to come."""
        self.last_data_ns = SYSTEM_CLOCK.monotonic_ns()

    async def sync(self) -> None:
        """Put what is written onto the disk now; one at a time, for a disk may hang."""
        if self._sink is None or self._is_syncing:
            return
        self._is_syncing = True
        try:
            await self._sink.sync()
        finally:
            self._is_syncing = False

    async def close(self) -> None:
        """Finish them. What a disk that hangs does not take in time stays with the thread, which goes on with it."""
        self._pending.drop()
        sink, self._sink = self._sink, None
        if sink is not None:
            try:
                async with asyncio.timeout(STOP_DEADLINE_S):
                    await sink.close()
            except TimeoutError:
                self._log.error("the disk did not take the end of the recording within %g s", STOP_DEADLINE_S)
        self.mime_type = ""

    def _write(self, run: Attempt, event: BlobEvent, *, final: bool = False) -> asyncio.Future[None]:
        assert self._sink is not None
        self.last_data_ns = SYSTEM_CLOCK.monotonic_ns()
        if event.chunk_info is not None:
            self.media_until_ns = event.chunk_info.ended_ns
            self.dropped_frames += sum(t.dropped for t in event.chunk_info.tracks if t.kind == "video")
        return self._sink.put(
            BlobData(
                parts=event.data.parts,
                chunk_key=(run.number, event.chunk or 1),
                started_ns=event.chunk_started_ns or self.last_data_ns,
                chunk_end=event.chunk_end,
                info=event.chunk_info,
                final=event.chunk_end and final,
            )
        )

    def _facts(self, *, info: ChunkInfo | None, gaps_before: list[dict[str, Any]], **known: Any) -> Any:
        """In the sink's thread: what the manifest says of a chunk."""
        return self._archive.facts(info=info, gaps_before=gaps_before + self._listener.black_within(info), **known)

    def _chunk_done(self, line: Mapping[str, Any]) -> None:
        self.chunks += 1
        self.bytes += int(line.get("bytes", 0))
        self.last_chunk = line
        self._listener.chunk_done(line)
