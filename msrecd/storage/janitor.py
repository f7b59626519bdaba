"""Janitor: makes room as the limits say, and holds nobody up while it deletes."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from msrecd.errors import StorageError
from msrecd.storage import files, layout, manifest, tree
from msrecd.storage.index import Index
from msrecd.storage.listing import Listing
from msrecd.storage.retention import ChunkRef, Limits, Planned, Situation, kept, plan
from msrecd.storage.root import StorageRoot
from msrecd.vocabulary.units import format_size

log = logging.getLogger(__name__)

LEAST_ROOM_BYTES = 2 << 20  # with less no chunk begins, whatever `min_free` says
LEAST_FILES = 64  # inodes that stay free: chunks, manifests and folders need some
_MAX_FAILURES = 8  # of one round: on a disk that fails as a whole there is no use in trying all


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """A chunk that rotation took."""

    file: str
    recording_id: str
    seq: int
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSpace:
    """What unfinished chunks take (by recorder) and what each open one may still grow by."""

    by_recorder: Mapping[str, int]
    headrooms: tuple[int, ...] = ()

    @property
    def total_bytes(self) -> int:
        return sum(self.by_recorder.values())


class _Without:
    """The index without files that cannot, or must not, be deleted; their bytes count all the same."""

    def __init__(
        self, index: Index, without: AbstractSet[str], *, proven_only: bool, with_protected: bool = False
    ) -> None:
        self._index = index
        self._without = without
        self._proven_only = proven_only
        self._with_protected = with_protected

    def total_bytes(self, recorder: str | None) -> int:
        return self._index.total_bytes(recorder)

    def oldest(self, recorder: str | None) -> Iterator[ChunkRef]:
        chunks = self._index.oldest(recorder, proven_only=self._proven_only, with_protected=self._with_protected)
        return (chunk for chunk in chunks if chunk.file not in self._without)

    def aged(self, recorder: str | None, before_ns: int) -> Iterator[ChunkRef]:
        chunks = self._index.aged(
            recorder, before_ns, proven_only=self._proven_only, with_protected=self._with_protected
        )
        return (chunk for chunk in chunks if chunk.file not in self._without)


class Janitor:
    """Any thread; one of them deletes at a time. No lock of anybody else is held while a file is deleted."""

    def __init__(
        self,
        root: StorageRoot,
        listing: Listing,
        *,
        limits: Limits,
        recorder_limits: Mapping[str, Limits],
        open_space: Callable[[], OpenSpace],
        is_open: Callable[[str], bool],
        is_leased: Callable[[str, int], bool],
    ) -> None:
        """
        Args:
            open_space: what is being written now.
            is_open: whether a recording id is being recorded.
            is_leased: whether somebody needs a chunk for now.
        """
        self.limits = limits
        self.recorder_limits = dict(recorder_limits)
        self.requires_proof = False  # delete only what a store has proven
        self.is_offloading = False  # whether there is a store
        self.deleted_unproven = 0  # what went before a store had it
        self._root = root
        self._listing = listing
        self._open_space = open_space
        self._is_open = is_open
        self._is_leased = is_leased
        self._deleting = threading.Lock()
        self.lacks_proof = False  # the last chunk that wanted to begin could not, while files wait for their proof
        self._announced: set[str] = set()  # their manifests say deleted, and they could not be: tried again

    def plan(self) -> list[Planned]:
        """What `rotate` would delete now.

        Raises:
            StorageError: index or file system cannot be read.
        """
        return self._plan(frozenset())

    def kept(self) -> list[Planned]:
        """What the limits would take, too, and `rotate` leaves: it is protected, or no store has proven it yet.

        Raises:
            StorageError: index or file system cannot be read.
        """
        view = _Without(self._listing.index, frozenset(), proven_only=False, with_protected=True)
        return kept(view, self.limits, self.recorder_limits, self._situation())

    def _plan(self, without: AbstractSet[str]) -> list[Planned]:
        situation = self._situation()
        view = _Without(self._listing.index, without, proven_only=self.requires_proof)
        return plan(view, self.limits, self.recorder_limits, situation)

    def _situation(self) -> Situation:
        self._listing.apply_corrections()
        status = self._root.status()
        space = self._open_space()
        return Situation(
            age_now_ns=self._root.walltime.age_now_ns(),
            free_bytes=status.f_bavail * status.f_frsize,
            headroom_bytes=sum(space.headrooms),
            one_chunk_bytes=max(space.headrooms, default=0),
            open_bytes=space.by_recorder,
            missing_files=_missing_files(status),
            least_free_bytes=LEAST_ROOM_BYTES,
            requires_proof=self.requires_proof,
        )

    def rotate(self) -> list[Deleted]:
        """Delete what the limits say; what cannot be deleted is reported and left.

        Raises:
            StorageError: nothing could be planned; `missing_mount`.
        """
        with self._deleting:
            return self._rotate_or_fall_back()

    def require_room(self) -> None:
        """Make sure that a chunk may begin. While another thread makes room already, wait only if there is none.

        Raises:
            StorageError: `no_space`: there is none, and rotation may not help.
        """
        if self._deleting.acquire(blocking=False):
            try:
                self._rotate_or_fall_back()
            finally:
                self._deleting.release()
        elif self.missing_room() is not None:
            self.rotate()
        problem = self.missing_room()
        self.lacks_proof = problem is not None and self.requires_proof
        if problem is not None:
            raise StorageError(problem, "no_space")

    def missing_room(self) -> str | None:
        """Why no chunk may begin; None: one may.

        Raises:
            StorageError: index or file system cannot be read.
        """
        status = self._root.status()
        free = status.f_bavail * status.f_frsize
        capacity = status.f_blocks * status.f_frsize
        limits = self.limits
        least = max(limits.min_free_bytes or 0, LEAST_ROOM_BYTES)
        if free < least:
            return self._too_little_free(free, capacity, least)
        if _missing_files(status):
            return (
                f"{status.f_favail} inodes are free in {self._root.path}, and a chunk begins only with {LEAST_FILES}: "
                "remove files that are not recordings"
            )
        total = self._listing.index.total_bytes(None) + self._open_space().total_bytes
        if limits.max_total_bytes is not None and total > limits.max_total_bytes:
            return (
                f"recordings take {format_size(total)} of storage.max_total = {format_size(limits.max_total_bytes)}, "
                f"and none may be deleted{self._protected()}: {self._remedy()}"
            )
        return None

    def _too_little_free(self, free: int, capacity: int, least: int) -> str:
        there = format_size(free)
        if there == format_size(least):  # rounded: "2MiB are free, 2MiB are needed" helps nobody
            there = f"{free:,} bytes".replace(",", "_")
        where = f"{there} of {format_size(capacity)} are free in {self._root.path}"
        if least == LEAST_ROOM_BYTES:
            if self.limits.min_free_bytes is not None:
                remedy = "raise storage.min_free, so that old recordings go, or remove other files"
            elif self.limits.max_total_bytes is not None:
                remedy = "all recordings that may go would not give as much; remove other files"
            else:
                remedy = "set storage.max_total, so that old recordings go, or remove other files"
            return f"{where}, and a chunk begins only with {format_size(least)}{self._protected()}: {remedy}"
        key = f"storage.min_free = {format_size(least)}"
        if least > capacity:
            return f"{where}, and {key} is more than there is at all: lower it"
        return f"{where}, and {key} must stay free{self._protected()}: lower it, or remove files"

    def _protected(self) -> str:
        """What keeps rotation from deleting, in brackets."""
        kept = self._listing.index.protected_bytes()
        waiting = self._listing.index.unproven_totals()[1] if self.requires_proof else 0
        parts = [f"{format_size(kept)} of recordings are protected"] if kept else []
        parts += [f"{format_size(waiting)} wait for the store of [offload]"] if waiting else []
        return f" ({', '.join(parts)})" if parts else ""

    def _remedy(self) -> str:
        if self.requires_proof and self._listing.index.unproven_totals()[0]:
            return 'see to the store of [offload], raise the limit, or set offload.delete = "never"'
        return "raise it, or unprotect recordings"

    def _rotate_or_fall_back(self) -> list[Deleted]:
        try:
            return self._rotate()
        except StorageError as exc:
            if exc.code != "index":
                raise
            self._listing.fall_back(exc)
            return self._rotate()

    def _rotate(self) -> list[Deleted]:
        self._root.check()  # an unmounted disk is not a deleted file
        deleted: list[Deleted] = []
        failed: set[str] = set()
        while len(failed) < _MAX_FAILURES:
            others_needed = False
            for planned in self._plan(failed):
                chunk = planned.chunk
                if self._is_kept(chunk):  # since the plan was made
                    failed.add(chunk.file)
                    others_needed = True
                    continue
                try:
                    if self._delete(chunk, planned.reason):
                        deleted.append(_deleted(planned))
                    else:
                        others_needed = True  # somebody had taken it: the room it gave is there already
                except (OSError, StorageError) as exc:
                    if isinstance(exc, StorageError) and exc.code == "index":
                        raise
                    log.warning("%s cannot be deleted: %s", chunk.file, exc)
                    failed.add(chunk.file)
                    others_needed = True
                    if len(failed) >= _MAX_FAILURES:
                        break
            if not others_needed:
                break
        self._root.ensure_reserve()
        return deleted

    def _is_kept(self, chunk: ChunkRef) -> bool:
        return self._root.is_protected(chunk.recording_id, chunk.seq) or self._is_leased(chunk.recording_id, chunk.seq)

    def _delete(self, chunk: ChunkRef, reason: str) -> bool:
        """Whether there was a file; where there is none any more, the index forgets it.

        Raises:
            OSError, StorageError: it is still there.
        """
        was_there = False
        index = self._listing.index
        split = layout.split_file(chunk.file)
        if split is None or not _is_name_of(split[2], chunk):
            index.remove(chunk.recording_id, chunk.seq)
            raise StorageError("not a name of ours", "unsafe_path")
        place = index.manifest_of(chunk.recording_id)
        with files.closing_fd(self._root.open_root()) as root:
            try:
                with files.closing_fd(files.open_folder(root, f"{split[0]}/{split[1]}")) as folder:
                    if files.exists(folder, split[2]):  # what somebody else took stays missing for `verify`
                        if place is not None and chunk.file not in self._announced:
                            self._root.append_deletion(root, place, chunk.seq, str(reason))
                            self._announced.add(chunk.file)
                            if chunk.proven:
                                index.note_lines(chunk.recording_id, has_unsent=True)
                            elif self.is_offloading:
                                self.deleted_unproven += 1
                        os.unlink(split[2], dir_fd=folder)
                        os.fsync(folder)  # or a power cut brings it back after the index has forgotten it
                        was_there = True
            except FileNotFoundError:
                pass
            self._announced.discard(chunk.file)
            if index.remove(chunk.recording_id, chunk.seq) and not self._has_live_chunks(root, place):
                self._drop_recording(root, chunk.recording_id, place)
            files.remove_empty_folders(root, f"{split[0]}/{split[1]}")
        return was_there

    def _has_live_chunks(self, root: int, place: str | None) -> bool:
        """Whether a manifest lists chunks that were not deleted: somebody took them, and may bring them back."""
        with contextlib.suppress(OSError):
            if place is None:
                return False
            return manifest.has_live(tree.manifest_entries(root, place))
        return False

    def _drop_recording(self, root: int, recording_id: str, place: str | None) -> None:
        if self._is_open(recording_id):
            return
        if place is not None and layout.split_file(place) is not None:
            folder_name, _, name = place.rpartition("/")
            with contextlib.suppress(FileNotFoundError):
                with files.closing_fd(files.open_folder(root, folder_name)) as folder:
                    os.unlink(name, dir_fd=folder)
                files.remove_empty_folders(root, folder_name)
        self._listing.index.remove_recording(recording_id)


def _is_name_of(name: str, chunk: ChunkRef) -> bool:
    """Whether a file name can be that of a chunk, or of a snapshot."""
    if chunk.is_snapshot:
        return layout.parse_snapshot_name(name) == (chunk.recording_id, -chunk.seq)
    parsed = layout.parse_chunk_name(name)
    return parsed is not None and not parsed.is_part and parsed.recording_id == chunk.recording_id


def _deleted(planned: Planned) -> Deleted:
    chunk = planned.chunk
    return Deleted(
        file=chunk.file,
        recording_id=chunk.recording_id,
        seq=chunk.seq,
        bytes=chunk.bytes,
        reason=str(planned.reason),
    )


def _missing_files(status: os.statvfs_result) -> int:
    """How many inodes are missing; 0 where the file system does not count them."""
    return max(0, LEAST_FILES - status.f_favail) if getattr(status, "f_files", 0) else 0
