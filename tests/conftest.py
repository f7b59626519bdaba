"""What tests of more than one folder begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from broker import MOSQUITTO, Broker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A mosquitto of this test's own."""
    if not MOSQUITTO:
        pytest.skip("mosquitto is not installed (apt install mosquitto)")
    with Broker(tmp_path / "broker") as running:
        yield running
