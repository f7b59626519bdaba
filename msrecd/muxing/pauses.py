"""Which packets a pause takes out. Pure; belongs to one thread."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_REMEMBERED = 8  # pauses that are over, for packets that come late


@dataclass(slots=True)
class _Pause:
    start_ns: int
    end_ns: int | None = None

    def covers(self, at_ns: int) -> bool:
        return at_ns >= self.start_ns and (self.end_ns is None or at_ns < self.end_ns)


class Pauses:
    """Pauses as they were asked for; packets pass later, in rising time, and several pauses may wait for them.

    https://github.com/w3c/mediacapture-record/issues/191: what is captured between pause and resume is not there.
    """

    def __init__(self) -> None:
        self.is_idle = True  # nothing was ever paused, nearly always
        self._coming: deque[_Pause] = deque()
        self._over: deque[_Pause] = deque(maxlen=_REMEMBERED)

    def pause(self, at_ns: int) -> None:
        self.is_idle = False
        self._coming.append(_Pause(at_ns))

    def resume(self, at_ns: int) -> None:
        if self._coming and self._coming[-1].end_ns is None:
            self._coming[-1].end_ns = max(at_ns, self._coming[-1].start_ns)

    def covers(self, at_ns: int) -> bool:
        """Whether what was captured at this time is left out."""
        return any(pause.covers(at_ns) for pause in (*self._over, *self._coming))

    def passed(self, at_ns: int) -> int | None:
        """The end of the last pause that lies wholly before this time, when it is asked for the first time."""
        end_ns: int | None = None
        while self._coming and self._coming[0].end_ns is not None and self._coming[0].end_ns <= at_ns:
            pause = self._coming.popleft()
            self._over.append(pause)
            end_ns = pause.end_ns
        return end_ns


def join_after_pause(
    *,
    key_ns: int,
    last_video_ns: int,
    video_end_ns: int,
    audio_end_ns: int,
    audio_starts_ns: list[int],
) -> tuple[int, int]:
    """Where the first frame after a pause goes, so that the sound joins without a hole.

    The sound's frames are on a grid of their own; the frame may be some milliseconds longer or shorter instead, which
    nobody sees.

    Args:
        key_ns: capture time of the first frame (a key frame).
        last_video_ns, video_end_ns, audio_end_ns: on the recording's line, of what is written.
        audio_starts_ns: capture times of the sound frames that may be the first, latest first.

    Returns:
        (time of the frame on the line, index into `audio_starts_ns` of the first sound frame).
    """
    usable: int | None = None
    for index, start_ns in enumerate(audio_starts_ns):
        at_ns = audio_end_ns + key_ns - start_ns
        if at_ns >= video_end_ns - 10_000_000:
            return at_ns, index
        if at_ns >= last_video_ns + 2_000_000:
            usable = index
    if usable is not None:
        return audio_end_ns + key_ns - audio_starts_ns[usable], usable
    return max(video_end_ns, audio_end_ns), 0
