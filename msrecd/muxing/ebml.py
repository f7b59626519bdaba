"""EBML elements (RFC 8794) as Matroska and WebM use them (RFC 9559). Pure."""

from __future__ import annotations

from collections.abc import Iterator

HEADER, SEGMENT, CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
SEEK_HEAD, SEEK, SEEK_ID, SEEK_POSITION = 0x114D9B74, 0x4DBB, 0x53AB, 0x53AC
INFO, TRACKS, CUES = 0x1549A966, 0x1654AE6B, 0x1C53BB6B
TIMESTAMP_SCALE, DURATION = 0x2AD7B1, 0x4489
TRACK_ENTRY, TRACK_NUMBER, TRACK_TYPE, VIDEO, AUDIO = 0xAE, 0xD7, 0x83, 0xE0, 0xE1
DEFAULT_DURATION = 0x23E383
PIXEL_WIDTH, PIXEL_HEIGHT = 0xB0, 0xBA
DISPLAY_WIDTH, DISPLAY_HEIGHT, DISPLAY_UNIT = 0x54B0, 0x54BA, 0x54B2
PROJECTION, PROJECTION_TYPE, POSE_YAW, POSE_PITCH, POSE_ROLL = 0x7670, 0x7671, 0x7673, 0x7674, 0x7675
TIMESTAMP, SIMPLE_BLOCK, BLOCK_GROUP, BLOCK, BLOCK_DURATION = 0xE7, 0xA3, 0xA0, 0xA1, 0x9B
REFERENCE_BLOCK = 0xFB
CUE_POINT, CUE_TIME, CUE_TRACK_POSITIONS, CUE_TRACK, CUE_CLUSTER_POSITION = 0xBB, 0xB3, 0xB7, 0xF7, 0xF1
VOID, CRC32 = 0xEC, 0xBF

USUAL_SCALE_NS = 1_000_000  # of a tick, where a segment does not say it


def element_header(data: bytes, at: int) -> tuple[int, int, int | None] | None:
    """(id, begin of the content, its size or None for an unknown one) of the element at `at`; None: not whole."""
    if at >= len(data) or not data[at]:
        return None
    id_length = 9 - data[at].bit_length()
    size_at = at + id_length
    if id_length > 4 or size_at >= len(data) or not data[size_at]:
        return None
    size_length = 9 - data[size_at].bit_length()
    begin = size_at + size_length
    if begin > len(data):
        return None
    size = int.from_bytes(data[size_at:begin], "big") & ((1 << 7 * size_length) - 1)
    return int.from_bytes(data[at:size_at], "big"), begin, None if size == (1 << 7 * size_length) - 1 else size


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(id, content) of the elements that are whole in `data`."""
    at = 0
    while (header := element_header(data, at)) is not None:
        id, begin, size = header
        if size is None or begin + size > len(data):
            return
        yield id, data[begin : begin + size]
        at = begin + size


def element(id: int, content: bytes, *, size_bytes: int = 0) -> bytes:
    """An element; its size takes as few bytes as it needs, or `size_bytes`."""
    length = size_bytes or next(n for n in range(1, 9) if len(content) < (1 << 7 * n) - 1)
    size = (1 << 7 * length | len(content)).to_bytes(length, "big")
    return id.to_bytes((id.bit_length() + 7) // 8, "big") + size + content


def unsigned(id: int, value: int, *, bytes: int = 0) -> bytes:
    return element(id, value.to_bytes(bytes or max(1, (value.bit_length() + 7) // 8), "big"))


def void(total: int) -> bytes:
    """An element without meaning that takes `total` bytes (2, or 9 and more)."""
    return element(VOID, bytes(total - 2)) if total < 9 else element(VOID, bytes(total - 9), size_bytes=8)
