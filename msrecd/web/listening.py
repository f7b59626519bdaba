"""The listening socket: an address of the configuration, or one that systemd hands over (sd_listen_fds(3))."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from msrecd.errors import ConfigError
from msrecd.vocabulary.listen import ListenAddress
from msrecd.vocabulary.tls import is_loopback, server_context
from msrecd.web.http11 import HEADER_LIMIT_BYTES
from msrecd.web.websettings import WebSettings

FD_NAME = "web"
_FIRST_FD = 3
_BACKLOG = 32
_GROUP = "msrecd"
_TLS_DEADLINE_S = 10.0

Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listener:
    """Belongs to the web thread."""

    def __init__(self, settings: WebSettings, *, has_password: bool) -> None:
        self._settings = settings
        self._has_password = has_password
        self._servers: list[asyncio.Server] = []
        self._made: Path | None = None  # a unix socket of our own

    @property
    def is_open(self) -> bool:
        return bool(self._servers)

    @property
    def place(self) -> str:
        address = self._settings.listen
        return address.path or f"{address.host}, port {address.port}"

    async def open(self, accept: Accept) -> None:
        """
        Raises:
            OSError: the address cannot be had now.
            ConfigError: it never can be used so.
        """
        tls = self._tls()
        handed_over = sockets_of_systemd()
        address = self._settings.listen
        if not self._has_password and not all(map(is_local, handed_over)):
            raise ConfigError("web.password_file: is needed, since systemd's socket can be reached from the network")
        sockets = handed_over
        if address.path and not handed_over:
            sockets = [_unix_socket(address.path)]
            self._made = Path(address.path)
        if sockets:
            for one in sockets:
                self._servers.append(await self._serve(accept, tls, sock=one))
        else:
            self._servers.append(await self._serve(accept, tls, host=address.host, port=address.port))

    async def _serve(
        self,
        accept: Accept,
        tls: ssl.SSLContext | None,
        *,
        host: str | None = None,
        port: int | None = None,
        sock: socket.socket | None = None,
    ) -> asyncio.Server:
        deadline = _TLS_DEADLINE_S if tls is not None else None
        if sock is not None and sock.family == socket.AF_UNIX:
            # Python 3.13 would remove the file of a socket that is systemd's.
            options: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
            return await asyncio.start_unix_server(
                accept,
                sock=sock,
                ssl=tls,
                limit=HEADER_LIMIT_BYTES,
                backlog=_BACKLOG,
                ssl_handshake_timeout=deadline,
                **options,
            )
        return await asyncio.start_server(
            accept,
            host,
            port,
            sock=sock,
            ssl=tls,
            limit=HEADER_LIMIT_BYTES,
            backlog=_BACKLOG,
            ssl_handshake_timeout=deadline,
        )

    def _tls(self) -> ssl.SSLContext | None:
        settings = self._settings
        if settings.cert_file is None:
            return None
        return server_context(settings.cert_file, settings.key_file, "web")

    def close(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._made is not None:
            with contextlib.suppress(OSError):
                self._made.unlink()


def _unix_socket(place: str) -> socket.socket:
    """Bound, for its owner and the group `msrecd`.

    Raises:
        OSError: another process listens there, or it cannot be made.
    """
    path = Path(place)
    made = socket.socket(socket.AF_UNIX)
    try:
        if path.is_socket():
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(0.5)
                if probe.connect_ex(place) == 0:
                    raise OSError("another process listens there")
            path.unlink()
        made.bind(place)
        with contextlib.suppress(KeyError, OSError):  # no such group, or not a member of it
            os.chown(path, -1, grp.getgrnam(_GROUP).gr_gid)
        path.chmod(0o660)
    except BaseException:
        made.close()
        raise
    return made


def sockets_of_systemd(environment: Mapping[str, str] = os.environ) -> list[socket.socket]:
    """Those that the service manager opened for the page: named `web`, or the only ones there are."""
    if environment.get("LISTEN_PID") != str(os.getpid()) or not environment.get("LISTEN_FDS", "").isdigit():
        return []
    count = int(environment["LISTEN_FDS"])
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    found = []
    for number in range(count):
        name = names[number] if number < len(names) else ""
        if name in (FD_NAME, "", "unknown", "msrecd-web.socket"):
            os.set_inheritable(_FIRST_FD + number, False)
            fd = os.dup(_FIRST_FD + number)  # the original stays for a second try
            made = socket.socket(fileno=fd)
            made.setblocking(False)
            found.append(made)
    return found


def is_local(sock: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return sock.family == socket.AF_UNIX or is_loopback(str(sock.getsockname()[0]))


def host_names(address: ListenAddress) -> frozenset[str]:
    """The names of this device that a Host header may have, in lower case."""
    own = socket.gethostname().lower()
    short = own.partition(".")[0]
    return frozenset(name for name in (own, short, f"{short}.local", address.host.lower()) if name)
