"""A DNG of a sensor's raw frame: TIFF 6.0 with the tags of Adobe's Digital Negative 1.4. Pure.

picamera2 writes DNGs with PiDNG, whose release on PyPI (4.0.9) does not take what picamera2 0.3.28 and later give it
(raspberrypi/picamera2#1283), knows no sensor without colour filters, and gives exposures of a second and more as 1/0.
What it takes is little, so it is done here: samples of 16 bits as the camera has put them into memory, one strip.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

MIME_TYPE = "image/x-adobe-dng"
_FORMAT = re.compile(r"(?:S(?P<pattern>[RGB]{4})|R)(?P<bits>8|10|12|14|16)\Z", re.ASCII)
_COLOURS = {"R": 0, "G": 1, "B": 2}
_ORIENTATIONS = {0: 1, 90: 6, 180: 3, 270: 8}
_SRGB_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
_D65 = 21
_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _SRATIONAL = 1, 2, 3, 4, 5, 10
_FORMS = {_BYTE: "B", _SHORT: "H", _LONG: "I"}
Entry = tuple[int, int, int, bytes]  # tag, type, count, value


@dataclass(frozen=True, slots=True, kw_only=True)
class RawFormat:
    """What a name of libcamera says of samples: colours of two by two, line by line (None: no colour filters)."""

    pattern: str | None
    bits: int


def parse_format(name: str) -> RawFormat | None:
    """Of an unpacked format, like SRGGB12 or R10; None of others: packed or compressed ones."""
    match = _FORMAT.match(name)
    return None if match is None else RawFormat(pattern=match["pattern"], bits=int(match["bits"]))


def unpacked(name: str) -> str:
    """The format of the same samples, two bytes each: a Pi 5 then gives 16 bits of each, and does not compress."""
    return name.partition("_")[0]


def make_dng(
    buffer: memoryview,
    *,
    pixel_format: str,
    size: tuple[int, int],
    stride: int,
    metadata: Mapping[str, Any],
    model: str,
    rotation: int = 0,
) -> bytes:
    """
    Args:
        buffer: lines of little-endian samples. stride: bytes from line to line.
        metadata: of the request, by libcamera's names; what is missing in it is left out or neutral.
        model: of the sensor. rotation: degrees clockwise by which the frame must be turned to stand upright.

    Raises:
        ValueError: another format, or a buffer that is too small.
    """
    known = parse_format(pixel_format)
    if known is None or known.bits == 8:
        raise ValueError(f"raw frames in {pixel_format} have no samples of two bytes")
    width, height = size
    if len(buffer) < stride * height or stride < 2 * width:
        raise ValueError(f"a buffer of {len(buffer)} bytes for a raw frame of {width}x{height}")
    levels = [int(level) >> (16 - known.bits) for level in metadata.get("SensorBlackLevels", ())]
    entries = [
        _numbers(254, _LONG, 0),
        _numbers(256, _LONG, width),
        _numbers(257, _LONG, height),
        _numbers(258, _SHORT, 16),
        _numbers(259, _SHORT, 1),  # no compression
        _numbers(262, _SHORT, 34892 if known.pattern is None else 32803),  # linear raw, or a colour filter array
        _text(271, "Raspberry Pi"),
        _text(272, model),
        _numbers(274, _SHORT, _ORIENTATIONS.get(rotation, 1)),
        _numbers(277, _SHORT, 1),
        _numbers(278, _LONG, height),
        _numbers(279, _LONG, 2 * width * height),
        _text(305, "msrecd"),
        _numbers(50706, _BYTE, 1, 4, 0, 0),
        _numbers(50707, _BYTE, 1, 1, 0, 0),
        _text(50708, model),
        _numbers(50717, _LONG, (1 << known.bits) - 1),
    ]
    if (exposure_us := metadata.get("ExposureTime")) is not None:
        entries.append(_rationals(33434, _RATIONAL, [Fraction(int(exposure_us), 1_000_000)]))
    gain = float(metadata.get("AnalogueGain", 1.0)) * float(metadata.get("DigitalGain", 1.0))
    entries.append(_numbers(34855, _SHORT, max(1, min(65535, round(100 * gain)))))
    if known.pattern is None:
        entries += [_numbers(50713, _SHORT, 1, 1), *([_numbers(50714, _LONG, levels[0])] if levels else [])]
    else:
        entries += _colours(known.pattern, metadata)
        entries += [_numbers(50713, _SHORT, 2, 2), *([_numbers(50714, _LONG, *levels)] if len(levels) == 4 else [])]
    lines = (buffer[row * stride : row * stride + 2 * width] for row in range(height))
    return b"".join((_head(entries), *lines))


def _colours(pattern: str, metadata: Mapping[str, Any]) -> list[Entry]:
    """From camera to XYZ: white balance, the sensor's matrix, sRGB. ColorMatrix1 is the way back."""
    red, blue = (float(gain) for gain in metadata.get("ColourGains", (1.0, 1.0)))
    matrix = [float(value) for value in metadata.get("ColourCorrectionMatrix", _IDENTITY)]
    correction = [matrix[row : row + 3] for row in (0, 3, 6)]
    gains = [[red or 1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, blue or 1.0]]
    to_camera = _inverse(_product(_product(_SRGB_TO_XYZ, correction), gains))
    neutral = [Fraction(1.0 / (red or 1.0)), Fraction(1), Fraction(1.0 / (blue or 1.0))]
    return [
        _numbers(33421, _SHORT, 2, 2),
        _numbers(33422, _BYTE, *(_COLOURS[colour] for colour in pattern)),
        _rationals(50721, _SRATIONAL, [Fraction(value) for line in to_camera for value in line]),
        _rationals(50728, _RATIONAL, neutral),
        _numbers(50778, _SHORT, _D65),
    ]


def _head(entries: Sequence[Entry]) -> bytes:
    """All of the file but its samples, which follow."""
    entries = sorted([*entries, _numbers(273, _LONG, 0)])
    at = 8 + 2 + 12 * len(entries) + 4
    values = b""
    places = []
    for _, _, _, value in entries:
        places.append(at + len(values))
        if len(value) > 4:
            values += value + bytes(len(value) % 2)
    samples_at = at + len(values)
    table = struct.pack("<H", len(entries))
    for (tag, kind, count, value), place in zip(entries, places, strict=True):
        if tag == 273:
            value = struct.pack("<I", samples_at)
        table += struct.pack("<HHI", tag, kind, count)
        table += value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", place)
    return b"II*\0" + struct.pack("<I", 8) + table + bytes(4) + values


def _numbers(tag: int, kind: int, *values: int) -> Entry:
    return tag, kind, len(values), struct.pack(f"<{len(values)}{_FORMS[kind]}", *values)


def _text(tag: int, text: str) -> Entry:
    data = text.encode("ascii", "replace") + b"\0"
    return tag, _ASCII, len(data), data


def _rationals(tag: int, kind: int, values: Sequence[Fraction]) -> Entry:
    form = "<iI" if kind == _SRATIONAL else "<II"  # denominators are positive
    fractions = [value.limit_denominator(1_000_000) for value in values]
    return tag, kind, len(values), b"".join(struct.pack(form, *value.as_integer_ratio()) for value in fractions)


Matrix = Sequence[Sequence[float]]


def _product(left: Matrix, right: Matrix) -> list[list[float]]:
    return [[sum(line[i] * right[i][column] for i in range(3)) for column in range(3)] for line in left]


def _inverse(matrix: Matrix) -> list[list[float]]:
    """
    Raises:
        ValueError: there is none.
    """
    (a, b, c), (d, e, f), (g, h, i) = matrix
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    if abs(determinant) < 1e-9:
        raise ValueError("the camera's colour matrix has no inverse")
    adjugate = (
        (e * i - f * h, c * h - b * i, b * f - c * e),
        (f * g - d * i, a * i - c * g, c * d - a * f),
        (d * h - e * g, b * g - a * h, a * e - b * d),
    )
    return [[value / determinant for value in line] for line in adjugate]
