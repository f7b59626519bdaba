"""One ledger of losses: each counted once, in the chunk where it lies, whoever has noticed it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from msrecd.clock import MS, NS
from msrecd.flow.encoded import EncodingFacts, Loss
from msrecd.muxing.facts import Fact, GapSeen
from msrecd.muxing.holes import Holes
from msrecd.muxing.losses import ChunkLosses, LossLedger
from msrecd.muxing.timeline import Timeline

START = 100 * NS  # capture time of the recording's first packet
VIDEO, AUDIO = 0, 1


class Track:
    """What the ledger looks at of a track."""

    def __init__(self, kind: str, *, has_encoder: bool = True) -> None:
        self.kind = kind
        self.source = SimpleNamespace(stats=SimpleNamespace(dropped=0))
        self.output = SimpleNamespace(facts=EncodingFacts(), has_encoder=has_encoder)
        self.refused: list[int] = []

    def take_refused(self) -> list[int]:
        taken, self.refused = self.refused, []
        return taken


class Ledger(LossLedger):
    def __init__(self, *, has_encoder: bool = True, tracks: list[Track] | None = None) -> None:
        self.tracks = tracks or [Track("video", has_encoder=has_encoder), Track("audio")]
        self.line = Timeline(2)
        self.facts: list[Fact] = []
        super().__init__(cast(Any, self.tracks), self.line, self.facts.append)
        if tracks is None:
            self.line.start(START)

    @property
    def published(self) -> list[tuple[float, float, str]]:
        """(seconds of capture from the start, length, reason) of what was published."""
        return [
            (round((fact.at_ns - START) / NS, 3), fact.gap.duration_s, fact.gap.reason)
            for fact in self.facts
            if isinstance(fact, GapSeen)
        ]


def gaps(losses: ChunkLosses) -> list[tuple[float, float, str]]:
    return [(gap.at_s, gap.duration_s, gap.reason) for gap in losses.gaps]


def at(seconds: float) -> int:
    return START + round(seconds * NS)


@pytest.mark.promise("silence-is-counted")
def test_a_gap_says_where_it_begins_and_is_counted_once() -> None:
    ledger = Ledger()
    ledger.lose(AUDIO, at(2), at(5), "lost_sound")
    ledger.lose(AUDIO, at(2.5), at(5), "lost_sound")  # noticed by somebody else as well
    found = ledger.account(0, 10 * NS, is_last=True)
    assert gaps(found) == [(2.0, 3.0, "lost_sound")]
    assert found.gap_ns == [0, 3 * NS]
    assert ledger.published == [(2.0, 3.0, "lost_sound")]


@pytest.mark.promise("overlapping-losses")
def test_of_overlapping_losses_only_the_rest_counts() -> None:
    ledger = Ledger()
    ledger.lose(AUDIO, at(2), at(4), "lost_sound")
    ledger.lose(AUDIO, at(1), at(6), "lost_sound")
    assert sum(gap[1] for gap in ledger.published) == 5
    assert ledger.account(0, 10 * NS, is_last=True).gap_ns == [0, 5 * NS]


def test_tracks_lose_each_their_own() -> None:
    ledger = Ledger()
    ledger.lose(VIDEO, at(2), at(4), "no_frames")
    ledger.lose(AUDIO, at(2), at(4), "lost_sound")
    assert ledger.account(0, 10 * NS, is_last=True).gap_ns == [2 * NS, 2 * NS]


@pytest.mark.promise("lost-seconds")
def test_lost_is_what_all_tracks_lack_at_once() -> None:
    ledger = Ledger()
    ledger.lose(VIDEO, at(1), at(4), "no_frames")
    ledger.lose(AUDIO, at(2), at(5), "lost_sound")
    ledger.lose(None, at(7), at(8), "slow_consumer")
    ledger.lose(VIDEO, at(9), at(12), "no_frames")
    first = ledger.account(0, 10 * NS)
    assert (first.gap_ns, first.lost_ns) == ([5 * NS, 4 * NS], 3 * NS)
    assert ledger.account(10 * NS, 20 * NS, is_last=True).lost_ns == 0


def test_what_all_tracks_lose_is_one_gap() -> None:
    ledger = Ledger()
    ledger.lose(None, at(2), at(4), "slow_consumer")
    ledger.lose(AUDIO, at(2), at(4.02), "lost_sound")
    found = ledger.account(0, 10 * NS, is_last=True)
    assert gaps(found) == [(2.0, 2.0, "slow_consumer"), (4.0, 0.02, "lost_sound")]
    assert found.gap_ns == [2 * NS, 2 * NS + 20 * MS]


def test_a_hole_that_spans_chunks_is_split() -> None:
    ledger = Ledger()
    ledger.begin(VIDEO, at(7), "no_frames")
    first = ledger.account(0, 10 * NS)
    second = ledger.account(10 * NS, 20 * NS)
    ledger.end(VIDEO, at(24))
    third = ledger.account(20 * NS, 30 * NS, is_last=True)
    assert [gaps(found) for found in (first, second, third)] == [
        [(7.0, 3.0, "no_frames")],
        [(0.0, 10.0, "no_frames")],
        [(0.0, 4.0, "no_frames")],
    ]
    assert ledger.published == [(7.0, 3.0, "no_frames"), (10.0, 10.0, "no_frames"), (20.0, 4.0, "no_frames")]


def test_what_goes_on_until_the_stop_is_counted_until_then() -> None:
    ledger = Ledger()
    ledger.begin(AUDIO, at(4), "lost_sound")
    ledger.until_ns = at(12)
    found = ledger.account(0, 12 * NS, is_last=True)
    assert gaps(found) == [(4.0, 8.0, "lost_sound")]
    assert ledger.published == [(4.0, 8.0, "lost_sound")]


def test_a_pause_is_no_loss_and_has_no_length() -> None:
    ledger = Ledger()
    ledger.begin(VIDEO, at(3), "no_frames")
    ledger.line.pause(at(5))
    ledger.drop(VIDEO, at(6))
    ledger.line.resume(at(60), 5 * NS)
    ledger.end(VIDEO, at(61))
    ledger.lose(AUDIO, at(62), at(63), "lost_sound")
    found = ledger.account(0, 20 * NS, is_last=True)
    assert gaps(found) == [(3.0, 3.0, "no_frames"), (7.0, 1.0, "lost_sound")]
    assert found.dropped == [0, 0]


def test_frames_are_counted_where_they_are_missing() -> None:
    ledger = Ledger()
    ledger.drop(VIDEO, at(11))
    ledger.drop(VIDEO, at(9), 3)
    assert ledger.account(0, 10 * NS).dropped == [0, 0]  # in order of what was entered: none is lost by that
    ledger = Ledger()
    ledger.drop(VIDEO, at(9), 3)
    ledger.drop(VIDEO, at(11))
    assert ledger.account(0, 10 * NS).dropped == [3, 0]
    assert ledger.account(10 * NS, 20 * NS, is_last=True).dropped == [1, 0]


def test_what_a_source_counts_reaches_the_chunk() -> None:
    ledger = Ledger()
    video, audio = ledger.tracks
    video.source.stats.dropped = 7
    video.output.facts.losses.add(Loss(at(1), frames=2))
    audio.output.facts.losses.add(Loss(at(2), duration_ns=NS // 2))
    audio.output.facts.losses.add(Loss(at(4), duration_ns=NS // 4))
    video.refused.append(at(3))
    ledger.poll(at(5))
    ledger.poll(at(6))
    found = ledger.account(0, 10 * NS, is_last=True)
    assert (found.dropped, found.xruns, found.gap_ns) == ([10, 0], [0, 2], [0, 3 * NS // 4])
    assert gaps(found) == [(2.0, 0.5, "lost_sound"), (4.0, 0.25, "lost_sound")]


def test_what_was_lost_within_a_pre_roll_is_lost_although_the_recording_was_asked_for_later() -> None:
    tracks = [Track("video"), Track("audio")]
    tracks[AUDIO].output.facts.losses.add(Loss(at(-20), duration_ns=NS))  # before the pre-roll
    tracks[AUDIO].output.facts.losses.add(Loss(at(-3), duration_ns=6 * NS))  # the pre-roll begins in the midst of it
    tracks[VIDEO].output.facts.losses.add(Loss(at(4), frames=2))
    tracks[VIDEO].refused.append(at(5))
    ledger = Ledger(tracks=tracks)  # now it is asked for
    ledger.poll(at(6))  # the line has not begun yet
    ledger.line.start(START)
    ledger.poll(at(6))
    found = ledger.account(0, 10 * NS, is_last=True)
    assert gaps(found) == [(0.0, 3.0, "lost_sound")]
    assert (found.gap_ns, found.dropped) == ([0, 3 * NS], [3, 0])
    assert ledger.published == [(0.0, 3.0, "lost_sound")]


def test_a_source_that_was_away_within_a_pre_roll_is_a_loss() -> None:
    tracks = [Track("video"), Track("audio")]
    ledger = Ledger(tracks=tracks)
    holes = Holes(cast(Any, [with_request(track) for track in tracks]), ledger.line, ledger)
    holes.note_stand_in(AUDIO, at(-9), at(-8))
    holes.note_stand_in(AUDIO, at(-1), at(2))
    holes.note_stand_in(VIDEO, at(3), at(4))
    holes.count(at(6))
    ledger.line.start(START)
    holes.count(at(6))
    assert gaps(ledger.account(0, 10 * NS, is_last=True)) == [(0.0, 2.0, "lost_sound"), (3.0, 1.0, "no_frames")]


def with_request(track: Track) -> Any:
    return SimpleNamespace(**vars(track), request=SimpleNamespace(time_lapse=None), take_refused=track.take_refused)


def test_raw_frames_that_are_lost_do_not_touch_a_device_s_own_encoding() -> None:
    ledger = Ledger(has_encoder=False)
    ledger.tracks[VIDEO].source.stats.dropped = 7
    ledger.tracks[VIDEO].output.facts.dropped = 2
    ledger.poll(at(5))
    assert ledger.account(0, 10 * NS, is_last=True).dropped == [2, 0]


@pytest.mark.parametrize("when", [-1.0, 30.0])
def test_what_is_outside_of_the_recording_is_not_lost(when: float) -> None:
    ledger = Ledger()
    ledger.until_ns = at(20)
    ledger.drop(VIDEO, at(when))
    ledger.lose(AUDIO, at(when), at(when + 0.5), "lost_sound")
    found = ledger.account(0, 20 * NS, is_last=True)
    assert (found.gaps, found.dropped) == ([], [0, 0])


def test_a_loss_that_becomes_known_after_its_chunk_is_told_by_the_next_one() -> None:
    ledger = Ledger()
    ledger.account(0, 10 * NS)
    ledger.lose(AUDIO, at(9), at(9.5), "lost_sound")
    assert gaps(ledger.account(10 * NS, 20 * NS, is_last=True)) == [(0.0, 0.5, "lost_sound")]


def test_a_device_that_flutters_does_not_fill_the_memory() -> None:
    ledger = Ledger()
    for number in range(5000):
        ledger.lose(AUDIO, at(number), at(number + 0.5), "lost_sound")
    found = ledger.account(0, 6000 * NS, is_last=True)
    assert len(found.gaps) <= 1001
    assert found.gap_ns[AUDIO] >= 2500 * NS
