"""Network inputs from programs of others: ffmpeg as the sender over RTMP, SRT and UDP; RTSP behind TLS.

What the libav at hand cannot do is skipped by name, and said by the program in a sentence.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from broker import Certificates
from ports import free_port

from msrecd.dom.exceptions import DOMException
from msrecd.inputs.address import SourceOptions
from tests.inputs.cameras import Clip, RtspCamera, clip
from tests.inputs.test_network import Played, spread

FFMPEG = shutil.which("ffmpeg")
SOURCE = [
    "-re", "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25", "-f", "lavfi", "-i", "sine=sample_rate=48000",
    "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "25", "-pix_fmt", "yuv420p", "-c:a", "aac",
]  # fmt: skip


@pytest.fixture(scope="module")
def media() -> Clip:
    return clip()


@contextlib.contextmanager
def sending(*arguments: str) -> Iterator[None]:
    """ffmpeg sends until the end of the block."""
    if FFMPEG is None:
        pytest.skip("there is no ffmpeg here")
    process = subprocess.Popen(
        [FFMPEG, "-v", "error", *SOURCE, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        process.kill()
        process.wait()


def check(url: str, *, tries_s: float = 30.0) -> None:
    """It has frames and sound, as far apart as they were captured; a sender needs a moment until it listens."""
    deadline = time.monotonic() + tries_s
    while True:
        try:
            played = Played(url, SourceOptions(timeout_s=5))
            break
        except DOMException as exc:
            if "cannot read this kind of URL" in exc.message:
                pytest.skip(f"the libav at hand has no {url.partition(':')[0]}")
            if "need PyAV 15" in exc.message:
                pytest.skip(exc.message)
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
    with played:
        assert played.playback.is_live
        frames = played.taken["video"].wait(60)
        sound = played.taken["audio"].wait(80)
    assert frames[0].is_keyframe
    assert abs(spread(frames) - (len(frames) - 1) / 25) < 0.5
    assert abs(spread(sound) - (len(sound) - 1) * 1024 / 48000) < 0.5


def test_rtmp() -> None:
    port = free_port()
    url = f"rtmp://127.0.0.1:{port}/live/cam"
    with sending("-f", "flv", "-listen", "1", url):
        check(url)


def test_mpegts_over_udp() -> None:
    port = free_port()
    with sending("-f", "mpegts", f"udp://127.0.0.1:{port}?pkt_size=1316"):
        check(f"udp://127.0.0.1:{port}")


def test_srt() -> None:
    port = free_port()
    with sending("-f", "mpegts", f"srt://127.0.0.1:{port}?mode=listener"):
        check(f"srt://127.0.0.1:{port}")


class TlsWrapper:
    """TLS in front of a server that has none (as stunnel is put before cameras). Use as a context manager."""

    def __init__(self, folder: Path, port: int) -> None:
        certificates = Certificates.make(folder)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificates.broker, certificates.broker_key)
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> TlsWrapper:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            self._context.wrap_socket(client, server_side=True) as inside,
            socket.create_connection(("127.0.0.1", self._to)) as camera,
        ):
            threading.Thread(target=_pump, args=(inside, camera), daemon=True).start()
            _pump(camera, inside)


def _pump(begin: socket.socket, end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := begin.recv(65536):
            end.sendall(data)
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_WR)


def test_rtsps(tmp_path: Path, media: Clip) -> None:
    """RTSP over TLS, interleaved."""
    with RtspCamera(media) as camera, TlsWrapper(tmp_path, camera.port) as wrapper:
        check(f"rtsps://127.0.0.1:{wrapper.port}/cam")
