"""What rclone's own configuration says of a remote."""

from __future__ import annotations

import configparser
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from msrecd.errors import ConfigError

_CONFIG_BYTES = 256 << 10
# Remotes that change what goes through them, and put it into another one.
_WRAPPERS = ("alias", "crypt", "chunker", "compress", "hasher")
_MOST_WRAPPED = 8
_REMOTE = re.compile(r"(?P<name>[A-Za-z0-9_.][A-Za-z0-9_. +@-]{0,63}):(?P<path>[^\x00-\x1f]{0,512})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class RcloneSettings:
    """remote: `name:path`, name from the configuration file. prefix: before all keys. rate: bytes a second."""

    remote: str
    config_file: Path
    prefix: str = ""
    ca_file: Path | None = None
    rate: int | None = None


def read_kind(remote: str, config_file: Path, name: str = "offload.config_file") -> str:
    """The kind of store that a remote is, from rclone's configuration.

    Args:
        name: of the setting, for messages.

    Raises:
        ConfigError: it cannot be read, is open to others, is encrypted, or does not know the remote.
    """
    section = split_remote(remote)[0]
    parser = _parsed(config_file, name)
    kind = parser.get(section, "type", fallback="").strip()
    if not kind:
        known = ", ".join(parser.sections()) or "none"
        raise ConfigError(f'{name}: {config_file} has no remote "{section}" with a type; it has: {known}')
    return kind


def local_folder(remote: str, config_file: Path) -> Path | None:
    """The folder of this machine in which a remote ends; None: elsewhere, or that cannot be told.

    Raises:
        ConfigError: like `read_kind`.
    """
    parser = _parsed(config_file, "offload.config_file")
    below = ""
    for _ in range(_MOST_WRAPPED):
        remote = remote.removeprefix(":local:")
        if remote.startswith("/"):
            return Path(remote) / below
        match = _REMOTE.fullmatch(remote)
        if match is None:
            return None
        section, path = match["name"], match["path"]
        kind = parser.get(section, "type", fallback="").strip()
        if kind == "local":
            return Path(path) / below
        if kind not in _WRAPPERS:
            return None
        below = str(Path(path.lstrip("/")) / below)
        remote = parser.get(section, "remote", fallback="").strip()
    return None


def renews_tokens(config_file: Path) -> bool:
    """Whether rclone may write into its configuration, for a remote there has a token that it renews.

    Raises:
        ConfigError: like `read_kind`.
    """
    parser = _parsed(config_file, "offload.config_file")
    return any(parser.has_option(section, "token") for section in parser.sections())


def recordings_problem(folder: Path | None, key: str, recordings: Path) -> str | None:
    """What is wrong with a store in the folder of the recordings: each file would prove itself, and go with rotation.

    Args:
        folder: `local_folder` of the remote.
        key: of a file, or of the folder of all keys.
    """
    if folder is None:
        return None
    recordings = recordings.resolve()
    place = (folder / key).resolve()
    if recordings == place or recordings in place.parents:
        return f"lies in {recordings}, the folder of the recordings: name another place"
    return None


def _parsed(config_file: Path, name: str) -> configparser.RawConfigParser:
    try:
        with config_file.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_CONFIG_BYTES)
    except OSError as exc:
        raise ConfigError(f"{name}: {config_file}: {exc.strerror}") from exc
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{name}: {config_file} is open to others (mode {stat.S_IMODE(mode):04o}); chmod 0600 it")
    if b"RCLONE_ENCRYPT_V" in content:
        raise ConfigError(f"{name}: {config_file} is encrypted; a service has nobody to ask for its password")
    parser = configparser.RawConfigParser(default_section="", strict=False)
    try:
        parser.read_string(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, configparser.Error) as exc:
        raise ConfigError(f"{name}: {config_file} is no configuration of rclone") from exc
    return parser


def split_remote(remote: str) -> tuple[str, str]:
    """Name and path.

    Raises:
        ConfigError: it is none.
    """
    match = _REMOTE.fullmatch(remote)
    if match is None:
        raise ConfigError(f'offload.remote: "{remote}" is no remote; write for example "nas:cameras"')
    return match["name"], match["path"]
