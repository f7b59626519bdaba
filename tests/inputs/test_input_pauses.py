"""Pauses of a file, whose thread comes to them late: it wakes once for a batch, and may starve on a busy machine."""

from __future__ import annotations

import array
import threading
import wave
from pathlib import Path

import pytest
from simulated_clock import SimulatedClock

from msrecd.clock import MS, NS
from msrecd.flow.units import Packet
from msrecd.media.playback import Playback

RATE = 48_000
BETWEEN_NS = 430 * MS  # from one pause to the next
BEHIND_NS = 350 * MS  # a batch and a packet
DEADLINE_S = 60.0
START_NS = 1_000 * NS


class Taken:
    """A sink that can be asked for what lies behind a time."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self._came = threading.Condition()

    def put(self, unit: Packet) -> None:
        with self._came:
            self.packets.append(unit)
            self._came.notify_all()

    def end(self, error: BaseException | None) -> None:
        del error

    def until(self, time_ns: int) -> list[Packet]:
        with self._came:
            came = self._came.wait_for(lambda: self.packets and self.packets[-1].dts_ns >= time_ns, DEADLINE_S)
            assert came, "nothing comes"
            return list(self.packets)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A second of sound whose samples count upwards."""
    path = tmp_path / "counting.wav"
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, RATE, 0, "NONE", ""))
        out.writeframes(array.array("H", range(RATE)).tobytes())
    return path


@pytest.mark.parametrize("length_ms", [60, 100, 400, 3000])
def test_nothing_lies_within_a_pause_and_nothing_is_lost(file: Path, length_ms: int) -> None:
    """Whether the thread wakes within the pause or only behind it, and also where the file begins again."""
    clock = SimulatedClock(start_ns=START_NS, limit_ns=START_NS)
    playback, taken = Playback(str(file), loop=True, clock=clock), Taken()
    playback.sources[0].passing.feed.add(taken)
    pauses: list[tuple[int, int]] = []
    try:
        playback.play()
        taken.until(START_NS)
        for _ in range(8):
            clock.advance_to(clock.monotonic_ns() + BETWEEN_NS, DEADLINE_S)
            taken.until(clock.monotonic_ns() - BEHIND_NS)
            playback.pause()
            paused_ns = clock.monotonic_ns()
            clock.advance_to(paused_ns + length_ms * MS, DEADLINE_S)
            pauses.append((paused_ns, clock.monotonic_ns()))
            playback.play()
        clock.advance_to(clock.monotonic_ns() + NS, DEADLINE_S)
        packets = taken.until(pauses[-1][1])
    finally:
        playback.close()
    times = [packet.dts_ns for packet in packets]
    for paused_ns, resumed_ns in pauses:
        assert not [time_ns for time_ns in times if paused_ns < time_ns < resumed_ns], "something lies in the pause"
        after_ns = min(time_ns for time_ns in times if time_ns >= resumed_ns) - resumed_ns
        assert after_ns <= BETWEEN_NS + BEHIND_NS, "it goes on late"  # the time jumps while the thread reads anew
    samples = array.array("H", b"".join(bytes(packet.data) for packet in packets))
    assert samples == array.array("H", [number % RATE for number in range(len(samples))])


def test_closed_while_it_is_paused(file: Path) -> None:
    playback = Playback(str(file), loop=True)
    ended = threading.Event()
    playback.on_end = lambda _: ended.set()
    playback.play()
    playback.pause()
    playback.close()
    assert ended.wait(DEADLINE_S)
