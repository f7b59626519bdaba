"""Daemons that are forked from a process which has imported the program: half a second of CPU less for each start.

A daemon begins with its arguments, environment, log and folder, as `python -m msrecd` does; the interpreter's start and
the imports are done before. With what changes these two (a preloaded library, Python's own variables, coverage) it has
a process of its own. MSRECD_FRESH_DAEMONS=1: all have.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

# What a daemon with a broker, a page, virtual and ALSA devices has loaded when it is ready.
MODULES = (
    "msrecd.cli.run", "msrecd.daemon.daemon", "msrecd.mqtt.service", "paho.mqtt.client", "msrecd.web.webserver",
    "msrecd.web.daemonside", "msrecd.devices.virtual", "msrecd.devices.alsa.source", "msrecd.codecs.table",
)  # fmt: skip
BEFORE_MAIN = (
    "LD_",
    "LC_",
    "LANG",
    "PYTHON",
    "MALLOC_",
    "COVERAGE_",
    "GLIBC_",
)  # variables that count before the program begins


class ForkedProcess:
    """As much of subprocess.Popen as tests of daemons use."""

    def __init__(self, pid: int, life: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._life = life  # gives the exit code once

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """
        Raises:
            subprocess.TimeoutExpired: it has not ended by then.
        """
        if self.returncode is None:
            self._life.settimeout(timeout)
            try:
                said = self._life.recv(16)
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired("msrecd run", timeout or 0) from None
            self._life.close()
            assert said, f"what the daemon was forked from ended before it; its exit code: {ForkServer.exit_code()}"
            self.returncode = int(said)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def __del__(self) -> None:
        self._life.close()


class ForkServer:
    """The process that daemons are forked from; one for each process of the tests, started with the first daemon."""

    _running: ForkServer | None = None

    @classmethod
    def can_start(cls, environment: Mapping[str, str]) -> bool:
        if "COVERAGE_PROCESS_START" in environment or os.environ.get("MSRECD_FRESH_DAEMONS"):
            return False
        return before_main(environment) == (cls._running.environment if cls._running else before_main(os.environ))

    @classmethod
    def exit_code(cls) -> int | None:
        """Of the process that runs, or ran; None while it does."""
        return cls._running._process.poll() if cls._running is not None else None

    @classmethod
    def running(cls) -> ForkServer:
        if cls._running is None:
            cls._running = cls()
        return cls._running

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        self._control = ours
        self.environment = before_main(os.environ)
        atexit.register(self.close)

    def start(self, arguments: Sequence[str], *, log: IO[bytes], environment: Mapping[str, str]) -> ForkedProcess:
        life, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        order = {"arguments": list(arguments), "environment": dict(environment), "folder": str(Path.cwd())}
        with theirs:
            socket.send_fds(self._control, [json.dumps(order).encode()], [log.fileno(), theirs.fileno()])
        return ForkedProcess(int(life.recv(16)), life)

    def close(self) -> None:
        self._control.close()
        self._process.wait(30)


def before_main(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        key: value for key, value in environment.items() if key.startswith(BEFORE_MAIN) and key != "PYTHONUNBUFFERED"
    }


# --- in the process that is forked from ------------------------------------------------------------------------------


def serve(control: socket.socket) -> list[str] | None:
    """Fork one daemon after the other: in each of them, this gives its arguments; None when the tests have ended."""
    for module in MODULES:
        importlib.import_module(module)
    gc.freeze()
    lives: dict[int, tuple[int, socket.socket]] = {}  # pidfd -> process, who wants to know its exit code
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd in lives:
                    pid, life = lives.pop(key.fd)
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    _, status = os.waitpid(pid, 0)
                    with life, contextlib.suppress(OSError):  # the tests have gone
                        life.send(str(os.waitstatus_to_exitcode(status)).encode())
                    continue
                message, descriptors, _, _ = socket.recv_fds(control, 1 << 20, 2)
                if not message:
                    return None
                log, life = descriptors[0], socket.socket(fileno=descriptors[1])
                assert len(list(Path("/proc/self/task").iterdir())) == 1, "only a process with one thread may be forked"
                pid = os.fork()
                if pid == 0:
                    for descriptor, (_, other) in lives.items():
                        os.close(descriptor)
                        other.close()
                    life.close()
                    control.close()
                    return begin(json.loads(message), log)
                os.close(log)
                descriptor = os.pidfd_open(pid)
                lives[descriptor] = (pid, life)
                selector.register(descriptor, selectors.EVENT_READ)
                life.send(str(pid).encode())


def begin(order: dict[str, Any], log: int) -> list[str]:
    """Be the process that was asked for; its arguments."""
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    time.tzset()
    arguments: list[str] = order["arguments"]
    return arguments


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())  # as `python -m` has it
    given = serve(socket.socket(fileno=int(sys.argv[1])))
    if given is not None:
        from msrecd.cli import main

        sys.argv = ["msrecd", *given]
        sys.exit(main())
