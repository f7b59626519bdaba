"""G.711 by tables: the same PCM as libav's."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import pytest

from msrecd.codecs.g711 import G711, pcm_of_g711


@pytest.mark.parametrize("codec", G711)
@pytest.mark.promise("g711-by-tables")
def test_every_code_is_what_libav_makes_of_it(codec: str) -> None:
    codes = bytes(range(256))
    decoder = av.CodecContext.create(codec, "r")
    decoder.sample_rate, decoder.layout, decoder.format = 8000, "mono", "s16"  # type: ignore[attr-defined]
    packet = av.Packet(codes)
    packet.time_base = Fraction(1, 8000)
    frames = decoder.decode(packet)  # type: ignore[attr-defined]
    made = io.BytesIO()
    for frame in frames:
        made.write(bytes(memoryview(frame.planes[0]))[: frame.samples * 2])
    assert pcm_of_g711(codes, codec) == made.getvalue()
