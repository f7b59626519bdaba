"""SoundLine: blocks of PCM in, one line of samples out on which nothing lacks and nothing is twice. Pure.

What a source lost becomes silence of the same length, so that the sound after it stays where it belongs. A loss that
nobody announced shows in the time stamps, and so do stamps that are wrong: those of a starved thread, or of a card that
hangs. Therefore a block whose stamp does not fit waits until others say the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from msrecd.codecs.sampleclock import SampleClock
from msrecd.flow.encoded import EncodingFacts, Loss
from msrecd.flow.median import median
from msrecd.flow.units import AudioBlock, AudioFormat

NS = 1_000_000_000
JUMP_NS = 40_000_000  # a deviation that no jitter explains
BELIEVED_BLOCKS = 4  # ... when so many blocks in a row have it
_BELIEVED_NS = 80_000_000  # ... over at least this long
MAX_SILENCE_S = 60  # a longer hole is left open: the time stamps jump


@dataclass(frozen=True, slots=True)
class Run:
    """Sound that joins what came before: PCM, or silence (data None)."""

    samples: int
    data: bytes | None


class SoundLine:
    """Gives runs in order; `samples` counts what was given, `time_of` says when a sample was captured."""

    def __init__(self, format: AudioFormat, facts: EncodingFacts) -> None:
        """
        Args:
            facts: where losses and drift are told.
        """
        self._format = format
        self._facts = facts
        self._clock = SampleClock(format.sample_rate)
        self._held: list[AudioBlock] = []
        self._held_deviations: list[int] = []
        self._held_samples = 0
        self._excess = 0  # samples that are to be cut out of what comes next
        self._open_ns = 0  # length of all holes that were left open
        self._holes: deque[tuple[int, int]] = deque(maxlen=4)  # (first sample after it, open_ns from there on)
        self.samples = 0

    @property
    def origin_ns(self) -> int:
        """Capture time of sample 0."""
        return self._clock.origin_ns

    @property
    def deviation_ns(self) -> float:
        """How much later than `time_of` says the blocks' stamps lie, averaged over a second."""
        return self._clock.deviation_ns

    def closed_time_of(self, sample: int) -> int:
        """Time of a sample on a line from which the holes that were left open are cut out."""
        return self._clock.time_of(sample)

    def time_of(self, sample: int) -> int:
        """Capture time of a sample in ns of CLOCK_MONOTONIC."""
        return self._clock.time_of(sample) + self.open_before(sample)

    def open_before(self, sample: int) -> int:
        """Length of the holes left open before a sample, in ns."""
        for first, open_ns in reversed(self._holes):
            if sample >= first:
                return open_ns
        return 0

    def add(self, blocks: Sequence[AudioBlock]) -> list[Run]:
        """What can be given now that these blocks have come."""
        runs: list[Run] = []
        parts: list[bytes] = []
        deviations: list[int] = []
        for arrived in blocks:
            block = arrived
            if self._excess:
                rest = self._without_excess(block)
                if rest is None:
                    continue
                block = rest
            if block.lost_before and self._clock.started:
                self._release(parts)
                self._lose(block.lost_before, runs, parts)
            position = self.samples + self._held_samples
            if not self._clock.started:
                self._clock.observe(position, block.pts_ns)
            deviation = block.pts_ns - self._open_ns - self._clock.time_of(position)
            if -JUMP_NS < deviation < JUMP_NS:
                self._release(parts)
                self._append(block, parts)
                deviations.append(deviation)
                continue
            self._held.append(block)
            self._held_samples += block.samples
            self._held_deviations.append(deviation)
            if (
                len(self._held) >= BELIEVED_BLOCKS
                and self._held_samples * NS >= _BELIEVED_NS * self._format.sample_rate
            ):
                self._believe(runs, parts)
        if deviations:
            self._clock.correct(self.samples, median(deviations))
            self._facts.drift_ppm = self._clock.drift_ppm
        self._flush(runs, parts)
        return runs

    def end(self) -> list[Run]:
        """What is still held; no block follows."""
        runs: list[Run] = []
        parts: list[bytes] = []
        self._believe(runs, parts)
        self._flush(runs, parts)
        return runs

    def _append(self, block: AudioBlock, parts: list[bytes]) -> None:
        parts.append(block.data)
        self.samples += block.samples

    def _release(self, parts: list[bytes]) -> None:
        """What is held joins: its stamps were wrong."""
        for block in self._held:
            self._append(block, parts)
        self._forget_held()

    def _forget_held(self) -> None:
        self._held.clear()
        self._held_deviations.clear()
        self._held_samples = 0

    def _believe(self, runs: list[Run], parts: list[bytes]) -> None:
        """All that is held says the same: something lacks before it, or there is more sound than time."""
        if not self._held:
            return
        shift_ns = min(self._held_deviations, key=abs)
        agree = all((deviation > 0) == (shift_ns > 0) for deviation in self._held_deviations)
        samples = round(shift_ns * self._format.sample_rate / NS) if agree else 0
        if samples > 0:
            self._lose(samples, runs, parts)
        elif samples < 0:
            self._facts.dropped += 1
        self._excess = max(0, -samples)
        for block in self._held:
            rest = self._without_excess(block)
            if rest is not None:
                self._append(rest, parts)
        self._forget_held()

    def _without_excess(self, block: AudioBlock) -> AudioBlock | None:
        """What is wanted of a block while there is more sound than time."""
        skip = min(self._excess, block.samples)
        self._excess -= skip
        if skip == block.samples:
            return None
        return replace(
            block,
            pts_ns=block.pts_ns + skip * NS // self._format.sample_rate,
            samples=block.samples - skip,
            data=block.data[skip * self._format.frame_bytes :],
        )

    def _lose(self, samples: int, runs: list[Run], parts: list[bytes]) -> None:
        """So much is missing here."""
        lost_ns = samples * NS // self._format.sample_rate
        self._facts.gap_samples += samples
        self._facts.losses.add(Loss(self.time_of(self.samples), duration_ns=lost_ns))
        if samples > MAX_SILENCE_S * self._format.sample_rate:
            self._open_ns += lost_ns
            self._holes.append((self.samples, self._open_ns))
            return
        self._flush(runs, parts)
        runs.append(Run(samples, None))
        self.samples += samples

    def _flush(self, runs: list[Run], parts: list[bytes]) -> None:
        if parts:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            runs.append(Run(len(data) // self._format.frame_bytes, data))
            parts.clear()
