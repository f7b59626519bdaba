"""EarlySound: what is heard of a played file before its first frame. Pure; belongs to the worker's thread."""

from __future__ import annotations

from collections.abc import Sequence

from msrecd.clock import MS
from msrecd.flow.units import Packet
from msrecd.muxing.input import TrackInput

_LEAST_NS = 50 * MS  # before the first frame: less is a packet that begins a little earlier, as in most files


class EarlySound:
    """A recording waits for its first key frame. What a live input sends until then is not part of it; a file that is
    played from its begin is recorded whole.
    """

    def __init__(self, inputs: Sequence[TrackInput]) -> None:
        self._inputs = inputs
        self._kept: list[tuple[int, Packet]] = []

    def keep(self, index: int, packet: Packet) -> None:
        """A packet came that cannot begin the recording; few seconds of them come until one does."""
        if self._inputs[index].kind == "audio" and self._inputs[index].is_whole:
            self._kept.append((index, packet))

    def take(self, begin_ns: int | None = None) -> list[tuple[int, Packet]]:
        """What belongs to the recording, once.

        Args:
            begin_ns: where it would begin without; None: nothing else has come.
        """
        kept, self._kept = self._kept, []
        is_heard = bool(kept) and (begin_ns is None or begin_ns - kept[0][1].dts_ns > _LEAST_NS)
        return kept if is_heard else []
