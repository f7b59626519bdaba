"""Listing: the index of a medium, kept in step with its manifests, its files and what is learnt about the clock."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from itertools import islice
from pathlib import Path

from msrecd.clock import NS
from msrecd.errors import StorageError
from msrecd.statefolder import report_unwritable
from msrecd.storage import files, layout, manifest, tree
from msrecd.storage.index import Index
from msrecd.storage.journal import OpenRecording
from msrecd.storage.manifest_lines import ManifestLine, Offloaded, SnapshotLine
from msrecd.storage.medium import FOLDER
from msrecd.storage.retention import ChunkRef
from msrecd.storage.root import StorageRoot
from msrecd.vocabulary.times import parse_utc
from msrecd.vocabulary.units import counted

log = logging.getLogger(__name__)

_FOLDERS = 32
_NEXT = 4
_FOREVER_NS = 1 << 62
Progress = Callable[[int, int], None]


def index_path(state_path: Path, medium_id: str) -> Path:
    """The index of a medium, in the state folder: what is known of one says nothing of another."""
    return state_path / "media" / medium_id / "index.sqlite"


class Listing:
    """Any thread may call anything once it is open."""

    def __init__(self, root: StorageRoot) -> None:
        self._root = root
        self._index: Index | None = None
        self._path: Path | None = None
        self._corrected_revision = -1
        self._has_fallen_back = False
        self._is_beside = False
        self._sent: dict[str, tuple[int, int]] = {}  # while the index is built: lines that a store has, and all
        self._proven: dict[str, set[int]] = {}  # what a store has, by recording
        self._lock = threading.RLock()

    def open(self, progress: Progress | None = None, *, beside: bool = False) -> None:
        """Open the index of the medium that is there. Where it is missing, damaged or behind, build it.

        Args:
            progress: called with (manifests read, manifests).
            beside: a daemon uses it.

        Raises:
            StorageError: the storage cannot be read.
        """
        self.close()
        medium = self._root.medium
        self._corrected_revision = -1
        self._has_fallen_back = False
        self._is_beside = beside
        if not medium.is_kept:
            self._path, self._index = None, Index(None)  # nothing can be recorded there either
            self._build(progress)
            return
        self._path = index_path(self._root.state_path, medium.id)
        try:
            self._path.parent.mkdir(mode=files.FOLDER_MODE, parents=True, exist_ok=True)
            if self._stale.exists() and not beside:
                _remove(self._path)
                self._stale.unlink(missing_ok=True)
            self._index = Index(self._path)
            if self._index.is_fresh:
                self._build(progress)
        except (OSError, StorageError) as exc:
            self.fall_back(exc, progress)
        self.apply_corrections()

    def fall_back(self, reason: Exception, progress: Progress | None = None) -> None:
        """Keep the index on the recordings' medium, because the state folder takes nothing; until the next `open`.

        Beside a daemon, which may keep its own there, and where that takes nothing either, it is kept in memory.

        Raises:
            StorageError: it cannot be kept there either.
        """
        with self._lock:
            if self._has_fallen_back:
                raise StorageError(f"the index of the recordings cannot be written: {reason}", "index") from reason
            self._has_fallen_back = True
            if self._is_beside:
                self.close()
                self._path, self._index = None, Index(None)
                self._build(progress)
                return
            report_unwritable(self._root.state_path, "the index, which lies beside the recordings meanwhile", reason)
            self.close()
            self._path = self._root.path / FOLDER / "index.sqlite"
            try:
                with files.closing_fd(self._root.medium.folder()):
                    pass
                _remove(self._path)
                self._index = Index(self._path)
            except (OSError, StorageError):
                self._path, self._index = None, Index(None)
            self._build(progress)

    def _build(self, progress: Progress | None) -> None:
        """Fill the index from the manifests: about 70 µs a chunk, and little memory."""
        begun_ns = self._root.clock.monotonic_ns()
        with files.storage_errors(f"read {self._root.path}"), files.closing_fd(self._root.open_root()) as root:
            names = _FolderNames(root)
            self._sent.clear()
            self._proven.clear()
            count = self.index.build(self._all_files(root, names, progress))
            for recording_id, (sent, lines) in self._sent.items():
                self.index.note_lines(recording_id, sent=sent, has_unsent=sent < lines)
            for recording_id, seqs in self._proven.items():
                self.index.prove_all(recording_id, seqs)
            self._sent.clear()
            self._proven.clear()
            self._note_folders(root)
        if count:
            took_s = (self._root.clock.monotonic_ns() - begun_ns) / NS
            log.info("built the index from the manifests: %d chunks in %.1f s", count, took_s)

    def _all_files(self, root: int, names: _FolderNames, progress: Progress | None) -> Iterator[tuple[ChunkRef, str]]:
        manifests = list(tree.manifests_by_day(root))
        for number, file in enumerate(manifests):
            if progress is not None:
                progress(number, len(manifests))
            recording_id = layout.parse_manifest_name(file.rpartition("/")[2]) or ""
            for ref in self._listed_files(root, file, recording_id, names):
                yield ref, file

    def reconcile(self) -> int:
        """Take up chunks that were away and are there again; how many. Looks into folders that have changed.

        What is away is counted until its turn comes, and what comes back is counted again.

        Raises:
            StorageError: the storage cannot be read, or the index fails.
        """
        found: list[tuple[ChunkRef, str]] = []
        index = self.index
        with files.storage_errors(f"read {self._root.path}"), files.closing_fd(self._root.open_root()) as root:
            names = _FolderNames(root)
            for recorder in tree.recorders(root):
                for day in tree.days(root, recorder):
                    folder_name = f"{recorder}/{day}"
                    changed_ns = _changed_ns(root, folder_name)
                    if changed_ns is None or index.has_seen(folder_name, changed_ns):
                        continue
                    new: dict[str, set[int]] = {}
                    for name in tree.names_in(root, folder_name):
                        known = _key_of(name, recorder)
                        if known is not None and not index.has_chunk(*known):
                            new.setdefault(known[0], set()).add(known[1])
                    for recording_id, seqs in new.items():
                        place = index.manifest_of(recording_id) or tree.find_manifest(root, recorder, recording_id)
                        if place is not None:
                            found += [(ref, place) for ref in self._listed(root, place, recording_id, names, seqs)]
                    index.see(folder_name, changed_ns)
        if found:
            index.insert(found)
            log.info("%s that the index did not know: listed and counted from now on", counted(len(found), "chunk"))
        return len(found)

    def _note_folders(self, root: int) -> None:
        for recorder in tree.recorders(root):
            for day in tree.days(root, recorder):
                changed_ns = _changed_ns(root, f"{recorder}/{day}")
                if changed_ns is not None:
                    self.index.see(f"{recorder}/{day}", changed_ns)

    @property
    def _stale(self) -> Path:
        assert self._path is not None
        return self._path.with_name("index.stale")

    def close(self) -> None:
        """Let go of the index."""
        with self._lock:
            if self._index is not None:
                self._index.close()
                self._index = None

    @property
    def index(self) -> Index:
        """
        Raises:
            StorageError: it is not open.
        """
        index = self._index
        if index is None:
            raise StorageError("the store is not open")
        return index

    def manifests_next_to_change(self) -> list[str]:
        """Manifests of the chunks that rotation deletes next, by whatever rule: what it was at when the power went.

        Raises:
            StorageError: the index fails.
        """
        found: dict[str, None] = {}
        for recorder in (None, *self.index.recorders()):
            for chunks in (self.index.oldest(recorder), self.index.aged(recorder, _FOREVER_NS)):
                for chunk in islice(chunks, _NEXT):
                    place = self.index.manifest_of(chunk.recording_id)
                    if place is not None and layout.split_file(place) is not None:
                        found[place] = None
        return list(found)

    def add(self, recorder: str, recording_id: str, manifest_file: str, line: ManifestLine) -> None:
        """Put a finished chunk into the index; a failure costs only a new build of the index."""
        self._add(self._ref(recorder, recording_id, line), manifest_file)

    def add_snapshot(self, recorder: str, recording_id: str, manifest_file: str, line: SnapshotLine) -> None:
        """The same for a snapshot."""
        self._add(self._snapshot_ref(recorder, recording_id, line), manifest_file)

    def _add(self, ref: ChunkRef, manifest_file: str) -> None:
        try:
            try:
                self.index.add(ref, manifest_file)
            except StorageError as exc:
                self.fall_back(exc)  # built from the manifests, in which the chunk stands already
        except StorageError as exc:
            log.warning("%s is not in the index, which will be built again: %s", ref.file, exc)
            with contextlib.suppress(OSError, AssertionError):
                self._stale.touch()

    def add_recovered(self, recordings: Iterable[OpenRecording]) -> None:
        """What stands in the manifests of recordings that were open, and may not be in the index yet.

        Raises:
            StorageError: the storage cannot be read, or the index fails.
        """
        with files.storage_errors(f"read {self._root.path}"), files.closing_fd(self._root.open_root()) as root:
            names = _FolderNames(root)
            for recording in recordings:
                seqs = {entry.seq for entry in recording.chunks}
                refs = self._listed(root, recording.manifest, recording.recording_id, names, seqs)
                self.index.add_all((ref, recording.manifest) for ref in refs)

    def apply_corrections(self) -> None:
        """Correct the times of chunks that were recorded before the clock was set.

        Raises:
            StorageError: the index fails.
        """
        walltime = self._root.walltime
        walltime.poll()
        revision = walltime.revision
        if revision != self._corrected_revision:
            count = self.index.correct(walltime.corrections.correct)
            self._corrected_revision = revision
            if count:
                log.info("the times of %d chunks have been corrected", count)

    def _ref(self, recorder: str, recording_id: str, line: ManifestLine, protected: bool | None = None) -> ChunkRef:
        started_ns, ended_ns = parse_utc(line["started"]), parse_utc(line["ended"])
        trusted = line["clock"] == "synchronized"
        boot_id = self._boot_id(line)
        if not trusted and (corrected := self._root.walltime.corrections.correct(boot_id, started_ns)) is not None:
            started_ns, ended_ns, trusted = corrected, corrected + ended_ns - started_ns, True
        seq = line["seq"]
        return ChunkRef(
            recording_id=recording_id,
            recorder=recorder,
            seq=seq,
            file=line["file"],
            bytes=line["bytes"],
            started_ns=started_ns,
            ended_ns=ended_ns,
            trusted=trusted,
            protected=self._root.is_protected(recording_id, seq) if protected is None else protected,
            boot_id=boot_id,
        )

    def _snapshot_ref(self, recorder: str, recording_id: str, line: SnapshotLine) -> ChunkRef:
        taken_ns = parse_utc(line["taken"])
        trusted, boot_id = line["clock"] == "synchronized", line.get("boot_id", "")
        if not trusted and (corrected := self._root.walltime.corrections.correct(boot_id, taken_ns)) is not None:
            taken_ns, trusted = corrected, True
        seq = -line["snapshot"]
        return ChunkRef(
            recording_id=recording_id,
            recorder=recorder,
            seq=seq,
            file=line["file"],
            bytes=line["bytes"],
            started_ns=taken_ns,
            ended_ns=taken_ns,
            trusted=trusted,
            protected=self._root.is_protected(recording_id, seq),
            boot_id=boot_id,
        )

    def _boot_id(self, line: ManifestLine) -> str:
        return line.get("boot_id") or first_edition_boot_id(self._root.medium.identity.first_edition_boots, line)

    def _listed(
        self, root: int, manifest_file: str, recording_id: str, names: _FolderNames, seqs: AbstractSet[int]
    ) -> list[ChunkRef]:
        """Those of these numbers, with what a store has of them."""
        refs = [ref for ref in self._listed_files(root, manifest_file, recording_id, names) if ref.seq in seqs]
        proven = self._proven.pop(recording_id, set())
        return [replace(ref, proven=True) if ref.seq in proven else ref for ref in refs]

    def _listed_files(
        self, root: int, manifest_file: str, recording_id: str, names: _FolderNames
    ) -> Iterator[ChunkRef]:
        """What a manifest lists and is there, in memory that does not grow with it. What a store has of it stands in
        `_sent` and `_proven` when the last one was taken."""
        unreadable: list[int] = []
        number = stored = 0
        proven: set[int] = set()
        ranges = self._root.protected_ranges(recording_id) or ()
        try:
            for number, said, fault in tree.manifest_entries(root, manifest_file):
                if fault is not None and fault is manifest.Fault.UNREADABLE:
                    unreadable.append(number)
                elif isinstance(said, dict):  # one that says deleted and is still there wants to be deleted again
                    if (ref := self._listed_chunk(said, recording_id, names, ranges)) is not None:
                        yield ref
                elif isinstance(said, manifest.Snapshot):
                    if (ref := self._listed_snapshot(said.line, recording_id, names)) is not None:
                        yield ref
                elif isinstance(said, Offloaded):
                    stored = max(stored, said.lines)
                    proven.add(-said.seq if said.is_snapshot else said.seq)
        except FileNotFoundError:  # its last chunk went meanwhile, or nothing was listed before the power went
            return
        except OSError as exc:
            tree.skip(manifest_file, exc)
            return
        if unreadable:
            which = ", ".join(map(str, unreadable[:5]))
            log.warning("%s: skipped %d lines that are none of a manifest: %s", manifest_file, len(unreadable), which)
        if proven:
            self._sent[recording_id] = stored, number
            self._proven[recording_id] = proven

    def _listed_chunk(
        self, line: ManifestLine, recording_id: str, names: _FolderNames, ranges: Sequence[tuple[int, int]]
    ) -> ChunkRef | None:
        """None: it is not there, or its name is none of this recording's."""
        split = layout.split_file(line["file"])
        parsed = layout.parse_chunk_name(split[2]) if split is not None else None
        if split is None or parsed is None or parsed.is_part or parsed.recording_id != recording_id:
            return None
        with contextlib.suppress(OSError, ValueError):
            if split[2] in names.of(f"{split[0]}/{split[1]}"):
                is_kept = bool(ranges) and any(low <= line["seq"] <= high for low, high in ranges)
                return self._ref(split[0], recording_id, line, protected=is_kept)
        return None

    def _listed_snapshot(self, line: SnapshotLine, recording_id: str, names: _FolderNames) -> ChunkRef | None:
        split = layout.split_file(line["file"])
        if split is None or layout.parse_snapshot_name(split[2]) != (recording_id, line["snapshot"]):
            return None
        with contextlib.suppress(OSError, ValueError):
            if split[2] in names.of(f"{split[0]}/{split[1]}"):
                return self._snapshot_ref(split[0], recording_id, line)
        return None


def first_edition_boot_id(boots: dict[int, str], line: ManifestLine) -> str:
    """The boot of a chunk whose line carries no boot id; "": nobody knows."""
    number = layout.boot_of(line["file"])
    return boots.get(number, "") if number is not None else ""


def _changed_ns(root: int, folder_name: str) -> int | None:
    try:
        with files.closing_fd(files.open_folder(root, folder_name)) as folder:
            return os.fstat(folder).st_mtime_ns
    except OSError:
        return None


def _key_of(name: str, recorder: str) -> tuple[str, int] | None:
    """What the index knows a file by: recording id and seq; None: it is none of this recorder."""
    if (shot := layout.parse_snapshot_name(name)) is not None:
        known = layout.parse_recording_id(shot[0])
        return (shot[0], -shot[1]) if known is not None and known.recorder == recorder else None
    parsed = layout.parse_chunk_name(name)
    if parsed is None or parsed.is_part or parsed.recorder != recorder:
        return None
    return parsed.recording_id, parsed.seq


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


class _FolderNames:
    """What lies in the folders looked at last."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._names: OrderedDict[str, frozenset[str]] = OrderedDict()

    def of(self, folder_name: str) -> frozenset[str]:
        """
        Raises:
            OSError: the folder is not there.
        """
        if folder_name not in self._names:
            with files.closing_fd(files.open_folder(self._root, folder_name)) as folder:
                self._names[folder_name] = frozenset(os.listdir(folder))  # noqa: PTH208  # a descriptor
            if len(self._names) > _FOLDERS:
                self._names.popitem(last=False)
        return self._names[folder_name]
