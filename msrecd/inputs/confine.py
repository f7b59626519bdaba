"""What a reading process gives up before it looks at anything from outside (Linux). Standard library alone.

What holds, on every kernel we run on: no new privileges, no program can be started or traced, no file can be written,
memory and open files have limits, no core dump, death with the parent. A process that reads a file has no network; one
that reads a network stream has no files, where the kernel has Landlock. What does not hold: a process that reads a
network stream can connect to other hosts; the sandbox of the systemd unit is what limits that.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
from collections.abc import Callable
from pathlib import Path

from msrecd.inputs.landlock import restrict_files
from msrecd.libav.values import LibavError

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 1, 4, 38, 22
_MEMORY = 192 << 20  # beyond what the interpreter and libav take
_FILES = 64

# Numbers of system calls, from the kernel's tables (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/
# unistd.h for aarch64, arch/arm/tools/syscall.tbl): what a demuxer never needs.
_FORBIDDEN = {
    "x86_64": {
        "execve": 59, "execveat": 322, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "mount": 165,
        "umount2": 166, "pivot_root": 155, "chroot": 161, "unshare": 272, "setns": 308, "bpf": 321, "keyctl": 250,
        "add_key": 248, "init_module": 175, "finit_module": 313, "kexec_load": 246, "reboot": 169, "kill": 62,
        "tkill": 200, "pidfd_send_signal": 424, "pidfd_getfd": 438, "perf_event_open": 298, "userfaultfd": 323,
        "io_uring_setup": 425, "unlink": 87, "unlinkat": 263, "rename": 82, "renameat": 264, "renameat2": 316,
        "mkdir": 83, "mkdirat": 258, "rmdir": 84, "link": 86, "linkat": 265, "symlink": 88, "symlinkat": 266,
        "chmod": 90, "fchmod": 91, "fchmodat": 268, "chown": 92, "fchown": 93, "fchownat": 260, "truncate": 76,
        "ftruncate": 77, "mknod": 133, "mknodat": 259,
    },
    "aarch64": {
        "execve": 221, "execveat": 281, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "mount": 40,
        "umount2": 39, "pivot_root": 41, "chroot": 51, "unshare": 97, "setns": 268, "bpf": 280, "keyctl": 219,
        "add_key": 217, "init_module": 105, "finit_module": 273, "kexec_load": 104, "reboot": 142, "kill": 129,
        "tkill": 130, "pidfd_send_signal": 424, "pidfd_getfd": 438, "perf_event_open": 241, "userfaultfd": 282,
        "io_uring_setup": 425, "unlinkat": 35, "renameat": 38, "renameat2": 276, "mkdirat": 34, "linkat": 37,
        "symlinkat": 36, "fchmod": 52, "fchmodat": 53, "fchown": 55, "fchownat": 54, "truncate": 45, "ftruncate": 46,
        "mknodat": 33,
    },
    "armv7l": {
        "execve": 11, "execveat": 387, "ptrace": 26, "process_vm_readv": 376, "process_vm_writev": 377, "mount": 21,
        "umount2": 52, "pivot_root": 218, "chroot": 61, "unshare": 337, "setns": 375, "bpf": 386, "keyctl": 311,
        "add_key": 309, "init_module": 128, "finit_module": 379, "kexec_load": 347, "reboot": 88, "kill": 37,
        "tkill": 238, "pidfd_send_signal": 424, "pidfd_getfd": 438, "perf_event_open": 364, "userfaultfd": 388,
        "io_uring_setup": 425, "unlink": 10, "unlinkat": 328, "rename": 38, "renameat": 329, "renameat2": 382,
        "mkdir": 39, "mkdirat": 323, "rmdir": 40, "link": 9, "linkat": 330, "symlink": 83, "symlinkat": 331,
        "chmod": 15, "fchmod": 94, "fchmodat": 333, "chown": 182, "fchown": 95, "fchownat": 325, "truncate": 92,
        "ftruncate": 93, "mknod": 14, "mknodat": 324,
    },
}  # fmt: skip
_NETWORK = {
    "x86_64": {"socket": 41, "connect": 42, "bind": 49},
    "aarch64": {"socket": 198, "connect": 203, "bind": 200},
    "armv7l": {"socket": 281, "connect": 283, "bind": 282},
}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "armv7l": 0x40000028}
_X32 = 0x40000000
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _EPERM, _KILL = 0x7FFF0000, 0x00050001, 0x80000000


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def confine(*, has_network: bool, memory: int = _MEMORY, file: str | None = None) -> None:
    """Give up what reading does not need (but for `file`); what this kernel does not know is left out."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _limit(resource.RLIMIT_AS, _address_space() + memory)
    _limit(resource.RLIMIT_NOFILE, _FILES)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    restrict_files(has_network=has_network, also=() if file is None else (file,))
    program = seccomp_program(platform.machine(), has_network=has_network)
    if program:
        libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(_SockFprog(len(program) // 8, program)), 0, 0)


def in_child(work: Callable[[], bytes]) -> bytes:
    """What `work` gives, done by a process that ends with it: the memory it touches is gone. For one with one thread.

    Raises:
        LibavError: it came to no end.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            os.close(reading)
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


def seccomp_program(machine: str, *, has_network: bool) -> bytes:
    """A filter in the kernel's classic BPF; forbidden calls fail with EPERM. Empty for a machine whose numbers are not
    known here (a 32-bit program on a 64-bit kernel is one: its `machine` is the kernel's)."""
    if machine not in _FORBIDDEN or struct.calcsize("P") != (4 if machine == "armv7l" else 8):
        return b""
    numbers = [*_FORBIDDEN[machine].values(), *(() if has_network else _NETWORK[machine].values())]
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _AUDIT_ARCH[machine]), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    if machine == "x86_64":  # the same calls by other numbers
        steps += [(_AT_LEAST, len(numbers) + 1, 0, _X32)]
    steps += [(_EQUAL, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _EPERM)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _limit(what: int, value: int) -> None:
    try:
        _, hard = resource.getrlimit(what)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (value, value))
    except (OSError, ValueError):
        return  # it is smaller already


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_bytes().split()[0]) * os.sysconf("SC_PAGE_SIZE")
