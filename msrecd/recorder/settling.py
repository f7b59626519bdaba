"""When a camera that has just been opened shows what is there: exposure and white balance have found their values."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msrecd import ImageCapture
from msrecd.clock import NS, SYSTEM_CLOCK

_LOOK_S = 0.2  # between two looks at a camera that settles
_LOOKS = 4  # so many in a row that are alike: it has settled
_ALIKE = 3.0  # of 255: by so much they may differ
_SAMPLE = 16  # every 16th pixel of a line, and every 16th line, is enough for a mean


async def settle(capture: ImageCapture, limit_s: float) -> None:
    """Wait until exposure and white balance have found their values, no longer than that.

    Raises:
        DOMException: there is no frame.
    """
    end_ns = SYSTEM_CLOCK.monotonic_ns() + round(limit_s * NS)
    looks: list[Sequence[float]] = []
    while SYSTEM_CLOCK.monotonic_ns() < end_ns and not has_settled(looks):
        pixels = (await capture.grab_frame()).array[::_SAMPLE, ::_SAMPLE]
        looks.append(pixels.reshape(-1, 3).mean(axis=0).tolist())
        await asyncio.sleep(_LOOK_S)


def has_settled(looks: Sequence[Sequence[float]]) -> bool:
    """Whether the mean colours of the last looks at a camera, 0 to 255, are alike."""
    if len(looks) < _LOOKS:
        return False
    return all(max(values) - min(values) <= _ALIKE for values in zip(*looks[-_LOOKS:], strict=True))
