"""G.711 to PCM, by its tables (ITU-T G.711, 1988): what needs no library needs no process of its own either. Pure."""

from __future__ import annotations

import functools

G711 = ("pcm_alaw", "pcm_mulaw")


def pcm_of_g711(data: bytes | memoryview, codec: str) -> bytes:
    """16-bit PCM, little endian, of A-law ("pcm_alaw") or µ-law ("pcm_mulaw")."""
    low, high = _tables(codec)
    codes = bytes(data)
    pcm = bytearray(2 * len(codes))
    pcm[0::2], pcm[1::2] = codes.translate(low), codes.translate(high)
    return bytes(pcm)


@functools.cache
def _tables(codec: str) -> tuple[bytes, bytes]:
    values = [(_alaw if codec == "pcm_alaw" else _mulaw)(code) & 0xFFFF for code in range(256)]
    return bytes(value & 0xFF for value in values), bytes(value >> 8 for value in values)


def _alaw(code: int) -> int:
    code ^= 0x55
    exponent, mantissa = code >> 4 & 7, code & 15
    value = (mantissa << 4) + 8
    if exponent:
        value = value + 0x100 << exponent - 1
    return value if code & 0x80 else -value


def _mulaw(code: int) -> int:
    code = ~code & 0xFF
    value = ((code & 15) << 3) + 0x84 << (code >> 4 & 7)
    return 0x84 - value if code & 0x80 else value - 0x84
