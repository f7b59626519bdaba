"""How large a JPEG is, told by its frame header (ITU-T T.81, B.2.2). Pure."""

from __future__ import annotations

_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MOST_SEGMENTS = 64


def jpeg_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """(width, height) in pixels; None for what is no JPEG, or is damaged."""
    if len(data) < 4 or data[0] != 0xFF or data[1] != 0xD8:
        return None
    at = 2
    for _ in range(_MOST_SEGMENTS):
        if at + 9 > len(data) or data[at] != 0xFF:
            return None
        if data[at + 1] in _FRAME_HEADERS:
            return data[at + 7] << 8 | data[at + 8], data[at + 5] << 8 | data[at + 6]
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    return None
