"""Whole pages of Ogg, whole frames of FLAC, whole samples of WAV."""

from __future__ import annotations

import re
import struct
import zlib
from typing import BinaryIO

from msrecd.muxing.flacframes import CRC16, HEADER_BYTES, frame_header
from msrecd.storage.scan import MAX_ELEMENTS, Scan, TrackScan

_FLAC_SYNC = re.compile(b"\xff[\xf8\xf9]")
_MAX_BLOCKS = 1000  # of metadata before the sound
_FLAC_BLOCK_BYTES = 1 << 20
_FLAC_FRAME_BYTES = 4 << 20  # more than the largest frame: 65535 samples of 8 channels of 32 bits and a bit
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def ogg_crc(data: bytes) -> int:
    """CRC-32 of RFC 3533 (0x04c11db7, not reflected, zero at the start), by way of zlib's reflected one."""
    reflected = zlib.crc32(data.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)


def scan_ogg(file: BinaryIO, size: int) -> Scan:
    """The end of the last page whose checksum holds; the first pages are headers and no media."""
    at = cut = fragments = 0
    rate = skip = granule = 0
    for _ in range(MAX_ELEMENTS):
        if at + 27 > size:
            break
        file.seek(at)
        header = file.read(27)
        if header[:5] != b"OggS\0":
            break
        table = file.read(header[26])
        length = 27 + len(table) + sum(table)
        if len(table) < header[26] or at + length > size:
            break
        body = file.read(sum(table))
        (position,) = struct.unpack_from("<q", header, 6)
        (checksum,) = struct.unpack_from("<I", header, 22)
        if ogg_crc(header[:22] + bytes(4) + header[26:] + table + body) != checksum:
            break
        at += length
        if header[5] & 2:
            rate, skip = _ogg_codec(body)
        elif position > 0:
            granule = position
            fragments += 1
            cut = at
    if not fragments:
        return Scan()
    return _sound(cut, fragments, max(0, granule - skip), rate)


def _ogg_codec(body: bytes) -> tuple[int, int]:
    """Granules a second and those to skip at the beginning."""
    if body.startswith(b"OpusHead"):
        return 48_000, struct.unpack_from("<H", body, 10)[0]
    if body.startswith(b"\x01vorbis"):
        return struct.unpack_from("<I", body, 12)[0], 0
    if body.startswith(b"\x7fFLAC"):
        return int.from_bytes(body[27:30], "big") >> 4, 0
    return 0, 0


def scan_flac(file: BinaryIO, size: int) -> Scan:
    """The end of the last whole frame: frames have no length, so the next one's header or the checksum tells."""
    file.seek(0)
    if file.read(4) != b"fLaC":
        return Scan()
    at, rate, is_last = 4, 0, False
    for _ in range(_MAX_BLOCKS):
        if is_last:
            break
        header = file.read(4)
        if len(header) < 4:
            return Scan()
        is_last = bool(header[0] & 0x80)
        length = int.from_bytes(header[1:], "big")
        if header[0] & 0x7F == 0:
            info = file.read(34)
            if len(info) < 34:
                return Scan()
            rate = int.from_bytes(info[10:13], "big") >> 4
        at += 4 + length
        if at > size:
            return Scan()
        file.seek(at)
    frames, begin, position, samples = _flac_last_frame(file, at, size)
    if not frames:
        return Scan()
    if size - begin <= _FLAC_FRAME_BYTES:
        file.seek(begin)
        end = _flac_frame_end(file.read(size - begin), 0)
        if end is not None:
            return _sound(begin + end, frames, position + samples, rate)
    return _sound(begin, frames - 1, position, rate) if frames > 1 else Scan()


def _flac_last_frame(file: BinaryIO, at: int, size: int) -> tuple[int, int, int, int]:
    """(number of frames, offset of the last one, samples before it, its samples), read in blocks.

    Headers count only with a right checksum and in order. The first may have any number: older recordings count their
    frames over all chunks.
    """
    frames = begin = position = samples = next_number = looked = 0
    while at < size:
        file.seek(at)
        data = file.read(min(_FLAC_BLOCK_BYTES, size - at))
        # A header may go on in the next block, which begins before it then.
        is_end = at + len(data) >= size
        stop = len(data) - (6 if is_end else HEADER_BYTES)
        for match in _FLAC_SYNC.finditer(data, 0, max(0, stop) + 1):
            looked += 1
            if looked > MAX_ELEMENTS:
                return frames, begin, position, samples
            header = frame_header(data, match.start())
            if header is not None and (not frames or header.number == next_number):
                frames, begin, position = frames + 1, at + match.start(), position + samples
                samples = header.samples
                next_number = header.number + (samples if header.is_variable else 1)
        if is_end or stop <= 0:
            break
        at += stop
    return frames, begin, position, samples


def _flac_frame_end(data: bytes, begin: int) -> int | None:
    """Where the last frame's checksum holds: at the end, or before a piece of the next frame's header."""
    value = 0
    found = None
    for at in range(begin, len(data)):
        value = (value << 8 & 0xFFFF) ^ CRC16[value >> 8 ^ data[at]]
        if value == 0 and at + 1 >= len(data) - HEADER_BYTES and data[at + 1 : at + 2] in (b"", b"\xff"):
            found = at + 1
    return found


def scan_wav(file: BinaryIO, size: int) -> Scan:
    """Whole samples of the data chunk, whose size in a file that was never closed says nothing."""
    file.seek(0)
    head = file.read(12)
    if head[:4] not in (b"RIFF", b"RF64") or head[8:12] != b"WAVE":
        return Scan()
    at, rate, block = 12, 0, 0
    for _ in range(_MAX_BLOCKS):
        if at + 8 > size:
            return Scan()
        file.seek(at)
        kind, length = struct.unpack("<4sI", file.read(8))
        if kind == b"data":
            break
        if kind == b"fmt ":
            _, _, rate, _, block = struct.unpack("<HHIIH", file.read(14))
        at += 8 + length + (length & 1)
    else:
        return Scan()
    if not block or not rate:
        return Scan()
    samples = (min(size - at - 8, length) if length not in (0, 0xFFFFFFFF) else size - at - 8) // block
    return _sound(at + 8 + samples * block, samples, samples, rate) if samples > 0 else Scan()


def _sound(cut: int, fragments: int, samples: int, rate: int) -> Scan:
    track = TrackScan(kind="audio", units=samples, start_s=0.0, end_s=samples / rate if rate else 0.0)
    return Scan(cut=cut, fragments=fragments, tracks={"audio": track})
