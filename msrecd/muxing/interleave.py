"""Merging the tracks of a recording into one order of decoding time. Pure; belongs to one thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from msrecd.flow.units import Packet

MAX_LEAD_NS = 2_000_000_000
MAX_WAIT_NS = 30_000_000_000
MAX_BYTES = 32 << 20


class Interleaver:
    """Gives packets in rising dts over all tracks, as soon as no earlier one can come any more.

    A track that lags more than `max_lead_ns` behind (a microphone that gives nothing) is not waited for, unless its
    encoder says that something earlier is on its way: then for `max_wait_ns`, while no more than `max_bytes` wait.
    """

    def __init__(
        self,
        tracks: int,
        *,
        max_lead_ns: int = MAX_LEAD_NS,
        max_wait_ns: int = MAX_WAIT_NS,
        max_bytes: int = MAX_BYTES,
        coming: Callable[[int], int | None] = lambda _: None,
    ) -> None:
        """
        Args:
            coming: track -> capture time of the oldest unit that its encoder has; None when it has none.
        """
        self._queues: list[deque[Packet]] = [deque() for _ in range(tracks)]
        self._newest: list[int | None] = [None] * tracks
        self._ended = [False] * tracks
        self._ends: list[int] = [0] * tracks
        self._max_lead_ns = max_lead_ns
        self._max_wait_ns = max_wait_ns
        self._max_bytes = max_bytes
        self._coming = coming
        self._bytes = 0
        self._front_ns: int | None = None  # of the track that is ahead

    def push(self, track: int, packet: Packet) -> None:
        self._queues[track].append(packet)
        self._newest[track] = packet.dts_ns
        if self._front_ns is None or packet.dts_ns > self._front_ns:
            self._front_ns = packet.dts_ns
        self._ends[track] = packet.dts_ns + packet.duration_ns
        self._bytes += len(packet.data)

    def end(self, track: int) -> None:
        """Nothing more comes of this track."""
        self._ended[track] = True

    def newest(self, track: int) -> int | None:
        """dts of the last packet pushed."""
        return self._newest[track]

    def end_of(self, track: int) -> int:
        """End of the last packet pushed; 0 before the first."""
        return self._ends[track]

    @property
    def all_ended(self) -> bool:
        return all(self._ended)

    def ready(self, *, flush: bool = False) -> Iterator[tuple[int, Packet]]:
        """The packets whose turn it is; with `flush` all that are left."""
        queues = self._queues
        while True:
            track, packet, all_wait = -1, None, True
            for index, queue in enumerate(queues):
                if not queue:
                    all_wait = False
                elif packet is None or queue[0].dts_ns < packet.dts_ns:
                    track, packet = index, queue[0]
            # Where every track has something waiting nothing earlier can come.
            if packet is None or not (all_wait or flush or self._settled(packet.dts_ns)):
                return
            queues[track].popleft()
            self._bytes -= len(packet.data)
            yield track, packet

    def _settled(self, dts_ns: int) -> bool:
        """Whether no track can still give something earlier, or has had long enough."""
        front = dts_ns if self._front_ns is None else self._front_ns
        for track, queue in enumerate(self._queues):
            if queue or self._ended[track]:
                continue
            newest = self._newest[track]
            if newest is not None and newest >= dts_ns:
                continue
            if front - dts_ns < self._max_lead_ns or self._is_worth_waiting(track, dts_ns, front):
                return False
        return True

    def _is_worth_waiting(self, track: int, dts_ns: int, front_ns: int) -> bool:
        """Whether something earlier is in the track's encoder: the machine is short of time, but nothing is lost."""
        if front_ns - dts_ns >= self._max_wait_ns or self._bytes >= self._max_bytes:
            return False
        coming_ns = self._coming(track)
        return coming_ns is not None and coming_ns <= dts_ns
