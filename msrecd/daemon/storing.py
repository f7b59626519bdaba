"""Opening the storage as the configuration says, for the daemon and for commands beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msrecd.clock.wall import WallTime
from msrecd.config.model import Config
from msrecd.storage.retention import Limits
from msrecd.storage.store import Store


def open_store(config: Config, walltime: WallTime) -> tuple[Store, list[Mapping[str, Any]]]:
    """The store, checked and recovered, and the manifest lines of what was recovered (blocking).

    An index that is missing is left to DaemonArchive.

    Raises:
        StorageError: the folder of the recordings or the state cannot be used.
    """
    store = make_store(config, walltime)
    return store, list(store.open(build_later=True))


def make_store(config: Config, walltime: WallTime) -> Store:
    """The store as configured, not opened yet."""
    storage = config.storage
    return Store(
        storage.path,
        storage.state_path,
        limits=limits_of(config),
        recorder_limits=recorder_limits_of(config),
        sync_interval_s=storage.sync_interval_s,
        walltime=walltime,
    )


def limits_of(config: Config) -> Limits:
    """Those of `[storage]`, for all recordings together."""
    storage = config.storage
    return Limits(
        max_total_bytes=storage.max_total_bytes, max_age_s=storage.max_age_s, min_free_bytes=storage.min_free_bytes
    )


def recorder_limits_of(config: Config) -> dict[str, Limits]:
    """Each recorder's own."""
    return {
        recorder.name: Limits(
            max_total_bytes=recorder.retention.max_total_bytes, max_age_s=recorder.retention.max_age_s
        )
        for recorder in config.recorders
    }
