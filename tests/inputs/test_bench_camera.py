"""The camera of `make bench`: a client that goes leaves it in silence."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

CAMERA = Path(__file__).parents[2] / "benchmarks" / "camera.py"
DEADLINE_S = 30.0
CLIENTS = 4


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, Path]]:
    """(process, port, what it prints on standard error)"""
    media, errors = tmp_path / "camera.mp4", tmp_path / "errors.txt"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25:duration=2", "-c:v", "libx264",
         "-preset", "ultrafast", "-bf", "0", "-pix_fmt", "yuv420p", str(media)],
        check=True, timeout=120,
    )  # fmt: skip
    with (
        errors.open("wb") as file,
        subprocess.Popen([sys.executable, str(CAMERA), str(media)], stdout=subprocess.PIPE, stderr=file) as process,
    ):
        assert process.stdout is not None
        yield process, int(process.stdout.readline()), errors
        process.kill()


def ask(connection: socket.socket, method: str, *more: str) -> None:
    """Send a request, and wait for what begins its answer."""
    connection.sendall("\r\n".join([f"{method} rtsp://127.0.0.1/cam/track0 RTSP/1.0", *more, "\r\n"]).encode())
    said = b""
    while b"RTSP/1.0 200 OK" not in said:
        data = connection.recv(65536)
        assert data, f"no answer to {method}"
        said += data


def playing(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
    ask(connection, "SETUP", "CSeq: 1", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
    ask(connection, "PLAY", "CSeq: 2")
    return connection


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_clients_that_go_leave_no_warning(camera: tuple[subprocess.Popen[bytes], int, Path]) -> None:
    """Also when it is behind, as on a busy machine: what it has to send is sent without a pause then."""
    process, port, errors = camera
    clients = [playing(port) for _ in range(CLIENTS)]
    behind_s = time.monotonic() + 1.5
    os.kill(process.pid, signal.SIGSTOP)
    while not is_stopped(process.pid) or time.monotonic() < behind_s:
        time.sleep(0.01)
    for client in clients:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, as of a killed one
        client.close()
    os.kill(process.pid, signal.SIGCONT)
    with contextlib.closing(playing(port)):  # it has done with the others
        assert errors.read_text() == ""


def test_a_client_that_takes_its_leave_gets_no_more(camera: tuple[subprocess.Popen[bytes], int, Path]) -> None:
    _, port, errors = camera
    with contextlib.closing(playing(port)) as client:
        client.sendall(b"TEARDOWN rtsp://127.0.0.1/cam RTSP/1.0\r\nCSeq: 3\r\n\r\n")
        deadline = time.monotonic() + DEADLINE_S
        while client.recv(65536):
            assert time.monotonic() < deadline, "it goes on sending"
    assert errors.read_text() == ""
