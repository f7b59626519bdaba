"""Text that is drawn into raw frames before they are encoded, with a small font of its own.

It is drawn line by line into a copy of the frame: no numpy, and no libavfilter, whose drawtext the library's wheels do
not have. Only the box around the text changes: light letters on black.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from msrecd.flow.encoded import Overlay
from msrecd.flow.units import VideoFrame

_ACROSS, _DOWN = 6, 9  # of a cell: a letter of 5 by 7 with its distance to the next one
_INK, _PAPER, _GREY = 235, 16, 128  # limited range, which all encoders here take
# Five columns of each letter from the left, two hex digits each; the lowest bit is the upper edge.
_COLUMNS = {
    " ": "0000000000", "-": "0808080808", ".": "0060600000", ":": "0036360000", "/": "2010080402", "+": "08083E0808",
    ",": "0050300000", "_": "4040404040", "(": "001C224100", ")": "0041221C00", "#": "147F147F14", "?": "0201510906",
    "0": "3E5149453E", "1": "00427F4000", "2": "4261514946", "3": "2141454B31", "4": "1814127F10", "5": "2745454539",
    "6": "3C4A494930", "7": "0171090503", "8": "3649494936", "9": "064949291E",
    "A": "7E1111117E", "B": "7F49494936", "C": "3E41414122", "D": "7F4141221C", "E": "7F49494941", "F": "7F09090901",
    "G": "3E4149497A", "H": "7F0808087F", "I": "00417F4100", "J": "2040413F01", "K": "7F08142241", "L": "7F40404040",
    "M": "7F020C027F", "N": "7F0408107F", "O": "3E4141413E", "P": "7F09090906", "Q": "3E4151215E", "R": "7F09192946",
    "S": "4649494931", "T": "01017F0101", "U": "3F4040403F", "V": "1F2040201F", "W": "3F4038403F", "X": "6314081463",
    "Y": "0708700807", "Z": "6151494543",
}  # fmt: skip


def drawn(frame: VideoFrame, overlay: Overlay) -> VideoFrame:
    """A copy of the frame with the overlay's text for its capture time; as it is where its format is another one.

    yuv420p and rgb24 are drawn into. Text that is too long for the frame is cut at its end.
    """
    form = frame.format
    width, height = form.width, form.height
    if form.pixel_format not in ("yuv420p", "rgb24"):
        return frame
    scale = max(1, round(height / 240))
    text = overlay.text(frame.pts_ns).upper()[: max(0, (width - 2) // (_ACROSS * scale))]
    across, down = len(text) * _ACROSS * scale & ~1, _DOWN * scale & ~1
    if not text or height < down or across < 2:
        return frame
    x = 0 if overlay.position.endswith("left") else (width - across) & ~1
    y = 0 if overlay.position.startswith("top") else (height - down) & ~1
    data = bytearray(frame.data)
    is_rgb = form.pixel_format == "rgb24"
    lines = [b"".join(rows) for rows in zip(*(_cell(char, scale, is_rgb) for char in text), strict=True)]
    pixel = 3 if is_rgb else 1
    for number, line in enumerate(lines[:down]):
        at = ((y + number) * width + x) * pixel
        data[at : at + across * pixel] = line[: across * pixel]
    if not is_rgb:
        half, rows = -(-width // 2), -(-height // 2)
        grey = bytes((_GREY,)) * (across // 2)
        for plane in (width * height, width * height + half * rows):
            for number in range(y // 2, (y + down) // 2):
                at = plane + number * half + x // 2
                data[at : at + across // 2] = grey
    return replace(frame, data=data)


@lru_cache(maxsize=512)
def _cell(char: str, scale: int, is_rgb: bool) -> tuple[bytes, ...]:
    """The lines of one letter with the paper around it."""
    columns = [0, *bytes.fromhex(_COLUMNS.get(char, _COLUMNS["?"]))]
    lines = []
    for row in range(-1, _DOWN - 1):
        pixels = (_INK if row >= 0 and column >> row & 1 else _PAPER for column in columns)
        line = b"".join(bytes((value,)) * (scale * (3 if is_rgb else 1)) for value in pixels)
        lines += [line] * scale
    return tuple(lines)
