"""Routes, and who may take them. A route is the operator's unless it says otherwise, and nothing else is answered.

A module adds its routes in a function `add_routes(router, daemon)`:

    router.add("GET", "/api/things/{name}", show, access=Access.VIEWER)

    async def show(request: Request) -> Response:
        return json_response({"name": request.params["name"]})

`{name}` stands for one whole segment of the path, decoded and never with a slash in it. It is text from the network:
look it up, and never make a path of it. What is written out goes before `{name}` where both fit.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

JSON = "application/json"
CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Access(IntEnum):
    """Who may take a route; a higher one may take what a lower one may."""

    PUBLIC = 0
    VIEWER = 1
    OPERATOR = 2


class HttpError(Exception):
    """A request is refused; `message` is for people, without paths of this machine and without secrets."""

    def __init__(
        self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None, retryable: bool = False
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = dict(headers or {})
        self.retryable = retryable


@dataclass(slots=True)
class Request:
    """One request that was let in.

    path: as sent, without the query. query: the last value of each name. headers: by lower-case name. params: what
    stood for the `{name}`s of the route. peer: the address of the client, "" on a unix socket.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    peer: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    access: Access = Access.PUBLIC
    token: str = ""


@dataclass(slots=True)
class Response:
    """An answer.

    body: bytes, or an iterator whose pieces are sent as they come; it is closed (`aclose`) in any case.
    length: of an iterator's pieces together, where it is known; of what HEAD does not send.
    is_endless: the iterator waits for what happens: it is closed as soon as the client has gone or its session ends.
    """

    status: int = 200
    body: bytes | AsyncIterator[bytes] = b""
    type: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    is_endless: bool = False


Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """content_type: what the body of a changing request must be; "" for routes that take none."""

    method: str
    segments: tuple[str, ...]
    handler: Handler
    access: Access
    content_type: str

    @property
    def pattern(self) -> str:
        return "/" + "/".join(self.segments)

    def match(self, segments: tuple[str, ...]) -> dict[str, str] | None:
        if len(segments) != len(self.segments):
            return None
        params = {}
        for own, given in zip(self.segments, segments, strict=True):
            if own.startswith("{"):
                params[own[1:-1]] = given
            elif own != given:
                return None
        return params


class Router:
    """All routes of the server; filled before it listens."""

    def __init__(self) -> None:
        self._routes: list[Route] = []

    def add(
        self,
        method: str,
        pattern: str,
        handler: Handler,
        *,
        access: Access = Access.OPERATOR,
        content_type: str = JSON,
    ) -> None:
        """
        Raises:
            ValueError: a route that anybody may take would change something, or there is one like this.
        """
        segments = tuple(pattern.removeprefix("/").split("/"))
        if any(route.method == method and route.segments == segments for route in self._routes):
            raise ValueError(f"{method} {pattern} has a route already")
        self._routes.append(Route(method, segments, handler, access, content_type))
        self._routes.sort(key=lambda route: [segment.startswith("{") for segment in route.segments])

    @property
    def routes(self) -> tuple[Route, ...]:
        return tuple(self._routes)

    def find(self, method: str, segments: tuple[str, ...]) -> tuple[Route | None, dict[str, str], list[str]]:
        """The route of a path and its parameters; else None and the methods that the path has. HEAD is as GET."""
        wanted = "GET" if method == "HEAD" else method
        methods = set()
        for route in self._routes:
            params = route.match(segments)
            if params is None:
                continue
            if route.method == wanted:
                return route, params, []
            methods.add(route.method)
        return None, {}, sorted(methods)


def json_response(value: object, status: int = 200) -> Response:
    """`value` as JSON."""
    body = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
    return Response(status, body.encode("utf-8", "backslashreplace"), JSON)


def error_response(error: HttpError) -> Response:
    """A refusal, in the form of a command's reply."""
    value = {
        "status": "error",
        "error": {"code": error.code, "message": error.message, "retryable": error.retryable},
    }
    response = json_response(value, error.status)
    response.headers.update(error.headers)
    return response


def _plain(value: object) -> object:
    """Mappings and sequences of other classes than dict and list."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (tuple, frozenset, set)):
        return list(value)
    raise TypeError(f"{type(value).__name__} is no JSON")
