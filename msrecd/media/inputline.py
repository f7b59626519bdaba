"""InputLine: where the packets of a played input lie on CLOCK_MONOTONIC; loops, pauses and jumps included."""

from __future__ import annotations

from msrecd import libav
from msrecd.clock import MS, NS, Clock

BATCH_NS = 250 * MS  # packets of a file are delivered this much at a time, which spares wake-ups
_LATE_NS = NS  # a thread that is no later than this goes on where its input ended, without a hole
_JUMP_NS = 10 * NS  # a jump of the input's own clock that is no pause in it
_LIVE_SLACK_NS = 1 * NS  # by so much a live stream may run ahead or behind before its time line is laid anew


class InputLine:
    """Ties the input's own time line to CLOCK_MONOTONIC. Belongs to the playback's thread."""

    def __init__(self, is_live: bool, clock: Clock) -> None:
        self._is_live = is_live
        self._clock = clock
        self._offset_ns: int | None = None  # monotonic minus input time
        self._end_ns = 0  # monotonic end of what was placed
        self._last_dts: dict[int, int] = {}
        self._paused_ns: int | None = None
        self._delivered_until_ns = 0

    def place(self, packet: libav.Demuxed, duration_ns: int) -> tuple[int, int] | None:
        """(pts, dts) on CLOCK_MONOTONIC; None for a packet that cannot be placed."""
        dts = packet.dts_ns if packet.dts_ns is not None else packet.pts_ns
        if dts is None:
            return None
        pts = packet.pts_ns if packet.pts_ns is not None else dts
        offset_ns = self._offset_ns
        if offset_ns is None:
            offset_ns = self._begin_ns(self._clock.monotonic_ns()) - dts
        elif self._is_live:
            now = self._clock.monotonic_ns()
            if abs(now - (dts + offset_ns)) > _LIVE_SLACK_NS:
                offset_ns = max(now, self._end_ns) - dts
        elif abs(dts + offset_ns - self._end_ns) > _JUMP_NS:
            offset_ns = self._end_ns - dts
        self._offset_ns = offset_ns
        placed = dts + offset_ns
        last = self._last_dts.get(packet.stream)
        if last is not None and placed <= last:
            return None
        self._last_dts[packet.stream] = placed
        end_ns = placed + duration_ns
        if end_ns > self._end_ns:
            self._end_ns = end_ns
        return pts + offset_ns, placed

    def _begin_ns(self, now: int) -> int:
        """Where the input begins, or begins again: seamlessly, also by a thread that is a little late."""
        return self._end_ns if now - self._end_ns < _LATE_NS else now

    def is_due_later(self, dts_ns: int) -> bool:
        """Whether to wait before this packet: it lies behind what may be delivered by now."""
        if dts_ns <= self._delivered_until_ns:
            return False
        now = self._clock.monotonic_ns()
        if dts_ns <= now:
            self._delivered_until_ns = now
            return False
        # Wait once for a whole batch: everything up to then follows without another wait.
        self._delivered_until_ns = dts_ns + BATCH_NS
        return True

    def continue_after_rewind(self) -> None:
        """The next packet follows directly on the last one."""
        self._offset_ns = None
        self._last_dts.clear()

    def pause(self, at_ns: int) -> bool:
        """Playing was paused at this time; False while something of before has still to be placed and delivered."""
        if not self._is_live and self._offset_ns is not None and self._end_ns < at_ns:
            return False
        self._paused_ns = at_ns
        return True

    def go_on(self) -> None:
        if self._paused_ns is not None:
            waited = self._clock.monotonic_ns() - self._paused_ns
            self._paused_ns = None
            if self._offset_ns is not None:
                self._offset_ns += waited
                self._end_ns += waited
                self._delivered_until_ns = 0
