"""How long an Opus packet is, told by its first bytes (RFC 6716, section 3.1); not every demuxer tells it. Pure."""

from __future__ import annotations

_SILK = (480, 960, 1920, 2880)  # samples at 48 kHz: 10, 20, 40, 60 ms
_HYBRID = (480, 960)
_CELT = (120, 240, 480, 960)


def packet_samples(packet: bytes | memoryview) -> int:
    """Samples at 48 kHz; 0 for what is no packet."""
    if not len(packet):
        return 0
    toc = packet[0]
    config, code = toc >> 3, toc & 3
    if config < 12:
        frame = _SILK[config % 4]
    elif config < 16:
        frame = _HYBRID[config % 2]
    else:
        frame = _CELT[config % 4]
    if code == 3:
        return frame * (packet[1] & 63) if len(packet) > 1 else 0
    return frame * (1 if code == 0 else 2)
