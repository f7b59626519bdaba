"""Listing: the index of a storage, kept in step with its manifests and with what is learnt about the clock."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from msrecd.errors import StorageError
from msrecd.storage import files, layout, recovery
from msrecd.storage.ground import Ground
from msrecd.storage.index import Index
from msrecd.storage.journal import OpenRecording
from msrecd.storage.manifest import ManifestLine
from msrecd.storage.retention import ChunkRef
from msrecd.vocabulary.times import parse_utc

log = logging.getLogger(__name__)

_FOLDERS = 32
_NEXT = 4
_FOREVER_NS = 1 << 62


class Listing:
    """Any thread may call anything once it is open.

    Attributes:
        is_building: the index is not complete, and knows only what was recorded since it was opened.
    """

    def __init__(self, ground: Ground) -> None:
        self.is_building = False
        self._ground = ground
        self._index: Index | None = None
        self._corrected_revision = -1
        self._removed: list[tuple[str, int]] = []
        self._stop = threading.Event()

    def open(self, *, beside: bool = False) -> None:
        """Open the index. Where it is missing, damaged or known to be behind it `is_building` until `build` is done.

        Args:
            beside: a daemon uses it, and builds it if need be.

        Raises:
            StorageError: it can neither be read nor written.
        """
        self._stop.clear()
        is_stale = self._stale.exists()
        if is_stale and not beside:
            self._remove(self._path)
        self._index = Index(self._path)
        self.is_building = self._index.is_fresh or is_stale
        if not self.is_building:
            self.apply_corrections()

    def build(self) -> int:
        """Make the index from the manifests, beside the one in use, and put it in its place; how many chunks it has.

        Takes about 30 µs a chunk and little memory; recordings may begin, end and go meanwhile.

        Raises:
            StorageError: the storage cannot be read, or the index not written; it is tried again at the next start.
        """
        new = self._path.with_name("index.new.sqlite")
        with contextlib.suppress(OSError):
            self._stale.touch()  # for those who look meanwhile
        self._remove(new)
        built = Index(new)
        try:
            with files.storage_errors(f"read {self._ground.path}"), files.closing_fd(self._ground.open_root()) as root:
                count = built.build(self._all_files(root))
            built.close()
            if self._stop.is_set():
                return 0
            self.index.adopt(new, removed=self._removed, protected=self._ground.is_protected)
        finally:
            built.close()
            self._remove(new)
        self.is_building = False
        self._removed.clear()
        with contextlib.suppress(OSError):
            self._stale.unlink(missing_ok=True)
        self._corrected_revision = -1
        self.apply_corrections()
        return count

    def removed(self, recording_id: str, seq: int) -> None:
        """A chunk has been deleted."""
        if self.is_building:
            self._removed.append((recording_id, seq))

    @property
    def _path(self) -> Path:
        return self._ground.state_path / "index.sqlite"

    @property
    def _stale(self) -> Path:
        return self._ground.state_path / "index.stale"

    @staticmethod
    def _remove(path: Path) -> None:
        for suffix in ("", "-wal", "-shm", "-journal"):
            with contextlib.suppress(OSError):
                path.with_name(path.name + suffix).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the index; one that is being built is given up."""
        self._stop.set()
        if self._index is not None:
            self._index.close()
            self._index = None

    @property
    def index(self) -> Index:
        """
        Raises:
            StorageError: it is not open.
        """
        if self._index is None:
            raise StorageError("the store is not open")
        return self._index

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

    def oldest_on_disk(self) -> Iterator[tuple[ChunkRef, str]]:
        """Chunks and their manifests, the oldest days first, straight from the storage: for when there is no index.

        Raises:
            StorageError: the storage cannot be read.
        """
        with files.storage_errors(f"read {self._ground.path}"), files.closing_fd(self._ground.open_root()) as root:
            yield from self._all_files(root)

    def _all_files(self, root: int) -> Iterator[tuple[ChunkRef, str]]:
        names = _FolderNames(root)
        for file in recovery.manifests_by_day(root):
            recording_id = layout.parse_manifest_name(file.rpartition("/")[2]) or ""
            for ref in self._listed_files(root, file, recording_id, names):
                yield ref, file
            if self._stop.is_set():
                return

    def add(self, recorder: str, recording_id: str, manifest_file: str, line: ManifestLine) -> None:
        """Put a finished chunk into the index; a failure costs only a new build of the index."""
        try:
            self.index.add(self._ref(recorder, recording_id, line), manifest_file)
        except StorageError as exc:
            log.warning("%s is not in the index, which will be built again: %s", line["file"], exc)
            with contextlib.suppress(OSError):
                (self._ground.state_path / "index.stale").touch()

    def add_recovered(self, recordings: Iterable[OpenRecording]) -> None:
        """What stands in the manifests of recordings that were open, and may not be in the index yet.

        Raises:
            StorageError: the storage cannot be read, or the index fails.
        """
        with files.storage_errors(f"read {self._ground.path}"), files.closing_fd(self._ground.open_root()) as root:
            names = _FolderNames(root)
            for recording in recordings:
                refs = self._listed_files(root, recording.manifest, recording.recording_id, names)
                seqs = {entry.seq for entry in recording.chunks}
                self.index.add_all((ref, recording.manifest) for ref in refs if ref.seq in seqs)

    def apply_corrections(self) -> None:
        """Correct the times of chunks that were recorded before the clock was set.

        Raises:
            StorageError: the index fails.
        """
        walltime = self._ground.walltime
        walltime.poll()
        revision = walltime.revision
        if revision != self._corrected_revision:
            count = self.index.correct(self._correct)
            self._corrected_revision = revision
            if count:
                log.info("the times of %d chunks have been corrected", count)

    def _ref(self, recorder: str, recording_id: str, line: ManifestLine, *, protected: bool | None = None) -> ChunkRef:
        started_ns, ended_ns = parse_utc(line["started"]), parse_utc(line["ended"])
        trusted = line["clock"] == "synchronized"
        boot_id = line.get("boot_id", "")
        if not trusted and (corrected := self._correct(boot_id, started_ns)) is not None:
            started_ns, ended_ns, trusted = corrected, corrected + ended_ns - started_ns, True
        return ChunkRef(
            recording_id=recording_id,
            recorder=recorder,
            seq=line["seq"],
            file=line["file"],
            bytes=line["bytes"],
            started_ns=started_ns,
            ended_ns=ended_ns,
            trusted=trusted,
            protected=self._ground.is_protected(recording_id) if protected is None else protected,
            boot_id=boot_id,
        )

    def _correct(self, boot_id: str, utc_ns: int) -> int | None:
        return self._ground.walltime.corrections.correct(boot_id, utc_ns)

    def _listed_files(self, root: int, manifest_file: str, recording_id: str, names: _FolderNames) -> list[ChunkRef]:
        refs = []
        try:
            contents = recovery.read_manifest(root, manifest_file)
        except FileNotFoundError:  # its last chunk went meanwhile, or nothing was listed before the power went
            return []
        except OSError as exc:
            log.warning("%s cannot be read: %s", manifest_file, exc)
            return []
        protected = self._ground.is_protected(recording_id)
        for line in contents.chunks:  # one that says deleted and is still there wants to be deleted again
            split = layout.split_file(line["file"])
            parsed = layout.parse_chunk_name(split[2]) if split else None
            if split is None or parsed is None or parsed.is_part or parsed.recording_id != recording_id:
                continue
            with contextlib.suppress(OSError, ValueError):
                if split[2] in names.of(f"{split[0]}/{split[1]}"):
                    refs.append(self._ref(split[0], recording_id, line, protected=protected))
        return refs


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
