"""Files that hold secrets: passwords in their first line, private keys."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from msrecd.errors import ConfigError
from msrecd.vocabulary.plainfile import open_plain

SECRET_LIMIT_BYTES = 4096
_KEY_MARK = b"PRIVATE KEY-----"


def read_secret(path: Path, name: str, *, is_private: bool = True, what: str = "the password") -> str:
    """The first line of a file, without its end and without a byte order mark.

    Args:
        name: of the setting, for messages.
        is_private: refuse a file that its group or others may read; systemd guards its credentials by other means.
        what: belongs there, for messages.

    Raises:
        ConfigError: the file cannot be read, is open to others, is empty, too long or not text. No part of it is shown.
    """
    try:
        with open_plain(path) as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(SECRET_LIMIT_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"{name}: {path}: {exc.strerror}") from exc
    if is_private and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{name}: {path} is open to others (mode {stat.S_IMODE(mode):04o}); chmod 0600 it")
    if len(content) > SECRET_LIMIT_BYTES:
        raise ConfigError(f"{name}: {path} is longer than {SECRET_LIMIT_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{name}: {path} is not UTF-8 text") from exc
    secret = text.split("\n", 1)[0].rstrip("\r")
    if not secret:
        raise ConfigError(f"{name}: the first line of {path} is empty; {what} belongs there")
    return secret


def check_key_file(path: Path, name: str) -> None:
    """Refuse a file with a private key that everyone may read; a certificate alone may be open.

    Raises:
        ConfigError: it is open to everyone, or cannot be read.
    """
    try:
        with open_plain(path) as file:
            mode = os.fstat(file.fileno()).st_mode
            holds_key = mode & stat.S_IRWXO and _KEY_MARK in file.read()
    except OSError as exc:
        raise ConfigError(f"{name}: {path}: {exc.strerror}") from exc
    if holds_key:
        raise ConfigError(f"{name}: {path} holds a private key and is open to everyone; chmod 0600 (or 0640) it")


def web_password_command(file: object) -> str:
    """What makes the file with the hash of a password, so that only the service's user can read it."""
    return f"sudo -u msrecd sh -c 'umask 077; msrecd web-password > {file}'"
