"""What tests of more than one folder begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from broker import MOSQUITTO, Broker
from hypothesis import HealthCheck, settings

# An example may take as long as a busy machine makes it take.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A mosquitto of this test's own."""
    if not MOSQUITTO:
        pytest.skip("mosquitto is not installed (apt install mosquitto)")
    with Broker(tmp_path / "broker") as running:
        yield running
