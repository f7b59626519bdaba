"""Boxes of MP4 (ISO/IEC 14496-12 4.2): the one reader of their headers. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
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
