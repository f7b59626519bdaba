"""Where chunks go on the time line of an export."""

from __future__ import annotations

from pathlib import Path

import pytest

from msrecd.muxing.seams import MS, NS, Ends, Piece, SampleLine, plan_join, seam_ns


def piece(seq: int, started_s: float, ended_s: float, recording: str = "a") -> Piece:
    return Piece(
        path=Path(f"{recording}-{seq}"),
        recording_id=recording,
        seq=seq,
        started_ns=round(started_s * NS),
        ended_ns=round(ended_s * NS),
        duration_ns=round((ended_s - started_s) * NS),
        bytes=1,
    )


def gaps(*pieces: Piece) -> list[int | None]:
    return [step.gap_ns for step in plan_join(pieces)]


def test_consecutive_chunks_of_a_recording_have_no_seam() -> None:
    assert gaps(piece(1, 0, 10.02), piece(2, 10.0, 20), piece(3, 20.001, 30)) == [0, None, None]


def test_pieces_are_put_in_order() -> None:
    steps = plan_join([piece(2, 10, 20), piece(1, 0, 10), piece(1, 25, 30, "b")])
    assert [(step.piece.recording_id, step.piece.seq) for step in steps] == [("a", 1), ("a", 2), ("b", 1)]


def test_what_is_missing_stays_missing() -> None:
    assert gaps(piece(1, 0, 10), piece(3, 20, 30)) == [0, 10 * NS]  # the second was deleted
    assert gaps(piece(1, 0, 10), piece(2, 17.5, 30)) == [0, round(7.5 * NS)]  # the disk was full
    assert gaps(piece(1, 0, 10), piece(1, 10.25, 30, "b")) == [0, NS // 4]  # another recording, however near


def test_recordings_that_overlap_by_the_clock_follow_each_other() -> None:
    assert gaps(piece(1, 0, 10), piece(1, 9, 20, "b")) == [0, 0]


def test_sound_says_most_exactly_where_a_chunk_goes_on() -> None:
    before = Ends(video_end_ns=2_000 * MS, audio_begin_ns=0, audio_end_ns=2_010_666_666)
    assert seam_ns(before, piece(1, 0, 2), audio_begin_ns=10_666_700) == 1_999_999_966


@pytest.mark.parametrize("audio_begin_ns", [None, 900 * MS])
def test_without_continuous_sound_the_cut_says_it(audio_begin_ns: int | None) -> None:
    before = Ends(video_end_ns=2_000 * MS, audio_begin_ns=0, audio_end_ns=1_000 * MS)
    assert seam_ns(before, piece(1, 0, 2.5), audio_begin_ns=audio_begin_ns) == 2_000 * MS


def test_without_a_known_end_of_the_picture_the_manifest_says_it() -> None:
    assert seam_ns(Ends(), piece(1, 0, 2.5), audio_begin_ns=None) == 2_500 * MS


def test_rounded_times_make_no_holes_in_a_day_of_sound() -> None:
    line = SampleLine()
    rate, samples = 48_000, 1024
    end = 0
    for number in range(24 * 3600 * rate // samples // 10):
        exact = number * samples * NS / rate
        placed = line.place(round(exact / MS) * MS, samples, rate)  # whole milliseconds, as in Matroska
        assert placed == end
        assert abs(placed - exact) < 2
        end = line.end_ns or 0


def test_a_hole_in_the_sound_stays() -> None:
    line = SampleLine()
    line.place(0, 480, 48_000)
    assert line.place(15 * MS, 480, 48_000) == 15 * MS
    assert line.end_ns == 25 * MS


def test_a_range_that_begins_with_a_chunk_has_nothing_of_the_one_before() -> None:
    pieces = [piece(1, 0, 10.02), piece(2, 10.0004, 20)]
    assert [step.piece.seq for step in plan_join(pieces, 10 * NS)] == [2]
    assert [step.piece.seq for step in plan_join(pieces, 10 * NS - 5 * MS)] == [1, 2]
    assert [step.piece.seq for step in plan_join(pieces[:1], 10 * NS)] == [1]
