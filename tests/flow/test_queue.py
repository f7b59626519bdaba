"""UnitQueue: when its consumer is woken, and what does not fit."""

from __future__ import annotations

import threading
import time

from msrecd.flow.queue import UnitQueue

FOREVER_S = 30.0


def queue(batch: int = 1, batch_bytes: int | None = None) -> UnitQueue[bytes]:
    return UnitQueue(max_units=10, max_bytes=100, size=len, batch=batch, batch_bytes=batch_bytes)


def took(units: UnitQueue[bytes], *coming: bytes) -> tuple[list[bytes], float]:
    """What a consumer gets that waits while these are put, and after how long."""
    found: list[bytes] = []
    begun = time.monotonic()
    consumer = threading.Thread(target=lambda: found.extend(units.take(FOREVER_S)))
    consumer.start()
    for unit in coming:
        units.put(unit)
    consumer.join(FOREVER_S)
    assert not consumer.is_alive()
    return found, time.monotonic() - begun


def test_so_many_units_wake_the_consumer() -> None:
    found, after_s = took(queue(batch=3), b"1", b"2", b"3")
    assert found == [b"1", b"2", b"3"]
    assert after_s < FOREVER_S / 2


def test_so_many_bytes_wake_the_consumer_however_few_units_they_are() -> None:
    units = queue(batch=9, batch_bytes=20)
    units.put(b"1" * 19)
    assert units.take(0.01) == [b"1" * 19], "less is given when the time is over"
    found, after_s = took(units, b"2" * 20)
    assert found == [b"2" * 20]
    assert after_s < FOREVER_S / 2


def test_what_waits_as_a_batch_is_taken_without_waiting() -> None:
    units = queue(batch=9, batch_bytes=4)
    units.put(b"1234")
    begun = time.monotonic()
    assert units.take(FOREVER_S) == [b"1234"]
    assert time.monotonic() - begun < FOREVER_S / 2


def test_somebody_in_a_hurry_gets_each_unit() -> None:
    units = queue(batch=9, batch_bytes=90)
    units.set_batch(1)
    found, after_s = took(units, b"1")
    assert found == [b"1"]
    assert after_s < FOREVER_S / 2


def test_what_does_not_fit_is_refused_and_counted() -> None:
    units = queue(batch=9)
    assert units.offer(b"1" * 60)
    assert not units.offer(b"2" * 41)
    assert units.offer(b"3" * 40)
    assert units.refused == 1
    assert [len(unit) for unit in units.take(0)] == [60, 40]
    assert units.offer(b"4" * 100), "there is room again"
    assert not all(units.offer(b"") for _ in range(10)), "the number of units has a bound, too"
    assert units.refused == 2
