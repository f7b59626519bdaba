"""timedated's answer over D-Bus: a service on a real bus where there is one, and answers that are none."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from dbusservice import Service, real_bus

from msrecd.clock import timedate
from msrecd.clock.timedate import TimedateClock, ask_timedated
from msrecd.systembus import BusError

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
def bus(tmp_path: Path) -> Iterator[Path]:
    with real_bus(tmp_path) as path:
        yield path


def test_a_real_bus_understands_the_question_and_passes_on_the_answer(bus: Path) -> None:
    path = "/org/freedesktop/timedate1"
    with Service(bus, "org.freedesktop.timedate1", path, {"NTPSynchronized": (b"b", 1)}) as service:
        assert ask_timedated(bus, 20) is True
        service.properties["NTPSynchronized"] = (b"b", 0)
        assert ask_timedated(bus, 20) is False
        service.properties["NTPSynchronized"] = (b"u", 1)
        with pytest.raises(BusError, match="not of the type b"):
            ask_timedated(bus, 20)


def test_a_real_bus_without_timedated_is_no_answer(bus: Path) -> None:
    with pytest.raises(BusError, match="refuses"):
        ask_timedated(bus, 20)
