"""Keys from a file in the INI format of the AWS tools, profile `default`."""

from __future__ import annotations

import configparser
import stat
from pathlib import Path

from msrecd.errors import ConfigError
from msrecd.offload.sigv4 import Credentials

PROFILE = "default"
_LIMIT_BYTES = 64 << 10


def read_credentials(path: Path, name: str = "offload.credentials_file") -> Credentials:
    """
    Args:
        name: of the setting, for messages.

    Raises:
        ConfigError: it cannot be read, is open to others, or has no keys. No part of it is shown.
    """
    try:
        with path.open("rb") as file:
            mode = file.fileno() and path.stat().st_mode
            content = file.read(_LIMIT_BYTES)
    except OSError as exc:
        raise ConfigError(f"{name}: {path}: {exc.strerror}") from exc
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{name}: {path} is open to others (mode {stat.S_IMODE(mode):04o}); chmod 0600 it")
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, configparser.Error) as exc:
        raise ConfigError(f"{name}: {path} is no file of AWS credentials, with a section [{PROFILE}]") from exc
    if not parser.has_section(PROFILE):
        raise ConfigError(f"{name}: {path} has no section [{PROFILE}]")
    section = parser[PROFILE]
    keys = {}
    for key in ("aws_access_key_id", "aws_secret_access_key"):
        keys[key] = section.get(key, "").strip()
        if not keys[key]:
            raise ConfigError(f"{name}: {path} lacks {key} in [{PROFILE}]")
    return Credentials(
        access_key=keys["aws_access_key_id"],
        secret_key=keys["aws_secret_access_key"],
        session_token=section.get("aws_session_token", "").strip(),
    )
