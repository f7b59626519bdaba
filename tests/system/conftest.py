"""A person at the broker, a daemon there with a configuration of the test's, a card that it writes to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alsasim import alsa_plugin, alsa_sim  # noqa: F401 - fixtures
from broker import Broker, Observer
from card import Card
from config_text import configuration
from console import Console
from daemon import DaemonProcess
from wallclock import wallclock, wallclock_library  # noqa: F401 - fixtures


@pytest.fixture
def console(broker: Broker) -> Iterator[Console]:
    console = Console(broker.port)
    yield console
    console.close()


@pytest.fixture
def observer(broker: Broker) -> Iterator[Observer]:
    """Hears everything, as the bytes that came."""
    with Observer(broker) as watching:
        watching.subscribe("msrecd/#", "homeassistant/#")
        yield watching


@pytest.fixture
def daemon_for(tmp_path: Path, broker: Broker) -> Callable[..., DaemonProcess]:
    """Makes a daemon, not started yet, for these recorders; options are those of `configuration`."""

    def make(recorders: str, *, environment: dict[str, str] | None = None, **options: Any) -> DaemonProcess:
        text = configuration(tmp_path, port=broker.port, recorders=recorders, **options)
        return DaemonProcess(tmp_path, text, environment=environment)

    return make


@pytest.fixture
def card(tmp_path: Path) -> Iterator[Card]:
    """A memory card where daemons put their recordings."""
    with contextlib.ExitStack() as stack:
        try:
            card = stack.enter_context(Card.inserted(tmp_path / "card.img", tmp_path / "recordings"))
        except RuntimeError as exc:
            pytest.skip(str(exc))
        yield card
