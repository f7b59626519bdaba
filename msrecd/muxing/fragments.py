"""Shifting the decode time of one track in the fragmented MP4 that libav writes.

With `empty_moov` the header exists before the first packet, and libav then starts every track at 0: sound that begins
some milliseconds after the frame would be early by as much. An edit list would say it, but needs the header to be
delayed, and not every player honours edit lists of fragmented files. The decode time of each fragment (`tfdt`,
ISO/IEC 14496-12 8.8.12) is the place that all of them read. The table of contents at the end (`mfra`, 8.8.9) has times
as well, and places, which a longer head moves.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from msrecd.muxing.boxes import boxes


class FragmentShifter:
    """Passes a stream of boxes on, adding each track's shift to its times; most passes uncopied."""

    def __init__(self, write: Callable[[bytes], None], shift_of: Callable[[int], int], moved: int = 0) -> None:
        """
        Args:
            write: takes the result, in order.
            shift_of: track id -> what to add, in units of the track's time scale.
            moved: how many bytes the head became longer, of which libav knows nothing.
        """
        self._write = write
        self._shift_of = shift_of
        self._moved = moved
        self._pending = b""  # the beginning of a box header or of a moof
        self._rest = 0  # bytes of the present box still to be passed

    def feed(self, data: bytes) -> None:
        """Take the next piece of the stream, cut anywhere."""
        if not self._pending and len(data) <= self._rest:
            self._rest -= len(data)
            self._write(data)
            return
        data = self._pending + data
        self._pending = b""
        at = 0
        while at < len(data):
            if self._rest:
                part = data[at : at + self._rest]
                self._rest -= len(part)
                self._write(part)
                at += len(part)
                continue
            size, kind = _box_header(data, at)
            if not size or (kind in (b"moof", b"mfra") and at + size > len(data)):
                self._pending = data[at:]
                return
            if kind in (b"moof", b"mfra"):
                box = bytearray(data[at : at + size])
                if kind == b"moof":
                    shift_decode_times(box, self._shift_of)
                else:
                    shift_contents(box, self._shift_of, self._moved)
                self._write(bytes(box))
                at += size
            else:
                self._rest = size


def _box_header(data: bytes, at: int) -> tuple[int, bytes]:
    """Size and kind of the box at `at`; size 0 when its header is not whole yet."""
    if len(data) - at < 8:
        return 0, b""
    size, kind = struct.unpack_from(">I4s", data, at)
    if size == 1:
        if len(data) - at < 16:
            return 0, b""
        (size,) = struct.unpack_from(">Q", data, at + 8)
    return size, kind


def shift_decode_times(moof: bytearray, shift_of: Callable[[int], int]) -> None:
    """Add each track's shift to the `tfdt` boxes of one whole moof, in place."""
    for kind, start, end in boxes(moof, 8, len(moof)):
        if kind != b"traf":
            continue
        track = 0
        for inner, at, _ in boxes(moof, start, end):
            if inner == b"tfhd":
                (track,) = struct.unpack_from(">I", moof, at + 4)
            elif inner == b"tfdt" and (shift := shift_of(track)):
                form = ">Q" if moof[at] == 1 else ">I"
                (time,) = struct.unpack_from(form, moof, at + 4)
                struct.pack_into(form, moof, at + 4, time + shift)


def shift_contents(mfra: bytearray, shift_of: Callable[[int], int], moved: int) -> None:
    """Add each track's shift to the times of its `tfra`, and `moved` to the places of its fragments, in place."""
    for kind, start, end in boxes(mfra, 8, len(mfra)):
        if kind != b"tfra":
            continue
        track, lengths, count = struct.unpack_from(">III", mfra, start + 4)
        form = ">QQ" if mfra[start] == 1 else ">II"
        row_bytes = struct.calcsize(form) + 3 + (lengths & 3) + (lengths >> 2 & 3) + (lengths >> 4 & 3)
        shift = shift_of(track)
        for at in range(start + 16, min(start + 16 + count * row_bytes, end), row_bytes):
            time, place = struct.unpack_from(form, mfra, at)
            struct.pack_into(form, mfra, at, time + shift, place + moved)
