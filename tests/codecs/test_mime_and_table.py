"""Types: parsing, the truth about support, and what is chosen for a stream."""

from __future__ import annotations

import pytest

from msrecd.codecs.strings import codec_string
from msrecd.codecs.table import Unsupported, full_type, is_type_supported, select
from msrecd.vocabulary.formats import parse_mime_type
from msrecd.vocabulary.nal import nal_units

BOTH = frozenset({"audio", "video"})


@pytest.mark.parametrize(
    ("text", "essence", "codecs"),
    [
        ("video/mp4", "video/mp4", ()),
        ("VIDEO/MP4; codecs=avc1.42E01E,mp4a.40.2", "video/mp4", ("avc1.42E01E", "mp4a.40.2")),
        ('video/webm; codecs="vp8, opus"', "video/webm", ("vp8", "opus")),
        ('audio/MP4;codecs=" avc1.4d002a   ,mp4a.40.1"', "audio/mp4", ("avc1.4d002a", "mp4a.40.1")),
        ("video/webm;opus", "video/webm", ()),
    ],
)
def test_parse(text: str, essence: str, codecs: tuple[str, ...]) -> None:
    mime = parse_mime_type(text)
    assert mime is not None
    assert (mime.essence, mime.codecs) == (essence, codecs)


@pytest.mark.parametrize("text", ["video", "video/", "/mp4", "video/mp4: codecs=vp8", "vid eo/mp4", "''", '""'])
def test_what_is_no_type(text: str) -> None:
    assert parse_mime_type(text) is None


@pytest.mark.parametrize(
    ("text", "supported"),
    [
        ("", True),
        ("video/mp4", True),
        ("audio/mp4", True),
        ("video/mp4;codecs=avc1,mp4a.40.2", True),
        ("video/mp4;codecs=avc1.640028,opus", True),
        ("video/mp4;codecs=av01,opus", True),
        ("video/webm;codecs=vp8,opus", True),
        ('video/webm; codecs="vp9, opus"', True),
        ("video/webm;codecs=vp09.00.10.08", True),
        ("audio/webm;codecs=opus", True),
        ("video/x-matroska;codecs=avc1,pcm", True),
        ("audio/ogg;codecs=opus", True),
        ("audio/wav", True),
        ("audio/flac", True),
        ("video/x-matroska;codecs=mjpeg", True),
        ("video/pineapple", False),
        ("audio/banana", False),
        ("video/webm;codecs=vorbis", False),
        ("video/webm;codecs=avc1", False),
        ("video/mp4;codecs=vp8", False),
        ("audio/mp4;codecs=avc1", False),
        ("video/webm;codecs=vp8,vp9", False),
        ("audio/webm;codecs=opus,opus", False),
        ("video/mp4;codecs=hvc1", False),  # passed through where a source gives it, never encoded
        ("video/mp4: codecs=avc1", False),
    ],
)
def test_is_type_supported(text: str, supported: bool) -> None:
    assert is_type_supported(text) is supported


def test_the_source_decides_where_the_type_does_not() -> None:
    chosen = select("", BOTH, {"video": "h264", "audio": "opus"})
    assert (chosen.essence, chosen.video, chosen.audio, chosen.extension) == ("video/mp4", "h264", "opus", ".mp4")
    chosen = select("video/x-matroska", BOTH, {"video": "hevc", "audio": None})
    assert (chosen.video, chosen.audio) == ("hevc", "aac")


def test_a_codec_that_only_passes_through_needs_its_source() -> None:
    assert select("video/mp4;codecs=hvc1", frozenset({"video"}), {"video": "hevc"}).video == "hevc"
    with pytest.raises(Unsupported, match="hevc"):
        select("video/mp4;codecs=hvc1", frozenset({"video"}), {"video": "h264"})


def test_video_does_not_fit_into_an_audio_type() -> None:
    with pytest.raises(Unsupported, match="video track"):
        select("audio/webm", BOTH, {})


def test_an_audio_only_stream_in_a_video_type() -> None:
    chosen = select("video/webm;codecs=vp8,opus", frozenset({"audio"}), {})
    assert (chosen.video, chosen.audio) == (None, "opus")
    assert full_type(chosen, {"audio": "opus"}) == "video/webm;codecs=opus"


def test_codec_strings_from_headers() -> None:
    annexb = b"\0\0\0\1\x67\x64\x00\x28\xac\0\0\1\x68\xee"
    assert codec_string("h264", annexb) == "avc1.640028"
    assert codec_string("h264", b"\x01\x42\xe0\x1f\xff") == "avc1.42e01f"
    assert codec_string("aac", b"\x11\x90") == "mp4a.40.2"
    assert codec_string("opus", b"OpusHead") == "opus"
    assert codec_string("vp9", b"", width=1920, height=1080) == "vp09.00.40.08"
    assert [unit[0] for unit in nal_units(annexb)] == [0x67, 0x68]
