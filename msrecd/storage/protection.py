"""Protections: the chunks that rotation leaves alone, for a moment (a lease) or until that is taken back."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from msrecd.errors import StorageError
from msrecd.storage import files, layout
from msrecd.storage.journal import Journal
from msrecd.storage.listing import Listing
from msrecd.storage.root import ALL_CHUNKS, Ranges, StorageRoot
from msrecd.vocabulary.units import format_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """What was protected: the chunks that are there, their bytes; is_endless: also all that are to come."""

    recording_ids: tuple[str, ...]
    chunks: int
    bytes: int
    is_endless: bool


class Protections:
    """Any thread. Everything but leases is on the medium, beside the recording, and survives a restart."""

    def __init__(
        self,
        root: StorageRoot,
        listing: Listing,
        journal: Journal,
        is_open: Callable[[str], bool],
        limit_bytes: Callable[[], int | None],
    ) -> None:
        """
        Args:
            is_open: whether a recording id is being recorded.
            limit_bytes: how much may be protected; None: all.
        """
        self._limit_bytes = limit_bytes
        self._root = root
        self._listing = listing
        self._journal = journal
        self._is_open = is_open
        self._lock = threading.Lock()
        self._leases: Counter[tuple[str, int]] = Counter()

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
                self._leases += Counter()  # forgets those that have reached zero

    def is_leased(self, recording_id: str, seq: int) -> bool:
        return (recording_id, seq) in self._leases

    def protect(self, recording_id: str, *, chunks: tuple[int, int] | None = None, whole: bool = False) -> Protection:
        """Keep chunks of a recording whatever the limits say.

        Args:
            chunks: the first and last seq, of a running recording also of what is to come; None: all that are there, of
                a recording that has ended all for good.
            whole: of one that is running also those to come.

        Raises:
            StorageError: `not_found`, also of chunks; `protected_limit`: it would be more than may be protected; or it
                cannot be kept.
        """
        self._require_recording(recording_id)
        is_running = self._is_open(recording_id)
        if chunks is not None:
            self._require_chunks(recording_id, chunks, is_running=is_running)
            ranges: Ranges = [chunks]
        elif is_running and not whole:
            first, last, *_ = self._listing.index.seqs(recording_id)
            ranges = [(1, last)] if first else []
        else:
            ranges = ALL_CHUNKS
        return self._protect({recording_id: ranges}, is_endless=is_running and whole and chunks is None)

    def protect_range(self, recorder: str, from_ns: int, to_ns: int) -> Protection:
        """Keep the chunks of a recorder that touch a time range (UTC), those that are being written included.

        Raises:
            StorageError: `not_found`: there are none; `protected_limit`, as `protect`; or it cannot be kept.
        """
        found: dict[str, list[tuple[int, int]]] = {}
        for recording_id, first, last in self._listing.index.seqs_between(recorder, from_ns, to_ns):
            found.setdefault(recording_id, []).append((first, last))
        with files.storage_errors(f"read {self._root.path}"), files.closing_fd(self._root.open_root()) as root:
            running = [entry for entry in self._journal.read_all(root) if entry.recorder == recorder]
        for entry in running:
            for chunk in entry.chunks:
                if chunk.started_ns <= to_ns and self._root.walltime.now_ns() >= from_ns:
                    found.setdefault(entry.recording_id, []).append((chunk.seq, chunk.seq))
        if not found:
            raise StorageError(f"{recorder} has no chunks in this range", "not_found")
        return self._protect(found, is_endless=False)

    def _protect(self, new: Mapping[str, Ranges], *, is_endless: bool) -> Protection:
        self._check_limit(new, is_endless=is_endless)
        chunks = size = 0
        for recording_id, ranges in new.items():
            merged = _merge([*(self._root.protected_ranges(recording_id) or ()), *ranges])
            with files.storage_errors(f"protect {recording_id}"):
                self._root.protect(recording_id, merged)
            self._listing.index.protect(recording_id, merged)
            for low, high in _merge(ranges):
                *_, count, taken = self._listing.index.seqs(recording_id, low, high)
                chunks, size = chunks + count, size + taken
        return Protection(recording_ids=tuple(new), chunks=chunks, bytes=size, is_endless=is_endless)

    def _check_limit(self, new: Mapping[str, Ranges], *, is_endless: bool) -> None:
        """
        Args:
            is_endless: more is to come, for which there must be room.

        Raises:
            StorageError: `protected_limit`.
        """
        limit = self._limit_bytes()
        if limit is None:
            return
        index = self._listing.index
        there = index.protected_bytes()
        more = sum(
            index.loose_bytes(recording_id, low, high)
            for recording_id, ranges in new.items()
            for low, high in _merge(ranges)
        )
        grows = is_endless
        for (recording_id, seq), size in self._unfinished_bytes().items():
            if self._root.is_protected(recording_id, seq):
                there += size
            elif any(low <= seq <= high for low, high in new.get(recording_id, ())):
                more, grows = more + size, True
        if (more and there + more > limit) or (grows and there + more >= limit):
            raise StorageError(
                f"{format_size(there)} are protected, {format_size(more) + ' ' if more else ''}more would be above "
                f"storage.max_protected = {format_size(limit)}: unprotect recordings, or raise it in the configuration "
                "and reload that",
                "protected_limit",
            )

    def _unfinished_bytes(self) -> dict[tuple[str, int], int]:
        """What the chunks that are being written have by now, by (recording_id, seq).

        Raises:
            StorageError: it cannot be read.
        """
        found: dict[tuple[str, int], int] = {}
        with files.storage_errors(f"read {self._root.path}"), files.closing_fd(self._root.open_root()) as root:
            for recording in self._journal.read_all(root):
                for entry in recording.chunks:
                    folder_name, _, name = entry.file.rpartition("/")
                    if self._listing.index.has_chunk(recording.recording_id, entry.seq):
                        continue  # it has just been finished
                    with (
                        contextlib.suppress(FileNotFoundError),
                        files.closing_fd(files.open_folder(root, folder_name)) as folder,
                    ):
                        size = os.stat(name + layout.PART, dir_fd=folder, follow_symlinks=False).st_size
                        found[recording.recording_id, entry.seq] = size
        return found

    def end_at_limit(self) -> list[str]:
        """Let what running recordings still bring go unprotected once the limit is reached; their ids.

        Raises:
            StorageError: it cannot be read or changed.
        """
        limit = self._limit_bytes()
        if limit is None or self._listing.index.protected_bytes() < limit:
            return []
        with files.storage_errors(f"read {self._root.path}"), files.closing_fd(self._root.open_root()) as root:
            running = {entry.recording_id for entry in self._journal.read_all(root)}
        ended = []
        for recording_id in sorted(running):
            *_, last = [0, *(high for _, high in self._root.protected_ranges(recording_id) or ())]
            _, there, *_ = self._listing.index.seqs(recording_id)
            if last <= there + 1:  # nothing but what is being written
                continue
            left = _without(self._root.protected_ranges(recording_id) or (), (there + 1, last))
            with files.storage_errors(f"protect {recording_id}"):
                self._root.protect(recording_id, left or None)
            ended.append(recording_id)
        return ended

    def unprotect(self, recording_id: str, *, chunks: tuple[int, int] | None = None) -> None:
        """Let a recording, or some chunks of it, go by the limits again.

        Raises:
            StorageError: `not_found`, also of chunks, as `protect`; or it cannot be changed.
        """
        self._require_recording(recording_id)
        if chunks is not None:
            self._require_chunks(recording_id, chunks, is_running=self._is_open(recording_id))
        left = [] if chunks is None else _without(self._root.protected_ranges(recording_id) or (), chunks)
        with files.storage_errors(f"unprotect {recording_id}"):
            self._root.protect(recording_id, left or None)
        self._listing.index.protect(recording_id, left)

    def is_protected(self, recording_id: str, seq: int = 1) -> bool:
        return self._root.is_protected(recording_id, seq)

    def _require_chunks(self, recording_id: str, chunks: tuple[int, int], *, is_running: bool) -> None:
        """
        Raises:
            StorageError: `not_found`: there is none of them, or not the last one, and it is not to come either.
        """
        first, last, *_ = self._listing.index.seqs(recording_id)
        *_, count, _ = self._listing.index.seqs(recording_id, *chunks)
        is_right = is_running if chunks[1] > last else count > 0
        if not is_right:
            asked = "-".join(str(seq) for seq in sorted(set(chunks)))
            there = f"its chunks are {first}-{last}" if first else "it has no chunks"
            raise StorageError(f"{recording_id} has no chunks {asked}: {there}", "not_found")

    def _require_recording(self, recording_id: str) -> None:
        parsed = layout.parse_recording_id(recording_id)
        if parsed is None or not (self._listing.index.has_recording(recording_id) or self._is_open(recording_id)):
            raise StorageError(f"there is no recording {recording_id!r}", "not_found")


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
