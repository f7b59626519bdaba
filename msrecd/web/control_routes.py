"""Log in, look at the states, send commands, hear of events."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib.util import find_spec

from msrecd.clock import SYSTEM_CLOCK
from msrecd.control.messages import decode_object
from msrecd.errors import CommandError, ConfigError
from msrecd.vocabulary.names import is_name
from msrecd.vocabulary.times import format_utc
from msrecd.web.daemonside import DaemonSide
from msrecd.web.metrics import TYPE, metrics
from msrecd.web.mirror import CLIENTS_LIMIT, StateMirror
from msrecd.web.passwords import PASSWORD_LIMIT, PasswordHash, read_hash
from msrecd.web.router import JSON, Access, HttpError, Request, Response, Router, json_response
from msrecd.web.sessions import COOKIE, LIFE_NS, LoginLimit, Sessions
from msrecd.web.websettings import WebSettings

log = logging.getLogger(__name__)

LEVELS_LIMIT = 16  # recorders whose levels one page wants
STATUS = {
    "bad_payload": 400,
    "bad_args": 400,
    "expired": 400,
    "retained_rejected": 400,
    "unknown_verb": 404,
    "unknown_recorder": 404,
    "wrong_state": 409,
    "device_busy": 409,
    "rate_limited": 429,
    "device_missing": 503,
    "no_space": 503,
    "internal": 500,
}


class Login:
    """Passwords and the sessions that they open. Belongs to the web thread."""

    def __init__(self, settings: WebSettings, daemon: DaemonSide) -> None:
        """
        Raises:
            ConfigError: a file of a password cannot be used.
        """
        self.sessions = Sessions()
        self.limit = LoginLimit()
        self.failed = 0
        self._daemon = daemon
        self._is_secure = settings.cert_file is not None
        self._one_at_a_time = asyncio.Lock()
        self._hashes: list[tuple[Access, PasswordHash]] = []
        for access, path, name in (
            (Access.OPERATOR, settings.password_file, "web.password_file"),
            (Access.VIEWER, settings.viewer_password_file, "web.viewer_password_file"),
        ):
            if path is not None:
                self._hashes.append((access, read_hash(path, name)))

    @property
    def is_needed(self) -> bool:
        """Without a password whoever reaches the address is the operator."""
        return bool(self._hashes)

    def access_of(self, request: Request) -> Access:
        """What a request may, by its cookie."""
        if not self.is_needed:
            return Access.OPERATOR
        session = self.sessions.find(request.token)
        return Access.PUBLIC if session is None else session.access

    async def log_in(self, request: Request) -> Response:
        """POST /api/login"""
        if not self.is_needed:
            return Response(204)
        password = _object_of(request).get("password")
        if not isinstance(password, str) or len(password) > PASSWORD_LIMIT:
            raise HttpError(400, "bad_payload", 'an object like {"password": "..."} is expected')
        if not self.limit.take(request.peer):
            raise HttpError(
                429, "rate_limited", "too many tries; wait 10 seconds", headers={"Retry-After": "10"}, retryable=True
            )
        access = await self._judge(password)
        if access is None:
            self.failed += 1
            log.warning("the page: a wrong password from %s", request.peer or "this machine")
            raise HttpError(401, "unauthorized", "the password is wrong")
        self.limit.give_back(request.peer)
        if request.token:
            self.sessions.end(request.token)
        session = self.sessions.begin(access)
        log.info("the page: %s logged in from %s", access.name.lower(), request.peer or "this machine")
        return Response(204, headers={"Set-Cookie": self._cookie(session.token, LIFE_NS // 10**9)})

    async def _judge(self, password: str) -> Access | None:
        """All hashes are tried, one at a time: each takes 16 MiB, and the time tells nothing."""
        found: Access | None = None
        async with self._one_at_a_time:
            for access, hashed in self._hashes:
                if await self._daemon.in_thread(hashed.fits, password) and found is None:
                    found = access
        return found

    async def log_out(self, request: Request) -> Response:
        """POST /api/logout"""
        self.sessions.end(request.token)
        return Response(204, headers={"Set-Cookie": self._cookie("", 0)})

    def _cookie(self, token: str, seconds: int) -> str:
        secure = "; Secure" if self._is_secure else ""
        return f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}"


def add_routes(
    router: Router,
    daemon: DaemonSide,
    mirror: StateMirror,
    login: Login,
    settings: WebSettings,
    hold: Callable[[str], Awaitable[Callable[[], None]]],
    health: Callable[[], Mapping[str, object]],
) -> None:
    """Those of login, states, commands and events. `hold` opens the inputs of a recorder until it is let go;
    `health` is what the page says of itself."""

    has_rtc = find_spec("aiortc") is not None

    async def session(request: Request) -> Response:
        facts = {"device": settings.device_id, "version": settings.version, "login": login.is_needed, "webrtc": has_rtc}
        now = format_utc(SYSTEM_CLOCK.realtime_ns())
        return json_response(facts | {"role": request.access.name.lower(), "now": now})

    async def recorders(_: Request) -> Response:
        return json_response(mirror.recorders())

    async def state(request: Request) -> Response:
        return json_response(mirror.states.get(request.path.rpartition("/")[2], {}))

    async def devices(_: Request) -> Response:
        return json_response(mirror.states.get("devices", []))

    async def errors(_: Request) -> Response:
        return json_response(list(mirror.errors))

    async def command(request: Request) -> Response:
        name, verb = request.params["recorder"], request.params["verb"]
        if not is_name(name) or not is_name(verb):
            raise HttpError(404, "unknown_recorder" if not is_name(name) else "unknown_verb", "there is no such thing")
        reply = await daemon.command(f"recorder/{name}/{verb}", request.body)
        return Response(status_of(reply), reply, JSON)

    async def hold_all(names: list[str]) -> Callable[[], None]:
        held: list[Callable[[], None]] = []

        def let_go() -> None:
            for call in held:
                call()

        try:
            for name in names[:LEVELS_LIMIT]:
                try:
                    held.append(await hold(name))
                except HttpError as exc:
                    if exc.status == 404 or len(names) == 1:
                        raise
                    # Its device is away: its state says so, and the others can be heard.
        except BaseException:
            let_go()
            raise
        return let_go

    async def events(request: Request) -> Response:
        if mirror.clients >= CLIENTS_LIMIT:
            raise HttpError(503, "rate_limited", "too many pages are open", headers={"Retry-After": "5"})
        headers = {"X-Accel-Buffering": "no"}
        listened = request.query.get("level", "")
        let_go = await hold_all(listened.split(",")) if listened else None
        return Response(200, EventBody(mirror.stream(), let_go), "text/event-stream", headers, is_endless=True)

    router.add("POST", "/api/login", login.log_in, access=Access.PUBLIC)
    router.add("POST", "/api/logout", login.log_out, access=Access.VIEWER)
    router.add("GET", "/api/session", session, access=Access.VIEWER)
    router.add("GET", "/api/recorders", recorders, access=Access.VIEWER)
    router.add("GET", "/api/devices", devices, access=Access.VIEWER)
    router.add("GET", "/api/health", state, access=Access.VIEWER)
    router.add("GET", "/api/daemon", state, access=Access.VIEWER)
    router.add("GET", "/api/errors", errors, access=Access.VIEWER)
    router.add("GET", "/api/events", events, access=Access.VIEWER)
    router.add("POST", "/api/recorders/{recorder}/{verb}", command, access=Access.OPERATOR)

    async def prometheus(_: Request) -> Response:
        text = metrics(mirror.states, mirror.happened, health(), settings.device_id)
        return Response(200, text.encode(), TYPE, {"Cache-Control": "no-store"})

    if settings.metrics:
        router.add("GET", "/metrics", prometheus, access=Access.PUBLIC)


class EventBody:
    """A stream of events; `aclose` lets go of what was opened for it."""

    def __init__(self, events: AsyncIterator[bytes], let_go: Callable[[], None] | None) -> None:
        self._events = events
        self._let_go = let_go

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._events)

    async def aclose(self) -> None:
        close = getattr(self._events, "aclose", None)
        if close is not None:
            await close()
        let_go, self._let_go = self._let_go, None
        if let_go is not None:
            let_go()


def status_of(reply: bytes) -> int:
    """The HTTP status of a command's reply."""
    value = json.loads(reply)
    return 200 if value["status"] == "ok" else STATUS.get(value["error"]["code"], 500)


def _object_of(request: Request) -> dict[str, object]:
    """
    Raises: HttpError 400.
    """
    try:
        return decode_object(request.body)
    except CommandError as exc:
        raise HttpError(400, exc.code, exc.message) from exc


__all__ = ["ConfigError", "Login", "add_routes", "status_of"]
