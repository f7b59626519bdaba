"""Files that a confined process may read, where the kernel has Landlock (Linux 5.13 and later, if it is switched on).

https://docs.kernel.org/userspace-api/landlock.html. Everything that is not named here can be neither read nor written,
also by whoever exploits a flaw: recordings, keys, the configuration.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on all machines
_GET_VERSION = 1
_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# What is refused, but for what a rule allows: as much of it as the kernel's version of Landlock knows.
_FILES = (
    (1, (1 << 13) - 1),
    (2, 1 << 13),
    (3, 1 << 14),
    (5, 1 << 15),
)  # all there is; moving; truncating; ioctl of devices
_BIND_TCP, _CONNECT_TCP, _NETWORK_SINCE = 1, 2, 4
_SCOPES, _SCOPES_SINCE = 1 | 2, 6  # abstract sockets and signals of processes that are not as confined
# Libraries and modules that are loaded late, and what looking up a name and TLS read.
_PROGRAM = (
    "/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom", "/proc/cpuinfo",
    "/proc/meminfo", "/sys/devices/system/cpu", sys.prefix, sys.base_prefix, str(Path(__file__).parents[1]),
)  # fmt: skip
_FOR_NAMES = (
    "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/services",
    "/etc/protocols", "/etc/ssl", "/etc/gnutls", "/etc/crypto-policies", "/run/systemd/resolve", "/run/NetworkManager",
    "/run/resolvconf",
)  # fmt: skip


def restrict_files(*, has_network: bool, also: Iterable[str] = ()) -> bool:
    """From now on, read nothing but the program's own libraries, `also`, and (with a network) what names are looked up
    with; False where the kernel cannot do that. The caller has given up new privileges."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _GET_VERSION)
    if version < 1:
        return False
    files = sum(bits for since, bits in _FILES if version >= since)
    attributes = [files]
    if version >= _NETWORK_SINCE:
        attributes.append(_BIND_TCP | (0 if has_network else _CONNECT_TCP))
    if version >= _SCOPES_SINCE:
        attributes.append(_SCOPES)
    handled = struct.pack(f"={len(attributes)}Q", *attributes)
    ruleset = libc.syscall(_CREATE_RULESET, handled, ctypes.c_size_t(len(handled)), 0)
    if ruleset < 0:
        return False
    try:
        for path in (*_PROGRAM, *(_FOR_NAMES if has_network else ()), *also):
            with contextlib.suppress(OSError):
                _allow(libc, ruleset, path)
        return bool(libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str) -> None:
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        access = _READ_FILE | (_READ_DIR if stat.S_ISDIR(os.fstat(opened).st_mode) else 0)
        libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", access, opened), 0)
    finally:
        os.close(opened)
