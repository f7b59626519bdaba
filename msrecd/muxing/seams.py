"""Where the chunks of an export go on its time line. Pure.

Consecutive chunks of a recording have no seam: the next one begins at the cut, which the packets of the chunk before
tell more exactly than any clock. Everything else is placed by the wall clock, so that gaps keep their length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MS = 1_000_000
NS = 1_000_000_000
JOINT_NS = NS // 2  # less than this between consecutive chunks of a recording is the clock's doing
_SAME_MOMENT_NS = 250 * MS
_ROUNDED_NS = 2 * MS  # Matroska counts milliseconds: sound that is off by less goes on with the next sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A chunk to join: where it is, what recording it is of, and its times by the (corrected) wall clock."""

    path: Path
    recording_id: str
    seq: int
    started_ns: int
    ended_ns: int
    duration_ns: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A piece in its turn; gap_ns: what is missing before it, None when it goes on where the one before was cut."""

    piece: Piece
    gap_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Where the tracks of a chunk begin and end on its own time line; None without such a track."""

    video_end_ns: int | None = None
    audio_begin_ns: int | None = None
    audio_end_ns: int | None = None


class SampleLine:
    """A row of sound: each packet begins at the sample behind the one before, unless more than rounding is between."""

    def __init__(self) -> None:
        self._anchor_ns: int | None = None
        self._samples = 0
        self._rate = 1

    @property
    def end_ns(self) -> int | None:
        """End of the last packet; None before the first."""
        return None if self._anchor_ns is None else self._anchor_ns + self._samples * NS // self._rate

    def place(self, at_ns: int, samples: int, rate: int) -> int:
        """The time of a packet of so many samples that its container puts at `at_ns`."""
        end_ns = self.end_ns
        if end_ns is None or abs(at_ns - end_ns) > _ROUNDED_NS:
            self._anchor_ns, self._samples, self._rate, end_ns = at_ns, 0, rate, at_ns
        self._samples += samples
        return end_ns


def plan_join(pieces: Sequence[Piece], from_ns: int | None = None) -> list[Step]:
    """The pieces in order, with what is missing between them.

    Args:
        from_ns: what is wanted begins here by the wall clock; a piece that ends where the next begins then is not.
    """
    steps: list[Step] = []
    before: Piece | None = None
    ordered = sorted(pieces, key=lambda piece: (piece.started_ns, piece.recording_id, piece.seq))
    while from_ns is not None and len(ordered) > 1 and ordered[1].started_ns - from_ns <= _ROUNDED_NS:
        del ordered[0]
    for piece in ordered:
        if before is None:
            gap_ns: int | None = 0
        else:
            gap_ns = piece.started_ns - before.ended_ns
            follows = piece.recording_id == before.recording_id and piece.seq == before.seq + 1
            gap_ns = None if follows and gap_ns < JOINT_NS else max(0, gap_ns)
        steps.append(Step(piece=piece, gap_ns=gap_ns))
        before = piece
    return steps


def length_ns(steps: Sequence[Step], begin_ns: int, to_ns: int | None = None) -> int:
    """How long the joined file becomes, by what is known of its pieces: right to a frame, or a packet of sound.

    Args:
        begin_ns: where in the first piece it begins.
        to_ns: by the wall clock: nothing of what comes then is in it.
    """
    zero_ns, end_ns, previous = -begin_ns, 0, None
    for step in steps:
        if previous is not None:
            zero_ns += previous.duration_ns + (step.gap_ns or 0)
            zero_ns = zero_ns if step.gap_ns is None else max(end_ns, zero_ns)
        wanted_ns = step.piece.duration_ns
        if to_ns is not None:
            wanted_ns = min(wanted_ns, to_ns - step.piece.started_ns)
        end_ns = max(end_ns, zero_ns + wanted_ns)
        previous = step.piece
    return end_ns


def seam_ns(before: Ends, piece: Piece, audio_begin_ns: int | None) -> int:
    """Where, on the time line of `piece`, the chunk that follows without a seam has its zero.

    The sound of consecutive chunks is one row of packets without holes, so it says it best; then the last frame's
    end, which is the cut; then the length that was written down.

    Args:
        before: the ends of `piece`.
        audio_begin_ns: of the chunk that follows; None without sound.
    """
    cut_ns = before.video_end_ns if before.video_end_ns is not None else piece.duration_ns
    if before.audio_end_ns is not None and audio_begin_ns is not None:
        by_sound_ns = before.audio_end_ns - audio_begin_ns
        if abs(by_sound_ns - cut_ns) <= _SAME_MOMENT_NS:
            return by_sound_ns
    return cut_ns
