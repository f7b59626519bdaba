"""Whether a value read from a card can be one that was written here: type, size and sign."""

from __future__ import annotations

import re

from msrecd.vocabulary.times import parse_utc

_MAX_SECONDS = 1e9
_MAX_NS = 1 << 62  # the year 2116
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_number(value: object, low: float = -_MAX_SECONDS) -> bool:
    # No comparison holds for NaN.
    return type(value) in (int, float) and low <= value <= _MAX_SECONDS  # type: ignore[operator]


def is_count(value: object, low: int = 0, high: int = _MAX_NS) -> bool:
    return type(value) is int and low <= value <= high


def is_seq(value: object) -> bool:
    return is_count(value, 1, 999_999_999)


def is_seconds(value: object) -> bool:
    return is_number(value, 0.0)


def is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 512 and value.isprintable()


def is_time(value: object) -> bool:
    if not is_text(value):
        return False
    try:
        return -_MAX_NS <= parse_utc(str(value)) <= _MAX_NS
    except (ValueError, OverflowError):
        return False


def is_flag(value: object) -> bool:
    return isinstance(value, bool)


def is_sha256(value: object) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None
