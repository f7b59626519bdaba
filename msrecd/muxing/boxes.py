"""Boxes of MP4 (ISO/IEC 14496-12 4.2): the one reader of their headers. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

HEADER_BYTES = 8


@dataclass(frozen=True, slots=True)
class FileBox:
    """A box of a file. at, length: with its header of `head` bytes."""

    at: int
    length: int
    kind: bytes
    head: int


def boxes(data: bytes | bytearray, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and end of the content of each whole box in data[start:end]; ends at the first that is damaged."""
    stop = len(data) if end is None else end
    while start + HEADER_BYTES <= stop:
        length, kind = struct.unpack_from(">I4s", data, start)
        if length < HEADER_BYTES or start + length > stop:
            return
        yield kind, start + HEADER_BYTES, start + length
        start += length


def find_box(data: bytes | bytearray, start: int, end: int, *path: bytes) -> tuple[int, int] | None:
    """Begin and end of the content of the first box of this path."""
    for kind, begin, stop in boxes(data, start, end):
        if kind == path[0]:
            return (begin, stop) if len(path) == 1 else find_box(data, begin, stop, *path[1:])
    return None


def boxes_of_file(file: BinaryIO, size: int, limit: int) -> Iterator[FileBox]:
    """The boxes of a file of `size` bytes, `limit` at most, as far as they are whole.

    Raises:
        OSError: it cannot be read.
    """
    at = 0
    for _ in range(limit):
        if at + HEADER_BYTES > size:
            return
        file.seek(at)
        header = file.read(2 * HEADER_BYTES)
        if len(header) < HEADER_BYTES:
            return
        length, kind = struct.unpack_from(">I4s", header)
        head = HEADER_BYTES
        if length == 1 and len(header) == 2 * HEADER_BYTES:  # a length of 64 bits follows
            (length,) = struct.unpack_from(">Q", header, HEADER_BYTES)
            head = 2 * HEADER_BYTES
        if length < head or at + length > size:
            return
        yield FileBox(at, length, kind, head)
        at += length


def content_of(file: BinaryIO, box: FileBox) -> bytes:
    """What is in a box of a file; the caller bounds its length."""
    file.seek(box.at + box.head)
    return file.read(box.length - box.head)


@dataclass(frozen=True, slots=True, kw_only=True)
class MovieTrack:
    """A track of frames or sound as `moov` describes it.

    Attributes:
        scale: units of its times in a second.
        duration: of a sample, in these units, where a fragment does not say it.
        flags: of a sample, where a fragment does not say them.
    """

    is_video: bool
    scale: int
    duration: int = 0
    flags: int = 0


def movie_tracks(moov: bytes) -> dict[int, MovieTrack]:
    """The tracks of frames and sound by their number (ISO/IEC 14496-12, 8.3.2, 8.4.2, 8.4.3, 8.8.3).

    Raises:
        struct.error, IndexError: a box ends too early.
    """
    tracks: dict[int, MovieTrack] = {}
    defaults: dict[int, tuple[int, int]] = {}
    for kind, begin, end in boxes(moov):
        if kind == b"trak":
            tkhd = find_box(moov, begin, end, b"tkhd")
            mdhd = find_box(moov, begin, end, b"mdia", b"mdhd")
            hdlr = find_box(moov, begin, end, b"mdia", b"hdlr")
            if tkhd is None or mdhd is None or hdlr is None:
                continue
            (number,) = struct.unpack_from(">I", moov, tkhd[0] + (20 if moov[tkhd[0]] == 1 else 12))
            (scale,) = struct.unpack_from(">I", moov, mdhd[0] + (20 if moov[mdhd[0]] == 1 else 12))
            handler = moov[hdlr[0] + 8 : hdlr[0] + 12]
            if handler in (b"vide", b"soun") and scale:
                tracks[number] = MovieTrack(is_video=handler == b"vide", scale=scale)
        elif kind == b"mvex":
            for inner, at, _ in boxes(moov, begin, end):
                if inner == b"trex":
                    number, _, duration, _, flags = struct.unpack_from(">5I", moov, at + 4)
                    defaults[number] = duration, flags
    return {
        number: replace(track, duration=duration, flags=flags)
        for number, track in tracks.items()
        for duration, flags in [defaults.get(number, (0, 0))]
    }
