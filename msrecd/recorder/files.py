"""RecordingFiles: where the blobs of one recorder go, recording by recording, and the count of what is in them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from msrecd import BlobEvent
from msrecd.clock import SYSTEM_CLOCK
from msrecd.errors import StorageError
from msrecd.recorder.pending_blobs import PendingBlobs
from msrecd.recorder.writer import BlobData, ChunkWriter
from msrecd.vocabulary.lapse import TimeLapse

if TYPE_CHECKING:
    from msrecd import ChunkInfo
    from msrecd.storage.recording import Recording

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]

CLOSE_DEADLINE_S = 20.0
HOLD_S = 15.0  # so long the last chunk of an attempt waits to learn whether it is the recording's last


class Archive(Protocol):
    """Where recordings go: the daemon's view of the storage."""

    def begin(self, recorder: str, mime_type: str, time_lapse: TimeLapse | None = None) -> Recording:
        """Draw a recording id (blocking).

        Raises:
            StorageError: nothing can be written now.
        """

    def facts(
        self, *, info: ChunkInfo | None, final: bool, gaps: list[dict[str, Any]], lost_s: float, paused_s: float
    ) -> Any:
        """storage.ChunkFacts; `gaps`: those that `info` does not know. paused_s: of a pause before it."""

    async def make_room(self, recorder: str) -> StorageError | None:
        """Rotate; why nothing of this recorder can be written even so."""


class RecordingFiles:
    """Lives on the loop. The counts are those of the last recording until the next one begins."""

    def __init__(
        self,
        recorder: str,
        archive: Archive,
        log: Log,
        *,
        time_lapse: TimeLapse | None = None,
        on_chunk: Callable[[Mapping[str, Any]], None],
        on_lost: Callable[[float, str], None],
        on_error: Callable[[StorageError], None],
        on_hang: Callable[[bool], None],
        on_renamed: Callable[[str, int, int], None],
    ) -> None:
        """
        Args:
            on_chunk, on_lost, on_error, on_hang: see ChunkWriter.
            on_renamed: the recording goes on under another recording_id, on another medium; its old id, and how many
                chunks and bytes it has under that.
        """
        self._recorder = recorder
        self._lapse = time_lapse
        self._archive = archive
        self._log = log
        self._on_lost, self._on_error, self._on_hang = on_lost, on_error, on_hang
        self._on_chunk, self._on_renamed = on_chunk, on_renamed
        self._writer: ChunkWriter | None = None
        self._pending = PendingBlobs()
        self._is_syncing = False
        self._recording: Recording | None = None
        self.has_media = False  # whether this recording has any
        self.mime_type = ""
        self.chunks = 0
        self.bytes = 0
        self.dropped_frames = 0
        self.last_chunk: Mapping[str, Any] | None = None
        self.last_data_ns = 0  # when the disk last took something (or a recording began)
        self.media_until_ns = 0  # capture time up to which the chunks of this recording reach

    @property
    def recording_id(self) -> str | None:
        """Of the files being written, or of those written last: another medium gives the recording another one."""
        return None if self._recording is None else self._recording.recording_id

    @property
    def recording(self) -> Recording | None:
        """The recording that is under way, for snapshots."""
        return self._recording if self._writer is not None else None

    @property
    def is_open(self) -> bool:
        """Whether there is a recording to write to."""
        return self._writer is not None

    @property
    def open_bytes(self) -> int:
        """Bytes in the chunk that is being written."""
        return 0 if self._writer is None else self._writer.stats.open_bytes

    @property
    def discarded_bytes(self) -> int:
        """What the storage did not take of this recording."""
        return 0 if self._writer is None else self._writer.stats.discarded_bytes

    @property
    def queue_s(self) -> float:
        """How long the oldest blob has been waiting for the disk."""
        return 0.0 if self._writer is None else self._writer.queue_s

    async def open(self, mime_type: str) -> None:
        """Begin a recording. Its full type, with codecs, is known from the `start` event on: blobs came before.

        Raises:
            StorageError: it cannot be written; those blobs are still kept.
        """
        recording = await asyncio.to_thread(self._archive.begin, self._recorder, mime_type, self._lapse)
        self.mime_type = mime_type
        self._recording = recording
        self._count_from_zero()
        self.dropped_frames = 0
        self.has_media = False
        self.media_until_ns = 0
        self._writer = ChunkWriter(
            recording,
            make_facts=self._facts,
            on_chunk=lambda line: self._chunk_done(recording, line),
            on_renamed=lambda before: self._renamed(recording, before),
            on_lost=self._on_lost,
            on_error=self._on_error,
            on_hang=lambda is_hanging: self._hangs(recording, is_hanging),
        )
        self._pending.pass_on(self._write)

    def take(self, attempt: int, event: BlobEvent, *, may_be_last: bool) -> None:
        """A blob: written, or kept until there is a recording; the MediaRecorder bounds what is under way.

        Args:
            attempt: number of the attempt that gave it.
            may_be_last: the attempt has ended with it.
        """
        keep = self._pending.keep if self._writer is None else self._write
        event.wait_until(keep(attempt, event, may_be_last))

    def forget(self) -> None:
        """The recording has ended, and this was published; its counts stay."""
        self._recording = None

    def drop_pending(self) -> None:
        """What came before there was a recording is of no use."""
        self._pending.drop()

    def expect_data(self) -> None:
        """From now on some is to come."""
        self.last_data_ns = SYSTEM_CLOCK.monotonic_ns()

    def begin_loss(self, since_ns: int, reason: str) -> None:
        """Nothing is recorded since then; see ChunkWriter."""
        writer = self._writer
        if writer is not None:
            writer.begin_loss(since_ns, reason)
            asyncio.get_running_loop().call_later(HOLD_S, writer.release)

    def pause(self) -> None:
        """A pause begins; see ChunkWriter."""
        if self._writer is not None:
            self._writer.pause(SYSTEM_CLOCK.monotonic_ns())

    async def sync(self) -> None:
        """Put what is written onto the disk now; one at a time, for a disk may hang."""
        if self._writer is None or self._is_syncing:
            return
        self._is_syncing = True
        try:
            await self._writer.sync()
        finally:
            self._is_syncing = False

    async def close(self, until_ns: int = 0) -> None:
        """Finish them. What a disk that hangs does not take in time stays with the thread, which goes on with it.

        Args:
            until_ns: when the recording was ended.
        """
        self._pending.drop()
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                async with asyncio.timeout(CLOSE_DEADLINE_S):
                    await writer.close(until_ns)
            except TimeoutError:
                self._log.error(
                    "the disk did not take the end of %s within %g s; it is finished as soon as the disk answers",
                    self.recording_id,
                    CLOSE_DEADLINE_S,
                )
        self.mime_type = ""

    def _write(self, attempt: int, event: BlobEvent, may_be_last: bool) -> asyncio.Future[None]:
        writer = self._writer
        assert writer is not None
        is_media = has_media(event)
        self.has_media = self.has_media or is_media
        if event.chunk_info is not None and is_media:
            self.media_until_ns = event.chunk_info.ended_ns
            self.dropped_frames += sum(t.dropped for t in event.chunk_info.tracks if t.kind == "video")
        future = writer.put(
            BlobData(
                parts=event.data.parts if is_media else (),  # a header alone is no file
                chunk_key=(attempt, event.chunk or 1),
                started_ns=event.chunk_started_ns or SYSTEM_CLOCK.monotonic_ns(),
                chunk_end=event.chunk_end,
                info=event.chunk_info,
                may_be_last=may_be_last,
            ),
            is_awaited=False,
        )
        future.add_done_callback(lambda _: self.expect_data())
        return future

    def _facts(self, *, info: ChunkInfo | None, gaps: list[dict[str, Any]], **known: Any) -> Any:
        """In the writer's thread: what the manifest says of a chunk."""
        return self._archive.facts(info=info, gaps=gaps, **known)

    # A disk that hung at the end of a recording may answer during the next one.

    def _chunk_done(self, recording: Recording, line: Mapping[str, Any]) -> None:
        if recording is self._recording:
            self.chunks += 1
            self.bytes += int(line.get("bytes", 0))
            self.last_chunk = line
        self._on_chunk({**line, "recording_id": recording.recording_id})

    def _hangs(self, recording: Recording, is_hanging: bool) -> None:
        if self._writer is not None and recording is self._recording:
            self._on_hang(is_hanging)

    def _renamed(self, recording: Recording, before: str) -> None:
        if recording is self._recording:
            chunks, bytes_ = self.chunks, self.bytes
            self._count_from_zero()
            self._on_renamed(before, chunks, bytes_)

    def _count_from_zero(self) -> None:
        self.chunks = self.bytes = 0
        self.last_chunk = None


def has_media(event: BlobEvent) -> bool:
    """Whether there is media in a blob.

    One before the end of its chunk holds a timeslice of it; the one at the end may be a header alone, of an input that
    opened and gave nothing.
    """
    if not event.data.size:
        return False
    return event.chunk_info is None or any(track.units for track in event.chunk_info.tracks)
