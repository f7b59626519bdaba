"""What a store outside does not have yet, in the order in which it goes there, and what is written down of it.

Rotation and off-load have one owner, the storage: what is being sent is leased, so rotation leaves it alone; what
rotation takes first is never sent. Everything here blocks; one thread at a time sends.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO

from msrecd.errors import StorageError
from msrecd.storage import files, layout, manifest
from msrecd.storage.listing import Listing
from msrecd.storage.retention import ChunkRef
from msrecd.storage.root import StorageRoot
from msrecd.vocabulary.times import format_utc

_MANIFESTS = 8  # whose contents are remembered
_LINES = 1000  # of a manifest are read at a time
_AHEAD = 8  # files that are looked at: of some the first may not be there any more


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingFile:
    """A chunk or snapshot that is to be sent; `manifest`: its recording's, `line`: the number of its line there."""

    ref: ChunkRef
    sha256: str
    mime_type: str
    manifest: str
    line: int

    @property
    def file(self) -> str:
        return self.ref.file

    @property
    def bytes(self) -> int:
        return self.ref.bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What no store has yet; oldest_ns: when the oldest of it began (UTC)."""

    files: int
    bytes: int
    oldest_ns: int | None


class Outgoing:
    """What is not proven by a store. `lease`: keeps a file from rotation while it is sent."""

    def __init__(
        self, root: StorageRoot, listing: Listing, lease: Callable[[str, int], AbstractContextManager[None]]
    ) -> None:
        self._root = root
        self._listing = listing
        self._lease = lease
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()

    def backlog(self) -> Backlog:
        """
        Raises:
            StorageError: the index cannot be read.
        """
        count, size, oldest_ns = self._listing.index.unproven_totals()
        return Backlog(files=count, bytes=size, oldest_ns=oldest_ns)

    def next(self, without: frozenset[str] = frozenset()) -> OutgoingFile | None:
        """The oldest file that no store has.

        Args:
            without: files that are left out for now.

        Raises:
            StorageError: the storage cannot be read.
        """
        for ref in self._listing.index.unproven(_AHEAD + len(without)):
            if ref.file not in without and (found := self._described(ref)) is not None:
                return self._first_listed(found, without)
        return None

    def is_done(self, recording_id: str) -> bool:
        """Whether a store has all files of a recording, as far as they are there.

        Raises:
            StorageError: the index cannot be read.
        """
        return not self._listing.index.unproven(1, recording_id)

    def _first_listed(self, file: OutgoingFile, without: frozenset[str]) -> OutgoingFile:
        """What stands before a file in its manifest goes first: no line in the store speaks of what comes later."""
        refs = self._listing.index.unproven(_AHEAD, file.ref.recording_id)
        others = [self._described(ref) for ref in refs if ref.file not in without]
        return min((file, *(other for other in others if other is not None)), key=lambda one: one.line)

    def _described(self, ref: ChunkRef) -> OutgoingFile | None:
        """None: no manifest lists it (any more)."""
        place = self._listing.index.manifest_of(ref.recording_id)
        found = None if place is None else self._read(place).listed.get(ref.file)
        if place is None or found is None:
            return None
        return OutgoingFile(ref=ref, sha256=found.sha256, mime_type=found.mime_type, manifest=place, line=found.line)

    @contextlib.contextmanager
    def opened(self, file: OutgoingFile) -> Iterator[BinaryIO]:
        """The file, for reading; rotation leaves it alone meanwhile.

        Raises:
            OSError: it is not there.
        """
        split = layout.split_file(file.file)
        if split is None:
            raise FileNotFoundError(file.file)
        with (
            self._lease(file.ref.recording_id, file.ref.seq),
            files.closing_fd(self._root.open_root()) as root,
            files.closing_fd(files.open_folder(root, f"{split[0]}/{split[1]}")) as folder,
            os.fdopen(files.open_file(folder, split[2]), "rb", buffering=0) as opened,
        ):
            yield opened

    def lines(self, recording_id: str, until: int | None = None) -> list[tuple[str, int, bytes]]:
        """Lines of a manifest that no store has: (manifest, number, bytes without the newline), in order.

        Args:
            until: the last one wanted; None: all.

        Raises:
            StorageError: it cannot be read.
        """
        place = self._listing.index.manifest_of(recording_id)
        if place is None:
            return []
        sent = self._listing.index.sent_lines(recording_id)
        known = self._read(place)
        with files.storage_errors(f"read {place}"), self._manifest(place) as fd:
            ends = known.ends[:until]
            return [
                (place, number, os.pread(fd, ends[number - 1] - 1 - begin, begin))
                for number in range(sent + 1, min(len(ends), sent + _LINES) + 1)
                for begin in (ends[number - 2] if number > 1 else 0,)
            ]

    def note_line(self, recording_id: str, number: int) -> None:
        """A store has the lines of a manifest up to this one."""
        self._listing.index.note_lines(recording_id, sent=number)

    def note_rest(self, recording_id: str, has_unsent: bool) -> None:
        """Whether a manifest has lines that no store has, those of files apart."""
        self._listing.index.note_lines(recording_id, has_unsent=has_unsent)

    def recordings_with_lines(self, count: int = 100) -> list[str]:
        """Recordings whose manifests have lines that no store has, files apart."""
        return self._listing.index.recordings_with_unsent(count)

    def prove(self, file: OutgoingFile, *, proof: str, store: str, lines: int) -> None:
        """Write down that a store has a file and so many lines of its manifest.

        Raises:
            StorageError: it is not written down.
        """
        line: dict[str, object] = {"offloaded": abs(file.ref.seq)}
        if file.ref.is_snapshot:
            line["kind"] = "snapshot"
        line |= {"at": format_utc(self._root.walltime.now_ns()), "proof": proof, "store": store, "lines": lines}
        with (
            files.storage_errors(f"write {file.manifest}"),
            files.closing_fd(self._root.open_root()) as root,
        ):
            self._root.append_line(root, file.manifest, line)
        self._listing.index.prove(file.ref.recording_id, file.ref.seq)

    def _read(self, place: str) -> _Known:
        """What a manifest lists; only what is new is read. Manifests grow, and never change."""
        key = (self._root.medium.id, place)
        known = self._known.pop(key, None) or _Known()
        try:
            with files.storage_errors(f"read {place}"), self._manifest(place) as fd:
                known.read_on(fd)
        except StorageError as exc:
            if exc.code != "not_found":
                raise
            known = _Known()
        self._known[key] = known
        while len(self._known) > _MANIFESTS:
            self._known.popitem(last=False)
        return known

    @contextlib.contextmanager
    def _manifest(self, place: str) -> Iterator[int]:
        split = layout.split_file(place)
        if split is None:
            raise FileNotFoundError(place)
        with (
            files.closing_fd(self._root.open_root()) as root,
            files.closing_fd(files.open_folder(root, f"{split[0]}/{split[1]}")) as folder,
            files.closing_fd(files.open_file(folder, split[2])) as fd,
        ):
            yield fd


@dataclass(frozen=True, slots=True)
class _Listed:
    line: int
    sha256: str
    mime_type: str


class _Known:
    """What is known of a manifest: the files that it lists, and where its lines end."""

    def __init__(self) -> None:
        self.ends: list[int] = []  # behind the newline of each line
        self.listed: dict[str, _Listed] = {}

    def read_on(self, fd: int) -> None:
        """
        Raises:
            OSError: it cannot be read.
        """
        with os.fdopen(os.dup(fd), "rb") as file:
            file.seek(self.ends[-1] if self.ends else 0)
            while (line := file.readline(manifest.MAX_LINE_BYTES)).endswith(b"\n"):
                self.ends.append((self.ends[-1] if self.ends else 0) + len(line))
                self._note(line)

    def _note(self, line: bytes) -> None:
        contents = manifest.read(line)
        for one in (*contents.chunks, *contents.snapshots):
            self.listed[one["file"]] = _Listed(len(self.ends), one["sha256"], one["mime_type"])
