"""What tests of more than one folder begin with."""

from __future__ import annotations

import asyncio
import asyncio.constants
import json
import os
import shlex
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from broker import MOSQUITTO, Broker
from hypothesis import HealthCheck, settings
from promises import keep_results
from workunits import scheduler

# asyncio's debug mode notes where each future, task and call was made. With whole stacks the tests of the conductor
# take six times as much CPU as without; the two innermost frames name the place.
asyncio.constants.DEBUG_STACK_DEPTH = 2  # type: ignore[misc]
traceback.extract_stack.__defaults__ = (None, 2)  # which the C code of futures calls without arguments

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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return scheduler(config, log) if config.getvalue("dist") == "loadscope" else None


_died: list[str] = []  # processes of xdist that ended without having said so


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object | None) -> None:
    if error:
        _died.append(f"{node.gateway.id}: {error}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """For scripts/test.py, which adds up what several runs counted and runs again what failed."""
    for death in _died:
        terminalreporter.write_line(f"FAILED a process of the tests died, {death}")
    if path := os.environ.get("MSRECD_TEST_REPORT"):
        names = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
        counts = {name: len(terminalreporter.getreports(name)) for name in names}
        failed = sorted({report.nodeid for name in ("failed", "error") for report in terminalreporter.getreports(name)})
        Path(path).write_text(json.dumps({"counts": counts, "failed": failed}))


_WORST_LAST = ("skipped", "passed", "failed")
_results: dict[str, dict[str, str]] = {}  # of tests that hold promises of the documentation


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # what takes long must not be what the other processes wait for at the end
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    for item in items:
        for mark in item.iter_markers("promise"):  # reports carry properties to the process that collects the results
            item.user_properties.append(("promise", list(mark.args)))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if not any(name == "promise" for name, _ in report.user_properties):
        return
    if report.when != "call" and report.outcome == "passed":
        return
    test = report.nodeid.partition("[")[0]  # all cases of a test are one: the worst counts
    before = _results.get(test, {"result": "skipped"})["result"]
    worst = max(before, report.outcome, key=_WORST_LAST.index)
    _results[test] = {"result": worst, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _results and not hasattr(session.config, "workerinput"):
        keep_results(_results)
    if _died and session.exitstatus == pytest.ExitCode.OK:  # after its last test: xdist names no test, and says nothing
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if "COVERAGE_PROCESS_START" in os.environ:
        save_coverage()


def save_coverage() -> None:
    """Write what this process has measured: xdist ends a worker that takes too long to exit, and that is lost then."""
    import coverage

    if (measuring := coverage.Coverage.current()) is not None:
        measuring.save()
