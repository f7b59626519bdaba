"""RTP packets of one received stream to whole frames, in order. Pure; times are given.

What is missing is waited for (the receiver has asked for it again) and then given up. A frame of video that refers to
one that is missing is not given out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from msrecd.clock import MS
from msrecd.rtc.packetize import is_key_frame

_WAITS_NS = {"audio": 120 * MS, "video": 400 * MS}
_MOST = {"audio": 64, "video": 2048}  # packets that wait for a missing one
_MISORDER = 100  # a packet that is further behind begins a new sequence


class Rtp(Protocol):
    """What is used of a packet; `_data` is its payload without the codec's descriptor."""

    sequence_number: int
    timestamp: int
    marker: int
    _data: bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of video, or a packet of sound.

    rtp_time: unwrapped. lost_before: packets that are missing between the frame before and this one.
    """

    data: bytes
    rtp_time: int
    is_keyframe: bool
    lost_before: int = 0


class Unwrapped:
    """Counters of so many bits as ones that go on."""

    def __init__(self, bits: int) -> None:
        self._half, self._size = 1 << (bits - 1), 1 << bits
        self._last: int | None = None

    def of(self, value: int) -> int:
        """The number nearest to the last one that ends in these bits."""
        if self._last is None:
            self._last = value
            return value
        near = (value - self._last + self._half) % self._size - self._half
        self._last += near
        return self._last

    def peek(self, value: int) -> int:
        """As `of`, without taking note."""
        if self._last is None:
            return value
        return self._last + (value - self._last + self._half) % self._size - self._half


class Reassembly:
    """One stream; belongs to one thread."""

    def __init__(self, kind: str, codec: str) -> None:
        self._is_video = kind == "video"
        self._codec = codec
        self._waits_ns, self._most = _WAITS_NS[kind], _MOST[kind]
        self._sequence = Unwrapped(16)
        self.times = Unwrapped(32)
        self._next: int | None = None
        self._waiting: dict[int, tuple[Rtp, int]] = {}  # by sequence number: packet, arrival
        self._parts: list[bytes] = []  # of the frame that is being put together
        self._time: int | None = None
        self._is_torn = False  # a part of it is missing
        self._is_broken = self._is_video  # until a key frame
        self._lost = 0  # since the last frame
        self.lost_packets = 0
        self.dropped_frames = 0
        self.needs_key_frame = False  # taken by who asks for one

    def add(self, packet: Rtp, now_ns: int) -> Sequence[Frame]:
        """What has become complete by this packet."""
        number = self._sequence.peek(packet.sequence_number)
        if self._next is not None and number < self._next - _MISORDER:  # a sender that began anew
            self._waiting.clear()
            self._tear(0)
            self._next = None
        number = self._sequence.of(packet.sequence_number)
        if self._next is None:
            self._next = number
        if number < self._next:
            return ()  # came twice, or was given up
        self._waiting[number] = (packet, now_ns)
        frames: list[Frame] = []
        self._take_in_order(frames)
        if self._waiting and self._is_overdue(now_ns):
            first = min(self._waiting)
            self._tear(first - self._next)
            self._next = first
            self._take_in_order(frames)
        return frames

    def _is_overdue(self, now_ns: int) -> bool:
        oldest = self._waiting[min(self._waiting)][1]
        return len(self._waiting) > self._most or now_ns - oldest > self._waits_ns

    def _take_in_order(self, frames: list[Frame]) -> None:
        assert self._next is not None
        while (entry := self._waiting.pop(self._next, None)) is not None:
            self._next += 1
            self._put(entry[0], frames)

    def _put(self, packet: Rtp, frames: list[Frame]) -> None:
        time = self.times.of(packet.timestamp)
        if not self._is_video:
            if packet._data:
                frames.append(Frame(packet._data, time, True, self._take_lost()))
            return
        if self._time is not None and time != self._time and self._parts:
            self._finish(frames)  # its last packet had no marker
        self._time = time
        if packet._data:
            self._parts.append(packet._data)
        if packet.marker:
            self._finish(frames)

    def _finish(self, frames: list[Frame]) -> None:
        data, torn, time = b"".join(self._parts), self._is_torn, self._time
        self._parts, self._is_torn, self._time = [], False, None
        if not data or time is None:
            return
        is_key = is_key_frame(self._codec, data)
        if torn or (self._is_broken and not is_key):
            self._is_broken = True
            self.dropped_frames += 1
            self.needs_key_frame = True
            return
        self._is_broken = False
        frames.append(Frame(data, time, is_key, self._take_lost()))

    def _tear(self, missing: int) -> None:
        """Some packets will not come."""
        self.lost_packets += missing
        self._lost += missing
        if self._is_video:
            # Whether they belong to this frame, to the next one, or were some of their own, is not known.
            self._parts, self._is_torn, self._time = [], False, None
            self._is_broken = True
            self.needs_key_frame = True

    def _take_lost(self) -> int:
        lost, self._lost = self._lost, 0
        return lost
