"""Many RTSP cameras are read by one process: the program's side. shared.py is what that process does.

When that process dies or hangs, another one takes the connections of its cameras, which the program has kept: they
continue with the next key frame. The camera that was looked at when it died is read by a process of its own from then
on, as is one that floods.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import time

from msrecd.inputs import wire
from msrecd.inputs.address import Address
from msrecd.inputs.processes import Process, ReaderError, SharedMemory
from msrecd.inputs.shared import BOARD, BOARD_BYTES, MOST, NUMBER

log = logging.getLogger(__name__)

_STUCK_S = 5.0  # without beginning a round, of which there are three a second
_SLICE_S = 2.0
_GIVE_S = 5.0  # for taking a camera over
_SHORT_S = 10.0
_SHORT_LIVES = 3  # one after the other: cameras are not read together any more
_MOST_ALONE = 256
_GOODBYE_S = 1.0


class _Life:
    """One process that reads cameras, from its start to its end. Any thread."""

    def __init__(self) -> None:
        """
        Raises:
            ReaderError: it cannot be started.
        """
        self._lock = threading.Lock()
        self._begun_at = time.monotonic()
        self._ending: tuple[str, int] | None = None
        self._is_stuck = False
        self._counting = threading.Lock()
        self.cameras = 0
        try:
            board = SharedMemory.make(BOARD_BYTES)
        except OSError as exc:
            raise ReaderError(f"no memory to read it with: {exc.strerror}") from exc
        self._board = board.map
        try:
            self.process = Process(())
            self.process.ask({"share": True}, (board.fd,))
        except OSError as exc:
            raise ReaderError("the process that reads it is gone") from exc
        finally:
            os.close(board.fd)

    def count(self, more: int) -> None:
        with self._counting:
            self.cameras += more

    def ends_within(self, seconds: float) -> bool:
        """Whether it has come to its end, waiting so long for it."""
        with self._lock:  # its pidfd is closed with its end, and its number is another's then
            return self._ending is not None or bool(select.select([self.process.pidfd], [], [], seconds)[0])

    def kill(self) -> None:
        with self._lock:
            if self._ending is None:
                self.process.kill()

    def kill_if_stuck(self) -> None:
        began_ns, _ = BOARD.unpack_from(self._board)
        if time.monotonic() - max(began_ns / 1e9, self._begun_at) > _STUCK_S:
            self._is_stuck = True
            self.kill()

    def ending(self) -> tuple[str, int]:
        """(what killed it, "" for nothing; the number of the camera that is to blame, 0 for none). Ends it.

        That is the one which it looked at, unless it was killed from outside (by the kernel, for its memory, say) or
        ended with the process that starts the others.
        """
        with self._lock:
            if self._ending is None:
                how = self.process.how_it_ended()
                is_from_outside = not how or (how.endswith("SIGKILL") and not self._is_stuck)
                self._ending = how, 0 if is_from_outside else BOARD.unpack_from(self._board)[1]
                self.process.close()
                if self.cameras:
                    log.warning("the process that reads RTSP cameras was %s; another one takes them", how or "ended")
            return self._ending

    @property
    def was_short(self) -> bool:
        return time.monotonic() - self._begun_at < _SHORT_S


class SharedInput:
    """A camera that is read together with others: as a Process, for its Reader."""

    def __init__(self, life: _Life, number: int, connection: socket.socket, camera: int) -> None:
        self.life, self.number, self.socket = life, number, connection
        self._camera = camera
        self._frames = wire.FrameReader(connection, (wire.PACKETS, wire.END))
        self._lock = threading.Lock()
        self.is_closed = self.is_to_blame = False
        self._reading = threading.Lock()
        life.count(1)

    def read(self, timeout_s: float) -> tuple[bytes, bytes]:
        """As Process.read. Kills the process when that does nothing at all."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                with self._reading:
                    if self.is_closed:
                        raise wire.WireError("closed")
                    return self._frames.read(min(_SLICE_S, timeout_s))
            except TimeoutError:
                if self.is_closed or time.monotonic() > deadline:
                    raise
                self.life.kill_if_stuck()

    def kill(self) -> None:
        """This camera alone is silent."""
        self.close()

    def how_it_ended(self) -> str:
        """What killed the process, "" for nothing. One that lives on, and gave this camera up, is killed."""
        self.is_to_blame = not self.life.ends_within(_GOODBYE_S)
        if self.is_to_blame:
            self.life.kill()
        how, number = self.life.ending()
        self.is_to_blame |= number == self.number
        return how or "ended"

    def camera(self) -> int:
        """The camera's connection, to be closed by the caller.

        Raises:
            OSError: it is closed.
        """
        with self._lock:
            if self.is_closed:
                raise OSError("closed")
            return os.dup(self._camera)

    def close(self) -> None:
        """The process tells the camera, and closes. Idempotent; does not wait."""
        with self._lock:
            if self.is_closed:
                return
            self.is_closed = True
        self.life.count(-1)
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        threading.Thread(target=self._bury, name="close input", daemon=True).start()

    def _bury(self) -> None:
        with self._reading:  # its reader has noticed
            self.socket.close()
        os.close(self._camera)


class Sharing:
    """Which cameras are read together, and by which process. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._life: _Life | None = None
        self._number = 0
        self._alone: dict[str, None] = {}
        self._short_lives = 0

    def takes(self, address: Address) -> bool:
        """Whether this input may be read together with others, if it turns out to be a camera that can be."""
        return address.scheme == "rtsp" and address.opened not in self._alone and self._short_lives < _SHORT_LIVES

    def exclude(self, address: Address) -> None:
        """It is read by a process of its own from now on."""
        with self._lock:
            self._alone[address.opened] = None
            while len(self._alone) > _MOST_ALONE:
                del self._alone[next(iter(self._alone))]

    def prepare(self) -> None:
        """Start the process, if there is none: a camera will be given to it.

        Raises:
            ReaderError: it cannot be started.
        """
        with self._lock:
            self._running()

    def give(self, camera: int, body: bytes) -> SharedInput:
        """Have a camera that plays read, whose connection is `camera`; that stays the caller's.

        Args:
            body: what `wire.handover` made.

        Raises:
            ReaderError: there is no process to read it.
        """
        for attempt in (1, 2):
            ours, theirs = socket.socketpair()
            try:
                with self._lock:
                    life = self._running()
                    self._number = self._number % 0xFFFFFFF0 + 1
                    number = self._number
                    socket.send_fds(life.process.socket, [NUMBER.pack(number)], [theirs.fileno(), camera])
                shared = SharedInput(life, number, ours, os.dup(camera))
            except OSError as exc:
                ours.close()
                if attempt == 2:
                    raise ReaderError("the process that reads it is gone") from exc
                continue
            except ReaderError:
                ours.close()
                raise
            finally:
                theirs.close()
            ours.settimeout(_GIVE_S)
            with contextlib.suppress(OSError):  # what ended it, its first answer tells
                ours.sendall(wire.HEADER.pack(wire.REQUEST, len(body)) + body)
            return shared
        raise AssertionError

    def _running(self) -> _Life:
        life = self._life
        if life is not None:
            if not (has_ended := life.ends_within(0)) and life.cameras < MOST:
                return life
            if has_ended:
                self._short_lives = self._short_lives + 1 if life.was_short and life.cameras else 0
                life.ending()
        self._life = _Life()
        return self._life


sharing = Sharing()
