"""PreRoll: encoded packets of the last seconds, for a recording that begins in the past. Pure; of one thread."""

from __future__ import annotations

from collections import deque

from msrecd.flow.units import Packet


class PreRoll:
    """Keeps packets from the last cut point at or before (newest - duration) on, in order, within a bound of bytes.

    When the bound is reached the oldest group of frames goes: the reach gets shorter.
    """

    def __init__(self, *, duration_ns: int, max_bytes: int, video: int | None) -> None:
        """
        Args:
            duration_ns: how far `take` must reach back.
            max_bytes: bound of the packets' data.
            video: index of the track whose key frames are cut points; None: every packet is one.
        """
        self._duration_ns = duration_ns
        self._max_bytes = max_bytes
        self._video = video
        self._packets: deque[tuple[int, Packet]] = deque()
        self._cuts: deque[int] = deque()  # times of the cut points in _packets
        self._bytes = 0

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def push(self, index: int, packet: Packet) -> None:
        """Packets come in rising dts over all tracks."""
        is_cut = packet.is_keyframe and (self._video is None or index == self._video)
        if is_cut:
            self._cuts.append(packet.dts_ns)
        elif not self._cuts:
            return  # nothing can begin here
        self._packets.append((index, packet))
        self._bytes += len(packet.data)
        while len(self._cuts) > 1 and self._cuts[1] <= packet.dts_ns - self._duration_ns:
            self._forget()
        while self._bytes > self._max_bytes and self._cuts:
            self._forget()

    def take(self) -> list[tuple[int, Packet]]:
        """Hand over what is kept; it begins at a cut point. Empty when there was none yet."""
        packets = list(self._packets)
        self._packets.clear()
        self._cuts.clear()
        self._bytes = 0
        return packets

    def _forget(self) -> None:
        """Drop everything before the second cut point."""
        self._cuts.popleft()
        while self._packets and not (self._cuts and self._packets[0][1].dts_ns >= self._cuts[0]):
            _, packet = self._packets.popleft()
            self._bytes -= len(packet.data)
        while self._packets and self._cuts and not self._is_cut(*self._packets[0]):
            _, packet = self._packets.popleft()  # sound captured at the time of the cut
            self._bytes -= len(packet.data)

    def _is_cut(self, index: int, packet: Packet) -> bool:
        return packet.is_keyframe and (self._video is None or index == self._video)
