"""Video tracks besides the first one, whose key frames come when they come. Belongs to the worker's thread."""

from __future__ import annotations

from collections.abc import Sequence

from msrecd.flow.units import Packet
from msrecd.muxing.input import TrackInput


class SideTracks:
    """The first video track decides where a recording begins, goes on and is cut; the others begin there with their
    next key frame, which is asked for. What comes before it belongs to what was there before, or to nothing."""

    def __init__(self, inputs: Sequence[TrackInput], main: int | None) -> None:
        self._inputs = inputs
        self._tracks = [i for i, track in enumerate(inputs) if track.kind == "video" and i != main]
        self._waiting: set[int] = set()

    def begin_anew(self) -> bool:
        """From here on each has to begin with a key frame; whether there is any."""
        self._waiting = {index for index in self._tracks if not self._inputs[index].ended}
        for index in self._waiting:
            self._inputs[index].request_key_frame(0)
        return bool(self._waiting)

    def has_begun(self, index: int, packet: Packet) -> bool:
        """Whether the packet belongs behind the point where everything begins."""
        if packet.is_keyframe:
            self._waiting.discard(index)
        return index not in self._waiting

    @property
    def is_waiting(self) -> bool:
        """Whether a track that goes on has not begun yet."""
        return any(not self._inputs[index].ended for index in self._waiting)

    def ask_at(self, at_ns: int) -> None:
        """Ask for key frames at this time, so that a cut comes at the same moment for all."""
        for index in self._tracks:
            if self._inputs[index].output.can_time_key_frames:
                self._inputs[index].request_key_frame(at_ns)
