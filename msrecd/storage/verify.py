"""Proving a folder, here or copied elsewhere, against the manifests in it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from msrecd.errors import StorageError
from msrecd.storage import files, layout, manifest

_MAX_HOLES = 100_000


class Fault(StrEnum):
    """What can be wrong."""

    MISSING = "missing"  # a listed chunk is not there
    TORN = "torn"  # it is shorter than listed, or the manifest's last line has no end
    ALTERED = "altered"  # its bytes are others
    SWAPPED = "swapped"  # its bytes are those of another listed chunk
    EDITED = "edited"  # a line of the manifest is not what was written, or is none
    REMOVED = "removed"  # lines of the manifest were removed, or one was put in: each is what was written
    UNLISTED = "unlisted"  # a chunk that no manifest knows
    UNFINISHED = "unfinished"  # a `.part`: being recorded, or waiting for recovery
    UNREADABLE = "unreadable"  # it may not be read, or the disk fails: nothing is known of what is in it
    UNENDED = "unended"  # no chunk is the last one: being recorded, or what followed went with its lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`is_failure`: something is not what it was; the others alone disprove nothing.

    is_lasting: no daemon writes or rotates there: a second look (`still_holds`) finds the same.
    is_folder: a drive may have private folders; a chunk that should be in one is a finding of its own.
    """

    fault: Fault
    file: str
    message: str
    is_lasting: bool = False
    is_folder: bool = False

    @property
    def is_failure(self) -> bool:
        return self.fault not in (Fault.UNFINISHED, Fault.UNENDED) and not self.is_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    findings: tuple[Finding, ...]
    manifests: int
    chunks: int
    snapshots: int = 0
    bytes: int

    @property
    def is_proven(self) -> bool:
        """Something was there to prove, and nothing disproves it: an empty or a wrong folder proves nothing."""
        return self.chunks + self.snapshots > 0 and not any(finding.is_failure for finding in self.findings)


def verify(folder: Path, *, progress: Callable[[int, int], None] | None = None) -> Verdict:
    """Read all chunks below a folder and compare them with the manifests in it.

    The folder may be the storage path or any part of it that holds whole recordings: `file` entries are looked for
    below it as they stand, then without their leading folders, then beside the manifest. Nothing but folders and
    regular files is opened, and no symbolic link below the folder is followed.

    Args:
        progress: called with (bytes read, bytes to read).

    Raises:
        StorageError: the folder cannot be read.
    """
    if not folder.is_dir():
        raise StorageError(f"{folder} is not {'a folder' if folder.exists() else 'there'}", "not_found")
    with files.storage_errors(f"read {folder}"), files.closing_fd(files.open_root(folder)) as root:
        return Verification(root, progress).run()


@dataclass(frozen=True, slots=True)
class _Listed:
    """A chunk or snapshot as its manifest has it."""

    file: str
    bytes: int
    sha256: str
    manifest: str


class Verification:
    """Compares what lies somewhere with the manifests there; a subclass may look elsewhere than into a folder."""

    def __init__(self, root: int, progress: Callable[[int, int], None] | None) -> None:
        self._root = root
        self._progress = progress
        self._findings: list[Finding] = []
        self._listed: dict[str, _Listed] = {}  # by the place where a file is, or should be
        self._doubted: set[tuple[str, int]] = set()  # (recording_id, seq) of which an edited line speaks
        self._unread: set[str] = set()  # recording_ids whose manifest cannot be read
        self._in_pieces: set[str] = set()  # manifests as a store of [offload] keeps them

    def run(self) -> Verdict:
        there = self.walk("")
        manifests = [file for file in there if layout.parse_manifest_name(_name(file)) is not None]
        pieces = _pieces(there)
        chunks = {file for file in there if _is_media(_name(file))}
        for file in manifests:
            self._read_manifest(file, chunks)
        for file, names in pieces.items():
            if file not in manifests:
                self._read_pieces(file, names, chunks)
                manifests.append(file)
        listed = self._listed
        total = sum(line.bytes for line in listed.values())
        by_hash = {line.sha256: line for line in listed.values()}
        sizes = {line.bytes for line in listed.values()}
        done, present = 0, [0, 0]
        for place, line in listed.items():
            is_snapshot = layout.parse_snapshot_name(_name(line.file)) is not None
            present[is_snapshot] += self._compare(place, line, by_hash, sizes)
            done += line.bytes
            if self._progress is not None:
                self._progress(done, total)
        for file in sorted(chunks):
            parsed = layout.parse_chunk_name(_name(file))
            if parsed is not None and parsed.is_part:
                self._find(Fault.UNFINISHED, file, "not finished; being recorded, or waiting for recovery")
            elif file not in listed and not self._is_in_doubt(_name(file)):
                self._find(Fault.UNLISTED, file, "no manifest lists it")
        return Verdict(
            findings=tuple(self._findings),
            manifests=len(manifests),
            chunks=present[0],
            snapshots=present[1],
            bytes=total,
        )

    def _is_in_doubt(self, name: str) -> bool:
        """Whether the line of a file may be among those that were edited, or cannot be read."""
        parsed, shot = layout.parse_chunk_name(name), layout.parse_snapshot_name(name)
        if parsed is None:
            return shot is not None and shot[0] in self._unread
        return parsed.recording_id in self._unread or (parsed.recording_id, parsed.seq) in self._doubted

    def _find(
        self, fault: Fault, file: str, message: str, manifest_file: str | None = None, *, is_folder: bool = False
    ) -> None:
        is_lasting = (manifest_file or file.partition("#")[0]) in self._in_pieces
        message = f"{file}: {message}"
        found = Finding(fault=fault, file=file, message=message, is_lasting=is_lasting, is_folder=is_folder)
        self._findings.append(found)

    def _find_unreadable(self, file: str, error: OSError) -> None:
        """What cannot be read may be what was recorded; what is no regular file is not."""
        if error.errno is None or error.errno == errno.ELOOP:
            self._find(Fault.ALTERED, file, f"cannot be proven: {error.strerror or error}")
            return
        help = "; let this user read it, or try with sudo" if isinstance(error, PermissionError) else ""
        self._find(Fault.UNREADABLE, file, f"cannot be read: {error.strerror or error}{help}")

    def walk(self, relative: str) -> list[str]:
        """Everything with a name of ours below a folder, relative to the root; what is no folder is not entered."""
        found: list[str] = []
        waiting = [relative]
        while waiting:
            at = waiting.pop()
            try:
                with files.closing_fd(files.open_folder(self._root, at)) as folder, os.scandir(folder) as entries:
                    inside = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
            except OSError as exc:
                if not at:
                    raise
                if not isinstance(exc, FileNotFoundError):  # removed while we looked
                    what = f"cannot be read, nor what is in it: {exc.strerror or exc}"
                    self._find(Fault.UNREADABLE, at, what, is_folder=True)
                continue
            for name, is_folder in inside:
                file = f"{at}/{name}" if at else name
                if is_folder:
                    waiting.append(file)
                elif _is_media(name) or layout.parse_manifest_name(name) or layout.parse_manifest_piece(name):
                    found.append(file)
        return sorted(found)

    def _read_manifest(self, relative: str, chunks: AbstractSet[str]) -> None:
        folder_name, _, name = relative.rpartition("/")
        try:
            with files.closing_fd(files.open_folder(self._root, folder_name)) as folder:
                contents = manifest.read_at(folder, name)
        except FileNotFoundError:
            return  # its recording was deleted while we looked
        except OSError as exc:
            self._cannot_read_manifest(relative, exc)
            return
        self._judge_manifest(relative, contents, chunks)

    def _cannot_read_manifest(self, relative: str, error: OSError) -> None:
        """Of its chunks nothing is known, either."""
        self._unread.add(layout.parse_manifest_name(_name(relative)) or "")
        self._find_unreadable(relative, error)

    def _read_pieces(self, relative: str, names: Mapping[int, str], chunks: AbstractSet[str]) -> None:
        """A manifest as a store of [offload] keeps it: a file for each line."""
        self._in_pieces.add(relative)
        lines: list[bytes] = []
        try:
            lines += [self.line_in(names[number]) for number in sorted(names)]
        except OSError as exc:
            self._cannot_read_manifest(relative, exc)
            return
        self._judge_manifest(relative, manifest.read(b"".join(line + b"\n" for line in lines)), chunks)

    def line_in(self, file: str) -> bytes:
        """The line of a manifest that is a file of its own.

        Raises:
            OSError: it cannot be read.
        """
        folder_name, _, name = file.rpartition("/")
        with files.closing_fd(files.open_folder(self._root, folder_name)) as folder:
            return files.read_at(folder, name, manifest.MAX_LINE_BYTES)

    def measured(self, place: str, sizes: AbstractSet[int]) -> tuple[int, str]:
        """Size and SHA-256 of a file; what is as long as no listed file is none of them, and need not be read.

        Raises:
            OSError: it cannot be had.
        """
        folder_name, _, name = place.rpartition("/")
        with (
            files.closing_fd(files.open_folder(self._root, folder_name)) as folder,
            os.fdopen(files.open_file(folder, name), "rb") as opened,
        ):
            size = os.fstat(opened.fileno()).st_size
            return size, hashlib.file_digest(opened, "sha256").hexdigest() if size in sizes else ""

    def _judge_manifest(self, relative: str, contents: manifest.ManifestContents, chunks: AbstractSet[str]) -> None:
        name = _name(relative)
        for number in contents.unreadable:
            self._find(Fault.EDITED, relative, f"line {number} is no line of a manifest")
        for number in contents.edited:
            self._find(Fault.EDITED, relative, f"line {number} was edited: it does not match its own hash")
        for number in contents.removed:
            what = f"a line behind line {number - 1} was removed, or line {number} put in: it does not follow from it"
            if number == 1:
                what = "a line before line 1 was removed: it is not the first that was written"
            self._find(Fault.REMOVED, relative, what)
        for number in contents.broken:  # of an older version: its lines have no hash of their own
            what = f"line {number - 1} was edited, or a line behind it removed: line {number} does not follow from it"
            if number == 1:
                what = "line 1 was edited, or a line before it removed: it is not the first that was written"
            self._find(Fault.EDITED, relative, what)
        if contents.torn:
            self._find(Fault.TORN, relative, "the last line is torn")
        if is_unended(contents):
            what = "has no last chunk: still being recorded, or what followed was removed with its lines"
            self._find(Fault.UNENDED, relative, what)
        self._sort_lines(relative, layout.parse_manifest_name(name) or "", contents, chunks)

    def _sort_lines(
        self, relative: str, recording_id: str, contents: manifest.ManifestContents, chunks: AbstractSet[str]
    ) -> None:
        for line in contents.doubtful:  # by what was edited nothing is judged: neither the seq it names nor the file
            self._doubted.add((recording_id, line["seq"]))
            parsed = layout.parse_chunk_name(_name(line["file"]))
            if parsed is not None:
                self._doubted.add((recording_id, parsed.seq))
        excused = {deletion.seq for deletion in contents.deletions} | {-number for number in contents.snapshots_gone}
        if relative in self._in_pieces:  # rotation takes from the device; what the store had proven it still has
            excused -= {-one.seq if one.is_snapshot else one.seq for one in contents.offloaded}
        sure_gone = {deletion.seq for deletion in contents.deletions if not deletion.is_edited}
        doubtful = {id(line) for line in contents.doubtful}
        sure = [line for line in contents.chunks if id(line) not in doubtful]
        seqs = {line["seq"] for line in sure} | sure_gone
        highest = max(seqs, default=0)
        if highest > len(contents.chunks) + len(contents.deletions) + _MAX_HOLES:  # a made-up number; do not count up
            self._find(Fault.MISSING, f"{relative}#{highest}", f"most of the chunks before {highest} are not listed")
            highest = 0
        for seq in sorted(set(range(1, highest + 1)) - seqs):
            if (recording_id, seq) not in self._doubted:
                self._find(Fault.MISSING, f"{relative}#{seq}", f"chunk {seq} is not listed")
        for line in sure:
            split = layout.split_file(line["file"])
            parsed = layout.parse_chunk_name(split[2]) if split is not None else None
            if parsed is None or parsed.recording_id != recording_id or parsed.seq != line["seq"]:
                self._find(Fault.EDITED, relative, f"{line['file']!r} is no chunk of this recording")
                continue
            place = _place(relative, line["file"], chunks)
            # What rotation took is not missing; where a copy still has it, it is judged like any other.
            if line["seq"] not in excused or place in chunks:
                self._listed[place] = _Listed(line["file"], line["bytes"], line["sha256"], relative)
        for shot in contents.snapshots:
            split = layout.split_file(shot["file"])
            if split is None or layout.parse_snapshot_name(split[2]) != (recording_id, shot["snapshot"]):
                self._find(Fault.EDITED, relative, f"{shot['file']!r} is no snapshot of this recording")
                continue
            place = _place(relative, shot["file"], chunks)
            if -shot["snapshot"] not in excused or place in chunks:
                self._listed[place] = _Listed(shot["file"], shot["bytes"], shot["sha256"], relative)

    def _compare(
        self,
        place: str,
        line: _Listed,
        by_hash: Mapping[str, _Listed],
        sizes: AbstractSet[int],
    ) -> bool:
        """Whether there is a file; what is wrong with it is a finding."""
        file = line.file
        try:
            size, digest = self.measured(place, sizes)
        except FileNotFoundError:
            self._find(Fault.MISSING, file, "missing", line.manifest)
            return False
        except OSError as exc:
            self._find_unreadable(file, exc)
            return True
        if digest == line.sha256 and size == line.bytes:
            return True
        other = by_hash.get(digest)
        if other is not None and other is not line:
            self._find(Fault.SWAPPED, file, f"holds what was recorded as {other.file}")
        elif size < line.bytes:
            self._find(Fault.TORN, file, f"torn, {size} of {line.bytes} bytes")
        elif size != line.bytes:
            self._find(Fault.ALTERED, file, f"altered, it has {size} bytes and {line.bytes} were recorded")
        else:
            self._find(Fault.ALTERED, file, "altered, its sha256 is not the recorded one")
        return True


def _name(file: str) -> str:
    return file.rpartition("/")[2]


def _is_media(name: str) -> bool:
    return layout.parse_chunk_name(name) is not None or layout.parse_snapshot_name(name) is not None


def _pieces(there: Iterable[str]) -> dict[str, dict[int, str]]:
    """Manifests of which there are single lines, with these by number."""
    found: dict[str, dict[int, str]] = {}
    for file in there:
        folder, _, name = file.rpartition("/")
        piece = layout.parse_manifest_piece(name)
        if piece is not None:
            found.setdefault(f"{folder}/{piece[0]}".removeprefix("/"), {})[piece[1]] = file
    return found


def _place(manifest_file: str, file: str, chunks: AbstractSet[str]) -> str:
    parts = file.split("/")
    for skip in range(len(parts)):
        if (candidate := "/".join(parts[skip:])) in chunks:
            return candidate
    beside = f"{manifest_file.rpartition('/')[0]}/{parts[-1]}".removeprefix("/")
    return beside if beside in chunks else file


def still_holds(folder: Path, finding: Finding) -> bool:
    """Whether a finding is there still, in a folder in which a daemon goes on recording and rotating.

    Chunks that were finished or rotated away meanwhile are no findings. Costs no more than reading one manifest.

    Raises:
        StorageError: the folder cannot be read.
    """
    if finding.is_lasting or finding.fault not in (
        Fault.MISSING,
        Fault.UNLISTED,
        Fault.TORN,
        Fault.UNFINISHED,
        Fault.UNENDED,
    ):
        return True
    if "#" in finding.file:  # a number without a line, which no daemon writes later
        return os.path.lexists(folder / finding.file.partition("#")[0])
    name = _name(finding.file)
    is_there = os.path.lexists(folder / finding.file)
    if layout.parse_manifest_name(name) is not None:
        contents = _read(folder, finding.file)
        if contents is None:
            return False
        return is_unended(contents) if finding.fault is Fault.UNENDED else contents.torn
    parsed = layout.parse_chunk_name(name)
    if (shot := layout.parse_snapshot_name(name)) is not None and finding.fault is not Fault.TORN:
        contents = _first_manifest(folder, shot[0])
        is_listed = contents is not None and shot[1] in [line["snapshot"] for line in manifest.live_snapshots(contents)]
        return is_listed and not is_there if finding.fault is Fault.MISSING else is_there and not is_listed
    if parsed is None or finding.fault is Fault.TORN:
        return True
    if finding.fault is Fault.UNFINISHED:
        return is_there
    contents = _first_manifest(folder, parsed.recording_id)
    if contents is None:  # with its last chunk a manifest goes too
        return is_there if finding.fault is Fault.UNLISTED else False
    listed = {line["seq"] for line in manifest.live_chunks(contents)}
    if finding.fault is Fault.MISSING:
        return parsed.seq in listed
    return parsed.seq not in listed and is_there


def _first_manifest(folder: Path, recording_id: str) -> manifest.ManifestContents | None:
    manifest_name = layout.manifest_name(recording_id)
    places = (path.relative_to(folder).as_posix() for path in folder.rglob(manifest_name))
    return next((found for place in places if (found := _read(folder, place))), None)


def _read(folder: Path, place: str) -> manifest.ManifestContents | None:
    above, _, name = place.rpartition("/")
    with (
        contextlib.suppress(OSError),
        files.closing_fd(files.open_root(folder)) as root,
        files.closing_fd(files.open_folder(root, above)) as opened,
    ):
        return manifest.read_at(opened, name)
    return None


def is_unended(contents: manifest.ManifestContents) -> bool:
    """Whether chunks are listed, but no end: neither a last chunk of its recording nor a line that says it ended."""
    return bool(contents.chunks) and not contents.endings and not any(line["final"] for line in contents.chunks)
