"""A recorder that only keeps the books, on a clock that a test moves: for the real conductor and planner.

What is real in tests that use it: the conductor, the planner, the rules of commands and limits. What is modelled: time,
the wall clock's errors, and the unit, which starts and stops at once and counts nanoseconds instead of pictures.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from msrecd.clock import NS
from msrecd.clock.wall import WallTime
from msrecd.config.model import Config
from msrecd.control.conductor import Conductor
from msrecd.errors import CommandError
from msrecd.recorder.status import RecorderStatus

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TestClock:
    """True time passes as told; the clock on the wall is off by `error_ns`."""

    __test__ = False

    def __init__(self, begin: datetime) -> None:
        self.now_ns = 0
        self.error_ns = 0
        self._begin_ns = (begin - _EPOCH) // timedelta(microseconds=1) * 1000

    def monotonic_ns(self) -> int:
        return self.now_ns

    def realtime_ns(self) -> int:
        return self._begin_ns + self.now_ns + self.error_ns

    def wait_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        raise NotImplementedError("nobody waits on this clock")

    def shows(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self.realtime_ns() // 1000)


@dataclass
class Trusted:
    """The owner's wall time, as far as the conductor asks."""

    trusted: bool = True


@dataclass
class ModelUnit:
    """Books of one recorder: `spans` are (begin, end, cause of the end) in ns of true time."""

    clock: TestClock
    spans: list[tuple[int, int, str]] = field(default_factory=list)
    armed: list[tuple[int, bool]] = field(default_factory=list)  # when triggers were let look, or not
    wanted_since_ns: int | None = None
    status: RecorderStatus = field(default_factory=lambda: RecorderStatus(lambda: None))
    refuse: CommandError | None = None

    @property
    def is_wanted(self) -> bool:
        return self.wanted_since_ns is not None

    async def start(self, cause: str, *, persistent: bool = False) -> bool:
        if self.refuse is not None and not persistent:
            raise self.refuse
        if self.is_wanted:
            return False
        self.wanted_since_ns, self.status.cause = self.clock.now_ns, cause
        return True

    def arm_triggers(self, is_armed: bool) -> None:
        if not self.armed or self.armed[-1][1] != is_armed:
            self.armed.append((self.clock.now_ns, is_armed))

    async def stop(self, cause: str) -> bool:
        if self.wanted_since_ns is None:
            return False
        self.spans.append((self.wanted_since_ns, self.clock.now_ns, cause))
        self.wanted_since_ns = None
        return True


class Model:
    """What the conductor takes for the daemon."""

    def __init__(self, config: Config, clock: TestClock, walltime: WallTime | None = None) -> None:
        """walltime: None for one that is what a test says it is."""
        self.config = config
        self.clock = clock
        self.walltime: Any = walltime or Trusted()
        self.units: dict[str, Any] = {recorder.name: ModelUnit(clock) for recorder in config.recorders}
        self.told = 0
        self.conductor = Conductor(self, self._changed, clock=clock)

    def _changed(self) -> None:
        self.told += 1

    def unit(self, name: str = "cam0") -> ModelUnit:
        unit = self.units[name]
        assert isinstance(unit, ModelUnit)
        return unit

    def boot(self) -> None:
        """The program begins anew: what was decided by hand is gone."""
        self.conductor = Conductor(self, self._changed, clock=self.clock)

    async def pass_until(self, end_ns: int, each: Callable[[], None] = lambda: None) -> None:
        """Let time pass, looking when the conductor wants to; `each` is called before each look."""
        while True:
            each()
            wait_s = await self.conductor.look()
            wake_ns = self.clock.now_ns + max(NS // 20, math.ceil(wait_s * NS))
            if wake_ns >= end_ns:
                self.clock.now_ns = end_ns
                return
            self.clock.now_ns = wake_ns
