"""Reads what an overlay has drawn into a frame, letter by letter."""

from __future__ import annotations

from typing import Any

from msrecd.flow.overlay import _COLUMNS

_LETTERS = {bytes.fromhex(columns): letter for letter, columns in _COLUMNS.items()}


def read_overlay(luma: Any, length: int, *, position: str = "bottom-left") -> str:
    """The text of so many letters; `?` where a letter cannot be told. luma: an array (height, width)."""
    height, width = luma.shape
    scale = max(1, round(height / 240))
    across, down = 6 * scale, 9 * scale & ~1
    top = 0 if position.startswith("top") else (height - down) & ~1
    left = 0 if position.endswith("left") else (width - length * across) & ~1
    text = ""
    for number in range(length):
        columns = []
        for column in range(1, 6):
            x = left + number * across + column * scale + scale // 2
            bits = [bool(luma[top + (row + 1) * scale + scale // 2, x] > 128) for row in range(7)]
            columns.append(sum(bit << row for row, bit in enumerate(bits)))
        text += _LETTERS.get(bytes(columns), "?")
    return text
