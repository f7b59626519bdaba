"""The states of a recorder, and every way from one to another. Pure.

docs/architecture.md draws this table; a test compares the two and walks every transition.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msrecd.errors import CommandError


class State(StrEnum):
    """What a recorder is doing. STARTING to STOPPING belong to one recording."""

    IDLE = "idle"
    ARMED = "armed"  # idle, with its inputs open and a pre-roll in memory
    STARTING = "starting"
    RECORDING = "recording"
    PAUSED = "paused"
    WAITING = "waiting"  # wanted, but nothing is recorded: the supervisor tries again
    STOPPING = "stopping"
    CLOSED = "closed"


class Trigger(StrEnum):
    """What makes a recorder change its state."""

    ARM = "arm"
    DISARM = "disarm"
    START = "start"
    STARTED = "started"
    REFUSED = "refused"
    LOST = "lost"
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    STOPPED = "stopped"
    CLOSE = "close"


# Who performs a transition.
COMMAND = "command"
ATTEMPT = "attempt"
SUPERVISOR = "supervisor"
WRITER = "writer"

TRANSITIONS: Mapping[tuple[State, Trigger], tuple[State, str]] = {
    (State.IDLE, Trigger.ARM): (State.ARMED, SUPERVISOR),
    (State.ARMED, Trigger.DISARM): (State.IDLE, ATTEMPT),
    (State.IDLE, Trigger.START): (State.STARTING, COMMAND),
    (State.ARMED, Trigger.START): (State.STARTING, COMMAND),
    (State.STARTING, Trigger.STARTED): (State.RECORDING, ATTEMPT),
    (State.STARTING, Trigger.REFUSED): (State.IDLE, COMMAND),
    (State.STARTING, Trigger.LOST): (State.WAITING, ATTEMPT),
    (State.RECORDING, Trigger.PAUSE): (State.PAUSED, COMMAND),
    (State.PAUSED, Trigger.RESUME): (State.RECORDING, COMMAND),
    (State.RECORDING, Trigger.LOST): (State.WAITING, ATTEMPT),
    (State.PAUSED, Trigger.LOST): (State.WAITING, ATTEMPT),
    (State.WAITING, Trigger.STARTED): (State.RECORDING, SUPERVISOR),
    (State.RECORDING, Trigger.STOP): (State.STOPPING, COMMAND),
    (State.PAUSED, Trigger.STOP): (State.STOPPING, COMMAND),
    (State.WAITING, Trigger.STOP): (State.STOPPING, COMMAND),
    (State.STOPPING, Trigger.STOPPED): (State.IDLE, WRITER),
    (State.IDLE, Trigger.CLOSE): (State.CLOSED, COMMAND),
    (State.ARMED, Trigger.CLOSE): (State.CLOSED, COMMAND),
}

WANTED = frozenset({State.STARTING, State.RECORDING, State.PAUSED, State.WAITING})


class StateMachine:
    """The present state; lives on the loop."""

    def __init__(self) -> None:
        self.state = State.IDLE

    def do(self, trigger: Trigger) -> State:
        """Go where the table says; the new state.

        Raises:
            CommandError: wrong_state: the table knows no such transition; nothing has changed.
        """
        found = TRANSITIONS.get((self.state, trigger))
        if found is None:
            raise CommandError("wrong_state", f"{trigger} is not possible while {self.state}")
        self.state = found[0]
        return self.state
