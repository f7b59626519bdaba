"""A real msrecd daemon as a child process, with a service manager's socket and its log in a file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VIRTUAL = """
[devices]
virtual = [
  { kind = "camera", label = "Test Camera", modes = [[320, 240, 30], [640, 360, 30]] },
  { kind = "microphone", label = "Test Microphone", signal = "beep" },
]
"""


def configuration(folder: Path, *, port: int | None, recorders: str, storage: str = "", more: str = VIRTUAL) -> str:
    """A configuration whose recordings and state lie below `folder`."""
    mqtt = "" if port is None else f'[mqtt]\nhost = "127.0.0.1"\nport = {port}\n'
    return f"""config_version = 1
[device]
id = "test-device"
{mqtt}
[storage]
path = "{folder / "recordings"}"
state_path = "{folder / "state"}"
{storage}
{more}
{recorders}
"""


class DaemonProcess:
    """`msrecd run` on a configuration of its own below `folder`; use as a context manager."""

    def __init__(self, folder: Path, config: str, *, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.recordings = folder / "recordings"
        self.state = folder / "state"
        for path in (self.recordings, self.state):
            path.mkdir(parents=True, exist_ok=True)
        self.config = folder / "msrecd.toml"
        self.config.write_text(config)
        self.log = folder / "daemon.log"
        self._environment = dict(environment or {})
        self.process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self.notified: list[str] = []  # lines told to the service manager, as systemd would read them

    def start(self, *, timeout: float = 20.0) -> None:
        """Start it and wait for READY=1.

        Raises:
            AssertionError: it did not get ready in time; the message holds its log.
        """
        address = f"\0msrecd-test-{os.getpid()}-{time.monotonic_ns()}"
        self._close_socket()
        self.notified.clear()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        environment = os.environ | {"NOTIFY_SOCKET": "@" + address[1:], "PYTHONUNBUFFERED": "1"} | self._environment
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "msrecd", "run", "--config", str(self.config)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        threading.Thread(target=self._listen, args=(self._socket,), daemon=True).start()
        self.wait_notified("READY=1", timeout=timeout)

    def _listen(self, listening: socket.socket) -> None:
        """Read what the daemon tells; a socket that nobody reads would block it."""
        while True:
            try:
                self.notified += listening.recv(4096).decode().splitlines()
            except OSError:
                return  # closed

    def wait_notified(self, line: str, *, timeout: float = 20.0) -> None:
        """Wait until the daemon has told its service manager this line."""
        deadline = time.monotonic() + timeout
        while line not in self.notified:
            assert self.process is not None
            code = self.process.poll()
            assert code is None, f"the daemon exited with {code}:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"no {line} within {timeout} s:\n{self.log.read_text()}"
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self._end(signal.SIGKILL, 10)

    def stop(self, timeout: float = 40.0) -> int:
        """SIGTERM, and wait; the exit code."""
        return self._end(signal.SIGTERM, timeout)

    def _end(self, number: int, timeout: float) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout)
        self._close_socket()
        return code

    def _close_socket(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes the listener
            self._socket.close()
            self._socket = None

    def __enter__(self) -> DaemonProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        self._close_socket()

    # --- what it left behind -----------------------------------------------------------------------------------------

    def chunks(self, recorder: str = "cam0") -> list[Path]:
        """Finished chunks of a recorder, in the order of their names."""
        folder = self.recordings / recorder
        return sorted(
            (p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".part", ".jsonl")),
            key=lambda path: path.name,
        )

    def parts(self) -> list[Path]:
        return sorted(self.recordings.rglob("*.part"))

    def manifest(self, recorder: str = "cam0") -> list[dict[str, Any]]:
        """All manifest lines of a recorder, recording by recording."""
        lines = []
        for path in sorted((self.recordings / recorder).rglob("*.jsonl"), key=lambda path: path.name):
            lines += [json.loads(line) for line in path.read_text().splitlines()]
        return lines

    def wait_for_chunks(self, count: int, *, recorder: str = "cam0", timeout: float = 30.0) -> list[Path]:
        """Wait until there are so many finished chunks."""
        deadline = time.monotonic() + timeout
        while len(found := self.chunks(recorder)) < count:
            assert time.monotonic() < deadline, f"{len(found)} chunks of {count}:\n{self.log.read_text()}"
            time.sleep(0.02)
        return found

    def wait_for_part(self, *, least_bytes: int = 1, timeout: float = 20.0) -> Path:
        """Wait until a chunk is being written and has so many bytes."""
        deadline = time.monotonic() + timeout
        while True:
            for path in self.parts():
                try:
                    if path.stat().st_size >= least_bytes:
                        return path
                except FileNotFoundError:
                    continue
            assert time.monotonic() < deadline, f"nothing is being written:\n{self.log.read_text()}"
            time.sleep(0.01)
