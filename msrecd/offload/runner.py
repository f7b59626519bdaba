"""`python -m msrecd.offload.runner`: works for one daemon over the socket that is its standard input, with one rclone.

The unit msrecd-rclone@.service starts it for each connection, so rclone has limits of its own and none of the daemon's
devices. Each message is one line of JSON:

    daemon:  {"remote": "nas:cameras", "config_file": "…", "prefix": "pi-7f3a/", "root": "/…/recordings", …}
    daemon:  {"put": "cam0/…/….mp4", "bytes": 1234, "sha256": "…"}       or, for a line of a manifest, with "data": "…"
    runner:  {"busy": true} every few seconds, then   {"proof": "sha256"}   or   {"error": "Unfit", "message": "…"}

It ends when the daemon does, in the middle of a file if need be, and after a minute without work.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

from msrecd.errors import ConfigError
from msrecd.offload.rcloneconfig import RcloneSettings
from msrecd.offload.rclonestore import RcloneStore, line_file
from msrecd.offload.target import StoreError

UNUSED_S = 60.0
BUSY_S = 5.0
LINE_BYTES = 2 << 20  # a line of a manifest is at most a megabyte, and text


class _Ended(BaseException):
    """The daemon has gone."""


class Runner:
    """Answers one request after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = b""
        self._said_s = time.monotonic()
        self._store: RcloneStore | None = None
        self._root = ""

    def run(self) -> None:
        """Until the daemon has gone, or wants nothing for a minute."""
        try:
            first = self._read()
            self._root = str(first["root"])
            settings = RcloneSettings(
                remote=str(first["remote"]),
                config_file=Path(str(first["config_file"])),
                prefix=str(first["prefix"]),
                ca_file=Path(str(first["ca_file"])) if first.get("ca_file") else None,
                rate=int(first["rate"]) if first.get("rate") else None,
            )
            while True:
                request = self._read()
                self._said_s = time.monotonic()
                self._write(self._answer(settings, request))
        except (_Ended, OSError):
            pass  # rclone ends with this process
        finally:
            if self._store is not None:
                self._store.close()

    def _answer(self, settings: RcloneSettings, request: dict[str, Any]) -> dict[str, Any]:
        try:
            if self._store is None:
                self._store = RcloneStore(settings, idle=self._idle)
            key, size, sha256 = str(request["put"]), int(request["bytes"]), str(request["sha256"])
            if "data" not in request:
                return {"proof": self._store.put(key, (self._root, key), size=size, sha256=sha256)}
            with line_file(str(request["data"]).encode()) as folder:
                return {"proof": self._store.put(key, (folder, "line"), size=size, sha256=sha256)}
        except StoreError as exc:
            return {"error": type(exc).__name__, "message": exc.message}
        except ConfigError as exc:
            return {"error": "Refused", "message": str(exc)}

    def _idle(self) -> None:
        """While rclone works: tell the daemon so; see whether it is still there."""
        self._connection.settimeout(0)
        try:
            if not self._connection.recv(1, socket.MSG_PEEK):
                raise _Ended
        except BlockingIOError:
            pass
        if time.monotonic() - self._said_s > BUSY_S:
            self._said_s = time.monotonic()
            self._write({"busy": True})

    def _read(self) -> dict[str, Any]:
        self._connection.settimeout(UNUSED_S)
        while b"\n" not in self._received:
            block = self._connection.recv(65_536)
            if not block or len(self._received) > LINE_BYTES:
                raise _Ended
            self._received += block
        line, _, self._received = self._received.partition(b"\n")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise _Ended
        return message

    def _write(self, message: dict[str, Any]) -> None:
        self._connection.settimeout(UNUSED_S)
        self._connection.sendall(json.dumps(message).encode() + b"\n")


def main() -> int:
    """Serve the daemon at standard input."""
    with socket.socket(fileno=sys.stdin.fileno()) as connection:
        Runner(connection).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
