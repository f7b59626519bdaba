"""What the page and the off-load need beside a valid configuration. Problems are "what is wrong; what to do".

`check-config` is run by a person, often root: here it counts what the service's user may do.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from msrecd.config.model import Web
from msrecd.config.offload_table import Offload
from msrecd.errors import ConfigError

_REACH_S = 5.0


def page_problems(web: Web, user: str) -> list[str]:
    files = {"password_file": web.password_file, "cert_file": web.cert_file, "key_file": web.key_file}
    return list(_unreadable(files | {"viewer_password_file": web.viewer_password_file}, user))


def offload_problems(offload: Offload, user: str) -> list[str]:
    files = {"credentials_file": offload.credentials_file, "ca_file": offload.ca_file}
    problems = list(_unreadable(files, user))
    if offload.kind == "rclone":
        if shutil.which("rclone") is None:
            problems.append("rclone is not installed; sudo apt install rclone")
        return problems
    if offload.credentials_file is not None and not problems and os.access(offload.credentials_file, os.R_OK):
        from msrecd.offload.awscredentials import read_credentials  # here: it belongs to the client of a store

        try:
            read_credentials(offload.credentials_file, "credentials_file")
        except ConfigError as exc:
            problems.append(f"{exc}; docs/storage.md")
    address = urlsplit(offload.endpoint)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=_REACH_S):
            pass
    except OSError as exc:
        problems.append(f"{address.hostname}:{port} cannot be reached: {exc.strerror or exc}; network, name, firewall")
    return problems


def _unreadable(files: dict[str, Path | None], user: str) -> Iterator[str]:
    for name, path in files.items():
        if path is None or _is_root_only(path.parent):
            continue
        if not path.exists():
            yield f"{name}: there is no {path}; make it, or name another"
        elif not can_read(path, user):
            yield f"{name}: the user {user} cannot read {path}; sudo chown {user}: {path} && sudo chmod 600 {path}"


def _is_root_only(folder: Path) -> bool:
    """Whether whoever asks may not look into it, so that nothing can be said."""
    return not os.access(folder, os.X_OK)


def can_read(path: Path, user: str) -> bool:
    """Whether the service's user can read a file, whoever asks; where there is no such user, whether who asks can."""
    return _may(path, user, os.R_OK, (stat.S_IRUSR, stat.S_IRGRP, stat.S_IROTH))


def can_write(folder: Path, user: str) -> bool:
    """Whether the service's user can write into a folder, whoever asks."""
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return False
    return _may(folder, user, os.W_OK, (stat.S_IWUSR, stat.S_IWGRP, stat.S_IWOTH))


def _may(path: Path, user: str, wanted: int, bits: tuple[int, int, int]) -> bool:
    try:
        known = pwd.getpwnam(user)
    except KeyError:
        return os.access(path, wanted)
    found = path.stat()
    of_user, of_group, of_others = bits
    if found.st_uid == known.pw_uid:
        return bool(found.st_mode & of_user)
    return bool(found.st_mode & (of_group if found.st_gid == known.pw_gid else of_others))
