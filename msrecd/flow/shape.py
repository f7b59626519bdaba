"""Which part of a frame is used for a size of another shape. Pure.

https://w3c.github.io/mediacapture-main/#dfn-crop-and-scale: a frame is never stretched. Two cases differ: a track
that asked for another shape than its device has is cropped around the middle; a source that changes its shape while it
is recorded is fitted into the first size, with black beside it, for nothing of it may get lost in a file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from msrecd.flow.units import VideoFormat, VideoFrame

Size: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle in a frame's coordinates; one that is larger than the frame has black around it.

    x, y: of the left upper corner, negative outside of the frame; even, as subsampled chroma has it.
    """

    x: int
    y: int
    width: int
    height: int


def same_shape(one: Size, other: Size) -> bool:
    """Whether one is the other scaled, but for the rounding to whole and then to even pixels."""
    (width, height), (large_width, large_height) = (one, other) if one[0] <= other[0] else (other, one)
    return abs(width - large_width * height / large_height) < 2 and abs(height - large_height * width / large_width) < 2


def cropped(frame: Size, shape: Size) -> Window | None:
    """The largest window of that shape in the middle of the frame; None for all of it."""
    if same_shape(frame, shape):
        return None
    width = min(frame[0], max(1, round(frame[1] * shape[0] / shape[1])))
    height = min(frame[1], max(1, round(frame[0] * shape[1] / shape[0])))
    return Window(_even((frame[0] - width) // 2), _even((frame[1] - height) // 2), width, height)


def padded(frame: Size, shape: Size) -> Window | None:
    """The smallest window of that shape around the frame; None for the frame itself."""
    if same_shape(frame, shape):
        return None
    width = max(frame[0], round(frame[1] * shape[0] / shape[1]))
    height = max(frame[1], round(frame[0] * shape[1] / shape[0]))
    return Window(-_even((width - frame[0]) // 2), -_even((height - frame[1]) // 2), width, height)


def _even(number: int) -> int:
    return number & ~1


def reshaped(frame: VideoFrame, shape: Size, *, crops: bool) -> VideoFrame:
    """The part of the frame that has this shape, or the frame with black beside it; scaling is done elsewhere.

    Raises:
        ValueError: see `cut`.
    """
    size = (frame.format.width, frame.format.height)
    window = (cropped if crops else padded)(size, shape)
    return frame if window is None else cut(frame, window)


def cut(frame: VideoFrame, window: Window) -> VideoFrame:
    """What the window shows, as a frame of its own.

    Raises:
        ValueError: the pixel format is neither rgb24 nor yuv420p.
    """
    format = frame.format
    view = memoryview(frame.data).cast("B")
    if format.pixel_format == "rgb24":
        data = _plane(view, _size(format), window, pixel=3, fill=0)
    elif format.pixel_format == "yuv420p":
        width, height = format.width, format.height
        half = (-(-width // 2), -(-height // 2))
        luma, chroma = width * height, half[0] * half[1]
        halved = Window(window.x // 2, window.y // 2, -(-window.width // 2), -(-window.height // 2))
        data = b"".join(
            (
                _plane(view[:luma], (width, height), window, pixel=1, fill=16),
                _plane(view[luma : luma + chroma], half, halved, pixel=1, fill=128),
                _plane(view[luma + chroma : luma + 2 * chroma], half, halved, pixel=1, fill=128),
            )
        )
    else:
        raise ValueError(f"pixel format {format.pixel_format} is neither rgb24 nor yuv420p")
    return replace(frame, format=replace(format, width=window.width, height=window.height), data=data)


def _size(format: VideoFormat) -> Size:
    return format.width, format.height


def _plane(plane: memoryview, size: Size, window: Window, *, pixel: int, fill: int) -> bytes:
    """The window's part of one plane; `pixel` bytes for each of its points, outside of it `fill`."""
    width, height = size
    left, right = max(0, window.x), min(width, window.x + window.width)
    top, bottom = max(0, window.y), min(height, window.y + window.height)
    before = bytes([fill]) * (pixel * (left - window.x))
    after = bytes([fill]) * (pixel * (window.x + window.width - right))
    blank = bytes([fill]) * (pixel * window.width)
    stride = width * pixel
    rows = [blank] * (top - window.y)
    for row in range(top, bottom):
        part = plane[row * stride + left * pixel : row * stride + right * pixel]
        rows.append(b"".join((before, part, after)) if before or after else bytes(part))
    rows.extend([blank] * (window.y + window.height - bottom))
    return b"".join(rows)
