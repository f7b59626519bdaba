"""Store: the recordings on the disk, as the daemon and the commands use them.

Everything here blocks. One recording is used by one thread at a time, different ones by different threads.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from msrecd.clock import NS, SYSTEM_CLOCK, Clock
from msrecd.clock.wall import WallTime, read_history
from msrecd.errors import StorageError
from msrecd.statefolder import report_unwritable
from msrecd.storage import checks, files, layout, snapshots, tree
from msrecd.storage.index import Index
from msrecd.storage.janitor import Deleted, Janitor, OpenSpace
from msrecd.storage.journal import Journal
from msrecd.storage.listing import Listing, Progress
from msrecd.storage.manifest_lines import ManifestLine
from msrecd.storage.medium import Medium, is_in_use, move_first_edition
from msrecd.storage.openrecordings import OpenRecordings
from msrecd.storage.outgoing import Outgoing
from msrecd.storage.protection import Protections
from msrecd.storage.recording import ChunkFacts, OpenChunk, Recording
from msrecd.storage.recovery import Lost, Recovery, Unfinished
from msrecd.storage.retention import Limits, Planned
from msrecd.storage.root import StorageRoot
from msrecd.vocabulary.lapse import TimeLapse

__all__ = ["ChunkFacts", "Deleted", "OpenChunk", "Recording", "Store", "Usage"]

log = logging.getLogger(__name__)

_RECONCILE_NS = 600 * NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """capacity_bytes: of the file system; free_inodes: None where it does not count them; total_bytes: of recordings,
    open ones included; seconds_left: until full at the rate of the last ten minutes, None when nothing is recorded and
    in a ring, which is full and goes round; unsynced_s: for how long written data has been waiting to be on the disk.
    """

    total_bytes: int
    open_bytes: int
    chunks: int
    free_bytes: int
    capacity_bytes: int
    seconds_left: float | None
    unsynced_s: float
    written_bytes: int
    sync_s_max: float
    protected_bytes: int
    free_inodes: int | None = None


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
        self.findings: list[checks.Finding] = []
        self.root = StorageRoot(path, state_path, walltime=walltime, clock=clock)
        self.root.on_change = self._medium_changed
        self.journal = Journal()
        self._listing = Listing(self.root)
        self.recordings = OpenRecordings(
            self.root,
            self.journal,
            self._listing,
            sync_interval_s=sync_interval_s,
            require_room=lambda: self.require_room(),
            leave=lambda unfinished: self._recovery.leave(unfinished),
        )
        self._recovery = Recovery(
            self.root, self.journal, sync_interval_s=sync_interval_s, listed=self.recordings.list_recovered
        )
        self._albums = snapshots.Albums(self.recordings.draw)
        self.protections = Protections(
            self.root, self._listing, self.journal, self._is_open, lambda: self.limits.max_protected_bytes
        )
        self.outgoing = Outgoing(self.root, self._listing, self.protections.lease)
        self._janitor = Janitor(
            self.root,
            self._listing,
            limits=limits,
            recorder_limits=recorder_limits,
            open_space=self._open_space,
            is_open=self._is_open,
            is_leased=self.protections.is_leased,
        )
        self._lock = threading.Lock()
        self._album_lock = threading.Lock()
        self._lock_fd: int | None = None
        self._late: list[ManifestLine] = []  # recovered from a medium that came while others were recorded to
        self._reconciled_ns = clock.monotonic_ns()
        self._current_id = ""

    # --- start and end ---

    def open(self, *, everywhere: bool = False, progress: Progress | None = None) -> list[ManifestLine]:
        """Check the storage, finish what a crash left, open the index; returns the lines of what was recovered.

        Args:
            everywhere: look for unfinished chunks in all folders, not only where they can be.
            progress: called with (manifests read, manifests) while an index is built.

        Raises:
            StorageError: the storage cannot be used; `locked`: another process records here; `missing_mount`.
        """
        self._use_state()
        try:
            self.root.open(create=True).lock()
            recovered = self._begin_on_medium(everywhere=everywhere, progress=progress)
            self._current_id = self.root.medium.id
        except BaseException:
            self.close()
            raise
        return recovered

    def _begin_on_medium(self, *, everywhere: bool, progress: Progress | None = None) -> list[ManifestLine]:
        medium = self.root.medium
        is_limited = self.limits.max_total_bytes is not None or self.limits.min_free_bytes is not None
        self.findings = checks.check(self.path, is_limited=is_limited)
        for finding in self.findings:
            log.warning("storage: %s", finding.message)
        self.root.ensure_reserve()
        with files.storage_errors(f"read {self.path}"), files.closing_fd(self.root.open_root()) as root:
            boots = {offset.boot: offset.boot_id for offset in read_history(self.state_path)}
            move_first_edition(
                medium, self.state_path, has_recording=lambda id_: tree.has_recording(root, id_), boots=boots
            )
            number = medium.use_boot(self.walltime.boot, self.walltime.boot_id, tree.highest_boot(root))
            self.walltime.raise_boot(number)
        recovered = self._recovery.recover(everywhere=everywhere)
        snapshots.recover(self.root)
        self._listing.open(progress)
        self._listing.add_recovered(self._recovery.touched)
        self._recovery.touched.clear()
        self._recovery.cut_torn_ends(self._listing.manifests_next_to_change())
        self._listing.reconcile()
        return recovered

    def _medium_changed(self, medium: Medium) -> None:
        """Another medium, or the same one mounted again, lies at the path; called by StorageRoot.check."""
        if self._current_id == medium.id:
            return
        self._recovery.forget_unfinished()
        self._late += self._begin_on_medium(everywhere=False)
        self._current_id = medium.id

    def open_beside(self) -> None:
        """Open for a command while a daemon may be running: no recovery, no lock.

        Raises:
            StorageError: the storage or its index cannot be used.
        """
        self._use_state(lock=False)
        medium = self.root.open(create=False)
        is_beside = is_in_use(self.path)
        if not medium.is_kept and not is_beside:
            medium = self.root.open(create=True)
        try:
            self._listing.open(beside=is_beside)
            self._listing.reconcile()
        except StorageError as exc:
            if exc.code != "index":
                raise
            self._listing.fall_back(exc)  # on a full disk, where `prune` is needed most
            self._listing.reconcile()
        self._current_id = medium.id

    def unfinished(self) -> list[Unfinished]:
        """What `open(everywhere=True)` would finish or delete; nothing is changed. Not for an open store.

        Raises:
            StorageError: `locked`: a daemon records here, and what is unfinished is being written.
        """
        self.root.open(create=False).lock()
        try:
            return self._recovery.unfinished()
        finally:
            self.root.close()

    def close(self) -> None:
        """Let go of index and lock."""
        self.recordings.let_go()
        with self._lock:
            self._listing.close()
            self.root.close()
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
        return self._recovery.lost

    @property
    def limits(self) -> Limits:
        """Those of the whole storage; may be replaced at any time."""
        return self._janitor.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._janitor.limits = limits

    def sync_at_least_every(self, seconds: float) -> None:
        """Of the chunks that begin from here on."""
        self.recordings.sync_interval_s = seconds

    def require_proof(self, required: bool) -> None:
        """There is a store to which files are sent; `required`: rotation deletes only what that has proven."""
        self._janitor.is_offloading = True
        self._janitor.requires_proof = required

    @property
    def lacks_proof(self) -> bool:
        """Whether a recorder has no room that the proof of a store might give."""
        return self._janitor.lacks_proof

    @property
    def deleted_unproven(self) -> int:
        """How many files rotation has deleted before a store had them."""
        return self._janitor.deleted_unproven

    def limit_recorders(self, limits: Mapping[str, Limits]) -> None:
        """Replace the limits of single recorders, at any time."""
        self._janitor.recorder_limits = dict(limits)

    # --- recording ---

    def begin(self, recorder: str, mime_type: str, time_lapse: TimeLapse | None = None) -> Recording:
        """Draw a recording id. Nothing is on the disk before the first chunk.

        Args:
            time_lapse: what is recorded is played faster than it was captured.

        Raises:
            StorageError: the type has no file format, or the name is none.
        """
        return self.recordings.begin(recorder, mime_type, time_lapse)

    def add_snapshot(
        self,
        recorder: str,
        data: bytes,
        *,
        mime_type: str = "image/jpeg",
        taken_ns: int,
        recording: Recording | None,
    ) -> snapshots.Written:
        """Put a snapshot on the disk: in the recording that is under way, else under an id of its own.

        Args:
            mime_type: of a JPEG or a DNG. taken_ns: when, on CLOCK_MONOTONIC.

        Raises:
            StorageError: it is not there.
        """
        self.require_room()
        stamp = self.walltime.stamp(taken_ns)
        if recording is not None:
            return snapshots.write(self.root, self._listing, recording, data, mime_type, stamp)
        with self._album_lock:
            place = self._albums.next(recorder, stamp, self.root.medium.id)
            return snapshots.write(self.root, self._listing, place, data, mime_type, stamp)

    def require_room(self) -> None:
        """Rotate if needed.

        Raises:
            StorageError: `no_space`: there is none, and rotation may not help; `missing_mount`.
        """
        self.root.check()
        self._janitor.require_room()

    def check_writable(self, recorder: str) -> None:
        """Whether a chunk can be written now: there is room, the medium is there, and it takes what is written where
        the recorder's next chunk goes.

        Raises:
            StorageError: it cannot.
        """
        try:
            self.require_room()
            self.root.probe(f"{recorder}/{layout.day_folder(self.walltime.stamp())}")
        except StorageError as exc:
            if exc.code != "no_space" or not self._can_write():
                self.root.release()
            raise

    def _can_write(self) -> bool:
        try:
            self.root.probe()
        except StorageError as exc:
            return exc.code == "no_space"  # it is full, and no other one: the lock stays
        return True

    # --- upkeep ---

    def plan(self) -> list[Planned]:
        """What `rotate` would delete now.

        Raises:
            StorageError: index or file system cannot be read.
        """
        return self._janitor.plan()

    def kept(self) -> list[Planned]:
        """What the limits would take, too, and `rotate` leaves: it is protected, or no store has proven it yet.

        Raises:
            StorageError: index or file system cannot be read.
        """
        return self._janitor.kept()

    def missing_room(self) -> str | None:
        """Why no chunk could begin now; None: one could.

        Raises:
            StorageError: index or file system cannot be read.
        """
        return self._janitor.missing_room()

    def rotate(self) -> list[Deleted]:
        """Delete what the limits say; what cannot be deleted is reported and left.

        Raises:
            StorageError: nothing could be planned.
        """
        self.root.check()
        now_ns = self.clock.monotonic_ns()
        if now_ns - self._reconciled_ns > _RECONCILE_NS:
            self._reconciled_ns = now_ns
            self._listing.reconcile()
        return self._janitor.rotate()

    def finish_unfinished(self) -> list[ManifestLine]:
        """Finish the chunks whose finishing had failed, as far as that goes now; the lines of what became chunks.

        Any thread, one at a time.
        """
        late, self._late = self._late, []
        return late + self._recovery.finish_unfinished()

    def usage(self) -> Usage:
        """
        Raises:
            StorageError: the medium is not there, or index or file system cannot be read.
        """
        status = self.root.status()
        free = status.f_bavail * status.f_frsize
        finished, chunks = self.index.totals()
        limits = self._janitor.limits
        space = self._open_space()
        total = finished + space.total_bytes
        room = free - (limits.min_free_bytes or 0)
        if limits.max_total_bytes is not None:
            room = min(room, limits.max_total_bytes - total)
        protected = self.index.protected_bytes()
        is_ring = finished > protected and room <= sum(space.headrooms)  # the oldest makes room
        meter = self.recordings.meter
        return Usage(
            total_bytes=total,
            open_bytes=space.total_bytes,
            chunks=chunks,
            free_bytes=free,
            capacity_bytes=status.f_blocks * status.f_frsize,
            seconds_left=None if is_ring or not self.recordings else meter.seconds_for(room),
            unsynced_s=self.recordings.unsynced_s,
            written_bytes=meter.written_bytes,
            sync_s_max=meter.sync_s_max,
            protected_bytes=protected,
            free_inodes=status.f_favail if getattr(status, "f_files", 0) else None,
        )

    def _open_space(self) -> OpenSpace:
        """What is being written, and what waits to be finished."""
        space = self.recordings.space()
        by_recorder = Counter(space.by_recorder)
        by_recorder.update(self._recovery.unfinished_bytes())
        return OpenSpace(by_recorder=by_recorder, headrooms=space.headrooms)

    def _is_open(self, recording_id: str) -> bool:
        if self.recordings.has(recording_id) or self._albums.has(recording_id):
            return True
        with files.storage_errors(f"read {self.path}"), files.closing_fd(self.root.open_root()) as root:
            return self.journal.is_open(root, recording_id)

    def protected_share(self) -> float:
        """What part of `max_total` is protected; 0.0 without that limit.

        Raises:
            StorageError: the index cannot be read.
        """
        limit = self.limits.max_total_bytes
        return self.index.protected_bytes() / limit if limit else 0.0

    # --- the state folder ---

    def _use_state(self, *, lock: bool = True) -> None:
        """Make it and lock it. Where it takes nothing recordings are made all the same, which is logged."""
        try:
            files.require_no_file(self.state_path)
            self.state_path.mkdir(mode=files.FOLDER_MODE, parents=True, exist_ok=True)
            if not lock:
                return
            fd = os.open(self.state_path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, files.FILE_MODE)
        except (OSError, StorageError) as exc:
            report_unwritable(self.state_path, "the lock", exc)
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(fd)
            raise StorageError(f"another msrecd uses the state folder {self.state_path}", "locked") from exc
        except OSError as exc:
            log.debug("no lock on %s: %s", self.state_path, exc)
        self._lock_fd = fd
