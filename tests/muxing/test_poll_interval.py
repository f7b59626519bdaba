"""How long packets may gather before a recording looks at them."""

from __future__ import annotations

import pytest

from msrecd.clock import MS, NS
from msrecd.muxing.poll_interval import poll_interval_s


@pytest.mark.parametrize(
    ("timeslice_ns", "lacks_ns", "seconds"),
    [
        (None, None, 0.2),  # what is asked for is no older
        (None, 3 * NS, 0.2),
        (NS, None, 0.2),  # waiting for a key frame, or black is recorded
        (NS, NS, 0.5),  # a blob has just been given
        (NS, 300 * MS, 0.3),  # then when the next one can be due
        (NS, 0, 0.1),  # which is late
        (10 * NS, 9 * NS, 0.5),  # what waits has a bound
        (250 * MS, 250 * MS, 0.25),  # so much is awaited in one go
        (100 * MS, 100 * MS, 0.1),
        (30 * MS, 0, 0.005),
        (MS, MS, 0.005),
    ],
)
def test_the_next_look_comes_when_a_blob_can_be_due(
    timeslice_ns: int | None, lacks_ns: int | None, seconds: float
) -> None:
    assert poll_interval_s(timeslice_ns, lacks_ns) == pytest.approx(seconds)
