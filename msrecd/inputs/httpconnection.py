"""Connections to cameras that speak HTTP, where libav is not asked."""

from __future__ import annotations

import http.client
import ssl
from urllib.parse import SplitResult, urlunsplit


def connection_to(parts: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    """For one request to the host of an address; it connects with that.

    Raises:
        ValueError: the port is none.
    """
    host = parts.hostname or ""
    if parts.scheme == "https":  # certificates of cameras are their own; libav does not look at them either
        context = ssl._create_unverified_context()
        return http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=context)
    return http.client.HTTPConnection(host, parts.port, timeout=timeout_s)


def request_target(parts: SplitResult) -> str:
    """What the request asks for."""
    return urlunsplit(("", "", parts.path or "/", parts.query, ""))
