"""What the page is made of, and the pure rules behind its routes: sizes, words, ranges, playlists, segments."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path

import pytest

import msrecd.web
from msrecd.storage.catalog import TriggerEntry
from msrecd.web.exporting import container_of
from msrecd.web.playlist import PlaylistChunk, playlist
from msrecd.web.ranges import Selection, select
from msrecd.web.recordings import TRIGGERS_LIMIT, _joined
from msrecd.web.segments import init_bytes, segments

STATIC = Path(msrecd.web.__file__).parent / "static"
LIMIT_BYTES = 150_000


@pytest.mark.promise("page-small")
def test_the_page_is_small_and_names_no_other_place() -> None:
    files = {path.name: path.read_bytes() for path in STATIC.iterdir()}
    assert sum(map(len, files.values())) < LIMIT_BYTES
    for name, data in files.items():
        places = set(re.findall(rb"https?://[^\s\"'`)]+", data)) - {b"http://www.w3.org/2000/svg"}
        assert not places, f"{name} names {places}"


def test_the_page_sets_no_markup_and_runs_no_text() -> None:
    """Names of devices and messages come from outside: they are only ever set as text."""
    for path in STATIC.glob("*.js"):
        ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
        assert re.findall(ways, path.read_text()) == [], path.name


@pytest.mark.promise("page-words")
def test_words_stand_in_one_file() -> None:
    """No text between quotes that a person would read, elsewhere: two words with a blank, beginning with a capital."""
    for path in STATIC.glob("*.js"):
        if path.name != "words.js":
            code = re.sub(r"//.*", "", path.read_text())
            assert re.findall(r"[\"'`][A-Z][a-z]+ [a-z]+[^\"'`]*[\"'`]", code) == [], path.name


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, Selection(status=200, length=100)),
        ({"range": "bytes=0-9"}, Selection(status=206, offset=0, length=10)),
        ({"range": "bytes=90-"}, Selection(status=206, offset=90, length=10)),
        ({"range": "bytes=90-1000"}, Selection(status=206, offset=90, length=10)),
        ({"range": "bytes=-10"}, Selection(status=206, offset=90, length=10)),
        ({"range": "bytes=-1000"}, Selection(status=206, offset=0, length=100)),
        ({"range": "bytes=100-"}, Selection(status=416)),
        ({"range": "bytes=-0"}, Selection(status=416)),
        ({"range": "bytes=5-4"}, Selection(status=200, length=100)),
        ({"range": "bytes=-"}, Selection(status=200, length=100)),
        ({"range": "bytes=0-1,5-6"}, Selection(status=200, length=100)),
        ({"range": "lines=0-1"}, Selection(status=200, length=100)),
        ({"range": f"bytes={'9' * 30}-"}, Selection(status=200, length=100)),
        ({"range": "bytes=0-9", "if-range": '"e"'}, Selection(status=206, offset=0, length=10)),
        ({"range": "bytes=0-9", "if-range": '"other"'}, Selection(status=200, length=100)),
        ({"if-none-match": '"x", W/"e"'}, Selection(status=304)),
        ({"if-none-match": "*"}, Selection(status=304)),
        ({"if-none-match": '"x"'}, Selection(status=200, length=100)),
    ],
)
def test_ranges_and_conditions_are_those_of_rfc_9110(headers: dict[str, str], expected: Selection) -> None:
    assert select(headers, '"e"', 100) == expected


def test_a_playlist_says_where_each_chunk_begins() -> None:
    chunks = [
        PlaylistChunk(url="1.mp4", started_ns=0, duration_s=59.6, bytes=1000, init_bytes=100),
        PlaylistChunk(url="2.mp4", started_ns=90_000_000_000, duration_s=1.25, bytes=300, init_bytes=90),
    ]
    assert playlist(chunks).splitlines() == [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        "#EXT-X-TARGETDURATION:60",
        "#EXT-X-DISCONTINUITY",
        '#EXT-X-MAP:URI="1.mp4",BYTERANGE="100@0"',
        "#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:00.000Z",
        "#EXTINF:59.600000,",
        "#EXT-X-BYTERANGE:900@100",
        "1.mp4",
        "#EXT-X-DISCONTINUITY",
        '#EXT-X-MAP:URI="2.mp4",BYTERANGE="90@0"',
        "#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:01:30.000Z",
        "#EXTINF:1.250000,",
        "#EXT-X-BYTERANGE:210@90",
        "2.mp4",
        "#EXT-X-ENDLIST",
    ]


def box(kind: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def header() -> bytes:
    """ftyp and moov of one video track: number 1, a thousand ticks a second, samples that need others."""
    tkhd = box(b"tkhd", struct.pack(">IIII", 0, 0, 0, 1))
    mdia = box(b"mdia", box(b"mdhd", struct.pack(">IIII", 0, 0, 0, 1000)), box(b"hdlr", bytes(8) + b"vide"))
    trex = box(b"trex", struct.pack(">IIIIII", 0, 1, 1, 100, 0, 0x10000))
    return box(b"ftyp", b"iso5") + box(b"moov", box(b"trak", tkhd, mdia), box(b"mvex", trex))


def fragment(time: int, *, key: bool, content: int = 50) -> bytes:
    """moof and mdat of five samples; the third is a key frame, or none."""
    flags = [0x10000, 0x10000, 0 if key else 0x10000, 0x10000, 0x10000]
    trun = box(b"trun", struct.pack(">II", 0x400, 5), *(struct.pack(">I", one) for one in flags))
    traf = box(b"traf", box(b"tfhd", struct.pack(">II", 0, 1)), box(b"tfdt", struct.pack(">II", 0, time)), trun)
    return box(b"moof", traf) + box(b"mdat", bytes(content))


def test_a_segment_begins_with_each_fragment_that_holds_a_key_frame() -> None:
    head = header()
    parts = [fragment(500 * n, key=n in (0, 4, 6)) for n in range(8)]
    data = head + b"".join(parts)
    init, found = segments(io.BytesIO(data), len(data), 4.0)
    one = len(parts[0])
    assert init == init_bytes(io.BytesIO(data), len(data)) == len(head)
    assert [(s.offset, s.bytes, s.start_s, s.duration_s) for s in found] == [
        (len(head), 4 * one, 0.0, 2.0),
        (len(head) + 4 * one, 2 * one, 2.0, 1.0),
        (len(head) + 6 * one, 2 * one, 3.0, 1.0),
    ]


def test_what_is_no_whole_mp4_gives_an_error_or_its_whole_part() -> None:
    """A card may hold anything: every cut and every changed byte ends in an answer or in ValueError."""
    data = header() + fragment(0, key=True) + fragment(500, key=True)
    whole = len(segments(io.BytesIO(data), len(data), 1.0)[1])
    for cut in range(0, len(data), 7):
        try:
            _, found = segments(io.BytesIO(data[:cut]), cut, 1.0)
        except ValueError:
            continue
        assert len(found) <= whole
        assert all(segment.offset + segment.bytes <= cut for segment in found)
    for at in range(0, len(data), 3):
        broken = bytearray(data)
        broken[at] ^= 0xFF
        try:
            segments(io.BytesIO(bytes(broken)), len(broken), 1.0)
        except ValueError:
            continue


@pytest.mark.parametrize(("suffix", "joined"), [(".mp4", ".mp4"), (".mkv", ".mkv"), (".flac", ".mka")])
def test_a_range_is_joined_into_what_can_express_its_gaps(suffix: str, joined: str) -> None:
    assert container_of([suffix, suffix])[1] == joined


def test_ever_so_many_triggers_are_a_bounded_answer() -> None:
    many = [TriggerEntry(kind="sound", score=n % 7, started_ns=n * 10, ended_ns=n * 10 + 5) for n in range(86_400)]
    found = _joined(many[::-1])
    assert len(found) <= TRIGGERS_LIMIT
    assert (found[0].started_ns, found[-1].ended_ns) == (0, many[-1].ended_ns)
    assert {one.score for one in found} == {6}
    assert _joined(many[:5]) == many[:5]
