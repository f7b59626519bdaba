"""Shifting decode times in a stream of MP4 boxes that is cut anywhere."""

from __future__ import annotations

import itertools
import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from msrecd.muxing.fragments import FragmentShifter


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def fragment(video: int, audio: int, data: bytes) -> bytes:
    def traf(track: int, version: int, time: int) -> bytes:
        tfdt = struct.pack(">B3xQ" if version else ">B3xI", version, time)
        return box(b"traf", box(b"tfhd", struct.pack(">II", 0, track)) + box(b"tfdt", tfdt))

    return box(b"moof", box(b"mfhd", b"\0" * 8) + traf(1, 1, video) + traf(2, 0, audio)) + box(b"mdat", data)


STREAM = box(b"ftyp", b"isom") + box(b"moov", b"m" * 40) + fragment(0, 0, b"a" * 5000) + fragment(900, 480, b"moof" * 9)
SHIFTED = (
    box(b"ftyp", b"isom") + box(b"moov", b"m" * 40) + fragment(0, 7, b"a" * 5000) + fragment(900, 487, b"moof" * 9)
)


@settings(max_examples=200)
@given(st.lists(st.integers(1, len(STREAM) - 1), max_size=12))
def test_any_cut_gives_the_same(cuts: list[int]) -> None:
    out = bytearray()
    shifter = FragmentShifter(out.extend, lambda track: 7 if track == 2 else 0)
    edges = [0, *sorted(set(cuts)), len(STREAM)]
    for begin, end in itertools.pairwise(edges):
        shifter.feed(STREAM[begin:end])
    assert bytes(out) == SHIFTED


def test_the_table_of_contents_goes_with_the_fragments() -> None:
    def contents(moved: int, shift: int) -> bytes:
        rows = [struct.pack(">QQBBB", time + shift, place + moved, 1, 1, 1) for time, place in ((0, 56), (900, 5200))]
        tfra = struct.pack(">B3xIII", 1, 2, 0, len(rows)) + b"".join(rows)
        return box(b"mfra", box(b"tfra", tfra) + box(b"mfro", struct.pack(">II", 0, 99)))

    out = bytearray()
    shifter = FragmentShifter(out.extend, lambda track: 7 if track == 2 else 0, moved=20)
    given = contents(0, 0)
    for byte in range(len(given)):
        shifter.feed(given[byte : byte + 1])
    assert bytes(out) == contents(20, 7)


def test_a_large_box_with_a_64_bit_size() -> None:
    big = struct.pack(">I4sQ", 1, b"mdat", 16 + 100) + b"x" * 100
    out = bytearray()
    shifter = FragmentShifter(out.extend, lambda _: 0)
    for byte in range(len(big)):
        shifter.feed(big[byte : byte + 1])
    assert bytes(out) == big
