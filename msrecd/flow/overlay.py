"""Text that is drawn into raw frames before they are encoded, with a small font of its own.

It is drawn line by line into a copy of the frame, or into the buffer that a camera's own encoder reads: no numpy, and
no libavfilter, whose drawtext the library's wheels do not have. Only the box around the text changes: light letters on
black.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    if form.pixel_format not in ("yuv420p", "rgb24"):
        return frame
    box = _Box.of(overlay, frame.pts_ns, form.width, form.height)
    if box is None:
        return frame
    data = bytearray(frame.data)
    if form.pixel_format == "rgb24":
        _draw_letters(data, box, stride=form.width * 3, pixel=3)
        return replace(frame, data=data)
    half, rows = -(-form.width // 2), -(-form.height // 2)
    size = form.width * form.height
    _draw_letters(data, box, stride=form.width, pixel=1)
    _draw_grey(data, box, planes=(size, size + half * rows), stride=half)
    return replace(frame, data=data)


def draw_into(
    buffer: memoryview | bytearray, *, width: int, height: int, stride: int, overlay: Overlay, pts_ns: int
) -> None:
    """Draw into a camera's buffer itself: yuv420p with lines of `stride` bytes, those of chroma half as long."""
    box = _Box.of(overlay, pts_ns, width, height)
    if box is not None:
        chroma = stride * height
        _draw_letters(buffer, box, stride=stride, pixel=1)
        _draw_grey(buffer, box, planes=(chroma, chroma + stride // 2 * (height // 2)), stride=stride // 2)


@dataclass(frozen=True, slots=True)
class _Box:
    """What is drawn, and where."""

    text: str
    scale: int
    x: int
    y: int
    across: int
    down: int

    @classmethod
    def of(cls, overlay: Overlay, pts_ns: int, width: int, height: int) -> _Box | None:
        """None: there is nothing to draw, or no room."""
        scale = max(1, round(height / 240))
        text = overlay.text(pts_ns).upper()[: max(0, (width - 2) // (_ACROSS * scale))]
        across, down = len(text) * _ACROSS * scale & ~1, _DOWN * scale & ~1
        if not text or height < down or across < 2:
            return None
        x = 0 if overlay.position.endswith("left") else (width - across) & ~1
        y = 0 if overlay.position.startswith("top") else (height - down) & ~1
        return cls(text, scale, x, y, across, down)


def _draw_letters(data: memoryview | bytearray, box: _Box, *, stride: int, pixel: int) -> None:
    cells = (_cell(char, box.scale, pixel == 3) for char in box.text)
    lines = [b"".join(rows) for rows in zip(*cells, strict=True)]
    for number, line in enumerate(lines[: box.down]):
        at = (box.y + number) * stride + box.x * pixel
        data[at : at + box.across * pixel] = line[: box.across * pixel]


def _draw_grey(data: memoryview | bytearray, box: _Box, *, planes: tuple[int, int], stride: int) -> None:
    grey = bytes((_GREY,)) * (box.across // 2)
    for plane in planes:
        for number in range(box.y // 2, (box.y + box.down) // 2):
            at = plane + number * stride + box.x // 2
            data[at : at + box.across // 2] = grey


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
