"""The state machine of a recorder: its table, walked, and compared with the drawing in docs/architecture.md."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from msrecd.errors import CommandError
from msrecd.recorder.states import TRANSITIONS, WANTED, State, StateMachine, Trigger

ARCHITECTURE = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"


def machine(state: State) -> StateMachine:
    made = StateMachine()
    made.state = state
    return made


@pytest.mark.parametrize(("state", "trigger"), list(itertools.product(State, Trigger)))
def test_the_table_is_followed_and_everything_else_refused(state: State, trigger: Trigger) -> None:
    made = machine(state)
    expected = TRANSITIONS.get((state, trigger))
    if expected is None:
        with pytest.raises(CommandError, match="not possible"):
            made.do(trigger)
        assert made.state is state
    else:
        assert made.do(trigger) is made.state is expected[0]


def test_every_state_is_reached_and_all_but_the_last_are_left() -> None:
    reached = {State.IDLE}
    while more := {to for (at, _), (to, _) in TRANSITIONS.items() if at in reached} - reached:
        reached |= more
    assert reached == set(State)
    assert {at for at, _ in TRANSITIONS} == set(State) - {State.CLOSED}
    assert {trigger for _, trigger in TRANSITIONS} == set(Trigger)


def test_whatever_is_wanted_can_be_stopped_or_refused() -> None:
    for state in WANTED:
        ways = {trigger for at, trigger in TRANSITIONS if at is state}
        assert ways & {Trigger.STOP, Trigger.REFUSED}, state


@pytest.mark.promise("drawing-of-a-recorder")
def test_the_drawing_shows_exactly_the_table() -> None:
    drawn = re.findall(r"^    (\w+) --> (\w+): (\w+) \((\w+)\)$", ARCHITECTURE.read_text(), re.MULTILINE)
    assert sorted(drawn) == sorted((at, to, trigger, who) for (at, trigger), (to, who) in TRANSITIONS.items())
