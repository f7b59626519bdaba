"""How fast the disk fills."""

from __future__ import annotations

import pytest

from msrecd.clock import NS
from msrecd.storage.meter import Meter


class StandingClock:
    now_ns = 5 * NS

    def monotonic_ns(self) -> int:
        return self.now_ns


def test_the_rate_is_that_of_the_last_ten_minutes_however_many_write() -> None:
    clock = StandingClock()
    meter = Meter(clock, lambda *_: [])  # type: ignore[arg-type]
    assert meter.seconds_for(1000) is None
    for second in range(900):
        for _ in range(64):  # sixteen recorders, a quarter of a second each
            clock.now_ns += NS // 64
            meter.account(1000 if second >= 450 else 3000, 0.01)
    # 150 s of the faster rate are in the window still.
    assert meter.seconds_for(64_000_000) == pytest.approx(1000 / 1.5, rel=0.01)
    assert len(meter._written) <= 602
    clock.now_ns += 601 * NS
    assert meter.seconds_for(1000) is None
