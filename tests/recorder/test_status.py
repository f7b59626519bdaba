"""Standing: what those outside are told, and when."""

from __future__ import annotations

import pytest

from msrecd.recorder.problems import Problem
from msrecd.recorder.status import Standing

NO_SPACE, MISSING = Problem("no_space", "full"), Problem("device_missing", "gone")


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def standing(told: list[str]) -> Standing:
    made = Standing(lambda: told.append(made.state))
    return made


def test_each_change_has_a_number_and_only_another_state_has_another_time(standing: Standing, told: list[str]) -> None:
    standing.since_ns = 0  # long ago
    standing.changed()
    assert (standing.rev, standing.since_ns) == (1, 0)
    standing.phase = "recording"
    standing.changed()
    began_ns = standing.since_ns
    assert began_ns > 0
    standing.changed()
    assert (standing.rev, standing.since_ns) == (3, began_ns)
    assert told == ["inactive", "recording", "recording"]


def test_a_problem_is_news_once_and_the_disk_comes_first(standing: Standing) -> None:
    standing.phase = "recording"
    assert standing.note_run_problem(MISSING)
    assert not standing.note_run_problem(Problem("device_missing", "gone for longer"))
    assert standing.note_run_problem(Problem("device_busy", "another has it"))
    assert standing.note_storage_problem(NO_SPACE)
    assert not standing.note_storage_problem(Problem("internal", "the same disk"))
    assert standing.state == "error"
    assert standing.problem is not None
    assert standing.problem.code == "no_space"
    standing.storage_problem = None
    assert standing.problem is not None
    assert standing.problem.code == "device_busy"
    standing.end()
    assert (standing.state, standing.problem, standing.cause) == ("inactive", None, None)


def test_an_end_that_trembles_is_told_once(standing: Standing, told: list[str]) -> None:
    second_ns = 1_000_000_000
    for until_ns in (second_ns, second_ns + 900, second_ns - 900, second_ns):
        standing.set_until(until_ns)
    assert (standing.until_ns, len(told)) == (second_ns, 1)
    standing.set_until(2 * second_ns)
    standing.set_until(None)
    standing.set_until(None)
    assert (standing.until_ns, len(told)) == (None, 3)
