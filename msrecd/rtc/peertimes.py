"""Where what a peer sends lies on CLOCK_MONOTONIC. Pure; times in ns.

Sound tells how the peer's clock lies to ours, by its earliest arrivals: its times cannot move unheard. Frames have an
offset of their own, by arrival, until sender reports say how they lie to the sound; then they keep that distance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import islice

from msrecd.clock import MS, NS
from msrecd.flow.units import Kind

_JUMP_NS = 10 * NS  # a stream whose times move by more has a new clock
_BACK_NS = NS
_NTP_EPOCH_S = 2_208_988_800  # 1900 to 1970


class PeerClock:
    """The offset from a peer's clock to CLOCK_MONOTONIC, by the packets that came earliest.

    Sound that passes through has as many samples as it has: every correction parts it from the frames for those who
    count samples. So nothing moves while the times are in use, but for what the clocks drift by, beyond DEAD_NS. How
    late the packets were by which the offset was found is no drift: it is learned, and left as it is.
    """

    DEAD_NS = 40 * MS  # by so much what a busy machine delays at least may differ from one minute to another
    RATE = 0.0005
    WINDOW = 30  # seconds whose earliest packets tell where they lie now; a busy machine delays all of some seconds
    RECENT = 10  # of them, the ones that count while the times are not in use
    LEARNS_NS = 60 * NS  # from when the times are in use on
    MOST_LATE_NS = 100 * MS  # what is left as it is: tracks of other sources have to fit too
    STOOD_STILL_NS = NS // 2  # later than this for ten seconds: the peer's clock stood still

    def __init__(self) -> None:
        self.offset_ns: int | None = None
        self._used_since_ns: int | None = None
        self._late_ns = 0  # by how much the offset was found too late
        self._at_ns = 0
        self._buckets: deque[tuple[int, int]] = deque(maxlen=self.WINDOW)  # (second, smallest arrival - time)

    def add(self, arrival_ns: int, time_ns: int, *, may_step: bool = True) -> int:
        """Take note of a packet; the offset for what is placed now.

        Args:
            may_step: no consumer uses the times.
        """
        delay, second = arrival_ns - time_ns, arrival_ns // NS
        if self._buckets and self._buckets[-1][0] >= second:
            self._buckets[-1] = (self._buckets[-1][0], min(delay, self._buckets[-1][1]))
        else:
            self._buckets.append((second, delay))
        if may_step or self.offset_ns is None:
            self.offset_ns, self._used_since_ns = self._earliest(self.RECENT), None
        else:
            self.offset_ns = self._followed(self.offset_ns, arrival_ns)
        self._at_ns = arrival_ns
        return self.offset_ns

    def _earliest(self, seconds: int) -> int:
        """Of the packets of so many seconds, the last in which any came."""
        return min(delay for _, delay in islice(reversed(self._buckets), seconds))

    def _followed(self, offset_ns: int, now_ns: int) -> int:
        if self._used_since_ns is None:
            self._used_since_ns, self._late_ns = now_ns, 0
        off = self._earliest(self.WINDOW) - offset_ns
        if now_ns - self._used_since_ns < self.LEARNS_NS:
            self._late_ns = min(self.MOST_LATE_NS, max(self._late_ns, -off))
        drift_ns = off + self._late_ns
        if abs(drift_ns) <= self.DEAD_NS:
            return offset_ns
        behind_ns = self._earliest(self.RECENT) - offset_ns
        if behind_ns > self.STOOD_STILL_NS and len(self._buckets) >= self.RECENT:
            self._buckets = deque(list(self._buckets)[-self.RECENT :], maxlen=self.WINDOW)
            return offset_ns + behind_ns
        step = min(abs(drift_ns), int(min(max(0, now_ns - self._at_ns), NS) * self.RATE))
        return offset_ns + (step if drift_ns > 0 else -step)


class _Stream:
    def __init__(self) -> None:
        self.fit = PeerClock()
        self.wall_offset: int | None = None  # from its times to the peer's wall clock
        self.last_raw: int | None = None
        self.last_ns: int | None = None
        self.in_use = False


class PeerTimes:
    """The streams of one peer that belong together. Belongs to one thread."""

    def __init__(self, kinds: Mapping[int, Kind]) -> None:
        self._streams = {index: _Stream() for index in kinds}
        order = sorted(kinds, key=lambda index: kinds[index] != "audio")
        self._first = self._streams[order[0]] if order else None

    def place(self, index: int, raw_ns: int, sender_ns: int | None, now_ns: int, *, in_use: bool = False) -> int:
        """Capture time of what has arrived now; it rises within a stream.

        Args:
            raw_ns: its time on its stream's own clock.
            sender_ns: the peer's wall clock at that time, as its last report told it; None before.
            in_use: somebody records or reads the stream: its times must not step.
        """
        stream = self._streams[index]
        if stream.last_raw is not None and not -_BACK_NS < raw_ns - stream.last_raw < _JUMP_NS:
            stream.fit, stream.wall_offset = PeerClock(), None
        stream.last_raw = raw_ns
        if sender_ns is not None:
            stream.wall_offset = sender_ns - raw_ns
        stream.in_use = in_use
        are_in_use = any(one.in_use for one in self._streams.values())  # sound places frames too
        at_ns = raw_ns + stream.fit.add(now_ns, raw_ns, may_step=not are_in_use)
        first = self._first
        if (
            first is not None
            and first is not stream
            and first.fit.offset_ns is not None
            and stream.wall_offset is not None
            and first.wall_offset is not None
        ):
            at_ns = raw_ns + stream.wall_offset - first.wall_offset + first.fit.offset_ns
        if stream.last_ns is not None:
            at_ns = max(at_ns, stream.last_ns + MS)
        stream.last_ns = at_ns
        return at_ns


def ntp_of(wall_ns: int) -> int:
    """NTP time stamp, 32.32 bits."""
    seconds, rest = divmod(wall_ns, NS)
    return (seconds + _NTP_EPOCH_S << 32) | (rest << 32) // NS


def wall_of(ntp: int) -> int:
    """The reverse; 0 for a time stamp that is none."""
    return 0 if not ntp else ((ntp >> 32) - _NTP_EPOCH_S) * NS + ((ntp & 0xFFFFFFFF) * NS >> 32)
