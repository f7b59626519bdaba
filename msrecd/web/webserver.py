"""WebServer: the adapter behind `[web]`: a thread with a loop of its own, which serves the page.

Nothing here can hold up the daemon's loop: the bus hands items over without waiting, and what the page wants of the
daemon it asks for (`DaemonSide`). A page that cannot be served is logged, tried again, and never ends the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping

from msrecd.control.bus import Adapter
from msrecd.errors import ConfigError
from msrecd.vocabulary.backoff import BackOff
from msrecd.web import control_routes, recordings
from msrecd.web.assets import Assets
from msrecd.web.control_routes import Login
from msrecd.web.daemonside import DaemonSide
from msrecd.web.doorkeeper import check_host, check_origin, split_target
from msrecd.web.http11 import HttpConnection
from msrecd.web.listening import Listener, host_names
from msrecd.web.live_routes import LiveRoutes
from msrecd.web.livestreams import LiveStreams
from msrecd.web.mirror import StateMirror
from msrecd.web.router import CHANGING, Access, HttpError, Request, Response, Router
from msrecd.web.sessions import COOKIE
from msrecd.web.websettings import WebSettings

log = logging.getLogger(__name__)

CONNECTIONS_LIMIT = 64
PEER_CONNECTIONS_LIMIT = 48
_POLICY = (
    "default-src 'self'; media-src 'self' blob:; img-src 'self' blob: data:; object-src 'none'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_THREAD_END_S = 5.0


class Site:
    """All routes, and who is let in. Belongs to the web thread."""

    def __init__(
        self,
        settings: WebSettings,
        daemon: DaemonSide,
        mirror: StateMirror,
        streams: LiveStreams,
        health: Callable[[], Mapping[str, object]],
    ) -> None:
        """
        Args:
            health: what the page says of itself.

        Raises:
            ConfigError: a file of a password cannot be used.
        """
        self.router = Router()
        self.login = Login(settings, daemon)
        self._scheme = "https" if settings.cert_file else "http"
        self._names = host_names(settings.listen)
        Assets().add_routes(self.router)
        self.live = LiveRoutes(daemon, streams, self.login)
        control_routes.add_routes(self.router, daemon, mirror, self.login, settings, self.live.hold, health)
        self.live.add_routes(self.router)
        self.recordings = recordings.add_routes(self.router, daemon)

    def admit(self, request: Request) -> Callable[[Request], Awaitable[Response]]:
        """Whether this may be asked at all, before its body is read.

        Raises: HttpError.
        """
        check_host(request.headers.get("host", ""), self._names)
        check_origin(request.method, request.headers, self._scheme)
        request.path, segments, request.query = split_target(request.path)
        request.token = _cookie(request.headers.get("cookie", ""))
        request.access = self.login.access_of(request)
        route, request.params, methods = self.router.find(request.method, segments)
        if request.access is Access.PUBLIC and (route is None or route.access is not Access.PUBLIC):
            raise HttpError(401, "unauthorized", "log in first")
        if route is None and methods:
            raise HttpError(
                405, "bad_request", "this address takes another method", headers={"Allow": ", ".join(methods)}
            )
        if route is None:
            raise HttpError(404, "not_found", "there is nothing at this address")
        if request.access < route.access:
            raise HttpError(403, "forbidden", "the viewer's password may look and listen only")
        if request.method in CHANGING and route.content_type:
            given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if given != route.content_type:
                raise HttpError(415, "bad_payload", f"Content-Type: {route.content_type} is expected")
        return route.handler

    def finish(self, request: Request | None, response: Response) -> None:
        """Add to a response what all have."""
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        if request is None or request.path.startswith("/api/") or response.status >= 400:
            response.headers.setdefault("Cache-Control", "no-store")

    def on_session_end(self, request: Request, call: Callable[[], object]) -> Callable[[], None]:
        """Call this when the session of a request ends; what takes that back."""
        session = self.login.sessions.find(request.token)
        if session is None:
            return lambda: None
        session.on_end.add(call)
        return lambda: session.on_end.discard(call)


class WebServer(Adapter):
    """See `Adapter`. Its methods belong to the daemon's loop."""

    name = "web"

    def __init__(self, settings: WebSettings, daemon: DaemonSide) -> None:
        self._settings = settings
        self._daemon = daemon
        self._mirror = StateMirror()
        self._streams: LiveStreams | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._site: Site | None = None
        self._listener: Listener | None = None
        self._connections: dict[asyncio.Task[None], str] = {}
        self._refused = 0

    async def start(self) -> None:
        self._daemon.bus.subscribe(self._mirror.receive)
        daemon = self._daemon
        streams = self._streams = LiveStreams(daemon.bus, daemon.recorders, daemon.devices, self._mirror.receive_level)
        self._mirror.on_clients = lambda count: daemon.post(streams.listen, count)
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        self._thread.start()

    async def stop(self, timeout_s: float) -> None:
        self._daemon.bus.unsubscribe(self._mirror.receive)
        if self._streams is not None:
            self._streams.close()
        loop, stopping, thread = self._loop, self._stopping, self._thread
        if loop is not None and stopping is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(stopping.set)
        if thread is not None:
            await asyncio.to_thread(thread.join, min(timeout_s, _THREAD_END_S))
            if thread.is_alive():
                log.warning("the page did not close within %g s", min(timeout_s, _THREAD_END_S))
        self._daemon.close()

    def health(self) -> Mapping[str, object]:
        site = self._site
        return {
            "listening": self._listener is not None and self._listener.is_open,
            "connections": len(self._connections),
            "connections_refused": self._refused,
            "sessions": 0 if site is None else len(site.login.sessions),
            "logins_failed": 0 if site is None else site.login.failed,
            "logins_refused": 0 if site is None else site.login.limit.refused,
            "commands_refused": self._daemon.commands_refused,
            "viewers": 0 if site is None else site.live.viewers,
            "viewers_refused": 0 if site is None else site.live.refused,
            "event_clients": self._mirror.clients,
            "event_clients_closed": self._mirror.closed_clients,
            "events_lost": self._mirror.lost_items,
            "levels_dropped": self._mirror.dropped_levels,
            **({} if site is None else site.recordings.health()),
        }

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception:
            log.exception("the page has ended; recording continues without it")

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        try:
            assert self._streams is not None
            self._site = Site(self._settings, self._daemon, self._mirror, self._streams, self.health)
        except ConfigError as exc:
            log.error("the page cannot be served: %s", exc)
            return
        self._mirror.attach(self._loop)
        self._listener = Listener(self._settings, has_password=self._site.login.is_needed)
        serving = asyncio.ensure_future(self._listen(self._listener))
        sweeping = asyncio.ensure_future(self._sweep(self._site))
        await self._stopping.wait()
        self._mirror.detach()
        for task in (serving, sweeping, *self._connections):
            task.cancel()
        await self._site.live.close()
        await asyncio.wait((serving, sweeping, *self._connections), timeout=_THREAD_END_S / 2)
        self._listener.close()

    async def _listen(self, listener: Listener) -> None:
        """Until it is cancelled; where the address cannot be had (yet), again and again."""
        back_off = BackOff()
        said = ""
        while True:
            try:
                await listener.open(self._accept)
                log.info("the page listens at %s", listener.place)
                return
            except ConfigError as exc:
                log.error("the page cannot be served: %s", exc)
                return
            except OSError as exc:
                problem = str(exc.strerror or exc)
                if problem != said:
                    log.warning("the page cannot listen at %s: %s; trying again", listener.place, problem)
                    said = problem
                await asyncio.sleep(back_off.next_s())

    async def _sweep(self, site: Site) -> None:
        while True:
            await asyncio.sleep(20)
            site.login.sessions.sweep()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        assert self._site is not None
        peer = writer.get_extra_info("peername")
        address = str(peer[0]) if isinstance(peer, tuple) and peer else ""
        of_peer = sum(1 for known in self._connections.values() if known == address)
        if len(self._connections) >= CONNECTIONS_LIMIT or of_peer >= PEER_CONNECTIONS_LIMIT:
            self._refused += 1
            writer.transport.abort()
            return
        self._connections[task] = address
        try:
            await HttpConnection(self._site, reader, writer).serve()
        except (OSError, TimeoutError) as exc:
            log.debug("closed a connection of the page: %s", exc or type(exc).__name__)
        except asyncio.CancelledError:
            pass  # the daemon stops
        except Exception:
            log.exception("a connection of the page failed")
        finally:
            self._connections.pop(task, None)
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()


def _cookie(header: str) -> str:
    """The token in a Cookie header, "" without one."""
    for pair in header.split(";"):
        name, _, value = pair.strip().partition("=")
        if name == COOKIE:
            return value[:128]
    return ""
