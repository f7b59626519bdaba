"""Where what a peer sends lies on CLOCK_MONOTONIC. Pure; times in ns.

Sound tells how the peer's clock lies to ours, by its earliest arrivals: its times cannot move unheard. Frames have an
offset of their own, by arrival, until sender reports say how they lie to the sound; then they keep that distance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from msrecd.clock import MS, NS
from msrecd.flow.units import Kind

_JUMP_NS = 10 * NS  # a stream whose times move by more has a new clock
_BACK_NS = NS
_NTP_EPOCH_S = 2_208_988_800  # 1900 to 1970


class PeerClock:
    """The offset from a peer's clock to CLOCK_MONOTONIC, by the packets that came earliest.

    It stands still where it can: sound that passes through has as many samples as it has, and every correction would
    part it from the frames. What the clocks drift by is followed beyond DEAD_NS.
    """

    SETTLES_NS = 2 * NS  # an earlier packet moves it at once for so long, unless somebody uses the times already
    DEAD_NS = 10 * MS
    RATE = 0.0005
    WINDOW = 10  # seconds whose earliest packets tell where they lie now
    STOOD_STILL_NS = NS // 2  # later than this for all of the window: the peer's clock stood still

    def __init__(self) -> None:
        self.offset_ns: int | None = None
        self._began_ns = 0
        self._at_ns = 0
        self._buckets: deque[tuple[int, int]] = deque(maxlen=self.WINDOW)  # (second, smallest arrival - time)

    def add(self, arrival_ns: int, time_ns: int, *, may_step: bool = True) -> int:
        """Take note of a packet; the offset for what is placed now."""
        delay, second = arrival_ns - time_ns, arrival_ns // NS
        if self._buckets and self._buckets[-1][0] >= second:
            self._buckets[-1] = (self._buckets[-1][0], min(delay, self._buckets[-1][1]))
        else:
            self._buckets.append((second, delay))
        if self.offset_ns is None:
            self.offset_ns = delay
            self._began_ns = self._at_ns = arrival_ns
        elif may_step and arrival_ns - self._began_ns < self.SETTLES_NS:
            self.offset_ns = min(delay, self.offset_ns)
            self._at_ns = arrival_ns
        else:
            self.offset_ns = self._followed(self.offset_ns, arrival_ns)
        return self.offset_ns

    def _followed(self, offset_ns: int, now_ns: int) -> int:
        passed, self._at_ns = min(max(0, now_ns - self._at_ns), NS), now_ns
        off = min(delay for _, delay in self._buckets) - offset_ns
        if abs(off) <= self.DEAD_NS:
            return offset_ns
        if off > self.STOOD_STILL_NS and len(self._buckets) == self.WINDOW:
            return offset_ns + off
        step = min(abs(off), int(passed * self.RATE))
        return offset_ns + (step if off > 0 else -step)


class _Stream:
    def __init__(self) -> None:
        self.fit = PeerClock()
        self.wall_offset: int | None = None  # from its times to the peer's wall clock
        self.last_raw: int | None = None
        self.last_ns: int | None = None


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
        at_ns = raw_ns + stream.fit.add(now_ns, raw_ns, may_step=not in_use)
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
