"""Frames between packed planes, libav's frames and JPEG."""

from __future__ import annotations

from typing import cast

from av.video.frame import VideoFrame as _AVVideoFrame

from msrecd.flow.units import VideoFormat
from msrecd.libav.colors import converted, decoded_colors, mark
from msrecd.libav.encoders import VideoEncoder
from msrecd.libav.values import LibavError


def picture(format: VideoFormat, data: bytes | bytearray | memoryview) -> _AVVideoFrame:
    """A libav frame of packed planes."""
    frame = _AVVideoFrame(format.width, format.height, format.pixel_format)
    mark(frame, format.presentation)
    view = memoryview(data)
    offset = 0
    for plane in frame.planes:
        if format.pixel_format == "rgb24":
            row, rows = format.width * 3, format.height
        else:
            row, rows = plane.width, plane.height
        part = view[offset : offset + row * rows]
        offset += row * rows
        if plane.line_size == row and plane.buffer_size == row * rows:
            plane.update(cast(bytes, part))
        else:
            edge = 3 if format.pixel_format == "rgb24" else 1  # older scalers look at the pixel behind an odd row
            times = -(-(plane.line_size - row) // edge)
            lines = (bytes(part[i : i + row]) for i in range(0, row * rows, row))
            padded = b"".join((line + line[-edge:] * times)[: plane.line_size] for line in lines)
            plane.update(padded + bytes(max(0, plane.buffer_size - len(padded))))
    return frame


def planes(frame: _AVVideoFrame, pixel_format: str, *, size: tuple[int, int] | None = None) -> bytes:
    """The packed planes of a libav frame, converted to `pixel_format` and scaled to `size` (width, height).

    "yuv420p" has the limited range, whatever range the frame has.
    """
    frame = converted(frame, pixel_format, *(size or (frame.width, frame.height)))
    parts = []
    for plane in frame.planes:
        row = frame.width * 3 if pixel_format == "rgb24" else plane.width
        rows = frame.height if pixel_format == "rgb24" else plane.height
        view = memoryview(plane)
        if plane.line_size == row:
            parts.append(bytes(view[: row * rows]))
        else:
            parts.extend(bytes(view[i * plane.line_size : i * plane.line_size + row]) for i in range(rows))
    return b"".join(parts)


def planes_into(frame: _AVVideoFrame, buffer: memoryview) -> int:
    """Write the packed planes of a frame as "yuv420p" of limited range; how many bytes.

    Raises:
        ValueError: the buffer is too small for them.
    """
    frame = converted(frame, "yuv420p", frame.width, frame.height)
    at = 0
    for plane in frame.planes:
        row, rows = plane.width, plane.height
        view = memoryview(plane)
        if plane.line_size == row:
            buffer[at : at + row * rows] = view[: row * rows]
            at += row * rows
            continue
        for line in range(rows):
            buffer[at : at + row] = view[line * plane.line_size : line * plane.line_size + row]
            at += row
    return at


def jpeg(frame: _AVVideoFrame, *, max_width: int = 1920) -> bytes:
    """A JPEG file of one frame, scaled down to `max_width`."""
    width = min(frame.width, max_width) & ~1
    height = (frame.height * width // frame.width) & ~1
    encoder = VideoEncoder(codec="mjpeg", width=width, height=height, frame_rate=25, bit_rate=0, threads=1)
    try:
        packets = encoder.encode(frame, 0, key_frame=True) + encoder.flush()
    finally:
        encoder.close()
    if not packets:
        raise LibavError("the JPEG encoder gave nothing")
    return packets[0].data


__all__ = ["decoded_colors", "jpeg", "picture", "planes", "planes_into"]
