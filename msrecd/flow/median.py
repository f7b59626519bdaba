"""The median; `statistics` has one, too, and loads a third of a megabyte for it."""

from __future__ import annotations

from collections.abc import Iterable


def median(values: Iterable[float]) -> float:
    """The middle value, or the mean of the two in the middle.

    Raises:
        ValueError: there is no value.
    """
    ordered = sorted(values)
    half = len(ordered) // 2
    if not ordered:
        raise ValueError("no median of nothing")
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
