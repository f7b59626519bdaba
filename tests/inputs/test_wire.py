"""What a reading process may say: everything is checked, for it has parsed what came from a network."""

from __future__ import annotations

import json
import random
import socket
import struct
from dataclasses import replace

import pytest

from msrecd.flow.units import Presentation
from msrecd.inputs import wire
from msrecd.libav.values import Demuxed, StreamInfo

NUT = b"nut/multimedia container\0"
VIDEO = StreamInfo(
    index=0, kind="video", codec="h264", extradata=b"\x01abc", header=NUT, width=1920, height=1080, frame_rate=29.97,
    presentation=Presentation(rotation=90, pixel_aspect=(16, 11), color_range="full", color_matrix=5), reorder_depth=2,
)  # fmt: skip
AUDIO = StreamInfo(
    index=1, kind="audio", codec="aac", extradata=b"", header=NUT, sample_rate=48000, channels=6, layout="5.1"
)
OPENED = wire.Description(streams=(VIDEO, AUDIO), is_live=True, times="rtp", skipped=("audio stream 2: nothing",))
BATCH = [
    Demuxed(0, b"key frame", 0, -40, 40, True, 1_700_000_000_000_000_000),
    Demuxed(1, b"", None, None, 0, False),
    Demuxed(0, b"\x00" * 5000, -5, None, 40, False, None, True, units=(3000, 1992)),
    Demuxed(0, b"\0\0\0\1unit", -4, None, 40, False, units=(4,)),
]


def body_of(frame: bytes) -> bytes:
    return frame[wire.HEADER.size :]


def test_what_is_written_is_read() -> None:
    assert wire.read_description(body_of(wire.description(OPENED))) == OPENED
    batch = wire.read_packets(body_of(b"".join(bytes(part) for part in wire.packets(BATCH))), {0, 1})
    assert [
        (bytes(p.data), p.pts_ns, p.dts_ns, p.duration_ns, p.is_keyframe, p.sender_ns, p.is_damaged, p.units)
        for p in batch
    ] == [(p.data, p.pts_ns, p.dts_ns, p.duration_ns, p.is_keyframe, p.sender_ns, p.is_damaged, p.units) for p in BATCH]


def test_each_field_of_a_stream_is_known() -> None:
    """A new one needs its bounds in wire.py."""
    for info in (VIDEO, AUDIO):
        assert wire._stream(json.loads(body_of(wire.description(OPENED)))["streams"][info.index]) == info


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 1 << 20), ("width", -1), ("width", "1920"), ("width", None), ("width", 1e3), ("width", True),
        ("kind", "data"), ("codec", "h264\n"), ("codec", "x" * 200), ("codec", 7), ("extradata", "!"),
        ("frame_rate", 1e9), ("frame_rate", "NaN"), ("presentation", {"rotation": 45}),
        ("presentation", {"pixel_aspect": [0, 1]}), ("presentation", {"pixel_aspect": [1]}),
        ("presentation", {"color_matrix": 1000}), ("presentation", {"unknown": 1}), ("presentation", 3),
        ("unknown", 1),
    ],
)  # fmt: skip
@pytest.mark.promise("wire-is-checked")
def test_a_field_out_of_bounds_is_refused(field: str, value: object) -> None:
    said = json.loads(body_of(wire.description(OPENED)))
    said["streams"][0][field] = value
    with pytest.raises(wire.WireError):
        wire.read_description(json.dumps(said).encode())


@pytest.mark.parametrize(
    "said", [b"", b"[]", b"{}", b"null", b'{"streams": 3}', b"[" * 100_000, b"\xff", b'{"streams":[{}]}']
)
@pytest.mark.promise("wire-is-checked")
def test_what_is_no_description_is_refused(said: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.read_description(said)


def test_streams_twice_or_too_many_are_refused() -> None:
    for streams in ((VIDEO, VIDEO), tuple(replace(VIDEO, index=n) for n in range(17))):
        with pytest.raises(wire.WireError):
            wire.read_description(body_of(wire.description(replace(OPENED, streams=streams))))


@pytest.mark.parametrize("units", [(3,), (5,), (4, 0), (4_000_000_000,), (0,) * 33])
def test_units_that_are_not_the_packet_are_refused(units: tuple[int, ...]) -> None:
    data = b"\0\0\0\1unit" if len(units) < 33 else b"\0\0\0\1" * 33
    sent = Demuxed(0, data, 0, None, 40, False, units=units)
    with pytest.raises(wire.WireError):
        wire.read_packets(body_of(b"".join(bytes(part) for part in wire.packets([sent]))), {0})


def test_mutated_batches_are_batches_or_refused() -> None:
    good = body_of(b"".join(bytes(part) for part in wire.packets(BATCH)))
    random.seed(3)
    for _ in range(3000):
        bad = bytearray(good)
        for _ in range(random.randrange(1, 6)):
            bad[random.randrange(min(len(bad), 150))] = random.randrange(256)
        try:
            for packet in wire.read_packets(bytes(bad[: random.randrange(len(bad) + 1)]), {0, 1}):
                assert packet.stream in (0, 1)
                assert packet.duration_ns >= 0
        except wire.WireError:
            pass


@pytest.mark.parametrize("sent", [b"P\xff\xff\xff\xff", b"X\x00\x00\x00\x00", b"P\x05\x00\x00\x00abc", b"P"])
def test_frames_that_are_none(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(wire.WireError):
            wire.FrameReader(ours).read(5)


def test_silence_has_an_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TimeoutError):
        theirs.sendall(struct.pack("<cI", b"P", 10))
        wire.FrameReader(ours).read(0.05)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.promise("parameter-sets-are-bounded")
def test_more_parameter_sets_than_a_muxer_can_count_are_refused(codec: str) -> None:
    for count, good in ((60, True), (70, False)):
        info = StreamInfo(
            index=0, kind="video", codec=codec, extradata=b"\0\0\1\x42\x01" * count, header=NUT, width=64, height=64
        )
        body = wire.description(wire.Description(streams=(info,), is_live=True, times="rtp"))[wire.HEADER.size :]
        if good:
            assert wire.read_description(body).streams[0].codec == codec
        else:
            with pytest.raises(wire.WireError):
                wire.read_description(body)


def test_what_is_too_long_is_refused_before_there_is_memory_for_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for kind, size in ((wire.DESCRIPTION, wire.MAX_TEXT_FRAME + 1), (wire.PACKETS, wire.MAX_FRAME + 1)):
            theirs.sendall(wire.HEADER.pack(kind, size))
            with pytest.raises(wire.WireError):
                wire.FrameReader(ours).read(1.0)
    with pytest.raises(wire.WireError):
        wire.read_packets(b"\xff\xff\xff\xff", {0})
