"""Hashes of passwords: `scrypt$<log2 n>$<r>$<p>$<salt>$<key>`, in one line of a file.

The cost (RFC 7914: n = 2^14, r = 8, p = 1) is 16 MiB and some 40 ms of a desktop's core; one at a time is computed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from dataclasses import dataclass
from pathlib import Path

from msrecd.errors import ConfigError
from msrecd.vocabulary.secrets import read_secret

PASSWORD_LIMIT = 256
_LOG_N, _R, _P = 14, 8, 1
_KEY_BYTES = 32
_SALT_BYTES = 16
_MEMORY_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True, repr=False)
class PasswordHash:
    """A password that can be recognised and not read."""

    log_n: int
    r: int
    p: int
    salt: bytes
    key: bytes

    def fits(self, password: str) -> bool:
        """Whether this is the password. Takes a while, and memory."""
        made = _derive(password, self.salt, self.log_n, self.r, self.p)
        return hmac.compare_digest(made, self.key)


def make_hash(password: str) -> str:
    """The line for the file.

    Raises:
        ValueError: nobody could use this password.
    """
    if not password or len(password) > PASSWORD_LIMIT:
        raise ValueError(f"a password has 1 to {PASSWORD_LIMIT} characters")
    salt = os.urandom(_SALT_BYTES)
    key = _derive(password, salt, _LOG_N, _R, _P)
    return f"scrypt${_LOG_N}${_R}${_P}${_text(salt)}${_text(key)}"


def parse_hash(line: str) -> PasswordHash:
    """
    Raises:
        ValueError: it is no such line. No part of it is shown: it may be a password.
    """
    problem = ValueError("is no hash of a password; make one with: msrecd web-password")
    name, *fields = line.strip().split("$")
    if name != "scrypt" or len(fields) != 5:
        raise problem
    try:
        log_n, r, p = (int(field) for field in fields[:3])
        salt, key = (base64.b64decode(field, validate=True) for field in fields[3:])
    except (ValueError, binascii.Error) as exc:
        raise problem from exc
    is_cheap_enough = 10 <= log_n <= 17 and 1 <= r <= 16 and 1 <= p <= 4 and 128 * r * (1 << log_n) <= _MEMORY_LIMIT
    if not is_cheap_enough or len(salt) < 8 or len(key) != _KEY_BYTES:
        raise problem
    return PasswordHash(log_n, r, p, salt, key)


def read_hash(path: Path, name: str) -> PasswordHash:
    """The hash in a file.

    Args:
        name: of the setting, for messages.

    Raises:
        ConfigError: the file cannot be read, or holds no hash.
    """
    try:
        return parse_hash(read_secret(path, name, what="a hash made by: msrecd web-password"))
    except ValueError as exc:
        raise ConfigError(f"{name}: {path} {exc}") from exc


def _derive(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"),
        salt=salt,
        n=1 << log_n,
        r=r,
        p=p,
        maxmem=2 * _MEMORY_LIMIT,
        dklen=_KEY_BYTES,
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
