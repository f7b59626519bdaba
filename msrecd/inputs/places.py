"""Where a network input may lead: to no other host than the configured one, unless that is allowed.

libav follows redirections of RTSP and RTMP, what an HLS playlist names, and the redirections of that, and has no option
against it. But it says where it is about to connect to, and the reading process can end there. What holds for a flaw
that is exploited is the sandbox (confine.py); and RTP over UDP goes where the camera's answer says.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from msrecd.libav.words import hear_places


def elsewhere(host: str) -> str:
    shown = "".join(c if c.isalnum() or c in ".-:" else "?" for c in host)[:100]
    return f'it leads to another host ({shown}): configure that one, or allow it with redirects = "any"'


def stay_on(url: str, *, any_host: bool, refuse: Callable[[str], None]) -> None:
    """From now on, call `refuse` before libav connects to another host than the URL's; that must not return.

    Where any host is allowed, nothing is refused but RTSP and RTMP with a password, which libav would give to the
    other one.
    """
    parts = urlsplit(url)
    has_password = parts.username is not None and parts.scheme not in ("http", "https")
    if any_host and not has_password:
        return
    host = parts.hostname or ""
    known = _addresses(host)

    def judge(place: str) -> None:
        address = _address(place)
        if address not in known:
            known.update(_addresses(host))  # a name may have others by now
        if address not in known:
            refuse(elsewhere(place) if not any_host else f"{elsewhere(place)} and no password in the URL")

    hear_places(judge)


def _addresses(host: str) -> set[str]:
    try:
        return {_address(str(info[4][0])) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


def _address(text: str) -> str:
    """One spelling for each address."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
