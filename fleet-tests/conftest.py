"""These tests write into the system that they run in: only into the tree that scripts/fleet-test.sh makes for them."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True, scope="session")
def tree() -> None:
    if os.environ.get("MSRECD_FLEET_TREE") != "yes":
        pytest.skip("run it by `make fleet-test`")
