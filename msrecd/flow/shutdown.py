"""Threads at the end of the process.

A program that forgets to stop its recorders must still be able to exit, and libav's containers must be closed before
the interpreter goes (it crashes otherwise). So the threads do not hold the process, and are told to end when it ends.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T", bound=threading.Thread)

_DEADLINE_S = 3.0
_live: WeakKeyDictionary[threading.Thread, Callable[[Any], None]] = WeakKeyDictionary()
_lock = threading.Lock()


def end_with_process(thread: T, stop: Callable[[T], None]) -> None:
    """Call `stop(thread)` when the process ends and `thread` still runs; `stop` must only signal, and not hold it."""
    with _lock:
        _live[thread] = stop


@atexit.register
def _end_all() -> None:
    deadline = time.monotonic() + _DEADLINE_S
    for _ in range(2):  # the end of one may be what another waits for
        with _lock:
            running = [(thread, stop) for thread, stop in _live.items() if thread.is_alive()]
        for thread, stop in running:
            stop(thread)
        for thread, _stop in running:
            thread.join(max(0.0, min(1.0, deadline - time.monotonic())))
