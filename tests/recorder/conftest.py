"""A store in a temporary folder, as recorders see it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from msrecd.clock.wall import WallTime
from msrecd.daemon.archive import DaemonArchive
from msrecd.storage.retention import Limits
from msrecd.storage.store import Store


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[DaemonArchive]:
    store = Store(
        tmp_path / "recordings",
        tmp_path / "state",
        limits=Limits(),
        recorder_limits={},
        sync_interval_s=2.0,
        walltime=WallTime(tmp_path / "state"),
    )
    store.open()
    yield DaemonArchive(store)
    store.close()
