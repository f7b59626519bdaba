"""NAL units of H.264 and H.265: where they are, and which of them are parameter sets (ISO/IEC 14496-15). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# Types of the units that describe the stream: SPS and PPS; VPS, SPS and PPS.
PARAMETER_SETS: Mapping[str, frozenset[int]] = {"h264": frozenset({7, 8}), "hevc": frozenset({32, 33, 34})}
_AVCC_HEADER, _HVCC_HEADER = 5, 22  # bytes before the lists of units


def nal_units(data: bytes) -> list[bytes]:
    """The NAL units of an Annex B byte stream, without their start codes."""
    units = []
    start = data.find(b"\0\0\1")
    while start >= 0:
        start += 3
        following = data.find(b"\0\0\1", start)
        end = len(data) if following < 0 else following
        unit = data[start:end]
        units.append(unit.rstrip(b"\0") if following >= 0 else unit)
        start = following
    return units


def length_size(extradata: bytes, codec: str) -> int:
    """Bytes of the length before each unit in a stream with this extradata; 0: start codes (Annex B)."""
    at = 4 if codec == "h264" else 21
    return 0 if extradata[:1] != b"\x01" or len(extradata) <= at else (extradata[at] & 3) + 1


def split(data: bytes, size: int) -> list[bytes]:
    """The units of a packet, with lengths of `size` bytes or start codes (0) before them."""
    if not size:
        return nal_units(data)
    units, at = [], 0
    while at + size <= len(data):
        length = int.from_bytes(data[at : at + size], "big")
        units.append(data[at + size : at + size + length])
        at += size + length
    return units


def join(units: Iterable[bytes], size: int) -> bytes:
    """A packet of units, the reverse of `split`.

    Raises:
        OverflowError: a unit is too long for a length of `size` bytes.
    """
    return b"".join((len(unit).to_bytes(size, "big") if size else b"\0\0\0\1") + unit for unit in units)


def is_parameter_set(unit: bytes, codec: str) -> bool:
    """Whether a unit, without start code or length, is a parameter set of this codec ("h264" or "hevc")."""
    return bool(unit) and _type_of(unit, codec) in PARAMETER_SETS[codec]


def parameter_sets(extradata: bytes, codec: str) -> list[bytes]:
    """The parameter sets out of avcC, hvcC or Annex B extradata, in their order; none when it is cut short."""
    if extradata[:1] != b"\x01":
        return [unit for unit in nal_units(extradata) if is_parameter_set(unit, codec)]
    sets = _of_avcc(extradata) if codec == "h264" else _of_hvcc(extradata)
    return [unit for unit in sets if is_parameter_set(unit, codec)]


def _type_of(unit: bytes, codec: str) -> int:
    return unit[0] & 0x1F if codec == "h264" else unit[0] >> 1 & 0x3F


def _of_avcc(extradata: bytes) -> list[bytes]:
    sets: list[bytes] = []
    at = _AVCC_HEADER
    for mask in (0x1F, 0xFF):  # SPS, then PPS
        count = extradata[at] & mask if at < len(extradata) else 0
        at = _take(extradata, at + 1, count, sets)
    return sets


def _of_hvcc(extradata: bytes) -> list[bytes]:
    sets: list[bytes] = []
    at = _HVCC_HEADER + 1
    for _ in range(extradata[_HVCC_HEADER] if len(extradata) > _HVCC_HEADER else 0):
        count = int.from_bytes(extradata[at + 1 : at + 3], "big")
        at = _take(extradata, at + 3, count, sets)
    return sets


def _take(extradata: bytes, at: int, count: int, sets: list[bytes]) -> int:
    """Append `count` units that stand behind their 16-bit lengths; where the next thing begins."""
    for _ in range(count):
        size = int.from_bytes(extradata[at : at + 2], "big")
        sets.append(extradata[at + 2 : at + 2 + size])
        at += 2 + size
    return at
