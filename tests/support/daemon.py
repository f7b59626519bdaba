"""A real msrecd daemon as a child process, with a service manager's socket and its log in a file."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from forkserver import ForkedProcess, ForkServer
from waiting import until


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
        self.runtime = Path(tempfile.mkdtemp(prefix="msrecd-run-"))  # short: the name of a socket has at most 107 bytes
        self._environment = {"RUNTIME_DIRECTORY": str(self.runtime)} | dict(environment or {})
        self.process: subprocess.Popen[bytes] | ForkedProcess | None = None
        self._socket: socket.socket | None = None
        self.notified: list[str] = []  # lines told to the service manager, as systemd would read them

    def start(self, *, timeout: float = 60.0) -> None:
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
            arguments = ["run", "--config", str(self.config)]
            if ForkServer.can_start(environment):
                self.process = ForkServer.running().start(arguments, log=log, environment=environment)
            else:
                command = [sys.executable, "-m", "msrecd", *arguments]
                nothing = subprocess.DEVNULL
                self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=nothing, env=environment)
        threading.Thread(target=self._listen, args=(self._socket,), daemon=True).start()
        try:
            self.wait_notified("READY=1", timeout=timeout)
        except BaseException:
            self.kill()  # nobody's `with` would end it
            raise

    def _listen(self, listening: socket.socket) -> None:
        """Read what the daemon tells; a socket that nobody reads would block it."""
        while True:
            try:
                self.notified += listening.recv(4096).decode().splitlines()
            except OSError:
                return  # closed

    def wait_notified(self, line: str, *, count: int = 1, timeout: float = 60.0) -> None:
        """Wait until the daemon has told its service manager this line, so many times since it was started."""

        def is_told() -> bool:
            assert self.process is not None
            code = self.process.poll()
            assert code is None, f"the daemon exited with {code}:\n{self.log.read_text()}"
            return self.notified.count(line) >= count

        until(is_told, lambda: f"no {line} within {timeout} s:\n{self.log.read_text()}", timeout=timeout)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def status(self, key: str) -> int:
        """A number of /proc/<pid>/status; those in kB (`VmRSS`, `VmHWM`) in bytes."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        number, *unit = next(line for line in lines if line.startswith(f"{key}:")).split()[1:]
        return int(number) * (1024 if unit == ["kB"] else 1)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self._end(signal.SIGKILL, 10)

    def stop(self, timeout: float = 40.0) -> int:
        """SIGTERM, and wait; the exit code."""
        return self._end(signal.SIGTERM, timeout)

    def _end(self, number: int, timeout: float) -> int:
        assert self.process is not None
        if self.is_running:
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
        if self.is_running:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        self._close_socket()
        shutil.rmtree(self.runtime, ignore_errors=True)

    # --- what it left behind -----------------------------------------------------------------------------------------

    def chunks(self, recorder: str = "cam0") -> list[Path]:
        """Finished chunks of a recorder, in the order of their names."""
        folder = self.recordings / recorder
        return sorted(
            (p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".part", ".jsonl", ".jpg")),
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

    def chunk_lines(self, recorder: str = "cam0") -> list[dict[str, Any]]:
        """The manifest lines that are of a chunk: in order within each recording, not so where some were recovered."""
        return [line for line in self.manifest(recorder) if "seq" in line]

    def snapshot_lines(self, recorder: str = "cam0") -> list[dict[str, Any]]:
        """The manifest lines that are of a snapshot."""
        return [line for line in self.manifest(recorder) if "snapshot" in line]

    def recording_ids(self, recorder: str = "cam0") -> set[str]:
        """Of the recordings that have a chunk."""
        return {Path(line["file"]).name.rpartition("-")[0] for line in self.chunk_lines(recorder)}

    def wait_for_chunks(self, count: int, *, recorder: str = "cam0", timeout: float = 60.0) -> list[Path]:
        """Wait until there are so many finished chunks."""
        until(
            lambda: len(self.chunks(recorder)) >= count,
            lambda: f"{len(self.chunks(recorder))} chunks of {count}:\n{self.log.read_text()}",
            timeout=timeout,
        )
        return self.chunks(recorder)

    def wait_for_part(self, *, least_bytes: int = 1, timeout: float = 60.0) -> None:
        """Wait until a chunk is being written and has so many bytes."""

        def is_written() -> bool:
            sizes = []
            for path in self.parts():
                with contextlib.suppress(FileNotFoundError):  # it just got its name
                    sizes.append(path.stat().st_size)
            return max(sizes, default=0) >= least_bytes

        until(is_written, lambda: f"nothing is being written:\n{self.log.read_text()}", timeout=timeout)


DaemonFor = Callable[..., DaemonProcess]  # what the fixture `daemon_for` of tests/system gives
