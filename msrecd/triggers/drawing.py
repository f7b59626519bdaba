"""A drawing of what triggers made of a recording: scores, thresholds and decisions over time, as a PNG file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msrecd.triggers.decide import Sample

WIDTH, BAND_HEIGHT, _MARGIN = 1200, 200, 8
_PAPER, _RULE = (255, 255, 255), (200, 200, 200)
_RECORDED, _EVENT = (225, 240, 225), (160, 210, 160)
_SCORE, _THRESHOLD = (40, 60, 160), (200, 40, 40)


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One trigger: its samples, its events as (begin, end) and what would be recorded of them, in ns."""

    samples: Sequence[Sample]
    events: Sequence[tuple[int, int]]
    recorded: Sequence[tuple[int, int]]


def draw(tracks: Sequence[Track], duration_ns: int) -> NDArray[np.uint8]:
    """A band for each track, (height, width, 3) uint8 RGB: time goes to the right, the score up, on a root scale.

    The score is blue, the threshold red, an event green, what would be recorded around it light green.
    """
    image = np.full((len(tracks) * BAND_HEIGHT, WIDTH, 3), _PAPER, np.uint8)
    for number, track in enumerate(tracks):
        _draw_band(image[number * BAND_HEIGHT : (number + 1) * BAND_HEIGHT], track, max(1, duration_ns))
    return image


def png(image: NDArray[np.uint8]) -> bytes:
    """A PNG file of an image (height, width, 3) (https://www.w3.org/TR/png-3/)."""
    height, width, _ = image.shape
    lines = np.zeros((height, 1 + width * 3), np.uint8)  # each line begins with its filter: none
    lines[:, 1:] = image.reshape(height, width * 3)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )


def _draw_band(band: NDArray[np.uint8], track: Track, duration_ns: int) -> None:
    def column(at_ns: int) -> int:
        return min(WIDTH - 1, max(0, at_ns * (WIDTH - 1) // duration_ns))

    for spans, color in ((track.recorded, _RECORDED), (track.events, _EVENT)):
        for begin, end in spans:
            band[:, column(begin) : column(end) + 1] = color
    bottom = BAND_HEIGHT - _MARGIN
    band[bottom] = _RULE
    highest = max((max(sample.score, sample.threshold) for sample in track.samples), default=1.0) or 1.0

    def row(value: float) -> int:
        return bottom - round((bottom - _MARGIN) * float(np.sqrt(max(0.0, value) / highest)))

    tallest = np.full(WIDTH, bottom)
    for sample in track.samples:
        x = column(sample.at_ns)
        tallest[x] = min(int(tallest[x]), row(sample.score))
        band[row(sample.threshold), x] = _THRESHOLD
    for place in np.flatnonzero(tallest < bottom):
        band[tallest[place] : bottom, place] = _SCORE
    for sample in track.samples:
        band[row(sample.threshold), column(sample.at_ns)] = _THRESHOLD
