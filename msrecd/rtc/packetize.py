"""Encoded units as payloads of RTP packets, and back. Pure.

H.264 by RFC 6184 (packetization-mode 1), VP8 by RFC 7741; a packet of Opus is a payload as it is (RFC 7587).
"""

from __future__ import annotations

from collections.abc import Sequence

from msrecd.flow.encoded import StreamParameters
from msrecd.flow.units import Packet
from msrecd.vocabulary.nal import is_parameter_set, length_size, parameter_sets, split

MAX_PAYLOAD = 1200  # bytes; with the headers of IP, UDP, SRTP it stays below the 1280 that IPv6 takes everywhere
_STAP_A, _FU_A = 24, 28
_DELIMITER, _SPS, _IDR = 9, 7, 5


def access_unit(packet: Packet, parameters: StreamParameters) -> list[bytes]:
    """The NAL units of a packet of H.264; before those of a key frame stand its parameter sets.

    Peers know of none that are not in the stream itself (RFC 6184, section 8.2.2 is not used by browsers).
    """
    units = [
        unit
        for unit in split(bytes(packet.data), length_size(parameters.extradata, "h264"))
        if unit and unit[0] & 0x1F != _DELIMITER
    ]
    if packet.is_keyframe and not any(unit[0] & 0x1F == _SPS for unit in units):
        rest = [unit for unit in units if not is_parameter_set(unit, "h264")]
        units = [*parameter_sets(parameters.extradata, "h264"), *rest]
    return units


def h264_payloads(units: Sequence[bytes], limit: int = MAX_PAYLOAD) -> list[bytes]:
    """Payloads of one access unit: small units share one, large ones are cut."""
    payloads: list[bytes] = []
    together: list[bytes] = []
    size = 1

    def give() -> None:
        nonlocal size
        if len(together) == 1:
            payloads.append(together[0])
        elif together:
            importance = max(unit[0] & 0x60 for unit in together)
            parts = b"".join(len(unit).to_bytes(2, "big") + unit for unit in together)
            payloads.append(bytes([importance | _STAP_A]) + parts)
        together.clear()
        size = 1

    for unit in units:
        if len(unit) > limit:
            give()
            payloads += _cut(unit, limit)
            continue
        if size + 2 + len(unit) > limit:
            give()
        together.append(unit)
        size += 2 + len(unit)
    give()
    return payloads


def _cut(unit: bytes, limit: int) -> list[bytes]:
    """Pieces of one unit (FU-A), of about the same size."""
    indicator, type_ = unit[0] & 0xE0 | _FU_A, unit[0] & 0x1F
    count = -(-(len(unit) - 1) // (limit - 2))
    step = -(-(len(unit) - 1) // count)
    pieces = []
    for begin in range(1, len(unit), step):
        first = 0x80 if begin == 1 else 0
        last = 0x40 if begin + step >= len(unit) else 0
        pieces.append(bytes([indicator, first | last | type_]) + unit[begin : begin + step])
    return pieces


def vp8_payloads(data: bytes, frame_id: int, limit: int = MAX_PAYLOAD) -> list[bytes]:
    """Payloads of one frame of VP8, each with a picture id of 15 bits."""
    rest = bytes([0x80]) + (0x8000 | frame_id & 0x7FFF).to_bytes(2, "big")
    room = limit - 1 - len(rest)
    return [
        bytes([0x90 if begin == 0 else 0x80]) + rest + data[begin : begin + room]
        for begin in range(0, max(1, len(data)), room)
    ]


def is_key_frame(codec: str, data: bytes) -> bool:
    """Whether a received frame of "h264" (Annex B) or "vp8" can be decoded without the ones before it."""
    if codec == "vp8":
        return bool(data) and not data[0] & 1
    at = data.find(b"\0\0\1")
    while at >= 0 and at + 3 < len(data):
        type_ = data[at + 3] & 0x1F
        if type_ in (_SPS, _IDR):
            return True
        if 1 <= type_ < _IDR:
            return False
        at = data.find(b"\0\0\1", at + 3)
    return False


def vp8_size(key_frame: bytes) -> tuple[int, int] | None:
    """(width, height) as a key frame of VP8 tells them (RFC 6386, section 9.1)."""
    if len(key_frame) < 10 or key_frame[3:6] != b"\x9d\x01\x2a":
        return None
    return (
        int.from_bytes(key_frame[6:8], "little") & 0x3FFF,
        int.from_bytes(key_frame[8:10], "little") & 0x3FFF,
    )
