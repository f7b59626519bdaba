"""Fragments that are made here hold what libav's muxer would write."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from pathlib import Path

import av
import pytest

from msrecd.clock import MS, NS
from msrecd.flow.encoded import StreamParameters
from msrecd.flow.units import Packet
from msrecd.muxing import container
from msrecd.muxing.boxes import find_box
from msrecd.muxing.container import ChunkContainer
from msrecd.vocabulary import nal
from msrecd.vocabulary.formats import CONTAINERS
from tests.muxing.test_finish import muxed, pictures, probed, sound

Track = tuple[StreamParameters, list[Packet]]
Sample = tuple[int, int, int, int, bool, bytes]
WITH_LIBAV: frozenset[str] = frozenset()


def samples(data: bytes) -> list[Sample]:
    """(stream, pts, dts, duration, whether a key frame, data) of all, by stream."""
    with av.open(io.BytesIO(data)) as file:
        found = [
            (p.stream_index, p.pts or 0, p.dts or 0, p.duration or 0, p.is_keyframe, bytes(p))
            for p in file.demux()
            if p.size
        ]
    return sorted(found, key=lambda one: (one[0], one[2]))


def both(tracks: list[Track], monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, bytes]:
    """(made here, made by libav)."""
    own = muxed("video/mp4", tracks)
    monkeypatch.setattr(container, "CODECS", WITH_LIBAV)
    return own, muxed("video/mp4", tracks)


def with_units(packets: list[Packet]) -> list[Packet]:
    """As a camera's reader gives them: start codes of four bytes, and where the units are."""
    units = [nal.nal_units(bytes(packet.data)) for packet in packets]
    return [
        replace(packet, data=memoryview(nal.join(its, 0)), units=tuple(map(len, its)))
        for packet, its in zip(packets, units, strict=True)
    ]


def reordered(packets: list[Packet]) -> list[Packet]:
    """Shown in another order than decoded: each second frame two later."""
    return [
        replace(packet, pts_ns=packet.dts_ns + (80 * MS if number % 2 else 40 * MS))
        for number, packet in enumerate(packets)
    ]


@pytest.mark.parametrize("codec", ["aac", "opus"])
@pytest.mark.parametrize("known", [False, True])
def test_what_libav_would_write(codec: str, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters, packets, _ = sound(codec)
    described, frames = pictures("h264")
    assert nal.length_size(described.extradata, "h264") == 0
    frames = reordered(frames)
    late = [replace(one, pts_ns=one.pts_ns + 37 * MS, dts_ns=one.dts_ns + 37 * MS) for one in packets]
    own, by_libav = both([(described, with_units(frames) if known else frames), (parameters, late)], monkeypatch)
    found, expected = samples(own), samples(by_libav)
    assert [one[5] for one in found] == [one[5] for one in expected]
    assert [(one[0], one[4]) for one in found] == [(one[0], one[4]) for one in expected]
    for here, there in zip(found, expected, strict=True):  # times of libav's are rounded twice
        assert all(abs(a - b) <= 1 for a, b in zip(here[1:4], there[1:4], strict=True)), (here[:5], there[:5])
    assert len(own) <= len(by_libav) * 1.02


def test_a_file_says_where_its_fragments_are(tmp_path: Path) -> None:
    described, frames = pictures("h264")
    path = tmp_path / "own.mp4"
    data = muxed("video/mp4", [(described, frames)])
    path.write_bytes(data)
    (length,) = struct.unpack(">I", data[-4:])
    begin, end = find_box(data, len(data) - length, len(data), b"mfra", b"tfra") or (0, 0)
    rows = [struct.unpack_from(">QQ", data, at) for at in range(begin + 16, end, 19)]
    assert [at for at, _ in rows] == [number * 90_000 // 25 for number in (0, 13, 26, 39, 52, 65)]
    assert {data[place + 4 : place + 8] for _, place in rows} == {b"moof"}
    assert float(probed(path)["format"]["duration"]) == pytest.approx(3.0)  # type: ignore[index]
    with av.open(str(path)) as file:
        file.seek(1_500_000, backward=True)
        first = next(file.decode(video=0))
        assert first.time == pytest.approx(1.0)


def test_a_fragment_ends_where_it_is_asked_to_or_where_it_is_long_or_large() -> None:
    described, frames = pictures("h264")

    def parts(number: int, size: int, *, is_flushed: bool) -> int:
        chunk = ChunkContainer(CONTAINERS["video/mp4"], [described], fragment_ns=NS // 4, is_flushed=is_flushed)
        chunk.take()
        for frame in frames[:number]:
            packet = replace(frame, data=bytes(frame.data) + b"\0" * size)
            chunk.write(0, packet, pts_ns=frame.pts_ns, dts_ns=frame.dts_ns, duration_ns=frame.duration_ns)
        waiting = len(chunk.take())
        chunk.flush()
        assert len(chunk.take()) == 1
        chunk.flush()
        assert not chunk.take()
        chunk.close()
        return waiting

    assert parts(20, 0, is_flushed=True) == 0
    assert parts(20, 0, is_flushed=False) == 2  # of seven frames each
    assert parts(20, 100_000, is_flushed=True) == 1
