"""How many frames of an input are missing where some were lost on the way. Pure; belongs to one thread."""

from __future__ import annotations

_FOLLOWS = 32  # the usual distance moves by that part of what is new: times jitter, and follow arrival by 2 %


class LostFrames:
    """Counts between two frames that were passed on: those that were refused, and those that never came.

    What never came has no number; the times of the two frames tell how many there were room for. They are asked only
    where something is known to be lost: a camera may send fewer frames in the dark.
    """

    def __init__(self, usual_ns: int) -> None:
        """
        Args:
            usual_ns: distance of two frames, as the stream is described; followed as they come.
        """
        self._usual_ns = usual_ns
        self._last_ns: int | None = None
        self._refused = 0
        self._is_broken = False

    @property
    def has_begun(self) -> bool:
        """Whether a frame was passed on: those before the first one are no loss."""
        return self._last_ns is not None

    def refuse(self) -> None:
        """A frame came and is not passed on."""
        self._refused += 1
        self._is_broken = True

    def interrupt(self, *, is_loss: bool) -> None:
        """Some are missing here, or (no loss) were not wanted."""
        self._is_broken = True
        if not is_loss:
            self._last_ns = None

    def missing_before(self, dts_ns: int) -> tuple[int, int]:
        """(frames that never came before this one, which is passed on; when the first of them was due)."""
        last_ns, refused, is_broken = self._last_ns, self._refused, self._is_broken
        self._last_ns, self._refused, self._is_broken = dts_ns, 0, False
        if last_ns is None:
            return 0, dts_ns
        distance_ns = dts_ns - last_ns
        if not is_broken:
            self._usual_ns += (distance_ns - self._usual_ns) // _FOLLOWS
            return 0, dts_ns
        places = round(distance_ns / max(1, self._usual_ns)) - 1
        return max(0, places - refused), last_ns + min(self._usual_ns, distance_ns // 2)
