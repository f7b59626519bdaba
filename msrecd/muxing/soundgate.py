"""SoundGate: which packets of a sound track are heard, and silence in place of the others. Pure.

The packets of a track that is closed keep coming, and each of them is replaced by silence of the same place and length:
nothing lacks, nothing is twice, and the time line is the source's. Only where none come (a device that gives nothing)
silence is put there without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from msrecd.clock import MS
from msrecd.codecs.silence import Silence
from msrecd.flow.units import Packet

_CUT_OFF_NS = 100 * MS  # what a device had under way when it was muted, and does not deliver
_MAX_CLOSED = 64  # spans of which packets may still come; more of them become one: rather silence than a word too many


class SoundGate:
    """Belongs to one thread; times on CLOCK_MONOTONIC."""

    def __init__(self, silence: Silence, *, end_ns: int | None, since_ns: int) -> None:
        """
        Args:
            end_ns: where the last packet ended that the track gave so far; None before the first one.
            since_ns: no silence is put before this.
        """
        self._silence = silence
        self._end_ns = end_ns
        self._since_ns = since_ns
        self._closed: list[tuple[int, int | None]] = []  # (from, to), in order; the last one may go on

    @property
    def is_closed(self) -> bool:
        return bool(self._closed) and self._closed[-1][1] is None

    def move(self, is_open: bool, at_ns: int) -> None:
        if is_open and self.is_closed:
            self._closed[-1] = (self._closed[-1][0], at_ns)
        elif not is_open and not self.is_closed:
            self._closed.append((at_ns, None))
            if len(self._closed) > _MAX_CLOSED:
                first, second = self._closed[:2]
                self._closed[:2] = [(first[0], second[1])]

    def through(self, packet: Packet) -> Sequence[Packet]:
        """What is recorded of a packet: itself or silence, behind silence for what did not come before it.

        Nothing where silence stands already.
        """
        begin_ns, end_ns = packet.pts_ns, packet.pts_ns + packet.duration_ns
        if self._end_ns is not None and begin_ns < self._end_ns - packet.duration_ns // 2:
            return ()
        # Nothing earlier comes any more: what the source left out where it is closed, however long, is filled up first.
        filled = () if self._end_ns is None else self.fill(begin_ns)
        self._forget_before(begin_ns)
        self._end_ns = end_ns
        if not any(since < end_ns and (to is None or to > begin_ns) for since, to in self._closed):
            return (*filled, packet)
        return (*filled, *self._silent(packet))

    def fill(self, until_ns: int) -> Sequence[Packet]:
        """Silence up to a time by which every packet that the source gives would have come, where it is closed."""
        filled: list[Packet] = []
        duration_ns = self._silence.duration_ns
        for since_ns, to_ns in self._closed:
            at_ns = self._beginning(since_ns)
            stop_ns = until_ns if to_ns is None else min(until_ns, to_ns)
            while at_ns + duration_ns <= stop_ns:
                filled.append(_packet(at_ns, duration_ns, self._silence.data))
                at_ns += duration_ns
                self._end_ns = at_ns
        return filled

    def _beginning(self, since_ns: int) -> int:
        """Where silence for a span begins: where the last packet ended, or, where something is missing before the span,
        a whole number of packets behind that.
        """
        since_ns = max(since_ns, self._since_ns)
        if self._end_ns is None:
            return since_ns
        behind_ns = since_ns - self._end_ns
        if behind_ns <= _CUT_OFF_NS:
            return self._end_ns
        return self._end_ns + behind_ns // self._silence.duration_ns * self._silence.duration_ns

    def _silent(self, packet: Packet) -> Sequence[Packet]:
        silence = self._silence
        if silence.is_pcm:
            return (replace(packet, data=bytes(len(packet.data))),)
        count = round(packet.duration_ns / silence.duration_ns)  # of a source with longer packets than our encoder's
        if count == 1:
            return (replace(packet, data=silence.data),)
        each_ns = silence.duration_ns
        return tuple(_packet(packet.pts_ns + number * each_ns, each_ns, silence.data) for number in range(count))

    def _forget_before(self, time_ns: int) -> None:
        while self._closed and (to := self._closed[0][1]) is not None and to <= time_ns:
            del self._closed[0]


def _packet(at_ns: int, duration_ns: int, data: bytes) -> Packet:
    return Packet(pts_ns=at_ns, dts_ns=at_ns, duration_ns=duration_ns, is_keyframe=True, data=data)
