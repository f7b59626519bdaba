"""Reader: an input that is read in a process of its own. See helper.py for the other side."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

from msrecd.inputs import wire
from msrecd.inputs.address import Address, SourceOptions
from msrecd.libav.demuxer import KEY_FRAME_S
from msrecd.libav.values import Demuxed, LibavError

log = logging.getLogger(__name__)

_START_S = 30.0  # until the first process has imported libav, on a slow board
_SILENCE_S = 3.0  # beyond libav's own time-out
_FILE_S = 10.0  # a card may be slow
_GOODBYE_S = 1.0  # for telling the camera


class ReaderError(LibavError):
    """The input cannot be opened or read on; the message says why and does not hold the address."""


class _Helpers:
    """The process that forks readers; started when the first one is wanted, again when it has died. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def fork(self) -> tuple[socket.socket, int, int]:
        """A new reading process: (its socket, its pidfd, where it is told how it ended).

        Raises:
            ReaderError: no process can be started.
        """
        ours, theirs = socket.socketpair()
        status, told = os.pipe()
        try:
            with self._lock:
                return ours, self._asked(theirs.fileno(), told), status
        except OSError as exc:
            ours.close()
            os.close(status)
            raise ReaderError(f"no process to read it with: {exc.strerror or exc}") from exc
        finally:
            theirs.close()
            os.close(told)

    def _asked(self, connection: int, told: int) -> int:
        for attempt in (1, 2):
            control = self._running()
            try:
                socket.send_fds(control, [b"f"], [connection, told])
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
_helpers = _Helpers()


class Reader:
    """An opened input. `batches` belongs to one thread; `close` may come from any.

    Raises (from the constructor and from `batches`):
        ReaderError: it cannot be opened or read; the process that read it died, or was killed because it hung.
    """

    def __init__(self, address: Address, options: SourceOptions) -> None:
        self._is_file = address.is_file
        self._timeout_s = _FILE_S if address.is_file else options.timeout_s + _SILENCE_S
        self._open_s = self._timeout_s if address.is_file else self._timeout_s + options.timeout_s + KEY_FRAME_S
        self._name = address.shown
        self._socket, self._pidfd, self._status = _helpers.fork()
        self._frames = wire.FrameReader(self._socket)
        self._lock = threading.Lock()
        self._is_closed = False
        request = {
            "url": address.opened,
            "network": not address.is_file,
            "timeout_s": options.timeout_s,
            "transport": options.transport,
            "kinds": list(options.tracks),
        }
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            kind, body = self._read(self._open_s)
            if kind != wire.DESCRIPTION:
                raise ReaderError(_error_of(body) or "it ended before anything was known of it")
            self.description = wire.read_description(body)
        except (ReaderError, wire.WireError, OSError) as exc:
            self.close()
            raise exc if isinstance(exc, ReaderError) else ReaderError(f"{exc}") from None

    def batches(self, indexes: list[int]) -> Iterator[list[Demuxed]]:
        """The packets of these streams until the input's end; may be asked again after `rewind`."""
        wanted = set(indexes)
        try:
            if not self._is_asked:
                self._socket.sendall(json.dumps(indexes).encode() + b"\n")
                self._is_asked = True
            while True:
                kind, body = self._read(self._timeout_s)
                if kind == wire.PACKETS:
                    yield wire.read_packets(body, wanted)
                elif kind == wire.END:
                    if error := _error_of(body):
                        raise ReaderError(error)
                    return
                else:
                    raise wire.WireError("a second description")
        except (wire.WireError, OSError) as exc:
            if self._is_closed:
                return
            raise ReaderError(str(exc)) from None

    _is_asked = False

    def rewind(self) -> None:
        """Go back to the beginning; after the end of `batches`."""
        try:
            self._socket.sendall(b"R")
        except OSError as exc:
            raise ReaderError("the reading process is gone") from exc

    def _read(self, timeout_s: float) -> tuple[bytes, bytes]:
        try:
            return self._frames.read(timeout_s)
        except TimeoutError:
            if self._is_closed:
                raise wire.WireError("closed") from None
            self._kill()
            raise ReaderError(f"silent for {timeout_s:g} s") from None
        except wire.WireError:
            if self._is_closed:
                raise
            how = self._how_it_ended()
            if how:
                log.warning("the process that read %s was %s; no other input is concerned", self._name, how)
                raise ReaderError(f"the process that reads it was {how}") from None
            raise

    def _how_it_ended(self) -> str:
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
            if not select.select([self._pidfd], [], [], seconds)[0]:
                self._kill()
        except OSError:
            return

    def _kill(self) -> None:
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except OSError:
            return  # it has ended

    def close(self) -> None:
        """End the process: at once if it listens, after a second if it does not. Idempotent; does not wait."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        threading.Thread(target=self._bury, name="close input", daemon=True).start()

    def _bury(self) -> None:
        self._kill_after(_GOODBYE_S)
        self._how_it_ended()
        self._socket.close()
        os.close(self._pidfd)
        os.close(self._status)


def _error_of(body: bytes) -> str | None:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "its reading process ended in an unforeseen way"
    return None if error is None else "".join(c if c.isprintable() else " " for c in str(error))[:300]
