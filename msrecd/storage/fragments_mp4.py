"""Whole fragments of a fragmented MP4: `ftyp moov (moof mdat)*`."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from msrecd.muxing.boxes import MovieTrack, boxes, boxes_of_file, content_of, movie_tracks
from msrecd.storage.scan import MAX_ELEMENTS, Scan, TrackScan

_MAX_HEADER_BYTES = 16 * 1024 * 1024  # no moof or moov of ours comes near


@dataclass(slots=True)
class _Track:
    described: MovieTrack
    units: int = 0
    first: int | None = None
    end: int = 0


def scan_mp4(file: BinaryIO, size: int) -> Scan:
    """The end of the last `mdat` that is whole and has its `moof`, or of a whole box behind it."""
    tracks: dict[int, _Track] | None = None
    moof: bytes | None = None
    cut = fragments = 0
    for box in boxes_of_file(file, size, MAX_ELEMENTS):
        if not box.kind.isalnum():
            break
        if box.kind in (b"moov", b"moof"):
            if box.length > _MAX_HEADER_BYTES:
                break
            content = content_of(file, box)
            if box.kind == b"moov":
                tracks = {number: _Track(track) for number, track in movie_tracks(content).items()}
            else:
                moof = content
        end = box.at + box.length
        if box.kind == b"mdat":
            if tracks is None or moof is None:
                break
            _count(moof, tracks)
            moof = None
            fragments += 1
            cut = end
        elif fragments and moof is None and box.kind in (b"mfra", b"free", b"skip"):
            cut = end
    if tracks is None or not fragments:
        return Scan()
    return Scan(cut=cut, fragments=fragments, tracks={_kind(t): _track_scan(t) for t in tracks.values() if t.units})


def _kind(track: _Track) -> str:
    return "video" if track.described.is_video else "audio"


def _track_scan(track: _Track) -> TrackScan:
    scale = track.described.scale
    return TrackScan(kind=_kind(track), units=track.units, start_s=(track.first or 0) / scale, end_s=track.end / scale)


def _count(moof: bytes, tracks: dict[int, _Track]) -> None:
    """Add the samples of one moof (14496-12 8.8.7, 8.8.8, 8.8.12)."""
    for kind, begin, end in boxes(moof):
        if kind != b"traf":
            continue
        track: _Track | None = None
        duration = 0
        time: int | None = None
        for inner, at, stop in boxes(moof, begin, end):
            if inner == b"tfhd":
                flags, number = struct.unpack_from(">II", moof, at)
                track = tracks.get(number)
                duration = track.described.duration if track is not None else 0
                if flags & 0x8:
                    skip = (8 if flags & 0x1 else 0) + (4 if flags & 0x2 else 0)
                    (duration,) = struct.unpack_from(">I", moof, at + 8 + skip)
            elif inner == b"tfdt":
                (time,) = struct.unpack_from(">Q" if moof[at] == 1 else ">I", moof, at + 4)
            elif inner == b"trun" and track is not None:
                samples, length = _read_trun(moof, at, stop, duration)
                start = track.end if time is None else time
                if track.first is None:
                    track.first = start
                track.units += samples if track.described.is_video else length
                track.end = time = start + length


def _read_trun(moof: bytes, at: int, stop: int, duration: int) -> tuple[int, int]:
    """Samples and their length in the track's time scale."""
    flags, count = struct.unpack_from(">II", moof, at)
    if not flags & 0x100:
        return count, count * duration
    entry = 4 * ((flags >> 8) & 0xF).bit_count()
    first = at + 8 + (4 if flags & 0x1 else 0) + (4 if flags & 0x4 else 0)
    if first + count * entry > stop:
        return 0, 0
    return count, sum(struct.unpack_from(">I", moof, first + index * entry)[0] for index in range(count))
