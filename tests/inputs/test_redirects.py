"""Redirections: on the same host they are followed, to another one only where that is allowed."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from msrecd.inputs.address import SourceOptions, parse
from msrecd.inputs.processes import ReaderError
from msrecd.inputs.reader import Reader
from msrecd.inputs.redirects import Refused, target_of
from tests.fuzz.seeds import made
from tests.hostile.servers import Hostile, closes, http, redirect, requests, rtsp
from tests.inputs.cameras import Clip, RtspCamera, clip

OTHER = "127.0.0.2"  # this machine too, and to an input another host


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    seeds = made(tmp_path_factory.mktemp("film"), ["h264-aac.ts"])
    if not seeds:
        pytest.skip("there is no ffmpeg here")
    return seeds["h264-aac.ts"]


@pytest.fixture(scope="module")
def media() -> Clip:
    return clip()


def kinds(url: str, **options: str) -> set[str]:
    reader = Reader(parse(url), SourceOptions.of({"timeout": 3, **options}))
    reader.close()
    return {info.kind for info in reader.description.streams}


def test_a_redirection_on_the_same_host_is_followed(film: bytes) -> None:
    with Hostile(http(film, "Content-Type: video/mp2t"), "http") as end, Hostile(redirect(end.url), "http") as begin:
        assert kinds(begin.url) == {"video", "audio"}


def test_one_to_another_host_is_followed_where_that_is_allowed(film: bytes) -> None:
    with Hostile(http(film, "Content-Type: video/mp2t"), "http") as end:
        other = end.url.replace("127.0.0.1", "localhost")
        with Hostile(redirect(other), "http") as begin:
            before = end.connections
            with pytest.raises(ReaderError, match=r'another host \(localhost\).*redirects = "any"'):
                kinds(begin.url)
            assert end.connections == before, "nobody was asked there"
            assert kinds(begin.url, redirects="any") == {"video", "audio"}


@pytest.mark.parametrize(
    "to", ["file:///etc/passwd", "rtsp://127.0.0.1/x", "http://[", "ftp://127.0.0.1/x", "gopher:x"]
)
def test_what_is_not_http_is_refused(to: str) -> None:
    with Hostile(redirect(to), "http") as server, pytest.raises(Refused):
        target_of(server.url, 2.0, any_host=True)


def test_round_and_round_has_an_end() -> None:
    with Hostile(redirect(lambda server: server.url), "http") as server, pytest.raises(Refused, match="more than 8"):
        target_of(server.url, 2.0, any_host=False)


def test_what_is_no_redirection_leads_nowhere() -> None:
    for behaviour in (http(b"x"), http(b"", status="404 Not Found"), closes):
        with Hostile(behaviour, "http") as server:
            assert target_of(server.url, 2.0, any_host=False) is None


def test_the_password_goes_to_the_same_host_alone() -> None:
    """Its answer names the next place; what is asked there has the password or has not."""
    asked: list[bytes] = []
    ready = threading.Event()

    def listen(server: Hostile, connection: socket.socket) -> None:
        asked.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        ready.set()

    with Hostile(listen, "http") as end:
        for host, has_password in (("127.0.0.1", True), ("localhost", False)):
            ready.clear()
            with Hostile(redirect(f"http://{host}:{end.port}/y"), "http") as begin:
                url = begin.url.replace("//", "//user:s3cret@")
                found = target_of(url, 2.0, any_host=True)
            assert ready.wait(5)
            assert found is not None
            assert ("s3cret" in found) is has_password
            assert (b"Authorization: Basic" in asked[-1]) is has_password


def test_a_path_of_files_is_no_place(tmp_path: Path) -> None:
    assert target_of("http://127.0.0.1:1/x", 0.5, any_host=True) is None


# --- what libav follows by itself -----------------------------------------------------------------------------------


def sends_to(url: str, host: str = "127.0.0.1") -> Hostile:
    answers = rtsp(status=b"302 Found", extra=b"Location: " + url.encode(), only=b"OPTIONS")
    return Hostile(answers, "rtsp", host=host)


def test_a_camera_may_send_to_another_port_of_its_own(media: Clip) -> None:
    with RtspCamera(media) as end, sends_to(end.url.replace("127.0.0.1", "localhost")) as begin:
        assert kinds(begin.url) == {"video", "audio"}


@pytest.mark.promise("no-other-host")
def test_a_camera_may_not_send_to_another_host(media: Clip) -> None:
    with RtspCamera(media) as camera, sends_to(camera.url, OTHER) as begin:
        with pytest.raises(ReaderError, match=r'leads to another host \(127\.0\.0\.1\).*redirects = "any"'):
            kinds(begin.url)
        assert camera.connections == 0, "nobody was asked there"
        assert kinds(begin.url, redirects="any") == {"video", "audio"}


def test_a_camera_gets_no_password_of_another_one() -> None:
    """libav would answer the other host's question with it."""
    asked = threading.Event()

    def ask(server: Hostile, connection: socket.socket) -> None:
        for _, number, _ in requests(connection):
            asked.set()
            lines = (b"RTSP/1.0 401 No", b"CSeq: " + number, b'WWW-Authenticate: Basic realm="r"', b"Content-Length: 0")
            connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n")

    with Hostile(ask, "rtsp") as other, sends_to(other.url, OTHER) as begin:
        with pytest.raises(ReaderError, match=r"another host.*no password"):
            kinds(begin.url.replace("//", "//user:s3cret@"), redirects="any")
        assert not asked.is_set()


@pytest.mark.parametrize("is_redirected", [False, True], ids=["named", "redirected"])
@pytest.mark.promise("no-other-host")
@pytest.mark.promise("playlists-end-there")
def test_a_playlist_leads_to_no_other_host(film: bytes, is_redirected: bool) -> None:
    """What it names itself, and a piece on its own host that is redirected to another one."""
    with (
        Hostile(http(film, "Content-Type: video/mp2t"), "http", "x.ts") as end,
        Hostile(redirect(end.url), "http", "x.ts", host=OTHER) as lure,
    ):
        named = lure.url if is_redirected else end.url
        listed = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{named}\n#EXT-X-ENDLIST\n".encode()
        with Hostile(
            http(listed, "Content-Type: application/vnd.apple.mpegurl"), "http", "x.m3u8", host=OTHER
        ) as begin:
            with pytest.raises(ReaderError, match=r"another host \(127\.0\.0\.1\)"):
                kinds(begin.url)
            assert end.connections == 0
            assert lure.connections == is_redirected
            assert kinds(begin.url, redirects="any") == {"video", "audio"}
