"""Times for raw streams, which have none, and for AVI, which has those of decoding alone: in the order shown."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import av.error
from av.bitstream import BitStreamFilterContext

from msrecd.libav.common import plain
from msrecd.libav.values import LibavError

WITHOUT_TIMES = ("h264", "hevc", "m4v", "obu")  # raw streams: a frame after the other
_REORDERED = 16  # frames that H.264 and HEVC may show in another order


def with_times(packets: Iterator[Any], streams: Sequence[Any], format: str) -> Iterator[tuple[int, Any]]:
    """(index of its stream, packet): a packet that libav's filter has timed has lost its stream.

    Raises:
        LibavError: they cannot be parsed.
    """
    if format in WITHOUT_TIMES:
        for packet in _timed(streams[0], packets):
            yield streams[0].index, packet
        return
    reordered = next((s for s in streams if format == "avi" and s.codec_context.name == "h264"), None)
    if reordered is None:
        for packet in packets:
            yield packet.stream.index, packet
        return
    others: deque[Any] = deque()

    def own() -> Iterator[Any]:
        for packet in packets:
            if packet.stream.index == reordered.index:
                yield packet
            else:
                others.append(packet)

    for packet in _shown(reordered, own()):
        until = packet.dts * reordered.time_base  # libav's filter gives frames when it has seen what follows them
        while others and (others[0].dts or 0) * others[0].time_base <= until:
            other = others.popleft()
            yield other.stream.index, other
        yield reordered.index, packet
    for other in others:
        yield other.stream.index, other


def _timed(stream: Any, packets: Iterator[Any]) -> Iterator[Any]:
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


def _shown(stream: Any, packets: Iterator[Any]) -> Iterator[Any]:
    """The H.264 packets of a stream that has decode times alone, with the times at which they are shown.

    Raises:
        LibavError: they cannot be parsed.
    """
    rate = stream.average_rate or stream.guessed_rate or 25
    interval = max(1, round(1 / (rate * stream.time_base)))
    yield from _in_free_places(_ordered(stream, packets, interval, has_dts=True), interval)


def _ordered(stream: Any, packets: Iterator[Any], interval: int, *, has_dts: bool = False) -> Iterator[Any]:
    order = BitStreamFilterContext("dts2pts", stream)
    last = -interval
    try:
        for packet in packets:
            last = max(packet.dts, last + 1) if has_dts and packet.dts is not None else last + interval
            packet.pts, packet.dts, packet.duration = None, last, interval
            yield from order.filter(packet)
        yield from order.filter(None)
    except (av.error.FFmpegError, ValueError) as exc:
        raise LibavError(plain(exc)) from None


def _in_free_places(packets: Iterator[Any], interval: int) -> Iterator[Any]:
    """libav's filter takes one group of frames for another at key frames and at the end, and gives times that are taken
    or have passed: those of the frame that has the same place in an earlier group. Such a packet gets that place in its
    own group, or, where another frame has it, the first place that no other has."""
    waiting: deque[Any] = deque()
    taken: set[int] = set()
    begins: deque[int] = deque(maxlen=_REORDERED)  # times of key frames
    delay: int | None = None  # from decoding a key frame to showing it

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
        if packet.pts is not None and _is_wrong(packet.pts, packet.dts, taken, interval):
            found = None
            if delay is not None and packet.is_keyframe:
                found = packet.dts + delay
            elif begins:
                before = max((begin for begin in begins if begin <= packet.pts), default=begins[-1])
                found = packet.pts - before + begins[-1]
            packet.pts = None if found is None or _is_wrong(found, packet.dts, taken, interval) else found
        if packet.pts is not None:
            taken.add(packet.pts)
            if packet.is_keyframe:
                begins.append(packet.pts)
                delay = packet.pts - packet.dts if delay is None else delay
        waiting.append(packet)
        if len(waiting) > _REORDERED:
            yield next_one()
        if len(taken) > 8 * _REORDERED:
            taken = {place for place in taken if place >= packet.dts - 4 * _REORDERED * interval}
    while waiting:
        yield next_one()


def _is_wrong(pts: int, dts: int, taken: set[int], interval: int) -> bool:
    return pts < dts or pts in taken or bool(pts % interval)
