"""The process that reads many RTSP cameras: in that process. sharing.py is the program's side.

A camera is asked, looked at and described by a process of its own (helper.py). What comes here is its connection, once
it plays, with what is known of it. So nothing here waits for a camera, connects, looks up a name or calls libav, and
the process needs no network: seccomp refuses it new sockets. All cameras are looked at in one go, each 0.3 s.

Before a camera is looked at, its number is written where the program can read it: when this process dies or hangs, that
is the one which gets a process of its own.
"""

from __future__ import annotations

import mmap
import select
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from msrecd.inputs import wire
from msrecd.inputs.confine import confine
from msrecd.inputs.rtspinput import NAP_S, Flow, Misbehaves
from msrecd.libav.values import Demuxed, LibavError

MOST = 250  # cameras of a process
NUMBER = struct.Struct("<I")
BOARD = struct.Struct("<qI")  # when the process last began a round (CLOCK_MONOTONIC), the camera that it looks at or 0
BOARD_BYTES = 4096
_MEMORY = 256 << 20
_HELD = 96 << 20  # of all cameras together; beyond it, the one that holds most goes
_FILES = 2 * MOST + 50
_IDLE_S = 60.0
_BUSY_S = 0.5  # of CPU in some three seconds: hundreds of times as much as a camera takes
_FADES = 0.9  # of that, from one look to the next
_PIECE = 1 << 18
_OUT_OF_BOUNDS = "it needs more memory than an input may have"


def place_of(exc: Exception) -> str:
    """Which error, and where; its words may hold the address."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
    return f"{type(exc).__name__}{where}"


class _Camera:
    """One that is read here: what comes of it, and what the program has not taken yet."""

    def __init__(self, number: int, connection: socket.socket, camera: socket.socket) -> None:
        self.number, self.connection, self._camera = number, connection, camera
        for one in (connection, camera):
            one.setblocking(False)
        self._request = bytearray()
        self._flow: Flow | None = None
        self._waiting: list[memoryview] = []
        self._waiting_bytes = 0
        self._busy_s = 0.0
        self.is_ending = self.is_over = False

    @property
    def sends(self) -> bool:
        """Whether something waits for the program."""
        return bool(self._waiting)

    @property
    def held_bytes(self) -> int:
        return len(self._request) + self._waiting_bytes + (0 if self._flow is None else self._flow.held_bytes)

    def take_request(self) -> None:
        """What the program says; its end is that of the input."""
        if self._flow is not None or self.is_ending:
            self.is_over = self._said() == b""
            return
        size = wire.HEADER.size
        if not (data := self._said()):
            self.is_over = data is not None
            return
        self._request += data
        if len(self._request) < size:
            return
        size += wire.HEADER.unpack_from(self._request)[1]
        if size > wire.MAX_HANDED + wire.HEADER.size:
            self.is_over = True
        elif len(self._request) >= size:
            body, self._request = bytes(self._request[wire.HEADER.size : size]), bytearray()
            self._begin(body)

    def _said(self) -> bytes | None:
        """b"" at the end, None for nothing."""
        try:
            return self.connection.recv(_PIECE)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _begin(self, body: bytes) -> None:
        try:
            self._flow, batch = Flow.of(self._camera, body)
            # With what came meanwhile: the newest packet of the first batch tells how late the others are.
            self._send_batch(batch + self._flow.look())
        except Exception as exc:
            self._fail(exc)

    def look(self) -> None:
        """Pass on what has come, unless the program is behind."""
        if self._flow is None or self._waiting or self.is_ending:
            return
        begun_s = time.thread_time()
        try:
            self._send_batch(self._flow.look())
        except Exception as exc:
            self._fail(exc)
        else:
            self._busy_s = self._busy_s * _FADES + time.thread_time() - begun_s
            if self._flow.is_over:
                self.end(None)
            elif self._busy_s > _BUSY_S:
                self.end("it takes too much time of the process that reads others, too", is_alone=True)

    def _fail(self, exc: Exception) -> None:
        """Whatever it is, it ends no other camera."""
        if isinstance(exc, LibavError | ValueError):
            self.end(str(exc), is_alone=not isinstance(exc, LibavError) or isinstance(exc, Misbehaves))
        elif isinstance(exc, MemoryError):
            self.end(_OUT_OF_BOUNDS, is_alone=True)
        else:
            self.end(f"internal error of its reading process ({place_of(exc)})", is_alone=True)

    def _send_batch(self, batch: Sequence[Demuxed]) -> None:
        for at in range(0, len(batch), wire.MAX_BATCH):
            self._send(wire.packets(batch[at : at + wire.MAX_BATCH]))

    def end(self, error: str | None, *, is_alone: bool = False) -> None:
        """Tell the program; the input is over when it has taken that."""
        if self.is_ending:
            return
        self.is_ending = True
        self._send([wire.text(wire.END, {"error": error, "alone": is_alone})])

    def _send(self, parts: Sequence[bytes | memoryview]) -> None:
        self._waiting += [memoryview(part).cast("B") for part in parts]
        self._waiting_bytes += sum(map(len, parts))
        self.send_waiting()

    def send_waiting(self) -> None:
        """As much as the program's socket takes."""
        try:
            while self._waiting:
                sent = self.connection.sendmsg(self._waiting[:500])  # IOV_MAX is 1024
                self._waiting_bytes -= sent
                done = 0
                while done < len(self._waiting) and sent >= len(self._waiting[done]):
                    sent -= len(self._waiting[done])
                    done += 1
                del self._waiting[:done]
                if sent:
                    self._waiting[0] = self._waiting[0][sent:]
        except BlockingIOError:
            return
        except OSError:
            self.is_over = True  # it is not wanted any more
            return
        if self.is_ending:
            self.is_over = True

    def close(self) -> None:
        if self._flow is not None:
            self._flow.close()
        self._camera.close()
        self.connection.close()


class _Cameras:
    """All that are read here."""

    def __init__(self, control: socket.socket, board: mmap.mmap) -> None:
        self._control, self._board = control, board
        self._cameras: dict[int, _Camera] = {}  # by the number of the connection
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._next_at = 0.0
        self._total = 0

    def serve(self) -> None:
        """Until the program goes, or has given nothing for a minute."""
        while True:
            now = time.monotonic()
            wait_s = max(0.0, self._next_at - now) if self._cameras else _IDLE_S
            ready = self._poll.poll(wait_s * 1000)
            self._write(0)
            if not ready and not self._cameras:
                return
            for fd, events in ready:
                if fd == self._control.fileno():
                    if not self._take_camera():
                        return
                elif (camera := self._cameras.get(fd)) is not None:
                    self._serve_one(fd, camera, events)
            self._write(0)
            if time.monotonic() >= self._next_at:
                self._look()

    def _write(self, number: int) -> None:
        BOARD.pack_into(self._board, 0, time.monotonic_ns(), number)

    def _take_camera(self) -> bool:
        """False: the program has gone."""
        data, fds, _, _ = socket.recv_fds(self._control, NUMBER.size, 2)
        if len(data) < NUMBER.size or len(fds) != 2:
            return False
        (number,) = NUMBER.unpack(data)
        connection, camera = (socket.socket(fileno=fd) for fd in fds)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._cameras[connection.fileno()] = _Camera(number, connection, camera)
        self._poll.register(connection, select.POLLIN)
        return True

    def _serve_one(self, fd: int, camera: _Camera, events: int) -> None:
        self._write(camera.number)
        if events & select.POLLOUT:
            camera.send_waiting()
        if events & ~select.POLLOUT:
            camera.take_request()
        self._settle(fd, camera)

    def _look(self) -> None:
        """At all cameras."""
        total = 0
        for fd, camera in list(self._cameras.items()):
            self._write(camera.number)
            camera.look()
            total += camera.held_bytes
            self._settle(fd, camera)
        self._write(0)
        if total > _HELD:
            fd, camera = max(self._cameras.items(), key=lambda one: one[1].held_bytes)
            camera.end(_OUT_OF_BOUNDS, is_alone=True)
            camera.is_over = camera.is_over or not camera.sends
            self._settle(fd, camera)
        self._next_at = time.monotonic() + NAP_S

    def _settle(self, fd: int, camera: _Camera) -> None:
        """Listen to what it waits for, or close it."""
        if camera.is_over:
            self._poll.unregister(fd)
            del self._cameras[fd]
            camera.close()
        else:
            self._poll.modify(fd, select.POLLIN | (select.POLLOUT if camera.sends else 0))


def serve_inputs(control: socket.socket, board: int) -> None:
    """In the new process: until the program goes."""
    with mmap.mmap(board, BOARD_BYTES) as memory:
        confine(memory=_MEMORY, files=_FILES)
        _Cameras(control, memory).serve()
