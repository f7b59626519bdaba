"""Which commands were seen already, and what became of them. Pure but for its clock."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from msrecd.clock import NS, Clock
from msrecd.mqtt.messages import Outcome


@dataclass(slots=True)
class _Seen:
    until_ns: int
    outcome: Outcome | None = None


class Dedupe:
    """Remembers the last 256 ids of ten minutes with the outcome of each. For one thread.

    A command in flight has an id without an outcome: `begin` says so, and its second copy is kept by the caller
    until `finish`. QoS 1 may deliver twice, and a controller that saw no reply sends again: both act once.
    """

    def __init__(self, clock: Clock, *, limit: int = 256, keep_s: float = 600.0) -> None:
        self._clock = clock
        self._limit = limit
        self._keep_ns = int(keep_s * NS)
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def begin(self, command_id: str) -> bool:
        """Whether this id is new; if so it is in flight from now on."""
        self._forget()
        if command_id in self._seen:
            return False
        self._seen[command_id] = _Seen(self._clock.monotonic_ns() + self._keep_ns)
        self._forget()
        return True

    def outcome(self, command_id: str) -> Outcome | None:
        """What became of a known id; None while it is in flight or when it is unknown."""
        seen = self._seen.get(command_id)
        return seen.outcome if seen is not None else None

    def finish(self, command_id: str, outcome: Outcome) -> None:
        """Keep the outcome for the copies to come. The ten minutes run from now."""
        self._seen.pop(command_id, None)
        self._seen[command_id] = _Seen(self._clock.monotonic_ns() + self._keep_ns, outcome)
        self._forget()

    def abandon(self, command_id: str) -> None:
        """Forget an id whose command was not tried, so that the same command may be sent again."""
        self._seen.pop(command_id, None)

    def _forget(self) -> None:
        now_ns = self._clock.monotonic_ns()
        for command_id, seen in list(self._seen.items()):
            # What is in flight stays, whatever its age: forgetting it would let its copy act a second time.
            if seen.outcome is None:
                continue
            if seen.until_ns > now_ns and len(self._seen) <= self._limit:
                break
            del self._seen[command_id]
