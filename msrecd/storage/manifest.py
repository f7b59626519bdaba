"""Manifests: one JSON line a chunk, each with the hash of the line before and of itself.

The hash of the line before chains them; its own makes an edit of the last line, which nothing follows, visible too, and
tells which of two lines was edited. Lines without one of their own are those of older versions.

Appending works without memory of the file, under a lock, so that the daemon, its janitor and a command
may do it in turn. What a line may hold: manifest_lines.py.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO

from msrecd.storage import files
from msrecd.storage.manifest_lines import (
    Deletion,
    Ending,
    ManifestLine,
    Offloaded,
    SnapshotLine,
    chunk_line,
    deletion_of,
    encode_line,
    ending_of,
    is_as_written,
    is_of_old,
    offloaded_of,
    parse_line,
    says,
    snapshot_line,
)
from msrecd.storage.triggerlines import TriggerLine, trigger_line

log = logging.getLogger(__name__)

MAX_LINE_BYTES = 8 << 20
MAX_LINES = 2_000_000
_BLOCK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestContents:
    """What a manifest says, and what is wrong with it.

    removed: numbers (from 1) of lines that do not follow from the line before although their own hashes prove both:
    lines between them were removed, or this one was put in; broken: of lines that do not follow from a line of an older
    version, which was edited, if it is not the same; edited: of lines that do not match their own hash;
    unreadable: of lines that are none of ours; torn: the last line has no end. `chunks` has all lines that can be read,
    `doubtful` those among them that were edited. What was edited of the other kinds is left out. lines: how many there
    are; snapshots_gone: by their numbers.
    """

    chunks: tuple[ManifestLine, ...]
    deletions: tuple[Deletion, ...]
    endings: tuple[Ending, ...]
    removed: tuple[int, ...]
    broken: tuple[int, ...]
    edited: tuple[int, ...]
    unreadable: tuple[int, ...]
    torn: bool
    doubtful: tuple[ManifestLine, ...]
    snapshots: tuple[SnapshotLine, ...] = ()
    snapshots_gone: frozenset[int] = frozenset()
    offloaded: tuple[Offloaded, ...] = ()
    triggers: tuple[TriggerLine, ...] = ()
    lines: int = 0


def append(folder: int, name: str, values: Mapping[str, object]) -> None:
    """Append a line and put it on the disk; a torn last line is cut first, a failed one taken back.

    Where that failed too (the file system had turned read-only), the line may be there when it is appended again: then
    it is only put on the disk.

    Raises:
        OSError: the line is not there.
    """
    is_new = not files.exists(folder, name)
    with files.closing_fd(files.open_file(folder, name, os.O_RDWR | os.O_CREAT)) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        begin, size = _last_line(fd)
        os.ftruncate(fd, size)
        if 0 < size - begin <= MAX_LINE_BYTES and says(os.pread(fd, size - begin - 1, begin), values):
            os.fsync(fd)
            return
        os.lseek(fd, size, os.SEEK_SET)
        prev = _hash_range(fd, begin, size - 1) if size else ""
        try:
            files.write_all(fd, [encode_line(values, prev) + b"\n"])
            os.fsync(fd)
        except OSError:
            try:
                os.ftruncate(fd, size)
            except OSError as exc:
                log.warning("manifest %s: a torn line cannot be taken back: %s", name, exc)
            raise
    if is_new or not size:  # an attempt that failed may have left it empty
        os.fsync(folder)


def cut_torn_end(folder: int, name: str) -> bool:
    """Take away a last line that has no end, as a power cut leaves it; whether there was one.

    Raises:
        OSError: it cannot be read or shortened.
    """
    with files.closing_fd(files.open_file(folder, name)) as fd:
        if _last_line(fd)[1] == os.fstat(fd).st_size:
            return False
    with files.closing_fd(files.open_file(folder, name, os.O_RDWR)) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.ftruncate(fd, _last_line(fd)[1])
        os.fsync(fd)
    return True


def read(data: bytes) -> ManifestContents:
    """Understand a manifest's bytes; never raises. What an edited line says is kept as long as it can be read."""
    return read_file(io.BytesIO(data))


def read_at(folder: int, name: str) -> ManifestContents:
    """Read a manifest in a folder.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    with os.fdopen(files.open_file(folder, name), "rb") as file:
        return read_file(file)


def read_file(file: BinaryIO) -> ManifestContents:
    """Understand a manifest line by line; what it says is kept, so its memory grows with the number of lines.

    Raises:
        OSError: it cannot be read.
    """
    kept: dict[type, list[Any]] = {
        kind: [] for kind in (dict, Snapshot, SnapshotGone, Deletion, Ending, Offloaded, Trigger)
    }
    faults: dict[Fault, list[int]] = {fault: [] for fault in Fault}
    doubtful: list[ManifestLine] = []
    number = 0
    for number, value, fault in entries(file):
        if fault is not None:
            faults[fault].append(number)
        if value is not None:
            kept[type(value)].append(value)
            if fault is Fault.EDITED and isinstance(value, dict):
                doubtful.append(value)
    return ManifestContents(
        chunks=tuple(kept[dict]),
        deletions=tuple(kept[Deletion]),
        endings=tuple(kept[Ending]),
        removed=tuple(faults[Fault.REMOVED]),
        broken=tuple(faults[Fault.BROKEN]),
        edited=tuple(faults[Fault.EDITED]),
        unreadable=tuple(faults[Fault.UNREADABLE]),
        torn=bool(faults[Fault.TORN]),
        doubtful=tuple(doubtful),
        snapshots=tuple(one.line for one in kept[Snapshot]),
        snapshots_gone=frozenset(one.number for one in kept[SnapshotGone]),
        offloaded=tuple(kept[Offloaded]),
        triggers=tuple(one.line for one in kept[Trigger]),
        lines=number - len(faults[Fault.TORN]),
    )


class Fault(StrEnum):
    """What can be wrong with a line; see ManifestContents."""

    REMOVED = "removed"
    BROKEN = "broken"
    EDITED = "edited"
    UNREADABLE = "unreadable"
    TORN = "torn"


@dataclass(frozen=True, slots=True)
class Snapshot:
    line: SnapshotLine


@dataclass(frozen=True, slots=True)
class SnapshotGone:
    number: int


@dataclass(frozen=True, slots=True)
class Trigger:
    line: TriggerLine


Said = ManifestLine | Snapshot | SnapshotGone | Deletion | Ending | Offloaded | Trigger  # a dict is a chunk's line


def entries(file: BinaryIO) -> Iterator[tuple[int, Said | None, Fault | None]]:
    """Each line of a manifest: (its number from 1, what it says, what is wrong with it). In memory that the longest
    line bounds: a manifest may have a year of lines. None in the place of what is left out.

    Raises:
        OSError: it cannot be read.
    """
    expected = ""
    is_old, is_before_damaged = True, False
    is_before_proven = True  # nothing is before the first line
    for number, (line, digest) in enumerate(_lines(file), 1):
        if not digest:  # the end of a line is missing
            yield number, None, Fault.TORN
            return
        said: Said | None = None
        fault: Fault | None = None
        is_damaged = True
        try:
            values = parse_line(line)
            is_old = is_old and is_of_old(values)
            is_damaged = not is_old and not is_as_written(line)
            prev = values["prev"]
            said = _said(values, is_damaged=is_damaged)
            if is_damaged:
                fault = Fault.EDITED
            elif prev != expected and not is_before_damaged:
                fault = Fault.REMOVED if is_before_proven and not is_old else Fault.BROKEN
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            said, fault, is_damaged = None, Fault.UNREADABLE, True
        yield number, said, fault
        expected = digest
        is_before_damaged = is_damaged
        is_before_proven = not is_old


def _said(values: dict[str, object], *, is_damaged: bool) -> Said | None:
    """
    Raises:
        ValueError, KeyError, TypeError: it is no line of ours.
    """
    if "snapshot" in values:
        return None if is_damaged else Snapshot(snapshot_line(values))
    if "trigger" in values:
        return None if is_damaged else Trigger(trigger_line(values))
    if "offloaded" in values:
        return None if is_damaged else offloaded_of(values)
    if "deleted" in values and values.get("kind") == "snapshot":
        return None if is_damaged else SnapshotGone(deletion_of(values, is_edited=False).seq)
    if "deleted" in values:
        return deletion_of(values, is_edited=is_damaged)
    if "after" in values:
        return None if is_damaged else ending_of(values)
    return chunk_line(values)


def live_snapshots(contents: ManifestContents) -> Sequence[SnapshotLine]:
    """The snapshots that should still be there."""
    return [line for line in contents.snapshots if line["snapshot"] not in contents.snapshots_gone]


def live_chunks(contents: ManifestContents) -> Sequence[ManifestLine]:
    """The chunks that should still be there."""
    deleted = {deletion.seq for deletion in contents.deletions}
    return [line for line in contents.chunks if line["seq"] not in deleted]


def has_live(lines: Iterable[tuple[int, Said | None, Fault | None]]) -> bool:
    """Whether there is a chunk or a snapshot that should still be there."""
    live: set[int] = set()
    gone: set[int] = set()
    for _, said, _ in lines:
        if isinstance(said, Deletion):
            gone.add(said.seq)
        elif isinstance(said, SnapshotGone):
            gone.add(-said.number)
        elif isinstance(said, Snapshot):
            live.add(-said.line["snapshot"])
        elif isinstance(said, dict):
            live.add(said["seq"])
    return not live <= gone


def _lines(file: BinaryIO) -> Iterator[tuple[bytes | None, str]]:
    """Lines without their newlines (None: longer than any of ours) with their sha256, which a torn one has not."""
    for _ in range(MAX_LINES):
        line = file.readline(MAX_LINE_BYTES)
        if not line:
            return
        if line.endswith(b"\n"):
            yield line[:-1], hashlib.sha256(line[:-1]).hexdigest()
            continue
        digest = hashlib.sha256(line)
        while not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES)
            if not line:
                yield None, ""
                return
            digest.update(line.removesuffix(b"\n"))
        yield None, digest.hexdigest()


def _last_line(fd: int) -> tuple[int, int]:
    """Where the last whole line begins, and where it ends, its newline included; both 0 when there is none."""
    end = _newline_before(fd, os.fstat(fd).st_size) + 1
    return (_newline_before(fd, end - 1) + 1 if end else 0), end


def _newline_before(fd: int, stop: int) -> int:
    """The place of the last newline before `stop`, -1 when there is none."""
    while stop > 0:
        start = max(0, stop - _BLOCK_BYTES)
        found = os.pread(fd, stop - start, start).rfind(b"\n")
        if found >= 0:
            return start + found
        stop = start
    return -1


def _hash_range(fd: int, begin: int, end: int) -> str:
    digest = hashlib.sha256()
    while begin < end:
        block = os.pread(fd, min(_BLOCK_BYTES, end - begin), begin)
        if not block:
            break
        digest.update(block)
        begin += len(block)
    return digest.hexdigest()
