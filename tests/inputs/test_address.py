"""What may be a source, what libav is given, and what people see of it."""

from __future__ import annotations

import pytest

from msrecd.inputs.address import SourceOptions, check, parse, shown


@pytest.mark.parametrize(
    ("location", "opened"),
    [
        ("/srv/a.mp4", "/srv/a.mp4"),
        ("a b.mp4", "a b.mp4"),
        ("C:odd name.mp4", "C:odd name.mp4"),
        ("file:/srv/a.mp4", "/srv/a.mp4"),
        ("file:///srv/a%20b.mp4", "/srv/a b.mp4"),
        ("FILE://LOCALHOST/srv/%C3%A4.mp4", "/srv/ä.mp4"),
        ("rtsp://cam/main", "rtsp://cam/main"),
        ("RTSP://cam:8554/main?x=1#f", "rtsp://cam:8554/main?x=1"),
        ("rtsp://[fe80::1]:554/x", "rtsp://[fe80::1]:554/x"),
        ("udp://:5000", "udp://:5000"),
        ("udp://239.0.0.1:5000", "udp://239.0.0.1:5000"),
        ("https://u:p%40ss@host/x.m3u8?t=1", "https://u:p%40ss@host/x.m3u8?t=1"),
    ],
)
def test_what_libav_is_given(location: str, opened: str) -> None:
    address = parse(location)
    assert address.opened == opened
    assert check(location) is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "empty"),
        ("file://elsewhere.example/path", "elsewhere.example"),
        ("file://user:pw@elsewhere.example/path", "elsewhere.example"),
        ("file:relative.mp4", "absolute"),
        ("file:///a%00b", "zero"),
        ("gopher://a/b", "gopher"),
        ("concat:///a", "concat"),
        ("rtp://127.0.0.1:5004", "Write udp:"),
        ("udp://239.0.0.1", "no port"),
        ("rtsp:///path", "host"),
        ("rtsp://host:99999/x", "URL"),
        ("http://a b/c", "white space"),
        ("rtsp://host/x\n", "white space"),
    ],
)
def test_what_is_no_source(url: str, words: str) -> None:
    problem = check(url)
    assert problem is not None
    assert words in problem
    assert "pw" not in problem


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://admin:s3cret@cam.lan:554/main?token=s3cret#s3cret",
        "rtsp://s3cret@cam.lan:554/main",
        "rtsp://admin:s3cret/with/slash@cam.lan:554/main",
        "rtsp://admin:s3c@ret@cam.lan:554/main".replace("s3c@ret", "s3cret@s3cret"),
        "http://cam.lan:554/main?user=a&pwd=s3cret",
        "rtsp://cam.lan:554/user=admin&password=s3cret&channel=1",
    ],
)
@pytest.mark.promise("no-secret-is-shown")
def test_no_secret_is_shown(url: str) -> None:
    for text in (shown(url), repr(parse(url)) if "slash" not in url else ""):
        assert "s3cret" not in text
    assert "cam.lan:554" in shown(url)


def test_user_and_password_of_their_own() -> None:
    assert parse("rtsp://old:one@cam/x", "me", "p:w/@").opened == "rtsp://me:p%3Aw%2F%40@cam/x"
    assert parse("rtsp://cam/x", "me").opened == "rtsp://me@cam/x"


@pytest.mark.parametrize(
    "options",
    [
        {"transport": "quic"}, {"tracks": "audio"}, {"tracks": ["smell"]}, {"timeout": 0}, {"timeout": "soon"},
        {"timeout": True}, {"timeout": 1e9}, {"user": 5}, {"tarnsport": "tcp"},
    ],
)  # fmt: skip
def test_options_that_are_none(options: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        SourceOptions.of(options)


def test_options() -> None:
    options = SourceOptions.of({"transport": "udp", "tracks": ["audio"], "timeout": "1500ms", "user": "u"})
    assert options == SourceOptions(transport="udp", tracks=("audio",), timeout_s=1.5, user="u")
    assert SourceOptions.of({"timeout": 3}).timeout_s == 3.0
