"""Intake: the sound of a track on the line of a context's frames.

A sound card's second is not the monotonic clock's, its blocks jitter, and some are lost. Behind an intake none of that
is left: frame n of the context is the sound of one moment, whichever device it comes from.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from msrecd.clock import NS
from msrecd.codecs.soundline import Run, SoundLine
from msrecd.flow.encoded import EncodingFacts
from msrecd.flow.source import Gate
from msrecd.flow.units import AudioBlock, AudioFormat
from msrecd.libav.floats import FilteredPcm, FixedFilters, FloatResampler, float_array
from msrecd.webaudio.dsp import Samples

_LONGEST_WAIT_S = 10.0  # of sound that is not rendered yet; the oldest goes, and its block misses it
_PAST_S = 0.5  # of sound that is kept for filters that begin in the middle


class Intake:
    """A sink of a raw feed. `put` and `end` in the source's thread, everything else in the rendering thread."""

    def __init__(self, format: AudioFormat, gate: Gate, sample_rate: int) -> None:
        self.channels = format.channels
        self._format = format
        self._gate = gate
        self._rate = sample_rate
        self._lock = threading.Lock()
        self._arrived: deque[AudioBlock] = deque()
        self._arrived_samples = 0
        self._ended = False
        self._facts = EncodingFacts()
        self._line = SoundLine(format, self._facts)
        self._resampler: FloatResampler | None = None
        self._given = 0  # samples of the line that the resampler has
        self.fixed: FixedFilters | None = None  # what is done to the sound before it is taken
        self._filtered: FilteredPcm | None = None
        self._past: deque[Any] = deque()  # frames of the resampler: what is kept, and what came before it
        self.past_samples = 0
        self.is_whole = True  # whether that is all since the beginning
        self._kept: list[Samples] = []  # float32; 16 bits behind fixed filters
        self._first: int | None = None  # context frame of the first kept sample
        self._flushed = False
        self._holes: list[tuple[int, int]] = []  # context frames for which the device lost its sound
        self.missing: list[tuple[int, int]] = []  # of the block taken last: ranges of it without sound of the track

    @property
    def lost_samples(self) -> int:
        """Samples that the device lost and silence stands for."""
        return self._facts.gap_samples

    @property
    def is_live(self) -> bool:
        """Whether more is to be expected: a track that is muted, or has ended, gives nothing to wait for."""
        return not self._ended and self._gate.is_open

    def put(self, unit: AudioBlock) -> None:
        if not self._gate.is_open:
            unit = AudioBlock(
                pts_ns=unit.pts_ns,
                format=unit.format,
                samples=unit.samples,
                data=bytes(len(unit.data)),
                lost_before=unit.lost_before,
            )
        with self._lock:
            self._arrived.append(unit)
            self._arrived_samples += unit.samples
            while self._arrived_samples > _LONGEST_WAIT_S * self._format.sample_rate and len(self._arrived) > 1:
                gone = self._arrived.popleft()
                self._arrived_samples -= gone.samples

    def end(self, error: BaseException | None) -> None:
        del error  # the track tells it
        self._ended = True

    def available_until(self, origin_ns: int) -> int:
        """The first context frame that has not come yet; `origin_ns` is the time of frame 0."""
        self._condition(origin_ns)
        return 0 if self._first is None else self._first + self._waiting

    @property
    def _waiting(self) -> int:
        return sum(int(piece.shape[1]) for piece in self._kept)

    def filter_by(self, fixed: FixedFilters | None) -> Samples | None:
        """From here on give sound with 16 bits behind these filters, or (None) as it is.

        Returns:
            What came just before, for the caller's own filters to begin with; None when there is nothing.

        Raises:
            LibavError: this libav cannot do it; nothing has changed then.
        """
        filtered = None if fixed is None else FilteredPcm(fixed, self._rate)
        past: list[Samples] = []
        for frame in self._past:
            past += [float_array(frame)] if filtered is None else filtered.push(frame)
        self.fixed, self._filtered = fixed, filtered
        if not past:
            return None
        joined_past = np.concatenate(past, axis=1)
        begin = joined_past.shape[1] - self._waiting
        self._kept = [joined_past[:, begin:]] if self._kept else []
        return joined_past[:, :begin] if begin else None

    def take(self, first_frame: int, frames: int) -> Samples:
        """Sound of a block of the context (see `filter_by`); silence where there is none."""
        output: Samples = np.zeros((self.channels, frames), dtype=np.float32)
        if self._filtered is not None:
            output = np.zeros((frames, self._filtered.channels), dtype=np.int16).T
        there: list[tuple[int, int]] = []
        while self._kept and self._first is not None:
            piece = self._kept[0]
            at = self._first - first_frame
            if at >= frames:
                break
            skip = min(piece.shape[1], max(0, -at))
            at += skip
            length = min(piece.shape[1] - skip, frames - at)
            output[:, at : at + length] = piece[:, skip : skip + length]
            there.append((at, at + length))
            used = skip + length
            self._first += used
            if used == piece.shape[1]:
                self._kept.pop(0)
            else:
                self._kept[0] = piece[:, used:]
        self.missing = [] if self._ended else self._missing_in(first_frame, frames, there)
        return output

    def _missing_in(self, first_frame: int, frames: int, there: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """What of a block is silent because nothing came, or because the device lost it."""
        missing: list[tuple[int, int]] = []
        at = 0
        for begin, end in (*there, (frames, frames)):
            if begin > at:
                missing.append((at, begin))
            at = max(at, end)
        self._holes = [(begin, end) for begin, end in self._holes if end > first_frame]
        for begin, end in self._holes:
            low, high = max(0, begin - first_frame), min(frames, end - first_frame)
            if low < high:
                missing.append((low, high))
        return joined(missing)

    def _condition(self, origin_ns: int) -> None:
        with self._lock:
            arrived, self._arrived = self._arrived, deque()
            self._arrived_samples = 0
            ended = self._ended
        if arrived:
            self._push(self._line.add(list(arrived)), origin_ns)
        if ended and not self._flushed:
            self._flushed = True
            self._push(self._line.end(), origin_ns)
            if self._resampler is not None:
                self._keep(self._resampler.flush())

    def _push(self, runs: Sequence[Run], origin_ns: int) -> None:
        for run in runs:
            if self._resampler is None:
                self._resampler = FloatResampler(self._format, self._rate)
                self._first = round((self._line.origin_ns - origin_ns) * self._rate / NS)
            pcm = bytes(run.samples * self._format.frame_bytes) if run.data is None else run.data
            at_ns = self._line.time_of(self._given) - self._line.origin_ns
            if run.data is None:
                begin = round((self._line.time_of(self._given) - origin_ns) * self._rate / NS)
                self._holes.append((begin, begin + round(run.samples * self._rate / self._format.sample_rate)))
            self._keep(self._resampler.push(pcm, at_ns))
            self._given += run.samples

    def _keep(self, frames: list[Any]) -> None:
        for frame in frames:
            self._past.append(frame)
            self.past_samples += frame.samples
            pieces: list[Samples] = []
            pieces += [float_array(frame)] if self._filtered is None else self._filtered.push(frame)
            self._kept += [piece for piece in pieces if piece.shape[1]]
        most = self._waiting + round(_PAST_S * self._rate)
        while self._past and self.past_samples - self._past[0].samples > most:
            self.past_samples -= self._past.popleft().samples
            self.is_whole = False


def joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in order, those that touch as one."""
    found: list[tuple[int, int]] = []
    for begin, end in sorted(ranges):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


def in_both(first: Sequence[tuple[int, int]], second: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """What two rows of ranges share."""
    shared = [(max(a, c), min(b, d)) for a, b in first for c, d in second]
    return joined([(begin, end) for begin, end in shared if begin < end])
