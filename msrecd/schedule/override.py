"""What people and limits have to say beside the schedule. A pure state machine.

    state      means                                    leaves
    Follow     the schedule alone decides               start, stop
    Started    a command started it, or autostart did   stop; the end of its duration
    Held       not before the end of the open window    start; that end
    Triggered  a trigger found something                stop; start; so long after that has ended

- A start outside of windows records until a stop, its duration or `max_duration`, across windows that come and go.
- A start within an open window goes on with the window; with a duration it records until the later of both ends.
- A stop within an open window holds until that window's end; the next window begins as planned.
- A trigger begins a recording where no command decided otherwise, and extends one that has an end. A stop holds
  until it finds something new.
- `max_duration` limits one recording, whatever started it, and acts like a stop.
What was asked for by hand is counted in monotonic time: a step of the wall clock neither cuts nor lengthens it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from msrecd.schedule.model import Window

_NS = 1_000_000_000


class Cause(StrEnum):
    """Why it is as it is; the words go into `cause` of the recorder's state."""

    NONE = "none"
    SCHEDULE = "schedule"
    COMMAND = "command"
    AUTOSTART = "autostart"
    DURATION = "duration"
    MAX_DURATION = "max_duration"
    RELOAD = "reload"
    TRIGGER = "trigger"


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """The schedule alone decides. `cause` is what led here: why it is off when no window is open."""

    cause: Cause = Cause.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Recording was asked for; `until_ns` is the monotonic end of a given duration.

    window_ns: the same of the window that was open last, if any: what ends later has ended the recording.
    """

    until_ns: int | None = None
    cause: Cause = Cause.COMMAND
    window_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """No recording until the end of the window that was open, on whichever clock it comes first."""

    until: datetime
    until_ns: int
    cause: Cause = Cause.COMMAND


@dataclass(frozen=True, slots=True, kw_only=True)
class Triggered:
    """A trigger asked for it. until_ns: the end, None while what it found lasts.

    asked_ns: the end that was asked for by hand, if any, which holds as well. kind: of the trigger.
    window_ns: as of Started.
    """

    kind: str
    until_ns: int | None = None
    asked_ns: int = 0
    window_ns: int | None = None


Override = Follow | Started | Held | Triggered


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What decides: both clocks now, the open window, when the running recording began (None: none), its limit."""

    now: datetime
    now_ns: int
    window: Window | None = None
    recording_since_ns: int | None = None
    max_duration_s: float | None = None

    def ns_of(self, instant: datetime) -> int:
        """The monotonic time of a wall time, as the clocks stand now."""
        return self.now_ns + (instant - self.now) // timedelta(microseconds=1) * 1000

    @property
    def window_ns(self) -> int | None:
        """The monotonic end of the open window."""
        return None if self.window is None else self.ns_of(self.window.stop)

    def instant_of(self, ns: int) -> datetime:
        """The wall time of a monotonic time, as the clocks stand now."""
        return self.now + timedelta(microseconds=(ns - self.now_ns) // 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether to record, why, and until when as far as is known; `until` and `until_ns` are the same moment.

    With `record` false, `until` is the end of a hold.
    """

    record: bool
    cause: Cause
    until: datetime | None = None
    until_ns: int | None = None


def start(state: Override, facts: Facts, *, duration_s: float | None = None, cause: Cause = Cause.COMMAND) -> Override:
    """It is started, by a command or by `autostart`."""
    if duration_s is not None:
        asked = facts.now_ns + round(duration_s * _NS)
        if isinstance(state, Triggered):
            until_ns = None if state.until_ns is None else max(state.until_ns, asked)
            return replace(state, until_ns=until_ns, asked_ns=max(state.asked_ns, asked))
        if isinstance(state, Started) and state.until_ns is None:
            return state  # it records without end already
        if isinstance(state, Started) and state.until_ns is not None:
            return replace(state, until_ns=max(state.until_ns, asked))
        return Started(until_ns=asked, cause=cause, window_ns=facts.window_ns)
    if isinstance(state, Started):
        return state
    return Follow() if facts.window is not None and cause is Cause.COMMAND else Started(cause=cause)


def trigger(state: Override, facts: Facts, *, kind: str, until_ns: int | None) -> Override:
    """A trigger finds something (`until_ns` None), or what it found is over and is recorded on until then."""
    if isinstance(state, Held) or (isinstance(state, Started) and state.until_ns is None):
        return state
    if isinstance(state, Follow) and until_ns is not None:
        return state  # what was recorded of it has been stopped
    asked_ns = state.until_ns or 0 if isinstance(state, Started) else 0
    if isinstance(state, Triggered):
        kind, asked_ns = state.kind, state.asked_ns
    return Triggered(kind=kind, until_ns=None if until_ns is None else max(until_ns, asked_ns), asked_ns=asked_ns)


def stop(state: Override, facts: Facts, *, cause: Cause = Cause.COMMAND) -> Override:
    """It is stopped, by a command or by a limit."""
    if facts.window is None:
        return state if isinstance(state, Held) else Follow(cause=cause)
    return Held(until=facts.window.stop, until_ns=facts.ns_of(facts.window.stop), cause=cause)


def step(state: Override, facts: Facts) -> tuple[Override, Decision]:
    """Let time pass: the state as it is now, and what follows from it. Call it after each change and at `until_ns`."""
    state = _in_window(_expire(state, facts), facts)
    limit_ns = _limit_ns(facts)
    if limit_ns is not None and facts.now_ns >= limit_ns:
        state = stop(state, facts, cause=Cause.MAX_DURATION)
    if isinstance(state, Held):
        return state, Decision(record=False, cause=state.cause, until=state.until, until_ns=state.until_ns)
    if isinstance(state, Follow) and facts.window is None:
        return state, Decision(record=False, cause=state.cause)
    end_ns = facts.window_ns
    cause = Cause.SCHEDULE
    if isinstance(state, Started):
        cause = state.cause
        if end_ns is not None and state.until_ns is not None:
            state = replace(state, window_ns=end_ns)
        end_ns = None if state.until_ns is None else max(state.until_ns, end_ns or state.until_ns)
    if isinstance(state, Triggered):
        cause = Cause.TRIGGER if facts.window is None else Cause.SCHEDULE
        if end_ns is not None:
            state = replace(state, window_ns=end_ns)
        end_ns = None if state.until_ns is None else max(state.until_ns, end_ns or state.until_ns)
    if limit_ns is not None:
        end_ns = limit_ns if end_ns is None else min(end_ns, limit_ns)
    until = None if end_ns is None else facts.instant_of(end_ns)
    return state, Decision(record=True, cause=cause, until=until, until_ns=end_ns)


def _expire(state: Override, facts: Facts) -> Override:
    if isinstance(state, Held) and (facts.now >= state.until or facts.now_ns >= state.until_ns):
        return Follow()
    if isinstance(state, Started) and state.until_ns is not None and facts.now_ns >= state.until_ns:
        return Follow(cause=Cause.NONE if (state.window_ns or 0) > state.until_ns else Cause.DURATION)
    if isinstance(state, Triggered) and state.until_ns is not None and facts.now_ns >= state.until_ns:
        if (state.window_ns or 0) > state.until_ns:
            return Follow()
        return Follow(cause=Cause.DURATION if state.until_ns == state.asked_ns else Cause.TRIGGER)
    return state


def _in_window(state: Override, facts: Facts) -> Override:
    """What led to `Follow` is past when a window opens: the end of that is the schedule's."""
    return Follow() if isinstance(state, Follow) and facts.window is not None else state


def _limit_ns(facts: Facts) -> int | None:
    if facts.max_duration_s is None or facts.recording_since_ns is None:
        return None
    return facts.recording_since_ns + round(facts.max_duration_s * _NS)
