"""UnitQueue: the bounded way from a producing thread into a consuming one; what does not fit is dropped and counted."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class UnitQueue(Generic[T]):
    """A sink with a bound in bytes and in units. `put`/`end` from producers, `take` from the one consumer.

    When full, the newest unit is refused and counted (`refused`): what is queued stays in order. `nudge` wakes the
    consumer with nothing, for commands that came another way.
    """

    def __init__(
        self,
        *,
        max_units: int,
        max_bytes: int,
        size: Callable[[T], int],
        batch: int = 1,
        batch_bytes: int | None = None,
    ) -> None:
        """
        Args:
            batch, batch_bytes: the consumer is woken when so much waits, in units or in bytes.
        """
        self._units: deque[T] = deque()
        self._condition = threading.Condition()
        self._max_units = max_units
        self._max_bytes = max_bytes
        self._size = size
        self._batch = batch
        self._batch_bytes = max_bytes if batch_bytes is None else batch_bytes
        self._bytes = 0
        self._nudged = False
        self._in_work: T | None = None
        self.refused = 0
        self.ended = False
        self.error: BaseException | None = None

    def put(self, unit: T) -> None:
        self.offer(unit)

    def offer(self, unit: T) -> bool:
        """Put, and say whether there was room."""
        size = self._size(unit)
        with self._condition:
            if self.ended:
                return False
            if len(self._units) >= self._max_units or self._bytes + size > self._max_bytes:
                self.refused += 1
                return False
            self._units.append(unit)
            self._bytes += size
            if self._is_batch():
                self._condition.notify()
            return True

    def offer_all(self, units: Sequence[T]) -> int:
        """Put as many as there is room for, and say how many; the first one that is refused is not counted yet."""
        with self._condition:
            if self.ended:
                return 0
            room = self._max_units - len(self._units)
            taken, size_of, bytes_, most = 0, self._size, self._bytes, self._max_bytes
            for unit in units:
                size = size_of(unit)
                if taken >= room or bytes_ + size > most:
                    break
                taken, bytes_ = taken + 1, bytes_ + size
            self._units.extend(units[:taken])
            self._bytes = bytes_
            if self._is_batch():
                self._condition.notify()
            return taken

    def end(self, error: BaseException | None = None) -> None:
        with self._condition:
            if not self.ended:
                self.ended, self.error = True, error
            self._condition.notify()

    def nudge(self) -> None:
        with self._condition:
            self._nudged = True
            self._condition.notify()

    def flush(self) -> None:
        """Wake the consumer if something waits for it."""
        with self._condition:
            if self._units and not self._nudged:
                self._nudged = True
                self._condition.notify()

    def wait(self, timeout: float) -> None:
        """Wait for a nudge or the end; what is queued stays, for a consumer that cannot use it yet."""
        with self._condition:
            if not self._nudged and not self.ended:
                self._condition.wait(timeout)
            self._nudged = False

    def take(self, timeout: float) -> list[T]:
        """All queued units, at latest after `timeout` seconds (then perhaps none)."""
        self.wait_for_batch(timeout)
        return self.take_now()

    def wait_for_batch(self, timeout: float) -> None:
        """Wait until the consumer is to take what is queued, at most so long."""
        with self._condition:
            self._in_work = None
            if not self._is_batch() and not self._nudged and not self.ended:
                self._condition.wait(timeout)

    def take_now(self) -> list[T]:
        """All queued units, perhaps none."""
        with self._condition:
            self._nudged = False
            units = list(self._units)
            self._units.clear()
            self._bytes = 0
            self._in_work = units[0] if units else None
            return units

    def set_batch(self, batch: int) -> None:
        """How many units wake the consumer, from now on."""
        with self._condition:
            self._batch = batch
            if self._is_batch():
                self._condition.notify()

    def _is_batch(self) -> bool:
        return len(self._units) >= self._batch or self._bytes >= self._batch_bytes

    @property
    def is_empty(self) -> bool:
        return not self._units

    @property
    def fullness(self) -> float:
        """How much of the room is taken: 0 to 1."""
        return max(len(self._units) / self._max_units, self._bytes / self._max_bytes)

    @property
    def oldest(self) -> T | None:
        """The oldest unit that the consumer is not done with; it is done when it comes for the next ones."""
        with self._condition:
            if self._in_work is not None:
                return self._in_work
            return self._units[0] if self._units else None
