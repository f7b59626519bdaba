"""Proving a folder, here or copied elsewhere, against the manifests in it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from msrecd.errors import StorageError
from msrecd.storage import layout, manifest


class Fault(StrEnum):
    """What can be wrong."""

    MISSING = "missing"  # a listed chunk is not there
    TORN = "torn"  # it is shorter than listed, or the manifest's last line has no end
    ALTERED = "altered"  # its bytes are others
    SWAPPED = "swapped"  # its bytes are those of another listed chunk
    EDITED = "edited"  # a line of the manifest is not what was written, does not follow from the one before, or is none
    UNLISTED = "unlisted"  # a chunk that no manifest knows
    UNFINISHED = "unfinished"  # a `.part`: being recorded, or waiting for recovery
    UNENDED = "unended"  # no chunk is the last one: being recorded, or what followed went with its lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`is_failure`: something is not what it was; an unfinished chunk or a missing end alone prove nothing."""

    fault: Fault
    file: str
    message: str

    @property
    def is_failure(self) -> bool:
        return self.fault not in (Fault.UNFINISHED, Fault.UNENDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    findings: tuple[Finding, ...]
    manifests: int
    chunks: int
    bytes: int

    @property
    def is_proven(self) -> bool:
        return not any(finding.is_failure for finding in self.findings)


def verify(folder: Path, *, progress: Callable[[int, int], None] | None = None) -> Verdict:
    """Read all chunks below a folder and compare them with the manifests in it.

    The folder may be the storage path or any part of it that holds whole recordings: `file` entries are looked for
    below it as they stand, then without their leading folders, then beside the manifest.

    Args:
        progress: called with (bytes read, bytes to read).

    Raises:
        StorageError: the folder cannot be read.
    """
    if not folder.is_dir():
        raise StorageError(f"{folder} is no folder", "not_found")
    manifests = list(_walk(folder, layout.parse_manifest_name))
    findings: list[Finding] = []
    known = _Known()
    for path in manifests:
        findings += _read_one(folder, path, known)
    listed = known.listed
    total = sum(line["bytes"] for line in listed.values())
    by_hash = {line["sha256"]: line for line in listed.values()}
    done = 0
    for path, line in listed.items():
        finding = _compare(folder, path, line, by_hash)
        if finding is not None:
            findings.append(finding)
        done += line["bytes"]
        if progress is not None:
            progress(done, total)
    for path in _walk(folder, lambda name: name if layout.parse_chunk_name(name) else None):
        relative = path.relative_to(folder).as_posix()
        parsed = layout.parse_chunk_name(path.name)
        if parsed is not None and parsed.is_part:
            message = f"{relative}: not finished; being recorded, or waiting for recovery"
            findings.append(Finding(fault=Fault.UNFINISHED, file=relative, message=message))
        elif parsed is not None and path not in listed and path not in known.gone:
            if (parsed.recording_id, parsed.seq) in known.doubted:
                continue
            message = f"{relative}: no manifest lists it"
            findings.append(Finding(fault=Fault.UNLISTED, file=relative, message=message))
    return Verdict(findings=tuple(findings), manifests=len(manifests), chunks=len(listed), bytes=total)


def is_unended(contents: manifest.ManifestContents) -> bool:
    """Whether chunks are listed, but none as the last one of its recording."""
    return bool(contents.chunks) and not any(line["final"] for line in contents.chunks)


@dataclass(frozen=True, slots=True)
class _Known:
    """What the manifests say; `doubted`: (recording_id, seq) of chunks of which an edited line speaks."""

    listed: dict[Path, manifest.ManifestLine] = field(default_factory=dict)
    gone: set[Path] = field(default_factory=set)
    doubted: set[tuple[str, int]] = field(default_factory=set)


def _read_one(folder: Path, path: Path, known: _Known) -> Iterator[Finding]:
    relative = path.relative_to(folder).as_posix()
    try:
        contents = manifest.read(path.read_bytes())
    except OSError as exc:
        yield Finding(fault=Fault.ALTERED, file=relative, message=f"{relative}: cannot be read: {exc.strerror}")
        return
    for number in contents.unreadable:
        yield Finding(fault=Fault.EDITED, file=relative, message=f"{relative}: line {number} is no line of a manifest")
    for number in contents.edited:
        message = f"{relative}: line {number} was edited: it does not match its own hash"
        yield Finding(fault=Fault.EDITED, file=relative, message=message)
    for number in contents.broken:
        which = f"line {number - 1} was edited, or a line behind it" if number > 1 else "a line before the first was"
        message = f"{relative}: {which} removed: line {number} does not follow from it"
        yield Finding(fault=Fault.EDITED, file=relative, message=message)
    if contents.torn:
        yield Finding(fault=Fault.TORN, file=relative, message=f"{relative}: the last line is torn")
    if is_unended(contents):
        message = f"{relative}: has no last chunk: still being recorded, or what followed was removed with its lines"
        yield Finding(fault=Fault.UNENDED, file=relative, message=message)
    recording_id = layout.parse_manifest_name(path.name) or ""
    for line in contents.doubtful:  # by what was edited nothing is judged: neither the seq it names nor the file
        known.doubted.add((recording_id, line["seq"]))
        parsed = layout.parse_chunk_name(line["file"].rpartition("/")[2])
        if parsed is not None:
            known.doubted.add((recording_id, parsed.seq))
    gone = {deletion.seq for deletion in contents.deletions if not deletion.is_edited}
    perhaps_gone = {deletion.seq for deletion in contents.deletions if deletion.is_edited}
    sure = [line for line in contents.chunks if line not in contents.doubtful]
    seqs = {line["seq"] for line in sure} | gone
    for seq in sorted(set(range(1, max(seqs, default=0) + 1)) - seqs):
        if (recording_id, seq) not in known.doubted:
            message = f"{relative}: chunk {seq} is not listed"
            yield Finding(fault=Fault.MISSING, file=f"{relative}#{seq}", message=message)
    for line in sure:
        split = layout.split_file(line["file"])
        parsed = layout.parse_chunk_name(split[2]) if split is not None else None
        if parsed is None or parsed.recording_id != recording_id or parsed.seq != line["seq"]:
            message = f"{relative}: {line['file']!r} is no chunk of this recording"
            yield Finding(fault=Fault.EDITED, file=relative, message=message)
            continue
        place = _place(folder, path, line["file"])
        if line["seq"] in gone or (line["seq"] in perhaps_gone and not place.exists()):
            known.gone.add(place)
        else:
            known.listed[place] = line


def _place(folder: Path, manifest_path: Path, file: str) -> Path:
    parts = file.split("/")
    for skip in range(len(parts)):
        candidate = folder.joinpath(*parts[skip:])
        if candidate.is_file():
            return candidate
    beside = manifest_path.with_name(parts[-1])
    return beside if beside.is_file() else folder / file


def _compare(
    folder: Path, path: Path, line: manifest.ManifestLine, by_hash: Mapping[str, manifest.ManifestLine]
) -> Finding | None:
    file = line["file"]
    try:
        size = path.stat(follow_symlinks=False).st_size
        digest = _sha256(path)
    except FileNotFoundError:
        return Finding(fault=Fault.MISSING, file=file, message=f"{file}: missing")
    except OSError as exc:
        return Finding(fault=Fault.ALTERED, file=file, message=f"{file}: cannot be read: {exc.strerror}")
    if digest == line["sha256"]:
        return None
    other = by_hash.get(digest)
    if other is not None:
        return Finding(fault=Fault.SWAPPED, file=file, message=f"{file}: holds what was recorded as {other['file']}")
    if size < line["bytes"]:
        message = f"{file}: torn, {size} of {line['bytes']} bytes"
        return Finding(fault=Fault.TORN, file=file, message=message)
    return Finding(fault=Fault.ALTERED, file=file, message=f"{file}: altered, its sha256 is not the recorded one")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _walk(folder: Path, accept: Callable[[str], object]) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders.sort()
        for name in sorted(names):
            if accept(name) is not None:
                yield Path(parent) / name


def _raise(error: OSError) -> None:
    raise StorageError(f"{error.filename} cannot be read: {error.strerror}") from error
