"""Sender: one thread that brings files to a store, one after the other, and writes down what that has proven.

Chunk, then the lines of its manifest up to its own, then the line `offloaded`: so a line in the store means that what
it speaks of is there, and `offloaded` that the store has the file and its line. After a power cut the same is done
again; what the store has already is compared by its hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from msrecd.errors import ConfigError, StorageError
from msrecd.offload.pace import Window, hours_to_clear, pause_of
from msrecd.offload.target import Refused, Stopped, StoreError, Target, Unfit, Unreachable
from msrecd.storage import layout
from msrecd.storage.outgoing import Backlog, Outgoing, OutgoingFile
from msrecd.vocabulary.backoff import BackOff, uniform
from msrecd.vocabulary.times import format_utc

log = logging.getLogger(__name__)

LOOK_S = 5.0  # to the next look for something to send
FAILED = "offload_failed"  # the store, its keys or a file: nothing that the program did wrong
_LONGEST_WAIT_S = 300.0
_HOUR_S = 3600.0
_COUNT_S = 2.0
_MEASURED_S = 600.0  # the rate is that of about so long


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Who is told, from the sender's thread. proven: the facts of an event; failed: code and message for a person."""

    proven: Callable[[str, Mapping[str, Any]], None]
    failed: Callable[[str, str], None]


class Sender:
    """`start` it; `poke` and `health` from any thread; `stop` and wait for it at the end."""

    def __init__(
        self,
        outgoing: Outgoing,
        connect: Callable[[], Target],
        listener: Listener,
        *,
        windows: Sequence[Window] = (),
        is_metered: Callable[[], bool] = lambda: False,
        is_urgent: Callable[[], bool] = lambda: False,
        local_now: Callable[[], datetime] = datetime.now,
        monotonic_s: Callable[[], float] = time.monotonic,
        back_off: BackOff | None = None,
    ) -> None:
        """
        Args:
            connect: gives the store; raises ConfigError while it cannot be named, without its keys for instance.
            is_metered: whether files have to wait for a link that costs nothing; called in the sender's thread.
            is_urgent: whether somebody cannot record before a file is proven: a store that fails is tried every few
                seconds then; called in the sender's thread.
            local_now: the local time; monotonic_s: of the monotonic clock.
        """
        self._outgoing = outgoing
        self._connect = connect
        self._made: Target | None = None
        self._backlog: Backlog | None = None
        self._looked_s = 0.0
        self._listener = listener
        self._windows = windows
        self._is_metered = is_metered
        self._is_urgent = is_urgent
        self._local_now = local_now
        self._monotonic_s = monotonic_s
        self._back_off = back_off or BackOff(1.0, _LONGEST_WAIT_S, spread=uniform)
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._state = "idle"
        self._error: str | None = None
        self._reported: dict[str, float] = {}  # message -> when it was last reported
        self._skipped: dict[str, float] = {}  # files that cannot be stored -> when they are tried again
        self._arrived: tuple[str, str] | None = None  # the last file that the store has, and its proof
        self._sent_files = 0
        self._sent_bytes = 0
        self._rate: float | None = None  # bytes a second, while sending

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="off-load", daemon=True)
        self._thread.start()

    def poke(self) -> None:
        """There may be something new."""
        self._wake.set()

    def stop(self, timeout_s: float) -> None:
        """End it, in the middle of a file if need be: the next start sends that again."""
        self._stopping.set()
        self._wake.set()
        if self._made is not None:
            self._made.stop()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def health(self) -> dict[str, Any]:
        """For state/health: as it was at the last turn."""
        backlog = self._backlog
        return {
            "state": self._state,
            "backlog_files": None if backlog is None else backlog.files,
            "backlog_bytes": None if backlog is None else backlog.bytes,
            "oldest": None if backlog is None or backlog.oldest_ns is None else format_utc(backlog.oldest_ns),
            "hours_to_clear": None if backlog is None else hours_to_clear(backlog.bytes, self._rate),
            "rate_bps": None if self._rate is None else round(self._rate * 8),
            "sent_files": self._sent_files,
            "sent_bytes": self._sent_bytes,
            "error": self._error,
        }

    # --- in its thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                wait_s = self.turn()
            except Exception as exc:
                log.exception("off-load failed; trying again")
                self._fail(f"internal error: {type(exc).__name__}: {exc}", code="internal")
                wait_s = self._back_off.next_s()
            self._wake.clear()
            if wait_s and not self._stopping.is_set():
                # A new chunk is no reason to try a store again that does not answer.
                if self._state == "failing":
                    self._rest(wait_s)
                else:
                    self._wake.wait(wait_s)
        if self._made is not None:
            self._made.close()

    def _rest(self, wait_s: float) -> None:
        """Wait; no longer than a few seconds from when it is urgent."""
        until_s = self._monotonic_s() + wait_s
        while (left_s := until_s - self._monotonic_s()) > 0:
            is_urgent = self._is_urgent()
            if self._stopping.wait(min(left_s, LOOK_S)) or is_urgent:
                return

    @property
    def _target(self) -> Target:
        """
        Raises:
            ConfigError: it cannot be named.
        """
        if self._made is None:
            self._made = self._connect()
        return self._made

    def _look(self) -> None:
        """Count what is left, now and then."""
        now_s = self._monotonic_s()
        if self._backlog is None or now_s - self._looked_s >= _COUNT_S:
            self._looked_s = now_s
            with contextlib.suppress(StorageError):
                self._backlog = self._outgoing.backlog()

    def turn(self) -> float:
        """Send one file, or some lines; how long to wait before the next turn."""
        self._look()
        if pause := pause_of(self._windows, self._local_now().time(), is_metered=self._is_metered()):
            self._note_pause(pause)
            return LOOK_S
        now_s = self._monotonic_s()
        self._skipped = {file: at_s for file, at_s in self._skipped.items() if at_s > now_s}
        file: OutgoingFile | None = None
        try:
            file = self._outgoing.next(frozenset(self._skipped))
            if file is None:
                self._looked_s = 0.0
                is_sending = self._send_lines_left()
                self._state = "sending" if is_sending else "idle"
                self._error = None
                return 0.0 if is_sending else LOOK_S
            self._state = "sending"
            self._send(file)
        except Stopped:
            return 0.0
        except Unfit as exc:
            if file is None:
                self._state = "failing"
                self._fail(exc.message)
                return _LONGEST_WAIT_S
            self._skipped[file.file] = now_s + _HOUR_S
            self._report(f"{file.file} is not off-loaded: {exc.message}")
            return 0.0
        except (Unreachable, Refused, StorageError, ConfigError, OSError) as exc:
            self._state = "failing"
            message = exc.message if isinstance(exc, (StoreError, StorageError)) else str(exc)
            self._fail(message, is_grave=not isinstance(exc, Unreachable))
            return self._back_off.next_s()
        self._back_off.reset()
        self._error = None
        return 0.0

    def _note_pause(self, pause: str) -> None:
        if pause == "metered" != self._state:
            log.info("off-load waits: the link is metered")
        self._state = pause

    def _send(self, file: OutgoingFile) -> None:
        begun_s = self._monotonic_s()
        proof = self._put(file)
        lines = self._send_lines(file.ref.recording_id, file.line)
        self._outgoing.prove(file, proof=proof, store=self._target.name, lines=lines)
        self._measure(file.bytes, self._monotonic_s() - begun_s)
        self._sent_files += 1
        self._sent_bytes += file.bytes
        is_snapshot = file.ref.is_snapshot
        facts = {
            "recording_id": file.ref.recording_id,
            "seq": None if is_snapshot else file.ref.seq,
            "snapshot": -file.ref.seq if is_snapshot else None,
            "file": file.file,
            "bytes": file.bytes,
            "sha256": file.sha256,
            "proof": proof,
            "store": self._target.name,
        }
        self._listener.proven(file.ref.recorder, facts)
        if self._outgoing.is_done(file.ref.recording_id):
            # How it ended stands behind its last chunk, with which rotation takes the manifest away.
            self._send_lines(file.ref.recording_id)

    def _put(self, file: OutgoingFile) -> str:
        """How the store proved to have it; one whose lines broke off is not sent again."""
        if self._arrived is not None and self._arrived[0] == file.file:
            return self._arrived[1]
        try:
            with self._outgoing.opened(file) as opened:
                proof = self._target.put(
                    file.file, opened, size=file.bytes, sha256=file.sha256, mime_type=file.mime_type
                )
        except FileNotFoundError:
            raise Unfit("it is not there any more") from None
        self._arrived = (file.file, proof)
        self._back_off.reset()
        return proof

    def _send_lines(self, recording_id: str, until: int | None = None) -> int:
        """Lines of a manifest that the store does not have, in order; how many it has then."""
        number = 0
        while lines := self._outgoing.lines(recording_id, until):
            sent = 0
            try:
                for place, number, line in lines:  # the last one is returned
                    self._target.put(
                        layout.manifest_piece(place, number),
                        io.BytesIO(line),
                        size=len(line),
                        sha256=hashlib.sha256(line).hexdigest(),
                        mime_type="application/json",
                    )
                    sent = number
            finally:  # a line that breaks now and then gets on, however many lines there are
                if sent:
                    self._outgoing.note_line(recording_id, sent)
                    self._back_off.reset()
        return number or until or 0

    def _send_lines_left(self) -> bool:
        """Lines that came behind the files: what was proven, deleted, ended. Whether there were some."""
        recordings = self._outgoing.recordings_with_lines()
        for recording_id in recordings:
            self._outgoing.note_rest(recording_id, False)  # before they are read: what comes meanwhile sets it again
            try:
                self._send_lines(recording_id)
            except BaseException:
                self._outgoing.note_rest(recording_id, True)
                raise
        return bool(recordings)

    def _measure(self, size: int, took_s: float) -> None:
        """A mean of the rate, in which the last minutes count most."""
        if took_s <= 0:
            return
        weight = min(1.0, took_s / _MEASURED_S * 10)
        now = size / took_s
        self._rate = now if self._rate is None else self._rate + (now - self._rate) * weight

    def _fail(self, message: str, *, is_grave: bool = True, code: str = FAILED) -> None:
        if is_grave:
            self._report(f"off-load: {message}", code)
        elif self._error != message:
            log.warning("off-load: %s; trying again", message)
        self._error = message

    def _report(self, message: str, code: str = FAILED) -> None:
        """Once, then hourly."""
        now_s = self._monotonic_s()
        self._reported = {text: at_s for text, at_s in self._reported.items() if now_s - at_s < _HOUR_S}
        if message not in self._reported:
            self._reported[message] = now_s
            log.warning("%s", message)
            self._listener.failed(code, message)
