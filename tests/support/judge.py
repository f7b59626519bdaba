"""Judge of recorded files: reads what virtual devices put into pictures and sound. Knows only PyAV and numpy."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

CELLS = 32
BEEP_HZ = 1000.0
_BURST_S = 0.1
_PIECE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What is in one file; times in seconds of the file's own time line.

    numbers: of every picture, from its cells; samples: (samples, channels) floats of ±1; start: of the first sample;
    audio_gaps: (time, seconds) where the time stamps leave (+) or overlap (-) more than a millisecond.
    """

    path: Path
    numbers: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    flashes: list[bool] = field(default_factory=list)
    samples: Any = None
    sample_rate: int = 0
    audio_start: float = 0.0
    audio_gaps: list[tuple[float, float]] = field(default_factory=list)

    @cached_property
    def flash_times(self) -> list[float]:
        """Times of the first picture of every flash whose begin is in the file."""
        steps = zip(self.times[1:], self.flashes[1:], self.flashes, strict=False)
        return [time for time, now, before in steps if now and not before]

    @cached_property
    def beep_times(self) -> list[float]:
        """Begin of every beep that has silence before it in the file."""
        if self.samples is None or not len(self.samples):
            return []
        return [self.audio_start + onset for onset in onsets(self.samples[:, 0], self.sample_rate)]

    @cached_property
    def av_offsets_ms(self) -> list[float]:
        """For every flash with a beep within 300 ms: how much later (+) the beep is.

        Both must be each other's nearest: where a pause cut off the begin of a beep, the one before the pause is near,
        and belongs to the flash before the pause.
        """
        beeps, flashes = np.array(self.beep_times), np.array(self.flash_times)
        if not len(beeps) or not len(flashes):
            return []
        found = []
        for number, flash in enumerate(flashes):
            beep = beeps[np.argmin(np.abs(beeps - flash))]
            if abs(beep - flash) < 0.3 and np.argmin(np.abs(flashes - beep)) == number:
                found.append(1000 * float(beep - flash))
        return found

    @cached_property
    def av_offset_ms(self) -> float:
        """The median of `av_offsets_ms`; raises ValueError if there is no pair."""
        if not self.av_offsets_ms:
            raise ValueError(f"{self.path}: no flash with a beep near it")
        return float(np.median(self.av_offsets_ms))


def read_chunk(path: str | Path) -> Judged:
    """Decode a whole file."""
    numbers: list[int] = []
    times: list[float] = []
    flashes: list[bool] = []
    blocks: list[Any] = []
    gaps: list[tuple[float, float]] = []
    rate, start, end = 0, 0.0, 0.0
    with av.open(str(path)) as container:
        streams = [s for kind in (container.streams.video, container.streams.audio) for s in kind[:1]]
        for unit in container.decode(streams):
            if isinstance(unit, av.VideoFrame):
                luma = _luma(unit)
                numbers.append(number_of(luma))
                flashes.append(float(np.median(luma[luma.shape[0] * 5 // 8 :])) > 140)
                times.append(float(unit.pts * unit.time_base))
            else:
                assert isinstance(unit, av.AudioFrame)
                time = float(unit.pts * unit.time_base)
                if not blocks:
                    rate, start, end = unit.sample_rate, time, time
                if abs(time - end) > 0.001:
                    gaps.append((end, time - end))
                blocks.append(_floats(unit))
                end = time + unit.samples / unit.sample_rate
    order = np.argsort(times, kind="stable")
    return Judged(
        path=Path(path),
        numbers=[numbers[i] for i in order],
        times=[times[i] for i in order],
        flashes=[flashes[i] for i in order],
        samples=np.concatenate(blocks) if blocks else None,
        sample_rate=rate,
        audio_start=start,
        audio_gaps=gaps,
    )


def numbers_of(paths: Iterable[Path]) -> list[int]:
    """The numbers of all pictures of these files, file by file."""
    return [number for path in paths for number in read_chunk(path).numbers]


def number_of(luma: Any) -> int:
    """The number in the cells along the top edge of a picture (2-D array of luma)."""
    height, width = luma.shape
    cell_width, cell_height = width // CELLS, height // 16
    rows = luma[cell_height // 4 : max(cell_height * 3 // 4, cell_height // 4 + 1), : CELLS * cell_width]
    means = rows.astype(float).mean(axis=0).reshape(CELLS, cell_width)
    inner = means[:, cell_width // 4 : max(cell_width * 3 // 4, cell_width // 4 + 1)].mean(axis=1)
    return int("".join("1" if value > 125 else "0" for value in inner), 2)


def assert_consecutive(numbers: list[int]) -> None:
    """Every number is its predecessor's successor; otherwise says where not."""
    bad = [(before, after) for before, after in pairwise(numbers) if after != before + 1]
    assert not bad, f"{len(bad)} breaks in {len(numbers)} frame numbers, the first (before, after): {bad[:5]}"


def onsets(mono: Any, rate: int) -> list[float]:
    """Begins of 1 kHz bursts, in seconds from the first sample.

    The envelope is that of the 1 kHz part over a window of whole periods: symmetric, so it passes half of the
    burst's height exactly at the edge, and a codec's noise hardly moves it. Long sound is taken in pieces that overlap:
    twenty minutes at once would take 3 GB.
    """
    piece, shared = round(_PIECE_S * rate), round(2 * _BURST_S * rate)
    if len(mono) > 2 * piece:
        found = []
        for begin in range(0, len(mono), piece):
            part = onsets(mono[max(0, begin - shared) : begin + piece], rate)
            times = [max(0, begin - shared) / rate + one for one in part]
            found += [one for one in times if not found or one > found[-1] + _BURST_S]
        return found
    window = max(1, round(2 * rate / BEEP_HZ))
    phase = np.exp(-2j * np.pi * BEEP_HZ / rate * np.arange(len(mono)))
    summed = np.concatenate(([0], np.cumsum(mono * phase)))
    if len(summed) <= window:
        return []
    envelope = 2 * np.abs(summed[window:] - summed[:-window]) / window
    height = 0.5 * float(np.percentile(envelope, 99.5))
    if height < 0.05:
        return []
    is_loud = envelope > height
    found = []
    for edge in np.flatnonzero(is_loud[1:] & ~is_loud[:-1]):
        after = envelope[edge + 1 + window : edge + 1 + round(rate * _BURST_S * 0.9)]  # nothing of it was lost
        before = envelope[max(0, edge - 3 * window) : max(0, edge - window)]
        if not len(after) or not len(before) or after.min() < height or before.max() > height:
            continue
        exact = edge + (height - envelope[edge]) / (envelope[edge + 1] - envelope[edge])
        found.append(float((exact + window / 2) / rate))
    return found


def phase_steps(samples: Any, rate: int, freq: float) -> tuple[Any, Any]:
    """(sample numbers a millisecond apart, radians by which a tone's phase differs between what is before and after).

    Before and after are whole periods of some 25 ms. One sample that lacks or is twice makes 2 π freq / rate.
    """
    mono = np.asarray(samples, dtype=float)
    mono = mono[:, 0] if mono.ndim == 2 else mono
    window, hop = round(max(1, round(0.025 * freq)) * rate / freq), max(1, rate // 1000)
    turned = mono * np.exp(-2j * np.pi * freq / rate * np.arange(len(mono)))
    summed = np.concatenate(([0], np.cumsum(turned)))
    middles = np.arange(window, len(mono) - window, hop)
    before = summed[middles] - summed[middles - window]
    after = summed[middles + window] - summed[middles]
    return middles, np.angle(after * np.conj(before))


def phase_jumps(samples: Any, rate: int, freq: float, threshold: float = 0.2) -> list[tuple[float, float]]:
    """Where the phase of a tone jumps: (seconds from the first sample, radians), largest first.

    Compares the phase over 25 ms before and after every millisecond with a steady tone's; a slow drift is no jump.
    """
    middles, jumps = phase_steps(samples, rate, freq)
    found: list[tuple[float, float]] = []
    for index in np.argsort(-np.abs(jumps)):
        if abs(jumps[index]) < threshold:
            break
        time = float(middles[index] / rate)
        if all(abs(time - known) > 0.06 for known, _ in found):
            found.append((time, float(jumps[index])))
    return found


def _luma(frame: Any) -> Any:
    return frame.reformat(format="gray").to_ndarray() if frame.format.name != "yuv420p" else _plane(frame.planes[0])


def _plane(plane: Any) -> Any:
    rows = np.frombuffer(plane, dtype=np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]


def _floats(frame: Any) -> Any:
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, len(frame.layout.channels)).T
    if array.dtype.kind == "i":
        array = array / float(-np.iinfo(array.dtype).min)
    return np.asarray(array.T, dtype=np.float32)


def main(paths: list[str]) -> int:
    print(f"{'file':40} {'frames':>7} {'numbers':>15} {'breaks':>6} {'sound s':>8} {'gaps':>4} {'A/V ms':>8}")
    for path in paths:
        found = read_chunk(path)
        span = f"{found.numbers[0]}..{found.numbers[-1]}" if found.numbers else "-"
        breaks = sum(b != a + 1 for a, b in pairwise(found.numbers))
        sound = len(found.samples) / found.sample_rate if found.sample_rate else 0.0
        offset = f"{found.av_offset_ms:8.2f}" if found.av_offsets_ms else "       -"
        name = found.path.name
        print(f"{name:40} {len(found.numbers):7} {span:>15} {breaks:6} {sound:8.3f} {len(found.audio_gaps):4} {offset}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
