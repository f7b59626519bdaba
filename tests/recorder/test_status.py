"""RecorderStatus: what those outside are told, and when."""

from __future__ import annotations

import pytest

from msrecd.recorder.problems import Problem
from msrecd.recorder.status import RecorderStatus

NO_SPACE, MISSING = Problem("no_space", "full"), Problem("device_missing", "gone")


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def status(told: list[str]) -> RecorderStatus:
    made = RecorderStatus(lambda: told.append(made.state))
    return made


def test_each_change_has_a_number_and_only_another_state_has_another_time(
    status: RecorderStatus, told: list[str]
) -> None:
    status.since_ns = 0  # long ago
    status.changed()
    assert (status.rev, status.since_ns) == (1, 0)
    status.phase = "recording"
    status.changed()
    began_ns = status.since_ns
    assert began_ns > 0
    status.changed()
    assert (status.rev, status.since_ns) == (3, began_ns)
    assert told == ["inactive", "recording", "recording"]


def test_a_problem_is_news_once_and_the_disk_comes_first(status: RecorderStatus) -> None:
    status.phase = "recording"
    assert status.note_run_problem(MISSING)
    assert not status.note_run_problem(Problem("device_missing", "gone for longer"))
    assert status.note_run_problem(Problem("device_busy", "another has it"))
    assert status.note_storage_problem(NO_SPACE)
    assert not status.note_storage_problem(Problem("internal", "the same disk"))
    assert status.state == "error"
    assert status.problem is not None
    assert status.problem.code == "no_space"
    status.storage_problem = None
    assert status.problem is not None
    assert status.problem.code == "device_busy"
    status.end()
    assert (status.state, status.problem, status.cause) == ("inactive", None, None)


def test_an_end_that_trembles_is_told_once(status: RecorderStatus, told: list[str]) -> None:
    second_ns = 1_000_000_000
    for until_ns in (second_ns, second_ns + 900, second_ns - 900, second_ns):
        status.set_until(until_ns)
    assert (status.until_ns, len(told)) == (second_ns, 1)
    status.set_until(2 * second_ns)
    status.set_until(None)
    status.set_until(None)
    assert (status.until_ns, len(told)) == (None, 3)
