"""The time line of a live input: over days, over faults of the sender's clock and of the network. Simulated."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from msrecd.clock import MS, NS
from msrecd.inputs.timeline import DecodeOrder, LiveLine, Placed, StreamTimes
from msrecd.libav.values import Demuxed
from tests.inputs.sender import AUDIO, VIDEO, Sender, line

HOUR = 3600 * NS
IS_LONG = "MSRECD_INPUT_DAY" in os.environ
YEAR = 1_700_000_000 * NS
FRAME = 40 * MS  # what "one frame" means in the promises


class Seen:
    """What came out: how far each packet lies from the truth, and whether anything is missing or goes back."""

    def __init__(self) -> None:
        self.count = 0
        self.error: dict[int, int] = {}
        self.first: dict[int, int] = {}
        self.last: dict[int, int] = {}
        self.true_last: dict[int, int] = {}
        self.true_first: dict[int, int] = {}
        self.worst = 0
        self.distance = 0
        self._dts: dict[int, int] = {}
        self._of_time: dict[int, int] = {}

    def __call__(self, true_ns: int, unit: Placed) -> None:
        stream = unit.packet.stream
        self.count += 1
        assert unit.dts_ns > self._dts.get(stream, -1), "decode times rise"
        assert unit.pts_ns >= unit.dts_ns
        self._dts[stream] = unit.dts_ns
        self.error[stream] = unit.pts_ns - true_ns
        self.first.setdefault(stream, unit.pts_ns)
        self.true_first.setdefault(stream, true_ns)
        self.last[stream], self.true_last[stream] = unit.pts_ns, true_ns
        self.worst = max(self.worst, abs(self.error[stream]))
        other = self._of_time.pop(true_ns, None)  # a frame and a piece of sound of the same moment
        if other is None:
            self._of_time[true_ns] = self.error[stream]
        else:
            self.distance = max(self.distance, abs(self.error[stream] - other))

    def length_error_s(self, stream: int) -> float:
        true = self.true_last[stream] - self.true_first[stream]
        return (self.last[stream] - self.first[stream] - true) / NS


def placed(sender: Sender, length_ns: int, live: LiveLine | None = None) -> Seen:
    seen = Seen()
    assert sender.run(length_ns, line() if live is None else live, seen) == seen.count, "every packet is placed"
    return seen


@pytest.mark.parametrize("shares_clock", [True, False])
@pytest.mark.parametrize("ppm", [-1000, -200, -50, 0, 50, 200, 1000])
def test_a_long_time_with_a_clock_that_is_off(ppm: int, shares_clock: bool) -> None:
    """Two hours; what a day would be is the same again: the offset follows, it does not add up."""
    seen = placed(Sender(ppm=ppm, frame_ns=400 * MS, sound_ns=400 * MS), 2 * HOUR, line(shares_clock=shares_clock))
    for stream in (VIDEO, AUDIO):
        assert abs(seen.length_error_s(stream)) < (0.25 if abs(ppm) <= 200 else 0.4)
    assert seen.distance < FRAME
    assert seen.worst < (300 if abs(ppm) <= 200 else 600) * MS


@pytest.mark.slow
@pytest.mark.parametrize("ppm", [-200, -50, 0, 50, 200] if IS_LONG else [-1000, 200])
def test_a_day_with_stalls_and_a_reconnect_an_hour(ppm: int) -> None:
    """Each connection has a line of its own, as in the program; every hour one ends, every ten minutes one stalls.

    With MSRECD_INPUT_DAY=1 every clock of the promise, and five frames a second instead of one.
    """
    total_s = 0.0
    step_ns = 200 * MS if IS_LONG else NS
    for hour in range(24):
        sender = Sender(ppm=ppm, frame_ns=step_ns, sound_ns=step_ns, random=random.Random(hour))
        sender.late = lambda true_ns: 3 * NS - true_ns % (600 * NS) if true_ns % (600 * NS) < 3 * NS else 0
        seen = placed(sender, HOUR)
        assert seen.distance < FRAME
        assert abs(seen.length_error_s(VIDEO)) < (0.3 if abs(ppm) <= 200 else 0.4)
        total_s += (seen.last[VIDEO] - seen.first[VIDEO] + step_ns) / NS
    assert abs(total_s - 24 * 3600) < 24 * 3600 * 0.001
    print(f"{ppm} ppm: {total_s - 24 * 3600:+.2f} s in a day")


def test_a_start_up_burst_lies_in_the_past() -> None:
    """Two seconds of frames come at once: they were captured before, not now."""
    sender = Sender(late=lambda true_ns: max(0, 2 * NS - true_ns))
    seen = placed(sender, 60 * NS)
    assert seen.worst < 300 * MS
    assert abs(seen.length_error_s(VIDEO)) < 0.3  # the reader looks every 200 ms
    assert seen.distance < FRAME


def test_a_second_burst_right_after_the_connection_is_worked_off() -> None:
    """The first packets come alone, then a second of them at once: the offset comes down without a jump."""
    sender = Sender(late=lambda true_ns: max(0, 1500 * MS - true_ns) if true_ns >= 200 * MS else 1000 * MS)
    seen = placed(sender, 160 * NS)
    assert abs(seen.error[VIDEO]) < 300 * MS
    assert seen.distance < FRAME


def test_a_first_batch_that_came_late_moves_a_chunk_by_less_than_a_frame() -> None:
    """On a busy machine. A player that counts samples is off by what a chunk is compressed."""
    seen = placed(Sender(late=lambda true_ns: 200 * MS if true_ns < NS else 0, nap_ns=50 * MS), 60 * NS)
    assert abs(seen.length_error_s(VIDEO)) < 0.035
    assert seen.worst < 500 * MS


def test_frames_that_are_read_with_the_next_one_came_before() -> None:
    """libav's parser of H.264 over RTP gives a frame when the next one begins; sound it gives at once."""
    live = LiveLine(
        {VIDEO: StreamTimes(is_video=True, duration_ns=FRAME, is_read_late=True), AUDIO: StreamTimes(is_video=False)},
        shares_clock=False,
    )
    found: dict[int, list[int]] = {VIDEO: [], AUDIO: []}
    for number in range(500):
        times = {VIDEO: number - 1, AUDIO: number} if number else {AUDIO: 0}
        batch = [Demuxed(stream, b"x", at * FRAME, None, FRAME, True) for stream, at in times.items()]
        for unit in live.place(batch, 1000 * NS + number * FRAME):
            found[unit.packet.stream].append(unit.pts_ns)
    assert max(abs(frame - sound) for frame, sound in zip(found[VIDEO], found[AUDIO], strict=False)) < MS


@pytest.mark.parametrize("stall_s", [2, 20, 90])
@pytest.mark.promise("stall-with-catching-up")
def test_a_stall_with_catching_up_moves_nothing(stall_s: int) -> None:
    def late(true_ns: int) -> int:
        since = true_ns - 60 * NS
        return max(0, stall_s * NS - since // 2) if since >= 0 else 0  # what waited comes at twice the rate

    seen = placed(Sender(late=late), 600 * NS)
    assert abs(seen.length_error_s(VIDEO)) < 0.5
    assert seen.worst < 600 * MS
    assert seen.distance < FRAME


@pytest.mark.parametrize("step_s", [-0x1_0000_0000 / 90_000, -7200, -10, -3, -1.5, 0.6, 1.5, 10, 7200, 1e9])
@pytest.mark.parametrize("shares_clock", [True, False])
@pytest.mark.promise("step-of-a-senders-clock")
def test_a_step_of_the_senders_clock_is_none_of_time(step_s: float, shares_clock: bool) -> None:
    """RTP's 32 bits wrap; a camera sets its clock; a server's file begins anew."""
    step_ns = round(step_s * NS)
    sender = Sender(stamp=lambda _, true_ns: step_ns if true_ns >= 60 * NS else 0)
    seen = placed(sender, 180 * NS, line(shares_clock=shares_clock))
    assert abs(seen.length_error_s(VIDEO)) < 0.4
    assert abs(seen.length_error_s(AUDIO)) < 0.4
    assert seen.distance < 2 * FRAME


def test_streams_that_step_one_after_the_other_keep_their_distance() -> None:
    sender = Sender(stamp=lambda stream, true_ns: 5000 * NS if true_ns >= (60 + stream) * NS else 0)
    live = line()
    seen = placed(sender, 180 * NS, live)
    assert live.stepped == 2
    assert abs(seen.error[VIDEO] - seen.error[AUDIO]) < MS


@pytest.mark.parametrize("hole_s", [1, 8, 300])
def test_a_hole_is_a_hole(hole_s: int) -> None:
    """The sender sent nothing: its clock and ours agree on how long."""
    sender = Sender(lost=lambda true_ns: 60 * NS <= true_ns < (60 + hole_s) * NS)
    seen = placed(sender, (120 + hole_s) * NS)
    assert abs(seen.length_error_s(VIDEO)) < 0.3
    assert seen.distance < FRAME


def test_a_hole_with_a_step_is_as_long_as_it_took() -> None:
    """The camera restarts its encoder within the connection: 8 s of nothing, then times from zero."""
    sender = Sender(
        lost=lambda true_ns: 60 * NS <= true_ns < 68 * NS,
        stamp=lambda _, true_ns: -68 * NS if true_ns >= 68 * NS else 0,
    )
    seen = placed(sender, 120 * NS)
    assert abs(seen.length_error_s(VIDEO)) < 0.5
    assert abs(seen.length_error_s(AUDIO)) < 0.5


def test_a_clock_that_stood_still_is_noticed() -> None:
    """Nothing is missing in the sender's times, but three seconds passed: they are a hole in the end."""
    sender = Sender(
        lost=lambda true_ns: 60 * NS <= true_ns < 63 * NS,
        stamp=lambda _, true_ns: -3 * NS if true_ns >= 63 * NS else 0,
    )
    seen = placed(sender, 240 * NS)
    assert abs(seen.length_error_s(VIDEO)) < 0.5


@pytest.mark.parametrize("shares_clock", [True, False])
def test_nothing_is_captured_long_after_it_came(shares_clock: bool) -> None:
    """A sender that was starved is a minute late, so long that its clock seems to have stood still, and then sends ten
    times as fast until it has caught up."""

    def late(true_ns: int) -> int:
        if true_ns < 60 * NS:
            return 0
        return max(0, 60 * NS - max(0, true_ns - 110 * NS) * 9 // 10)

    live = line(shares_clock=shares_clock)
    ahead, error = 0, 0
    for now, true, batch in Sender(late=late).batches(500 * NS):
        for true_ns, unit in zip(true, live.place(batch, now), strict=True):
            ahead, error = max(ahead, unit.pts_ns - now), unit.pts_ns - true_ns
    assert ahead < 3 * NS
    assert abs(error) < 500 * MS


def test_reports_tell_the_distance_of_streams() -> None:
    """Sound comes 400 ms later than the frames it belongs to. Without reports that is all there is to know; once both
    streams have one, their times are those of the sender's wall clock."""
    live = LiveLine({VIDEO: StreamTimes(is_video=True), AUDIO: StreamTimes(is_video=False)}, shares_clock=False)
    year = 1_700_000_000 * NS
    distance = {}
    for number in range(2000):
        now = 1000 * NS + number * 20 * MS
        batch = []
        for stream, behind in ((VIDEO, 0), (AUDIO, 400 * MS)):
            stamp = number * 20 * MS
            report = year + stamp - behind if number > 250 else None
            batch.append(Demuxed(stream, b"x", stamp, None, 20 * MS, True, report))
        units = {unit.packet.stream: unit.pts_ns for unit in live.place(batch, now)}
        distance[number] = units[VIDEO] - units[AUDIO]
    assert abs(distance[200]) < 5 * MS
    assert abs(distance[1999] - 400 * MS) < 5 * MS


def reported(
    wall_of: Callable[[int, int], int | None], zeros: dict[int, int] | None = None
) -> dict[int, list[tuple[int, int]]]:
    """(true time, time placed) of two streams of RTP, packets of 20 ms that arrive together; `wall_of` tells for a
    stream and a true time what the wall clock of its last sender report would be.

    zeros: the streams say that their times have the same zero; so far off it is.
    """
    live = LiveLine(
        {VIDEO: StreamTimes(is_video=True), AUDIO: StreamTimes(is_video=False)}, shares_clock=False,
        is_aligned=zeros is not None,
    )  # fmt: skip
    zeros = {VIDEO: 0, AUDIO: 7 * NS} if zeros is None else zeros
    found: dict[int, list[tuple[int, int]]] = {VIDEO: [], AUDIO: []}
    for number in range(3000):
        true_ns = number * 20 * MS
        batch = [
            Demuxed(stream, b"x", true_ns + zeros[stream], None, 20 * MS, True, wall_of(stream, true_ns))
            for stream in (VIDEO, AUDIO)
        ]
        for unit in live.place(batch, 1000 * NS + true_ns):
            raw = unit.packet.pts_ns or 0
            found[unit.packet.stream].append((raw - zeros[unit.packet.stream], unit.pts_ns))
    return found


def distance(found: dict[int, list[tuple[int, int]]]) -> list[int]:
    """Of sound from the frames of the same moment."""
    return [sound - frame for (_, frame), (_, sound) in zip(found[VIDEO], found[AUDIO], strict=True)]


@pytest.mark.parametrize(
    "wall_of",
    [
        lambda stream, true_ns: true_ns + (YEAR if stream == AUDIO else 0),  # no clock is set for one of them
        lambda stream, true_ns: YEAR + true_ns + stream * 5 * NS,
        lambda stream, true_ns: YEAR + true_ns - stream * 5 * NS if true_ns > 20 * NS else None,
    ],
)
def test_reports_that_contradict_arrival_are_not_believed(wall_of: Callable[[int, int], int | None]) -> None:
    found = reported(wall_of)
    assert max(map(abs, distance(found))) < FRAME
    assert max(abs(placed - true - 1000 * NS) for true, placed in found[AUDIO]) < FRAME


def test_reports_that_become_right_are_believed() -> None:
    """The camera sets its clock a while after it was switched on, of one stream first; sound was 300 ms off."""

    def wall_of(stream: int, true_ns: int) -> int:
        is_set = true_ns > (20 + stream) * NS
        return true_ns + (YEAR if is_set else stream * YEAR // 2) - (300 * MS if stream == AUDIO else 0)

    found = distance(reported(wall_of))
    assert max(map(abs, found[:900])) < FRAME
    assert abs(found[-1] + 300 * MS) < FRAME


def test_a_first_report_that_is_off_is_soon_left() -> None:
    """By 150 ms, as a sender on a busy machine gives it; those every five seconds that follow agree."""
    found = distance(
        reported(
            lambda stream, true_ns: YEAR + true_ns + (150 * MS if stream and true_ns < 5 * NS else true_ns // 5 % 7)
        )
    )
    assert max(map(abs, found[20 * 50 :])) < FRAME + MS
    assert max(abs(b - a) for a, b in pairwise(found)) < 2 * MS


@pytest.mark.parametrize("stream_off", [VIDEO, AUDIO])
@pytest.mark.promise("rtp-info")
def test_a_first_report_that_is_off_moves_nothing_that_is_aligned(stream_off: int) -> None:
    """The answer to PLAY said how the streams lie, and arrival agreed; the sender reports that follow do so as well."""

    def wall_of(stream: int, true_ns: int) -> int | None:
        if true_ns < (2 + stream) * NS:
            return None
        return YEAR + true_ns + (150 * MS if stream == stream_off and true_ns < 7 * NS else 0)

    found = distance(reported(wall_of, zeros={VIDEO: 0, AUDIO: 100 * MS}))
    assert max(abs(one - 100 * MS) for one in found[:450]) < 5 * MS
    assert abs(found[-1]) < FRAME + MS, "in the end the reports count"
    assert max(abs(b - a) for a, b in pairwise(found)) < 2 * MS


@pytest.mark.parametrize("off", [400 * MS, -20 * NS])
def test_what_contradicts_arrival_aligns_nothing(off: int) -> None:
    found = distance(reported(lambda stream, true_ns: None, zeros={VIDEO: 0, AUDIO: off}))
    assert max(map(abs, found)) < MS


def test_reports_that_jitter_move_nothing() -> None:
    """Each second one says up to 150 ms too much or too little: neither order nor distance of frames show it."""
    noise = random.Random(1)
    said = [noise.randint(-150, 150) * MS for _ in range(200)]
    found = reported(lambda stream, true_ns: YEAR + true_ns + said[true_ns // NS * 2 + stream])
    for stream in (VIDEO, AUDIO):
        steps = [after - before for (_, before), (_, after) in pairwise(found[stream][10:])]
        assert min(steps) > 18 * MS
        assert max(steps) < 22 * MS


def test_the_first_key_frame_without_a_time_is_kept() -> None:
    """libav's first RTSP packet has none."""
    live = LiveLine({VIDEO: StreamTimes(is_video=True)}, trusts_dts=False)
    units = live.place([Demuxed(VIDEO, b"k", None, None, FRAME, True)], 10 * NS)
    units += live.place([Demuxed(VIDEO, b"p", FRAME * n, None, FRAME, False) for n in (1, 2, 3)], 10 * NS + 3 * FRAME)
    assert [unit.packet.data for unit in units] == [b"k", b"p", b"p", b"p"]
    assert [unit.pts_ns - units[0].pts_ns for unit in units] == [0, FRAME, 2 * FRAME, 3 * FRAME]


def test_a_stream_that_never_has_a_time_is_not_held_for_ever() -> None:
    live = LiveLine({VIDEO: StreamTimes(is_video=True)})
    units = []
    for number in range(60):
        units += live.place([Demuxed(VIDEO, b"x", None, None, FRAME, True)], 10 * NS + number * FRAME)
    assert len(units) > 30


@pytest.mark.parametrize(
    ("shown", "depth"),
    [([0, 1, 2, 3], 0), ([0, 3, 1, 2, 6, 4, 5], 1), ([0, 4, 2, 1, 3, 8, 6, 5, 7], 2)],
)
@pytest.mark.promise("frames-without-decode-times")
def test_decode_times_of_frames_out_of_order(shown: list[int], depth: int) -> None:
    assert DecodeOrder.depth_of(shown) == depth
    order = DecodeOrder(depth)
    times = [order.dts_of(number * FRAME, FRAME) for number in shown]
    assert times == [(number - depth) * FRAME for number in range(len(shown))]


def test_a_depth_that_shows_late_costs_no_frame() -> None:
    order = DecodeOrder(0)
    times = [order.dts_of(number * FRAME, FRAME) for number in [0, 1, 2, 6, 4, 3, 5, 10, 8, 7, 9, 14, 12, 11, 13]]
    assert times == sorted(set(times))
    assert times[-1] <= 13 * FRAME
