"""HTTP/1.1 connections on asyncio streams; the only importer of h11. Everything that arrives is bounded, and waits for
nobody: header, body, the time that each may take, the time that a client may take to read.

h11 knows the protocol (framing, keep-alive, pipelining, what is no valid message); sockets, time and limits are here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import h11

from msrecd.web.router import HttpError, Request, Response, error_response

if TYPE_CHECKING:
    from msrecd.web.webserver import Site

log = logging.getLogger(__name__)

HEADER_LIMIT_BYTES = 16 * 1024
BODY_LIMIT_BYTES = 32 * 1024  # a command has at most 16 KiB, and an SDP offer some
FIRST_DEADLINE_S = 10.0
IDLE_DEADLINE_S = 30.0
REQUEST_DEADLINE_S = 10.0
SEND_DEADLINE_S = 20.0
DISCARD_DEADLINE_S = 2.0
SEND_BUFFER_BYTES = 64 * 1024
UNSENT_LIMIT_BYTES = 128 * 1024  # in the kernel: what waits there is late, and cannot be dropped any more
_READ_BYTES = 16 * 1024
_TCP_NOTSENT_LOWAT = 25  # linux/tcp.h; the module socket does not name it


class HttpConnection:
    """One connection; `serve` until it is closed."""

    def __init__(self, app: Site, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._app = app
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_LIMIT_BYTES)
        self._peer = _address_of(writer)
        self._version = b"1.1"

    async def serve(self) -> None:
        """Answer what comes, one request after another.

        Raises:
            OSError, TimeoutError: the client has gone, or takes too long.
        """
        self._limit_buffers()
        deadline_s = FIRST_DEADLINE_S
        while await self._one(deadline_s):
            deadline_s = IDLE_DEADLINE_S

    def _limit_buffers(self) -> None:
        transport: Any = self._writer.transport
        transport.set_write_buffer_limits(high=SEND_BUFFER_BYTES)
        raw = self._writer.get_extra_info("socket")
        if raw is not None and raw.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_LIMIT_BYTES)

    async def _one(self, deadline_s: float) -> bool:
        """Answer one request; whether another may follow on this connection."""
        request: Request | None = None
        is_head = False
        try:
            head = await self._read_head(deadline_s)
            if head is None:
                return False
            request = self._request_of(head)
            is_head = request.method == "HEAD"
            async with asyncio.timeout(REQUEST_DEADLINE_S):
                handler = self._app.admit(request)
                request.body = await self._read_body()
            response = await handler(request)
        except h11.RemoteProtocolError as exc:
            response = error_response(HttpError(exc.error_status_hint, "bad_request", "this is no HTTP request"))
        except HttpError as exc:
            response = error_response(exc)
            if request is not None and not {"content-length", "transfer-encoding"} & request.headers.keys():
                self._http.next_event()  # there is no body: the connection can go on
        except TimeoutError:
            if request is None:
                raise
            response = error_response(HttpError(408, "bad_request", "the request did not come in time"))
        except OSError:
            raise
        except Exception:
            log.exception("a request to %s failed", request.path if request is not None else "the page")
            response = error_response(HttpError(500, "internal", "the request failed; the device's log says why"))
        self._app.finish(request, response)
        must_close = self._http.their_state is not h11.DONE
        await self._send(request, response, is_head=is_head, must_close=must_close)
        if must_close:
            await self._discard()
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    # --- reading -----------------------------------------------------------------------------------------------------

    async def _read_head(self, deadline_s: float) -> h11.Request | None:
        """None: the connection has ended."""
        try:
            async with asyncio.timeout(deadline_s):
                event = await self._next_event()
        except TimeoutError:
            return None  # nothing was asked
        return event if isinstance(event, h11.Request) else None

    async def _next_event(self) -> Any:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                await self._write(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(await self._reader.read(_READ_BYTES))

    def _request_of(self, head: h11.Request) -> Request:
        if head.http_version not in (b"1.0", b"1.1"):
            raise HttpError(505, "bad_request", "HTTP/1.1 is expected")
        self._version = head.http_version
        headers: dict[str, str] = {}
        for raw_name, raw_value in head.headers:
            name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
            if name in headers and name in ("host", "origin", "content-type", "cookie"):
                raise HttpError(400, "bad_request", f"the header {name} stands twice")
            headers[name] = value
        method, target = head.method.decode("ascii"), head.target.decode("ascii", "replace")
        return Request(method=method, path=target, query={}, headers=headers, peer=self._peer)

    async def _read_body(self) -> bytes:
        body = bytearray()
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Data):
                body += event.data
                if len(body) > BODY_LIMIT_BYTES:
                    raise HttpError(413, "bad_payload", f"the body has more than {BODY_LIMIT_BYTES} bytes")
            elif isinstance(event, h11.EndOfMessage):
                return bytes(body)
            else:
                raise ConnectionResetError("the client went away within its request")

    async def _discard(self) -> None:
        """Read on for a moment: a connection that is closed with something unread is reset, and with it the answer."""
        with contextlib.suppress(TimeoutError, OSError):
            if self._writer.can_write_eof():
                self._writer.write_eof()
            async with asyncio.timeout(DISCARD_DEADLINE_S):
                left = 4 * BODY_LIMIT_BYTES
                while left > 0 and (data := await self._reader.read(_READ_BYTES)):
                    left -= len(data)

    # --- writing -----------------------------------------------------------------------------------------------------

    async def _send(self, request: Request | None, response: Response, *, is_head: bool, must_close: bool) -> None:
        body = response.body
        headers = [(name.lower(), value) for name, value in response.headers.items()]
        if response.type:
            headers.append(("content-type", response.type))
        length = len(body) if isinstance(body, bytes) and response.length is None else response.length
        if length is not None and response.status not in (204, 304):
            headers.append(("content-length", str(length)))
        if must_close:
            headers.append(("connection", "close"))
        try:
            await self._write(h11.Response(status_code=response.status, headers=headers))
            if isinstance(body, bytes):
                if body and not is_head:
                    await self._write(h11.Data(data=body))
            elif not is_head and request is not None:
                await self._stream(request, body, response.is_endless)
            await self._write(h11.EndOfMessage())
        except h11.LocalProtocolError as exc:  # a body of another length than it said: what follows cannot be told
            raise ConnectionResetError(str(exc)) from exc
        finally:
            if not isinstance(body, bytes):
                await _close(body)

    async def _stream(self, request: Request, body: AsyncIterator[bytes], is_endless: bool) -> None:
        if not is_endless:
            async for data in body:
                await self._write(h11.Data(data=data))
            return
        sending = asyncio.ensure_future(self._send_all(body))
        watching = asyncio.ensure_future(self._reader.read(_READ_BYTES))
        take_back = self._app.on_session_end(request, sending.cancel)
        try:
            await asyncio.wait((sending, watching), return_when=asyncio.FIRST_COMPLETED)
            if not sending.done() and watching.exception() is None and (data := watching.result()):
                self._http.receive_data(data)  # the next request, already: it waits, and nothing more is read
                await asyncio.wait((sending,))
        finally:
            take_back()
            watching.cancel()
            if not sending.done():
                sending.cancel()
            await asyncio.wait((sending, watching))
        if sending.cancelled():
            raise ConnectionResetError("the client has gone, or its session has ended")
        sending.result()

    async def _send_all(self, body: AsyncIterator[bytes]) -> None:
        """Chunks by hand (RFC 9112 7.1): an h11 event for each frame and viewer is a fifth of what a viewer costs."""
        is_chunked = self._version == b"1.1"
        async for data in body:
            if not is_chunked:
                await self._write(h11.Data(data=data))
            elif data:
                await self._flush([b"%x\r\n" % len(data), data, b"\r\n"])

    async def _write(self, event: Any) -> None:
        """
        Raises:
            TimeoutError: the client does not read.
        """
        pieces = self._http.send_with_data_passthrough(event)
        if pieces:
            await self._flush(pieces)

    async def _flush(self, pieces: Sequence[bytes]) -> None:
        self._writer.writelines(pieces)
        if not self._writer.transport.get_write_buffer_size() and not self._writer.is_closing():
            return  # as nearly always: all of it is the kernel's already
        async with asyncio.timeout(SEND_DEADLINE_S):
            await self._writer.drain()


async def _close(body: AsyncIterator[bytes]) -> None:
    close = getattr(body, "aclose", None)
    if close is not None:
        await close()


def _address_of(writer: asyncio.StreamWriter) -> str:
    peer = writer.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""
