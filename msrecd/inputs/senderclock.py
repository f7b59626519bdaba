"""A sender's clock that cannot be right, and where the packets of such a stream lie. Pure; belongs to one thread.

A clock says how far its packets lie apart, and nobody knows better, unless it stands still, counts at another rate than
it should, or is set all the time: then the packets lie where they arrive. What a network and a busy machine do must not
look like that. They hold packets back and let them go, some at once and some slowly; but they make no packet earlier
than the earliest ones, and packets that were held back are as far apart as ever by the sender's times.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from msrecd.clock import MS, NS

_STALL_NS = 1500 * MS  # nothing came for so long: what was seen before says nothing of what comes
_STILL_NS, _STILL = 500 * MS, 8  # so many packets with one time; less are the pieces of a frame, or out of order
_CRAMMED_NS = 2 * NS
_CRAMMED = 4  # times as close as packets can be
_LEAST_FRAME_NS = 4 * MS
_WINDOWS_NS = (4 * NS, 12 * NS, 60 * NS)  # for a clock that is off by some percent, and by less
_OFF_NS = 120 * MS  # in a window: more than jitter
_AGREE_NS = 80 * MS  # ... in each one about as much
_IN_A_ROW = 3
_STEPS, _STEPS_NS = 8, 10 * NS
_MOST_SCALE = 1000.0

_HOLE_NS = 500 * MS
_MOST_AHEAD_NS = 500 * MS
_TICK_NS = MS
_MOST_REORDERED = 16  # frames
_SLEW = 10  # a tenth of the usual distance
_FORGETS = 0.97  # of what the distance is known by, from one look to the next: some ten seconds


@dataclass(frozen=True, slots=True)
class Disbelief:
    """Why a clock is not believed, for a log line; how long a second of it takes; the distance of arrivals."""

    reason: str
    scale: float
    distance_ns: int


@dataclass(slots=True)
class _Windows:
    """The earliest packets of each window, and how fast their delay changes from one to the next."""

    length_ns: int
    number: int = -1
    mark: tuple[int, int] = (0, 0)  # (arrival, delay) of the earliest packet of the present window
    before: tuple[int, int] | None = None
    lowest_ns: int | None = None  # delay in all windows before
    # (slope, whether the delay is a new lowest) of the last ones
    slopes: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=_IN_A_ROW))
    was_right: bool = False

    def add(self, now_ns: int, delay_ns: int) -> float | None:
        """The slope of the delay, when the clock cannot be right."""
        number = now_ns // self.length_ns
        if number == self.number:
            if delay_ns < self.mark[1]:
                self.mark = now_ns, delay_ns
            return None
        found = None
        if number == self.number + 1 and self.number >= 0:
            found = self._close()
        else:
            self.restart()
        self.number, self.mark = number, (now_ns, delay_ns)
        return found

    def restart(self) -> None:
        """What is between the windows says nothing; the lowest delay does."""
        self.number, self.before = -1, None
        self.slopes.clear()

    def _close(self) -> float | None:
        at_ns, delay_ns = self.mark
        is_lowest = self.lowest_ns is None or delay_ns < self.lowest_ns
        if is_lowest:
            self.lowest_ns = delay_ns
        if self.before is not None and at_ns > self.before[0]:
            self.slopes.append(((delay_ns - self.before[1]) / (at_ns - self.before[0]), is_lowest))
        self.before = self.mark
        off, agree = _OFF_NS / self.length_ns, _AGREE_NS / self.length_ns
        self.was_right = self.was_right or (bool(self.slopes) and abs(self.slopes[-1][0]) <= off)
        if len(self.slopes) < _IN_A_ROW:
            return None
        slopes = [slope for slope, _ in self.slopes]
        least, most, mean = min(slopes), max(slopes), sum(slopes) / _IN_A_ROW
        # What lags and has not always done so is a sender, or a line, that cannot follow: it may catch up.
        if least > off and not self.was_right and most - least < agree:
            return mean
        # What was held back and comes faster is no earlier than the earliest packets before that.
        if most < -off and all(is_lowest for _, is_lowest in self.slopes) and most - least < max(agree, -mean / 5):
            return mean
        return None


class ClockCheck:
    """Whether the clock of one stream can be right: tell it what came at each look, and of each step."""

    def __init__(self) -> None:
        self._looks: deque[tuple[int, int, int, int]] = deque()  # (now, newest time, packets, least advance) in all
        self._windows = tuple(_Windows(length_ns) for length_ns in _WINDOWS_NS)
        self._steps: deque[int] = deque(maxlen=_STEPS)

    def step(self, now_ns: int) -> None:
        """The sender's clock was set, or the stream began anew."""
        self._steps.append(now_ns)
        self._looks.clear()
        self._windows = tuple(_Windows(length_ns) for length_ns in _WINDOWS_NS)

    def look(self, now_ns: int, newest_ns: int, packets: int, lasts_ns: int) -> Disbelief | None:
        """
        Args:
            newest_ns: the largest time of the packets.
            lasts_ns: how long they last for certain, whatever their times say; 0 for frames.
        """
        looks = self._looks
        if len(self._steps) == _STEPS and now_ns - self._steps[0] < _STEPS_NS:
            return Disbelief("is set all the time", 0.0, 0)
        least_ns = packets * _LEAST_FRAME_NS if not lasts_ns else lasts_ns // _CRAMMED
        if looks and now_ns - looks[-1][0] - max(0, newest_ns - looks[-1][1]) > _STALL_NS:
            looks.clear()
            for windows in self._windows:
                windows.restart()
        if not looks:
            looks.append((now_ns, newest_ns, 0, 0))
        else:
            at, newest, count, least = looks[-1]
            if now_ns == at:
                looks.pop()
            looks.append((now_ns, max(newest, newest_ns), count + packets, least + least_ns))
        while len(looks) > 2 and now_ns - looks[1][0] >= _CRAMMED_NS and looks[-1][2] - looks[1][2] >= _STILL:
            looks.popleft()
        if (crammed := self._crammed()) is not None:
            return crammed
        for windows in self._windows:
            if (slope := windows.add(now_ns, now_ns - newest_ns)) is not None:
                return self._disbelief(now_ns - looks[0][0], round((now_ns - looks[0][0]) * (1 - slope)))
        return None

    def _crammed(self) -> Disbelief | None:
        """Packets whose times lie closer together than packets can."""
        now, newest, count, least = self._looks[-1]
        for at, then, before, least_before in self._looks:
            passed_ns, advance_ns, packets = now - at, newest - then, count - before
            if passed_ns < _STILL_NS or packets < _STILL:
                return None
            if not advance_ns or (
                passed_ns >= _CRAMMED_NS and advance_ns < passed_ns // _CRAMMED and advance_ns < least - least_before
            ):
                return self._disbelief(passed_ns, advance_ns)
        return None

    def _disbelief(self, passed_ns: int, advance_ns: int) -> Disbelief:
        first, last = self._looks[0], self._looks[-1]
        packets = last[2] - first[2]
        return Disbelief(
            f"counts {advance_ns / NS:.2f} s in {passed_ns / NS:.2f} s",
            min(_MOST_SCALE, passed_ns / advance_ns) if advance_ns > 0 else 0.0,
            (last[0] - first[0]) // packets if packets else 0,
        )


class ArrivalPlaces:
    """Decode times by arrival, as even as the packets come on average: never long after they came, and rising."""

    def __init__(self, scale: float, now_ns: int, last_ns: int | None, distance_ns: int) -> None:
        """
        Args:
            scale: how long a second of the sender's clock takes; 0: it says nothing.
            now_ns: of the look before; last_ns: of the packet before.
            distance_ns: of two packets, as far as it is known.
        """
        self.scale = scale
        self._at_ns = now_ns
        self._last_ns = last_ns
        self._passed_ns, self._packets = float(distance_ns), 1.0

    def shown_after(self, sender_ns: int) -> int:
        """How long after it is decoded a frame is shown, of what the sender's clock says of that."""
        usual_ns = self._passed_ns / self._packets
        return max(0, min(round(sender_ns * self.scale), round(_MOST_REORDERED * usual_ns)))

    def of(self, packets: int, now_ns: int) -> list[int]:
        """Of so many packets that were read together."""
        usual_ns = max(_TICK_NS, round(self._passed_ns / self._packets))
        passed_ns, self._at_ns = now_ns - self._at_ns, now_ns
        is_hole = passed_ns > packets * usual_ns + _HOLE_NS
        if not is_hole and passed_ns > 0:
            self._passed_ns = self._passed_ns * _FORGETS + passed_ns
            self._packets = self._packets * _FORGETS + packets
        last_ns = now_ns - packets * usual_ns if self._last_ns is None else self._last_ns
        free_ns = last_ns + packets * usual_ns
        most_ns = packets * usual_ns // _SLEW
        end_ns = free_ns + max(-most_ns, min(most_ns, now_ns - free_ns))
        if is_hole or end_ns < now_ns - _HOLE_NS:
            end_ns = max(now_ns, last_ns + packets * _TICK_NS)
            step_ns = min(usual_ns, (end_ns - last_ns) // packets)
        else:
            end_ns = max(min(end_ns, now_ns + _MOST_AHEAD_NS), last_ns + packets * _TICK_NS)
            step_ns = (end_ns - last_ns) // packets
        self._last_ns = end_ns
        return [end_ns - n * step_ns for n in range(packets - 1, -1, -1)]
