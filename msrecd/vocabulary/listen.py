"""The address at which the web page listens: `host:port`, `[::]:port` or `unix:/path`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from msrecd.vocabulary.tls import is_loopback

_UNIX = "unix:"
_UNIX_LIMIT_BYTES = 107  # unix(7): sun_path
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9._-]{1,15})?")


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """`path` of a unix socket, else `host` (without brackets) and `port`."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return bool(self.path) or is_loopback(self.host)


def parse_listen(text: str) -> ListenAddress:
    """
    Raises:
        ValueError: it is no such address; the message says why.
    """
    if text.startswith(_UNIX):
        path = text.removeprefix(_UNIX)
        if not path.startswith("/") or path.endswith("/"):
            raise ValueError(f'"{text}" takes an absolute path, like "unix:/run/msrecd/web.sock"')
        if len(path.encode()) > _UNIX_LIMIT_BYTES:
            raise ValueError(f'"{text}" is too long: the path of a unix socket has at most {_UNIX_LIMIT_BYTES} bytes')
        return ListenAddress(path=path)
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        raise ValueError(f'"{text}" needs a port, like "127.0.0.1:8080", "[::]:8080" or "unix:/path"')
    if len(port) > 5 or not 1 <= int(port) <= 65535:
        raise ValueError(f'"{text}": the port {port[:12]} is out of range; it takes one from 1 to 65535')
    is_bracketed = host.startswith("[") and host.endswith("]")
    name = host[1:-1] if is_bracketed else host
    if (":" in name) != is_bracketed or not _HOST.fullmatch(name):
        raise ValueError(f'"{text}" is no host and port, like "127.0.0.1:8080", "[::]:8080" or "unix:/path"')
    return ListenAddress(host=name, port=int(port))
