"""Feed: the fan-out of one sequence of units from its producing thread to any number of sinks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Sink(Protocol[T_contra]):
    """Takes units. Its methods are called from the producing thread and must neither block nor raise.

    One that has `put_all(units)` and `flush()` takes what comes in batches in one go, and hears when one is over.
    """

    def put(self, unit: T_contra) -> None:
        """Take one unit, or drop and count it."""

    def end(self, error: BaseException | None) -> None:
        """Nothing follows. `error` is None at a regular end."""


class Feed(Generic[T]):
    """Fan-out. `put` and `end` belong to the producing thread; `add` and `remove` may come from any thread.

    `on_demand(True)` is called when the first sink comes and `on_demand(False)` when the last one goes, in the thread
    that adds or removes: a source that costs something (an encoder, a decoder) runs only in between.

    gives_batches: units come many at a time, and `flush` follows each time.
    is_steady: units of sound follow the clock to the sample, as long as nothing is lost.

    `on_hurry` is called, in any thread, when a sink that was patient is so no longer.
    """

    gives_batches = False
    is_steady = False

    def __init__(
        self, on_demand: Callable[[bool], None] | None = None, on_hurry: Callable[[], None] | None = None
    ) -> None:
        self._sinks: tuple[Sink[T], ...] = ()
        self._lock = threading.Lock()
        self._demand_lock = threading.Lock()
        self._on_demand = on_demand
        self._on_hurry = on_hurry
        self._ended = False
        self._error: BaseException | None = None

    @property
    def has_sinks(self) -> bool:
        return bool(self._sinks)

    @property
    def has_demand(self) -> bool:
        """Whether the first sink starts something, which may take a while."""
        return self._on_demand is not None

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def error(self) -> BaseException | None:
        """Why it has ended; None at a regular end, and before."""
        return self._error

    def add(self, sink: Sink[T]) -> None:
        """Give `sink` every later unit, once; on an ended feed it gets its `end` at once."""
        with self._demand_lock:
            with self._lock:
                first = not self._sinks
                ended = self._ended
                if not ended and all(known is not sink for known in self._sinks):
                    self._sinks = (*self._sinks, sink)
            if ended:
                sink.end(self._error)
            elif first and self._on_demand is not None:
                self._on_demand(True)

    def remove(self, sink: Sink[T]) -> None:
        """Give `sink` nothing more; unknown sinks are ignored. A unit that is under way may still arrive."""
        with self._demand_lock:
            with self._lock:
                before = self._sinks
                self._sinks = tuple(known for known in before if known is not sink)
                last = bool(before) and not self._sinks
            if last and self._on_demand is not None:
                self._on_demand(False)

    def wants(self, pts_ns: int) -> bool:
        """Whether a sink takes a unit of this time. One with a method `wants` may say no: making the unit is saved."""
        return any((wants := getattr(sink, "wants", None)) is None or wants(pts_ns) for sink in self._sinks)

    @property
    def is_patient(self) -> bool:
        """Whether all sinks take units in batches anyway, so that a source may make few long ones; False without any.

        A sink that does has `is_patient`, and calls `hurry` when a consumer waits for what it makes.
        """
        sinks = self._sinks
        return bool(sinks) and all(getattr(sink, "is_patient", False) for sink in sinks)

    def hurry(self) -> None:
        """For sinks: a consumer waits now."""
        if self._on_hurry is not None:
            self._on_hurry()

    def put(self, unit: T) -> None:
        for sink in self._sinks:
            sink.put(unit)

    def put_all(self, units: Sequence[T]) -> None:
        """Units that came together, in order."""
        for sink in self._sinks:
            put_all = getattr(sink, "put_all", None)
            if put_all is not None:
                put_all(units)
            else:
                for unit in units:
                    sink.put(unit)

    def flush(self) -> None:
        """Tell the sinks that can use it that nothing follows for a while."""
        for sink in self._sinks:
            flush = getattr(sink, "flush", None)
            if flush is not None:
                flush()

    def end(self, error: BaseException | None = None) -> None:
        """Tell every sink once that nothing follows."""
        with self._lock:
            if self._ended:
                return
            self._ended, self._error = True, error
            sinks, self._sinks = self._sinks, ()
        for sink in sinks:
            sink.end(error)
