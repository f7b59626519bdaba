"""JPEGs over HTTP as cameras send them: the first boundary is missing, parts have no type, nothing lies between."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import cycle

import av
import numpy as np
import pytest

from msrecd.clock import NS
from msrecd.dom.exceptions import DOMException
from msrecd.inputs.address import SourceOptions
from msrecd.inputs.httpjpegs import Splitter
from msrecd.libav.values import LibavError
from msrecd.media.playback import Playback
from tests.hostile.servers import Behaviour, Hostile, http
from tests.inputs.test_network import Played

PAUSE_S = 0.1
QUICK = SourceOptions(timeout_s=5.0)
PARTS = b"Content-Type: multipart/x-mixed-replace; boundary=b"


def _jpeg(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (96 * 3 // 2, 128), np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, format="yuvj420p")
    out = io.BytesIO()
    with av.open(out, "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuvj420p"
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


JPEGS = [_jpeg(seed) for seed in (1, 2, 3)]


def endless(header: bytes, part: Callable[[bytes], bytes]) -> Behaviour:
    def behave(server: Hostile, connection: object) -> None:
        connection.recv(65536)  # type: ignore[attr-defined]
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + header + b"\r\n\r\n")  # type: ignore[attr-defined]
        for jpeg in cycle(JPEGS):
            if server.stopping.wait(PAUSE_S):
                return
            connection.sendall(part(jpeg))  # type: ignore[attr-defined]

    return behave


def _part(jpeg: bytes, kind: bytes = b"Content-Type: image/jpeg\r\n") -> bytes:
    return kind + b"Content-Length: %d\r\n\r\n" % len(jpeg) + jpeg + b"\r\n"


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(endless(PARTS, lambda jpeg: _part(jpeg) + b"--b\r\n"), id="no first boundary"),
        pytest.param(endless(PARTS, lambda jpeg: b"--b\r\n" + _part(jpeg, b"")), id="no type"),
        pytest.param(endless(b"Content-Type: image/jpeg", bytes), id="nothing between"),
    ],
)
@pytest.mark.promise("jpegs-over-http")
def test_jpegs_with_anything_between_are_recorded_at_their_pace(behaviour: Behaviour) -> None:
    with Hostile(behaviour, "http") as server, Played(server.url, QUICK) as played:
        assert played.playback.is_live
        frames = played.taken["video"].wait(15)
        assert [bytes(frame.data) for frame in frames[:3]] == JPEGS
        assert (frames[-1].pts_ns - frames[0].pts_ns) / NS > 0.6 * PAUSE_S * (len(frames) - 1)


@pytest.mark.parametrize("length", ["", f"Content-Length: {len(JPEGS[0])}"])
@pytest.mark.promise("jpegs-over-http")
def test_a_snapshot_is_no_stream(length: str) -> None:
    with (
        Hostile(http(JPEGS[0], *(["Content-Type: image/jpeg", length] if length else [])), "http") as server,
        pytest.raises(DOMException, match="snapshot"),
    ):
        Playback(server.url, QUICK).close()


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_jpegs_are_split_wherever_the_pieces_end(size: int) -> None:
    """What a segment holds (here the beginning and the end of another JPEG, as in a thumbnail) is none of its ends."""
    inner = b"\xff\xe1\0\x0a\xff\xd8\xff\xd9\xff\xd8\xff\xd9"
    jpegs = [jpeg[:2] + inner + jpeg[2:] for jpeg in JPEGS]
    data = b"\r\n--b\r\n\r\n".join([b"--b\r\n\r\n", *jpegs, b"\xff\xd8\xff"])
    splitter = Splitter()
    assert [jpeg for at in range(0, len(data), size) for jpeg in splitter.feed(data[at : at + size])] == jpegs


@pytest.mark.parametrize("piece", [b"x" * 1000, b"\xff\xd8\xff\xe0\0\x10" + bytes(1 << 16)])
def test_what_is_no_jpeg_has_an_end(piece: bytes) -> None:
    splitter = Splitter()
    with pytest.raises(LibavError, match="no media"):
        for _ in range(10_000):
            splitter.feed(piece)
