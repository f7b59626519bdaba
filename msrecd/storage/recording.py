"""A recording and its open chunk: from the first byte to the line in the manifest. Everything here blocks."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from msrecd.clock import NS
from msrecd.clock.wall import Stamp
from msrecd.errors import StorageError
from msrecd.storage import files, fragments, layout
from msrecd.storage.chunkfile import ChunkFile
from msrecd.storage.journal import OpenEntry, OpenRecording
from msrecd.storage.manifest_lines import ManifestLine, time_lapse_of
from msrecd.storage.triggerlines import TriggerLine
from msrecd.vocabulary.lapse import TimeLapse
from msrecd.vocabulary.times import format_utc

if TYPE_CHECKING:
    from msrecd.storage.openrecordings import OpenRecordings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkFacts:
    """What the recorder knows of a chunk; None: look into the file.

    captured_s: of a time-lapse, how long it took to capture. paused_s: of a pause before the chunk.
    """

    final: bool
    duration_s: float | None = None
    ended_ns: int | None = None
    tracks: Mapping[str, Mapping[str, float]] | None = None
    gaps: Sequence[Mapping[str, float | str]] = ()
    lost_s: float = 0.0
    captured_s: float | None = None
    paused_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedChunk:
    """A chunk that could not be finished. `line`: all is done but its place in the manifest."""

    bytes: int
    medium_id: str
    manifest: str
    recording: Recording
    entry: OpenEntry
    facts: ChunkFacts | None
    line: ManifestLine | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a snapshot goes: paths relative to the root."""

    recording_id: str
    folder: str
    manifest: str
    number: int


class Recording:
    """One start to stop of a recorder. One thread at a time, besides `settled` and `is_last`.

    A recording lies on one medium. Where another one is found at the path, it goes on there as a recording of its own,
    with another `recording_id` and from chunk 1.
    """

    def __init__(
        self,
        store: OpenRecordings,
        recorder: str,
        recording_id: str,
        mime_type: str,
        extension: str,
        time_lapse: TimeLapse | None = None,
        *,
        medium_id: str | None = None,
    ) -> None:
        """
        Args:
            medium_id: the medium for which `recording_id` was drawn; on another one it is the id of something else.
        """
        self.recorder = recorder
        self.recording_id = recording_id
        self.mime_type = mime_type
        self.manifest = ""
        self.open_bytes = 0  # read by other threads
        self.chunk: OpenChunk | None = None  # the one being written
        self._store = store
        self._extension = extension
        self._lapse = time_lapse
        self._next_seq = 1
        self._snapshots = 0
        self._begun_ns: int | None = None
        self._trigger_lines: list[TriggerLine] = []  # that are to be written
        self._unfinished: dict[int, OpenEntry] = {}
        self._day: str | None = None
        self._medium_id = medium_id
        self._journal_failed = False
        self._lock = threading.RLock()  # the janitor settles what was left behind
        self._is_closed = False

    def open_chunk(self, *, started_ns: int) -> OpenChunk:
        """Begin the next file, of media that began at `started_ns` on CLOCK_MONOTONIC.

        Raises:
            StorageError: `no_space`, `missing_mount`, `read_only`, …: there is no file, and its number is still free.
        """
        store = self._store
        store.require_room()
        stamp = store.root.walltime.stamp(started_ns)
        self._begun_ns = started_ns if self._begun_ns is None else self._begun_ns
        with self._lock:
            medium_id = store.root.check().id
            if self._medium_id not in (None, medium_id):
                self._begin_again()
            self._medium_id = medium_id
            return self._open_chunk(stamp)

    def _begin_again(self) -> None:
        before = self.recording_id
        self.recording_id = self._store.rename(self)
        self.manifest = ""
        self._day = None
        self._next_seq = 1
        self._snapshots = 0
        self._unfinished.clear()
        log.warning("%s continues as %s on another medium", before, self.recording_id)

    def _open_chunk(self, stamp: Stamp) -> OpenChunk:
        store = self._store
        seq = self._next_seq
        name = layout.chunk_name(self.recording_id, seq, self._extension)
        folder_name = f"{self.recorder}/{self._folder_for(stamp)}"
        entry = OpenEntry(
            seq=seq,
            file=f"{folder_name}/{name}",
            mime_type=self.mime_type,
            started_ns=stamp.utc_ns,
            trusted=stamp.trusted,
            boot_id=stamp.boot_id,
            interval_s=0.0 if self._lapse is None else self._lapse.interval_s,
            frame_rate=0.0 if self._lapse is None else self._lapse.frame_rate,
        )
        self.manifest = self.manifest or f"{folder_name}/{layout.manifest_name(self.recording_id)}"
        self._unfinished[seq] = entry
        try:
            with files.storage_errors(f"create {entry.file}"):
                root = store.root.open_root()  # from here on it is this medium, whatever is mounted at its path
                try:
                    self._keep_journal(root)
                    try:
                        file = self._create(root, folder_name, name)
                    except FileNotFoundError:  # the janitor took the folder in this moment, because it was empty
                        file = self._create(root, folder_name, name)
                except BaseException:
                    os.close(root)
                    raise
        except StorageError:
            self._unfinished.pop(seq, None)
            raise
        self._next_seq = seq + 1
        self.chunk = OpenChunk(self, store, file, entry, stamp, root=root, medium_id=self._medium_id or "")
        return self.chunk

    @property
    def unsynced_s(self) -> float:
        """For how long data has been waiting to be on the disk; 0.0: all of it is, or nothing is being written.

        Any thread; it does not wait for the disk.
        """
        chunk = self.chunk
        return 0.0 if chunk is None else chunk.unsynced_s

    def _create(self, root: int, folder_name: str, name: str) -> ChunkFile:
        folder = files.open_folder(root, folder_name, create=True)
        return ChunkFile(folder, name, sync_interval_s=self._store.sync_interval_s, clock=self._store.root.clock)

    def place_snapshot(self, stamp: Stamp) -> Place:
        """Where the next snapshot of this recording goes. Any thread.

        Raises:
            StorageError: `missing_mount`.
        """
        with self._lock:
            medium_id = self._store.root.check().id
            if self._medium_id not in (None, medium_id):
                self._begin_again()
            self._medium_id = medium_id
            folder = f"{self.recorder}/{self._folder_for(stamp)}"
            self.manifest = self.manifest or f"{folder}/{layout.manifest_name(self.recording_id)}"
            self._snapshots += 1
            return Place(recording_id=self.recording_id, folder=folder, manifest=self.manifest, number=self._snapshots)

    def note_triggers(self, *, until_ns: int | None) -> None:
        """Take over what triggers have found, to be written; see TriggerNotes.take."""
        found = self._store.triggers.take(self.recorder, since_ns=self._begun_ns or 0, until_ns=until_ns)
        self._trigger_lines += found

    def write_triggers(self, root: int, place: str) -> None:
        """Write down what triggers have found.

        Raises:
            StorageError: the rest is written when this is called again.
        """
        lines = self._trigger_lines
        while lines:
            self._store.root.append_line(root, place, dict(lines[0]))
            del lines[0]

    def end_line(self, *, ended_ns: int, lost_s: float, gaps: Sequence[Mapping[str, float | str]]) -> None:
        """Write down what was lost between the last chunk and the end; before `close`, and when no chunk follows.

        Args:
            ended_ns: the end, on CLOCK_MONOTONIC.
            gaps: with `at_s` counted from the beginning of the last chunk.

        Raises:
            StorageError: the line is not there.
        """
        with self._lock:
            after = self._next_seq - 1
            if not self.manifest:
                stamp = self._store.root.walltime.stamp(ended_ns)
                folder_name = f"{self.recorder}/{self._folder_for(stamp)}"
                self.manifest = f"{folder_name}/{layout.manifest_name(self.recording_id)}"
        line = {
            "ended": format_utc(self._store.root.walltime.stamp(ended_ns).utc_ns),
            "after": after,
            "lost_s": round(max(0.0, lost_s), 3),
            "gaps": [dict(gap) for gap in gaps],
        }
        with files.storage_errors(f"end {self.manifest}"), files.closing_fd(self._store.root.open_root()) as root:
            self._store.root.append_line(root, self.manifest, line)

    def close(self) -> None:
        """The recording has ended; called by the last chunk's `finish(final=True)`, else by its owner."""
        self._store.forget(self)
        with self._lock:
            self._is_closed = True
            if not self._unfinished:  # else the janitor finishes them, or the next start
                self._keep_journal_or_log()

    def settled(self, seq: int, *, used: bool, medium_id: str | None = None) -> None:
        """A chunk is finished (`used`) or gone. Any thread; for OpenChunk and the janitor."""
        with self._lock:
            if medium_id not in (None, self._medium_id):
                return  # its recording has gone on elsewhere
            self._unfinished.pop(seq, None)
            if not used and seq == self._next_seq - 1:
                self._next_seq = seq
            self._keep_journal_or_log()

    def unfinished(self) -> list[int]:
        """The seqs of chunks that are being written or wait to be finished. Any thread."""
        with self._lock:
            return sorted(self._unfinished)

    def is_last(self, seq: int) -> bool:
        """Whether the recording has ended with this chunk. Any thread."""
        with self._lock:
            return self._is_closed and seq == self._next_seq - 1

    def is_newest(self, seq: int) -> bool:
        """Whether no chunk has begun after this one: its number can be free again. Any thread."""
        with self._lock:
            return seq == self._next_seq - 1

    def _keep_journal_or_log(self) -> None:
        try:
            with files.closing_fd(self._store.root.open_root()) as root:
                if self._is_closed and not self._unfinished:
                    self._store.journal.remove(root, self.recording_id)
                else:
                    self._keep_journal(root)
        except OSError as exc:  # it names a chunk too many then, which the next start finds done
            log.debug("journal of %s: %s", self.recording_id, exc)

    def _folder_for(self, stamp: Stamp) -> str:
        day = layout.day_folder(stamp)
        # A clock that went back would put later chunks before earlier ones.
        if self._day is not None and day < self._day and self._day.startswith("boot") == day.startswith("boot"):
            day = self._day
        self._day = day
        return day

    def _keep_journal(self, root: int) -> None:
        """Where that fails, recording goes on: a start looks into the newest folders as well."""
        try:
            self._store.journal.write(
                root,
                OpenRecording(
                    recording_id=self.recording_id,
                    recorder=self.recorder,
                    manifest=self.manifest,
                    chunks=tuple(self._unfinished.values()),
                ),
            )
        except OSError as exc:
            if exc.errno in (errno.EROFS, errno.ENODEV, errno.ENXIO):
                raise
            if not self._journal_failed:
                log.warning("the journal of %s cannot be written: %s", self.recording_id, exc)
            self._journal_failed = True


class OpenChunk:
    """A chunk being written. One thread at a time; `finish` or `abandon` ends it."""

    def __init__(
        self,
        recording: Recording,
        store: OpenRecordings,
        file: ChunkFile,
        entry: OpenEntry,
        stamp: Stamp,
        *,
        root: int,
        medium_id: str,
    ) -> None:
        """
        Args:
            root: descriptor of the medium's folder, which the chunk takes over.
        """
        self.seq = entry.seq
        self._root = root
        self._medium_id = medium_id
        self._recording_id = recording.recording_id
        self._manifest = recording.manifest
        self.path = store.root.path / (entry.file + layout.PART)
        self._recording = recording
        self._store = store
        self._file = file
        self._entry = entry
        self._stamp = stamp
        self._facts: ChunkFacts | None = None
        self._line: ManifestLine | None = None
        self._is_done = False

    def write(self, parts: Sequence[bytes]) -> None:
        """Append whole fragments; synced when it is time.

        Raises:
            StorageError: nothing of `parts` is in the file, or (a failed sync) it may not be on the disk. The chunk can
                still be finished with what it has.
        """
        before = self._file.size
        try:
            self._file.write(parts)
        finally:
            self._recording.open_bytes = self._file.size
            self._store.meter.account(self._file.size - before, self._file.sync_s_max)

    @property
    def unsynced_s(self) -> float:
        """For how long data has been waiting to be on the disk: more than a few seconds, and the disk hangs.

        Any thread.
        """
        return self._file.unsynced_s

    def let_go(self) -> None:
        """The store is closed: the next start may recover what was written."""
        self._file.let_go()

    def sync(self) -> None:
        """Put what is written onto the disk now.

        Raises:
            StorageError: it may not be there.
        """
        self._file.sync()

    def finish(self, facts: ChunkFacts) -> ManifestLine:
        """Give the chunk its final name and its line in the manifest; returns the line.

        May be called again after a failure.

        Raises:
            StorageError: it is unfinished: `finish` it again, or `abandon` it and it is tried later; `empty`: nothing
                of it can be played, the file is gone and its number is free.
        """
        if self._is_done:
            raise StorageError(f"{self._entry.file} is finished already")
        self._facts = facts
        if self._line is None:
            self._line = self._name(facts)
            ended_ns = facts.ended_ns or self._store.root.clock.monotonic_ns()
            self._recording.note_triggers(until_ns=ended_ns if facts.final else None)
        line = self._line
        with files.storage_errors(f"finish {self._entry.file}"):
            self._recording.write_triggers(self._root, self._manifest)
            self._store.root.append_line(self._root, self._manifest, dict(line))
        self._end()
        if self._medium_id == self._store.root.medium.id:
            self._store.list_chunk(self._recording.recorder, self._recording_id, self._manifest, line)
        self._recording.settled(self.seq, used=True, medium_id=self._medium_id)
        if facts.final:
            self._recording.close()
        return line

    def abandon(self) -> None:
        """Give up: an empty file is removed, another stays `.part` and is finished as soon as that is possible."""
        if self._is_done:
            return
        if self._file.size or self._line is not None:
            self._end()
            self._store.leave(
                UnfinishedChunk(
                    bytes=self._file.size,
                    medium_id=self._medium_id,
                    manifest=self._manifest,
                    recording=self._recording,
                    entry=self._entry,
                    facts=self._facts,
                    line=self._line,
                )
            )
            return
        self._remove()

    def _name(self, facts: ChunkFacts) -> ManifestLine:
        duration_s, tracks = facts.duration_s, facts.tracks
        if (
            not duration_s or tracks is None or self._file.failed
        ):  # an empty chunk is discarded: a header alone does not play
            duration_s, tracks = self._look(facts)
            facts = replace(facts, captured_s=None)
        with_hash: list[str] = []
        folder_name = self._entry.file.rpartition("/")[0]

        def finish() -> None:
            with_hash.append(self._file.finish(lambda: files.open_folder(self._root, folder_name, create=True)))

        self._store.root.with_reserve(f"finish {self._entry.file}", finish)
        lapse = self._entry.time_lapse
        captured_s = duration_s if lapse is None else facts.captured_s or lapse.captured_s(duration_s)
        ended_ns = self._stamp.utc_ns + round(captured_s * NS)
        if facts.ended_ns is not None and not self._file.failed:
            ended_ns = self._stamp.utc_ns + facts.ended_ns - self._stamp.monotonic_ns
        line = ManifestLine(
            seq=self.seq,
            file=self._entry.file,
            bytes=self._file.size,
            sha256=with_hash[-1],
            mime_type=self._entry.mime_type,
            started=format_utc(self._stamp.utc_ns),
            ended=format_utc(ended_ns),
            duration_s=round(duration_s, 6),
            clock=self._stamp.clock,
            final=facts.final,
            recovered=False,
            lost_s=round(facts.lost_s, 3),
            tracks={kind: dict(values) for kind, values in tracks.items()},
            gaps=[dict(gap) for gap in facts.gaps],
        )
        if lapse is not None:
            line["time_lapse"] = time_lapse_of(lapse, captured_s)
        if facts.paused_s:
            line["paused_s"] = facts.paused_s
        return line if self._stamp.trusted else {**line, "boot_id": self._stamp.boot_id}

    def _look(self, facts: ChunkFacts) -> tuple[float, Mapping[str, Mapping[str, float]]]:
        """Cut at the last whole fragment and take the facts from the file."""
        with files.storage_errors(f"read {self._entry.file}"):
            extension = self._entry.file.rpartition(".")[2]
            with os.fdopen(os.dup(self._file.fd), "rb") as file:
                found = fragments.scan(file, os.fstat(self._file.fd).st_size, extension)
            if found.cut:
                self._file.cut(found.cut)
        if not found.cut:
            self._remove()
            raise StorageError(f"removed {self._entry.file}, which held nothing that can be played", "empty")
        return found.duration_s, found.manifest_tracks()

    def _end(self) -> None:
        self._is_done = True
        self._recording.open_bytes = 0
        if self._recording.chunk is self:
            self._recording.chunk = None
        self._file.close()
        with contextlib.suppress(OSError):  # it is closed all the same
            os.close(self._root)

    def _remove(self) -> None:
        try:
            with files.storage_errors(f"remove {self._entry.file}{layout.PART}"):
                self._file.discard()
        except StorageError as exc:
            log.warning("%s", exc)  # the next start looks at it
            return
        finally:
            self._end()
        self._recording.settled(self.seq, used=False, medium_id=self._medium_id)
