"""Memory that a stall has left behind is asked for once, and what is in use is left alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from msrecd.daemon import health
from msrecd.daemon.heap import Heap

MIB = 1 << 20
STALL = """
from msrecd.daemon.health import anonymous_bytes
from msrecd.daemon.heap import Heap
heap = Heap()
heap.look()
before = anonymous_bytes()
packets, others = [], []
for number in range(1_000):
    packets.append(bytes([number % 255 + 1]) * 33_000)
    if number % 50 == 49:
        others.append(bytes([7]) * 5_000)  # what stays lies between: the end of the heap is not all that is free
packets.clear()
kept = anonymous_bytes()
heap.look()
print(before, kept, anonymous_bytes(), len(others))
"""


@pytest.mark.promise("memory-is-given-back")
def test_only_what_is_more_than_before_is_trimmed() -> None:
    sizes = iter([50 * MIB, 40 * MIB, 47 * MIB, 70 * MIB, 45 * MIB, 50 * MIB, 60 * MIB, 60 * MIB, 61 * MIB])
    trimmed: list[int] = []
    heap = Heap(resident=lambda: next(sizes), trim=lambda: trimmed.append(1))
    heap.look()  # 50: the first
    heap.look()  # 40: less
    heap.look()  # 47: not worth it
    assert not trimmed
    heap.look()  # 70, and 45 after it
    assert len(trimmed) == 1
    heap.look()  # 50
    assert len(trimmed) == 1
    heap.look()  # 60, and 60 after it: that is in use
    heap.look()  # 61
    assert len(trimmed) == 2


def test_a_machine_that_does_not_tell_is_left_alone() -> None:
    trimmed: list[int] = []
    Heap(resident=lambda: None, trim=lambda: trimmed.append(1)).look()
    assert not trimmed


@pytest.mark.promise("packets-are-given-back")
def test_packets_that_are_gone_are_given_back() -> None:
    assert health.anonymous_bytes()
    environment = {
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": "1048576",
        "MALLOC_TRIM_THRESHOLD_": "1048576",
    }  # as the service has it
    done = subprocess.run(
        [sys.executable, "-c", STALL], capture_output=True, text=True, timeout=120, check=True, env=environment
    )
    before, kept, after, _ = map(int, done.stdout.split())
    assert kept > before + 10 * MIB, "this C library keeps nothing: what is trimmed here?"
    assert after < before + 4 * MIB
