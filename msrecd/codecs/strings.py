"""RFC 6381 codec strings from a stream's own headers (ISO/IEC 14496-15 annex E, AV1 and VP9 ISOBMFF bindings)."""

from __future__ import annotations

from msrecd.vocabulary.nal import nal_units

_PROFILE_TIER_LEVEL = 12  # bytes
_SPS = 33


def codec_string(codec: str, extradata: bytes, *, width: int = 0, height: int = 0) -> str:
    """What to write behind `codecs=` for this stream; the bare identifier where the headers tell nothing."""
    if codec == "h264":
        profile = _h264_profile(extradata)
        return "avc1." + profile.hex() if profile else "avc1"
    if codec == "hevc":
        return _hevc(extradata)
    if codec == "av1":
        return _av1(extradata)
    if codec == "vp9":
        return f"vp09.00.{_vp9_level(width * height):02d}.08"
    if codec == "aac":
        return f"mp4a.40.{extradata[0] >> 3}" if extradata else "mp4a.40.2"
    return "pcm" if codec.startswith("pcm_s") else codec


def _h264_profile(extradata: bytes) -> bytes:
    if extradata[:1] == b"\x01" and len(extradata) >= 4:  # avcC
        return extradata[1:4]
    for unit in nal_units(extradata):
        if unit and unit[0] & 0x1F == 7 and len(unit) >= 4:
            return unit[1:4]
    return b""


def _hevc(extradata: bytes) -> str:
    profile = _hevc_profile(extradata)
    if len(profile) < _PROFILE_TIER_LEVEL:
        return "hvc1"
    space = ("", "A", "B", "C")[profile[0] >> 6]
    tier = "H" if profile[0] & 0x20 else "L"
    compatibility = int(f"{int.from_bytes(profile[1:5], 'big'):032b}"[::-1], 2)
    constraints = profile[5:11].rstrip(b"\0")
    return f"hvc1.{space}{profile[0] & 31}.{compatibility:X}.{tier}{profile[11]}" + "".join(
        f".{value:X}" for value in constraints
    )


def _hevc_profile(extradata: bytes) -> bytes:
    """The general profile_tier_level of hvcC, or of the SPS in Annex B, where it begins in the fourth byte."""
    if extradata[:1] == b"\x01":
        return extradata[1 : 1 + _PROFILE_TIER_LEVEL]
    for unit in nal_units(extradata):
        if unit[:1] and unit[0] >> 1 == _SPS:
            return unit.replace(b"\0\0\x03", b"\0\0")[3 : 3 + _PROFILE_TIER_LEVEL]  # emulation prevention
    return b""


def _av1(extradata: bytes) -> str:
    if len(extradata) < 4 or extradata[0] != 0x81:  # not av1C
        return "av01.0.08M.08"
    profile, level = extradata[1] >> 5, extradata[1] & 31
    tier = "H" if extradata[2] >> 7 else "M"
    depth = (12 if extradata[2] & 0x20 else 10) if extradata[2] & 0x40 else 8
    return f"av01.{profile}.{level:02d}{tier}.{depth:02d}"


def _vp9_level(pixels: int) -> int:
    """The lowest level whose frame size fits (https://www.webmproject.org/vp9/levels/)."""
    for level, largest in ((10, 36864), (11, 73728), (20, 122880), (21, 245760), (30, 552960), (31, 983040)):
        if pixels <= largest:
            return level
    return 40 if pixels <= 2228224 else 50
