"""The two clocks of the program, behind one seam.

Media time is CLOCK_MONOTONIC in nanoseconds, everywhere. The wall clock only names things.
"""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

NS = 1_000_000_000
MS = 1_000_000


class Clock(Protocol):
    """What the program knows of time; a test or a simulation puts another one in."""

    def monotonic_ns(self) -> int:
        """Nanoseconds of CLOCK_MONOTONIC: never steps, says nothing about the date."""

    def realtime_ns(self) -> int:
        """Nanoseconds since 1970 of CLOCK_REALTIME: may be wrong, may step."""

    def wait_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        """Block the calling thread until monotonic `deadline_ns`; True at once when `stop` is set."""

    def participate(self) -> AbstractContextManager[object]:
        """For a thread that is about to start and will live by this clock; the thread enters it and leaves it.

        Call it before the thread starts: from then on a simulation of time waits for that thread.
        """


class SystemClock:
    """The machine's clocks."""

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def realtime_ns(self) -> int:
        return time.time_ns()

    def wait_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        remaining = deadline_ns - time.monotonic_ns()
        return stop.wait(remaining / NS) if remaining > 0 else stop.is_set()

    def participate(self) -> AbstractContextManager[object]:
        return nullcontext()


SYSTEM_CLOCK = SystemClock()
