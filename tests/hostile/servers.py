"""Servers and brokers that want to harm, one behaviour each; names and protocols are those of the real things.

RTSP 1.0 (RFC 2326), HTTP/1.1 (RFC 9112), MQTT 5 (OASIS). A behaviour is a function of (server, connection).
"""

from __future__ import annotations

import base64
import itertools
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from tests.inputs.cameras import Server

Behaviour = Callable[["Hostile", socket.socket], None]
HEAD = b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
SOUND = b"m=audio 0 RTP/AVP 96\r\na=rtpmap:96 %s/1000\r\na=control:t\r\n"
FRAMES = b"m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1%s\r\na=control:t\r\n"
SETS = b";sprop-parameter-sets=" + b",".join(
    base64.b64encode(bytes.fromhex(unit)) for unit in ("6742c00ad9014108", "68cb83cb")
)
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(14) + b"\x11" * 16 + bytes(72)
ASF_DESCRIPTION = (
    HEAD + b"a=pgmpu:data:application/vnd.ms.wms-hdr.asfv1;base64," + base64.b64encode(_ASF)
    + b"\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 x-asf-pf/1000\r\na=control:t\r\n"
)  # fmt: skip


class Hostile(Server):
    """Does to every client what `behaviour` says."""

    def __init__(self, behaviour: Behaviour, scheme: str, path: str = "x", *, host: str = "127.0.0.1") -> None:
        super().__init__(host)
        self._behaviour = behaviour
        self.url = f"{scheme}://{host}:{self.port}/{path}"

    def serve(self, connection: socket.socket) -> None:
        self._behaviour(self, connection)

    def flood(self, connection: socket.socket, pieces: Iterator[bytes], pause_s: float = 0.0) -> None:
        for piece in pieces:
            if self.stopping.wait(pause_s):
                return
            connection.sendall(piece)


# --- RTSP ------------------------------------------------------------------------------------------------------------


def requests(connection: socket.socket) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(method, CSeq, Transport) of each request."""
    waiting = b""
    while data := connection.recv(65536):
        waiting += data
        while b"\r\n\r\n" in waiting:
            request, waiting = waiting.split(b"\r\n\r\n", 1)
            lines = {
                line.split(b":")[0].lower(): line.partition(b":")[2].strip() for line in request.split(b"\r\n")[1:]
            }
            yield request.split()[0], lines.get(b"cseq", b"0"), lines.get(b"transport", b"")


def rtsp(
    description: bytes = HEAD + FRAMES % SETS,
    play: Behaviour | None = None,
    *,
    status: bytes = b"200 OK",
    extra: bytes = b"",
    only: bytes = b"DESCRIBE",
    length: bytes | None = None,
    repeat: int = 1,
    cseq: bytes | None = None,
    name: bytes = b"camera",
) -> Behaviour:
    """A server that answers properly, but for what is given here; `status` and `extra` for the method `only`."""

    def behave(server: Hostile, connection: socket.socket) -> None:
        for method, number, transport in requests(connection):
            body = description if method == b"DESCRIBE" else b""
            count = repeat if body else 1
            said = length if body and length is not None else str(len(body) * count).encode()
            lines = [
                b"RTSP/1.0 " + (status if method == only else b"200 OK"),
                b"CSeq: " + (cseq or number),
                b"Server: " + name,
                b"Public: OPTIONS, DESCRIBE, SETUP, PLAY",
                b"Content-Length: " + said,
            ]
            if body:
                lines.append(b"Content-Type: application/sdp")
            if method == b"SETUP":
                lines += [b"Transport: " + transport, b"Session: 7"]
            if method == only and extra:
                lines.append(extra)
            connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
            for _ in range(count if body else 0):
                connection.sendall(body)
            if method == b"PLAY":
                if play is not None:
                    play(server, connection)
                server.stopping.wait(3.0)
                return

    return behave


def rtsp_redirect(server: Hostile, connection: socket.socket) -> None:
    """302 to itself, for each request and for ever (CVE-2026-107696)."""
    for _, number, _ in requests(connection):
        connection.sendall(
            b"RTSP/1.0 302 Found\r\nCSeq: "
            + number
            + f"\r\nLocation: {server.url}\r\nContent-Length: 0\r\n\r\n".encode()
        )


def rtp(payload: bytes, number: int, *, stamp: int | None = None, kind: int = 96, marks: bool = False) -> bytes:
    """Interleaved (RFC 2326, 10.12), on channel 0."""
    head = struct.pack(
        ">BBHII", 0x80, kind | marks << 7, number & 0xFFFF, (number * 3600 if stamp is None else stamp) & 0xFFFFFFFF, 1
    )
    packet = (head + payload)[:65535]
    return b"$\0" + struct.pack(">H", len(packet)) + packet


def random_packets(server: Hostile, connection: socket.socket) -> None:
    chance = random.Random(1)
    server.flood(connection, (rtp(chance.randbytes(chance.choice((0, 5, 1300, 60_000))), n) for n in range(400)), 0.002)


def endless_unit(server: Hostile, connection: socket.socket) -> None:
    """FU-A (RFC 6184, 5.8) that begins and never ends: 600 MB of one NAL unit."""
    begin = rtp(b"\x7c\x85" + b"x" * 60_000, 0, stamp=0)
    server.flood(
        connection, itertools.chain([begin], (rtp(b"\x7c\x05" + b"x" * 60_000, n, stamp=0) for n in range(1, 10_000)))
    )


def not_rtp(server: Hostile, connection: socket.socket) -> None:
    chance = random.Random(2)
    server.flood(connection, (chance.randbytes(1000) for _ in range(200)), 0.002)


def tiny_packets(server: Hostile, connection: socket.socket) -> None:
    server.flood(connection, (rtp(b"\x41", n, marks=True) * 200 for n in range(3000)))


def drip(answer: bytes) -> Behaviour:
    """A byte every 0.2 s."""

    def behave(server: Hostile, connection: socket.socket) -> None:
        connection.recv(65536)
        server.flood(connection, (bytes([byte]) for byte in answer * 100), 0.2)

    return behave


def says(*answers: bytes) -> Behaviour:
    """Answers the first request, then closes."""

    def behave(server: Hostile, connection: socket.socket) -> None:
        connection.recv(65536)
        for answer in answers:
            connection.sendall(answer)

    return behave


def endless(begin: bytes, piece: bytes) -> Behaviour:
    def behave(server: Hostile, connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(begin)
        server.flood(connection, itertools.repeat(piece, 100_000))

    return behave


def nothing(server: Hostile, connection: socket.socket) -> None:
    server.stopping.wait(60)


def closes(server: Hostile, connection: socket.socket) -> None:
    return


def resets(server: Hostile, connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# --- HTTP ------------------------------------------------------------------------------------------------------------


def http(body: bytes, *lines: str, status: str = "200 OK") -> Behaviour:
    head = "\r\n".join([f"HTTP/1.1 {status}", *lines, "Connection: close"]) + "\r\n\r\n"
    return says(head.encode(), body)


def redirect(to: str | Callable[[Hostile], str]) -> Behaviour:
    def behave(server: Hostile, connection: socket.socket) -> None:
        connection.recv(65536)
        target = to if isinstance(to, str) else to(server)
        connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode())

    return behave


def parts(part: Callable[[int], bytes], *, boundary: str = "b", pause_s: float = 0.02) -> Behaviour:
    """multipart/x-mixed-replace without end, as cameras send JPEGs."""

    def behave(server: Hostile, connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(
            f"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary={boundary}\r\n\r\n".encode()
        )
        for number in itertools.count():
            if server.stopping.wait(pause_s):
                return
            connection.sendall(part(number))

    return behave


# --- MQTT ------------------------------------------------------------------------------------------------------------

CONNACK, GRANTED_LENGTH = b"\x20\x03\0\0\0", 3


class HostileBroker:
    """Each connection gets the next script. Use as a context manager.

    Between two that end a connection at once stands one that lasts, so that the daemon's pauses do not grow.
    """

    def __init__(self, scripts: list[tuple[str, Callable[[socket.socket], None]]]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._scripts = scripts
        self.served: list[str] = []
        self.stopping = threading.Event()
        self.all_served = threading.Event()

    def __enter__(self) -> HostileBroker:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._listener.close()

    def _serve(self) -> None:
        for name, script in itertools.cycle(self._scripts):
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                client.settimeout(10)
                try:
                    client.recv(65536)
                    script(client)
                except OSError:
                    pass
            self.served.append(name)
            if len(self.served) >= len(self._scripts):
                self.all_served.set()


def broker_says(answer: bytes) -> Callable[[socket.socket], None]:
    return lambda client: client.sendall(answer)


def broker_grants_then(answer: bytes, lasts_s: float = 5.5) -> Callable[[socket.socket], None]:
    """CONNACK, a SUBACK for whatever is asked, and, a few seconds later, what is wrong."""

    def serve(client: socket.socket) -> None:
        client.sendall(CONNACK)
        body = client.recv(65536)
        at = body.find(b"\x82")
        if at >= 0:
            size = body[at + 1] & 0x7F | (body[at + 2] << 7 if body[at + 1] & 0x80 else 0)
            begin = at + (3 if body[at + 1] & 0x80 else 2)
            filters, place = 0, begin + 3 + body[begin + 2]
            while place < begin + size and place + 2 <= len(body):
                place += 3 + int.from_bytes(body[place : place + 2])
                filters += 1
            client.sendall(bytes([0x90, 3 + filters]) + body[begin : begin + 2] + b"\0" + b"\1" * filters)
        client.settimeout(lasts_s)
        try:
            while client.recv(65536):
                pass
        except TimeoutError:
            client.sendall(answer)

    return serve
