"""A live input as its time line sees it: a sender with a clock of its own, a network, a reader with naps. Pure.

The rules: RTP times begin anywhere and count at the sender's rate (RFC 3550, 5.1); a stalled TCP connection delivers
what waited in a burst.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from msrecd.clock import MS, NS
from msrecd.inputs.timeline import LiveLine, Placed, StreamTimes
from msrecd.libav.values import Demuxed

VIDEO, AUDIO = 0, 1


@dataclass
class Sender:
    """Sends frames and sound; true times are those of CLOCK_MONOTONIC.

    stamp: the sender's time of a stream at a true time, besides its rate. late: how long a packet of a true time is on
    its way, besides jitter. lost: whether what was captured then is never sent.
    """

    ppm: float = 0.0
    frame_ns: int = 200 * MS
    sound_ns: int = 200 * MS
    jitter_ns: int = 30 * MS
    nap_ns: int = 200 * MS
    begin_ns: int = 5000 * NS
    stamp: Callable[[int, int], int] = lambda stream, true_ns: 0
    late: Callable[[int], int] = lambda true_ns: 0
    lost: Callable[[int], bool] = lambda true_ns: False
    random: random.Random = field(default_factory=lambda: random.Random(1))

    def packets(self, length_ns: int) -> Iterator[tuple[int, int, Demuxed]]:
        """(true time, arrival, packet) in the order of sending."""
        number = [0, 0]
        steps = [self.frame_ns, self.sound_ns]
        arrived = 0
        while True:
            stream = VIDEO if number[0] * steps[0] <= number[1] * steps[1] else AUDIO
            at = number[stream]
            number[stream] += 1
            true_ns = at * steps[stream]
            if true_ns >= length_ns:
                return
            if self.lost(true_ns):
                continue
            arrived = max(
                arrived, self.begin_ns + true_ns + self.late(true_ns) + self.random.randrange(self.jitter_ns + 1)
            )
            stamp = true_ns + round(true_ns * self.ppm / 1e6) + self.stamp(stream, true_ns)
            yield self.begin_ns + true_ns, arrived, Demuxed(stream, b"x", stamp, None, steps[stream], True)

    def batches(self, length_ns: int) -> Iterator[tuple[int, list[int], list[Demuxed]]]:
        """(time of reading, true times, packets): everything that has arrived at each look."""
        batch: list[Demuxed] = []
        true: list[int] = []
        due = 0
        for true_ns, arrived, packet in self.packets(length_ns):
            if arrived > due and batch:
                yield due, true, batch
                batch, true = [], []
            if arrived > due:
                due = arrived + self.nap_ns
            batch.append(packet)
            true.append(true_ns)
        if batch:
            yield due, true, batch

    def run(self, length_ns: int, line: LiveLine, seen: Callable[[int, Placed], None]) -> int:
        """Place everything; `seen(true time, placed)` for each. Returns how many packets were sent."""
        sent = 0
        pending: list[int] = []
        for now, true, batch in self.batches(length_ns):
            sent += len(batch)
            pending += true
            for unit in line.place(batch, now):
                seen(pending.pop(0), unit)
        assert not pending, "packets were held for good"
        return sent


def line(*, shares_clock: bool = True, trusts_dts: bool = True) -> LiveLine:
    return LiveLine(
        {
            VIDEO: StreamTimes(is_video=True, duration_ns=200 * MS),
            AUDIO: StreamTimes(is_video=False, duration_ns=200 * MS),
        },
        shares_clock=shares_clock,
        trusts_dts=trusts_dts,
    )
