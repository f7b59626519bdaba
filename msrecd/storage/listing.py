"""Listing: the index of a storage, kept in step with its manifests and with what is learnt about the clock."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator

from msrecd.errors import StorageError
from msrecd.storage import files, layout, recovery
from msrecd.storage.ground import Ground
from msrecd.storage.index import Index
from msrecd.storage.journal import OpenRecording
from msrecd.storage.manifest import ManifestLine
from msrecd.storage.retention import ChunkRef
from msrecd.walltime import parse_utc

log = logging.getLogger(__name__)


class Listing:
    """Any thread may call anything once it is open."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._index: Index | None = None
        self._corrected_revision = -1

    def open(self) -> None:
        """Open the index; built again when it is missing, damaged or known to be behind.

        Raises:
            StorageError: it can neither be read nor written.
        """
        stale = self._ground.state_path / "index.stale"
        path = self._ground.state_path / "index.sqlite"
        if stale.exists():
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(OSError):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
        self._index = Index(path)
        if self._index.is_fresh:
            self.rebuild()
            with contextlib.suppress(OSError):
                stale.unlink(missing_ok=True)
        self.apply_corrections()

    def close(self) -> None:
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

    def rebuild(self) -> int:
        """Fill an empty index from the manifests; how many chunks.

        Raises:
            StorageError: the storage cannot be read.
        """
        with files.storage_errors(f"read {self._ground.path}"), files.closing_fd(self._ground.open_root()) as root:
            return self.index.build(self._all_files(root))

    def _all_files(self, root: int) -> Iterator[tuple[ChunkRef, str]]:
        for file in recovery.manifest_files(root):
            recording_id = layout.parse_manifest_name(file.rpartition("/")[2]) or ""
            for ref in self._listed_files(root, file, recording_id):
                yield ref, file

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
            for recording in recordings:
                refs = self._listed_files(root, recording.manifest, recording.recording_id)
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

    def _ref(self, recorder: str, recording_id: str, line: ManifestLine) -> ChunkRef:
        started_ns, ended_ns = parse_utc(line["started"]), parse_utc(line["ended"])
        trusted = line["clock"] == "synchronized"
        if not trusted and (corrected := self._correct(recording_id, started_ns)) is not None:
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
            protected=self._ground.is_protected(recording_id),
        )

    def _correct(self, recording_id: str, utc_ns: int) -> int | None:
        known = layout.parse_recording_id(recording_id)
        if known is None or known.boot is None:
            return None
        return self._ground.walltime.corrections.correct(known.boot, utc_ns)

    def _listed_files(self, root: int, manifest_file: str, recording_id: str) -> list[ChunkRef]:
        refs = []
        try:
            contents = recovery.read_manifest(root, manifest_file)
        except OSError as exc:
            log.warning("%s cannot be read: %s", manifest_file, exc)
            return []
        for line in contents.chunks:  # one that says deleted and is still there wants to be deleted again
            split = layout.split_file(line["file"])
            parsed = layout.parse_chunk_name(split[2]) if split else None
            if split is None or parsed is None or parsed.is_part or parsed.recording_id != recording_id:
                continue
            try:
                with files.closing_fd(files.open_folder(root, f"{split[0]}/{split[1]}")) as folder:
                    if files.exists(folder, split[2]):
                        refs.append(self._ref(split[0], recording_id, line))
            except (OSError, ValueError):
                continue
        return refs
