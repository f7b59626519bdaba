"""Times of frames where a container has none (raw streams), those of decoding alone (AVI), or not those of every frame
(MPEG-PS): in the order in which they are shown."""

from __future__ import annotations

from bisect import bisect, insort
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from msrecd.libav.frameorder import FrameOrder, MpegOrder

WITHOUT_TIMES = ("h264", "hevc", "m4v", "obu")  # raw streams: a frame after the other
_REORDERS = ("h264", "hevc")
_MPEG = ("mpeg1video", "mpeg2video")
_WAITS = 16  # a decoder of H.264 or HEVC holds no more frames than that
_MOST_WAITING = 2000  # packets, with those of other streams: frames may be far apart
_MOST_AHEAD = 128  # frames that are shown before one that was decoded earlier; more are nonsense
_GUESSED = 3  # frames by which libav is off where it guesses times of MPEG-PS
_BELIEVED = 64  # frames: no guess is off for so long


def with_times(packets: Iterator[Any], streams: Sequence[Any], format: str) -> Iterator[tuple[int, Any]]:
    """(index of its stream, packet), in the order of the input."""
    if format in WITHOUT_TIMES:
        packets = _one_after_the_other(streams[0], packets)
    wanted: Sequence[str] = {"avi": _REORDERS, "mpeg": _REORDERS + _MPEG}.get(format, ())
    if format in WITHOUT_TIMES:
        wanted = _REORDERS
    reordered = next((stream for stream in streams if stream.codec_context.name in wanted), None)
    if reordered is None:
        for packet in packets:
            yield packet.stream.index, packet
        return
    interval = _interval(reordered)
    yield from _shown(reordered, packets, _Corrected(interval) if format == "mpeg" else _OfDecoding(interval))


def _one_after_the_other(stream: Any, packets: Iterator[Any]) -> Iterator[Any]:
    interval = _interval(stream)
    for number, packet in enumerate(packets):
        if packet.pts is None or stream.codec_context.name != "mpeg4":  # libav knows the order of MPEG-4
            packet.pts = packet.dts = number * interval
        packet.duration = interval
        yield packet


def _interval(stream: Any) -> int:
    rate = stream.average_rate or stream.guessed_rate or 25
    ticks: int = round(1 / (rate * stream.time_base))
    return max(1, ticks)


class _Waiting:
    """A packet that comes when those before it have their times; of the reordered stream it waits for its own."""

    __slots__ = ("has_time", "index", "key", "packet", "pts")

    def __init__(self, packet: Any, index: int, key: tuple[int, int, int] | None) -> None:
        self.packet = packet
        self.index = index
        self.key = key  # sequence, order count, number
        self.has_time = key is None
        self.pts = 0


class _Times(Protocol):
    """The times of the frames that are shown."""

    def came(self, packet: Any) -> None:
        """In the order of decoding."""

    def begin(self, depth: int) -> None:
        """The first frames have come; so many are decoded before one that is shown earlier."""

    def shown(self, packet: Any) -> int:
        """The time of the frame that is shown next."""

    def decoded(self, packet: Any, waiting: deque[_Waiting]) -> int | None:
        """The decode time of the packet that comes next, the first one that waits."""


def _shown(stream: Any, packets: Iterator[Any], times: _Times) -> Iterator[tuple[int, Any]]:
    """All packets; those of `stream` with times that fit the order in which they are shown."""
    context, own = stream.codec_context, stream.index
    order = MpegOrder() if context.name in _MPEG else FrameOrder(context.name, bytes(context.extradata or b""))
    waiting: deque[_Waiting] = deque()
    unshown: list[tuple[tuple[int, int, int], _Waiting]] = []  # in the order shown
    depth = 2 if context.has_b_frames else 0
    number, sequence, last = 0, 0, (0, 0, 0)  # the last one: of what was shown
    has_begun = False

    def show() -> None:
        nonlocal last, has_begun
        if not has_begun:
            times.begin(depth)
            has_begun = True
        last, frame = unshown.pop(0)
        frame.pts, frame.has_time = times.shown(frame.packet), True

    def ready() -> Iterator[tuple[int, Any]]:
        while waiting and waiting[0].has_time:
            one = waiting[0]
            if one.key is not None:
                dts = times.decoded(one.packet, waiting)
                one.packet.pts, one.packet.dts = one.pts, dts
            waiting.popleft()
            yield one.index, one.packet

    for packet in packets:
        index = packet.stream.index
        if index != own:
            waiting.append(_Waiting(packet, index, None))
            if len(waiting) > _MOST_WAITING and unshown:
                show()
            yield from ready()
            continue
        place = order.place(memoryview(packet))
        count = 0 if place is None else place.count
        is_stuck = len(unshown) > 1 and number - unshown[-1][0][2] > _MOST_AHEAD
        if place is None or place.begins or (sequence, count) < last[:2] or is_stuck:
            sequence += 1
        frame = _Waiting(packet, own, (sequence, count, number))
        key = (sequence, count, number)
        insort(unshown, (key, frame))
        waiting.append(frame)
        times.came(packet)
        if number <= _WAITS:
            depth = max(depth, len(unshown) - bisect(unshown, (key, frame)))
        number += 1
        while len(unshown) > _WAITS:
            show()
        yield from ready()
    while unshown:
        show()
    yield from ready()


class _OfDecoding:
    """The decode times once more, in the order shown, as much later as the deepest of the first frames needs."""

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self._free: deque[int] = deque()  # times at which no frame is shown yet
        self._end = 0  # of those
        self._last: int | None = None  # decode time
        self._late = 0

    def came(self, packet: Any) -> None:
        packet.dts = self._end if packet.dts is None else max(packet.dts, self._end - self._interval + 1)
        packet.duration = self._interval
        self._free.append(packet.dts)
        self._end = packet.dts + self._interval

    def begin(self, depth: int) -> None:
        for _ in range(depth):
            self._take()

    def _take(self) -> int:
        if not self._free:  # the last ones are shown after the last one was decoded
            self._free.append(self._end)
            self._end += self._interval
        return self._free.popleft()

    def shown(self, packet: Any) -> int:
        return self._take()

    def decoded(self, packet: Any, waiting: deque[_Waiting]) -> int:
        """Also where frames get deeper in the middle, as in files put together, all are decoded before they are shown:
        those that follow and are shown earlier have to have their time, too."""
        dts = int(packet.dts) - self._late
        if self._last is not None:
            frames = (one for one in waiting if one.key is not None)
            steps = [(one.pts - self._last) // n for n, one in enumerate(frames, 1) if one.has_time]
            dts = min(dts, self._last + min(steps))
        self._late, self._last = packet.dts - dts, dts
        return dts


class _Corrected:
    """The times of the container where it has some; libav guesses the others without knowing the order, so that two
    frames may have one. A frame of such a stream lasts as long as it says."""

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self._due: int | None = None  # where the frame before ends
        self._last = 0
        self._off = 0  # frames in a row that are not where they are due

    def came(self, packet: Any) -> None:
        pass

    def begin(self, depth: int) -> None:
        pass

    def shown(self, packet: Any) -> int:
        given, due, interval = packet.pts, self._due, self._interval
        if due is None or given is None:
            pts = (given or 0) if due is None else due
        else:
            off = given - due
            self._off = self._off + 1 if abs(off) > interval // 2 else 0
            is_hole = abs(off) > _GUESSED * interval or self._off > _BELIEVED
            pts = given if is_hole else due + (off // 8 if self._off == 0 else 0)
            if self._last - _BELIEVED * interval < pts <= self._last:  # what goes back further begins anew
                pts = due
        self._last, self._due = pts, pts + (packet.duration or interval)
        return pts

    def decoded(self, packet: Any, waiting: deque[_Waiting]) -> None:
        return None
