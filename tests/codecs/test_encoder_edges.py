"""The sizes and rates that encoders take: whatever is asked for, the one that is opened encodes."""

from __future__ import annotations

from itertools import product

import pytest

from msrecd import libav
from msrecd.clock import NS
from msrecd.codecs.table import can_encode
from msrecd.codecs.video import OPTIONS, encoded_rate, encoded_size, threads_for

CODECS = ["h264", "hevc", "vp8", "vp9", "av1", "mjpeg"]
SIDES = [1, 2, 3, 15, 16, 17, 62, 63, 64, 65]
RATES = [1 / 86_400, 1 / 3600, 1 / 60, 0.5, 29.97, 240, 241, 1000, 4000]


def encode(codec: str, size: tuple[int, int], rate: float) -> int:
    """How many packets three frames become."""
    width, height = size
    encoder = libav.VideoEncoder(
        codec=codec, width=width, height=height, frame_rate=rate, bit_rate=500_000, options=OPTIONS.get(codec),
        threads=threads_for(codec, width, height),
    )  # fmt: skip
    try:
        chroma = -(-width // 2) * -(-height // 2)
        frame = libav.picture(_format(width, height), bytes(width * height) + bytes([128]) * (2 * chroma))
        packets = sum(len(encoder.encode(frame, n * NS // 30, key_frame=n == 0)) for n in range(3))
        return packets + len(encoder.flush())
    finally:
        encoder.close()


def _format(width: int, height: int) -> object:
    from msrecd.flow.units import VideoFormat

    return VideoFormat(width=width, height=height, frame_rate=30.0)


@pytest.mark.parametrize("codec", [codec for codec in CODECS if can_encode(codec) or libav.encoder_for(codec)])
def test_every_size_and_rate_is_encoded(codec: str) -> None:
    sizes = {encoded_size(codec, *size) for size in [*product(SIDES, [64, 640]), *((s, s) for s in SIDES)]}
    for size in sorted(sizes):
        assert encode(codec, size, 30.0) == 3, size
    for rate in RATES:
        assert encode(codec, encoded_size(codec, 64, 64), encoded_rate(codec, rate)) == 3, rate


@pytest.mark.parametrize(("codec", "least"), [("hevc", 16), ("av1", 64)])
def test_the_least_size_is_no_larger_than_it_must_be(codec: str, least: int) -> None:
    """Of the encoders at hand: one that takes less is to be given less."""
    assert encoded_size(codec, 1, 640) == (least, 640)
    assert encoded_size(codec, 640, 1) == (640, least)


def test_what_fits_is_left_alone() -> None:
    for codec in CODECS:
        assert encoded_size(codec, 640, 480) == (640, 480)
        assert encoded_rate(codec, 29.97) == 29.97
