"""Headers of FLAC frames (RFC 9639 9.1), and their numbers, which each file counts from its own beginning. Pure."""

from __future__ import annotations

from dataclasses import dataclass

HEADER_BYTES = 16  # the longest
_CRC_BYTES = 2
_CRC16_POLYNOMIAL = 0x8005


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """number: of the frame, or of its first sample where `is_variable`. length: in bytes, with its checksum."""

    number: int
    samples: int
    is_variable: bool
    number_length: int
    length: int


def frame_header(data: bytes, at: int = 0) -> FrameHeader | None:
    """The header at `at`, behind whose sync code it is looked at; None when it is none.

    Raises:
        IndexError: `data` ends before the header does.
    """
    size_code, rate_code = data[at + 2] >> 4, data[at + 2] & 0xF
    if size_code == 0 or rate_code == 15 or data[at + 3] & 1 or data[at + 3] >> 4 > 10:
        return None
    end = at + 4
    lead = data[end]
    extra = 0 if lead < 0x80 else 7 - (lead ^ 0xFF).bit_length()
    if extra < 0 or (0x80 <= lead < 0xC0) or extra > 6:
        return None
    number = lead if not extra else lead & (0x3F >> extra)
    for byte in data[end + 1 : end + 1 + extra]:
        if byte & 0xC0 != 0x80:
            return None
        number = number << 6 | byte & 0x3F
    end += 1 + extra
    if size_code == 1:
        samples = 192
    elif size_code <= 5:
        samples = 576 << (size_code - 2)
    elif size_code <= 7:
        width = size_code - 5
        samples = int.from_bytes(data[end : end + width], "big") + 1
        end += width
    else:
        samples = 256 << (size_code - 8)
    end += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if end >= len(data) or crc8(data[at:end]) != data[end]:
        return None
    return FrameHeader(number, samples, data[at + 1] == 0xF9, 1 + extra, end + 1 - at)


class FrameNumbers:
    """Numbers the frames of one file from 0, whatever number its encoder, which may go on from file to file, gave."""

    def __init__(self) -> None:
        self._frames = 0
        self._samples = 0

    def renumber(self, frame: bytes | memoryview) -> bytes | memoryview:
        """The same frame with the next number; what is no frame comes back as it is."""
        head = bytes(frame[:HEADER_BYTES])
        if head[:2] not in (b"\xff\xf8", b"\xff\xf9"):
            return frame
        try:
            header = frame_header(head)
        except IndexError:
            return frame
        if header is None or len(frame) < header.length + _CRC_BYTES:
            return frame
        number = self._samples if header.is_variable else self._frames
        self._frames += 1
        self._samples += header.samples
        if number == header.number:
            return frame
        old = head[: header.length]
        new = head[:4] + _coded(number) + head[4 + header.number_length : header.length - 1]
        new += bytes((crc8(new),))
        body = frame[header.length : -_CRC_BYTES]
        # The checksum is linear: what the header changes in it is found without the rest of the frame.
        changed = _behind(crc16(old) ^ crc16(new), len(body))
        checksum = int.from_bytes(frame[-_CRC_BYTES:], "big") ^ changed
        return b"".join((new, body, checksum.to_bytes(_CRC_BYTES, "big")))


def _coded(number: int) -> bytes:
    """As UTF-8 would code it, up to 36 bits."""
    if number < 0x80:
        return bytes((number,))
    extra = next(extra for extra in range(1, 7) if number < 1 << (5 * extra + 6))
    lead = 0x100 - (0x80 >> extra) & 0xFF | number >> (6 * extra)
    return bytes((lead, *(0x80 | number >> (6 * left) & 0x3F for left in reversed(range(extra)))))


def _behind(value: int, length: int) -> int:
    """CRC-16 of data whose own is `value`, with `length` zero bytes behind it: value * x^(8 length)."""
    power = 0x100  # x^8
    while length:
        if length & 1:
            value = _times(value, power)
        power = _times(power, power)
        length >>= 1
    return value


def _times(one: int, other: int) -> int:
    """The product of two polynomials modulo that of CRC-16."""
    product = 0
    while other:
        if other & 1:
            product ^= one
        one = (one << 1 ^ _CRC16_POLYNOMIAL if one & 0x8000 else one << 1) & 0xFFFF
        other >>= 1
    return product


def _table(polynomial: int, bits: int) -> list[int]:
    top, mask = 1 << (bits - 1), (1 << bits) - 1
    table = []
    for byte in range(256):
        value = byte << (bits - 8)
        for _ in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & mask
        table.append(value)
    return table


_CRC8 = _table(0x07, 8)
CRC16 = _table(_CRC16_POLYNOMIAL, 16)


def crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value = _CRC8[value ^ byte]
    return value


def crc16(data: bytes) -> int:
    value = 0
    for byte in data:
        value = (value << 8 & 0xFFFF) ^ CRC16[value >> 8 ^ byte]
    return value
