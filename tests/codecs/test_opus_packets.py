"""The length of Opus packets, against libopus itself."""

from __future__ import annotations

import io

import av
import pytest

from msrecd import libav
from msrecd.codecs.opus import packet_samples
from msrecd.flow.units import AudioFormat


@pytest.mark.parametrize("bit_rate", [6_000, 24_000, 128_000])
def test_what_libopus_makes(bit_rate: int) -> None:
    """At these rates it writes SILK, hybrid and CELT packets."""
    encoder = libav.AudioEncoder(codec="opus", source=AudioFormat(sample_rate=48_000, channels=1), bit_rate=bit_rate)
    noise = bytes((index * index * 7919 >> 5) & 0xFF for index in range(2 * 48_000))
    packets = encoder.encode(noise, 0) + encoder.flush()
    encoder.close()
    assert len(packets) >= 50
    assert {packet_samples(packet.data) for packet in packets} == {960}


def test_the_description_of_a_stream_is_the_same_each_time() -> None:
    """It is searched for the encoder's delay: a random number in it would be found instead, once in 1500 times."""
    headers = set()
    for _ in range(5):
        encoder = libav.AudioEncoder(codec="opus", source=AudioFormat(sample_rate=48_000, channels=2), bit_rate=64_000)
        headers.add(encoder.header)
        encoder.close()
    (header,) = headers
    assert header.count(b"\x56\xaa") == 1  # CodecDelay
    with av.open(io.BytesIO(header), format="matroska") as container:
        (stream,) = container.streams
        assert stream.codec_context.name in ("opus", "libopus")
        assert bytes(stream.codec_context.extradata)[:12] == b"OpusHead\x01\x02\0\0"


@pytest.mark.parametrize(
    ("packet", "samples"),
    [
        (b"", 0),
        (bytes([0 << 3]), 480),  # SILK, 10 ms
        (bytes([3 << 3]), 2880),  # SILK, 60 ms
        (bytes([13 << 3 | 1]), 1920),  # hybrid, two of 20 ms
        (bytes([16 << 3 | 2]), 240),  # CELT, two of 2.5 ms
        (bytes([31 << 3 | 3, 0x80 | 6]), 5760),  # CELT, six of 20 ms, padded
        (bytes([31 << 3 | 3]), 0),
    ],
)
def test_every_form(packet: bytes, samples: int) -> None:
    assert packet_samples(packet) == samples
