"""How to ask a sound card for what is wanted. Pure."""

from __future__ import annotations

from msrecd.flow.units import AudioFormat


def widen_24(data: bytes, *, packed: bool) -> bytes:
    """S24 samples as S32, exactly (the lowest eight bits are zero); `packed`: three bytes a sample instead of four."""
    step = 3 if packed else 4
    wide = bytearray(len(data) // step * 4)
    for byte in range(3):
        wide[byte + 1 :: 4] = data[byte::step]
    return bytes(wide)


def period_samples(sample_rate: int) -> int:
    """The period to ask for: the power of two that lasts 20 to 40 ms."""
    return 1 << (max(1, sample_rate // 50) - 1).bit_length()


def periods(sample_rate: int, period: int, buffer_s: float = 0.6) -> int:
    """How many of them make the buffer: `buffer_s` seconds, so that a stalled interpreter does not cost samples."""
    return max(4, -(-round(sample_rate * buffer_s) // period))


def nearest_not_smaller(wanted: int | None, offered: tuple[int, ...]) -> int:
    """Of what the hardware offers (default first) the smallest that is at least `wanted`, else the largest."""
    if wanted is None:
        return offered[0]
    return min((value for value in offered if value >= wanted), default=max(offered))


def describe_format(format: AudioFormat) -> str:
    """For people: "48000 Hz, 2 channels, s16"."""
    plural = "" if format.channels == 1 else "s"
    return f"{format.sample_rate} Hz, {format.channels} channel{plural}, {format.sample_format}"
