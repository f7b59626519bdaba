"""The lines of a manifest: their fields, what may stand in them, their own hashes. Pure.

What is read is data from a card: a value of the wrong type, size or sign makes its line unreadable, and no other one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from msrecd.storage.manifest_values import is_count, is_flag, is_number, is_seconds, is_seq, is_sha256, is_text, is_time
from msrecd.vocabulary.lapse import TimeLapse

_MAX_GAPS = 100_000
_OWN_HASH = b',"line_sha256":"'  # at the end of a line, before 64 digits and _END
_END = b'"}'
_OWN_BYTES = len(_OWN_HASH) + 66


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
    paused_s: NotRequired[float]  # of a pause between the chunk before and this one, which is no gap
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


def encode_line(values: Mapping[str, object], prev: str) -> bytes:
    """The line's bytes without the newline; `line_sha256` at its end is of the line as it were without it."""
    line = json.dumps({**values, "prev": prev}, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    return line[:-1] + b',"line_sha256":"%b"}' % hashlib.sha256(line).hexdigest().encode()


def parse_line(line: bytes | None) -> dict[str, object]:
    """
    Raises:
        ValueError, TypeError, RecursionError: it is no JSON object.
    """
    if line is None:
        raise ValueError("too long")
    values = _DECODER.decode(line.decode())
    if not isinstance(values, dict):
        raise TypeError("no object")
    return values


def _refuse(constant: str) -> object:
    raise ValueError(constant)


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def deletion_of(values: Mapping[str, object], *, is_edited: bool) -> Deletion:
    seq, at, reason = values["deleted"], values["at"], values["reason"]
    if not (is_seq(seq) and is_text(at) and is_text(reason)):
        raise TypeError("deleted")
    return Deletion(seq=int(str(seq)), at=str(at), reason=str(reason), is_edited=is_edited)


def snapshot_line(values: dict[str, object]) -> SnapshotLine:
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


def offloaded_of(values: Mapping[str, object]) -> Offloaded:
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


def ending_of(values: Mapping[str, object]) -> Ending:
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


def chunk_line(values: dict[str, object]) -> ManifestLine:
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
    if not is_seconds(values.get("paused_s", 0.0)):
        raise TypeError("paused_s")
    return values  # type: ignore[return-value]  # its fields have just been checked


def _are_tracks(value: object) -> bool:
    """Kinds of tracks with figures by name; a figure may be unknown, and counts of samples are larger than seconds."""
    if not isinstance(value, dict) or len(value) > 64:
        return False
    for kind, figures in value.items():
        if not (is_text(kind) and isinstance(figures, dict) and len(figures) <= 64):
            return False
        for name, figure in figures.items():
            if not (is_text(name) and (figure is None or is_count(figure) or is_number(figure))):
                return False
    return True


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


def is_of_old(values: Mapping[str, object]) -> bool:
    """Whether a line was written before lines had a hash of their own. One whose hash lost its name is not."""
    return values.keys() in (_CHUNK_KEYS, _DELETION_KEYS)


def is_as_written(line: bytes | None) -> bool:
    if line is None or line[-_OWN_BYTES:-66] != _OWN_HASH or line[-2:] != _END:
        return False
    return hashlib.sha256(line[:-_OWN_BYTES] + b"}").hexdigest().encode() == line[-66:-2]


def says(line: bytes, values: Mapping[str, object]) -> bool:
    try:
        known = parse_line(line)
    except (ValueError, TypeError, RecursionError):
        return False
    for name in ("prev", "line_sha256"):
        known.pop(name, None)
    return bool(known == json.loads(json.dumps(values)))


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
