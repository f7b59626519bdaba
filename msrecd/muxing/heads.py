"""What stands at the beginning of a file, corrected where libav cannot be told: how its frames are shown, and room for
what is known only at the end. Pure.

MP4: the matrix and the size in `tkhd` (ISO/IEC 14496-12, 8.3.2), and `mehd` (8.8.2) where the length is known.
Matroska and WebM: `DisplayWidth`, `DisplayHeight` and `ProjectionPoseRoll` of the track, the duration or a free place
for it, and one for where the cues are (RFC 9559).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import gcd

from msrecd.clock import NS
from msrecd.flow.encoded import StreamParameters
from msrecd.flow.units import Presentation, Rotation
from msrecd.muxing import ebml
from msrecd.muxing.boxes import HEADER_BYTES, boxes, find_box

DURATION_BYTES = 11  # of the element that `finish` writes over the free place
SEEK_ROOM_BYTES = 64
MEHD_BYTES = 20

_ONE, _MINUS_ONE = 1 << 16, -(1 << 16)
_MATRIX_SIZE_BYTES = 36
_RATIO = 3  # DisplayUnit


def with_presentation(
    muxer: str, head: bytes, streams: Sequence[StreamParameters], duration_ns: int | None = None
) -> bytes:
    """The head that libav wrote for these streams, saying what else there is to say of them.

    Args:
        duration_ns: of the whole file, where it is known already.
    """
    presentations = [stream.presentation for stream in streams]
    if muxer == "mp4":
        shown = _mp4(head, presentations)
        return shown if duration_ns is None else with_movie_length(shown, duration_ns)
    if muxer in ("matroska", "webm"):
        return _matroska(head, presentations, duration_ns)
    return head


# --- MP4 -------------------------------------------------------------------------------------------------------------


def _mp4(head: bytes, presentations: Sequence[Presentation]) -> bytes:
    changed = bytearray(head)
    for kind, begin, end in boxes(changed, 0, len(changed)):
        if kind == b"moov":
            tracks = [(start, stop) for inner, start, stop in boxes(changed, begin, end) if inner == b"trak"]
            for (start, stop), presentation in zip(tracks, presentations, strict=False):
                for inner, at, _ in boxes(changed, start, stop):
                    if inner == b"tkhd":
                        _present(changed, at, presentation)
    return bytes(changed)


def with_movie_length(head: bytes, duration_ns: int) -> bytes:
    """A head with `mehd` as the first box of its `mvex`; longer by MEHD_BYTES, or unchanged where it has none."""
    moov = next(((begin, end) for kind, begin, end in boxes(head) if kind == b"moov"), None)
    mvhd, mvex = (None, None) if moov is None else (find_box(head, *moov, kind) for kind in (b"mvhd", b"mvex"))
    if moov is None or mvhd is None or mvex is None:
        return head
    (scale,) = struct.unpack_from(">I", head, mvhd[0] + (20 if head[mvhd[0]] == 1 else 12))
    changed = bytearray(head)
    for begin, end in (moov, mvex):
        struct.pack_into(">I", changed, begin - HEADER_BYTES, end - begin + HEADER_BYTES + MEHD_BYTES)
    changed[mvex[0] : mvex[0]] = struct.pack(">I4sIQ", MEHD_BYTES, b"mehd", 1 << 24, round(duration_ns * scale / NS))
    return bytes(changed)


def _present(data: bytearray, at: int, presentation: Presentation) -> None:
    """Write into the `tkhd` whose content begins at `at`."""
    matrix_at = at + (52 if data[at] == 1 else 40)
    size_at = matrix_at + _MATRIX_SIZE_BYTES
    width, height = struct.unpack_from(">II", data, size_at)
    horizontal, vertical = presentation.pixel_aspect
    if horizontal != vertical:
        width = min((1 << 32) - 1, width * horizontal // vertical)
        struct.pack_into(">I", data, size_at, width)
    if presentation.rotation:
        struct.pack_into(">9i", data, matrix_at, *display_matrix(presentation.rotation, width, height))


def display_matrix(rotation: Rotation, width: int, height: int) -> tuple[int, ...]:
    """The nine numbers by which a frame of this size (16.16) is turned clockwise, its corner at 0 again."""
    a, b, c, d, x, y = {
        0: (_ONE, 0, 0, _ONE, 0, 0),
        90: (0, _ONE, _MINUS_ONE, 0, height, 0),
        180: (_MINUS_ONE, 0, 0, _MINUS_ONE, width, height),
        270: (0, _MINUS_ONE, _ONE, 0, 0, width),
    }[rotation]
    return a, b, 0, c, d, 0, x, y, 1 << 30


# --- Matroska --------------------------------------------------------------------------------------------------------


def _matroska(head: bytes, presentations: Sequence[Presentation], duration_ns: int | None) -> bytes:
    """EBML header, segment of unknown size, and its first elements anew; unchanged when it is something else."""
    first = ebml.element_header(head, 0)
    if first is None or first[0] != ebml.HEADER or first[2] is None:
        return head
    segment_at = first[1] + first[2]
    segment = ebml.element_header(head, segment_at)
    if segment is None or segment[0] != ebml.SEGMENT:
        return head
    rest = bytearray()
    places: list[tuple[int, int]] = []
    for id, content in ebml.elements(head[segment[1] :]):
        if id in (ebml.SEEK_HEAD, ebml.VOID, ebml.CRC32):
            continue  # written anew: what they say of places and sums is no longer so
        places.append((id, len(rest)))
        if id == ebml.INFO:
            rest += ebml.element(id, _without_crc(content) + _duration(content, duration_ns))
        elif id == ebml.TRACKS:
            rest += ebml.element(id, _tracks(content, presentations))
        else:
            rest += ebml.element(id, content)
    room = seek_head(places)
    offset = len(room) + SEEK_ROOM_BYTES
    room = seek_head([(id, at + offset) for id, at in places])
    return head[:segment_at] + head[segment_at : segment[1]] + room + ebml.void(SEEK_ROOM_BYTES) + bytes(rest)


def seek_head(places: Sequence[tuple[int, int]]) -> bytes:
    """Where the elements of a segment are, from the begin of its content; as long for every place."""
    seeks = b"".join(
        ebml.element(
            ebml.SEEK,
            ebml.element(ebml.SEEK_ID, id.to_bytes((id.bit_length() + 7) // 8, "big"))
            + ebml.unsigned(ebml.SEEK_POSITION, at, bytes=8),
        )
        for id, at in places
    )
    return ebml.element(ebml.SEEK_HEAD, seeks, size_bytes=8)


def _duration(info: bytes, duration_ns: int | None) -> bytes:
    """The element of this length, or the free place for it."""
    if duration_ns is None:
        return ebml.void(DURATION_BYTES)
    scale = dict(ebml.elements(info)).get(ebml.TIMESTAMP_SCALE)
    ticks = duration_ns / (int.from_bytes(scale, "big") if scale else ebml.USUAL_SCALE_NS)
    return ebml.element(ebml.DURATION, struct.pack(">d", ticks))


def _without_crc(content: bytes) -> bytes:
    return b"".join(ebml.element(id, inner) for id, inner in ebml.elements(content) if id != ebml.CRC32)


def _tracks(content: bytes, presentations: Sequence[Presentation]) -> bytes:
    tracks, number = b"", 0
    for id, inner in ebml.elements(content):
        if id == ebml.CRC32:
            continue
        if id == ebml.TRACK_ENTRY and number < len(presentations):
            inner = _entry(inner, presentations[number])
            number += 1
        tracks += ebml.element(id, inner)
    return tracks


def _entry(content: bytes, presentation: Presentation) -> bytes:
    return b"".join(
        ebml.element(id, _video(inner, presentation) if id == ebml.VIDEO else inner)
        for id, inner in ebml.elements(content)
    )


def _video(content: bytes, presentation: Presentation) -> bytes:
    known = dict(ebml.elements(content))
    dropped: set[int] = set()
    added = b""
    horizontal, vertical = presentation.pixel_aspect
    if horizontal != vertical and ebml.PIXEL_WIDTH in known:
        width, height = int.from_bytes(known[ebml.PIXEL_WIDTH], "big"), int.from_bytes(known[ebml.PIXEL_HEIGHT], "big")
        dropped |= {ebml.DISPLAY_WIDTH, ebml.DISPLAY_HEIGHT, ebml.DISPLAY_UNIT}
        if width * horizontal % vertical == 0:
            shown = (width * horizontal // vertical, height)
        else:  # no whole number of pixels says it exactly: a ratio does
            divisor = gcd(width * horizontal, height * vertical)
            shown = (width * horizontal // divisor, height * vertical // divisor)
            added += ebml.unsigned(ebml.DISPLAY_UNIT, _RATIO)
        added += ebml.unsigned(ebml.DISPLAY_WIDTH, shown[0]) + ebml.unsigned(ebml.DISPLAY_HEIGHT, shown[1])
    if presentation.rotation:
        dropped.add(ebml.PROJECTION)
        roll = -presentation.rotation if presentation.rotation <= 180 else 360 - presentation.rotation
        added += ebml.element(
            ebml.PROJECTION,
            ebml.unsigned(ebml.PROJECTION_TYPE, 0)
            + b"".join(
                ebml.element(id, struct.pack(">d", angle))
                for id, angle in ((ebml.POSE_YAW, 0.0), (ebml.POSE_PITCH, 0.0), (ebml.POSE_ROLL, float(roll)))
            ),
        )
    return b"".join(ebml.element(id, inner) for id, inner in ebml.elements(content) if id not in dropped) + added
