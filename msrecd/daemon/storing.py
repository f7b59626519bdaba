"""Opening the storage as the configuration says, for the daemon and for commands beside it."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msrecd.clock.wall import WallTime
from msrecd.config.model import Config
from msrecd.storage import files
from msrecd.storage.retention import Limits
from msrecd.storage.store import Store

log = logging.getLogger(__name__)

_MARK = "moved"  # nothing of an older version is looked for any more
_OLD_STATES = (Path("/var/lib/msrecd"), Path("/var/lib/msrecd/state"))
_STATE_FILES = (
    "mqtt-events.sqlite3-wal",
    "mqtt-events.sqlite3-shm",
    "mqtt-events.sqlite3",
    "mqtt-memory.json",
    "restarts.json",
    "clock.jsonl",
    "storage.json",
    "boot.json",
)


def open_store(
    config: Config, walltime: WallTime, progress: Callable[[int, int], None] | None = None
) -> tuple[Store, list[Mapping[str, Any]]]:
    """The store, checked, recovered and indexed, and the manifest lines of what was recovered (blocking).

    Args:
        progress: called with (manifests read, manifests) while an index is built.

    Raises:
        StorageError: the folder of the recordings cannot be used.
    """
    store = make_store(config, walltime)
    return store, list(store.open(progress=progress))


def move_old_state(config: Config) -> None:
    """Move the state of the first edition to where it lies now; once, and only if it is that of these recordings.

    The first edition kept it in $STATE_DIRECTORY, that is in /var/lib/msrecd itself, for the service, and in
    /var/lib/msrecd/state for a shell. Where both know something, the service's holds.
    """
    new = config.storage.state_path
    if (new / _MARK).exists() or (new / "media.json").exists():
        return
    for old in (Path(os.environ.get("STATE_DIRECTORY", "").partition(":")[0] or "/var/lib/msrecd"), *_OLD_STATES):
        if old != new and _is_state_of(old, config.storage.path) and not files.is_locked(old / "lock"):
            try:
                _move(old, new)
                (new / _MARK).touch()
            except OSError as exc:
                log.warning("the state in %s cannot be moved to %s: %s", old, new, exc.strerror or exc)
            else:
                log.warning("moved the state from %s to %s", old, new)
            return


def _is_state_of(folder: Path, recordings: Path) -> bool:
    """Whether it is the state of a daemon of the first edition that recorded there."""
    try:
        note = json.loads(files.read_path(folder / "storage.json"))
        return bool(os.path.realpath(note["path"]) == os.path.realpath(recordings))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _move(old: Path, new: Path) -> None:
    new.mkdir(mode=files.FOLDER_MODE, parents=True, exist_ok=True)
    for kind in ("protected", "open"):
        if (old / kind).is_dir():
            (new / kind).mkdir(mode=files.FOLDER_MODE, exist_ok=True)
            for entry in sorted((old / kind).iterdir()):
                _move_file(entry, new / kind / entry.name)
            (old / kind).rmdir()
    if _changed_ns(new / "boot.json") > _changed_ns(old / "boot.json"):
        return  # another one that was used since
    for name in _STATE_FILES:
        if (old / name).is_file():
            _move_file(old / name, new / name)


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _move_file(old: Path, new: Path) -> None:
    try:
        old.replace(new)
    except OSError as exc:
        if exc.errno != errno.EXDEV:
            raise
        with files.closing_fd(files.open_root(new.parent)) as folder:
            files.replace_file(folder, new.name, files.read_path(old, 1 << 30))
        old.unlink()


def make_store(config: Config, walltime: WallTime) -> Store:
    """The store as configured, not opened yet."""
    storage = config.storage
    store = Store(
        storage.path,
        storage.state_path,
        limits=limits_of(config),
        recorder_limits=recorder_limits_of(config),
        sync_interval_s=storage.sync_interval_s,
        walltime=walltime,
    )
    if config.offload is not None:
        store.require_proof(config.offload.delete == "proven")
    return store


def limits_of(config: Config) -> Limits:
    """Those of `[storage]`, for all recordings together."""
    storage = config.storage
    return Limits(
        max_total_bytes=storage.max_total_bytes,
        max_age_s=storage.max_age_s,
        min_free_bytes=storage.min_free_bytes,
        max_protected_bytes=storage.max_protected_bytes,
    )


def recorder_limits_of(config: Config) -> dict[str, Limits]:
    """Each recorder's own."""
    return {
        recorder.name: Limits(
            max_total_bytes=recorder.retention.max_total_bytes, max_age_s=recorder.retention.max_age_s
        )
        for recorder in config.recorders
    }
