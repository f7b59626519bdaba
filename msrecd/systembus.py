"""One question to a service on the system bus: the value of a property.

The few bytes of D-Bus (https://dbus.freedesktop.org/doc/dbus-specification.html) that this takes are here: a library
with a main loop of its own would be a dependency for two questions.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

_BUS = "org.freedesktop.DBus"
_DEFAULT = Path("/run/dbus/system_bus_socket")
_MAX_MESSAGE = 1 << 16
_CALL, _RETURN, _ERROR = 1, 2, 3
_NO_AUTO_START = 2  # a flag of a message
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8


class BusError(Exception):
    """There is no bus, it refuses, or the answer is none."""


def system_bus() -> Path:
    """Its socket: of DBUS_SYSTEM_BUS_ADDRESS where that names one ("unix:path=..."), else the usual one."""
    for address in os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", "").split(";"):
        kind, _, values = address.partition(":")
        for value in values.split(","):
            if kind == "unix" and value.startswith("path="):
                return Path(value.removeprefix("path="))
    return _DEFAULT


def read_boolean(bus: Path, service: str, path: str, name: str, *, timeout_s: float, starts: bool) -> bool:
    """The value of a boolean property of the interface that is named like the service; blocks.

    Args:
        timeout_s: of each part of the conversation.
        starts: whether the bus starts a service that does not run.

    Raises:
        BusError: there is no answer, or another one.
    """
    return _read(bus, service, path, name, "b", timeout_s=timeout_s, starts=starts) == 1


def read_uint32(bus: Path, service: str, path: str, name: str, *, timeout_s: float, starts: bool) -> int:
    """As `read_boolean`, of a property of the type UINT32."""
    return _read(bus, service, path, name, "u", timeout_s=timeout_s, starts=starts)


def _read(bus: Path, service: str, path: str, name: str, kind: str, *, timeout_s: float, starts: bool) -> int:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(bus))
            _authenticate(connection)
            connection.sendall(_call(1, _BUS, "/org/freedesktop/DBus", _BUS, "Hello"))
            _answer_to(connection, 1)
            interface = _string(service)
            body = interface + _string(name, at=len(interface))
            flags = 0 if starts else _NO_AUTO_START
            connection.sendall(_call(2, service, path, f"{_BUS}.Properties", "Get", body, flags))
            answer = _answer_to(connection, 2)
    except (OSError, struct.error, IndexError) as exc:
        raise BusError(f"{exc}") from exc
    # A variant: its signature, and, on the next multiple of four, four bytes.
    if answer[:3] != b"\x01" + kind.encode() + b"\0" or len(answer) != 8:
        raise BusError(f"{name} is not of the type {kind}")
    return int(struct.unpack("<I", answer[4:])[0])


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


def _call(
    serial: int, destination: str, path: str, interface: str, member: str, body: bytes = b"", flags: int = 0
) -> bytes:
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
    head = struct.pack("<cBBBIII", b"l", _CALL, flags, 1, len(body), serial, len(fields)) + fields
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
                raise BusError("the bus or the service refuses")
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
