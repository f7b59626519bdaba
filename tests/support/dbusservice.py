"""A bus of the tests' own, and a service on it that has properties."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from msrecd import systembus

_PROPERTIES = "org.freedesktop.DBus.Properties"


@contextmanager
def real_bus(folder: Path) -> Iterator[Path]:
    """The socket of a dbus-daemon; skips the test where there is none."""
    program = shutil.which("dbus-daemon")
    if program is None:
        pytest.skip("there is no dbus-daemon here (apt install dbus-daemon)")
    path = folder / "bus"
    config = folder / "bus.conf"
    config.write_text(
        f"<busconfig><type>session</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>"
        '<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>'
        '<allow own="*"/></policy></busconfig>'
    )
    with subprocess.Popen(
        [program, f"--config-file={config}", "--nofork", "--print-address"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        try:
            yield path
        finally:
            process.terminate()


class Service:
    """Owns a name and answers Properties.Get of the interface with that name at one path. A context manager.

    `properties`: name -> type ("b" or "u") and value; what is asked otherwise gets an error, as from a real service.
    """

    def __init__(self, bus: Path, name: str, path: str, properties: dict[str, tuple[bytes, int]]) -> None:
        self.properties = properties
        self.asked = 0
        self._name, self._path = name, path
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(20)
        self._connection.connect(str(bus))
        systembus._authenticate(self._connection)
        to = systembus._BUS
        self._connection.sendall(systembus._call(1, to, "/org/freedesktop/DBus", to, "Hello"))
        systembus._answer_to(self._connection, 1)
        body = systembus._string(name)
        body += bytes(-len(body) % 4) + struct.pack("<I", 0)
        call = systembus._call(2, to, "/org/freedesktop/DBus", to, "RequestName", body)
        self._connection.sendall(call.replace(b"\x08\x01g\0\x02ss\0", b"\x08\x01g\0\x02su\0"))
        systembus._answer_to(self._connection, 2)
        self._connection.settimeout(None)

    def __enter__(self) -> Service:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """It goes, as a service does that is stopped."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError, systembus.BusError):
            while True:
                head = systembus._exactly(self._connection, 16)
                size, serial, length = struct.unpack("<III", head[4:])
                fields = systembus._exactly(self._connection, systembus._padded(length, 8))
                body = systembus._exactly(self._connection, size)
                at = fields.find(b":1.")  # the sender
                if head[1] != systembus._CALL or at < 0:
                    continue
                self.asked += 1
                self._reply(serial, fields[at : fields.index(0, at)], self._answer(fields, body))

    def _answer(self, fields: bytes, body: bytes) -> tuple[bytes, int] | None:
        wanted = (self._path.encode() + b"\0", _PROPERTIES.encode() + b"\0", b"Get\0")
        interface = systembus._string(self._name)
        if not all(part in fields for part in wanted) or not body.startswith(interface):
            return None
        body = body[systembus._padded(len(interface), 4) :]
        return self.properties.get(body[4:-1].decode())

    def _reply(self, serial: int, sender: bytes, value: tuple[bytes, int] | None) -> None:
        to = struct.pack("<BBcBI", 5, 1, b"u", 0, serial)
        to += struct.pack("<BBcBI", 6, 1, b"s", 0, len(sender)) + sender + b"\0"
        to += bytes(-len(to) % 8)
        if value is None:
            error = b"org.freedesktop.DBus.Error.InvalidArgs"
            to += struct.pack("<BBcBI", 4, 1, b"s", 0, len(error)) + error + b"\0"
            kind, body = systembus._ERROR, b""
        else:
            to += struct.pack("<BBcBB", 8, 1, b"g", 0, 1) + b"v\0"
            kind, body = systembus._RETURN, b"\x01" + value[0] + b"\0\0" + struct.pack("<I", value[1])
        reply = struct.pack("<cBBBIII", b"l", kind, 0, 1, len(body), 3, len(to)) + to
        self._connection.sendall(reply + bytes(-len(reply) % 8) + body)
