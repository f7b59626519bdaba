"""The frame of a virtual camera: a number a machine can read, something that moves, a flash every second. Pure.

From top to bottom: a strip of 32 cells (the frame's number, most significant bit first, white is 1), colour bars with a
block that moves over them, and a lower half that is white in the first 100 ms of every second of the monotonic clock.
"""

from __future__ import annotations

from fractions import Fraction

from msrecd.clock import MS, NS

CELLS = 32
FLASH_NS = 100 * MS
SMALLEST = (CELLS, 16)  # a cell is at least one pixel wide and high

_BLACK, _WHITE = 16, 235  # limited range
_DARK = 48
_BARS = ((162, 44, 142), (131, 156, 44), (112, 72, 58), (84, 184, 198), (65, 100, 212), (35, 212, 114))  # Y, U, V
_STEPS_PER_SWEEP = 64  # frames in which the block crosses the frame


class FrameGrid:
    """The times frames fall on: for a whole number of frames a second, one lies exactly on every whole second."""

    def __init__(self, frame_rate: float) -> None:
        self._rate = Fraction(frame_rate).limit_denominator(1001)

    def time_of(self, index: int) -> int:
        """Nanoseconds of CLOCK_MONOTONIC."""
        return index * NS * self._rate.denominator // self._rate.numerator

    def index_at_or_after(self, time_ns: int) -> int:
        """The first index whose time is not before `time_ns`."""
        index = time_ns * self._rate.numerator // (NS * self._rate.denominator)
        return index if self.time_of(index) >= time_ns else index + 1


def is_flash(pts_ns: int) -> bool:
    """Whether the lower half of a frame of that time is white."""
    return pts_ns % NS < FLASH_NS


class TestFrame:
    """Paints yuv420p (limited range) of one size; what does not change is painted once."""

    __test__ = False  # not a test case, whatever pytest makes of its name

    def __init__(self, width: int, height: int) -> None:
        """
        Raises:
            ValueError: smaller than 32x16.
        """
        if width < SMALLEST[0] or height < SMALLEST[1]:
            raise ValueError(f"a test frame is at least {SMALLEST[0]}x{SMALLEST[1]}, not {width}x{height}")
        self._cell_height = height // 16
        cell = width // CELLS
        self._cells = (bytes((_BLACK,)) * cell, bytes((_WHITE,)) * cell)
        self._margin = bytes((_BLACK,)) * (width - CELLS * cell)
        self._block_height = max(1, height // 8)
        self._block = bytes((_WHITE,)) * (width // 16)
        self._bars_row = _row(width, 0)
        self._travel = width - len(self._block)
        middle = height // 2
        above = max(1, (middle - self._cell_height - self._block_height) // 2)
        self._above = self._bars_row * above
        below = self._bars_row * (middle - self._cell_height - above - self._block_height)
        chroma = _chroma(width, height, coloured=range((self._cell_height + 1) // 2, middle // 2))
        self._below = below + bytes((_DARK,)) * (width * (height - middle)) + chroma
        self._below_flash = below + bytes((_WHITE,)) * (width * (height - middle)) + chroma

    def paint(self, number: int, *, flash: bool) -> bytes:
        """The frame with this number (its lowest 32 bits are shown)."""
        bits = f"{number % (1 << CELLS):032b}"
        strip = b"".join([self._cells[bit == "1"] for bit in bits]) + self._margin
        left = (number % _STEPS_PER_SWEEP) * self._travel // (_STEPS_PER_SWEEP - 1)
        moving = self._bars_row[:left] + self._block + self._bars_row[left + len(self._block) :]
        rest = self._below_flash if flash else self._below
        return b"".join((strip * self._cell_height, self._above, moving * self._block_height, rest))


def _row(width: int, component: int) -> bytes:
    """One row of the colour bars, of luma (0) or chroma (1, 2)."""
    return bytes(_BARS[x * len(_BARS) // width][component] for x in range(width))


def _chroma(width: int, height: int, *, coloured: range) -> bytes:
    """Both chroma planes; only the rows of `coloured` have colour, so that cells and flash are pure black and white."""
    half_width, half_height = -(-width // 2), -(-height // 2)
    planes = []
    for component in (1, 2):
        bars, grey = _row(half_width, component), bytes((128,)) * half_width
        planes.append(
            grey * coloured.start + bars * len(coloured) + grey * (half_height - coloured.start - len(coloured))
        )
    return b"".join(planes)
