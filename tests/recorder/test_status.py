"""RecorderStatus: what is published, and when."""

from __future__ import annotations

import pytest

from msrecd.recorder.problems import Problem
from msrecd.recorder.status import RecorderStatus

NO_SPACE, MISSING = Problem("no_space", "full"), Problem("device_missing", "gone")


@pytest.fixture
def published() -> list[str]:
    return []


@pytest.fixture
def status(published: list[str]) -> RecorderStatus:
    made = RecorderStatus(lambda: published.append(made.state))
    return made


@pytest.mark.promise("since-is-of-the-state")
def test_each_change_has_a_number_and_only_another_state_has_another_time(
    status: RecorderStatus, published: list[str]
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
    assert published == ["inactive", "recording", "recording"]


def test_a_problem_is_reported_once_and_again_after_all_was_well(status: RecorderStatus) -> None:
    status.phase = "recording"
    busy = Problem("device_busy", "another has it")
    assert [status.note_run_problem(one) for one in (MISSING, MISSING, busy, MISSING, busy)] == [
        True,
        False,
        True,
        False,
        False,
    ]
    assert status.problem is not None
    assert status.problem.message == busy.message, "the state shows the present cause"
    status.recovered(run=True)
    assert status.state == "recording"
    assert status.note_run_problem(MISSING)


def test_the_same_cause_keeps_its_message_and_its_beginning(status: RecorderStatus) -> None:
    first = Problem("no_space", "cannot write cam0-0001.mp4.part", cause="io_error")
    assert status.note_storage_problem(first)
    assert not status.note_storage_problem(Problem("no_space", "cannot write cam0-0002.mp4.part", cause="io_error"))
    assert status.problem is not None
    assert status.problem.message == first.message
    assert status.note_storage_problem(Problem("no_space", "read-only", cause="read_only"))
    assert status.problem.message == "read-only"


def test_the_storage_comes_first(status: RecorderStatus) -> None:
    status.phase = "recording"
    assert status.note_run_problem(Problem("device_busy", "another has it"))
    assert status.note_storage_problem(NO_SPACE)
    assert (status.state, status.problem and status.problem.code) == ("error", "no_space")
    status.recovered(storage=True)
    assert status.problem is not None
    assert status.problem.code == "device_busy"
    status.end()
    assert (status.state, status.problem, status.cause) == ("inactive", None, None)


def test_an_end_that_moves_by_microseconds_is_published_once(status: RecorderStatus, published: list[str]) -> None:
    second_ns = 1_000_000_000
    for until_ns in (second_ns, second_ns + 900, second_ns - 900, second_ns):
        status.set_until(until_ns)
    assert (status.until_ns, len(published)) == (second_ns, 1)
    status.set_until(2 * second_ns)
    status.set_until(None)
    status.set_until(None)
    assert (status.until_ns, len(published)) == (None, 3)
