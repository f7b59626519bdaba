"""Library: the finished chunks as the page sees them. Blocking; any thread.

Nothing becomes a path that does not stand in a manifest below the storage folder: a request names a recording and a
number, the index says in which manifest to look, and the file is opened step by step, without following links.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from msrecd.clock import NS
from msrecd.errors import StorageError
from msrecd.muxing.seams import Piece
from msrecd.storage import files, layout, tree
from msrecd.storage.catalog import ChunkEntry, GapEntry, RecordingEntry, open_catalog
from msrecd.storage.store import Store
from msrecd.vocabulary.names import is_name
from msrecd.vocabulary.times import format_utc, parse_utc
from msrecd.web.playlist import PlaylistChunk, chunk_playlist, playlist
from msrecd.web.segments import init_bytes, segments

CHUNKS_LIMIT = 20_000  # of one answer: a fortnight of minutes
MANIFEST_LIMIT_BYTES = 32 << 20
_FACTS_LIMIT = 4096  # of chunks that are kept in memory: 1 MB
_NEIGHBOURS = 64  # what is read of a manifest together with a chunk: a player asks for the next ones soon
_SEGMENTS_LIMIT = 64  # tables of segments that are kept: 200 kB
_HLS_SUFFIXES = (".mp4", ".m4a")


class NotFound(StorageError):
    """There is no such recording, chunk or day."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "not_found")


class TooMuch(StorageError):
    """The range holds more than one answer may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkFile:
    """A chunk as its manifest line has it; file: relative to the storage folder. `corrected` is not known here."""

    recording_id: str
    seq: int
    file: str
    bytes: int
    sha256: str
    mime_type: str
    started_ns: int
    ended_ns: int
    duration_s: float

    @property
    def name(self) -> str:
        return self.file.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        return f".{self.file.rpartition('.')[2]}"


class Library:
    """What lies in a store. Everything raises StorageError: `not_found`, or the storage cannot be read."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._facts: OrderedDict[tuple[str, int], ChunkFile] = OrderedDict()
        self._inits: OrderedDict[str, int] = OrderedDict()
        self._tables: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    # --- lists -------------------------------------------------------------------------------------------------------

    def recordings(self, recorder: str | None, from_ns: int | None, to_ns: int | None) -> list[RecordingEntry]:
        """Recordings with the chunks that touch the range.

        Raises:
            TooMuch: more than CHUNKS_LIMIT chunks.
        """
        if self._store.index.count_between(recorder, from_ns, to_ns) > CHUNKS_LIMIT:
            raise TooMuch(f"more than {CHUNKS_LIMIT} chunks; ask for a shorter range with from and to", "too_large")
        catalog = open_catalog(self._store.path, self._store.state_path, self._store.walltime.corrections)
        try:
            return catalog.recordings(recorder=recorder, since_ns=from_ns, until_ns=to_ns)
        finally:
            catalog.close()

    def chunks_between(self, recorder: str, from_ns: int, to_ns: int) -> tuple[list[ChunkEntry], list[GapEntry]]:
        """The chunks of a recorder that hold a range and are there, in order, and what is missing of it.

        Raises:
            TooMuch: more than CHUNKS_LIMIT chunks.
        """
        if self._store.index.count_between(recorder, from_ns, to_ns) > CHUNKS_LIMIT:
            raise TooMuch(f"more than {CHUNKS_LIMIT} chunks; ask for a shorter range with from and to", "too_large")
        catalog = open_catalog(self._store.path, self._store.state_path, self._store.walltime.corrections)
        try:
            return catalog.export_plan(recorder, from_ns, to_ns)
        finally:
            catalog.close()

    def spans(self, recorder: str | None) -> list[Mapping[str, object]]:
        """When each recording began and ended, the newest first: which days have something. At most 1000."""
        rows = self._store.index.newest_recordings(recorder, 1000)
        return [
            {"recording_id": name, "recorder": of, "started": format_utc(begun), "ended": format_utc(ended)}
            for name, of, begun, ended in rows
        ]

    # --- one chunk ---------------------------------------------------------------------------------------------------

    def chunk(self, recording_id: str, seq: int) -> ChunkFile:
        """What the manifest says of a chunk."""
        with self._lock:
            found = self._facts.get((recording_id, seq))
            if found is not None:
                self._facts.move_to_end((recording_id, seq))
                return found
        near = {line.seq: line for line in self._lines(recording_id) if seq - 1 <= line.seq < seq + _NEIGHBOURS}
        if seq not in near:
            raise NotFound(f"there is no chunk {seq} of {recording_id}")
        with self._lock:
            for line in near.values():
                self._facts[recording_id, line.seq] = line
            while len(self._facts) > _FACTS_LIMIT:
                self._facts.popitem(last=False)
        return near[seq]

    def open(self, chunk: ChunkFile) -> int:
        """A descriptor of a chunk's file; the caller closes it.

        Raises:
            NotFound: rotation has deleted it, or it is not the file that the manifest describes.
        """
        fd = self._open(chunk.file)
        if os.fstat(fd).st_size != chunk.bytes:
            os.close(fd)
            raise NotFound(f"{chunk.name} has another length than its manifest says; `msrecd recordings verify`")
        return fd

    def path(self, chunk: ChunkFile) -> Path:
        """Where a chunk lies, for a library that opens files by their names; it is a regular file."""
        os.close(self.open(chunk))
        return self._store.path / chunk.file

    def manifest(self, recording_id: str) -> bytes:
        """The manifest of a recording, as it lies there."""
        place = self._place(recording_id)
        split = layout.split_file(place)
        if split is None:
            raise NotFound(f"there is no recording {recording_id}")
        with files.storage_errors("read the manifest"):
            fd = self._open(place)
            with os.fdopen(fd, "rb") as file:
                data = file.read(MANIFEST_LIMIT_BYTES + 1)
        if len(data) > MANIFEST_LIMIT_BYTES:
            raise TooMuch(f"the manifest of {recording_id} is too long to be sent", "too_large")
        return data[: data.rfind(b"\n") + 1]  # a line that is being written is none yet

    def piece(self, chunk: ChunkEntry) -> Piece:
        """The same chunk for a joiner."""
        parsed = layout.parse_chunk_name(chunk.file.rpartition("/")[2])
        return Piece(
            path=self._store.path / chunk.file,
            recording_id=parsed.recording_id if parsed is not None else chunk.file,
            seq=chunk.seq,
            started_ns=chunk.started_ns,
            ended_ns=chunk.ended_ns,
            duration_ns=round(chunk.duration_s * NS),
            bytes=chunk.bytes,
        )

    def lease(self, piece: Piece) -> Any:
        """Keep a chunk from rotation; see Protections.lease."""
        return self._store.protections.lease(piece.recording_id, piece.seq)

    # --- playlists ---------------------------------------------------------------------------------------------------

    def recording_playlist(self, recording_id: str) -> str:
        """All finished chunks of a recording."""
        known = layout.parse_recording_id(recording_id)
        if known is None:
            raise NotFound(f"there is no recording {recording_id}")
        entries = [line for line in self._lines(recording_id) if line.suffix in _HLS_SUFFIXES]
        if len(entries) > CHUNKS_LIMIT:
            raise TooMuch(f"{recording_id} has more than {CHUNKS_LIMIT} chunks; ask for a timeline", "too_large")
        found = [
            one
            for line in entries
            if (one := self._playlist_chunk(line.file, line.started_ns, line.duration_s, "")) is not None
        ]
        if not found:
            raise NotFound(f"{recording_id} has no chunks in MP4: play its chunks one by one")
        return playlist(found)

    def timeline_playlist(self, recorder: str, from_ns: int, to_ns: int) -> str:
        """The chunks of a recorder that hold a range, of whichever recordings."""
        chunks, _ = self.chunks_between(recorder, from_ns, to_ns)
        found = []
        for chunk in chunks:
            parsed = layout.parse_chunk_name(chunk.file.rpartition("/")[2])
            if parsed is not None and f".{parsed.extension}" in _HLS_SUFFIXES:
                folder = f"../recordings/{parsed.recording_id}/"
                one = self._playlist_chunk(chunk.file, chunk.started_ns, chunk.duration_s, folder)
                if one is not None:
                    found.append(one)
        if not found:
            raise NotFound(f"{recorder} has no chunks in MP4 in this range")
        return playlist(found)

    def chunk_playlist(self, chunk: ChunkFile) -> str:
        """One chunk in segments of a key frame each, so that a player can begin anywhere."""
        if chunk.suffix not in _HLS_SUFFIXES:
            raise NotFound(f"{chunk.name} is no MP4: play it as it is")
        with self._lock:
            if chunk.file in self._tables:
                self._tables.move_to_end(chunk.file)
                return self._tables[chunk.file]
        with os.fdopen(self.open(chunk), "rb") as file:
            try:
                head, found = segments(file, chunk.bytes, chunk.duration_s)
            except ValueError as exc:
                raise StorageError(f"{chunk.name} cannot be read: {exc}", "damaged") from exc
        one = PlaylistChunk(
            url=f"{chunk.seq}{chunk.suffix}",
            started_ns=chunk.started_ns,
            duration_s=chunk.duration_s,
            bytes=chunk.bytes,
            init_bytes=head,
        )
        text = chunk_playlist(one, found)
        with self._lock:
            self._tables[chunk.file] = text
            while len(self._tables) > _SEGMENTS_LIMIT:
                self._tables.popitem(last=False)
        return text

    def _playlist_chunk(self, file: str, started_ns: int, duration_s: float, folder: str) -> PlaylistChunk | None:
        """None: it is not there any more, or is no MP4 that can be played."""
        parsed = layout.parse_chunk_name(file.rpartition("/")[2])
        if parsed is None:
            return None
        try:
            with os.fdopen(self._open(file), "rb") as opened:
                size = os.fstat(opened.fileno()).st_size
                head = self._init_bytes(file, opened, size)
        except (StorageError, ValueError):
            return None
        return PlaylistChunk(
            url=f"{folder}{parsed.seq}.{parsed.extension}",
            started_ns=started_ns,
            duration_s=duration_s,
            bytes=size,
            init_bytes=head,
        )

    def _init_bytes(self, file: str, opened: BinaryIO, size: int) -> int:
        with self._lock:
            known = self._inits.get(file)
        if known is None:
            with files.storage_errors(f"read {file}"):
                known = init_bytes(opened, size)
            with self._lock:
                self._inits[file] = known
                while len(self._inits) > _FACTS_LIMIT:
                    self._inits.popitem(last=False)
        return known

    # --- manifests ---------------------------------------------------------------------------------------------------

    def _place(self, recording_id: str) -> str:
        if layout.parse_recording_id(recording_id) is None:
            raise NotFound("there is no such recording")
        place = self._store.index.manifest_of(recording_id)
        if place is None:
            raise NotFound(f"there is no recording {recording_id}")
        return place

    def _lines(self, recording_id: str) -> Sequence[ChunkFile]:
        place = self._place(recording_id)
        try:
            with files.closing_fd(self._store.root.open_root()) as root:
                contents = tree.read_manifest(root, place)
        except FileNotFoundError as exc:
            raise NotFound(f"there is no recording {recording_id}") from exc
        except OSError as exc:
            raise files.storage_error(exc, f"read the manifest of {recording_id}") from exc
        gone = {deletion.seq for deletion in contents.deletions}
        found = []
        for line in contents.chunks:
            split = layout.split_file(line["file"])
            parsed = layout.parse_chunk_name(split[2]) if split is not None else None
            if parsed is None or parsed.is_part or parsed.recording_id != recording_id or line["seq"] in gone:
                continue
            try:
                started_ns, ended_ns = parse_utc(line["started"]), parse_utc(line["ended"])
            except ValueError:
                continue
            found.append(
                ChunkFile(
                    recording_id=recording_id,
                    seq=line["seq"],
                    file=line["file"],
                    bytes=line["bytes"],
                    sha256=line["sha256"],
                    mime_type=line["mime_type"],
                    started_ns=started_ns,
                    ended_ns=ended_ns,
                    duration_s=line["duration_s"],
                )
            )
        return sorted(found, key=lambda chunk: chunk.seq)

    def _open(self, file: str) -> int:
        split = layout.split_file(file)
        if split is None:
            raise NotFound("there is no such file")
        try:
            with (
                files.closing_fd(self._store.root.open_root()) as root,
                files.closing_fd(files.open_folder(root, f"{split[0]}/{split[1]}")) as folder,
            ):
                return files.open_file(folder, split[2])
        except FileNotFoundError as exc:
            raise NotFound(f"{split[2]} is not there any more") from exc
        except OSError as exc:
            raise files.storage_error(exc, f"open {split[2]}") from exc


def known_name(recorder: str) -> str:
    """The name, if it can be a recorder's.

    Raises:
        NotFound: it cannot.
    """
    if not is_name(recorder):
        raise NotFound("there is no such recorder")
    return recorder
