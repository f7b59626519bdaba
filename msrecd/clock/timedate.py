"""Whether the clock is synchronised, as systemd-timedated says it on the system bus.

The unit's sandbox (ProtectClock=) forbids adjtimex(2), with which the clock could be set, to read it as well. timedated
asks the kernel the same question for anybody: org.freedesktop.timedate1, property NTPSynchronized
(https://www.freedesktop.org/software/systemd/man/org.freedesktop.timedate1.html). The bus starts it when it is asked,
and it ends half a minute later, so it is asked seldom, and only until the answer is yes.

The few bytes of D-Bus (https://dbus.freedesktop.org/doc/dbus-specification.html) that this takes are here: a library
with a main loop of its own would be a dependency for one question.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
from pathlib import Path

from msrecd.clock import NS, SYSTEM_CLOCK, Clock

log = logging.getLogger(__name__)

SYSTEM_BUS = Path("/run/dbus/system_bus_socket")
_BUS, _TIMEDATE = "org.freedesktop.DBus", "org.freedesktop.timedate1"
_TIMEOUT_S = 25.0  # what the bus gives a service to start
_FIRST_NS, _LONGEST_NS = 10 * NS, 120 * NS  # between two questions
_MAX_MESSAGE = 1 << 16
_CALL, _RETURN, _ERROR = 1, 2, 3
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8


class BusError(Exception):
    """There is no bus, it refuses, or the answer is none."""


class TimedateClock:
    """Says what timedated answered last; asks again in a thread of its own. Belongs to one thread."""

    def __init__(self, bus: Path = SYSTEM_BUS, clock: Clock = SYSTEM_CLOCK) -> None:
        self._bus = bus
        self._clock = clock
        self._answer = False
        self._asking: threading.Thread | None = None
        self._pause_ns = _FIRST_NS
        self._due_ns = clock.monotonic_ns()

    def __call__(self) -> bool:
        now = self._clock.monotonic_ns()
        if not (self._asking is not None and self._asking.is_alive()) and now >= self._due_ns:
            self._due_ns = now + self._pause_ns
            self._pause_ns = min(_LONGEST_NS, self._pause_ns * 2)
            self._asking = threading.Thread(target=self._ask, name="ask timedated", daemon=True)
            self._asking.start()
        return self._answer

    def wait(self) -> bool:
        """The answer to the question under way; blocks for as long as the bus may take."""
        self()
        if self._asking is not None:
            self._asking.join(_TIMEOUT_S)
        return self._answer

    def _ask(self) -> None:
        try:
            self._answer = ask_timedated(self._bus)
        except BusError as exc:
            log.debug("timedated does not say whether the clock is synchronised: %s", exc)


def ask_timedated(bus: Path, timeout_s: float = _TIMEOUT_S) -> bool:
    """Blocks.

    Raises:
        BusError: there is no answer.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(bus))
            _authenticate(connection)
            connection.sendall(_call(1, _BUS, "/org/freedesktop/DBus", _BUS, "Hello"))
            _answer_to(connection, 1)
            interface = _string(_TIMEDATE)
            body = interface + _string("NTPSynchronized", at=len(interface))
            connection.sendall(_call(2, _TIMEDATE, "/org/freedesktop/timedate1", f"{_BUS}.Properties", "Get", body))
            answer = _answer_to(connection, 2)
    except (OSError, struct.error, IndexError) as exc:
        raise BusError(f"{exc}") from exc
    # A variant: its signature ("b"), and, on the next multiple of four, a boolean.
    if answer[:3] != b"\x01b\0" or len(answer) != 8:
        raise BusError("no boolean")
    return answer[4:] == struct.pack("<I", 1)


def _authenticate(connection: socket.socket) -> None:
    """SASL with the mechanism EXTERNAL: the kernel says who we are."""
    connection.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
    line = b""
    while not line.endswith(b"\r\n"):
        part = connection.recv(1)
        if not part or len(line) > 1000:
            raise BusError("no answer to the authentication")
        line += part
    if not line.startswith(b"OK "):
        raise BusError("the bus does not let this user in")
    connection.sendall(b"BEGIN\r\n")


def _padded(size: int, to: int) -> int:
    return size + -size % to


def _string(text: str, at: int = 0) -> bytes:
    """A string of a body that goes on at this offset, with what fills it up to there."""
    data = text.encode()
    return bytes(-at % 4) + struct.pack("<I", len(data)) + data + b"\0"


def _call(serial: int, destination: str, path: str, interface: str, member: str, body: bytes = b"") -> bytes:
    fields = b""
    values = [
        (_PATH, "o", path),
        (_DESTINATION, "s", destination),
        (_INTERFACE, "s", interface),
        (_MEMBER, "s", member),
    ]
    for code, type_, value in values:
        fields += bytes(-len(fields) % 8) + struct.pack("<BBcB", code, 1, type_.encode(), 0) + _string(value)
    if body:
        fields += bytes(-len(fields) % 8) + struct.pack("<BBcBB", _SIGNATURE, 1, b"g", 0, 2) + b"ss\0"
    head = struct.pack("<cBBBIII", b"l", _CALL, 0, 1, len(body), serial, len(fields)) + fields
    return head + bytes(-len(head) % 8) + body


def _answer_to(connection: socket.socket, serial: int) -> bytes:
    """The body of the answer to this call; other messages (signals) are left out.

    Raises:
        BusError: the answer is an error, or too long.
    """
    for _ in range(100):
        head = _exactly(connection, 16)
        if head[:1] != b"l":  # the bus passes on what the service wrote, on the same machine
            raise BusError("no message")
        size, _, length = struct.unpack("<III", head[4:])
        if size > _MAX_MESSAGE or length > _MAX_MESSAGE:
            raise BusError("too long a message")
        fields = _exactly(connection, _padded(length, 8))[:length]
        body = _exactly(connection, size)
        if head[1] in (_RETURN, _ERROR) and _reply_serial(fields) == serial:
            if head[1] == _ERROR:
                raise BusError("the bus or timedated refuses")
            return body
    raise BusError("no answer")


def _reply_serial(fields: bytes) -> int | None:
    at = 0
    while at < len(fields):
        at = _padded(at, 8)
        code, signature = fields[at], fields[at + 2 : at + 3]
        at += 4
        if signature in (b"o", b"s"):
            at += 4 + struct.unpack_from("<I", fields, at)[0] + 1
        elif signature == b"g":
            at += fields[at] + 2
        elif signature == b"u":
            if code == _REPLY_SERIAL:
                return int(struct.unpack_from("<I", fields, at)[0])
            at += 4
        else:
            return None
    return None


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise BusError("the bus closed the connection")
        data += part
    return data
