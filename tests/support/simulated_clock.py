"""A clock whose time passes as fast as the threads that live by it can work."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from msrecd.clock import NS

_STOP_POLL_S = 0.02  # real time; a stop event cannot wake a thread that waits for simulated time


class SimulatedClock:
    """A clock whose time passes only while its participants wait for it: faster than real time, the same in every run.

    Threads that live by it are its participants (`participate`). Time stands still while one of them works. When all
    wait in `wait_until`, time jumps to the earliest deadline and exactly one thread goes on; of equal deadlines the one
    that took its place first. So participants never run at the same time and their order does not depend on the
    scheduler. Other threads may wait as well; they are woken at their deadline, but time does not wait for them.

    Time goes as far as `advance_to` says, or without an end when `limit_ns` is None; `hold()` stops it meanwhile, for
    consumers that fall behind. All methods may be called from any thread.
    """

    def __init__(
        self, *, start_ns: int = 1_000 * NS, realtime_ns: int = 1_767_225_600 * NS, limit_ns: int | None = None
    ) -> None:
        """
        Args:
            start_ns: what `monotonic_ns` says at first.
            realtime_ns: what `realtime_ns` says at first (1 January 2026).
            limit_ns: the time to halt at until `advance_to` allows more; None: never.
        """
        self._now_ns = start_ns
        self._realtime_offset_ns = realtime_ns - start_ns
        self._limit_ns = limit_ns
        self._changed = threading.Condition()
        self._waiters: list[_Waiter] = []
        self._working = 0  # participants that do not wait
        self._holds = 0
        self._places = 0
        self._entered = threading.local()

    def monotonic_ns(self) -> int:
        return self._now_ns

    def realtime_ns(self) -> int:
        return self._now_ns + self._realtime_offset_ns

    def participate(self) -> Participation:
        """A place for a thread that is about to start; counts as working until that thread waits or leaves."""
        with self._changed:
            self._working += 1
            self._places += 1
            return Participation(self, self._places)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Time stands still inside; who works already goes on until it waits."""
        with self._changed:
            self._holds += 1
        try:
            yield
        finally:
            with self._changed:
                self._holds -= 1
                self._pass_on()

    def advance_to(self, limit_ns: int, timeout_s: float = 60.0) -> None:
        """Let time go on until `limit_ns` and return when it is there and everything due until then is done.

        Raises:
            TimeoutError: in `timeout_s` seconds of real time it did not get there; somebody works or holds too long.
        """
        with self._changed:
            self._limit_ns = max(limit_ns, self._now_ns)
            self._pass_on()
            if not self._changed.wait_for(lambda: self._has_reached(limit_ns), timeout_s):
                raise TimeoutError(
                    f"simulated time stands at {self._now_ns / NS:.3f} s and not at {limit_ns / NS:.3f} s after"
                    f" {timeout_s:g} s: {self._working} threads work, {self._holds} hold it"
                )

    def wait_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        place = getattr(self._entered, "place", None)
        with self._changed:
            if stop.is_set() or deadline_ns <= self._now_ns:
                return stop.is_set()
            waiter = _Waiter(deadline_ns, self._order(place), is_participant=place is not None)
            heapq.heappush(self._waiters, waiter)
            self._working -= waiter.is_participant
            self._pass_on()
        while not waiter.released.wait(_STOP_POLL_S):
            if stop.is_set():
                self._give_up(waiter)
        return stop.is_set()

    def enter(self, place: int) -> None:
        """The calling thread takes its place; for Participation."""
        self._entered.place = place

    def leave(self) -> None:
        """A participant is gone; for Participation."""
        self._entered.place = None
        with self._changed:
            self._working -= 1
            self._pass_on()

    def _order(self, place: int | None) -> tuple[int, int]:
        self._places += place is None
        return (0, place) if place is not None else (1, self._places)

    def _has_reached(self, limit_ns: int) -> bool:
        due = bool(self._waiters) and self._waiters[0].deadline_ns <= limit_ns
        return self._now_ns >= limit_ns and self._working == 0 and not due

    def _give_up(self, waiter: _Waiter) -> None:
        with self._changed:
            if not waiter.released.is_set():
                self._waiters.remove(waiter)
                heapq.heapify(self._waiters)
                self._release(waiter)

    def _release(self, waiter: _Waiter) -> None:
        self._working += waiter.is_participant
        waiter.released.set()

    def _pass_on(self) -> None:
        """Give the turn to whoever is due next; the caller holds the lock."""
        while self._working == 0 and self._holds == 0:
            limit_ns = self._limit_ns
            if not self._waiters or (limit_ns is not None and self._waiters[0].deadline_ns > limit_ns):
                self._now_ns = max(self._now_ns, limit_ns or 0)
                break
            waiter = heapq.heappop(self._waiters)
            self._now_ns = max(self._now_ns, waiter.deadline_ns)
            self._release(waiter)
        self._changed.notify_all()


class Participation:
    """One thread's place at a SimulatedClock; that thread uses it as a context manager, once."""

    def __init__(self, clock: SimulatedClock, place: int) -> None:
        self._clock = clock
        self._place = place

    def __enter__(self) -> Participation:
        self._clock.enter(self._place)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._clock.leave()


class _Waiter:
    """A thread in `wait_until`."""

    __slots__ = ("deadline_ns", "is_participant", "order", "released")

    def __init__(self, deadline_ns: int, order: tuple[int, int], *, is_participant: bool) -> None:
        self.deadline_ns = deadline_ns
        self.order = order
        self.is_participant = is_participant
        self.released = threading.Event()

    def __lt__(self, other: _Waiter) -> bool:
        return (self.deadline_ns, self.order) < (other.deadline_ns, other.order)
