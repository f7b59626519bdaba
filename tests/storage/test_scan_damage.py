"""Files that no recorder of ours wrote, or that a card has damaged: the scan finds what is whole, and ends.

Built by hand from the specifications (RFC 3533, RFC 9639, RFC 9559, RIFF), with checksums of the test's own.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest

from msrecd.storage import fragments_sound
from msrecd.storage.fragments import scan
from msrecd.storage.scan import Scan


def scanned(data: bytes, extension: str) -> Scan:
    return scan(io.BytesIO(data), len(data), extension)


def crc(data: bytes, polynomial: int, bits: int) -> int:
    """Bit by bit, as the specifications of Ogg and FLAC have it."""
    value = 0
    for byte in data:
        value ^= byte << (bits - 8)
        for _ in range(8):
            value = (value << 1) ^ (polynomial if value >> (bits - 1) & 1 else 0)
        value &= (1 << bits) - 1
    return value


# --- Ogg ---


def page(body: bytes, granule: int, *, first: bool = False) -> bytes:
    head = b"OggS\0" + bytes([2 if first else 0]) + struct.pack("<qII", granule, 7, 0)
    table = bytes([1, len(body)])
    value = crc(head + bytes(4) + table + body, 0x04C11DB7, 32)
    return head + struct.pack("<I", value) + table + body


OPUS = page(b"OpusHead\x01\x02" + struct.pack("<H", 312), 0, first=True)
VORBIS = page(b"\x01vorbis" + bytes(5) + struct.pack("<I", 44_100), 0, first=True)
FLAC_IN_OGG = page(b"\x7fFLAC" + bytes(22) + (48_000 << 4).to_bytes(3, "big"), 0, first=True)


@pytest.mark.parametrize(
    ("head", "granule", "units", "end_s"),
    [
        (OPUS, 48_312, 48_000, 1.0),
        (VORBIS, 88_200, 88_200, 2.0),
        (FLAC_IN_OGG, 24_000, 24_000, 0.5),
        (page(b"Speex   ", 0, first=True), 8_000, 8_000, 0.0),  # not of ours: counted, of unknown length
    ],
    ids=["opus", "vorbis", "flac", "unknown"],
)
def test_the_time_of_ogg_is_that_of_its_codec(head: bytes, granule: int, units: int, end_s: float) -> None:
    whole = head + page(b"tags", 0) + page(b"sound", granule)
    track = scanned(whole + page(b"more", 2 * granule)[:-1], "ogg").tracks["audio"]
    assert (track.units, track.end_s) == (units, end_s)
    assert scanned(whole + b"OggS", "ogg").cut == len(whole)


def test_a_page_with_a_wrong_checksum_ends_ogg() -> None:
    whole = OPUS + page(b"sound", 960)
    assert scanned(whole + page(b"sound", 1920).replace(b"sound", b"noise"), "ogg").cut == len(whole)
    assert scanned(OPUS + page(b"tags", 0), "ogg") == Scan(), "headers alone are no media"
    assert scanned(whole[:-3] + bytes(3), "ogg") == Scan()


def test_a_card_full_of_pages_is_read_no_further_than_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fragments_sound, "MAX_ELEMENTS", 3)
    pages = [OPUS, *(page(b"sound", 960 * number) for number in range(1, 6))]
    assert scanned(b"".join(pages), "ogg").cut == len(b"".join(pages[:3]))


# --- FLAC ---

STREAMINFO = bytes(10) + (48_000 << 4).to_bytes(3, "big") + bytes(21)
FLAC = b"fLaC" + b"\x80" + len(STREAMINFO).to_bytes(3, "big") + STREAMINFO


def utf8(number: int) -> bytes:
    """The number as FLAC codes it, in up to three bytes."""
    if number < 0x80:
        return bytes([number])
    if number < 0x800:
        return bytes([0xC0 | number >> 6, 0x80 | number & 0x3F])
    return bytes([0xE0 | number >> 12, 0x80 | number >> 6 & 0x3F, 0x80 | number & 0x3F])


def frame(number: int, size_code: int, *, by_sample: bool = False, rate_code: int = 10, extra: bytes = b"") -> bytes:
    head = bytes([0xFF, 0xF9 if by_sample else 0xF8, size_code << 4 | rate_code, 0x08]) + utf8(number) + extra
    whole = head + bytes([crc(head, 0x07, 8)]) + bytes(20)
    return whole + struct.pack(">H", crc(whole, 0x8005, 16))


@pytest.mark.parametrize(
    ("frames", "samples"),
    [
        ([frame(0, 12), frame(1, 12)], 2 * 4096),
        ([frame(0, 1), frame(1, 1)], 2 * 192),
        ([frame(0, 2), frame(1, 2)], 2 * 576),
        ([frame(0, 6, extra=b"\x0f"), frame(1, 6, extra=b"\x0f")], 2 * 16),
        ([frame(0, 7, extra=b"\x03\xe7"), frame(1, 7, extra=b"\x03\xe7")], 2 * 1000),
        ([frame(0, 12, rate_code=12, extra=b"\x30"), frame(1, 12, rate_code=12, extra=b"\x30")], 2 * 4096),
        ([frame(0, 12, rate_code=13, extra=b"\xbb\x80"), frame(1, 12, rate_code=13, extra=b"\xbb\x80")], 2 * 4096),
        ([frame(0, 12, by_sample=True), frame(4096, 7, by_sample=True, extra=b"\0\x63")], 4096 + 100),
        ([frame(number, 8) for number in range(200)], 200 * 256),  # numbers of two bytes
    ],
    ids=["4096", "192", "576", "8 bits", "16 bits", "kHz", "Hz", "by sample", "200 frames"],
)
def test_every_form_of_a_flac_header_is_counted(frames: list[bytes], samples: int) -> None:
    found = scanned(FLAC + b"".join(frames), "flac")
    assert (found.cut, found.fragments) == (len(FLAC + b"".join(frames)), len(frames))
    assert (found.tracks["audio"].units, found.tracks["audio"].end_s) == (samples, samples / 48_000)


@pytest.mark.parametrize(
    "noise",
    [
        b"\xff\xf8\x0a\x08\0\0" + bytes(30),  # no size
        b"\xff\xf8\xcf\x08\0\0" + bytes(30),  # no rate
        b"\xff\xf8\xca\x09\0\0" + bytes(30),  # a bit that must be 0
        b"\xff\xf8\xca\xb8\0\0" + bytes(30),  # channels that do not exist
        b"\xff\xf8\xca\x08\x80\0" + bytes(30),  # a number that begins in its middle
        b"\xff\xf8\xca\x08\xff\0" + bytes(30),  # a number of too many bytes
        b"\xff\xf8\xca\x08\xc3\0" + bytes(30),  # a number that breaks off
        b"\xff\xf8\xca\x08\x02\0" + bytes(30),  # a wrong checksum
        frame(9, 12)[:-1] + b"?",  # out of order, and broken off
        b"\xff\xf8\xca\x08",  # the file ends in it
    ],
)
def test_what_looks_like_a_flac_header_is_none(noise: bytes) -> None:
    whole = FLAC + frame(0, 12) + frame(1, 12)
    found = scanned(whole + noise, "flac")
    assert found.tracks["audio"].units in (4096, 8192)
    assert found.cut in (len(whole), len(whole) - len(frame(1, 12))), "no more than what is whole"


def test_a_flac_file_without_a_whole_frame_is_empty() -> None:
    assert scanned(FLAC, "flac") == Scan()
    assert scanned(FLAC + frame(0, 12)[:-2], "flac") == Scan()
    assert scanned(FLAC[:6], "flac") == Scan()
    assert scanned(FLAC[:20], "flac") == Scan()
    assert scanned(b"fLaC\x84\x00\xff\xff", "flac") == Scan(), "a block that is longer than the file"
    assert scanned(b"RIFF" + FLAC, "flac") == Scan()


def test_metadata_and_headers_without_end_are_read_no_further_than_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fragments_sound, "_MAX_BLOCKS", 4)
    padding = b"\x01\0\0\x02\0\0"
    head = b"fLaC\0" + len(STREAMINFO).to_bytes(3, "big") + STREAMINFO
    assert scanned(head + padding * 50 + frame(0, 12), "flac").fragments in (0, 1)
    monkeypatch.setattr(fragments_sound, "MAX_ELEMENTS", 5)
    found = scanned(FLAC + b"".join(frame(number, 8) for number in range(50)), "flac")
    assert found.fragments <= 5


def test_a_last_frame_that_is_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fragments_sound, "_FLAC_FRAME_BYTES", 100)
    whole = FLAC + frame(0, 12)
    assert scanned(whole + frame(1, 12) + bytes(200), "flac").cut == len(whole)
    assert scanned(whole + bytes(200), "flac") == Scan()


# --- WAV ---

FMT = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 2, 48_000, 192_000, 4, 16)


def wav(*chunks: bytes, kind: bytes = b"RIFF") -> bytes:
    return kind + struct.pack("<I", 0) + b"WAVE" + b"".join(chunks)


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF, 8, 6], ids=["0", "unknown", "8", "6: a sample and a half"])
def test_whole_samples_of_wav_count_whatever_its_header_says(length: int) -> None:
    head = wav(b"LIST" + struct.pack("<I", 3) + b"abc\0", FMT, b"data" + struct.pack("<I", length))
    found = scanned(head + bytes(11), "wav")
    samples = 1 if length == 6 else 2
    assert (found.cut, found.tracks["audio"].units) == (len(head) + 4 * samples, samples)


def test_a_wav_file_that_says_too_little_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"data" + struct.pack("<I", 0) + bytes(40)
    assert scanned(wav(data), "wav") == Scan(), "no format"
    assert scanned(wav(FMT), "wav") == Scan(), "no data"
    assert scanned(wav(FMT, data[:8]), "wav") == Scan(), "no sample"
    assert scanned(wav(FMT, data, kind=b"RIFX"), "wav") == Scan()
    assert scanned(wav(FMT, data, kind=b"RF64"), "wav").fragments == 10
    monkeypatch.setattr(fragments_sound, "_MAX_BLOCKS", 3)
    assert scanned(wav(*[b"junk" + bytes(4)] * 5, FMT, data), "wav") == Scan(), "chunks without end"


# --- Matroska ---


def element(kind: int, content: bytes, *, unknown: bool = False) -> bytes:
    name = kind.to_bytes((kind.bit_length() + 7) // 8, "big")
    return name + (b"\xff" if unknown else (1 << 56 | len(content)).to_bytes(8, "big")) + content


EBML = element(0x1A45DFA3, b"")
SCALE = element(0x1549A966, element(0x2AD7B1, b"\x0f\x42\x40"))


def entry(number: int, kind: int, more: bytes = b"") -> bytes:
    return element(0xAE, element(0xD7, bytes([number])) + element(0x83, bytes([kind])) + more)


TRACKS = element(
    0x1654AE6B,
    entry(1, 1, element(0x23E383, (40_000_000).to_bytes(4, "big")))
    + entry(2, 2, element(0xE1, element(0xB5, struct.pack(">f", 48_000.0))))
    + entry(3, 17),  # subtitles
)


def simple(track: int, time: int) -> bytes:
    return element(0xA3, bytes([0x80 | track]) + struct.pack(">h", time) + b"\x80frame")


def grouped(track: int, time: int) -> bytes:
    block = element(0xA1, bytes([0x80 | track]) + struct.pack(">h", time) + b"\0frame")
    return element(0xA0, element(0x9B, b"\x28") + block)


def cluster(time: int, *blocks: bytes, unknown: bool = False) -> bytes:
    return element(0x1F43B675, element(0xE7, time.to_bytes(2, "big")) + b"".join(blocks), unknown=unknown)


def segment(*parts: bytes) -> bytes:
    return EBML + element(0x18538067, b"", unknown=True) + b"".join(parts)


HEAD = segment(SCALE, TRACKS)
FIRST = cluster(0, simple(1, 0), grouped(2, 5), simple(3, 0), simple(9, 0))


def test_blocks_alone_and_in_groups_are_counted_for_the_tracks_that_we_know() -> None:
    found = scanned(HEAD + FIRST + cluster(80, simple(1, 0)), "mkv")
    assert found.cut == len(HEAD + FIRST + cluster(80, simple(1, 0)))
    assert {kind: (track.units, track.end_s) for kind, track in found.tracks.items()}["video"] == (2, 0.12)
    assert found.tracks["audio"].start_s == 0.005


@pytest.mark.parametrize(
    ("behind", "keeps"),
    [
        (cluster(80, simple(1, 0))[:-1], 0),
        (cluster(80, simple(1, 0), element(0xBE, b"x")), 0),  # what may not stand in a cluster
        (cluster(80, simple(1, 0), unknown=True)[:-1], 0),
        (cluster(80, simple(1, 0), unknown=True) + SCALE, None),
        (element(0x5A5A, b"unknown"), 0),
        (element(0x1549A966, b"", unknown=True), 0),  # only clusters and segments may be of unknown size
        (b"\0" * 20, 0),
        (b"\x1f\x43\xb6", 0),
        (b"\x08\0\0\0", 0),  # an id of five bytes
        (element(0xEC, bytes(30)), None),  # what is void is whole
        (element(0x1549A966, element(0x2AD7B1, bytes(9))), 0),  # an integer of nine bytes
        (cluster(80, element(0xA0, element(0x9B, b"\x28"))), None),  # a group without a block
        (cluster(80, element(0xA0, element(0x9B, b"", unknown=True))), None),
    ],
)
def test_what_follows_whole_clusters_of_matroska(behind: bytes, keeps: int | None) -> None:
    found = scanned(HEAD + FIRST + behind, "mkv")
    whole = len(HEAD + FIRST)
    if found == Scan():
        assert b"\x2a\xd7\xb1" in behind, "only a number that cannot be makes all of it unreadable"
        return
    assert found.cut == (whole + len(behind) if keeps is None else whole + keeps)
    assert found.tracks["video"].units >= 1


def test_what_is_no_matroska_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (b"", b"\0", EBML, SCALE, EBML + SCALE, element(0x1A45DFA3, b"", unknown=True), HEAD):
        assert scanned(data, "mkv") == Scan()
    from msrecd.storage import fragments_mkv

    monkeypatch.setattr(fragments_mkv, "_MAX_HEADER_BYTES", 10)
    assert scanned(HEAD + FIRST, "mkv") == Scan(), "a header that is too long"


def test_an_extension_of_no_format_is_an_error() -> None:
    with pytest.raises(ValueError, match="no format has the extension"):
        scanned(b"", "txt")


def test_figures_that_no_recording_can_have_are_left_out() -> None:
    found: Any = scanned(OPUS + page(b"sound", 1 << 62), "ogg")
    assert (found.fragments, dict(found.tracks)) == (1, {})


# --- MP4 ---


def box(kind: bytes, *content: bytes) -> bytes:
    inner = b"".join(content)
    return struct.pack(">I", 8 + len(inner)) + kind + inner


def track(number: int, handler: bytes) -> bytes:
    tkhd = box(b"tkhd", bytes(12), struct.pack(">I", number), bytes(64))
    mdhd = box(b"mdhd", bytes(12), struct.pack(">I", 1000), bytes(8))
    return box(b"trak", tkhd, box(b"mdia", mdhd, box(b"hdlr", bytes(8), handler, bytes(12))))


TREX = box(b"trex", struct.pack(">6I", 0, 1, 1, 40, 0, 0))
MOOV = box(b"moov", track(1, b"vide"), track(2, b"text"), box(b"trak"), box(b"mvex", TREX, box(b"mehd")))
TFHD, TFDT = box(b"tfhd", struct.pack(">2I", 0, 1)), box(b"tfdt", struct.pack(">2I", 0, 0))


def moof(*boxes: bytes) -> bytes:
    return box(b"moof", box(b"mfhd", bytes(8)), box(b"traf", *boxes))


PLAIN = moof(TFHD, TFDT, box(b"free"), box(b"trun", struct.pack(">2I", 0, 25)))
MDAT = box(b"mdat", bytes(50))


def test_samples_of_mp4_last_what_their_track_says_unless_the_fragment_says_more() -> None:
    own = moof(box(b"tfhd", struct.pack(">3I", 8, 1, 20)), box(b"trun", struct.pack(">2I", 0, 10)))
    each = moof(TFHD, box(b"trun", struct.pack(">5I", 0x100, 3, 10, 20, 30)))
    found = scanned(MOOV + PLAIN + MDAT + own + MDAT + each + MDAT, "mp4")
    video = found.tracks["video"]
    assert (found.fragments, video.units, video.end_s) == (3, 25 + 10 + 3, 1.0 + 0.2 + 0.06)
    assert list(found.tracks) == ["video"]


@pytest.mark.parametrize(
    "behind",
    [
        MDAT,  # nothing says what is in it
        PLAIN + MDAT[:-1],
        struct.pack(">I", 16) + b"\0\x01\x02\x03" + bytes(8),  # no name of a box
        struct.pack(">I", 3) + b"moof",
        box(b"free", bytes(8))[:-4],
    ],
)
def test_what_follows_whole_fragments_of_mp4(behind: bytes) -> None:
    whole = MOOV + PLAIN + MDAT
    assert scanned(whole + behind, "mp4").cut == len(whole)


def test_a_run_of_samples_that_is_not_whole_counts_for_none() -> None:
    broken = moof(TFHD, box(b"trun", struct.pack(">3I", 0x100, 1000, 10)))
    found = scanned(MOOV + PLAIN + MDAT + broken + MDAT, "mp4")
    assert (found.fragments, found.tracks["video"].units) == (2, 25)


def test_an_mp4_with_too_long_a_header_or_without_fragments_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    from msrecd.storage import fragments_mp4

    assert scanned(MOOV, "mp4") == Scan()
    assert scanned(PLAIN + MDAT, "mp4") == Scan()
    monkeypatch.setattr(fragments_mp4, "_MAX_HEADER_BYTES", 100)
    assert scanned(MOOV + PLAIN + MDAT, "mp4") == Scan()
