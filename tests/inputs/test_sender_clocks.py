"""A sender's clock that cannot be right is not believed; what a network and a busy sender do is no such clock."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from msrecd.clock import MS, NS
from msrecd.inputs.senderclock import ArrivalPlaces
from msrecd.inputs.timeline import LiveLine, StreamTimes
from msrecd.libav.values import Demuxed
from tests.inputs.cameras import Faults, RtspCamera, clip
from tests.inputs.sender import AUDIO, VIDEO, Sender
from tests.inputs.test_network import Played, spread

FRAME, SOUND = 40 * MS, 20 * MS
BEGIN_NS = 5000 * NS


@dataclass
class Run:
    """What came of a sender: by stream (true time, time placed less that), and how far anything lies behind arrival."""

    errors: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: {VIDEO: [], AUDIO: []})
    ahead_ns: int = 0
    disbelieved: dict[int, float] = field(default_factory=dict)  # by stream: after so many seconds

    def worst_after(self, seconds: float) -> int:
        late = [abs(error) for found in self.errors.values() for true, error in found if true > seconds * NS]
        return max(late)


def run(sender: Sender, length_s: int, *, shares_clock: bool = False) -> Run:
    live = LiveLine(
        {
            VIDEO: StreamTimes(is_video=True, duration_ns=sender.frame_ns),
            AUDIO: StreamTimes(is_video=False, duration_ns=sender.sound_ns),
        },
        shares_clock=shares_clock,
        trusts_dts=False,
    )
    found, pending = Run(), list[int]()
    last = {VIDEO: 0, AUDIO: 0}
    for now, true, batch in sender.batches(length_s * NS):
        pending += true
        for unit in live.place(batch, now):
            true_ns, stream = pending.pop(0), unit.packet.stream
            assert unit.pts_ns >= unit.dts_ns > last[stream]
            last[stream] = unit.dts_ns
            found.errors[stream].append((true_ns - BEGIN_NS, unit.pts_ns - true_ns))
            found.ahead_ns = max(found.ahead_ns, unit.pts_ns - now)
        for stream in live.disbelieved():
            found.disbelieved[stream] = (now - BEGIN_NS) / NS
    assert not pending
    return found


def sending(clock: Callable[[int], float], *, streams: tuple[int, ...] = (VIDEO,), frame_ns: int = FRAME) -> Sender:
    """A sender whose clock says `clock(true time)` in these streams."""

    def stamp(stream: int, true_ns: int) -> int:
        return round(clock(true_ns) - true_ns) if stream in streams else 0

    return Sender(stamp=stamp, frame_ns=frame_ns, sound_ns=SOUND, nap_ns=300 * MS)


@pytest.mark.parametrize(
    ("clock", "within_s"),
    [
        pytest.param(lambda true: 0, 1, id="stands-still"),
        pytest.param(lambda true: min(true, 20 * NS), 21, id="stops"),
        pytest.param(lambda true: true / 90, 3, id="a-kilohertz"),
        pytest.param(lambda true: true * 0.53, 17, id="48-for-90-kHz"),
        pytest.param(lambda true: true * 10, 17, id="ten-times-as-fast"),
        pytest.param(lambda true: true * 1.05, 17, id="five-percent-fast"),
        pytest.param(lambda true: true * 0.95, 17, id="five-percent-slow"),
    ],
)
@pytest.mark.parametrize("streams", [(VIDEO,), (VIDEO, AUDIO)], ids=["frames", "both"])
@pytest.mark.promise("senders-clock-that-cannot-be-right")
def test_such_a_stream_lies_by_arrival(clock: Callable[[int], float], within_s: int, streams: tuple[int, ...]) -> None:
    found = run(sending(clock, streams=streams), 60)
    assert set(found.disbelieved) == set(streams)
    assert max(found.disbelieved.values()) <= within_s
    assert found.worst_after(30) < 150 * MS
    assert found.ahead_ns < 2 * NS
    for stream in streams:
        placed = [true + error for true, error in found.errors[stream] if true > 30 * NS]
        usual_ns = FRAME if stream == VIDEO else SOUND
        assert all(0.8 * usual_ns < after - before < 1.2 * usual_ns for before, after in pairwise(placed)), "it is even"


def test_few_frames_a_second_and_one_clock_for_all() -> None:
    assert run(sending(lambda true: 0, frame_ns=NS), 40).worst_after(20) < 500 * MS
    shared = run(sending(lambda true: true * 1.05, streams=(VIDEO, AUDIO)), 60, shares_clock=True)
    assert shared.worst_after(30) < 150 * MS


def test_reports_do_not_hide_it() -> None:
    """They say when a stamp was; between two of them the clock counts 1000 in a second in place of 90 000."""
    streams = {VIDEO: StreamTimes(is_video=True, duration_ns=FRAME), AUDIO: StreamTimes(is_video=False)}
    live = LiveLine(streams, shares_clock=False, trusts_dts=False)
    found: list[int] = []
    for look in range(200):
        batch = []
        for number in range(look * 8, look * 8 + 8):
            for stream in (VIDEO, AUDIO):
                true_ns = number * FRAME
                reported_ns = (true_ns + stream * NS // 2) // NS * NS - stream * NS // 2
                wall_ns = 1_700_000_000 * NS + reported_ns + (true_ns - reported_ns) // 90
                batch.append(Demuxed(stream, b"x", true_ns // 90, None, FRAME, True, wall_ns))
        now = BEGIN_NS + look * 8 * FRAME
        found += [unit.dts_ns for unit in live.place(batch, now) if unit.packet.stream == VIDEO]
    assert set(live.disbelieved()) == {VIDEO, AUDIO}
    assert all(FRAME // 2 < after - before < 2 * FRAME for before, after in pairwise(found[100:]))


def trickle(true_ns: int) -> int:
    """A sender that is starved for 80 s sends a tenth of what it should, then ten times as much."""
    since = true_ns - 30 * NS
    if since < 0:
        return 0
    return since * 9 if since < 8 * NS else max(0, 72 * NS - (since - 8 * NS) * 9 // 10)


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(lambda true: max(0, 10 * NS - true), id="a-burst-of-10-s"),
        pytest.param(lambda true: max(0, 90 * NS - (true - 30 * NS) // 2) if true > 30 * NS else 0, id="a-stall"),
        pytest.param(trickle, id="starved"),
        pytest.param(lambda true: 3 * NS - true % (20 * NS) if true % (20 * NS) < 3 * NS else 0, id="stalls"),
        pytest.param(lambda true: true % (7 * NS) // 8, id="a-line-that-fills-and-empties"),
    ],
)
@pytest.mark.promise("senders-clock-that-cannot-be-right")
def test_what_is_held_back_on_the_way_is_believed(late: Callable[[int], int]) -> None:
    sender = Sender(late=late, frame_ns=FRAME, sound_ns=SOUND, nap_ns=300 * MS)
    found = run(sender, 240)
    assert not found.disbelieved
    assert found.ahead_ns < 2 * NS


@pytest.mark.parametrize(("ppm", "jitter_ns"), [(-1000, 30 * MS), (200, 600 * MS), (-200, 600 * MS), (1000, 30 * MS)])
@pytest.mark.promise("senders-clock-that-cannot-be-right")
def test_clocks_that_are_a_little_off_are_believed(ppm: int, jitter_ns: int) -> None:
    sender = Sender(ppm=ppm, frame_ns=200 * MS, sound_ns=200 * MS, jitter_ns=jitter_ns)
    assert not run(sender, 900).disbelieved


def test_frames_of_one_time_and_frames_out_of_order_are_believed() -> None:
    """Two fields have one time; four frames that are shown before another one come behind it."""
    live = LiveLine({VIDEO: StreamTimes(is_video=True, duration_ns=FRAME)}, trusts_dts=False)
    for look in range(400):
        times = [(look * 10 + shown) * FRAME for shown in (4, 0, 1, 2, 3, 9, 5, 6, 7, 8)]
        live.place([Demuxed(VIDEO, b"x", at, None, 0, True) for at in times for _ in range(2)], look * 10 * FRAME)
    assert not live.disbelieved()


def test_frames_out_of_order_by_arrival_keep_their_order() -> None:
    """The clock is 90 times too slow; a frame that is shown before another one and sent behind it still is."""
    live = LiveLine({VIDEO: StreamTimes(is_video=True, duration_ns=FRAME, reorder_depth=1)}, trusts_dts=False)
    shown: list[tuple[int, int]] = []
    for look in range(100):
        order = [look * 8 + n for n in (3, 0, 1, 2, 7, 4, 5, 6)]
        batch = [Demuxed(VIDEO, b"%d" % n, n * FRAME // 90, None, 0, True) for n in order]
        shown += [(unit.pts_ns, int(bytes(unit.packet.data))) for unit in live.place(batch, look * 8 * FRAME)]
    behind = shown[400:]
    assert [n for _, n in sorted(behind)] == sorted(n for _, n in behind)


def test_silence_is_a_hole_and_what_waited_is_spread() -> None:
    places = ArrivalPlaces(0.0, 0, 0, FRAME)
    found = [at for look in range(1, 100) for at in places.of(8, look * 8 * FRAME)]
    assert {after - before for before, after in pairwise(found)} == {FRAME}
    silent = places.of(8, 99 * 8 * FRAME + 10 * NS)
    assert silent[-1] == 99 * 8 * FRAME + 10 * NS
    assert silent[0] > silent[-1] - 9 * FRAME
    burst = places.of(2000, silent[-1] + FRAME)
    assert burst == sorted(set(burst))
    assert burst[-1] <= max(silent[-1] + NS, silent[-1] + 2001 * MS)


@pytest.mark.promise("senders-clock-that-cannot-be-right")
def test_a_camera_whose_time_stamps_stand_still(caplog: pytest.LogCaptureFixture) -> None:
    """Its recording is as long as it took, and the log names it once."""
    faults = Faults(stamp_s=lambda at: 7.0, reports=False)
    with RtspCamera(clip(), faults, has_sound=False) as camera, Played(camera.url) as played:
        frames = played.taken["video"].wait(75)
        lines = [line for line in caplog.messages if "cannot be right" in line]
    assert abs(spread(frames) - (len(frames) - 1) / 25) < 0.8
    assert len(lines) == 1
    assert f"127.0.0.1:{camera.port}/cam: the clock of its frames" in lines[0]
    assert caplog.records[[*caplog.messages].index(lines[0])].levelno == logging.WARNING
