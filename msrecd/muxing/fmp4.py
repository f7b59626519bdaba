"""Fragmented MP4 for viewers: the header is the container's own, each fragment holds what came since the last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msrecd.clock import NS
from msrecd.flow.encoded import StreamParameters
from msrecd.flow.units import Packet
from msrecd.muxing.container import ChunkContainer
from msrecd.muxing.moof import Fragments
from msrecd.vocabulary.formats import CONTAINERS


@dataclass(frozen=True, slots=True)
class Fragment:
    """at_ns: capture time of its first sample; is_key: a viewer may begin with it."""

    data: bytes
    at_ns: int
    is_key: bool


class FragmentWriter:
    """Makes fragments of packets; the time line begins with the first packet of the first stream. One thread."""

    def __init__(self, streams: Sequence[StreamParameters]) -> None:
        """
        Raises:
            LibavError: MP4 cannot hold these streams.
        """
        container = ChunkContainer(CONTAINERS["video/mp4"], streams, fragment_ns=NS)
        self.header = b"".join(container.take())
        container.close()
        self._fragments = Fragments(streams)
        self._is_sound = streams[0].kind == "audio"
        self._zero_ns: int | None = None

    def write(self, packets: Sequence[tuple[int, Packet]]) -> Fragment | None:
        """A fragment of these packets, each with the number of its stream, in order; None if all are too early."""
        if self._zero_ns is None:
            self._zero_ns = next((packet.dts_ns for stream, packet in packets if stream == 0), None)
        zero_ns = self._zero_ns
        if zero_ns is None:
            return None
        taken = [(stream, packet) for stream, packet in packets if packet.dts_ns >= zero_ns]
        if not taken:
            return None
        for stream, packet in taken:
            self._fragments.add(
                stream,
                packet,
                pts_ns=packet.pts_ns - zero_ns,
                dts_ns=packet.dts_ns - zero_ns,
                duration_ns=packet.duration_ns,
            )
        is_key = next((packet.is_keyframe for stream, packet in taken if stream == 0), False)
        return Fragment(self._fragments.take(), taken[0][1].pts_ns, is_key or self._is_sound)
