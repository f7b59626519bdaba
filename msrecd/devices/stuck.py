"""Threads that were left behind in a driver: a device that hangs so that only the end of the process frees it."""

from __future__ import annotations

import threading

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
