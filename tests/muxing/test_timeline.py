"""The recording's own time line."""

from __future__ import annotations

import itertools

from msrecd.muxing.pauses import join_after_pause
from msrecd.muxing.timeline import Timeline

MS = 1_000_000


def test_paused_time_is_absent() -> None:
    line = Timeline(1)
    line.start(1000 * MS)
    line.written(0, line.place(1040 * MS), line.place(1080 * MS))
    line.resume(5000 * MS, line.end_ns)
    assert line.place(5000 * MS) == 80 * MS
    assert line.capture_of(80 * MS) == 5000 * MS


def test_a_packet_may_overlap_by_half_but_not_more() -> None:
    line = Timeline(2)
    line.start(0)
    line.written(0, 0, 20 * MS)
    assert line.accepts(0, 20 * MS, 20 * MS)
    assert line.accepts(0, 10 * MS, 20 * MS)
    assert not line.accepts(0, 9 * MS, 20 * MS)
    assert not line.accepts(0, 0, 20 * MS)
    assert line.accepts(1, 0, 20 * MS)


def test_the_first_picture_after_a_pause_is_never_refused() -> None:
    """Wherever the sound lets it join: up to 2 ms behind the beginning of the picture before."""
    frame, sound = 33_333_333, 21_333_333
    joined_early = 0
    for offset, kept in itertools.product(range(0, 2 * sound, 100_000), (1, 2, 3)):
        line = Timeline(2)
        line.start(0)
        line.written(0, 9 * frame, 10 * frame)
        audio_end_ns = 9 * frame + offset  # the sound's grid against the pictures'
        line.written(1, audio_end_ns - sound, audio_end_ns)
        key_ns = 5_000_000_000
        at_ns, _ = join_after_pause(
            key_ns=key_ns,
            last_video_ns=line.track_last_ns(0),
            video_end_ns=line.track_end_ns(0),
            audio_end_ns=audio_end_ns,
            audio_starts_ns=[key_ns + 5_000_000 - number * sound for number in range(kept)],
        )
        joined_early += at_ns < 10 * frame - frame // 2
        line.resume(key_ns, at_ns)
        assert line.accepts(0, line.place(key_ns), frame), (offset, kept)
    assert joined_early, "nothing is tried that could be refused"
