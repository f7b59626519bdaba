"""Times for raw streams, which have none: a frame interval apart, in the order in which they are shown."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import av.error
from av.bitstream import BitStreamFilterContext

from msrecd.libav.common import plain
from msrecd.libav.values import LibavError

_REORDERED = 16  # frames that H.264 and HEVC may show in another order


def timed(stream: Any, packets: Iterator[Any]) -> Iterator[Any]:
    """The packets of a raw stream with their times; libav knows from their headers in which order they show.

    Raises:
        LibavError: they cannot be parsed.
    """
    rate = stream.average_rate or stream.guessed_rate or 25
    interval = max(1, round(1 / (rate * stream.time_base)))
    if stream.codec_context.name in ("h264", "hevc"):
        yield from _in_free_places(_ordered(stream, packets, interval), interval)
        return
    for number, packet in enumerate(packets):
        packet.pts = packet.dts = number * interval
        packet.duration = interval
        yield packet


def _ordered(stream: Any, packets: Iterator[Any], interval: int) -> Iterator[Any]:
    order = BitStreamFilterContext("dts2pts", stream)
    try:
        for number, packet in enumerate(packets):
            packet.pts, packet.dts, packet.duration = None, number * interval, interval
            yield from order.filter(packet)
        yield from order.filter(None)
    except (av.error.FFmpegError, ValueError) as exc:
        raise LibavError(plain(exc)) from None


def _in_free_places(packets: Iterator[Any], interval: int) -> Iterator[Any]:
    """libav's filter loses the thread at key frames and at the end, and gives times that are taken or have passed: such
    a packet gets the first place that no other has."""
    waiting: deque[Any] = deque()
    taken: set[int] = set()

    def next_one() -> Any:
        packet = waiting.popleft()
        if packet.pts is None:
            place = packet.dts
            while place in taken:
                place += interval
            packet.pts = place
            taken.add(place)
        return packet

    for packet in packets:
        if packet.pts is not None and (packet.pts < packet.dts or packet.pts in taken or packet.pts % interval):
            packet.pts = None
        if packet.pts is not None:
            taken.add(packet.pts)
        waiting.append(packet)
        if len(waiting) > _REORDERED:
            yield next_one()
        if len(taken) > 8 * _REORDERED:
            taken = {place for place in taken if place >= packet.dts - 4 * _REORDERED * interval}
    while waiting:
        yield next_one()
