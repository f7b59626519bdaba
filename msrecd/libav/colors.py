"""What libav knows of how frames are shown: ranges, colours, the shape of pixels."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import av.error
from av.video.frame import VideoFrame as _AVVideoFrame

from msrecd.flow.units import UNSPECIFIED, Presentation
from msrecd.libav.values import LibavError

_LIMITED, _FULL = 1, 2  # AVColorRange
_CODES = {"limited": _LIMITED, "full": _FULL}
_BT470BG = 5  # the matrix of JPEG


def encoded_presentation(source: Presentation, codec: str) -> Presentation:
    """What an encoder's stream says of frames that came so: JPEG has the full range, everything else the limited one.

    A range is named only where the source named one: a bitstream that says nothing is shown as limited by every player.
    """
    if codec == "mjpeg":
        return replace(source, color_range="full")
    return source if source.color_range is None else replace(source, color_range="limited")


def describe(context: Any, presentation: Presentation) -> None:
    """Write into a codec context what an encoder or a muxer is to say; call before it is opened."""
    if presentation.color_range is not None:
        context.color_range = _CODES[presentation.color_range]
    if presentation.color_primaries != UNSPECIFIED:
        context.color_primaries = presentation.color_primaries
    if presentation.color_transfer != UNSPECIFIED:
        context.color_trc = presentation.color_transfer
    if presentation.color_matrix != UNSPECIFIED:
        context.colorspace = presentation.color_matrix
    if presentation.pixel_aspect != (1, 1):
        context.sample_aspect_ratio = Fraction(*presentation.pixel_aspect)


def mark(frame: _AVVideoFrame, presentation: Presentation) -> None:
    """Write into a frame how its samples are meant."""
    if presentation.color_range is not None:
        frame.color_range = _CODES[presentation.color_range]
    if presentation.color_matrix != UNSPECIFIED:
        frame.colorspace = presentation.color_matrix


def is_full_range(frame: _AVVideoFrame) -> bool:
    name = frame.format.name
    return name.startswith(("yuvj", "rgb", "bgr", "gbr")) or int(frame.color_range) == _FULL


def converted(frame: _AVVideoFrame, pixel_format: str, width: int, height: int) -> _AVVideoFrame:
    """The frame in this size and format; between the ranges the samples are converted, never only relabelled.

    `pixel_format` says the range wanted: libav's yuvj formats and RGB the full one, other YUV the limited one.
    """
    from_full, to_full = is_full_range(frame), pixel_format.startswith(("yuvj", "rgb"))
    same_format = frame.format.name == pixel_format
    if same_format and from_full == to_full and (frame.width, frame.height) == (width, height):
        return frame
    if from_full and pixel_format.startswith("yuvj") and frame.format.name.startswith("yuv"):
        # PyAV before 15 takes one side of such a change for limited: only the label may change.
        plain = _relabelled(frame, _plain(frame.format.name))
        return _relabelled(_reformatted(plain, width, height, _plain(pixel_format), True, True), pixel_format)
    if same_format and from_full != to_full:  # PyAV before 15 looks at the format alone and would give it back as it is
        frame = _reformatted(frame, frame.width, frame.height, "yuv444p", from_full, from_full)
    return _reformatted(frame, width, height, pixel_format, from_full, to_full)


def _plain(pixel_format: str) -> str:
    """The same layout of samples without a word on their range."""
    return pixel_format.replace("yuvj", "yuv", 1)


def _relabelled(frame: _AVVideoFrame, pixel_format: str) -> _AVVideoFrame:
    """The same samples, of the full range, under another name of their layout."""
    if frame.format.name == pixel_format:
        return frame
    made = _AVVideoFrame(frame.width, frame.height, pixel_format)
    for source, target in zip(frame.planes, made.planes, strict=True):
        rows, wanted = memoryview(source).cast("B"), memoryview(target).cast("B")
        width = min(source.line_size, target.line_size)
        for row in range(target.height):
            begin = row * target.line_size
            wanted[begin : begin + width] = rows[row * source.line_size :][:width]
    made.color_range = _FULL
    made.colorspace = frame.colorspace
    made.pts = frame.pts
    if frame.time_base is not None:
        made.time_base = frame.time_base
    return made


def _reformatted(
    frame: _AVVideoFrame, width: int, height: int, pixel_format: str, from_full: bool, to_full: bool
) -> _AVVideoFrame:
    ranges = (_FULL if from_full else _LIMITED, _FULL if to_full else _LIMITED)

    def scaled() -> _AVVideoFrame:
        return frame.reformat(
            width=width, height=height, format=pixel_format, src_color_range=ranges[0], dst_color_range=ranges[1]
        )

    try:
        made = scaled()
    except av.error.FFmpegError:  # a matrix that libav has a number for and cannot convert: without its name it can
        matrix, frame.colorspace = frame.colorspace, UNSPECIFIED
        try:
            made = scaled()
        except av.error.FFmpegError as exc:
            raise LibavError(f"frames of {frame.format.name} cannot be converted: {exc.strerror}") from exc
        made.colorspace = matrix
    made.color_range = _FULL if to_full else _LIMITED
    return made


def decoded_colors(frame: _AVVideoFrame) -> tuple[bool, int]:
    """(whether its range is the full one, its matrix) of a decoded frame, before `planes` makes it limited."""
    matrix = int(frame.colorspace)
    if matrix == UNSPECIFIED and frame.format.name.startswith("yuvj"):
        matrix = _BT470BG
    return is_full_range(frame), matrix & 0xFF


def presentation_of_stream(stream: Any) -> Presentation:
    """What a container and libav's probing say of a video stream."""
    context = stream.codec_context
    aspect = stream.sample_aspect_ratio or context.sample_aspect_ratio
    return Presentation(
        pixel_aspect=_pixels(aspect),
        color_range={_LIMITED: "limited", _FULL: "full"}.get(int(context.color_range)),  # type: ignore[arg-type]
        color_primaries=_code(context.color_primaries),
        color_transfer=_code(context.color_trc),
        color_matrix=_code(context.colorspace),
    )


def presentation_in(frame: _AVVideoFrame, decoder: Any, known: Presentation) -> Presentation:
    """What a decoded frame adds to what its container says: its turn, and what the bitstream says of colours.

    decoder: the codec context that gave it; before PyAV 15 a frame does not say its primaries and its transfer.
    """
    color_range = known.color_range
    if color_range is None and (int(frame.color_range) == _FULL or frame.format.name.startswith("yuvj")):
        color_range = "full"
    elif color_range is None and int(frame.color_range) == _LIMITED:
        color_range = "limited"
    turn = round(-frame.rotation / 90) * 90 % 360  # libav counts counter-clockwise
    return replace(
        known,
        rotation=turn,  # type: ignore[arg-type]
        color_range=color_range,
        color_primaries=_first_named(
            known.color_primaries, int(getattr(frame, "color_primaries", decoder.color_primaries))
        ),
        color_transfer=_first_named(known.color_transfer, int(getattr(frame, "color_trc", decoder.color_trc))),
        color_matrix=_first_named(known.color_matrix, int(frame.colorspace)),
    )


def _pixels(aspect: Fraction | None) -> tuple[int, int]:
    """A shape that can be meant; damaged headers have others."""
    if aspect is None or not Fraction(1, 20) < aspect < 20:
        return (1, 1)
    short = aspect.limit_denominator(10_000)
    return (short.numerator, short.denominator)


def _code(value: int) -> int:
    return UNSPECIFIED if int(value) == 0 else int(value)


def _first_named(known: int, found: int) -> int:
    return known if known != UNSPECIFIED else _code(found)
