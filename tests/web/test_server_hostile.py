"""Floods, slow senders, slow readers and nonsense, beside a recording that must not notice."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from config_text import camera, configuration
from daemon import DaemonProcess
from judge import assert_consecutive, numbers_of
from pageclient import PageClient, raw_exchange, web_table
from ports import free_port
from waiting import until

ATTACK_S = float(os.environ.get("MSRECD_WEB_ATTACK_S", "8"))
MIB = 1 << 20
HALF_A_REQUEST = b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nX-"
NONSENSE = (
    b"",
    b"\r\n" * 400,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),  # the beginning of TLS
    b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
    b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
    b"CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000,
    b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
)


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[tuple[DaemonProcess, PageClient]]:
    """A daemon that records, and its operator."""
    port = free_port()
    text = web_table(port, tmp_path) + camera(autostart=True, chunk_duration="5s")
    with DaemonProcess(tmp_path, configuration(tmp_path, port=None, recorders=text)) as daemon:
        daemon.wait_for_part()
        client = PageClient(port)
        until(lambda: _answers(client), "no page")
        assert client.log_in().status == 204
        yield daemon, client


def _answers(client: PageClient) -> bool:
    with contextlib.suppress(OSError):
        return client.get("/").status == 200
    return False


def assert_nothing_lost(daemon: DaemonProcess, began: int) -> None:
    """No frame of any chunk since then is missing, whatever the manifest says."""
    daemon.wait_for_chunks(began + 1)
    assert daemon.is_running
    assert daemon.stop() == 0
    lines = daemon.chunk_lines()
    assert sum(line["tracks"]["video"]["dropped"] for line in lines) == 0, lines
    assert not [gap for line in lines for gap in line["gaps"]], lines
    assert_consecutive(numbers_of(daemon.chunks()))


@pytest.mark.parametrize("data", NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_is_answered_or_closed(page_daemon: tuple[DaemonProcess, int], data: bytes) -> None:
    daemon, port = page_daemon
    answer = raw_exchange(port, data + b"\r\n", timeout=25.0)
    assert not answer or answer.split()[1][:1] in (b"4", b"5"), answer[:200]
    assert b"Traceback" not in answer
    assert "Traceback" not in daemon.log.read_text()
    assert PageClient(port).get("/").status == 200


def test_a_body_that_is_too_long(page_daemon: tuple[DaemonProcess, int], operator: PageClient) -> None:
    del page_daemon
    assert operator.request("POST", "/api/recorders/cam0/stop", b" " * 20_000).code == "bad_payload"
    answer = operator.request("POST", "/api/recorders/cam0/stop", b" " * 40_000)
    assert (answer.status, answer.code) == (413, "bad_payload")
    with contextlib.suppress(OSError):  # the answer, or a connection that was closed before all was sent
        assert PageClient(operator.port).request("POST", "/api/recorders/cam0/stop", b" " * 5_000_000).status == 401
    assert operator.get("/api/session").status == 200


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.promise("page-floods")
def test_floods_cost_no_frame_and_little_memory(recording: tuple[DaemonProcess, PageClient]) -> None:
    daemon, client = recording
    with client.stream("/api/recorders/cam0/live.mp4") as warm:
        warm.read(10_000)  # what a first viewer loads is no part of a flood's cost
    client.get("/api/recorders/cam0/live.jpg")
    began = len(daemon.wait_for_chunks(1))
    before = daemon.status("VmRSS")
    highest = 0
    deadline = time.monotonic() + ATTACK_S
    with contextlib.ExitStack() as stack:
        readers = [slow_reader(stack, client) for _ in range(4)]
        while time.monotonic() < deadline:
            with contextlib.ExitStack() as round_:
                for number in range(200):
                    slow_sender(round_, client.port, number)
                for data in NONSENSE[-2:]:
                    with contextlib.suppress(OSError):
                        raw_exchange(client.port, data, timeout=2.0)
                highest = max(highest, daemon.status("VmRSS"))
                time.sleep(0.5)  # they are all connected for a while: the server must bear it
        del readers
    assert highest - before < 30 * MIB, f"{(highest - before) / MIB:.1f} MiB"
    until(lambda: _answers(client), "the page does not answer after the flood")
    assert client.get("/api/session").json["role"] == "operator", "sessions continue"
    assert client.get("/api/health").status == 200
    assert_nothing_lost(daemon, began)
    assert "Traceback" not in daemon.log.read_text()


def slow_sender(stack: contextlib.ExitStack, port: int, number: int) -> None:
    """A connection that begins a request and does not end it."""
    connection = stack.enter_context(socket.socket())
    connection.setblocking(False)
    connection.bind((f"127.0.{number % 3}.2", 0))
    with contextlib.suppress(OSError):
        connection.connect_ex(("127.0.0.1", port))
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_WRITE)
            if selector.select(0.2):
                connection.send(HALF_A_REQUEST + b"a" * number)


def slow_reader(stack: contextlib.ExitStack, client: PageClient) -> socket.socket:
    """A viewer that asks for live video and does not read it."""
    connection = stack.enter_context(socket.socket())
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", client.port))
    request = f"GET /api/recorders/cam0/live.mp4 HTTP/1.1\r\nHost: localhost\r\nCookie: {client.cookie}\r\n\r\n"
    connection.sendall(request.encode())
    return connection
