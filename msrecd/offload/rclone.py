"""The daemon's side of rclone, which works in a process of its own: that of a unit, else a child of the daemon."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

from msrecd.offload.rcloneconfig import RcloneSettings
from msrecd.offload.target import Refused, Stopped, StoreError, Unfit, Unreachable

SILENCE_S = 30.0  # the other process says every few seconds that it works
_END_S = 5.0
_ANSWER_BYTES = 65_536
_ERRORS: dict[str, type[StoreError]] = {"Refused": Refused, "Unfit": Unfit}
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "VIRTUAL_ENV", "TMPDIR")  # nothing that holds secrets of the service


def unit_socket() -> Path:
    """Where systemd listens for msrecd-rclone@.service: beside the runtime folder, which goes with the daemon."""
    folder = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(f"{folder or '/run/msrecd'}-rclone.sock")


class RcloneTarget:
    """One thread at a time; `stop` from any. A Target."""

    def __init__(self, settings: RcloneSettings, root: Path, *, unit: Path | None = None) -> None:
        """
        Args:
            root: folder of the recordings.
            unit: the unit's socket; None: where it usually is.
        """
        self.name = f"rclone:{settings.remote}"
        self._hello = {
            "remote": settings.remote,
            "config_file": str(settings.config_file),
            "prefix": settings.prefix,
            "ca_file": None if settings.ca_file is None else str(settings.ca_file),
            "rate": settings.rate,
            "root": str(root),
        }
        self._unit = unit
        self._connection: socket.socket | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._received = b""
        self._stopping = threading.Event()

    def put(self, key: str, body: BinaryIO, *, size: int, sha256: str, mime_type: str) -> str:
        """See Target. The other process reads a file by its path; what is in memory goes along."""
        request: dict[str, Any] = {"put": key, "bytes": size, "sha256": sha256}
        if isinstance(body, io.BytesIO):
            content = body.getvalue()
            if hashlib.sha256(content).hexdigest() != sha256:
                raise Unfit("the line is not what was recorded")
            request["data"] = content.decode()
        answer = self._ask(request)
        if "proof" in answer:
            return str(answer["proof"])
        raise _ERRORS.get(str(answer.get("error")), Unreachable)(str(answer.get("message", "")))

    def stop(self) -> None:
        """Give up what is being sent: the other process ends with the connection."""
        self._stopping.set()
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        self._received = b""
        if connection is not None:
            connection.close()
        child, self._child = self._child, None
        if child is not None:
            try:
                child.wait(_END_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        for is_last in (False, True):
            if self._stopping.is_set():
                raise Stopped("stopping")
            is_new = self._connection is None
            try:
                connection = self._connected()
                connection.sendall(json.dumps(request).encode() + b"\n")
                return self._read(connection)
            except TimeoutError as exc:
                self.close()
                raise Unreachable(f"the process of rclone was silent for {SILENCE_S:g} s") from exc
            except (OSError, ValueError) as exc:
                self.close()
                if self._stopping.is_set():
                    raise Stopped("stopping") from exc
                if is_new or is_last:  # else: it had nothing to do for long, and ended
                    raise Unreachable("the process of rclone ended (memory, or killed); its journal says why") from exc
        raise AssertionError("unreachable")

    def _read(self, connection: socket.socket) -> dict[str, Any]:
        while True:
            while b"\n" not in self._received:
                block = connection.recv(_ANSWER_BYTES)
                if not block or len(self._received) > _ANSWER_BYTES:
                    raise ConnectionResetError
                self._received += block
            line, _, self._received = self._received.partition(b"\n")
            answer = json.loads(line)
            if not isinstance(answer, dict):
                raise ConnectionResetError
            if "busy" not in answer:
                return answer

    def _connected(self) -> socket.socket:
        if self._connection is None:
            connection = self._open()
            connection.settimeout(SILENCE_S)
            self._connection = connection
            connection.sendall(json.dumps(self._hello).encode() + b"\n")
        return self._connection

    def _open(self) -> socket.socket:
        path = self._unit or unit_socket()
        if path.exists():
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(SILENCE_S)
                connection.connect(str(path))
            except OSError as exc:
                connection.close()
                raise Refused(f"{path}: {exc.strerror}; look at: systemctl status msrecd-rclone.socket") from exc
            return connection
        if os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid()):  # a service: rclone is to have limits of its own
            raise Refused("rclone works in a unit of its own: systemctl enable --now msrecd-rclone.socket")
        return self._start_child()

    def _start_child(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        environment = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "msrecd.offload.runner"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        return ours
