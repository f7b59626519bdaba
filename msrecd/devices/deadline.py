"""DeadlineWorker: calls into a library that may hang, made by one thread, waited for with a deadline."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from msrecd.clock import NS, SYSTEM_CLOCK, Clock

log = logging.getLogger(__name__)

T = TypeVar("T")
_MOST_WAITING = 32


class CallTimeout(Exception):
    """A call did not come back in time; its thread is lost until it does."""


class _Call(Generic[T]):
    def __init__(self, name: str, run: Callable[[], T]) -> None:
        self.name = name
        self._run = run
        self._done = threading.Event()
        self._result: T | None = None
        self._error: BaseException | None = None
        self.failed: Callable[[Exception], None] | None = None

    def run(self) -> None:
        try:
            self._result = self._run()
        except BaseException as exc:
            self._error = exc
            if self.failed is not None and isinstance(exc, Exception):
                self.failed(exc)
        finally:
            self._done.set()

    def result(self, timeout_s: float) -> T:
        if not self._done.wait(timeout_s):
            raise CallTimeout(f"{self.name} did not return within {timeout_s:g} s")
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]


class DeadlineWorker:
    """Makes calls one after the other in a daemon thread of its own.

    A daemon thread, because a call that hangs for ever must not keep the process from ending.
    """

    def __init__(self, name: str, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._name = name
        self._clock = clock
        self._calls: queue.SimpleQueue[_Call[object] | None] = queue.SimpleQueue()
        self._running: tuple[str, int] | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def call(self, name: str, run: Callable[[], T], timeout_s: float) -> T:
        """The result of `run()`.

        Raises:
            CallTimeout: it (or a call before it) did not return within `timeout_s` seconds. Else what `run` raises.
        """
        call = _Call(name, run)
        self._put(call)
        return call.result(timeout_s)

    def submit(self, name: str, run: Callable[[], object], failed: Callable[[Exception], None]) -> None:
        """Make the call some time later; an exception goes to `failed`, in the worker's thread. Does not wait.

        Raises:
            CallTimeout: too many calls are waiting already.
        """
        call = _Call(name, run)
        call.failed = failed
        self._put(call)

    def running_ns(self) -> int:
        """How long the present call has been under way, 0 when there is none."""
        running = self._running
        return 0 if running is None else max(1, self._clock.monotonic_ns() - running[1])

    def running_name(self) -> str:
        running = self._running
        return "" if running is None else running[0]

    def leave_behind(self, label: str) -> None:
        """Give up on the call under way: the thread ends when the driver of `label` comes back, if ever."""
        leave_behind(self._thread, label)
        self.stop(0)

    def stop(self, timeout_s: float) -> bool:
        """End after the calls that wait; False when the thread is still busy after `timeout_s` seconds."""
        if not self._stopped:
            self._stopped = True
            self._calls.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _put(self, call: _Call[T]) -> None:
        if self._stopped:
            raise CallTimeout(f"{call.name}: {self._name} is closed")
        if self._calls.qsize() >= _MOST_WAITING:
            raise CallTimeout(
                f"{call.name}: {self._name} has been stuck in {self.running_name()} for {self.running_ns() // NS} s"
            )
        self._calls.put(call)  # type: ignore[arg-type]

    def _loop(self) -> None:
        while (call := self._calls.get()) is not None:
            self._running = (call.name, self._clock.monotonic_ns())
            call.run()
            self._running = None


_lock = threading.Lock()
_left: dict[threading.Thread, str] = {}


def leave_behind(thread: threading.Thread, label: str) -> None:
    """Nobody waits any more for `thread`, which is stuck in the driver of `label`. Any thread."""
    with _lock:
        _left[thread] = label


def left_behind() -> list[str]:
    """Labels of the devices whose driver has not come back until now. Any thread."""
    with _lock:
        for thread in [thread for thread in _left if not thread.is_alive()]:
            del _left[thread]
        return sorted(set(_left.values()))
