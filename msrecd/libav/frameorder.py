"""In which order the frames of a stream are shown: what their headers say of it. Pure.

ITU-T H.264, 7.3 and 8.2.1; H.265, 7.3 and 8.3.1; H.262, 6.1.1.11 and 6.2.3. Raw streams, AVI and MPEG-PS have no other
word of it, or none of every frame.
"""

from __future__ import annotations

from dataclasses import dataclass

from msrecd.vocabulary.nal import length_size, parameter_sets, split

_HEADERS = 4096  # bytes of a frame in which its first slice usually begins
_SLICE = 64  # bytes of a slice that hold all that is read of it
_HIGH_PROFILES = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244})
_MOST_BITS = 16  # of the order count (both specifications)


class _Bits:
    """The bits of a NAL unit behind its header.

    Raises (from its methods):
        ValueError: it is cut short, or is no such unit.
    """

    def __init__(self, unit: bytes, header: int) -> None:
        data = unit[header:].replace(b"\0\0\3", b"\0\0")
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int = 1) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("cut short")
        return self._value >> self._left & ((1 << count) - 1)

    def golomb(self) -> int:
        """ue(v); se(v) is never more than skipped or small."""
        zeros = 0
        while not self.take():
            zeros += 1
            if zeros > 32:
                raise ValueError("no number")
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        number = self.golomb()
        return (number + 1) // 2 if number & 1 else -(number // 2)

    def bits_of_count(self) -> int:
        """log2_max_…_minus4."""
        bits = self.golomb() + 4
        if bits > _MOST_BITS:
            raise ValueError("no such length")
        return bits


@dataclass(frozen=True, slots=True)
class Place:
    """Where a frame is shown: behind all that came before it if it begins a sequence, then by its count."""

    begins: bool
    count: int


class _Count:
    """The order count of which a frame says the last bits."""

    def __init__(self) -> None:
        self._before = 0  # of the last frame that others may refer to

    def of(self, low: int, bits: int, *, begins: bool, is_referred: bool) -> int:
        before = 0 if begins else self._before
        count = (before >> bits << bits) + low
        if before - count >= 1 << bits - 1:
            count += 1 << bits
        elif count - before > 1 << bits - 1:
            count -= 1 << bits
        if is_referred:
            self._before = count
        return count


class MpegOrder:
    """Of MPEG-1 and MPEG-2: a B-frame is shown between the two frames of other kinds that came last."""

    def __init__(self) -> None:
        self._others = 0

    def place(self, data: bytes | memoryview) -> Place | None:
        """None: there is no frame in it."""
        found = bytes(data[:_HEADERS])
        at = found.find(b"\0\0\1\0")
        if not 0 <= at < len(found) - 5:
            found = bytes(data)
            at = found.find(b"\0\0\1\0")
        if not 0 <= at < len(found) - 5:
            return None
        if found[at + 5] >> 3 & 7 == 3:
            return Place(False, 2 * self._others - 1)
        self._others += 1
        return Place(False, 2 * self._others)


class FrameOrder:
    """Takes the packets of a stream in their order; codec: "h264" or "hevc"."""

    def __init__(self, codec: str, extradata: bytes) -> None:
        self._codec = codec
        self._length_size = length_size(extradata, codec)
        self._sets: dict[int, tuple[int, ...]] = {}
        self._refers: dict[int, tuple[int, ...]] = {}
        self._count = _Count()
        self._has_begun = False
        self._read = self._of_h264 if codec == "h264" else self._of_hevc
        for unit in parameter_sets(extradata, codec):
            self._place_of([unit])

    def place(self, data: bytes | memoryview) -> Place | None:
        """None: its headers do not say, so it is shown behind all that came before it."""
        place = self._place_of(split(bytes(data[:_HEADERS]), self._length_size))
        if place is None and len(data) > _HEADERS:
            place = self._place_of(split(bytes(data), self._length_size))
        return place

    def _place_of(self, units: list[bytes]) -> Place | None:
        for unit in units:
            try:
                place = self._read(unit)
            except (ValueError, LookupError):  # cut, or of a set that has not come
                continue
            if place is not None:
                return place
        return None

    def _of_h264(self, unit: bytes) -> Place | None:
        kind = unit[0] & 0x1F
        if kind == 7:
            identifier, facts = _h264_sequence(unit)
            self._sets[identifier] = facts
        elif kind == 8:
            bits = _Bits(unit, 1)
            identifier, sequence = bits.golomb(), bits.golomb()
            bits.take()
            self._refers[identifier] = (sequence, bits.take())
        elif kind in (1, 2, 5):
            return self._of_h264_slice(_Bits(unit[:_SLICE], 1), begins=kind == 5, is_referred=bool(unit[0] & 0x60))
        return None

    def _of_h264_slice(self, bits: _Bits, *, begins: bool, is_referred: bool) -> Place | None:
        bits.golomb()
        bits.golomb()
        sequence, has_bottom = self._refers[bits.golomb()]
        frame_bits, kind, count_bits, is_frame_only, is_separate = self._sets[sequence]
        if kind != 0:  # the order of decoding; or one by rules that no encoder with such frames uses
            return None
        bits.take(2 * is_separate + frame_bits)
        is_field = 0 if is_frame_only else bits.take()
        if is_field:
            bits.take()
        if begins:
            bits.golomb()
        top = self._count.of(bits.take(count_bits), count_bits, begins=begins, is_referred=is_referred)
        below = bits.signed() if has_bottom and not is_field else 0
        return Place(begins, top + min(0, below))

    def _of_hevc(self, unit: bytes) -> Place | None:
        kind = unit[0] >> 1 & 0x3F
        if (unit[0] & 1) << 5 | unit[1] >> 3:  # of another layer
            return None
        if kind == 33:
            identifier, facts = _hevc_sequence(unit)
            self._sets[identifier] = facts
        elif kind == 34:
            bits = _Bits(unit, 2)
            identifier, sequence = bits.golomb(), bits.golomb()
            bits.take()
            self._refers[identifier] = (sequence, bits.take(), bits.take(3))
        elif kind < 32:
            return self._of_hevc_slice(_Bits(unit[:_SLICE], 2), kind, unit[1] & 7)
        return None

    def _of_hevc_slice(self, bits: _Bits, kind: int, temporal: int) -> Place | None:
        if not bits.take():  # not the first slice of its frame
            return None
        if 16 <= kind <= 23:
            bits.take()
        sequence, says_output, extra = self._refers[bits.golomb()]
        count_bits, is_separate = self._sets[sequence]
        bits.take(extra)
        bits.golomb()
        bits.take(says_output + 2 * is_separate)
        begins = 16 <= kind <= 20 or (kind == 21 and not self._has_begun)
        self._has_begun = True
        low = 0 if kind in (19, 20) else bits.take(count_bits)
        is_referred = temporal == 1 and not 6 <= kind <= 9 and not (kind < 16 and kind % 2 == 0)
        return Place(begins, self._count.of(low, count_bits, begins=begins, is_referred=is_referred))


def _h264_sequence(unit: bytes) -> tuple[int, tuple[int, ...]]:
    bits = _Bits(unit, 1)
    profile = bits.take(8)
    bits.take(16)
    identifier, is_separate = bits.golomb(), 0
    if profile in _HIGH_PROFILES:
        chroma = bits.golomb()
        is_separate = bits.take() if chroma == 3 else 0
        bits.golomb()
        bits.golomb()
        bits.take()
        if bits.take():
            for number in range(12 if chroma == 3 else 8):
                if bits.take():
                    _skip_scaling_list(bits, 16 if number < 6 else 64)
    frame_bits, kind, count_bits = bits.bits_of_count(), bits.golomb(), 0
    if kind == 0:
        count_bits = bits.bits_of_count()
    elif kind == 1:
        bits.take()
        bits.signed()
        bits.signed()
        for _ in range(min(bits.golomb(), 255)):
            bits.signed()
    bits.golomb()
    bits.take()
    bits.golomb()
    bits.golomb()
    return identifier, (frame_bits, kind, count_bits, bits.take(), is_separate)


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last


def _hevc_sequence(unit: bytes) -> tuple[int, tuple[int, ...]]:
    bits = _Bits(unit, 2)
    bits.take(4)
    layers = bits.take(3)  # beside the first
    bits.take(1 + 96)  # profile, tier and level of all of them
    has = [(bits.take(), bits.take()) for _ in range(layers)]
    if layers:
        bits.take(2 * (8 - layers))
    for has_profile, has_level in has:
        bits.take(88 * has_profile + 8 * has_level)
    identifier = bits.golomb()
    is_separate = bits.take() if bits.golomb() == 3 else 0
    bits.golomb()
    bits.golomb()
    if bits.take():
        for _ in range(4):
            bits.golomb()
    bits.golomb()
    bits.golomb()
    return identifier, (bits.bits_of_count(), is_separate)
