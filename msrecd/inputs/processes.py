"""The processes that read and decode inputs, seen from the program: starting, killing, hearing how they ended.

See helper.py for the other side.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msrecd.inputs import wire
from msrecd.libav.values import LibavError

_START_S = 30.0  # until the first process has imported libav, on a slow board
_GOODBYE_S = 1.0  # for telling the camera


class ReaderError(LibavError):
    """The input cannot be opened, read on or decoded; the message says why and does not hold the address."""


class Helpers:
    """The process that forks the others; started when one is wanted and none is there. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self.were_used = False  # something foreign has been read, and may be in what is written

    def fork(self) -> tuple[socket.socket, int, int]:
        """A new process: (its socket, its pidfd, where it says how it ended).

        Raises:
            ReaderError: no process can be started.
        """
        ours, theirs = socket.socketpair()
        status, ending = os.pipe()
        try:
            with self._lock:
                self.were_used = True
                return ours, self._asked(theirs.fileno(), ending), status
        except OSError as exc:
            ours.close()
            os.close(status)
            raise ReaderError(f"no process to read it with: {exc.strerror or exc}") from exc
        finally:
            theirs.close()
            os.close(ending)

    def _asked(self, connection: int, ending: int) -> int:
        for attempt in (1, 2):
            control = self._running()
            try:
                socket.send_fds(control, [b"f"], [connection, ending])
                _, fds, _, _ = socket.recv_fds(control, 1, 1)
                if fds:
                    return fds[0]
            except OSError:
                if attempt == 2:
                    raise
            self._end()
        raise OSError("the process that starts readers dies")

    def _running(self) -> socket.socket:
        if self._control is not None and self._process is not None and self._process.poll() is None:
            return self._control
        self._end()
        ours, theirs = socket.socketpair()
        ours.settimeout(_START_S)
        environment = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        environment["MALLOC_ARENA_MAX"] = "1"  # each arena of a thread takes 64 MiB of what a process may have
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "msrecd.inputs.helper", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        finally:
            theirs.close()
        self._control = ours
        return ours

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


# Nothing else of the environment: it may hold secrets of the service.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR")
helpers = Helpers()


_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """Memory that a process writes, and cannot make smaller under the program's reading."""

    map: mmap.mmap
    fd: int  # to be given to the process, and closed

    @classmethod
    def make(cls, size: int) -> SharedMemory:
        """
        Raises:
            OSError: there is no memory.
        """
        fd = os.memfd_create("msrecd-shared", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        return cls(mmap.mmap(fd, size, prot=mmap.PROT_READ), fd)


class Process:
    """One process that was forked for one input. `read` belongs to one thread; `close` may come from any.

    Raises:
        ReaderError: it cannot be started.
    """

    def __init__(self, kinds: Sequence[bytes]) -> None:
        """
        Args:
            kinds: of the frames that it may send.
        """
        self.socket, self.pidfd, self._status = helpers.fork()
        self._frames = wire.FrameReader(self.socket, kinds)
        self._lock = threading.Lock()
        self.is_closed = False

    def ask(self, request: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """
        Raises:
            OSError: it has ended.
        """
        message = wire.text(wire.REQUEST, request)
        sent = socket.send_fds(self.socket, [message], list(fds)) if fds else 0
        self.socket.sendall(message[sent:])

    def read(self, timeout_s: float) -> tuple[bytes, bytes]:
        """(kind, body) of the next frame.

        Raises:
            TimeoutError: nothing came for so long.
            wire.WireError: it has ended, or sends something else.
        """
        return self._frames.read(timeout_s)

    def how_it_ended(self) -> str:
        """What killed it, "" for an orderly end; kills it if it does not end by itself."""
        self._kill_after(_GOODBYE_S)
        words = b""
        try:
            while part := os.read(self._status, 100):
                words += part
        except OSError:
            pass
        return words.decode(errors="replace")[:100]

    def _kill_after(self, seconds: float) -> None:
        try:
            if not select.select([self.pidfd], [], [], seconds)[0]:
                self.kill()
        except OSError:
            return

    def kill(self) -> None:
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except OSError:
            return  # it has ended

    def close(self) -> None:
        """End the process: at once if it listens, after a second if it does not. Idempotent; does not wait."""
        with self._lock:
            if self.is_closed:
                return
            self.is_closed = True
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        threading.Thread(target=self._bury, name="close input", daemon=True).start()

    def _bury(self) -> None:
        self._kill_after(_GOODBYE_S)
        self.how_it_ended()
        self.socket.close()
        os.close(self.pidfd)
        os.close(self._status)
