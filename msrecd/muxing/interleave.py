"""Merging the tracks of a recording into one order of decoding time. Pure; belongs to one thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from msrecd.flow.units import Packet

MAX_LEAD_NS = 2_000_000_000


class Interleaver:
    """Gives packets in rising dts over all tracks, as soon as no earlier one can come any more.

    A track that lags more than `max_lead_ns` behind (a microphone that gives nothing) is not waited for.
    """

    def __init__(self, tracks: int, *, max_lead_ns: int = MAX_LEAD_NS) -> None:
        self._queues: list[deque[Packet]] = [deque() for _ in range(tracks)]
        self._newest: list[int | None] = [None] * tracks
        self._ended = [False] * tracks
        self._max_lead_ns = max_lead_ns

    def push(self, track: int, packet: Packet) -> None:
        self._queues[track].append(packet)
        self._newest[track] = packet.dts_ns

    def end(self, track: int) -> None:
        """Nothing more comes of this track."""
        self._ended[track] = True

    def newest(self, track: int) -> int | None:
        """dts of the last packet pushed."""
        return self._newest[track]

    @property
    def all_ended(self) -> bool:
        return all(self._ended)

    def ready(self, *, flush: bool = False) -> Iterator[tuple[int, Packet]]:
        """The packets whose turn it is; with `flush` all that are left."""
        while True:
            track = self._next()
            if track is None:
                return
            packet = self._queues[track][0]
            if not flush and not self._settled(packet.dts_ns):
                return
            self._queues[track].popleft()
            yield track, packet

    def _next(self) -> int | None:
        chosen: int | None = None
        for track, queue in enumerate(self._queues):
            if queue and (chosen is None or queue[0].dts_ns < self._queues[chosen][0].dts_ns):
                chosen = track
        return chosen

    def _settled(self, dts_ns: int) -> bool:
        """Whether no track can still give something earlier, or has had long enough."""
        front = max((newest for newest in self._newest if newest is not None), default=dts_ns)
        for track, queue in enumerate(self._queues):
            if queue or self._ended[track]:
                continue
            newest = self._newest[track]
            if (newest is None or newest < dts_ns) and front - dts_ns < self._max_lead_ns:
                return False
        return True
