"""Bytes of descriptions: what a packet in a template is, and what libav writes that must not stand in a chunk."""

from __future__ import annotations

EBML = b"\x1a\x45\xdf\xa3"


def template_packet(extradata: bytes) -> bytes:
    """A packet that makes a demuxer believe the stream and a decoder do nothing: an access unit delimiter."""
    if extradata[:1] == b"\x01":  # avcC or hvcC: length-prefixed
        return b"\0\0\0\2\x09\xf0"
    return b"\0\0\0\1\x09\xf0"


def without_opus_delay(matroska: bytes) -> bytes:
    """Set the pre-skip of OpusHead and Matroska's CodecDelay to zero.

    The packets of one encoder are spread over many chunks and placed by their own times (which already allow for the
    encoder's delay), so no chunk has anything to skip.
    """
    changed = bytearray(matroska)
    head = matroska.find(b"OpusHead")
    if head >= 0:
        changed[head + 10 : head + 12] = b"\0\0"
    delay = matroska.find(b"\x56\xaa")
    if delay >= 0:
        length = matroska[delay + 2] & 0x7F
        changed[delay + 3 : delay + 3 + length] = bytes(length)
    return bytes(changed)


def without_flac_sums(streaminfo: bytes) -> bytes:
    """Set what STREAMINFO says of one whole file to "unknown": sizes of its frames, number and MD5 of its samples.

    RFC 9639, 8.2. Packets that go into another file are other sums, and chunks of one encoder differ in nothing else.
    """
    if len(streaminfo) < 34:
        return streaminfo
    changed = bytearray(streaminfo)
    begin = len(changed) - 34
    changed[begin + 4 : begin + 10] = bytes(6)
    changed[begin + 13] &= 0xF0
    changed[begin + 14 :] = bytes(20)
    return bytes(changed)
