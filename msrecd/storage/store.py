"""Store: the recordings on the disk, as the daemon and the commands use them.

Everything here blocks. One recording is used by one thread at a time, different ones by different threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
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
from msrecd.storage.manifest import ManifestLine
from msrecd.storage.medium import Medium, is_in_use, move_first_edition
from msrecd.storage.meter import Meter
from msrecd.storage.naming import Names
from msrecd.storage.outgoing import Outgoing
from msrecd.storage.recording import ChunkFacts, Leftover, OpenChunk, Recording
from msrecd.storage.recovery import Lost, Recovery, Unfinished
from msrecd.storage.retention import Limits, Planned
from msrecd.storage.root import ALL_CHUNKS, Ranges, StorageRoot
from msrecd.storage.triggerlines import TriggerNotes
from msrecd.vocabulary.formats import extension_for
from msrecd.vocabulary.lapse import TimeLapse

__all__ = ["ChunkFacts", "Deleted", "OpenChunk", "Protection", "Recording", "Store", "Usage"]

log = logging.getLogger(__name__)

_RECONCILE_NS = 600 * NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """capacity_bytes: of the file system; total_bytes: of recordings, open ones included; seconds_left: until full at
    the rate of the last ten minutes, None when nothing is recorded and in a ring, which is full and goes round;
    unsynced_s: for how long written data has been waiting to be on the disk.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """What was protected: the chunks that are there, their bytes; is_endless: also all that are to come."""

    recording_ids: tuple[str, ...]
    chunks: int
    bytes: int
    is_endless: bool


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
        self.root = StorageRoot(path, state_path, walltime=walltime, clock=clock)
        self.root.on_change = self._medium_changed
        self.journal = Journal()
        self.triggers = TriggerNotes(walltime)
        self._listing = Listing(self.root)
        self._recovery = Recovery(self.root, self.journal, sync_interval_s=sync_interval_s, listed=self._list_late)
        self._janitor = Janitor(
            self.root,
            self._listing,
            limits=limits,
            recorder_limits=recorder_limits,
            open_space=self._open_space,
            is_open=self._is_open,
            is_leased=lambda recording_id, seq: (recording_id, seq) in self._leases,
        )
        self._lock = threading.RLock()
        self._album_lock = threading.Lock()
        self._lock_fd: int | None = None
        self._open: dict[str, Recording] = {}
        self._leases: Counter[tuple[str, int]] = Counter()
        self._late: list[ManifestLine] = []  # recovered from a medium that came while others were recorded to
        self._albums = snapshots.Albums(self._draw)
        self.outgoing = Outgoing(self.root, self._listing, self.lease)
        self._names = Names(walltime, lambda recorder, below: self.index.last_recording_id(recorder, below))
        self._meter = Meter(clock, lambda recorder, count: self.index.last_sizes(recorder, count))
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
        self._recovery.forget_leftovers()
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
        self._listing.open(beside=is_beside)
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

    def require_proof(self, required: bool) -> None:
        """There is a store to which files are sent; `required`: rotation deletes only what that has proven."""
        self._janitor.is_offloading = True
        self._janitor.requires_proof = required

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
        try:
            extension = extension_for(mime_type).removeprefix(".")
            recording_id = self._draw(recorder)
        except ValueError as exc:
            raise StorageError(str(exc), "bad_args") from exc
        recording = Recording(self, recorder, recording_id, mime_type, extension, time_lapse)
        with self._lock:
            self._open[recording_id] = recording
        return recording

    def _draw(self, recorder: str) -> str:
        with self._lock:
            return self._names.draw(recorder)

    def add_snapshot(
        self, recorder: str, jpeg: bytes, *, taken_ns: int, recording: Recording | None
    ) -> snapshots.Written:
        """Put a snapshot on the disk: in the recording that is under way, else under an id of its own.

        Args:
            taken_ns: when, on CLOCK_MONOTONIC.

        Raises:
            StorageError: it is not there.
        """
        self.require_room()
        stamp = self.walltime.stamp(taken_ns)
        if recording is not None:
            return snapshots.write(self.root, self._listing, recording, jpeg, stamp)
        with self._album_lock:
            place = self._albums.next(recorder, stamp, self.root.medium.id)
            return snapshots.write(self.root, self._listing, place, jpeg, stamp)

    # --- for recordings and their chunks ---

    def forget(self, recording: Recording) -> None:
        """A recording has ended."""
        with self._lock:
            self._open.pop(recording.recording_id, None)

    def leave(self, leftover: Leftover) -> None:
        """A chunk could not be finished; `finish_leftovers` tries again."""
        self._recovery.leave(leftover)

    def rename(self, recording: Recording) -> str:
        """Draw another id for a recording that goes on, on another medium."""
        with self._lock:
            self._open.pop(recording.recording_id, None)
            recording_id = self._names.draw(recording.recorder)
            self._open[recording_id] = recording
            return recording_id

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
        self.root.check()
        self._janitor.require_room()

    def check_writable(self) -> None:
        """Whether a chunk can be written now: there is room, the medium is there, and it takes what is written.

        Raises:
            StorageError: it cannot.
        """
        try:
            self.require_room()
            self.root.probe()
        except StorageError as exc:
            if exc.code != "no_space" or not self._can_write():
                self.root.release()
            raise

    def _can_write(self) -> bool:
        try:
            self.root.probe()
        except StorageError:
            return False
        return True

    # --- upkeep ---

    def plan(self) -> list[Planned]:
        """What `rotate` would delete now.

        Raises:
            StorageError: index or file system cannot be read.
        """
        return self._janitor.plan()

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

    def finish_leftovers(self) -> list[ManifestLine]:
        """Finish the chunks whose finishing had failed, as far as that goes now; the lines of what became chunks.

        Any thread, one at a time.
        """
        late, self._late = self._late, []
        return late + self._recovery.finish_leftovers()

    def _list_late(self, recording: Recording, line: ManifestLine) -> None:
        self.listed(recording.recorder, recording.recording_id, recording.manifest, line)

    def usage(self) -> Usage:
        """
        Raises:
            StorageError: the medium is not there, or index or file system cannot be read.
        """
        status = self.root.status()
        free = status.f_bavail * status.f_frsize
        finished, chunks = self.index.totals()
        limits = self._janitor.limits
        open_bytes = self._open_space().total_bytes
        total = finished + open_bytes
        room = free - (limits.min_free_bytes or 0)
        if limits.max_total_bytes is not None:
            room = min(room, limits.max_total_bytes - total)
        is_ring = finished > self.index.protected_bytes() and room <= self._open_headroom()  # the oldest makes room
        return Usage(
            total_bytes=total,
            open_bytes=open_bytes,
            chunks=chunks,
            free_bytes=free,
            capacity_bytes=status.f_blocks * status.f_frsize,
            seconds_left=None if is_ring or not self._open else self._meter.seconds_for(room),
            unsynced_s=max((recording.unsynced_s for recording in self._recordings()), default=0.0),
            written_bytes=self._meter.written_bytes,
            sync_s_max=self._meter.sync_s_max,
        )

    def _recordings(self) -> list[Recording]:
        with self._lock:
            return list(self._open.values())

    def _open_headroom(self) -> int:
        """What open chunks may still grow by: so much room is made before it is needed."""
        return sum(self._open_space().headrooms)

    def _open_space(self) -> OpenSpace:
        by_recorder = self._recovery.leftover_bytes()
        headrooms: list[int] = []
        with self._lock:
            for recording in self._open.values():
                size = recording.open_bytes
                by_recorder[recording.recorder] = by_recorder.get(recording.recorder, 0) + size
                headrooms.append(max(0, self._meter.largest_of(recording.recorder) - size))
        return OpenSpace(by_recorder=by_recorder, headrooms=tuple(headrooms))

    def _is_open(self, recording_id: str) -> bool:
        if recording_id in self._open or self._albums.has(recording_id):
            return True
        with files.storage_errors(f"read {self.path}"), files.closing_fd(self.root.open_root()) as root:
            return self.journal.is_open(root, recording_id)

    # --- what rotation leaves alone ---

    @contextlib.contextmanager
    def lease(self, recording_id: str, seq: int) -> Iterator[None]:
        """Keep a chunk while it is being read, sent or proven: rotation takes others meanwhile."""
        with self._lock:
            self._leases[recording_id, seq] += 1
        try:
            yield
        finally:
            with self._lock:
                self._leases[recording_id, seq] -= 1
                self._leases += Counter()  # forgets those that nobody holds

    def protect(self, recording_id: str, *, chunks: tuple[int, int] | None = None, whole: bool = False) -> Protection:
        """Keep chunks of a recording whatever the limits say.

        Args:
            chunks: the first and last seq; None: all that are there, of a recording that has ended all for good.
            whole: of one that is running also those to come.

        Raises:
            StorageError: `not_found`; or it cannot be kept.
        """
        self._require_recording(recording_id)
        is_running = self._is_open(recording_id)
        if chunks is not None:
            ranges: Ranges = [chunks]
        elif is_running and not whole:
            first, last, *_ = self.index.seqs(recording_id)
            ranges = [(1, last)] if first else []
        else:
            ranges = ALL_CHUNKS
        return self._protect({recording_id: ranges}, is_endless=is_running and whole and chunks is None)

    def protect_range(self, recorder: str, from_ns: int, to_ns: int) -> Protection:
        """Keep the chunks of a recorder that touch a time range (UTC), those that are being written included.

        Raises:
            StorageError: `not_found`: there are none; or it cannot be kept.
        """
        found: dict[str, list[tuple[int, int]]] = {}
        for recording_id, first, last in self.index.seqs_between(recorder, from_ns, to_ns):
            found.setdefault(recording_id, []).append((first, last))
        with files.storage_errors(f"read {self.path}"), files.closing_fd(self.root.open_root()) as root:
            running = [entry for entry in self.journal.read_all(root) if entry.recorder == recorder]
        for entry in running:
            for chunk in entry.chunks:
                if chunk.started_ns <= to_ns and self.walltime.now_ns() >= from_ns:
                    found.setdefault(entry.recording_id, []).append((chunk.seq, chunk.seq))
        if not found:
            raise StorageError(f"{recorder} has no chunks in this range", "not_found")
        return self._protect(found, is_endless=False)

    def _protect(self, new: Mapping[str, Ranges], *, is_endless: bool) -> Protection:
        chunks = size = 0
        for recording_id, ranges in new.items():
            merged = _merge([*(self.root.protected_ranges(recording_id) or ()), *ranges])
            with files.storage_errors(f"protect {recording_id}"):
                self.root.protect(recording_id, merged)
            self.index.protect(recording_id, merged)
            for low, high in _merge(ranges):
                *_, count, taken = self.index.seqs(recording_id, low, high)
                chunks, size = chunks + count, size + taken
        return Protection(recording_ids=tuple(new), chunks=chunks, bytes=size, is_endless=is_endless)

    def unprotect(self, recording_id: str, *, chunks: tuple[int, int] | None = None) -> None:
        """Let a recording, or some chunks of it, go by the limits again.

        Raises:
            StorageError: `not_found`, or it cannot be changed.
        """
        self._require_recording(recording_id)
        left = [] if chunks is None else _without(self.root.protected_ranges(recording_id) or (), chunks)
        with files.storage_errors(f"unprotect {recording_id}"):
            self.root.protect(recording_id, left or None)
        self.index.protect(recording_id, left)

    def protected_share(self) -> float:
        """What part of `max_total` is protected; 0.0 without that limit.

        Raises:
            StorageError: the index cannot be read.
        """
        limit = self.limits.max_total_bytes
        return self.index.protected_bytes() / limit if limit else 0.0

    def is_protected(self, recording_id: str, seq: int = 1) -> bool:
        return self.root.is_protected(recording_id, seq)

    def _require_recording(self, recording_id: str) -> None:
        parsed = layout.parse_recording_id(recording_id)
        if parsed is None or not (self.index.has_recording(recording_id) or self._is_open(recording_id)):
            raise StorageError(f"there is no recording {recording_id!r}", "not_found")

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


def _merge(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Inclusive ranges in order, those that touch as one."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(high, merged[-1][1])
        else:
            merged.append((low, high))
    return merged


def _without(ranges: Iterable[tuple[int, int]], taken: tuple[int, int]) -> list[tuple[int, int]]:
    left = [piece for low, high in ranges for piece in ((low, min(high, taken[0] - 1)), (max(low, taken[1] + 1), high))]
    return [(low, high) for low, high in left if low <= high]
