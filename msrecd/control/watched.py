"""What the triggers of one recorder have found, and how many recordings they have begun. Pure but for its own state."""

from __future__ import annotations

from dataclasses import dataclass, field

from msrecd.triggers.decide import may_begin, within_the_hour


@dataclass(slots=True)
class Watched:
    """Triggers are known by their numbers in the configuration. Times are CLOCK_MONOTONIC.

    begun_ns: when each of them began recordings, within the last hour.
    """

    active: set[int] = field(default_factory=set)
    until_ns: int = 0
    begun_ns: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def may_begin(self, number: int, now_ns: int, max_per_hour: int) -> bool:
        """Whether this trigger may begin one more recording."""
        return may_begin(self.begun_ns.get(number, ()), now_ns, max_per_hour)

    def found(self, number: int, now_ns: int, *, begins: bool) -> None:
        """It has found something, and a recording begins because of it."""
        self.active.add(number)
        if begins:
            self.begun_ns[number] = (*within_the_hour(self.begun_ns.get(number, ()), now_ns), now_ns)

    def lost(self, number: int, until_ns: int) -> int | None:
        """What it found is over and holds until then: when the last of all ends, None while another one lasts."""
        if number not in self.active:
            return None
        self.active.discard(number)
        self.until_ns = max(self.until_ns, until_ns)
        return None if self.active else self.until_ns

    def after(self, *, is_same: bool) -> Watched:
        """After a reload: other triggers begin afresh, and those that are watched anew have found nothing yet."""
        return Watched(begun_ns=dict(self.begun_ns)) if is_same else Watched()
