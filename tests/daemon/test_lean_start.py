"""What a daemon keeps in memory for months: nothing that this one has no use for."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

from msrecd.mqtt.lazily import lazily

# Each of them comes with others, and is loaded when it is wanted: by a schedule, a proxy, the journal, a help text.
SELDOM = ("cronsim", "email", "http", "random", "shutil", "statistics", "systemd.journal", "tempfile", "zoneinfo")
CONNECT = """
import asyncio, sys
from msrecd.cli.main import build_parser
build_parser(("run",))
import msrecd.daemon.daemon
from msrecd.mqtt.client import Session
from msrecd.mqtt.settings import MqttSettings
from msrecd.mqtt.wire import Inbox

async def main():
    settings = MqttSettings(host="127.0.0.1", port=9, device_id="lean")  # nobody listens there
    session = Session(settings, Inbox(), lambda: None, asyncio.get_running_loop(), 20)
    session.open("lean", None, persistent=False)
    stopping = asyncio.ensure_future(asyncio.Event().wait())
    assert not await session.wait_accepted(stopping, 10)
    stopping.cancel()

asyncio.run(main())
print(*sorted(name for name in sys.argv[1:] if name in sys.modules))
"""


@pytest.mark.promise("lean-start")
def test_a_daemon_without_schedule_and_proxy_loads_nothing_for_them() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CONNECT, *SELDOM], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.fixture
def absent() -> str:
    """A module of the standard library that nobody here uses."""
    name = "colorsys"
    sys.modules.pop(name, None)
    return name


def test_a_lazy_module_is_loaded_at_its_first_use(absent: str) -> None:
    finders = list(sys.meta_path)
    with lazily(absent):
        module: ModuleType = __import__(absent)
    assert "rgb_to_hsv" not in object.__getattribute__(module, "__dict__")
    assert module.rgb_to_hsv(1.0, 0.0, 0.0) == (0.0, 1.0, 1.0)
    assert "rgb_to_hsv" in object.__getattribute__(module, "__dict__")
    assert sys.meta_path == finders
