"""The event bus: what the daemon publishes, for every adapter that subscribes (MQTT, the local socket, a web page).

Delivery is synchronous and on the loop, so the bus itself queues nothing: an adapter with slow readers bounds its own
queue, counts what it drops and says so in its `health`. An adapter that raises is logged and affects no other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

log = logging.getLogger(__name__)

Payload = Mapping[str, object] | Sequence[object]
Mark = tuple[str, int]  # recording_id, seq of its last chunk whose event was published; 0: none yet

_RECORDER = "recorder/"


@dataclass(frozen=True, slots=True)
class State:
    """The present value of `path` (`daemon`, `devices`, `health`, `recorder/<name>`); None: it no longer exists."""

    path: str
    payload: Payload | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, at `path` (`device`, `error`, `recorder/<name>`)."""

    path: str
    payload: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Image:
    """The JPEG of a recorder's last snapshot."""

    recorder: str
    jpeg: bytes


Item = State | Event | Image


class Bus:
    """Lives on the loop."""

    def __init__(self) -> None:
        self._states: dict[str, Payload] = {}
        self._subscribers: list[Callable[[Item], None]] = []

    @property
    def states(self) -> Mapping[str, Payload]:
        """The present value of every path that has one."""
        return self._states

    @property
    def recorders(self) -> frozenset[str]:
        """Names of the recorders that have a state."""
        return frozenset(path.removeprefix(_RECORDER) for path in self._states if path.startswith(_RECORDER))

    def subscribe(self, receive: Callable[[Item], None]) -> None:
        """Give `receive` the present states now, and everything that is published from now on."""
        for path, payload in list(self._states.items()):
            _deliver(receive, State(path, payload))
        self._subscribers.append(receive)

    def unsubscribe(self, receive: Callable[[Item], None]) -> None:
        """Deliver nothing more to it."""
        if receive in self._subscribers:
            self._subscribers.remove(receive)

    def set_state(self, path: str, payload: Payload) -> None:
        """Publish the present value of `path`. It must not be changed afterwards."""
        self._states[path] = payload
        self._publish(State(path, payload))

    def clear_state(self, path: str) -> None:
        """Publish that `path` no longer exists."""
        self._states.pop(path, None)
        self._publish(State(path, None))

    def emit(self, path: str, payload: Mapping[str, object]) -> None:
        """Publish an event."""
        self._publish(Event(path, payload))

    def show(self, recorder: str, jpeg: bytes) -> None:
        """Publish a snapshot."""
        self._publish(Image(recorder, jpeg))

    def _publish(self, item: Item) -> None:
        for receive in list(self._subscribers):
            _deliver(receive, item)


def _deliver(receive: Callable[[Item], None], item: Item) -> None:
    try:
        receive(item)
    except Exception:
        log.exception("a subscriber of the event bus failed on a %s; the others are served", type(item).__name__)


class Adapter:
    """One way to reach the daemon: publishes what is on the bus, takes commands. The daemon treats all alike.

    Attributes:
        name: its key in state/health, and the cause of what its commands start.
    """

    name = ""

    async def start(self) -> None:
        """Subscribe to the bus and open. Never waits for a network."""

    async def stop(self, timeout_s: float) -> None:
        """Deliver what can be delivered, and close, within `timeout_s` seconds."""

    def health(self) -> Mapping[str, object] | None:
        """Facts and counters for state/health."""
        return None

    def summary(self) -> str:
        """A few words for `systemctl status`; "" for nothing."""
        return ""

    async def published(self) -> Mapping[str, Sequence[Mark]]:
        """By recorder, the last chunk whose event a former run handed on durably; empty where nothing is kept."""
        return {}
