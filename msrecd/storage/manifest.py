"""Manifests: one JSON line a chunk, each with the hash of the line before and of itself.

The hash of the line before chains them; its own makes an edit of the last line, which nothing follows, visible too, and
tells which of two lines was edited. Lines without one of their own are those of older versions.

Appending works without memory of the file, under a lock, so that the daemon, its janitor and a command
may do it in turn.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from msrecd.storage import files

log = logging.getLogger(__name__)

_TAIL_BYTES = 64 * 1024
_MAX_LINE_BYTES = 4 * 1024 * 1024
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
    prev: NotRequired[str]
    line_sha256: NotRequired[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """A line that says what rotation or a loss took away; `is_edited`: it does not match its own hash."""

    seq: int
    at: str
    reason: str
    is_edited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestContents:
    """What a manifest says, and what is wrong with it.

    broken: numbers (from 1) of lines that do not follow from the line before although both are what they were written
    as (without hashes of their own: or one of them is not); edited: of lines that do not match their own hash;
    unreadable: of lines that are none of ours; torn: the last line has no end. `chunks` has all lines that can be read,
    `doubtful` those among them that were edited.
    """

    chunks: tuple[ManifestLine, ...]
    deletions: tuple[Deletion, ...]
    broken: tuple[int, ...]
    edited: tuple[int, ...]
    unreadable: tuple[int, ...]
    torn: bool
    doubtful: tuple[ManifestLine, ...]


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
        size, last = _last_line(fd)
        os.ftruncate(fd, size)
        if last is not None and _says(last, values):
            os.fsync(fd)
            return
        os.lseek(fd, size, os.SEEK_SET)
        prev = hashlib.sha256(last).hexdigest() if last is not None else ""
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
        if _last_line(fd)[0] == os.fstat(fd).st_size:
            return False
    with files.closing_fd(files.open_file(folder, name, os.O_RDWR)) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        size, _ = _last_line(fd)
        os.ftruncate(fd, size)
        os.fsync(fd)
    return True


def read(data: bytes) -> ManifestContents:
    """Understand a manifest's bytes; never raises. What an edited line says is told as long as it can be read."""
    whole, newline, rest = data.rpartition(b"\n")
    chunks: list[ManifestLine] = []
    deletions: list[Deletion] = []
    broken: list[int] = []
    edited: list[int] = []
    unreadable: list[int] = []
    doubtful: list[ManifestLine] = []
    expected = ""
    is_old, is_before_damaged = True, False
    for number, line in enumerate(whole.split(b"\n") if newline else (), 1):
        is_damaged = True
        try:
            values = json.loads(line)
            if not isinstance(values, dict):
                raise TypeError("no object")
            is_old = is_old and _is_of_old(values)
            is_damaged = not is_old and not _is_as_written(line)
            prev = values["prev"]
            if "deleted" in values:
                seq, at, reason = int(values["deleted"]), str(values["at"]), str(values["reason"])
                deletions.append(Deletion(seq=seq, at=at, reason=reason, is_edited=is_damaged))
            else:
                chunks.append(_chunk_line(values))
                doubtful += chunks[-1:] if is_damaged else []
            if is_damaged:
                edited.append(number)
            elif prev != expected and not is_before_damaged:
                broken.append(number)
        except (ValueError, KeyError, TypeError, RecursionError):
            unreadable.append(number)
            is_damaged = True
        expected = hashlib.sha256(line).hexdigest()
        is_before_damaged = is_damaged
    return ManifestContents(
        chunks=tuple(chunks),
        deletions=tuple(deletions),
        broken=tuple(broken),
        edited=tuple(edited),
        unreadable=tuple(unreadable),
        torn=bool(rest),
        doubtful=tuple(doubtful),
    )


def live_chunks(contents: ManifestContents) -> Sequence[ManifestLine]:
    """The chunks that should still be there."""
    deleted = {deletion.seq for deletion in contents.deletions}
    return [line for line in contents.chunks if line["seq"] not in deleted]


def _chunk_line(values: dict[str, object]) -> ManifestLine:
    """
    Raises:
        KeyError, TypeError: a field is missing or of the wrong type.
    """
    for name, kind in _FIELDS.items():
        if not isinstance(values[name], kind) or (isinstance(values[name], bool) and kind is not bool):
            raise TypeError(name)
    return values  # type: ignore[return-value]  # its fields have just been checked


_FIELDS: dict[str, type | tuple[type, ...]] = {
    "seq": int,
    "file": str,
    "bytes": int,
    "sha256": str,
    "mime_type": str,
    "started": str,
    "ended": str,
    "duration_s": (int, float),
    "clock": str,
    "final": bool,
    "recovered": bool,
    "lost_s": (int, float),
    "tracks": dict,
    "gaps": list,
}


_CHUNK_KEYS = frozenset((*_FIELDS, "prev"))
_DELETION_KEYS = frozenset(("deleted", "at", "reason", "prev"))


def _is_of_old(values: Mapping[str, object]) -> bool:
    """Whether a line was written before lines had a hash of their own. One whose hash lost its name is not."""
    return values.keys() in (_CHUNK_KEYS, _DELETION_KEYS)


def _is_as_written(line: bytes) -> bool:
    match = _OWN_HASH.search(line)
    return match is not None and hashlib.sha256(line[: match.start()] + b"}").hexdigest().encode() == match[1]


def _says(line: bytes, values: Mapping[str, object]) -> bool:
    try:
        known = json.loads(line)
    except ValueError:
        return False
    if not isinstance(known, dict):
        return False
    for name in ("prev", "line_sha256"):
        known.pop(name, None)
    return bool(known == json.loads(json.dumps(values)))


def _last_line(fd: int) -> tuple[int, bytes | None]:
    """Size up to the end of the last whole line, and that line without its newline (None: there is none)."""
    size = os.fstat(fd).st_size
    length = _TAIL_BYTES
    while True:
        start = max(0, size - length)
        tail = os.pread(fd, size - start, start)
        end = tail.rfind(b"\n")
        begin = tail.rfind(b"\n", 0, end) if end > 0 else -1
        if end >= 0 and (begin >= 0 or start == 0):
            return start + end + 1, tail[begin + 1 : end]
        if start == 0:
            return 0, None
        if length > _MAX_LINE_BYTES:
            raise OSError(errno.EINVAL, "the manifest's last line is too long")
        length *= 4
