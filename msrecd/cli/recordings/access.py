"""What the commands about recordings share: configuration, storage, whose files they are, times."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msrecd.cli.errors import UsageError
from msrecd.clock.wall import ReadOnlyWallTime, parse_moment
from msrecd.config import Config, load
from msrecd.daemon.checks import config_checks
from msrecd.daemon.storing import make_store, move_old_state
from msrecd.errors import StorageError
from msrecd.storage.catalog import Catalog, open_catalog
from msrecd.storage.files import closing_fd, open_root, require_no_file
from msrecd.storage.journal import Journal, OpenRecording
from msrecd.storage.medium import FOLDER as MEDIUM_FOLDER
from msrecd.storage.medium import IDENTITY as MEDIUM_FILE
from msrecd.storage.store import Store


def configuration(path: Path) -> Config:
    """
    Raises:
        InvalidConfigError: it is not valid.
    """
    return load(path, checks=config_checks())


@contextmanager
def catalog_of(config: Config) -> Iterator[Catalog]:
    """What is there, for reading.

    Raises:
        StorageError: the folder of the recordings is not there, or not for this user.
    """
    storage = config.storage
    require_access(storage.path, to_change=False)
    catalog = open_catalog(storage.path, storage.state_path, ReadOnlyWallTime(storage.state_path).corrections)
    try:
        yield catalog
    finally:
        catalog.close()


@contextmanager
def store_of(config: Config) -> Iterator[Store]:
    """The storage for changing something in it; not opened yet, closed at the end.

    Raises:
        StorageError: the folder of the recordings is not there, or not for this user.
    """
    storage = config.storage
    require_no_file(storage.path)
    if not storage.path.is_dir():
        raise StorageError(
            f"the folder {storage.path} is not there: nothing was recorded yet, or it is not mounted", "not_found"
        )
    become_owner(storage.state_path if storage.state_path.exists() else storage.path)
    require_access(storage.path, to_change=True)
    move_old_state(config)
    store = make_store(config, ReadOnlyWallTime(storage.state_path))
    try:
        yield store
    finally:
        store.close()


def become_owner(folder: Path) -> None:
    """Become the user who owns this folder, if root called.

    A daemon that runs as another user could not open files that root has created in its state folder.

    Raises:
        StorageError: it is not allowed.
    """
    if os.geteuid() != 0:
        return
    try:
        status = folder.stat()
        if status.st_uid != 0:
            # Python loads this module when it is first used, from a place that this user may not be able to read.
            importlib.import_module("_strptime")
            os.setgroups([])
            os.setgid(status.st_gid)
            os.setuid(status.st_uid)
    except OSError as exc:
        raise StorageError(f"cannot act as the owner of {folder}: {exc.strerror}", "permission") from exc


def require_access(path: Path, *, to_change: bool) -> None:
    """Make sure that this user may read, or change, the recordings: their folder, and what identifies their medium.

    Raises:
        StorageError: `permission`.
    """
    try:
        is_allowed = all(
            os.access(at, os.R_OK) and (not to_change or os.access(at, os.W_OK) or os.statvfs(at).f_flag & os.ST_RDONLY)
            for at in (path, path / MEDIUM_FOLDER, path / MEDIUM_FOLDER / MEDIUM_FILE)
            if at.exists()
        )
    except PermissionError:
        is_allowed = False
    if not is_allowed:
        what = "changed" if to_change else "read"
        raise StorageError(f"the recordings in {path} cannot be {what} by this user; try with sudo", "permission")


def known_recorder(config: Config, name: str) -> str:
    """The name, if a recorder has it or had it.

    Raises:
        UsageError: neither the configuration nor the storage knows it.
    """
    names = [recorder.name for recorder in config.recorders]
    if name not in names and ("/" in name or name.startswith(".") or not (config.storage.path / name).is_dir()):
        raise UsageError(f'there is no recorder "{name}"; there are: {", ".join(names) or "none"}')
    return name


def moment(text: str | None, option: str) -> int | None:
    """Nanoseconds since 1970 of an option's time; None without one.

    Raises:
        UsageError: it is no time.
    """
    if text is None:
        return None
    try:
        return parse_moment(text, time.time_ns())
    except (ValueError, OverflowError) as exc:
        raise UsageError(f"{option}: {exc}") from exc


def open_recordings(path: Path) -> Sequence[OpenRecording]:
    """What is being recorded there, or was when the power went; nothing where that may not be read."""
    try:
        with closing_fd(open_root(path)) as root:
            return list(Journal().read_all(root))
    except OSError:
        return []  # not for us to read
