"""Where an HTTP server sends those who ask: followed here and not by libav, which would go to any host.

libav is told to follow nothing. When it fails, the answer is looked at once more: if it is a redirection that may
be followed, its target is opened. So a stream that needs none costs no second connection.
"""

from __future__ import annotations

import base64
import http.client
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

from msrecd.inputs.httpconnection import connection_to, request_target
from msrecd.inputs.places import elsewhere
from msrecd.libav.values import LibavError

_MOST = 8
_STATUSES = (301, 302, 303, 307, 308)


class Refused(LibavError):
    """It leads to another host, or nowhere."""


def target_of(url: str, timeout_s: float, *, any_host: bool) -> str | None:
    """Where the URL leads; None if nowhere else, or if nobody answers. Blocks.

    Raises:
        Refused: to another host than the URL's, to something that is not HTTP, or round and round.
    """
    parts = urlsplit(url)
    for _ in range(_MOST):
        try:
            location = _location(parts, timeout_s)
        except (OSError, http.client.HTTPException, ValueError):
            return None
        if location is None:
            return None if urlunsplit(parts) == url else urlunsplit(parts)
        parts = _followed(parts, location, any_host=any_host)
    raise Refused(f"it redirects more than {_MOST} times")


def _followed(parts: SplitResult, location: str, *, any_host: bool) -> SplitResult:
    try:
        new = urlsplit(urljoin(urlunsplit(parts), location))
        host = new.hostname or ""
        new.port  # noqa: B018  # raises for one that is none
    except ValueError:
        raise Refused("it redirects to what is no URL") from None
    if new.scheme not in ("http", "https") or not host:
        raise Refused(f"it redirects to a {new.scheme[:10]}: URL")
    if host == parts.hostname:
        user, at, _ = parts.netloc.rpartition("@")
        return new._replace(netloc=f"{user}{at}{new.netloc.rpartition('@')[2]}", fragment="")
    if not any_host:
        raise Refused(elsewhere(host))
    return new._replace(netloc=new.netloc.rpartition("@")[2], fragment="")  # the password is not for others


def _location(parts: SplitResult, timeout_s: float) -> str | None:
    """What the answer names as the place; None when it is no redirection."""
    connection = connection_to(parts, timeout_s)
    try:
        headers = {"Accept": "*/*", "Range": "bytes=0-"}
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        connection.request("GET", request_target(parts), headers=headers)
        answer = connection.getresponse()
        return answer.headers.get("Location") if answer.status in _STATUSES else None
    finally:
        connection.close()
