"""Waiting for what must come, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], why: str | Callable[[], object], *, timeout: float = 60.0) -> T:
    """Ask again and again until the answer is true, and give it.

    Raises:
        AssertionError: not within `timeout` seconds; `why` tells what is missing.
    """
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        assert time.monotonic() < deadline, why if isinstance(why, str) else why()
        time.sleep(0.05)
    return answer
