"""A store of recordings with made-up chunks, and stores to send them to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from offloading import MakeStore, close_clients
from ports import free_port
from s3server import VERSITYGW, StandIn, versitygw

from msrecd.clock.wall import WallTime
from msrecd.storage.retention import Limits
from msrecd.storage.store import Store


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[MakeStore]:
    """Opens the store of the test, again after each `close`."""
    opened: list[Store] = []

    def make(limits: Limits | None = None) -> Store:
        store = Store(
            tmp_path / "recordings",
            tmp_path / "state",
            limits=limits or Limits(),
            recorder_limits={},
            sync_interval_s=2.0,
            walltime=WallTime(tmp_path / "state"),
        )
        store.open()
        opened.append(store)
        return store

    yield make
    close_clients()
    for store in opened:
        store.close()


@pytest.fixture(params=["stand-in", "versitygw"])
def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The stand-in, and the real server where it is installed: `scripts/setup.sh --tests` does, if there is Go."""
    if request.param == "stand-in":
        with StandIn() as store:
            yield store.endpoint
        return
    if not Path(VERSITYGW).exists():
        pytest.skip("versitygw is not installed: scripts/setup.sh --tests builds it where there is Go")
    port = free_port()
    with versitygw(tmp_path / "gateway", port):
        yield f"http://127.0.0.1:{port}"
