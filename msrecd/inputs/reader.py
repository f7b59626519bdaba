"""Reader: an input that is read in a process of its own. See helper.py for the other side."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator

from msrecd.inputs import wire
from msrecd.inputs.address import Address, SourceOptions
from msrecd.inputs.limits import BYTES_A_SECOND, PACKETS_A_SECOND, Allowance
from msrecd.inputs.processes import Process, ReaderError
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
        self._is_file = address.is_file
        self._timeout_s = _FILE_S if address.is_file else options.timeout_s + _SILENCE_S
        self._open_s = self._timeout_s if address.is_file else self._timeout_s + options.timeout_s + KEY_FRAME_S
        self._name = address.shown
        self._packets, self._bytes = Allowance(PACKETS_A_SECOND), Allowance(BYTES_A_SECOND)
        self._process = Process((wire.DESCRIPTION, wire.PACKETS, wire.END))
        request = {
            "url": address.opened,
            "network": not address.is_file,
            "timeout_s": options.timeout_s,
            "transport": options.transport,
            "kinds": list(options.tracks),
            "any_host": options.redirects == "any",
        }
        try:
            self._process.ask(request)
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
                self._process.socket.sendall(json.dumps(indexes).encode() + b"\n")
                self._is_asked = True
            while True:
                kind, body = self._read(self._timeout_s)
                if kind == wire.PACKETS:
                    batch = wire.read_packets(body, wanted)
                    self._slow_down(len(batch), len(body))
                    yield batch
                elif kind == wire.END:
                    if error := _error_of(body):
                        raise ReaderError(error)
                    return
                else:
                    raise wire.WireError("a second description")
        except (wire.WireError, OSError) as exc:
            if self._process.is_closed:
                return
            raise ReaderError(str(exc)) from None

    _is_asked = False

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

    def _read(self, timeout_s: float) -> tuple[bytes, bytes]:
        try:
            return self._process.read(timeout_s)
        except TimeoutError:
            if self._process.is_closed:
                raise wire.WireError("closed") from None
            self._process.kill()
            raise ReaderError(f"silent for {timeout_s:g} s") from None
        except wire.WireError:
            if self._process.is_closed:
                raise
            how = self._process.how_it_ended()
            if how:
                log.warning("the process that read %s was %s; no other input is concerned", self._name, how)
                raise ReaderError(f"the process that reads it was {how}") from None
            raise

    def close(self) -> None:
        """End the process: at once if it listens, after a second if it does not. Idempotent; does not wait."""
        self._process.close()


def _error_of(body: bytes) -> str | None:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "its reading process ended in an unforeseen way"
    return None if error is None else "".join(c if c.isprintable() else " " for c in str(error))[:300]
