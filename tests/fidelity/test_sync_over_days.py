"""Sound and picture stay together for days, whatever the sound card's clock does: measured from the files alone.

A flash against a beep, by a judge that knows nothing of the recorder and places the sound by counting samples, as the
simplest player does. Some minutes of the worst clock in the ordinary run; `MSRECD_DAY_S=86400` for all of them
over a day (`make fidelity`).
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest
from recording import judged
from simulated_recording import Camera, Microphone, SimulatedRecording, steady, warming

DAY_S = float(os.environ.get("MSRECD_DAY_S", "0"))
IS_SHORT = not DAY_S
DAY_S = DAY_S or 400.0
CHUNK_S = 200.0 if IS_SHORT else 600.0
LIMIT_MS = 10.0
CLOCKS = {
    "200 ppm, warming": warming(200.0),
    "-200 ppm": steady(-200.0),
    "-50 ppm": steady(-50.0),
    "0 ppm": steady(0.0),
    "50 ppm": steady(50.0),
    "200 ppm": steady(200.0),
}
if IS_SHORT:
    CLOCKS = dict([*CLOCKS.items()][:1])


def looked_at(chunk: int, last: int) -> bool:
    """The first chunks, the last one, and one in two hours between."""
    return chunk in (1, 2, last) or chunk % 12 == 0


@pytest.mark.slow
@pytest.mark.timeout(300 + DAY_S / 20)
@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS.keys())
@pytest.mark.promise("in-sync-for-days")
def test_in_sync_at_the_end_as_at_the_beginning(clock: Callable[[float], float]) -> None:
    microphone = Microphone(sample_rate=8_000, ppm=clock)
    recording = SimulatedRecording(microphone, Camera(), chunk_s=CHUNK_S)
    last = int(DAY_S / CHUNK_S)
    worst: list[float] = []
    for info, data in recording.run(DAY_S):
        if not looked_at(info.chunk, last):
            continue
        found = judged(data)
        assert found.audio_gaps == []
        assert len(found.av_offsets_ms) >= min(CHUNK_S, info.duration_s) - 3
        worst.append(max(found.av_offsets_ms, key=abs))
        sound = info.tracks[1]
        assert (sound.xruns, sound.gap_s) == (0, 0.0)
        assert abs(sound.offset_ms) < 2.0
        expected = clock(info.chunk * CHUNK_S)
        if info.chunk > 1:
            assert sound.drift_ppm == pytest.approx(expected, abs=4.0)
    print(
        f"{len(worst)} chunks judged: first {worst[0]:+.2f} ms, largest {max(worst, key=abs):+.2f}, "
        f"last {worst[-1]:+.2f}"
    )
    assert max(map(abs, worst)) <= LIMIT_MS


@pytest.mark.slow
@pytest.mark.timeout(300 + DAY_S / 20)
def test_in_sync_after_overruns_and_pauses() -> None:
    rng = random.Random(2)
    overruns, pauses, at = [], [], 20.0
    while at < DAY_S - 30:
        if rng.random() < 0.5:
            overruns.append((at, rng.uniform(0.05, 3.0), rng.random() < 0.7))
        else:
            pauses.append((at, at + rng.uniform(0.2, 20.0)))
            at = pauses[-1][1]
        at += rng.uniform(15, 120)
    microphone = Microphone(sample_rate=8_000, ppm=warming(150.0), overruns=overruns)
    recording = SimulatedRecording(microphone, Camera(frame_rate=10.0), chunk_s=CHUNK_S, pauses=pauses)
    offsets: list[float] = []
    lost = 0.0
    last = int((DAY_S - sum(end - begin for begin, end in pauses)) / CHUNK_S)
    for info, data in recording.run(DAY_S):
        lost += info.tracks[1].gap_s
        if looked_at(info.chunk, last):
            found = judged(data)
            assert found.audio_gaps == []
            offsets += found.av_offsets_ms
    worst = max(offsets, key=abs)
    print(f"{len(overruns)} overruns, {len(pauses)} pauses: {len(offsets)} offsets, the largest {worst:+.2f} ms")
    assert len(offsets) > 60
    assert abs(worst) <= LIMIT_MS
    assert lost == pytest.approx(sum(length for _, length, _ in overruns), rel=0.05, abs=0.3)
