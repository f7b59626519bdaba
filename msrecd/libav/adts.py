"""AAC with ADTS headers (ISO/IEC 13818-7, 6.2), as MPEG-TS and .aac files carry it. Pure."""

from __future__ import annotations


class AdtsError(ValueError):
    """There is no ADTS header."""


def audio_specific_config(packet: bytes) -> bytes:
    """What MP4 and Matroska want to know (ISO/IEC 14496-3, 1.6.2.1), from a packet's header.

    Raises:
        AdtsError: the packet does not begin with a header, or leaves the channels to the data.
    """
    if len(packet) < 7 or packet[0] != 0xFF or packet[1] & 0xF6 != 0xF0:
        raise AdtsError("no ADTS header")
    object_type = (packet[2] >> 6) + 1
    rate_index = packet[2] >> 2 & 0xF
    channels = (packet[2] & 1) << 2 | packet[3] >> 6
    if rate_index > 12 or not channels:
        raise AdtsError("rate or channels are not in the header")
    return (object_type << 11 | rate_index << 7 | channels << 3).to_bytes(2, "big")


def without_header(packet: bytes | memoryview) -> bytes | memoryview:
    """The access unit behind the header; a packet without one as it is."""
    if len(packet) < 7 or packet[0] != 0xFF or packet[1] & 0xF6 != 0xF0:
        return packet
    return packet[7 if packet[1] & 1 else 9 :]
