"""The fleet benchmark on a small scale: it works, and leaves nothing behind when somebody interrupts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from broker import MOSQUITTO

FLEET = Path(__file__).parents[2] / "benchmarks" / "fleet.py"
SAYS = "group start, replies: 12 devices"


def is_gone(group: int) -> bool:
    """Whether no process of this group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.skipif(not MOSQUITTO, reason="mosquitto is not installed")
@pytest.mark.parametrize(("number", "everybody"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_an_interrupted_fleet_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, everybody: bool) -> None:
    """Ctrl-C reaches every process of the group, a service manager's SIGTERM only the first."""
    with subprocess.Popen(
        [sys.executable, str(FLEET), "--devices", "12", "--processes", "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        start_new_session=True,
    ) as fleet:
        assert fleet.stdout is not None
        watchdog = threading.Timer(80, os.killpg, (fleet.pid, signal.SIGKILL))
        watchdog.start()
        said = []
        for line in fleet.stdout:
            said.append(line)
            if line.startswith(SAYS):
                break
        assert said, "nothing was said"
        assert said[-1].startswith(SAYS), "".join(said)
        assert list(tmp_path.iterdir()), "it works elsewhere"
        os.killpg(fleet.pid, number) if everybody else os.kill(fleet.pid, number)
        rest = fleet.stdout.read()
        assert fleet.wait(60) not in (0, -signal.SIGKILL), rest
        watchdog.cancel()
    assert "Traceback" not in rest, rest
    deadline = time.monotonic() + 20
    while not is_gone(fleet.pid):
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.05)
    assert not list(tmp_path.iterdir()), "a folder is left"


@pytest.mark.promise("fleet-model")
def test_the_model_names_the_first_limit_of_each_size() -> None:
    """A model of costs: it needs no broker, and grows in proportion."""
    model = subprocess.run(
        [sys.executable, str(FLEET.with_name("fleet_model.py"))], capture_output=True, text=True, timeout=80, check=True
    ).stdout
    limits = [line.split(" | ") for line in model.splitlines() if "**first limit**" in line]
    assert [row[0] for row in limits] == ["| 10 000", "| 100 000", "| 1 000 000"]
    assert float(limits[2][2]) == pytest.approx(10 * float(limits[1][2]), rel=0.01)
