"""Durations and sizes as people write them: "1h30m", "500ms", "2GiB", "20GB"."""

from __future__ import annotations

import re

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.ASCII)
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", re.ASCII)
_SIZE_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_SIZE_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_MAX_DIGITS = 40


def parse_duration(text: str) -> float:
    """Seconds of a text like "10m", "1h30m", "500ms", "1.5s"; units ms, s, m (or min), h, d, w, each at most once.

    Raises:
        ValueError: it is none; the message tells how to write one.
    """
    seconds, position, seen = 0.0, 0, set[float]()
    if not text.strip() or len(text) > _MAX_DIGITS:
        raise ValueError(f'"{text[:_MAX_DIGITS]}" is not a duration; write for example "10m", "1h30m" or "500ms"')
    while position < len(text):
        match = _DURATION_PART.match(text, position)
        if match is None:
            raise ValueError(f'"{text}" is not a duration; write for example "10m", "1h30m" or "500ms"')
        number, unit = match.groups()
        if not unit:
            example = f"{number}s" if float(number) else "10s"
            raise ValueError(f'"{text}" lacks a unit (ms, s, m, h, d, w); write for example "{example}"')
        factor = _DURATION_UNITS.get(unit)
        if factor is None:
            raise ValueError(f'"{unit}" in "{text}" is not a unit of time; there are ms, s, m, h, d and w')
        if factor in seen:
            raise ValueError(f'"{text}" names the unit "{unit}" twice')
        seen.add(factor)
        seconds += float(number) * factor
        position = match.end()
    return round(seconds, 6)


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as `seconds`, in whole milliseconds: 5400 -> "1h30m"."""
    rest = round(seconds * 1000)
    if rest == 0:
        return "0s"
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def parse_size(text: str) -> int:
    """Bytes of a text like "2GiB" (2 x 1024^3) or "20GB" (20 x 1000^3).

    Raises:
        ValueError: it is none; the message tells how to write one.
    """
    match = _SIZE.fullmatch(text) if len(text) <= _MAX_DIGITS else None
    if match is None:
        raise ValueError(f'"{text[:_MAX_DIGITS]}" is not a size; write for example "2GiB" or "500MB"')
    number, unit = match.groups()
    if not unit:
        raise ValueError(
            f'"{text}" lacks a unit (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB); write for example "{number}MiB"'
        )
    factor = _SIZE_UNITS.get(unit.lower())
    if factor is None:
        raise ValueError(
            f'"{unit}" in "{text}" is not a unit of size; there are B, kB, MB, GB, TB, KiB, MiB, GiB and TiB'
        )
    return round(float(number) * factor)


def format_size(size_bytes: int) -> str:
    """A text for people: 21474836480 -> "20GiB"; binary units, at most one decimal."""
    if size_bytes < 1024:
        return f"{size_bytes}B"
    value, units = size_bytes / 1024, ["KiB", "MiB", "GiB", "TiB"]
    while value >= 1023.95 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.1f}".removesuffix(".0") + units[0]


def counted(count: int, noun: str) -> str:
    """A number and what is counted: 1 -> "1 chunk", 2 -> "2 chunks"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
