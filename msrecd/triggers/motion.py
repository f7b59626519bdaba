"""Motion: how much of a frame's change is an object that moves. Arithmetic on luma, with a state; one thread at a time.

A frame is looked at in blocks of 8 by 8 pixels (of a frame that is some 640 wide). Each block has a mean and a variance
of its own, so what is always restless there counts little. Brightness that changes everywhere is fitted and taken out;
what cannot be fitted and concerns much of the frame at once is taken for light and learned again. What is left is
summed over neighbouring blocks. Where many blocks change, and others than in the look before (rain, snow), an object
has to stand out of these as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from msrecd.triggers.decide import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Luma: TypeAlias = NDArray[np.uint8]
    Blocks: TypeAlias = NDArray[np.float32]
    Counted: TypeAlias = NDArray[np.bool_]

Polygon: TypeAlias = Sequence[Sequence[float]]

_NS = 1_000_000_000
_BLOCK = 8
_SETTLING = 5  # looks until the first background stands
_LEARN = 1 / 15  # of what is quiet: three seconds at five looks a second
_LEARN_RESTLESS = 1 / 150  # of what is not: an object that stays becomes background within a minute …
_STILL = 25  # … or after so many looks without a change
_LEARN_VARIANCE = 1 / 100
_MOST_NEWS = 5.0  # variances: an object that passes makes no block restless
_LEAST_VARIANCE = 0.36  # in grey levels squared: quantization, and what encoders do to a still frame
_QUIET = 16.0  # squared deviations below are noise
_MOST = 2500.0  # of one block
_LIGHT_SHARE = 0.4  # of all blocks at once: light, not an object
_LIGHT_CHANGED, _LIGHT_LEFT = 0.5, 0.1  # … or most of them, where a common brightness does not explain all
_LIGHT_NS = 2 * _NS  # so long nothing counts then; what changes so much for longer is motion
_LIGHTS, _LIGHTS_NS = (
    4,
    10 * _NS,
)  # more within so long are a lamp that blinks: only the frames that change are left out
_MANY = 0.01  # of all blocks: more that change, and others each time, are rain
_COHERENT = 0.25  # so many more than by chance changed in the look before, there or beside
_ABOVE_RAIN = 3.5  # an object scores so many times what most drops do
_EVERYWHERE = 0.6  # of all blocks have one beside them that changed: no object is so scattered
_FLOORS = (12.8, 5.0)  # least threshold for sensitivity 0 and 1; 8 for 0.5


class MotionDetector:
    """Gives a score for each frame; the unit is the deviation of a quiet block."""

    def __init__(self, *, sensitivity: float = 0.5, mask: Sequence[Polygon] = ()) -> None:
        """
        Args:
            sensitivity: 0 to 1.
            mask: polygons whose inside counts, points (x, y) in parts of the frame; none: all of it.
        """
        self.floor = _FLOORS[0] * (_FLOORS[1] / _FLOORS[0]) ** sensitivity
        self._mask = mask
        self._counted: Counted | None = None
        self._begin()

    def _begin(self) -> None:
        self._mean: Blocks | None = None
        self._looks = 0
        self._light_ns: int | None = None
        self._lights_ns: list[int] = []  # of the last ones after which nothing counted for a while
        self._quiet_until_ns = 0
        self._knows_before = True  # what changed in the look before; not after light
        self._is_much = False  # changed at the last look

    def look(self, luma: Luma, at_ns: int) -> Sample:
        """How much moves in a frame, shape (height, width), uint8; frames come in the order of their times."""
        blocks = block_means(luma)
        if self._mean is None or self._mean.shape != blocks.shape:
            self._counted = counted_blocks(self._mask, *blocks.shape)
            self._begin()
            self._mean = blocks.copy()
            self._before = blocks
            self._variance = np.full_like(blocks, 4.0)
            self._still = np.zeros(blocks.shape, np.int16)
            self._were_loud = np.zeros(blocks.shape, np.bool_)
        score, threshold = self._score(blocks, at_ns)
        self._looks += 1
        return Sample(at_ns, round(score, 2), round(threshold, 2))

    def _score(self, blocks: Blocks, at_ns: int) -> tuple[float, float]:
        assert self._mean is not None
        assert self._counted is not None
        change = blocks - fitted(self._mean, blocks, self._variance)
        squared = change * change
        surprise = squared / self._variance
        is_loud = surprise > _QUIET
        if self._looks < _SETTLING:
            self._learn(blocks, squared, is_loud, quickly=True)
            return 0.0, self.floor
        plain = blocks - self._mean
        changed = float((plain * plain > _QUIET * self._variance).mean())
        if self._is_light(float(is_loud.mean()), changed, at_ns):
            self._mean = blocks.copy()
            self._before = blocks
            self._knows_before = False
            return 0.0, self.floor
        self._learn(blocks, squared, is_loud, quickly=False)
        were_near, self._were_loud = beside(self._were_loud), is_loud
        knows_before, self._knows_before = self._knows_before, True
        if at_ns < self._quiet_until_ns:
            return 0.0, self.floor
        is_loud = is_loud & self._counted
        if not is_loud.any():
            return 0.0, self.floor
        sums = neighbours(np.where(is_loud, np.minimum(surprise, _MOST), 0.0))
        threshold = self.floor
        near = float(were_near.mean())
        is_rain = near > _EVERYWHERE or float(were_near[is_loud].mean()) - near < _COHERENT * (1 - near)
        if is_rain and knows_before and is_loud.mean() > _MANY:
            threshold = max(threshold, _ABOVE_RAIN * float(np.sqrt(np.quantile(sums[is_loud], 0.6))))
        return float(np.sqrt(sums.max())), threshold

    def _is_light(self, share: float, changed: float, at_ns: int) -> bool:
        """Whether so much has changed at once that it is light, and not an object.

        changed: of all blocks; share: of those that no common brightness explains.
        """
        is_much = share > _LIGHT_SHARE or (changed > _LIGHT_CHANGED and share > _LIGHT_LEFT)
        was_much, self._is_much = self._is_much, is_much
        if not self._is_much:
            return False
        if self._light_ns is None or not was_much:
            self._light_ns = at_ns
            self._lights_ns = [earlier_ns for earlier_ns in self._lights_ns if at_ns - earlier_ns < _LIGHTS_NS]
            if len(self._lights_ns) < _LIGHTS:
                self._lights_ns.append(at_ns)
                self._quiet_until_ns = at_ns + _LIGHT_NS
        return at_ns - self._light_ns < _LIGHT_NS

    def _learn(self, blocks: Blocks, squared: Blocks, is_loud: Counted, *, quickly: bool) -> None:
        assert self._mean is not None
        step = blocks - self._before
        is_still = step * step < 4 * self._variance
        self._still = np.where(is_still & is_loud, self._still + 1, 0).astype(np.int16)
        stays = self._still >= _STILL
        rate = np.where(is_loud & ~stays, _LEARN_RESTLESS, _LEARN).astype(np.float32)
        rate[stays] = 0.5
        if quickly:
            rate[:] = 0.3
        self._mean += rate * (blocks - self._mean)
        news = np.minimum(squared, _MOST_NEWS * self._variance)
        self._variance += (0.1 if quickly else _LEARN_VARIANCE) * (news - self._variance)
        np.maximum(self._variance, _LEAST_VARIANCE, out=self._variance)
        self._before = blocks


def block_means(luma: Luma) -> Blocks:
    """Means of blocks of 8 by 8 pixels, shape (height // 8, width // 8); the rest at the edges is left out."""
    rows, columns = max(1, luma.shape[0] // _BLOCK), max(1, luma.shape[1] // _BLOCK)
    if luma.shape[0] < _BLOCK or luma.shape[1] < _BLOCK:
        return np.full((1, 1), luma.mean(), np.float32)
    part = luma[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns * _BLOCK)
    lines = part.sum(axis=1, dtype=np.uint16)  # whole lines first: fast
    sums = lines.reshape(rows, columns, _BLOCK).sum(axis=2, dtype=np.uint16)
    return np.asarray(sums / np.float32(_BLOCK * _BLOCK))


def fitted(mean: Blocks, blocks: Blocks, variance: Blocks) -> Blocks:
    """The background as it looks in the light of this frame: brighter by a factor and an offset that fit most of it."""
    change = blocks - mean
    offset = float(np.median(change))
    usual = np.abs(change - offset) < 4 * np.sqrt(variance) + 0.1 * np.abs(offset)
    if usual.sum() < usual.size // 3:
        usual = np.abs(change - offset) <= np.median(np.abs(change - offset))
    x, y = mean[usual], blocks[usual]
    x_mean, y_mean = float(x.mean()), float(y.mean())
    spread = x - x_mean
    power = float((spread * spread).sum())
    if power < 25.0 * max(1, x.size):  # a scene without contrast has no factor
        return mean + offset
    factor = float((spread * (y - y_mean)).sum()) / power
    return ((mean - x_mean) * factor + y_mean).astype(np.float32)


def counted_blocks(mask: Sequence[Polygon], rows: int, columns: int) -> Counted:
    """Which blocks count: those whose centre lies within one of the polygons, or all without one."""
    if not mask:
        return np.ones((rows, columns), np.bool_)
    y, x = np.mgrid[0:rows, 0:columns]
    x, y = (x + 0.5) / columns, (y + 0.5) / rows
    counted = np.zeros((rows, columns), np.bool_)
    for polygon in mask:
        inside = np.zeros((rows, columns), np.bool_)
        x1, y1 = polygon[-1]
        for x2, y2 in polygon:
            if y1 != y2:  # even-odd rule: does the ray to the right cross this side?
                crosses = (y1 > y) != (y2 > y)
                inside ^= crosses & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
            x1, y1 = x2, y2
        counted |= inside
    return counted


def beside(blocks: Counted) -> Counted:
    """The blocks and those around each of them."""
    padded = np.pad(blocks, 1)
    lines = padded[:-2] | padded[1:-1] | padded[2:]
    return np.asarray(lines[:, :-2] | lines[:, 1:-1] | lines[:, 2:])


def neighbours(values: NDArray[np.float64] | Blocks) -> NDArray[np.float64]:
    """The sum over two by two blocks, at each block: an object lies across the edges of blocks."""
    padded = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    padded[:-1, :-1] = values
    return np.asarray(padded[:-1, :-1] + padded[1:, :-1] + padded[:-1, 1:] + padded[1:, 1:])
