"""The other end of the local socket: what `msrecd ctl` uses on the device itself. Blocking, with deadlines."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from msrecd.errors import MsrecdError
from msrecd.local.protocol import ANSWER_LIMIT_BYTES, socket_path

CONNECT_DEADLINE_S = 2.0


class LocalError(MsrecdError):
    """The daemon did not answer, or not as it should."""


class LocalDaemon:
    """One exchange with the daemon of this machine. Use as a context manager.

    Attributes:
        device_id, config: whose it is.
    """

    def __init__(self, path: Path | None = None) -> None:
        """
        Raises:
            OSError: no daemon listens there (FileNotFoundError, ConnectionRefusedError), or it may not be opened
                (PermissionError).
            LocalError: something else answers there.
        """
        self._socket = socket.socket(socket.AF_UNIX)
        self._buffer = b""
        try:
            self._socket.settimeout(CONNECT_DEADLINE_S)
            self._socket.connect(str(path or socket_path()))
            greeting = self._read(CONNECT_DEADLINE_S)
        except BaseException:
            self._socket.close()
            raise
        self.device_id = str(greeting.get("device"))
        self.config = Path(str(greeting.get("config")))

    def has_config(self, path: Path) -> bool:
        """Whether that file is the daemon's configuration, however its path is written."""
        return self.config == path.absolute() or self.config.resolve() == path.resolve()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, path: str, payload: bytes, timeout_s: float) -> dict[str, Any]:
        """Run a command; its reply.

        Raises:
            LocalError: there was none within `timeout_s` seconds.
        """
        return self._ask({"command": path, "payload": payload.decode()}, timeout_s)

    def look(self, recorder: str, *, with_jpeg: bool, timeout_s: float) -> dict[str, Any]:
        """What the tracks of a recorder are; a reply like that of a command. Raises as `send`."""
        return self._ask({"look": recorder, "jpeg": with_jpeg}, timeout_s)

    def states(self, timeout_s: float) -> dict[str, Any]:
        """The present states by path. Raises as `send`."""
        return self._ask({"states": True}, timeout_s)

    def _ask(self, request: Mapping[str, object], timeout_s: float) -> dict[str, Any]:
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as exc:
            raise LocalError(f"the daemon closed the connection: {exc}") from exc
        return self._read(timeout_s)

    def _read(self, timeout_s: float) -> dict[str, Any]:
        """One line."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                data = self._socket.recv(65536)
            except TimeoutError as exc:
                raise LocalError(f"the daemon did not answer within {timeout_s:g} s") from exc
            except OSError as exc:
                raise LocalError(f"the daemon closed the connection: {exc}") from exc
            if not data or len(self._buffer) > ANSWER_LIMIT_BYTES:
                raise LocalError("the daemon closed the connection" if not data else "the daemon's answer is too long")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise LocalError("something else than msrecd answers there")
        return value
