"""Reads a DNG of one uncompressed strip, by the specification (TIFF 6.0, DNG 1.4): nothing of what wrote it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

_FORMS = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 10: "ii"}
_CFA, _LINEAR = 32803, 34892


@dataclass(frozen=True, slots=True, kw_only=True)
class Dng:
    """size: of the frame; pattern: colours of two by two samples, line by line; samples: by line and column."""

    size: tuple[int, int]
    pattern: str | None
    black_levels: list[int]
    white_level: int
    model: str
    exposure_s: float
    iso: int
    orientation: int
    colour_matrix: list[float]
    neutral: list[float]
    samples: np.ndarray[Any, Any]


def read_dng(data: bytes) -> Dng:
    """
    Raises:
        ValueError: it is none, or another kind.
    """
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    magic, at = struct.unpack_from(f"{order}HI", data, 2)
    if magic != 42:
        raise ValueError("no TIFF")
    tags: dict[int, list[Any]] = {}
    (count,) = struct.unpack_from(f"{order}H", data, at)
    for number in range(count):
        place = at + 2 + 12 * number
        tag, kind, length = struct.unpack_from(f"{order}HHI", data, place)
        if tags and tag <= max(tags):
            raise ValueError(f"tag {tag} is out of order")
        form = f"{order}{length}s" if kind == 2 else order + _FORMS[kind] * length
        (pointer,) = struct.unpack_from(f"{order}I", data, place + 8)
        tags[tag] = list(struct.unpack_from(form, data, place + 8 if struct.calcsize(form) <= 4 else pointer))
    if tags[50706][:2] != [1, 4] or tags[259] != [1] or tags[258] != [16] or tags[277] != [1]:
        raise ValueError("no DNG of uncompressed samples of 16 bits")
    if tags[262] not in ([_CFA], [_LINEAR]):
        raise ValueError(f"photometric interpretation {tags[262]}")
    (width,), (height,) = tags[256], tags[257]
    (offset,), (length,) = tags[273], tags[279]
    if offset + length != len(data) or length != 2 * width * height:
        raise ValueError("the strip does not end with the file")
    is_mosaic = tags[262] == [_CFA]
    return Dng(
        size=(width, height),
        pattern="".join("RGB"[colour] for colour in tags[33422]) if is_mosaic else None,
        black_levels=tags[50714],
        white_level=tags[50717][0],
        model=tags[50708][0].rstrip(b"\0").decode(),
        exposure_s=tags[33434][0] / tags[33434][1],
        iso=tags[34855][0],
        orientation=tags[274][0],
        colour_matrix=_fractions(tags.get(50721, [])),
        neutral=_fractions(tags.get(50728, [])),
        samples=np.frombuffer(data, f"{order}u2", width * height, offset).reshape(height, width),
    )


def _fractions(values: list[int]) -> list[float]:
    return [above / below for above, below in zip(values[::2], values[1::2], strict=True)]
