"""The RTP packets of one sender: header, numbers, and what may have to be sent again. Pure.

It is done for some 800 packets a second and viewer: the header is made once, and only what changes is written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_KEPT = 512  # packets that can be sent again: half a second of 8 Mbit/s
_AT_ONCE = 32  # packets of one frame; a key frame is longer, and a thin link drops what overflows its queue
_PAUSE_S, _LONGEST_S = 0.005, 0.04  # between them, and in all: a frame must be out before the next one but one


@dataclass(frozen=True, slots=True)
class Extension:
    """The header extension of every packet; the send time is 3 bytes of it at `time_at` (-1: it has none)."""

    data: bytes
    time_at: int


class Kept(NamedTuple):
    """A packet that was sent."""

    number: int
    timestamp: int
    marker: int
    payload: bytes


class PacketLine:
    """Numbers the packets of one payload type."""

    def __init__(self, payload_type: int, ssrc: int, number: int, extension: Extension) -> None:
        """
        Args:
            number: of the first packet.
        """
        self.payload_type = payload_type
        self.number = number
        first = 0x90 if extension.data else 0x80
        self._head = bytearray(struct.pack("!BBHLL", first, payload_type, 0, 0, ssrc) + extension.data)
        self._time_at = -1 if extension.time_at < 0 else 12 + extension.time_at
        self._kept: list[Kept | None] = [None] * _KEPT

    def packets(self, payloads: Sequence[bytes], timestamp: int, is_end: bool, send_time: int) -> Iterator[bytes]:
        """Those of (a part of) one frame.

        Args:
            is_end: whether the frame ends with them.
            send_time: seconds in 6.18 bits.
        """
        head, last = self._head, len(payloads) - 1
        if self._time_at >= 0:
            head[self._time_at : self._time_at + 3] = send_time.to_bytes(3, "big")
        for index, payload in enumerate(payloads):
            marker = int(is_end and index == last)
            struct.pack_into("!BHL", head, 1, marker << 7 | self.payload_type, self.number, timestamp)
            self._kept[self.number % _KEPT] = Kept(self.number, timestamp, marker, payload)
            self.number = self.number + 1 & 0xFFFF
            yield b"".join((head, payload))

    def sent(self, number: int) -> Kept | None:
        """A packet that the peer asks for again; None once it is forgotten."""
        kept = self._kept[number % _KEPT]
        return kept if kept is not None and kept.number == number else None


def bursts(payloads: Sequence[bytes]) -> tuple[list[Sequence[bytes]], float]:
    """The packets of a frame as they go out at once, and the pause in between in seconds."""
    parts = [payloads[at : at + _AT_ONCE] for at in range(0, len(payloads), _AT_ONCE)]
    return parts, min(_PAUSE_S, _LONGEST_S / max(1, len(parts) - 1))
