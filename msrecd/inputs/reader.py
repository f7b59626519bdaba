"""Reader: an input that is read in a process of its own. See helper.py for the other side."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator

from msrecd.inputs import wire
from msrecd.inputs.address import Address, SourceOptions
from msrecd.inputs.limits import BYTES_A_SECOND, PACKETS_A_SECOND, Allowance
from msrecd.inputs.processes import Process, ReaderError
from msrecd.inputs.sharing import SharedInput, sharing
from msrecd.libav.demuxer import KEY_FRAME_S
from msrecd.libav.values import Demuxed

log = logging.getLogger(__name__)

_SILENCE_S = 3.0  # beyond libav's own time-out
_FILE_S = 10.0  # a card may be slow
_LONGEST_WAIT_S = 1.0  # of an input that floods; less than closing may take


class Reader:
    """An opened input. `batches` belongs to one thread; `close` may come from any.

    Raises (from the constructor and from `batches`):
        ReaderError: it cannot be opened or read; the process that read it died, or was killed because it hung.
    """

    def __init__(self, address: Address, options: SourceOptions) -> None:
        self._timeout_s = _FILE_S if address.is_file else options.timeout_s + _SILENCE_S
        self._open_s = self._timeout_s if address.is_file else self._timeout_s + options.timeout_s + KEY_FRAME_S
        self._name = address.shown
        self._packets, self._bytes = Allowance(PACKETS_A_SECOND), Allowance(BYTES_A_SECOND)
        self._address = address
        self._lock = threading.Lock()
        self._is_closed = False
        self._facts = b""
        self._last: dict[int, int] = {}  # the time of the last packet, by stream
        self._process: Process | SharedInput = Process((wire.DESCRIPTION, wire.PACKETS, wire.END, wire.HANDOVER))
        request = {
            "url": address.opened,
            "network": not address.is_file,
            "timeout_s": options.timeout_s,
            "transport": options.transport,
            "kinds": list(options.tracks),
            "any_host": options.redirects == "any",
            "may_share": sharing.takes(address),
        }
        try:
            self._process.ask(request)
            if request["may_share"]:
                sharing.prepare()
            kind, body = self._read(self._open_s)
            if kind != wire.DESCRIPTION:
                raise ReaderError(_error_of(body) or "it ended before anything was known of it")
            self.description = wire.read_description(body)
        except (ReaderError, wire.WireError, OSError) as exc:
            self.close()
            raise exc if isinstance(exc, ReaderError) else ReaderError(f"{exc}") from None

    def batches(self, indexes: list[int]) -> Iterator[list[Demuxed]]:
        """The packets of these streams until the input's end; may be asked again after `rewind`.

        An empty batch says that some are missing here.
        """
        wanted = set(indexes)
        try:
            if not self._is_asked:
                self._ask(indexes)
                self._is_asked = True
            while True:
                try:
                    kind, body = self._read(self._timeout_s)
                except SharedProcessDied as exc:
                    self._continue(exc)
                    yield []
                    continue
                if kind == wire.PACKETS:
                    batch = wire.read_packets(body, wanted)
                    self._slow_down(len(batch), len(body))
                    if self._facts:
                        self._last |= {one.stream: one.pts_ns for one in batch if one.pts_ns is not None}
                    yield batch
                elif kind == wire.HANDOVER:
                    self._share(body)
                elif kind == wire.END:
                    if error := _error_of(body):
                        if self._facts and _is_alone(body):
                            sharing.exclude(self._address)
                        raise ReaderError(error)
                    return
                else:
                    raise wire.WireError("a second description")
        except (wire.WireError, OSError) as exc:
            if self._is_closed:
                return
            raise ReaderError(str(exc)) from None

    _is_asked = False

    def _share(self, body: bytes) -> None:
        """The camera plays: the process that reads many goes on with it."""
        self._facts, _, _ = wire.read_handover(body)
        _, fds, _, _ = socket.recv_fds(self._process.socket, 1, 1)
        if len(fds) != 1:
            raise wire.WireError("no connection")
        try:
            self._give(fds[0], body)
        finally:
            os.close(fds[0])

    def _continue(self, died: SharedProcessDied) -> None:
        """The process that read many died: another one takes the camera's connection.

        Raises:
            ReaderError: not this one; or there is no other process.
        """
        before = self._process
        assert isinstance(before, SharedInput)
        if before.is_to_blame:
            sharing.exclude(self._address)
        if before.is_to_blame or not sharing.takes(self._address):
            raise ReaderError(str(died))
        camera = before.camera()
        try:
            self._give(camera, wire.handover(self._facts, json.dumps(list(self._last.items())).encode(), b""))
        finally:
            os.close(camera)

    def _give(self, camera: int, body: bytes) -> None:
        shared = sharing.give(camera, body)
        with self._lock:
            before, self._process = self._process, shared
            is_closed = self._is_closed
        before.close()
        if is_closed:
            shared.close()

    def _slow_down(self, packets: int, size: int) -> None:
        """An input that floods waits, and with it its sender, instead of keeping this process busy."""
        now = time.monotonic_ns()
        seconds = max(self._packets.take(packets, now), self._bytes.take(size, now))
        if seconds:
            time.sleep(min(seconds, _LONGEST_WAIT_S))

    def rewind(self) -> None:
        """Go back to the beginning; after the end of `batches`."""
        try:
            self._process.socket.sendall(b"R")
        except OSError as exc:
            raise ReaderError("the reading process is gone") from exc

    def _ask(self, indexes: list[int]) -> None:
        process = self._process
        try:
            process.socket.sendall(json.dumps(indexes).encode() + b"\n")
        except OSError:
            if not process.is_closed:
                self._raise_how_it_ended(process)
            raise

    def _raise_how_it_ended(self, process: Process | SharedInput) -> None:
        """Where something has killed it, say that; what was not understood or sent says less."""
        how = process.how_it_ended()
        if not how:
            return
        if isinstance(process, SharedInput):
            raise SharedProcessDied(f"the process that reads it was {how}") from None
        log.warning("the process that read %s was %s; no other input is concerned", self._name, how)
        raise ReaderError(f"the process that reads it was {how}") from None

    def _read(self, timeout_s: float) -> tuple[bytes, bytes]:
        process = self._process
        try:
            return process.read(timeout_s)
        except TimeoutError:
            if process.is_closed:
                raise wire.WireError("closed") from None
            process.kill()
            raise ReaderError(f"silent for {timeout_s:g} s") from None
        except wire.WireError:
            if not process.is_closed:
                self._raise_how_it_ended(process)
            raise

    def close(self) -> None:
        """End the process: at once if it listens, after a second if it does not. Idempotent; does not wait."""
        with self._lock:
            self._is_closed = True
            process = self._process
        process.close()


class SharedProcessDied(Exception):
    """The process that reads this camera and others; the message says how."""


def _is_alone(body: bytes) -> bool:
    """Whether the input must not be read together with others any more."""
    try:
        return json.loads(body)["alone"] is True
    except (ValueError, KeyError, TypeError, RecursionError):
        return True


def _error_of(body: bytes) -> str | None:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "its reading process ended in an unforeseen way"
    return None if error is None else "".join(c if c.isprintable() else " " for c in str(error))[:300]
