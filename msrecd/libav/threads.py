"""The scheduling of threads that an encoder makes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def ordinary_threads() -> Iterator[None]:
    """Undo what SVT-AV1 does when root opens it: it and who called it would run before all else of the machine."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if (os.sched_getscheduler(0), policy) == (os.SCHED_FIFO, os.SCHED_OTHER):
            for thread in Path("/proc/self/task").iterdir():
                with suppress(OSError):  # it has ended
                    if os.sched_getscheduler(int(thread.name)) == os.SCHED_FIFO:
                        os.sched_setscheduler(int(thread.name), policy, parameters)
