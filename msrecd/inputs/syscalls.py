"""Which system calls a reading process may make: a filter in the kernel's classic BPF. Standard library alone.

The list names what must not be done; what the kernel learned after Linux 5.1 is refused unless it is known here. Some
calls are looked at more closely: a thread may be made but no process, a signal sent to oneself but to no other, a file
opened but not written. Numbers are those of the kernel's tables (arch/x86/entry/syscalls/syscall_64.tbl,
include/uapi/asm-generic/unistd.h for aarch64, arch/arm/tools/syscall.tbl).
"""

from __future__ import annotations

import errno
import platform
import socket
import struct
from dataclasses import dataclass

_MACHINES = ("x86_64", "aarch64", "arm")
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "arm": 0x40000028}
# Name: numbers on x86_64, aarch64 and arm; None: there is none.
_Numbers = tuple[int | None, int | None, int | None]
# Fails with EPERM, whoever calls it.
_FORBIDDEN: dict[str, _Numbers] = {
    # other programs and processes
    "execve": (59, 221, 11), "execveat": (322, 281, 387), "fork": (57, None, 2), "vfork": (58, None, 190),
    "ptrace": (101, 117, 26), "process_vm_readv": (310, 270, 376), "process_vm_writev": (311, 271, 377),
    "kill": (62, 129, 37), "tkill": (200, 130, 238), "rt_sigqueueinfo": (129, 138, 178),
    "rt_tgsigqueueinfo": (297, 240, 363), "kcmp": (312, 272, 378), "move_pages": (279, 239, 344),
    "migrate_pages": (256, 238, 400), "setpriority": (141, 140, 97), "ioprio_set": (251, 30, 314),
    "sched_setaffinity": (203, 122, 241), "sched_setscheduler": (144, 119, 156), "sched_setparam": (142, 118, 154),
    "sched_setattr": (314, 274, 380),
    # memory that outlives the process, or is counted for nobody
    "shmget": (29, 194, 307), "shmat": (30, 196, 305), "shmctl": (31, 195, 308), "semget": (64, 190, 299),
    "msgget": (68, 186, 303), "mq_open": (240, 180, 274), "memfd_create": (319, 279, 385),
    "keyctl": (250, 219, 311), "add_key": (248, 217, 309), "request_key": (249, 218, 310),
    # the system
    "mount": (165, 40, 21), "umount2": (166, 39, 52), "pivot_root": (155, 41, 218), "chroot": (161, 51, 61),
    "unshare": (272, 97, 337), "setns": (308, 268, 375), "bpf": (321, 280, 386), "init_module": (175, 105, 128),
    "finit_module": (313, 273, 379), "delete_module": (176, 106, 129), "kexec_load": (246, 104, 347),
    "kexec_file_load": (320, 294, 401), "reboot": (169, 142, 88), "perf_event_open": (298, 241, 364),
    "userfaultfd": (323, 282, 388), "swapon": (167, 224, 87), "swapoff": (168, 225, 115), "quotactl": (179, 60, 131),
    "acct": (163, 89, 51), "syslog": (103, 116, 103), "personality": (135, 92, 136), "vhangup": (153, 58, 111),
    "settimeofday": (164, 170, 79), "clock_settime": (227, 112, 262), "adjtimex": (159, 171, 124),
    "clock_adjtime": (305, 266, 372), "sethostname": (170, 161, 74), "setdomainname": (171, 162, 121),
    "lookup_dcookie": (212, 18, 249), "modify_ldt": (154, None, None), "iopl": (172, None, None),
    "ioperm": (173, None, None),
    # files, but for reading them
    "unlink": (87, None, 10), "unlinkat": (263, 35, 328), "rename": (82, None, 38), "renameat": (264, 38, 329),
    "renameat2": (316, 276, 382), "mkdir": (83, None, 39), "mkdirat": (258, 34, 323), "rmdir": (84, None, 40),
    "link": (86, None, 9), "linkat": (265, 37, 330), "symlink": (88, None, 83), "symlinkat": (266, 36, 331),
    "chmod": (90, None, 15), "fchmod": (91, 52, 94), "fchmodat": (268, 53, 333), "chown": (92, None, 182),
    "lchown": (94, None, 16), "fchown": (93, 55, 95), "fchownat": (260, 54, 325), "chown32": (None, None, 212),
    "fchown32": (None, None, 207), "lchown32": (None, None, 198), "truncate": (76, 45, 92), "ftruncate": (77, 46, 93),
    "truncate64": (None, None, 193), "ftruncate64": (None, None, 194), "fallocate": (285, 47, 352),
    "mknod": (133, None, 14), "mknodat": (259, 33, 324), "creat": (85, None, 8), "setxattr": (188, 5, 226),
    "lsetxattr": (189, 6, 227), "fsetxattr": (190, 7, 228), "removexattr": (197, 14, 235),
    "lremovexattr": (198, 15, 236), "fremovexattr": (199, 16, 237), "utime": (132, None, None),
    "utimes": (235, None, 269), "utimensat": (280, 88, 348), "futimesat": (261, None, 326),
    "open_by_handle_at": (304, 265, 371), "name_to_handle_at": (303, 264, 370), "fanotify_init": (300, 262, 367),
    # a network: being called by others
    "listen": (50, 201, 284),
}  # fmt: skip
_NETWORK: dict[str, _Numbers] = {"connect": (42, 203, 283), "bind": (49, 200, 282)}
# Looked at more closely.
_CLONE, _TGKILL, _PRLIMIT, _PRCTL = (56, 220, 120), (234, 131, 268), (302, 261, 369), (157, 167, 172)
_SOCKET, _OPEN, _OPENAT = (41, 198, 281), (2, None, 5), (257, 56, 322)
# From this number on, all machines have the same ones: what is not named here fails with ENOSYS, for which libraries
# have an older call. close_range, faccessat2, epoll_pwait2, futex_waitv, map_shadow_stack, futex_*.
_NEW = 424
_NEW_AND_KNOWN = (436, 439, 441, 449, 453, 454, 455, 456)
_PRIVATE_OF_ARM = 0xF0000  # cache and thread pointer
_X32 = 0x40000000

_CLONE_THREAD = 0x10000
_CLONE_NEW = 0x7E020080  # namespaces
_WRITING = 0o1 | 0o2 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC: the same on these machines
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_MM, _PR_SET_PTRACER = 1, 4, 35, 0x59616D61

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH = 0, 4
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM = _ERRNO | errno.EPERM

_Step = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What a process may still do.

    Attributes:
        families: of sockets that it may make; none: no network.
        may_fork: it may make processes (as confined as itself), but no namespaces.
        may_open: it may open files for reading.
    """

    families: tuple[int, ...] = ()
    may_fork: bool = False
    may_open: bool = True


INTERNET = (int(socket.AF_INET), int(socket.AF_INET6))
LOCAL = int(socket.AF_UNIX)


def this_machine() -> str:
    """The table that holds here; "" for a machine that is not known."""
    machine, pointer = platform.machine(), struct.calcsize("P")
    if pointer == 4:  # a 32-bit program, perhaps on a 64-bit kernel, which sees the calls of 32-bit Arm
        return "arm" if machine in ("aarch64", "armv8l", "armv7l", "armv6l") else ""
    return machine if machine in _MACHINES else ""


def filter_program(machine: str, rights: Rights, pid: int) -> bytes:
    """The filter for a process; empty for a machine that is not known."""
    if machine not in _MACHINES:
        return b""
    at = _MACHINES.index(machine)
    steps: list[_Step] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":  # the same calls by other numbers
        steps += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _EPERM)]
    if machine == "arm":
        steps += [(_AT_LEAST, 0, 1, _PRIVATE_OF_ARM), (_RETURN, 0, 0, _ALLOW)]
    for numbers, argument, decision in _closer_looks(rights, pid):
        if (number := numbers[at]) is not None:
            steps += [(_EQUAL, 0, 1 + len(decision), number), (_LOAD, 0, 0, 16 + 8 * argument), *decision]
    forbidden = _FORBIDDEN | ({} if rights.families else _NETWORK)
    for call in forbidden.values():
        if (number := call[at]) is not None:
            steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _EPERM)]
    steps += [(_EQUAL, 0, 1, number) if part == 0 else (_RETURN, 0, 0, _ALLOW)
              for number in _NEW_AND_KNOWN for part in (0, 1)]  # fmt: skip
    steps += [(_AT_LEAST, 0, 1, _NEW), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _closer_looks(rights: Rights, pid: int) -> list[tuple[_Numbers, int, list[_Step]]]:
    """(call, which argument is loaded, what follows: it ends with a return)."""
    opening = _unless_any(_WRITING, errno.EACCES) if rights.may_open else [(_RETURN, 0, 0, _ERRNO | errno.ENOENT)]
    threads = _unless_any(_CLONE_NEW, errno.EPERM)
    if not rights.may_fork:
        threads = [*threads[:-1], (_ANY_BIT, 1, 0, _CLONE_THREAD), (_RETURN, 0, 0, _EPERM), threads[-1]]
    settings = [_PR_SET_MM, _PR_SET_PTRACER, *(() if rights.may_fork else (_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE))]
    return [
        (_CLONE, 0, threads),
        (_TGKILL, 0, _only((pid,), errno.EPERM)),
        (_PRLIMIT, 0, _only((0, pid), errno.EPERM)),
        (_PRCTL, 0, _but(settings, errno.EPERM)),
        (_SOCKET, 0, _only(rights.families, errno.EAFNOSUPPORT if rights.families else errno.EPERM)),
        (_OPEN, 1, opening),
        (_OPENAT, 2, opening),
    ]


def _only(values: tuple[int, ...], error: int) -> list[_Step]:
    steps = [(_EQUAL, len(values) - at, 0, value) for at, value in enumerate(values)]
    return [*steps, (_RETURN, 0, 0, _ERRNO | error), (_RETURN, 0, 0, _ALLOW)]


def _but(values: list[int], error: int) -> list[_Step]:
    steps = [(_EQUAL, len(values) - at, 0, value) for at, value in enumerate(values)]
    return [*steps, (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | error)]


def _unless_any(bits: int, error: int) -> list[_Step]:
    return [(_ANY_BIT, 0, 1, bits), (_RETURN, 0, 0, _ERRNO | error), (_RETURN, 0, 0, _ALLOW)]
