"""NAL units of H.264 and H.265, and what a black stand-in does with them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrecd.codecs.blank import Adapter
from msrecd.codecs.strings import codec_string
from msrecd.flow.encoded import StreamParameters
from msrecd.flow.units import Packet
from msrecd.vocabulary.nal import join, length_size, parameter_sets, split

AVC_SETS = [bytes.fromhex("6764001eacd940a0"), bytes.fromhex("68ebe3cb")]
AVCC = bytes.fromhex("0164001effe100086764001eacd940a001000468ebe3cb")
HEVC_SETS = [
    bytes.fromhex("40010c01ffff01600000030090000003000003001eba0240"),
    bytes.fromhex("42010101600000030090000003000003001ea014206165ba4a4c2e68"),
    bytes.fromhex("4401c0718312"),
]
SEI = bytes.fromhex("4e0105ff")
HVCC = bytes.fromhex("0101600000009000000000001ef000fcfdf8f800000f04") + b"".join(
    bytes([0x80 | unit[0] >> 1, 0, 1]) + len(unit).to_bytes(2, "big") + unit for unit in [*HEVC_SETS, SEI]
)
SETS = {"h264": AVC_SETS, "hevc": HEVC_SETS}
PREFIXED = {"h264": AVCC, "hevc": HVCC}
PICTURES = {"h264": (b"\x65key", b"\x41other"), "hevc": (b"\x26\x01key", b"\x02\x01other")}
CODECS = pytest.mark.parametrize("codec", ["h264", "hevc"])


def annexb(units: list[bytes]) -> bytes:
    return b"".join(b"\0\0\0\1" + unit for unit in units)


@CODECS
def test_parameter_sets(codec: str) -> None:
    assert parameter_sets(PREFIXED[codec], codec) == SETS[codec]
    assert parameter_sets(annexb([*SETS[codec], SEI if codec == "hevc" else b"\x06sei"]), codec) == SETS[codec]
    assert parameter_sets(b"", codec) == []
    for end in range(len(PREFIXED[codec])):  # cut short: what is whole, and no exception
        assert set(parameter_sets(PREFIXED[codec][:end], codec)[:-1]) <= set(SETS[codec])


def test_codec_strings_are_the_same_for_both_forms() -> None:
    assert codec_string("hevc", HVCC) == codec_string("hevc", annexb(HEVC_SETS)) == "hvc1.1.6.L30.90"
    assert codec_string("h264", AVCC) == codec_string("h264", annexb(AVC_SETS)) == "avc1.64001e"
    assert codec_string("hevc", annexb(HEVC_SETS[:1])) == codec_string("hevc", b"") == "hvc1"


def test_length_size() -> None:
    assert [length_size(PREFIXED[codec], codec) for codec in ("h264", "hevc")] == [4, 4]
    assert length_size(AVCC[:4] + b"\xfd" + AVCC[5:], "h264") == 2
    assert length_size(annexb(AVC_SETS), "h264") == 0
    assert length_size(b"", "hevc") == 0


@given(st.lists(st.binary(min_size=1, max_size=200).map(lambda unit: b"\x65" + unit)), st.sampled_from([1, 2, 3, 4]))
def test_split_undoes_join(units: list[bytes], size: int) -> None:
    assert split(join(units, size), size) == units


def parameters(codec: str, extradata: bytes) -> StreamParameters:
    return StreamParameters(kind="video", codec=codec, header=b"", codec_string="", extradata=extradata)


def packet(data: bytes, is_keyframe: bool) -> Packet:
    return Packet(pts_ns=5, dts_ns=4, duration_ns=3, is_keyframe=is_keyframe, data=data)


@CODECS
def test_black_takes_the_form_of_its_stream(codec: str) -> None:
    """Annex B of an encoder into a stream with lengths: sets before each key frame, those inside it go."""
    key, other = PICTURES[codec]
    own = [*SETS[codec][:-1], SETS[codec][-1] + b"\x01"]
    adapter = Adapter(parameters(codec, annexb(own)), parameters(codec, PREFIXED[codec]))
    adapted = adapter.adapt(packet(annexb([SETS[codec][0], key]), True))
    assert split(bytes(adapted.data), 4) == [*own, key]
    assert (adapted.pts_ns, adapted.dts_ns, adapted.duration_ns, adapted.is_keyframe) == (5, 4, 3, True)
    assert split(bytes(adapter.adapt(packet(annexb([other]), False)).data), 4) == [other]


@CODECS
def test_what_follows_the_black_brings_its_own_sets_again(codec: str) -> None:
    key, other = PICTURES[codec]
    stream = parameters(codec, PREFIXED[codec])
    again = Adapter(stream, stream, always=True)
    assert split(bytes(again.adapt(packet(join([key], 4), True)).data), 4) == [*SETS[codec], key]
    assert bytes(again.adapt(packet(join([other], 4), False)).data) == join([other], 4)


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp8", "vp9", "av1", "mjpeg"])
def test_nothing_is_touched_without_need(codec: str) -> None:
    extradata = PREFIXED.get(codec, b"")
    untouched = packet(b"\0\0\0\1data", True)
    assert Adapter(parameters(codec, extradata), parameters(codec, extradata)).adapt(untouched) is untouched
