"""What is judged of a request before anything else: Host, Origin, path. Pure functions.

A browser on the device's network may run a page of anybody. Host keeps out names that such a page has pointed to this
device (DNS rebinding); Origin keeps out what such a page sends with the browser's cookie. `Sec-Fetch-Site` is not sent
over plain HTTP to other hosts than localhost, so nothing rests on it; where it is sent it is believed.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl, unquote_to_bytes

from msrecd.web.router import CHANGING, HttpError

_TARGET_LIMIT = 2048
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%A-Za-z]{2,60}\]|[A-Za-z0-9._-]{1,253})(:[0-9]{1,5})?")
_QUERY_LIMIT = 16


def check_host(host: str, names: Collection[str]) -> None:
    """`names`: of this device, in lower case; addresses, localhost and `<name>.local` are known without.

    Raises: HttpError 403.
    """
    match = _HOST.fullmatch(host)
    name = match[1].lower().rstrip(".") if match else ""
    if match and (_is_address(name) or name in names or name in ("localhost", "ip6-localhost")):
        return
    raise HttpError(403, "bad_host", "this device has another name; use its address, or its name with .local")


def check_origin(method: str, headers: Mapping[str, str], scheme: str) -> None:
    """
    Raises: HttpError 403: another page sends this, or a changing request does not say which page it comes from.
    """
    origin = headers.get("origin")
    if origin is None:
        if method in CHANGING:
            raise HttpError(403, "bad_origin", "a changing request needs an Origin header, that of this page")
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not _navigates(headers):
            raise HttpError(403, "bad_origin", "another site's page asks for this")
    elif origin.lower() != f"{scheme}://{headers.get('host', '').lower()}":
        raise HttpError(403, "bad_origin", "another site's page asks for this")


def _navigates(headers: Mapping[str, str]) -> bool:
    """Whether a person followed a link."""
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"


def split_target(target: str) -> tuple[str, tuple[str, ...], dict[str, str]]:
    """Path, its decoded segments, and the query.

    Raises: HttpError 400, 414.
    """
    if len(target) > _TARGET_LIMIT:
        raise HttpError(414, "bad_request", f"the address is longer than {_TARGET_LIMIT} characters")
    path, _, query = target.partition("?")
    if not path.startswith("/"):
        raise HttpError(400, "bad_request", "an absolute path is expected")
    try:
        segments = tuple(_decoded(segment) for segment in path[1:].split("/"))
        fields = parse_qsl(query, keep_blank_values=True, max_num_fields=_QUERY_LIMIT, errors="strict")
    except ValueError as exc:
        raise HttpError(400, "bad_request", "the address cannot be read") from exc
    return path, segments, dict(fields)


def _decoded(segment: str) -> str:
    """
    Raises: ValueError: it is no UTF-8, or holds what is no part of a segment.
    """
    text = unquote_to_bytes(segment).decode("utf-8")
    if "/" in text or "\\" in text or not text.isprintable() or text in (".", ".."):
        raise ValueError("not a segment")
    return text


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]").partition("%")[0])
    except ValueError:
        return False
    return True
