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
from msrecd.config.rules import folder_problem
from msrecd.errors import ConfigError
from msrecd.inputs.address import parse

_REACH_S = 5.0
_ANSWER_S = 15.0  # rclone itself takes a second or two to start
_NOT_MADE = "directory not found"  # rclone's words
_MAKE_STORE = "mount the drive, or name another place"
_LOOK_YOURSELF = "network, name, keys: try it with rclone lsd"
_MADE_BY_SYSTEMD = Path("/var/lib/msrecd")  # StateDirectory= of the unit: made at its start, or given to its user


def page_problems(web: Web, user: str) -> list[str]:
    files = {"password_file": web.password_file, "cert_file": web.cert_file, "key_file": web.key_file}
    return list(_unreadable(files | {"viewer_password_file": web.viewer_password_file}, user))


def offload_problems(offload: Offload, user: str, recordings: Path | None = None) -> list[str]:
    files = {"credentials_file": offload.credentials_file, "ca_file": offload.ca_file}
    problems = list(_unreadable(files | {"config_file": offload.config_file}, user))
    if offload.kind == "rclone":
        if shutil.which("rclone") is None:
            problems.append("rclone is not installed; sudo apt install rclone")
        elif not problems and offload.config_file is not None and os.access(offload.config_file, os.R_OK):
            problems.extend(_rclone_problems(offload, offload.config_file, user, recordings))
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


def _rclone_problems(offload: Offload, config_file: Path, user: str, recordings: Path | None) -> Iterator[str]:
    """Ask rclone what is in the store. A folder of this machine is only looked at: the first file makes it."""
    # Here: for those who have such a store.
    from msrecd.offload.rcloneconfig import RcloneSettings, local_folder, recordings_problem, renews_tokens
    from msrecd.offload.rclonedaemon import Rclone
    from msrecd.offload.target import StoreError

    try:
        folder = local_folder(offload.remote, config_file)
        if folder is not None:
            below = offload.prefix.rpartition("/")[0]
            if recordings is not None and (message := recordings_problem(folder, below, recordings)):
                yield f"offload.remote {message}"
            elif message := folder_problem(folder) or folder_unusable(folder, user):
                yield f"{message}; {_MAKE_STORE}"
            return
        owner = config_file.stat().st_uid
        if owner != os.geteuid() and renews_tokens(config_file):
            # A file that root has written anew is no more the service's.
            yield f"not tried: rclone may renew its token; sudo -u {_name_of(owner)} msrecd doctor"
            return
        settings = RcloneSettings(remote=offload.remote, config_file=config_file, ca_file=offload.ca_file)
        rclone = Rclone(settings)
        try:
            rclone.call("operations/list", {"fs": offload.remote, "remote": ""}, within_s=_ANSWER_S)
        finally:
            rclone.close()
    except StoreError as exc:
        if _NOT_MADE not in exc.message:  # the first file makes it
            yield f"cannot be reached: {exc.message}; {_LOOK_YOURSELF}"
    except ConfigError as exc:
        yield f"{exc}; docs/storage.md"


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def is_source_visible(url: str) -> bool:
    """Whether who asks may look at a file that is a source; what is no file, anybody may."""
    address = parse(url)
    return not address.is_file or not _is_hidden(Path(address.opened))


def _is_hidden(path: Path) -> bool:
    """Whether who asks may not look there, so that nothing can be said."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        pass
    return False


def folder_unusable(folder: Path, user: str) -> str:
    """Why a service's user cannot use a folder, or make it where it is not there yet; "" where it can."""
    for place in (folder, *folder.parents):
        try:
            if not place.exists():
                if place == _MADE_BY_SYSTEMD:
                    return ""
                continue
            if not place.is_dir():
                return f"{place} is no folder"
            is_given = place == _MADE_BY_SYSTEMD and not _is_read_only(place)  # a disk mounted there, still root's
            return "" if is_given or can_write(place, user) else f"{place} cannot be written"
        except PermissionError:
            return ""  # only who may look there can say
    return ""


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
    return not _is_read_only(folder) and _may(folder, user, os.W_OK, (stat.S_IWUSR, stat.S_IWGRP, stat.S_IWOTH))


def _is_read_only(folder: Path) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


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
