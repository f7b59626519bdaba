"""Store: the recordings on the disk, as the daemon and the commands use them.

Everything here blocks. One recording is used by one thread at a time, different ones by different threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from msrecd.clock import NS, SYSTEM_CLOCK, Clock
from msrecd.clock.wall import WallTime
from msrecd.errors import StorageError
from msrecd.storage import checks, files, layout, recovery
from msrecd.storage.ground import Ground
from msrecd.storage.index import Index
from msrecd.storage.janitor import Deleted, Janitor, OpenSpace
from msrecd.storage.journal import Journal
from msrecd.storage.leftovers import Leftovers
from msrecd.storage.listing import Listing
from msrecd.storage.manifest import ManifestLine
from msrecd.storage.meter import Meter
from msrecd.storage.naming import Names
from msrecd.storage.recording import ChunkFacts, Leftover, OpenChunk, Recording
from msrecd.storage.recovery import Lost
from msrecd.storage.repair import Repair
from msrecd.storage.retention import Limits, Planned
from msrecd.vocabulary.formats import extension_for

__all__ = ["ChunkFacts", "Deleted", "OpenChunk", "Recording", "Store", "Usage"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """capacity_bytes: of the file system; total_bytes: of recordings, open ones included; seconds_left: until full at
    the rate of the last ten minutes, None when nothing is recorded; has_room: a new chunk may begin.
    """

    total_bytes: int
    open_bytes: int
    chunks: int
    free_bytes: int
    capacity_bytes: int
    seconds_left: float | None
    has_room: bool
    written_bytes: int
    sync_s_max: float


class Store:
    """The recordings below one folder. `open` first; `close` when all recordings have ended."""

    def __init__(
        self,
        path: Path,
        state_path: Path,
        *,
        limits: Limits,
        recorder_limits: Mapping[str, Limits],
        sync_interval_s: float,
        walltime: WallTime,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.path = path
        self.state_path = state_path
        self.walltime = walltime
        self.clock = clock
        self.sync_interval_s = sync_interval_s
        self.findings: list[checks.Finding] = []
        self.ground = Ground(path, state_path, walltime=walltime, clock=clock)
        self.journal = Journal(state_path)
        self._listing = Listing(self.ground)
        self._repair = Repair(self.ground, self.journal, sync_interval_s=sync_interval_s)
        self._janitor = Janitor(
            self.ground,
            self._listing,
            limits=limits,
            recorder_limits=recorder_limits,
            open_space=self._open_space,
            is_open=self._is_open,
        )
        self._lock = threading.RLock()
        self._lock_fd: int | None = None
        self._beside = False
        self._open: dict[str, Recording] = {}
        self._names = Names(walltime, self._last_recording_id)
        self._leftovers = Leftovers(self.ground, self._repair, self._list_late)
        self._meter = Meter(clock, lambda recorder, count: self.index.last_sizes(recorder, count))

    # --- start and end ---

    def open(self, *, everywhere: bool = False, build_later: bool = False) -> list[ManifestLine]:
        """Check the storage, finish what a crash left, open the index; returns the lines of what was recovered.

        Args:
            everywhere: look for unfinished chunks in all folders, not only where they can be.
            build_later: an index that has to be built is left to `build_index`. Until then chunks are deleted only
                where room must be made, and sums are those of what is recorded from now on.

        Raises:
            StorageError: the storage or the state cannot be used; `locked`: another process records here.
        """
        self._make_state()
        self._take_lock()
        try:
            self.ground.check_mount(create=True)
            self.findings = checks.check(self.path)
            for finding in self.findings:
                log.warning("storage: %s", finding.message)
            self.ground.ensure_reserve()
            recovered = self._repair.recover(everywhere=everywhere)
            self._listing.open()
            self._listing.add_recovered(self._repair.touched)
            self._repair.touched.clear()
            self._repair.mend_ends(self._listing.manifests_next_to_change())
            if not build_later or self._is_empty():
                self.build_index()
        except BaseException:
            self.close()
            raise
        return recovered

    def open_beside(self) -> None:
        """Open for a command while a daemon may be running: no recovery, no lock.

        Raises:
            StorageError: the storage or its index cannot be used.
        """
        self.ground.check_mount(create=False)
        self._make_state()
        self._beside = files.is_locked(self.state_path / "lock")
        self._listing.open(beside=self._beside)
        if not self._beside:
            self.build_index()

    def close(self) -> None:
        """Let go of index and lock."""
        with self._lock:
            self._listing.close()
            if self._lock_fd is not None:
                fd, self._lock_fd = self._lock_fd, None
                try:
                    os.close(fd)
                except OSError as exc:  # it is closed all the same
                    log.warning("closing the lock of %s: %s", self.state_path, exc)

    @property
    def index(self) -> Index:
        """
        Raises:
            StorageError: the store is not open.
        """
        return self._listing.index

    @property
    def lost(self) -> list[Lost]:
        """Chunks of which a crash left nothing."""
        return self._repair.lost

    @property
    def limits(self) -> Limits:
        """Those of the whole storage; may be replaced at any time."""
        return self._janitor.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._janitor.limits = limits

    def limit_recorders(self, limits: Mapping[str, Limits]) -> None:
        """Replace the limits of single recorders, at any time."""
        self._janitor.recorder_limits = dict(limits)

    @property
    def is_building(self) -> bool:
        """Whether the index is not complete yet."""
        return self._listing.is_building

    def build_index(self) -> int:
        """Build the index from the manifests if that is due; how many chunks it got. May run beside everything else.

        Raises:
            StorageError: it cannot be built now.
        """
        if not self._listing.is_building:
            return 0
        begun_ns = self.clock.monotonic_ns()
        count = self._listing.build()
        if count:
            took_s = (self.clock.monotonic_ns() - begun_ns) / NS
            log.warning("the index has been built again from the manifests: %d chunks in %.1f s", count, took_s)
        return count

    # --- recording ---

    def begin(self, recorder: str, mime_type: str) -> Recording:
        """Draw a recording id. Nothing is on the disk before the first chunk.

        Raises:
            StorageError: the type has no file format, or the name is none.
        """
        try:
            extension = extension_for(mime_type).removeprefix(".")
            with self._lock:
                recording_id = self._names.draw(recorder)
        except ValueError as exc:
            raise StorageError(str(exc), "bad_args") from exc
        recording = Recording(self, recorder, recording_id, mime_type, extension)
        with self._lock:
            self._open[recording_id] = recording
        return recording

    def _last_recording_id(self, recorder: str, below: str) -> str | None:
        if self._listing.is_building:
            with contextlib.suppress(OSError), files.closing_fd(self.ground.open_root()) as root:
                return recovery.last_recording_id(root, recorder, below)
        return self.index.last_recording_id(recorder, below)

    # --- for recordings and their chunks ---

    def forget(self, recording: Recording) -> None:
        """A recording has ended."""
        with self._lock:
            self._open.pop(recording.recording_id, None)

    def leave(self, leftover: Leftover) -> None:
        """A chunk could not be finished; `finish_leftovers` tries again."""
        self._leftovers.add(leftover)

    def account(self, recorder: str, written: int, sync_s: float) -> None:
        """Count what has been written."""
        self._meter.account(written, sync_s)

    def listed(self, recorder: str, recording_id: str, manifest_file: str, line: ManifestLine) -> None:
        """A chunk is finished and stands in its manifest."""
        self._meter.finished(recorder, line["bytes"])
        self._listing.add(recorder, recording_id, manifest_file, line)

    def require_room(self) -> None:
        """Rotate if needed.

        Raises:
            StorageError: `no_space`: there is none, and rotation may not help; `missing_mount`.
        """
        self.ground.check_mount(create=False)
        self._janitor.require_room()

    def check_writable(self) -> None:
        """Whether a chunk can be written now: there is room, the medium is there, and it takes what is written.

        Raises:
            StorageError: it cannot.
        """
        self.require_room()
        self.ground.probe()

    # --- upkeep ---

    def plan(self) -> list[Planned]:
        """What `rotate` would delete now.

        Raises:
            StorageError: index or file system cannot be read; `busy`: the daemon is building the index.
        """
        self._refuse_beside_building()
        return self._janitor.plan()

    def rotate(self) -> list[Deleted]:
        """Delete what the limits say; what cannot be deleted is reported and left.

        Raises:
            StorageError: nothing could be planned; `busy`: the daemon is building the index.
        """
        self._refuse_beside_building()
        return self._janitor.rotate()

    def _refuse_beside_building(self) -> None:
        if self._beside and self._listing.is_building:
            raise StorageError("the daemon is building the index again; try later", "busy")

    def finish_leftovers(self) -> list[ManifestLine]:
        """Finish the chunks whose finishing had failed, as far as that goes now; the lines of what became chunks.

        Any thread, one at a time.
        """
        return self._leftovers.finish()

    def _list_late(self, recording: Recording, line: ManifestLine) -> None:
        self.listed(recording.recorder, recording.recording_id, recording.manifest, line)

    def usage(self) -> Usage:
        """
        Raises:
            StorageError: index or file system cannot be read.
        """
        status = self.ground.status()
        free = status.f_bavail * status.f_frsize
        finished, chunks = self.index.totals()
        limits = self._janitor.limits
        open_bytes = self._open_space().total_bytes
        total = finished + open_bytes
        room = free - (limits.min_free_bytes or 0)
        if limits.max_total_bytes is not None:
            room = min(room, limits.max_total_bytes - total)
        return Usage(
            total_bytes=total,
            open_bytes=open_bytes,
            chunks=chunks,
            free_bytes=free,
            capacity_bytes=status.f_blocks * status.f_frsize,
            seconds_left=self._meter.seconds_for(room),
            has_room=self._janitor.missing_room() is None,
            written_bytes=self._meter.written_bytes,
            sync_s_max=self._meter.sync_s_max,
        )

    def _open_space(self) -> OpenSpace:
        by_recorder = self._leftovers.bytes_by_recorder()
        headrooms: list[int] = []
        with self._lock:
            for recording in self._open.values():
                size = recording.open_bytes
                by_recorder[recording.recorder] = by_recorder.get(recording.recorder, 0) + size
                headrooms.append(max(0, self._meter.largest_of(recording.recorder) - size))
        return OpenSpace(by_recorder=by_recorder, headrooms=tuple(headrooms))

    def _is_open(self, recording_id: str) -> bool:
        return recording_id in self._open or self.journal.is_open(recording_id)

    # --- protection ---

    def protect(self, recording_id: str) -> None:
        """Keep a recording whatever the limits say.

        Raises:
            StorageError: `not_found`, or it cannot be kept.
        """
        self._require_recording(recording_id)
        with files.storage_errors(f"protect {recording_id}"):
            folder = self.state_path / "protected"
            folder.mkdir(mode=files.FOLDER_MODE, exist_ok=True)
            (folder / recording_id).touch()
            with files.closing_fd(files.open_root(folder)) as fd:
                os.fsync(fd)
        self.index.protect(recording_id, protected=True)

    def unprotect(self, recording_id: str) -> None:
        """
        Raises:
            StorageError: `not_found`, or it cannot be changed.
        """
        self._require_recording(recording_id)
        with files.storage_errors(f"unprotect {recording_id}"):
            (self.state_path / "protected" / recording_id).unlink(missing_ok=True)
        self.index.protect(recording_id, protected=False)

    def is_protected(self, recording_id: str) -> bool:
        return self.ground.is_protected(recording_id)

    def _require_recording(self, recording_id: str) -> None:
        parsed = layout.parse_recording_id(recording_id)
        known = parsed is not None and (
            self.index.has_recording(recording_id)
            or self.journal.is_open(recording_id)
            or (self._listing.is_building and self._has_manifest(parsed))
        )
        if not known:
            raise StorageError(f"there is no recording {recording_id!r}", "not_found")

    # --- inside ---

    def _has_manifest(self, known: layout.RecordingId) -> bool:
        with contextlib.suppress(OSError), files.closing_fd(self.ground.open_root()) as root:
            return recovery.find_manifest(root, known.recorder, known.text) is not None
        return False

    def _is_empty(self) -> bool:
        with contextlib.suppress(OSError), files.closing_fd(self.ground.open_root()) as root:
            return recovery.is_empty(root)
        return False

    def _make_state(self) -> None:
        with files.storage_errors(f"use the state directory {self.state_path}"):
            self.state_path.mkdir(mode=files.FOLDER_MODE, parents=True, exist_ok=True)

    def _take_lock(self) -> None:
        with files.storage_errors(f"lock the state directory {self.state_path}"):
            self._lock_fd = os.open(self.state_path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, files.FILE_MODE)
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                os.close(self._lock_fd)
                self._lock_fd = None
                raise StorageError(f"another msrecd uses {self.state_path}", "locked") from exc
