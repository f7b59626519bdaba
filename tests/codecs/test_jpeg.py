"""The size of a JPEG by its frame header; what is none or damaged gives none and does no harm."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest

from msrecd.codecs.jpeg import jpeg_size


def jpeg(width: int, height: int) -> bytes:
    codec: Any = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height, codec.pix_fmt, codec.time_base = width, height, "yuvj420p", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 99, np.uint8), format="rgb24")
    return bytes(codec.encode(frame.reformat(format="yuvj420p"))[0])


@pytest.mark.parametrize("size", [(160, 120), (1920, 1080), (16, 4000)])
def test_its_size(size: tuple[int, int]) -> None:
    plain = jpeg(*size)
    exif = b"\xff\xe1\xea\x60" + b"\xff\xc0" * 29_999  # looks like frame headers
    assert jpeg_size(plain) == size
    assert jpeg_size(memoryview(plain[:2] + exif + plain[2:])) == size


def test_what_has_none() -> None:
    plain = jpeg(160, 120)
    for data in (b"", b"\xff\xd8", plain[1:], plain[:20], b"\xff\xd8" + b"\xff\xe0\x00\x02" * 9999):
        assert jpeg_size(data) is None
    chance = random.Random(1)
    for _ in range(2000):
        made = bytearray(plain[:700])
        for _ in range(5):
            made[chance.randrange(len(made))] = chance.randrange(256)
        jpeg_size(bytes(made[: chance.randrange(len(made))]))
