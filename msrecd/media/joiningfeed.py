"""Recorders that join a stream of frames between two key frames: they have what their first frame refers to at once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from msrecd.clock import MS, Clock
from msrecd.flow.feed import Feed, Sink
from msrecd.flow.units import Packet


class FramesSinceKey:
    """The packets of a video stream since its last key frame, for those that join. Belongs to the playback's thread."""

    _MOST, _MOST_BYTES = 1000, 16 << 20

    def __init__(self) -> None:
        self.frames: list[Packet] = []
        self._bytes = 0

    def add(self, packet: Packet) -> None:
        if packet.is_keyframe:
            self.frames, self._bytes = [], 0
        elif not self.frames:
            return  # there were too many, or there was no key frame
        self.frames.append(packet)
        self._bytes += len(packet.data)
        if len(self.frames) > self._MOST or self._bytes > self._MOST_BYTES:
            self.forget()

    def forget(self) -> None:
        self.frames, self._bytes = [], 0


def quickened(frames: Sequence[Packet], since_ns: int, until_ns: int) -> list[Packet]:
    """Frames of before, all within a short time: what refers to them can be decoded, and nothing becomes longer.

    Their order, of decoding and of presentation, stays.
    """
    step = (until_ns - since_ns) // (len(frames) + 5)  # the delay between decoding and presentation has to fit in too
    shown = sorted(frame.pts_ns for frame in frames)
    ranks = {pts: rank for rank, pts in enumerate(shown)}
    return [
        replace(
            frame,
            dts_ns=since_ns + number * step,
            pts_ns=since_ns + (max(ranks[frame.pts_ns], number - 4) + 4) * step,
            duration_ns=step,
        )
        for number, frame in enumerate(frames)
    ]


class JoiningFeed(Feed[Packet]):
    """A feed whose new sinks have their first frame at once: those since the last key frame, quickened.

    So a recorder that begins between two key frames neither waits for the next one nor writes what cannot be decoded.
    """

    _JOINS_AFTER_NS = 20 * MS  # a recording begins a little later than it connects
    _EACH_NS = MS // 5

    def __init__(self, gop: FramesSinceKey | None, clock: Clock) -> None:
        super().__init__()
        self._gop = gop
        self._clock = clock
        self.waiting: tuple[tuple[Sink[Packet], int], ...] = ()
        self._waiting_lock = threading.Lock()
        self.gives_batches = True

    @property
    def has_sinks(self) -> bool:
        return bool(self.waiting) or super().has_sinks

    def add(self, sink: Sink[Packet]) -> None:
        if self._gop is None or not self._gop.frames or self.ended:
            super().add(sink)
            return
        with self._waiting_lock:
            self.waiting = (*self.waiting, (sink, self._clock.monotonic_ns() + self._JOINS_AFTER_NS))

    def remove(self, sink: Sink[Packet]) -> None:
        with self._waiting_lock:
            self.waiting = tuple(one for one in self.waiting if one[0] is not sink)
        super().remove(sink)

    def put(self, unit: Packet) -> None:
        if self.waiting:
            self._let_in(unit)
        super().put(unit)

    def _let_in(self, unit: Packet) -> None:
        """Give those that wait what the unit refers to, once it lies behind the time at which they came."""
        frames = [] if unit.is_keyframe or self._gop is None else self._gop.frames
        needed_ns = len(frames) * self._EACH_NS + MS
        with self._waiting_lock:
            ready = [one for one in self.waiting if unit.dts_ns - one[1] >= needed_ns or not frames]
            self.waiting = tuple(one for one in self.waiting if one not in ready)
            for sink, since_ns in ready:
                for frame in quickened(frames, since_ns, unit.dts_ns):
                    sink.put(frame)
                super().add(sink)

    def end(self, error: BaseException | None = None) -> None:
        with self._waiting_lock:
            waiting, self.waiting = self.waiting, ()
        for sink, _ in waiting:
            super().add(sink)
        super().end(error)
