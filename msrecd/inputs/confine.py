"""What a reading process gives up before it looks at anything from outside (Linux). Standard library alone.

What holds, on every kernel we run on: no new privileges, no program and no process can be started, no other process
be traced or signalled or get other limits, no file be written, emptied or removed; memory, threads and open files have
limits; no core dump, death with the parent. A process that reads a file has no network; one that reads a network stream
has no files, where the kernel has Landlock (that of Raspberry Pi OS has not), or where it needs none (helper.py). What
does not hold: one in which libav reads a network stream can connect to other hosts; the sandbox of the systemd unit is
what limits that.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

from msrecd.inputs.landlock import restrict_files
from msrecd.inputs.syscalls import Rights, filter_program, this_machine
from msrecd.libav.values import LibavError

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 1, 4, 38, 22
_MEMORY = 192 << 20  # beyond what the interpreter and libav take
_FILES = 64
_TASKS = 512  # more than this user has: no decoder makes so many threads, and those of the daemon grow, too
NOTHING = Rights()


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def confine(*, rights: Rights = NOTHING, memory: int = _MEMORY, files: int = _FILES, file: str | None = None) -> None:
    """Give up what reading does not need (but for `file`); what this kernel does not know is left out."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _limit(resource.RLIMIT_AS, _address_space() + memory)
    _limit(resource.RLIMIT_NOFILE, files)
    _limit(resource.RLIMIT_NPROC, _tasks_of_this_user() + _TASKS)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    restrict_files(has_network=bool(rights.families), also=() if file is None else (file,))
    narrow(rights)


def narrow(rights: Rights) -> None:
    """Give up what is not among these rights; for the rest of this process and its children, whatever comes later."""
    program = filter_program(this_machine(), rights, os.getpid())
    if program:
        filter_ = _SockFprog(len(program) // 8, program)
        ctypes.CDLL(None).prctl(_PR_SET_SECCOMP, 2, ctypes.byref(filter_), 0, 0)


def in_child(work: Callable[[], bytes]) -> bytes:
    """What `work` gives, done by a process that ends with it: the memory it touches is gone. For one with one thread.

    The child has nothing but the way back: no connection of this process, no network, no processes of its own.

    Raises:
        LibavError: it came to no end.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            _keep_open(writing)
            narrow(NOTHING)
            view = memoryview(work())
            while view:
                view = view[os.write(writing, view) :]
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    parts = []
    try:
        while part := os.read(reading, 65536):
            parts.append(part)
    finally:
        os.close(reading)
    _, code = os.waitpid(child, 0)
    if os.WIFSIGNALED(code):
        raise LibavError(f"the process that looked at it was killed by {signal.Signals(os.WTERMSIG(code)).name}")
    if code:
        raise LibavError("the process that looked at it failed")
    return b"".join(parts)


def give_back_memory() -> None:
    """What probing took and freed goes back to the system, where the C library can do that (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _keep_open(only: int) -> None:
    """Close every other file, but for the standard ones."""
    os.closerange(3, only)
    os.closerange(only + 1, 1 << 16)


def _tasks_of_this_user() -> int:
    """Processes and threads, as RLIMIT_NPROC counts them; those that are confined already cannot be seen."""
    count, user = 0, os.getuid()
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == user:
                    count += sum(1 for _ in os.scandir(f"{entry.path}/task"))
    return count


def _limit(what: int, value: int) -> None:
    try:
        _, hard = resource.getrlimit(what)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (value, value))
    except (OSError, ValueError):
        return  # it is smaller already


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_bytes().split()[0]) * os.sysconf("SC_PAGE_SIZE")
