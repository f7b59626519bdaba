"""Whether the clock is synchronised, as systemd-timedated says it on the system bus.

The unit's sandbox (ProtectClock=) forbids adjtimex(2), with which the clock could be set, to read it as well. timedated
asks the kernel the same question for anybody: org.freedesktop.timedate1, property NTPSynchronized
(https://www.freedesktop.org/software/systemd/man/org.freedesktop.timedate1.html). The bus starts it when it is asked,
and it ends half a minute later, so it is asked seldom, and only until the answer is yes.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from msrecd.clock import NS, SYSTEM_CLOCK, Clock
from msrecd.systembus import BusError, read_boolean, system_bus

log = logging.getLogger(__name__)

_TIMEDATE = "org.freedesktop.timedate1"
_TIMEOUT_S = 25.0  # what the bus gives a service to start
_FIRST_NS, _LONGEST_NS = 10 * NS, 120 * NS  # between two questions


class TimedateClock:
    """Says what timedated answered last; asks again in a thread of its own. Belongs to one thread."""

    def __init__(self, bus: Path | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self._bus = bus or system_bus()
        self._clock = clock
        self._answer = False
        self._asking: threading.Thread | None = None
        self._pause_ns = _FIRST_NS
        self._due_ns = clock.monotonic_ns()

    def __call__(self) -> bool:
        now = self._clock.monotonic_ns()
        if not (self._asking is not None and self._asking.is_alive()) and now >= self._due_ns:
            self._due_ns = now + self._pause_ns
            self._pause_ns = min(_LONGEST_NS, self._pause_ns * 2)
            self._asking = threading.Thread(target=self._ask, name="ask timedated", daemon=True)
            self._asking.start()
        return self._answer

    def wait(self) -> bool:
        """The answer to the question under way; blocks for as long as the bus may take."""
        self()
        if self._asking is not None:
            self._asking.join(_TIMEOUT_S)
        return self._answer

    def _ask(self) -> None:
        try:
            self._answer = ask_timedated(self._bus)
        except BusError as exc:
            log.debug("timedated does not say whether the clock is synchronised: %s", exc)


def ask_timedated(bus: Path, timeout_s: float = _TIMEOUT_S) -> bool:
    """Blocks.

    Raises:
        BusError: there is no answer.
    """
    return read_boolean(
        bus, _TIMEDATE, "/org/freedesktop/timedate1", "NTPSynchronized", timeout_s=timeout_s, starts=True
    )
