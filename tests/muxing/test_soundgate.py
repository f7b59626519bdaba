"""Silence for what is not to be heard: whole packets of it, each in the place of one, and none where one was."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from msrecd.clock import MS
from msrecd.codecs.silence import Silence
from msrecd.flow.units import Packet
from msrecd.muxing.soundgate import SoundGate

FRAME = 20 * MS
SILENCE = Silence(FRAME, b"-")


def sound(number: int, *, frames: int = 1) -> Packet:
    at_ns = number * FRAME
    return Packet(pts_ns=at_ns, dts_ns=at_ns, duration_ns=frames * FRAME, is_keyframe=True, data=b"sound")


def gate(*, end_ns: int | None = None, since_ns: int = 0) -> SoundGate:
    return SoundGate(SILENCE, end_ns=end_ns, since_ns=since_ns)


def shown(packets: list[Packet]) -> str:
    """One letter for each packet, which join: s for sound, - for silence."""
    for before, after in pairwise(packets):
        assert after.pts_ns == before.pts_ns + before.duration_ns
    return "".join(bytes(packet.data).decode()[0] for packet in packets)


def test_what_is_not_wholly_in_the_open_is_silent() -> None:
    it = gate()
    it.move(False, 2 * FRAME + 1)  # just within the third packet
    it.move(True, 5 * FRAME - 1)
    assert shown([packet for number in range(8) for packet in it.through(sound(number))]) == "ss---sss"


def test_moves_that_come_before_the_packets_count_by_their_time() -> None:
    """An encoder is a quarter of a second behind: by then the gate may have moved more than once."""
    it = gate()
    for number in range(1, 8):
        it.move(number % 2 == 0, number * FRAME)
    assert it.is_closed
    assert shown([packet for number in range(9) for packet in it.through(sound(number))]) == "s-s-s-s--"


def test_a_source_that_gives_nothing_is_filled_up_on_its_own_grid() -> None:
    it = gate(end_ns=-5 * FRAME)
    it.move(False, 5 * FRAME + 7)
    assert it.fill(5 * FRAME + 8) == []  # less than a packet
    filled = [*it.fill(9 * FRAME), *it.fill(9 * FRAME), *it.fill(12 * FRAME + 3)]
    assert shown(filled) == "-" * 7
    assert (filled[0].pts_ns, filled[-1].pts_ns) == (5 * FRAME, 11 * FRAME)
    assert it.through(sound(11)) == ()  # comes after all, when silence stands there
    it.move(True, 14 * FRAME)
    assert shown(filled + [packet for number in (12, 13, 14) for packet in it.through(sound(number))]) == "-" * 9 + "s"


def test_what_the_device_had_under_way_when_it_was_muted_is_filled_up_too() -> None:
    it = gate(end_ns=3 * FRAME)
    it.move(False, 5 * FRAME + 7)
    assert [packet.pts_ns // FRAME for packet in it.fill(8 * FRAME)] == [3, 4, 5, 6, 7]


def test_what_is_missing_when_the_source_comes_back_is_filled_up_then() -> None:
    """Half a second has not been filled up yet, and behind a long hole no source makes good for it."""
    it = gate(end_ns=3 * FRAME)
    it.move(False, 3 * FRAME)
    filled = list(it.fill(6 * FRAME))
    it.move(True, 30 * FRAME)
    assert shown([*filled, *it.through(sound(30)), *it.through(sound(31))]) == "-" * 27 + "ss"


def test_nothing_is_filled_up_in_the_open() -> None:
    it = gate(end_ns=-4 * FRAME)
    assert it.fill(100 * FRAME) == []
    it.move(False, 2 * FRAME)
    it.move(True, 4 * FRAME)
    assert [packet.pts_ns // FRAME for packet in it.fill(100 * FRAME)] == [2, 3]
    assert it.fill(100 * FRAME) == []


def test_closed_from_the_beginning() -> None:
    it = gate(since_ns=7 * FRAME)
    it.move(False, 0)
    assert [packet.pts_ns // FRAME for packet in it.fill(9 * FRAME)] == [7, 8]


def test_longer_packets_become_as_many_silent_ones() -> None:
    it = gate()
    it.move(False, 0)
    assert shown([*it.through(sound(0, frames=3)), *it.through(sound(3, frames=3))]) == "------"


def test_pcm_is_as_long_as_what_it_replaces() -> None:
    it = SoundGate(Silence(FRAME, bytes(8), is_pcm=True), end_ns=None, since_ns=0)
    it.move(False, 0)
    (silent,) = it.through(sound(0))
    assert silent.data == bytes(len(b"sound"))
    assert [packet.data for packet in it.fill(3 * FRAME)] == [bytes(8)] * 2


def test_more_moves_than_it_remembers_are_rather_silent() -> None:
    it = gate()
    for number in range(1000):
        it.move(number % 2 == 1, number * FRAME)
    heard = shown([packet for number in range(1000) for packet in it.through(sound(number))])
    assert heard[::2] == "-" * 500  # what was closed stays closed
    assert heard.endswith("s-s-s")


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.promise("switch-is-exact")
def test_any_toggling_leaves_no_hole_and_lets_out_what_was_open(seed: int) -> None:
    """The source is late by up to 300 ms and pauses now and then; nobody hears what was closed, everybody the rest."""
    dice = random.Random(seed)
    it = gate()
    is_open, closed, given, out = True, [], 0, []
    stalled_until = 0
    for now in range(0, 6000 * MS, 5 * MS):
        if dice.random() < 0.02:
            is_open = not is_open
            it.move(is_open, now)
            closed = [*closed, [now, None]] if not is_open else [*closed[:-1], [closed[-1][0], now]]
        if not is_open and dice.random() < 0.003:
            while given * FRAME + FRAME <= now:  # what the encoder has comes all the same
                out += it.through(sound(given))
                given += 1
            stalled_until = now + dice.randrange(0, 2000) * MS
        if now >= stalled_until:
            late = dice.randrange(0, 300) * MS
            while given * FRAME + FRAME <= now - late:
                out += it.through(sound(given))
                given += 1
        out += it.fill(now - 500 * MS)
    for before, after in pairwise(out):
        # What was in the open while the source stood still is missing; all else joins.
        assert after.pts_ns >= before.pts_ns + before.duration_ns
        if after.pts_ns > before.pts_ns + before.duration_ns:
            assert bytes(after.data) == b"-"
    for packet in out:
        begin, end = packet.pts_ns, packet.pts_ns + FRAME
        if packet.data == b"sound":
            assert not any(a < end and (b is None or b > begin) for a, b in closed)
        else:  # closed, or given up just before that
            assert any(a - 100 * MS < end and (b is None or b > begin) for a, b in closed)
