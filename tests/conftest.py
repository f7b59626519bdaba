"""What tests of more than one folder begin with."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[Any]) -> None:
    """Python's development mode (`python -X dev -m pytest -n …`) is the workers', too: xdist does not pass it on."""
    if sys.flags.dev_mode:
        for spec in specs:
            spec.python = shlex.join([sys.executable, "-X", "dev"])


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """For scripts/test.py, which adds up what several runs counted."""
    if path := os.environ.get("MSRECD_TEST_COUNTS"):
        names = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
        counts = {name: len(terminalreporter.getreports(name)) for name in names}
        Path(path).write_text(json.dumps(counts))
