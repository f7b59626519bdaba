"""The time line of a recording: monotonic capture times in, file times out. Pure; belongs to one thread."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(slots=True)
class _TrackEnd:
    dts_ns: int | None = None  # of the last packet written, on the recording's line
    end_ns: int = 0


class Timeline:
    """Maps capture times to the recording's line, from which paused time is absent.

    https://github.com/w3c/mediacapture-record/issues/191: what is captured between pause and resume is not there.
    """

    def __init__(self, tracks: int) -> None:
        self.zero_ns = 0  # capture time minus time on the line, at present
        self.started = False
        # (capture time, place) where the line begins and where it goes on after each pause; the oldest are forgotten.
        self._pieces: deque[tuple[int, int]] = deque(maxlen=256)
        self._pauses: deque[int] = deque(maxlen=256)  # where pauses began that have not ended yet
        self._tracks = [_TrackEnd() for _ in range(tracks)]

    @property
    def end_ns(self) -> int:
        """End of what is written, over all tracks."""
        return max(track.end_ns for track in self._tracks)

    def track_end_ns(self, track: int) -> int:
        return self._tracks[track].end_ns

    def track_last_ns(self, track: int) -> int:
        """Time of the track's last packet; 0 when there is none."""
        return self._tracks[track].dts_ns or 0

    def start(self, capture_ns: int) -> None:
        """`capture_ns` becomes 0 of the line."""
        self.zero_ns = capture_ns
        self.started = True
        self._pieces.append((capture_ns, 0))

    def pause(self, capture_ns: int) -> None:
        """From here on the line does not go on, until `resume`."""
        self._pauses.append(capture_ns)

    def resume(self, capture_ns: int, at_ns: int) -> None:
        """After a pause: `capture_ns` continues the line at `at_ns`, and cuts short what still lasted there.

        Otherwise a frame that joins the sound early would be refused as overlapping: a key frame, of all things.
        """
        self.zero_ns = capture_ns - at_ns
        self.started = True
        self._pieces.append((capture_ns, at_ns))
        while self._pauses and self._pauses[0] <= capture_ns:
            self._pauses.popleft()
        for track in self._tracks:
            if track.dts_ns is not None and track.dts_ns < at_ns:
                track.end_ns = min(track.end_ns, at_ns)

    def place(self, capture_ns: int) -> int:
        """Time on the line."""
        return capture_ns - self.zero_ns

    def line_of(self, capture_ns: int) -> int:
        """Time on the line of a capture time that may lie before a pause, or in it, when it is where the pause is."""
        limit_ns: int | None = None
        if self._pauses:
            capture_ns = min(capture_ns, self._pauses[0])
        for begin_ns, at_ns in reversed(self._pieces):
            if capture_ns >= begin_ns:
                place_ns = at_ns + capture_ns - begin_ns
                return place_ns if limit_ns is None else min(place_ns, limit_ns)
            limit_ns = at_ns
        return limit_ns or 0

    def holds(self, capture_ns: int) -> bool:
        """Whether the line has begun by then, and is not paused."""
        if not self._pieces or capture_ns < self._pieces[0][0] or (self._pauses and capture_ns >= self._pauses[0]):
            return False
        limit_ns: int | None = None
        for begin_ns, at_ns in reversed(self._pieces):
            if capture_ns >= begin_ns:
                return limit_ns is None or at_ns + capture_ns - begin_ns <= limit_ns
            limit_ns = at_ns
        return False

    def capture_of(self, line_ns: int) -> int:
        """The other way round."""
        return line_ns + self.zero_ns

    def accepts(self, track: int, dts_ns: int, duration_ns: int) -> bool:
        """Whether a packet at `dts_ns` of the line fits behind what the track has: later, half overlapping at most."""
        last = self._tracks[track]
        if last.dts_ns is None or dts_ns >= last.end_ns > last.dts_ns:  # nearly always
            return True
        return dts_ns > last.dts_ns and dts_ns >= last.end_ns - max(duration_ns // 2, 1_000_000)

    def written(self, track: int, dts_ns: int, end_ns: int) -> None:
        last = self._tracks[track]
        last.dts_ns = dts_ns
        if end_ns > last.end_ns:
            last.end_ns = end_ns
