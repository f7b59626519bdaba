"""Manifests: one JSON line a chunk, each with the hash of the line before and of itself.

The hash of the line before chains them; its own makes an edit of the last line, which nothing follows, visible too, and
tells which of two lines was edited. Lines without one of their own are those of older versions.

Appending works without memory of the file, under a lock, so that the daemon, its janitor and a command
may do it in turn.

What is read is data from a card: a value of the wrong type, size or sign makes its line unreadable, and no other one.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NotRequired, TypedDict

from msrecd.storage import files
from msrecd.storage.manifest_values import is_count, is_flag, is_number, is_seconds, is_seq, is_sha256, is_text, is_time
from msrecd.storage.triggerlines import TriggerLine, trigger_line
from msrecd.vocabulary.lapse import TimeLapse

log = logging.getLogger(__name__)

MAX_LINE_BYTES = 8 << 20
MAX_LINES = 2_000_000
_BLOCK_BYTES = 64 * 1024
_MAX_GAPS = 100_000
_OWN_HASH = re.compile(rb',"line_sha256":"([0-9a-f]{64})"}\Z')


class ManifestLine(TypedDict):
    """A chunk's line, exactly as in the file."""

    seq: int
    file: str
    bytes: int
    sha256: str
    mime_type: str
    started: str
    ended: str
    duration_s: float
    clock: str
    final: bool
    recovered: bool
    lost_s: float
    tracks: dict[str, dict[str, float]]
    gaps: list[dict[str, float | str]]
    time_lapse: NotRequired[dict[str, float]]  # interval_s, frame_rate, captured_s
    boot_id: NotRequired[str]  # the kernel's, where the clock was not trusted: whose correction holds for these times
    prev: NotRequired[str]
    line_sha256: NotRequired[str]


def time_lapse_of(lapse: TimeLapse, captured_s: float) -> dict[str, float]:
    """What the line of a time-lapse's chunk says of it: `captured_s` seconds are played in `duration_s`."""
    return {"interval_s": lapse.interval_s, "frame_rate": lapse.frame_rate, "captured_s": round(captured_s, 6)}


class SnapshotLine(TypedDict):
    """A snapshot's line, exactly as in the file. Snapshots of a recording are counted apart from its chunks."""

    snapshot: int
    file: str
    bytes: int
    sha256: str
    mime_type: str
    taken: str
    clock: str
    boot_id: NotRequired[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """A line that says what rotation or a loss took away; `is_edited`: it does not match its own hash."""

    seq: int
    at: str
    reason: str
    is_edited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Offloaded:
    """A line that says that a store has proven a chunk or snapshot, and has so many `lines` of this manifest."""

    seq: int
    is_snapshot: bool
    at: str
    proof: str
    store: str
    lines: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """A line that says that the recording ended while nothing could be recorded, and what was lost until then.

    after: the seq of the last chunk, which is the recording's last one; 0: there is none.
    """

    after: int
    ended: str
    lost_s: float
    gaps: tuple[Mapping[str, float | str], ...]


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


def encode_line(values: Mapping[str, object], prev: str) -> bytes:
    """The line's bytes without the newline; `line_sha256` at its end is of the line as it were without it."""
    line = json.dumps({**values, "prev": prev}, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    return line[:-1] + b',"line_sha256":"%b"}' % hashlib.sha256(line).hexdigest().encode()


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
        if 0 < size - begin <= MAX_LINE_BYTES and _says(os.pread(fd, size - begin - 1, begin), values):
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
    """Understand a manifest line by line, in memory that its longest line bounds.

    Raises:
        OSError: it cannot be read.
    """
    chunks: list[ManifestLine] = []
    deletions: list[Deletion] = []
    endings: list[Ending] = []
    removed: list[int] = []
    broken: list[int] = []
    edited: list[int] = []
    unreadable: list[int] = []
    doubtful: list[ManifestLine] = []
    snapshots: list[SnapshotLine] = []
    snapshots_gone: set[int] = set()
    offloaded: list[Offloaded] = []
    triggers: list[TriggerLine] = []
    number = 0
    expected = ""
    is_torn = False
    is_old, is_before_damaged = True, False
    is_before_proven = True  # nothing is before the first line
    for number, (line, digest) in enumerate(_lines(file), 1):
        if not digest:  # the end of a line is missing
            is_torn = True
            break
        is_damaged = True
        try:
            values = _parse(line)
            is_old = is_old and _is_of_old(values)
            is_damaged = not is_old and not _is_as_written(line)
            prev = values["prev"]
            if "snapshot" in values:
                snapshots += [_snapshot_line(values)] if not is_damaged else []
            elif "trigger" in values:
                triggers += [trigger_line(values)] if not is_damaged else []
            elif "offloaded" in values:
                offloaded += [_offloaded(values)] if not is_damaged else []
            elif "deleted" in values and values.get("kind") == "snapshot":
                snapshots_gone |= {_deletion(values, is_edited=False).seq} if not is_damaged else set()
            elif "deleted" in values:
                deletions.append(_deletion(values, is_edited=is_damaged))
            elif "after" in values:
                endings += [_ending(values)] if not is_damaged else []
            else:
                chunks.append(_chunk_line(values))
                doubtful += chunks[-1:] if is_damaged else []
            if is_damaged:
                edited.append(number)
            elif prev != expected and not is_before_damaged:
                (removed if is_before_proven and not is_old else broken).append(number)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            unreadable.append(number)
            is_damaged = True
        expected = digest
        is_before_damaged = is_damaged
        is_before_proven = not is_old
    return ManifestContents(
        chunks=tuple(chunks),
        deletions=tuple(deletions),
        endings=tuple(endings),
        removed=tuple(removed),
        broken=tuple(broken),
        edited=tuple(edited),
        unreadable=tuple(unreadable),
        torn=is_torn,
        doubtful=tuple(doubtful),
        snapshots=tuple(snapshots),
        snapshots_gone=frozenset(snapshots_gone),
        offloaded=tuple(offloaded),
        triggers=tuple(triggers),
        lines=number - is_torn,
    )


def live_snapshots(contents: ManifestContents) -> Sequence[SnapshotLine]:
    """The snapshots that should still be there."""
    return [line for line in contents.snapshots if line["snapshot"] not in contents.snapshots_gone]


def live_chunks(contents: ManifestContents) -> Sequence[ManifestLine]:
    """The chunks that should still be there."""
    deleted = {deletion.seq for deletion in contents.deletions}
    return [line for line in contents.chunks if line["seq"] not in deleted]


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


def _parse(line: bytes | None) -> dict[str, object]:
    """
    Raises:
        ValueError, TypeError, RecursionError: it is no JSON object.
    """
    if line is None:
        raise ValueError("too long")
    values = json.loads(line, parse_constant=_refuse)
    if not isinstance(values, dict):
        raise TypeError("no object")
    return values


def _refuse(constant: str) -> object:
    raise ValueError(constant)


def _deletion(values: Mapping[str, object], *, is_edited: bool) -> Deletion:
    seq, at, reason = values["deleted"], values["at"], values["reason"]
    if not (is_seq(seq) and is_text(at) and is_text(reason)):
        raise TypeError("deleted")
    return Deletion(seq=int(str(seq)), at=str(at), reason=str(reason), is_edited=is_edited)


def _snapshot_line(values: dict[str, object]) -> SnapshotLine:
    """
    Raises:
        KeyError, TypeError: a field is missing, or its value can be none of ours.
    """
    for name, is_right in _SNAPSHOT_FIELDS.items():
        if not is_right(values[name]):
            raise TypeError(name)
    if not is_text(values.get("boot_id", "")):
        raise TypeError("boot_id")
    return values  # type: ignore[return-value]  # its fields have just been checked


def _offloaded(values: Mapping[str, object]) -> Offloaded:
    """
    Raises:
        KeyError, TypeError: a field is missing, or its value can be none of ours.
    """
    seq, at, proof, store, lines = (values[name] for name in ("offloaded", "at", "proof", "store", "lines"))
    if not (is_seq(seq) and is_time(at) and is_text(proof) and is_text(store) and is_count(lines)):
        raise TypeError("offloaded")
    return Offloaded(
        seq=int(str(seq)),
        is_snapshot=values.get("kind") == "snapshot",
        at=str(at),
        proof=str(proof),
        store=str(store),
        lines=int(str(lines)),
    )


def _ending(values: Mapping[str, object]) -> Ending:
    """
    Raises:
        KeyError, TypeError, ValueError: a field is missing, or its value can be none of ours.
    """
    gaps = values["gaps"]
    is_right = is_count(values["after"]) and is_time(values["ended"]) and is_seconds(values["lost_s"])
    if not (is_right and _are_gaps(gaps) and isinstance(gaps, list)):
        raise TypeError("after")
    return Ending(
        after=int(str(values["after"])),
        ended=str(values["ended"]),
        lost_s=float(str(values["lost_s"])),
        gaps=tuple(gaps),
    )


def _chunk_line(values: dict[str, object]) -> ManifestLine:
    """
    Raises:
        KeyError, TypeError: a field is missing, or its value can be none of ours.
    """
    for name, is_right in _FIELDS.items():
        if not is_right(values[name]):
            raise TypeError(name)
    if not is_text(values.get("boot_id", "")):
        raise TypeError("boot_id")
    if "time_lapse" in values and not _is_time_lapse(values["time_lapse"]):
        raise TypeError("time_lapse")
    return values  # type: ignore[return-value]  # its fields have just been checked


def _are_tracks(value: object) -> bool:
    """Kinds of tracks with figures by name; a figure may be unknown, and counts of samples are larger than seconds."""
    return (
        isinstance(value, dict)
        and len(value) <= 64
        and all(
            is_text(kind)
            and isinstance(figures, dict)
            and len(figures) <= 64
            and all(
                is_text(name) and (figure is None or is_count(figure) or is_number(figure))
                for name, figure in figures.items()
            )
            for kind, figures in value.items()
        )
    )


def _are_gaps(value: object) -> bool:
    return isinstance(value, list) and len(value) <= _MAX_GAPS and all(map(_is_gap, value))


def _is_gap(gap: object) -> bool:
    return (
        isinstance(gap, dict)
        and is_number(gap.get("at_s", 0.0))
        and is_seconds(gap.get("duration_s", 0.0))
        and is_text(gap.get("reason", ""))
    )


def _is_time_lapse(value: object) -> bool:
    return isinstance(value, dict) and all(
        is_seconds(value.get(name)) for name in ("interval_s", "frame_rate", "captured_s")
    )


_FIELDS: dict[str, Callable[[object], bool]] = {
    "seq": is_seq,
    "file": is_text,
    "bytes": is_count,
    "sha256": is_sha256,
    "mime_type": is_text,
    "started": is_time,
    "ended": is_time,
    "duration_s": is_seconds,
    "clock": is_text,
    "final": is_flag,
    "recovered": is_flag,
    "lost_s": is_seconds,
    "tracks": _are_tracks,
    "gaps": _are_gaps,
}


_SNAPSHOT_FIELDS: dict[str, Callable[[object], bool]] = {
    "snapshot": is_seq,
    "file": is_text,
    "bytes": is_count,
    "sha256": is_sha256,
    "mime_type": is_text,
    "taken": is_time,
    "clock": is_text,
}
_CHUNK_KEYS = frozenset((*_FIELDS, "prev"))
_DELETION_KEYS = frozenset(("deleted", "at", "reason", "prev"))


def _is_of_old(values: Mapping[str, object]) -> bool:
    """Whether a line was written before lines had a hash of their own. One whose hash lost its name is not."""
    return values.keys() in (_CHUNK_KEYS, _DELETION_KEYS)


def _is_as_written(line: bytes | None) -> bool:
    match = _OWN_HASH.search(line) if line is not None else None
    if line is None or match is None:
        return False
    return hashlib.sha256(line[: match.start()] + b"}").hexdigest().encode() == match[1]


def _says(line: bytes, values: Mapping[str, object]) -> bool:
    try:
        known = _parse(line)
    except (ValueError, TypeError, RecursionError):
        return False
    for name in ("prev", "line_sha256"):
        known.pop(name, None)
    return bool(known == json.loads(json.dumps(values)))


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
