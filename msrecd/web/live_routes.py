"""Routes to look and listen: live video, one JPEG, WebRTC."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from msrecd import AbortError, DOMException, NotSupportedError
from msrecd.errors import CommandError
from msrecd.web.control_routes import STATUS, Login
from msrecd.web.daemonside import DaemonSide
from msrecd.web.livestreams import LiveStreams, Look
from msrecd.web.router import Access, HttpError, Request, Response, Router, json_response

VIEWERS_LIMIT = 8
FIRST_DEADLINE_S = 20.0  # a key frame, of a camera that has still to be opened
_WIDTH_LIMITS = (16, 4096)
_SDP = "application/sdp"


class LiveBody:
    """The pieces of a live stream; what was acquired for it is given back by `aclose`, also if none was read."""

    def __init__(self, first: bytes, rest: AsyncIterator[bytes], on_close: Callable[[], None]) -> None:
        self._first: bytes | None = first
        self._rest = rest
        self._on_close = on_close
        self._closed = False

    def __aiter__(self) -> LiveBody:
        return self

    async def __anext__(self) -> bytes:
        first, self._first = self._first, None
        if first is not None:
            return first
        try:
            return await anext(self._rest)
        except DOMException as exc:  # viewers are dropped, or the stream broke off: the page asks again
            raise StopAsyncIteration from exc

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            close = getattr(self._rest, "aclose", None)
            if close is not None:
                await close()
            self._on_close()


@dataclass(slots=True)
class _Peer:
    look: Look
    session: Any  # a session of StreamView.answer
    access_token: str
    take_back: Callable[[], None]


class LiveRoutes:
    """Belongs to the web thread; `streams` to the daemon's loop."""

    def __init__(self, daemon: DaemonSide, streams: LiveStreams, login: Login) -> None:
        self._daemon = daemon
        self._streams = streams
        self._login = login
        self._viewers = 0
        self._peers: dict[str, _Peer] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.refused = 0

    @property
    def viewers(self) -> int:
        return self._viewers + len(self._peers)

    def add_routes(self, router: Router) -> None:
        router.add("GET", "/api/recorders/{recorder}/live.mp4", self._video, access=Access.VIEWER)
        router.add("GET", "/api/recorders/{recorder}/live.jpg", self._photo, access=Access.VIEWER)
        router.add("GET", "/api/recorders/{recorder}/camera", self._camera, access=Access.VIEWER)
        router.add("POST", "/api/recorders/{recorder}/whep", self._answer, access=Access.VIEWER, content_type=_SDP)
        router.add(
            "DELETE", "/api/recorders/{recorder}/whep/{session}", self._hang_up, access=Access.VIEWER, content_type=""
        )

    async def hold(self, name: str) -> Callable[[], None]:
        """Open a recorder's inputs for one who listens; what lets go again.

        Raises: HttpError.
        """
        look = await self._look(name)
        return lambda: self._daemon.post(self._streams.release, look)

    async def _video(self, request: Request) -> Response:
        self._require_room()
        self._viewers += 1
        pieces: AsyncIterator[bytes] | None = None
        look: Look | None = None

        def let_go() -> None:
            self._viewers -= 1
            if look is not None:
                self._daemon.post(self._streams.release, look)

        try:
            look = await self._look(request.params["recorder"])
            pieces = look.view.fmp4()
            async with asyncio.timeout(FIRST_DEADLINE_S):
                first = await anext(pieces)
        except BaseException as exc:
            if pieces is not None:
                await pieces.aclose()  # type: ignore[attr-defined]
            let_go()
            if isinstance(exc, (DOMException, StopAsyncIteration, TimeoutError)):
                raise _refusal(exc) from exc
            raise
        return Response(200, LiveBody(first, pieces, let_go), look.view.mime_type, is_endless=True)

    async def _photo(self, request: Request) -> Response:
        width = _width(request.query.get("width", ""))
        try:
            jpeg = await self._daemon.call(self._streams.jpeg, request.params["recorder"], width)
        except CommandError as exc:
            raise _of_command(exc) from exc
        return Response(200, jpeg, "image/jpeg")

    async def _camera(self, request: Request) -> Response:
        try:
            return json_response(await self._daemon.call(self._streams.figures, request.params["recorder"]))
        except CommandError as exc:
            raise _of_command(exc) from exc

    async def _look(self, name: str) -> Look:
        try:
            return await self._daemon.call(self._streams.acquire, name)
        except CommandError as exc:
            raise _of_command(exc) from exc

    def _require_room(self) -> None:
        if self.viewers >= VIEWERS_LIMIT:
            self.refused += 1
            raise HttpError(
                503,
                "rate_limited",
                f"{VIEWERS_LIMIT} are watching already",
                headers={"Retry-After": "10"},
                retryable=True,
            )

    # --- WebRTC (https://datatracker.ietf.org/doc/draft-ietf-wish-whep/) ---------------------------------------------

    async def _answer(self, request: Request) -> Response:
        self._require_room()
        name = request.params["recorder"]
        try:
            offer = request.body.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise HttpError(400, "bad_payload", "an SDP offer is expected") from exc
        look = await self._look(name)
        try:
            session = await self._daemon.call(look.view.answer, offer)
        except BaseException as exc:
            self._daemon.post(self._streams.release, look)
            if isinstance(exc, DOMException):
                raise _refusal(exc) from exc
            raise
        number = secrets.token_urlsafe(16)
        take_back = _on_session_end(self._login, request, lambda: self._end(number))
        self._peers[number] = _Peer(look, session, request.token, take_back)
        self._keep(self._watch(number, session))
        headers = {"Location": f"/api/recorders/{name}/whep/{number}"}
        return Response(201, session.sdp.encode(), _SDP, headers)

    async def _hang_up(self, request: Request) -> Response:
        number = request.params["session"]
        peer = self._peers.get(number)
        if peer is None or peer.look.name != request.params["recorder"] or peer.access_token != request.token:
            raise HttpError(404, "not_found", "there is no such session")
        self._end(number)
        return Response(204)

    async def _watch(self, number: str, session: Any) -> None:
        """Until the peer has gone by itself."""
        wait = getattr(session, "wait_closed", None)
        if wait is not None:
            await self._daemon.forever(wait)
            self._end(number)

    def _end(self, number: str) -> None:
        peer = self._peers.pop(number, None)
        if peer is not None:
            peer.take_back()
            self._keep(self._close(peer))

    async def _close(self, peer: _Peer) -> None:
        try:
            await self._daemon.call(peer.session.close)
        finally:
            self._daemon.post(self._streams.release, peer.look)

    def _keep(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """End all sessions."""
        for number in list(self._peers):
            self._end(number)
        for task in list(self._closing):
            task.cancel()


def _on_session_end(login: Login, request: Request, call: Callable[[], None]) -> Callable[[], None]:
    session = login.sessions.find(request.token)
    if session is None:
        return lambda: None
    session.on_end.add(call)
    return lambda: session.on_end.discard(call)


def _of_command(exc: CommandError) -> HttpError:
    return HttpError(STATUS.get(exc.code, 500), exc.code, exc.message, retryable=bool(exc.retryable))


def _refusal(exc: BaseException) -> HttpError:
    if isinstance(exc, AbortError):
        return HttpError(503, "device_busy", exc.message, headers={"Retry-After": "5"}, retryable=True)
    if isinstance(exc, NotSupportedError):
        return HttpError(501, "not_supported", exc.message)
    if isinstance(exc, DOMException) and exc.name == "OperationError":
        return HttpError(400, "bad_payload", exc.message)
    if isinstance(exc, DOMException):
        return HttpError(409, "wrong_state", exc.message, retryable=True)
    return HttpError(503, "device_missing", "no frame came", headers={"Retry-After": "5"}, retryable=True)


def _width(text: str) -> int | None:
    """
    Raises: HttpError 400.
    """
    if not text:
        return None
    low, high = _WIDTH_LIMITS
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not low <= int(text) <= high:
        raise HttpError(400, "bad_args", f"width: a number of pixels from {low} to {high} is expected")
    return int(text)
