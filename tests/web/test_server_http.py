"""Connections, without a daemon: what HTTP/1.1 allows, and what is waited for no longer than is said."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from msrecd.web import http11
from msrecd.web.http11 import HttpConnection
from msrecd.web.router import HttpError, Request, Response


class Site:
    """Answers what the tests ask for; knows of what was closed."""

    def __init__(self) -> None:
        self.closed: list[str] = []
        self.ends: list[Callable[[], object]] = []
        self.began = asyncio.Event()

    async def has_closed(self, what: str) -> None:
        for _ in range(1000):
            if what in self.closed:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{what} was not closed")

    def admit(self, request: Request) -> Callable[[Request], Awaitable[Response]]:
        if request.path == "/refused":
            raise HttpError(401, "unauthorized", "log in first")
        return self.answer

    def finish(self, request: Request | None, response: Response) -> None:
        response.headers.setdefault("X-Seen", "yes")

    def on_session_end(self, request: Request, call: Callable[[], object]) -> Callable[[], None]:
        self.ends.append(call)
        return lambda: self.ends.remove(call)

    async def answer(self, request: Request) -> Response:
        match request.path:
            case "/echo":
                return Response(200, request.body, "text/plain")
            case "/endless":
                return Response(200, self.endless(b"x" * 10), is_endless=True)
            case "/flood":
                return Response(200, self.endless(b"x" * 100_000, pause=0.0), is_endless=True)
            case "/broken":
                return Response(200, self.broken())
            case "/wrong":
                raise ValueError("a mistake")
        return Response(200, self.pieces(), "text/plain", length=6)

    async def pieces(self) -> AsyncIterator[bytes]:
        yield b"abc"
        yield b"def"

    async def endless(self, data: bytes, pause: float = 0.02) -> AsyncIterator[bytes]:
        try:
            while True:
                self.began.set()
                yield data
                await asyncio.sleep(pause)
        finally:
            self.closed.append("endless")

    async def broken(self) -> AsyncIterator[bytes]:
        yield b"abc"
        raise ValueError("half way")


Work = Callable[[Site, int], Awaitable[None]]


def serve(work: Work) -> None:
    """Run `work` beside a server."""

    async def go() -> None:
        site = Site()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await HttpConnection(site, reader, writer).serve()
            except (OSError, TimeoutError, ValueError):
                site.closed.append("given up")
            finally:
                writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        async with server, asyncio.timeout(60):
            await work(site, server.sockets[0].getsockname()[1])

    asyncio.run(go())


async def exchange(port: int, data: bytes) -> bytes:
    """All that comes back until the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        await writer.drain()
        return await reader.read()
    finally:
        writer.close()


def ask(path: str, *lines: str, method: str = "GET", body: bytes = b"", last: bool = True) -> bytes:
    more = ("Connection: close",) if last else ()
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, *more, "", ""]).encode() + body


def test_one_connection_serves_one_request_after_another() -> None:
    async def work(site: Site, port: int) -> None:
        both = ask("/echo", "Content-Length: 2", method="POST", body=b"hi", last=False) + ask("/pieces")
        answer = await exchange(port, both)
        assert answer.count(b"HTTP/1.1 200") == 2
        assert b"\r\n\r\nhi" in answer
        assert answer.endswith(b"abcdef")
        assert answer.lower().count(b"x-seen: yes") == 2
        refused = await exchange(port, ask("/refused", last=False) + ask("/pieces"))
        assert b"HTTP/1.1 401" in refused
        assert refused.endswith(b"abcdef"), "a refusal without a body leaves the connection open"

    serve(work)


def test_bodies_in_chunks_and_on_demand() -> None:
    async def work(site: Site, port: int) -> None:
        chunked = ask("/echo", "Transfer-Encoding: chunked", method="POST", body=b"2\r\nhi\r\n0\r\n\r\n")
        assert (await exchange(port, chunked)).endswith(b"hi")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ask("/echo", "Expect: 100-continue", "Content-Length: 2", method="POST"))
        assert (await reader.readline()).startswith(b"HTTP/1.1 100")
        writer.write(b"hi")
        assert (await reader.read()).endswith(b"hi")
        writer.close()
        too_long = b"x" * (http11.BODY_LIMIT_BYTES + 1)
        answer = await exchange(port, ask("/echo", f"Content-Length: {len(too_long)}", method="POST", body=too_long))
        assert b"HTTP/1.1 413" in answer
        head = await exchange(port, ask("/pieces", method="HEAD"))
        assert b"content-length: 6" in head.lower()
        assert head.endswith(b"\r\n\r\n")
        old = await exchange(port, b"GET /pieces HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert old.endswith(b"abcdef")

    serve(work)


def test_a_mistake_is_one_answer_and_half_a_body_is_none() -> None:
    async def work(site: Site, port: int) -> None:
        answer = await exchange(port, ask("/wrong"))
        assert b"HTTP/1.1 500" in answer
        assert b"a mistake" not in answer
        broken = await exchange(port, ask("/broken"))
        assert not broken.endswith(b"0\r\n\r\n"), "a client can tell that something is missing"

    serve(work)


def test_an_endless_body_ends_with_its_client_and_with_its_session() -> None:
    async def work(site: Site, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ask("/endless", last=False))
        await reader.readuntil(b"x" * 10)
        writer.close()
        await site.has_closed("endless")
        site.closed.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ask("/endless", last=False))
        await reader.readuntil(b"x" * 10)
        site.ends[0]()
        assert not (await reader.read()).endswith(b"0\r\n\r\n")
        assert "endless" in site.closed
        assert not site.ends
        writer.close()

    serve(work)


@pytest.mark.promise("page-slow-clients")
def test_who_does_not_send_or_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_DEADLINE_S", "IDLE_DEADLINE_S", "REQUEST_DEADLINE_S", "SEND_DEADLINE_S"):
        monkeypatch.setattr(http11, name, 1.0)

    async def work(site: Site, port: int) -> None:
        assert await exchange(port, b"") == b""
        assert await exchange(port, b"GET / HTT") == b""
        assert b"HTTP/1.1 408" in await exchange(port, ask("/echo", "Content-Length: 9", method="POST", body=b"hi"))
        with socket.socket() as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.connect(("127.0.0.1", port))
            lazy.sendall(ask("/flood"))
            await site.has_closed("given up")
        assert "endless" in site.closed

    serve(work)
