"""timedated's answer over D-Bus: a service on a real bus where there is one, and answers that are none."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from msrecd.clock import timedate
from msrecd.clock.timedate import BusError, TimedateClock, ask_timedated

TRUE, FALSE = b"\x01b\0\0\x01\0\0\0", b"\x01b\0\0\0\0\0\0"


def message(kind: int, reply_to: int, body: bytes, signature: bytes = b"v") -> bytes:
    """One as a bus passes it on: REPLY_SERIAL, then SIGNATURE (specification, "Header Fields")."""
    fields = struct.pack("<BBcBI", 5, 1, b"u", 0, reply_to)
    fields += struct.pack("<BBcBB", 8, 1, b"g", 0, len(signature)) + signature + b"\0"
    head = struct.pack("<cBBBIII", b"l", kind, 0, 1, len(body), 7, len(fields)) + fields
    return head + bytes(-len(head) % 8) + body


class Bus:
    """Lets everybody in and gives prepared answers to the two calls. Use as a context manager."""

    def __init__(self, path: Path, *answers: bytes, login: bytes = b"OK 0123\r\n") -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._answers, self._login = answers, login
        self.asked = 0

    def __enter__(self) -> Bus:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.asked += 1
                connection.recv(1000)
                connection.sendall(self._login + b"".join(self._answers))
                connection.settimeout(5)
                try:
                    while connection.recv(1000):
                        pass
                except OSError:
                    continue


HELLO = message(2, 1, b"\x04\0\0\0:1.5\0", b"s")


@pytest.mark.parametrize(("answer", "expected"), [(TRUE, True), (FALSE, False)])
def test_what_timedated_says(tmp_path: Path, answer: bytes, expected: bool) -> None:
    signal = message(4, 0, b"")
    with Bus(tmp_path / "bus", HELLO, signal, message(2, 2, answer)):
        assert ask_timedated(tmp_path / "bus", 5) is expected


@pytest.mark.parametrize(
    "answers",
    [
        (message(3, 1, b""),),
        (HELLO, message(3, 2, b"\x01\0\0\0x\0", b"s")),
        (HELLO, message(2, 2, b"\x01s\0\0\x01\0\0\0x\0")),
        (HELLO, message(2, 2, b"")),
        (b"\xff" * 2000,),
        (b"l\2\0\1" + b"\xff" * 12,),
        (HELLO * 200,),
        (HELLO[:20],),
    ],
    ids=["no Hello", "no service", "a string", "nothing", "noise", "4 GiB", "endless", "cut"],
)
def test_what_is_no_answer(tmp_path: Path, answers: tuple[bytes, ...]) -> None:
    with Bus(tmp_path / "bus", *answers), pytest.raises(BusError):
        ask_timedated(tmp_path / "bus", 1)


def test_a_bus_that_does_not_let_us_in_or_is_not_there(tmp_path: Path) -> None:
    with Bus(tmp_path / "bus", login=b"REJECTED EXTERNAL\r\n"), pytest.raises(BusError, match="user"):
        ask_timedated(tmp_path / "bus", 1)
    with pytest.raises(BusError):
        ask_timedated(tmp_path / "none", 1)


class Now:
    def __init__(self) -> None:
        self.now_ns = 0

    def monotonic_ns(self) -> int:
        return self.now_ns


def test_it_is_asked_seldom_and_never_waited_for(tmp_path: Path) -> None:
    clock = Now()
    with Bus(tmp_path / "bus", HELLO, message(2, 2, TRUE)) as bus:
        timedated = TimedateClock(tmp_path / "bus", clock)  # type: ignore[arg-type]
        timedated()
        assert timedated.wait() is True
        for _ in range(5):
            timedated()
        assert bus.asked == 1
        clock.now_ns = timedate._LONGEST_NS
        timedated.wait()
        assert bus.asked == 2


# --- a real bus -----------------------------------------------------------------------------------------------------


@pytest.fixture
def real_bus(tmp_path: Path) -> Iterator[Path]:
    program = shutil.which("dbus-daemon")
    if program is None:
        pytest.skip("there is no dbus-daemon here (apt install dbus-daemon)")
    path = tmp_path / "real"
    config = tmp_path / "bus.conf"
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
        yield path
        process.terminate()


def _serve_timedated(path: Path, ready: threading.Event, answer: bytes) -> None:
    """A service that owns timedated's name and answers one call."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        timedate._authenticate(connection)
        bus = timedate._BUS
        connection.sendall(timedate._call(1, bus, "/org/freedesktop/DBus", bus, "Hello"))
        timedate._answer_to(connection, 1)
        name = timedate._string(timedate._TIMEDATE)
        body = name + bytes(-len(name) % 4) + struct.pack("<I", 0)
        call = timedate._call(2, bus, "/org/freedesktop/DBus", bus, "RequestName", body)
        connection.sendall(call.replace(b"\x08\x01g\0\x02ss\0", b"\x08\x01g\0\x02su\0"))
        timedate._answer_to(connection, 2)
        ready.set()
        sender = None
        while sender is None:
            head = timedate._exactly(connection, 16)
            size, serial, length = struct.unpack("<III", head[4:])
            fields = timedate._exactly(connection, timedate._padded(length, 8))
            timedate._exactly(connection, size)
            at = fields.find(b":1.")
            if head[1] == 1 and at > 0:
                sender = fields[at : fields.index(0, at)]
        to = struct.pack("<BBcBI", 5, 1, b"u", 0, serial)
        to += struct.pack("<BBcBI", 6, 1, b"s", 0, len(sender)) + sender + b"\0"
        to += bytes(-len(to) % 8) + struct.pack("<BBcBB", 8, 1, b"g", 0, 1) + b"v\0"
        reply = struct.pack("<cBBBIII", b"l", 2, 0, 1, len(answer), 3, len(to)) + to
        connection.sendall(reply + bytes(-len(reply) % 8) + answer)
        connection.recv(1)


def test_a_real_bus_understands_the_question_and_passes_on_the_answer(real_bus: Path) -> None:
    ready = threading.Event()
    service: Callable[..., None] = _serve_timedated
    threading.Thread(target=service, args=(real_bus, ready, TRUE), daemon=True).start()
    assert ready.wait(20)
    assert ask_timedated(real_bus, 20) is True


def test_a_real_bus_without_timedated_is_no_answer(real_bus: Path) -> None:
    with pytest.raises(BusError, match="refuses"):
        ask_timedated(real_bus, 20)
