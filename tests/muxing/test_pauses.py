"""Pauses, the joint after a pause, pre-roll and shedding: the pure decisions."""

from __future__ import annotations

import pytest

from msrecd.flow.units import Packet
from msrecd.muxing.pauses import Pauses, join_after_pause
from msrecd.muxing.preroll import PreRoll
from msrecd.muxing.shedding import Shedding

MS = 1_000_000


def packet(at_ms: float, *, key: bool = False, size: int = 10) -> Packet:
    at = round(at_ms * MS)
    return Packet(pts_ns=at, dts_ns=at, duration_ns=20 * MS, is_keyframe=key, data=bytes(size))


def test_several_pauses_wait_for_their_packets() -> None:
    pauses = Pauses()
    for start, end in ((10, 20), (30, 40)):
        pauses.pause(start)
        pauses.resume(end)
    pauses.pause(50)
    assert [at for at in range(0, 60, 5) if pauses.covers(at)] == [10, 15, 30, 35, 50, 55]
    assert pauses.passed(9) is None
    assert pauses.passed(25) == 20
    assert pauses.passed(26) is None
    assert pauses.covers(15)  # a packet that comes late is still left out
    assert pauses.passed(45) == 40
    assert pauses.passed(60) is None


def test_resume_without_pause_is_nothing() -> None:
    pauses = Pauses()
    pauses.resume(5)
    assert not pauses.covers(10)


@pytest.mark.parametrize("audio_end_ms", range(990, 1030, 3))
@pytest.mark.parametrize("key_after_grid_ms", range(0, 21, 4))
def test_the_picture_moves_so_that_the_sound_joins(audio_end_ms: int, key_after_grid_ms: int) -> None:
    key = 5_000 * MS
    following = key + (20 - key_after_grid_ms) * MS  # first sound frame after the key frame
    starts = [following, following - 20 * MS, following - 40 * MS]
    at, first = join_after_pause(
        key_ns=key,
        last_video_ns=980 * MS,
        video_end_ns=1_013 * MS,
        audio_end_ns=audio_end_ms * MS,
        audio_starts_ns=starts,
    )
    assert starts[first] - key + at == audio_end_ms * MS  # the sound begins where it ended
    assert 982 * MS <= at <= 1_060 * MS


def test_pre_roll_begins_at_the_last_key_frame_before_its_reach() -> None:
    kept = PreRoll(duration_ns=1_000 * MS, max_bytes=1 << 20, video=0)
    for at in range(0, 5_000, 20):
        kept.push(1, packet(at))
        kept.push(0, packet(at + 1, key=at % 400 == 0))
    packets = kept.take()
    index, first = packets[0]
    assert index == 0
    assert first.is_keyframe
    assert first.dts_ns <= (4_981 - 1_000) * MS < first.dts_ns + 400 * MS
    assert kept.take() == []


def test_pre_roll_without_video_and_before_the_first_key_frame() -> None:
    kept = PreRoll(duration_ns=100 * MS, max_bytes=1 << 20, video=None)
    for at in range(0, 1_000, 20):
        kept.push(0, packet(at, key=True))
    assert 5 <= len(kept.take()) <= 6
    kept = PreRoll(duration_ns=100 * MS, max_bytes=1 << 20, video=0)
    kept.push(0, packet(0))
    kept.push(1, packet(1, key=True))
    assert kept.take() == []


def test_pre_roll_is_bounded_in_bytes() -> None:
    kept = PreRoll(duration_ns=10_000 * MS, max_bytes=5_000, video=0)
    for at in range(0, 5_000, 20):
        kept.push(0, packet(at, key=at % 200 == 0, size=100))
        assert kept.size_bytes <= 5_000
    packets = kept.take()
    assert packets[0][1].is_keyframe
    assert sum(len(unit.data) for _, unit in packets) > 3_000


def test_shedding_drops_to_the_end_of_a_group_and_comes_back_at_a_key_frame() -> None:
    shedding = Shedding(1_000)
    assert shedding.decide(1_000, 1, is_cut_point=False) == (False, None)
    assert shedding.decide(1_001, 2, is_cut_point=False) == (True, None)
    assert shedding.decide(900, 3, is_cut_point=True) == (True, None)
    assert shedding.decide(400, 4, is_cut_point=False) == (True, None)
    assert shedding.decide(400, 5, is_cut_point=True) == (False, 2)
    assert shedding.decide(400, 6, is_cut_point=False) == (False, None)
