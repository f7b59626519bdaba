"""Where the pieces of a fragmented MP4 lie that a player may fetch one by one. Pure over a binary file.

A chunk is `ftyp moov (moof mdat)*`. Fragments do not wait for key frames, so a key frame may stand inside of one: a
segment here begins with the fragment that holds one; a player that begins there shows its first frame a little later.
ISO/IEC 14496-12: 8.8.7 (tfhd), 8.8.8 (trun), 8.8.12 (tfdt).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from msrecd.muxing.boxes import FileBox, MovieTrack, boxes, boxes_of_file, content_of, movie_tracks

_MAX_BOXES = 200_000  # a day of fragments of half a second
_MAX_HEADER_BYTES = 1 << 20
_LEAST_S = 0.5  # of a segment: where every frame is a key frame, one for each would help no player
_SOUND_S = 2.0  # the same without frames
_NO_KEY = 0x10000  # sample_is_non_sync_sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Bytes of a chunk, and their time on the chunk's own line."""

    offset: int
    bytes: int
    start_s: float
    duration_s: float


def init_bytes(file: BinaryIO, size: int) -> int:
    """The length of what stands before the first fragment.

    Raises:
        ValueError: it is no fragmented MP4.
        OSError: it cannot be read.
    """
    seen_moov = False
    for box in boxes_of_file(file, size, _MAX_BOXES):
        if box.kind == b"moof" and seen_moov:
            return box.at
        seen_moov = seen_moov or box.kind == b"moov"
    raise ValueError("no fragmented MP4")


def segments(file: BinaryIO, size: int, duration_s: float) -> tuple[int, list[Segment]]:
    """The length of the initialisation segment, and the segments behind it; their durations add up to `duration_s`.

    Raises:
        ValueError: it is no fragmented MP4, or a damaged one.
        OSError: it cannot be read.
    """
    try:
        return _segments(file, size, duration_s)
    except (struct.error, IndexError, ZeroDivisionError) as exc:
        raise ValueError(f"a damaged MP4: {exc}") from exc


def _segments(file: BinaryIO, size: int, duration_s: float) -> tuple[int, list[Segment]]:
    tracks: dict[int, MovieTrack] = {}
    least_s = _LEAST_S
    init = 0
    starts: list[tuple[int, float]] = []
    end = 0
    for box in boxes_of_file(file, size, _MAX_BOXES):
        if box.kind == b"moov":
            tracks = movie_tracks(_content(file, box))
            least_s = _LEAST_S if any(track.is_video for track in tracks.values()) else _SOUND_S
        elif box.kind == b"moof" and tracks:
            init = init or box.at
            start_s, is_entry = _entry(_content(file, box), tracks)
            if not starts or (is_entry and start_s >= starts[-1][1] + least_s):
                starts.append((box.at, max(0.0, start_s) if starts else 0.0))
            end = box.at
        elif box.kind == b"mdat" and init:
            end = box.at + box.length
    if not starts:
        raise ValueError("no fragmented MP4")
    ends = [*starts[1:], (end, max(duration_s, starts[-1][1]))]
    return init, [
        Segment(offset=at, bytes=next_at - at, start_s=start_s, duration_s=round(next_s - start_s, 6))
        for (at, start_s), (next_at, next_s) in zip(starts, ends, strict=True)
    ]


def _content(file: BinaryIO, box: FileBox) -> bytes:
    if box.length > _MAX_HEADER_BYTES:
        raise ValueError("a header is too long")
    return content_of(file, box)


def _entry(moof: bytes, tracks: dict[int, MovieTrack]) -> tuple[float, bool]:
    """When a fragment begins, by its frames if there are any, and whether a player may begin with it."""
    has_video = any(track.is_video for track in tracks.values())
    start_s: float | None = None
    has_key = False
    for kind, begin, end in boxes(moof):
        if kind != b"traf":
            continue
        track, flags = None, 0
        for inner, at, stop in boxes(moof, begin, end):
            if inner == b"tfhd":
                track, flags = _defaults(moof, at, tracks)
            elif track is None or track.is_video is not has_video:
                continue
            elif inner == b"tfdt":
                (time,) = struct.unpack_from(">Q" if moof[at] == 1 else ">I", moof, at + 4)
                start_s = time / track.scale if start_s is None else min(start_s, time / track.scale)
            elif inner == b"trun":
                has_key = has_key or _has_key(moof, at, stop, flags)
    if start_s is None:
        return 0.0, False
    return start_s, has_key or not has_video


def _defaults(moof: bytes, at: int, tracks: dict[int, MovieTrack]) -> tuple[MovieTrack | None, int]:
    present, number = struct.unpack_from(">II", moof, at)
    track = tracks.get(number)
    if track is None:
        return None, 0
    flags = track.flags
    if present & 0x20:
        skip = sum(width for bit, width in ((0x1, 8), (0x2, 4), (0x8, 4), (0x10, 4)) if present & bit)
        (flags,) = struct.unpack_from(">I", moof, at + 8 + skip)
    return track, flags


def _has_key(moof: bytes, at: int, stop: int, default: int) -> bool:
    """Whether a run of samples holds one that needs no other."""
    present, count = struct.unpack_from(">II", moof, at)
    present &= 0xFFFFFF
    first = at + 8 + (4 if present & 0x1 else 0)
    if present & 0x4:
        (flags,) = struct.unpack_from(">I", moof, first)
        if not flags & _NO_KEY and count:
            return True
        first += 4
        if not present & 0x400:
            return count > 1 and not default & _NO_KEY
    if not present & 0x400:
        return bool(count) and not default & _NO_KEY
    entry = 4 * ((present >> 8) & 0xF).bit_count()
    skip = (4 if present & 0x100 else 0) + (4 if present & 0x200 else 0)
    if first + count * entry > stop:
        return False
    return any(not struct.unpack_from(">I", moof, first + i * entry + skip)[0] & _NO_KEY for i in range(count))
