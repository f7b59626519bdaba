"""Where the packets of an input lie on CLOCK_MONOTONIC.

A live input has a clock of its own, the sender's. Packets need some time from there to here, never less than a certain
minimum, and often more: they come in bursts when a connection begins and after a stall. So the *earliest* arrivals tell
how the sender's clock lies to ours, and a slowly moving offset follows them. All streams of an input that share a clock
share the offset, so their distance stays what the sender made it.

A file keeps its own times. Both kinds survive clocks that step (a wrap, files put together, a camera that sets its
clock), packets without a time, and packets that come in decode order.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from msrecd.clock import MS, NS, Clock
from msrecd.inputs.senderclock import ArrivalPlaces, ClockCheck, Disbelief
from msrecd.libav.values import Demuxed

BATCH_NS = 250 * MS  # packets of a file are delivered this much at a time, which spares wake-ups

_LATE_NS = NS  # a thread that is no later than this continues where its input ended, without a hole
_BACK_NS = NS  # a sender's time that goes back by more has stepped; less is jitter
_FILE_JUMP_NS = 10 * NS  # a jump of a file's own times that is no pause in it
_AHEAD_NS = 300 * MS  # a packet that would come this much before the earliest possible one has stepped
_HOLE_NS = 500 * MS  # shorter holes at a step of the clock cannot be told from the reader's own batches
_SAME_STEP_NS = 750 * MS  # two streams that step by the same amount, to within this, follow one clock
_TICK_NS = MS  # two packets of a stream lie at least this far apart: Matroska counts in milliseconds
_USUAL_NS = 40 * MS
_WALL_STEP_NS = NS  # between two sender reports: the sender sets its clock; less is their jitter
_ROUNDING_NS = 1000  # of what reports say of a packet
_WALL_RATE = 2000  # ppm at which their jitter is followed
_WALL_RATE_FAR = 20_000  # ... when they agree for a while that a stream is a frame or more away
_AGREED_NS = 6 * NS  # two reports, as they are usually sent
_AGREES_NS = 300 * MS  # a common zero of two streams that lies no further from how they arrive is believed
_REPORT_JITTER_NS = 200 * MS  # sender reports that place an aligned stream so far away are followed, not jumped to
_REPORTS_AGREE_WITHIN_NS = 30 * NS  # the first ones of a sender on a busy machine may be off
_CONTRADICTS_NS = 3 * NS  # sender reports that place a stream so far from another one than it arrives are wrong


@dataclass(slots=True, eq=False)
class Placed:
    """A packet with its times on CLOCK_MONOTONIC, pts_ns >= dts_ns; dts_ns rises within a stream."""

    packet: Demuxed
    pts_ns: int
    dts_ns: int
    duration_ns: int


class DecodeOrder:
    """Decode times for packets that come in decode order with presentation times alone.

    A frame that is shown after one that is decoded later makes everything wait: `depth` frames, at most 16 in H.264 and
    HEVC. The decode time of a packet is the (n - depth)-th smallest presentation time so far.
    """

    def __init__(self, depth: int = 0) -> None:
        self.depth = depth
        self._waiting: list[int] = []
        self._filled = 0
        self._last: int | None = None

    @staticmethod
    def depth_of(pts: Sequence[int]) -> int:
        """How many frames precede another in decode order and follow it in the order they are shown, at most."""
        return min(16, max((sum(other > this for other in pts[:n]) for n, this in enumerate(pts)), default=0))

    def restart(self) -> None:
        """What comes does not continue what came."""
        self._waiting.clear()
        self._filled = 0
        self._last = None

    def dts_of(self, pts_ns: int, duration_ns: int) -> int:
        insort(self._waiting, pts_ns)
        if self._filled < self.depth:  # the first frames are decoded before the first one is shown
            dts = self._waiting[0] - (self.depth - self._filled) * duration_ns
            self._filled += 1
        else:
            dts = self._waiting.pop(0)
        if self._last is not None and dts <= self._last:
            if pts_ns < self._last and self.depth < 16:  # deeper than it looked so far
                self.depth += 1
                self._filled += 1
                insort(self._waiting, self._last)
            dts = self._last + _TICK_NS
        self._last = dts
        return dts


class ClockFit:
    """The offset from a sender's clock to CLOCK_MONOTONIC, by the packets that came earliest. Pure.

    A start-up burst moves it at once as long as nothing was placed. Then it follows slowly, for a player may count the
    samples of a chunk, which nobody can compress, and not their times: 30 ms a minute. That is more than any crystal is
    off; a clock that is off by 0.1 % is followed at 0.3 s. A constant lateness that lasts half a minute is a sender's
    clock that stood still. One that catches up after that (a program that was starved) would lie in the future for more
    than an hour: nothing was captured after it came, so the offset comes down at once, and what then lies where
    something was recorded already is lost.
    """

    _BUCKET_NS = NS
    _WINDOW = 10  # buckets that tell where the earliest packets lie now
    _STANDS_STILL = 30  # buckets of constant lateness
    _SLOWLY = 0.0005
    _FASTER, _FAR_NS = 0.002, 300 * MS
    _FALL, _BURST_NS = 0.02, 500 * MS  # packets that had waited on the way when a connection began
    _FUTURE_NS = 2 * NS  # what comes so long before it was captured
    _SETTLES_NS = 10 * NS

    def __init__(self) -> None:
        self.offset_ns: int | None = None
        self._at_ns = 0
        self._buckets: deque[tuple[int, int]] = deque(maxlen=self._STANDS_STILL)  # (number, smallest arrival - time)

    def add(self, arrival_ns: int, sender_ns: int) -> None:
        delay = arrival_ns - sender_ns
        number = arrival_ns // self._BUCKET_NS
        if self._buckets and self._buckets[-1][0] >= number:
            if delay < self._buckets[-1][1]:
                self._buckets[-1] = (self._buckets[-1][0], delay)
        else:
            self._buckets.append((number, delay))

    def update(self, now_ns: int) -> int:
        """The offset for what is placed now."""
        if not self._buckets:
            return self.offset_ns or 0
        newest = self._buckets[-1][0]
        recent = min(delay for number, delay in self._buckets if number > newest - self._WINDOW)
        if self.offset_ns is None:
            self.offset_ns, self._at_ns = recent, now_ns
            return recent
        passed = min(max(0, now_ns - self._at_ns), NS)  # a long silence is no reason to move far at once
        self._at_ns = now_ns
        late = recent - self.offset_ns
        if late < -self._FUTURE_NS or (late > _HOLE_NS and self._stood_still()):
            self.offset_ns += late
        else:
            limit = self._SLOWLY if abs(late) < self._FAR_NS else self._FASTER if late > -self._BURST_NS else self._FALL
            step = min(abs(late) * passed // self._SETTLES_NS, int(passed * limit))
            self.offset_ns += step if late > 0 else -step
        return self.offset_ns

    def _stood_still(self) -> bool:
        if len(self._buckets) < self._STANDS_STILL:
            return False
        if self._buckets[-1][0] - self._buckets[0][0] > 2 * self._STANDS_STILL:
            return False
        delays = [delay for _, delay in self._buckets]
        return max(delays) - min(delays) < 250 * MS and min(delays) - (self.offset_ns or 0) > _HOLE_NS

    def moved(self, sender_ns: int) -> None:
        """The sender's times of what comes are larger by this much."""
        if self.offset_ns is not None:
            self.offset_ns -= sender_ns
        self._buckets = deque(((n, delay - sender_ns) for n, delay in self._buckets), maxlen=self._STANDS_STILL)


class _Stream:
    """What is known of one stream of an input."""

    __slots__ = (
        "agreed_ns",
        "arrivals",
        "check",
        "disbelief",
        "duration_ns",
        "fit",
        "last_dts",
        "last_end",
        "last_own",
        "last_raw",
        "order",
        "report",
        "shift",
        "wall_offset",
    )

    def __init__(self, fit: ClockFit, duration_ns: int, depth: int) -> None:
        self.fit = fit
        self.duration_ns = duration_ns
        self.order = DecodeOrder(depth)
        self.shift = 0  # from the stream's times to the sender's clock as it was at the beginning
        self.last_raw: int | None = None
        self.last_own = 0  # the same, as it came: without what sender reports say
        self.last_end: int | None = None  # on the sender's clock
        self.last_dts: int | None = None  # monotonic
        self.wall_offset: int | None = None  # from its times to the sender's wall clock, by RTCP sender reports
        self.report = 0  # what the last one said
        self.agreed_ns = 0  # for how long they have agreed
        self.check = ClockCheck()
        self.disbelief: Disbelief | None = None
        self.arrivals: ArrivalPlaces | None = None  # where its packets lie when its clock is not believed

    def await_agreement(self, reported: int, duration_ns: int) -> None:
        """Take what the last report says for what all say, as long as they agree; it is not followed yet."""
        if self.wall_offset is None or abs(reported - self.wall_offset) >= _USUAL_NS:
            self.wall_offset, self.agreed_ns = reported, 0
        else:
            self.agreed_ns += duration_ns
        self.report = reported

    def follow_report(self, reported: int, duration_ns: int) -> None:
        """Take what the last report says: a little with each packet, for reports jitter; all if a clock was set."""
        off = reported - (self.wall_offset or 0)
        if self.wall_offset is None or abs(off) > _WALL_STEP_NS:
            self.wall_offset = reported
        elif -_ROUNDING_NS < off < _ROUNDING_NS and -_ROUNDING_NS < reported - self.report < _ROUNDING_NS:
            self.agreed_ns += duration_ns  # nearly always
        else:
            self.agreed_ns = self.agreed_ns + duration_ns if abs(reported - self.report) < _USUAL_NS else 0
            self.report = reported
            is_far = self.agreed_ns > _AGREED_NS and abs(off) > _USUAL_NS
            most = duration_ns * (_WALL_RATE_FAR if is_far else _WALL_RATE) // 1_000_000
            self.wall_offset += max(-most, min(most, off))


@dataclass(frozen=True, slots=True)
class StreamTimes:
    """What the time line has to know of a stream.

    duration_ns: of a packet that does not tell.
    reorder_depth: as far as libav knows it.
    is_read_late: a packet is read when the next one begins to come.
    """

    is_video: bool
    duration_ns: int = _USUAL_NS
    reorder_depth: int = 0
    is_read_late: bool = False


class LiveLine:
    """Places the packets of a live input. Belongs to one thread.

    shares_clock: the times of all streams come from one clock (MPEG-TS, FLV, Matroska, …). RTP's do not, until sender
    reports say how they lie to each other; without them each stream has an offset of its own, by arrival.
    trusts_dts: decode times of the input are right. Those that libav makes of RTP are guesses.
    is_aligned: such streams say that their times have the same zero (RTP-Info). It is believed where it fits how they
    arrive, until there are sender reports.
    on_arrival: the input has no times that mean anything (JPEGs over HTTP): the time of arrival is the time.
    """

    def __init__(
        self,
        streams: dict[int, StreamTimes],
        *,
        shares_clock: bool = True,
        trusts_dts: bool = True,
        is_aligned: bool = False,
        on_arrival: bool = False,
    ) -> None:
        common = ClockFit()
        self._streams = {
            index: _Stream(common if shares_clock else ClockFit(), times.duration_ns, times.reorder_depth)
            for index, times in streams.items()
        }
        self._video = {index for index, times in streams.items() if times.is_video}
        self._read_late = {index: times.duration_ns for index, times in streams.items() if times.is_read_late}
        self._shares_clock = shares_clock or len(streams) == 1
        self._trusts_dts = trusts_dts
        self._is_aligned = is_aligned
        self._on_arrival = on_arrival
        self._reported_since_ns: int | None = None  # of streams that are aligned
        self._by_wall = False  # the streams' clock is the sender's wall clock
        self._held: list[tuple[Demuxed, int]] = []
        self._have_begun = False  # all streams have given something
        self._looked_ns: int | None = None
        self.stepped = 0  # how often a stream's clock did

    def place(self, packets: Sequence[Demuxed], now_ns: int) -> list[Placed]:
        """Times for all packets that were read together at `now_ns`; those of an earlier call may come first.

        Nothing is left out: packets without a time are held until one with a time follows, at most a second.
        """
        late = self._read_late
        if late:
            batch = [*self._held, *[(packet, now_ns - late.get(packet.stream, 0)) for packet in packets]]
        else:
            batch = [*self._held, *[(packet, now_ns) for packet in packets]]
        self._held = []
        if self._on_arrival:
            return self._placed([(packet, at, at) for packet, at in batch])
        had_begun = self._have_begun
        if not self._find_beginnings(batch, now_ns):
            return []
        if self._is_aligned and not had_begun:
            self._join_aligned(batch)
        self._check_clocks(batch, now_ns)
        if not self._shares_clock:
            self._take_reports(batch)
        timed = []
        newest: dict[int, int] = {}  # of each stream: of what came together, that arrived soonest after it was sent
        places = self._places_by_arrival(batch, now_ns)
        for packet, at in batch:
            if packet.stream in places:
                sent = next(places[packet.stream])
                timed.append((packet, sent + self._shown_after(packet), sent))
                continue
            pts, sent = self._on_sender_clock(packet, at)
            timed.append((packet, pts, sent))
            if at != now_ns:
                self._streams[packet.stream].fit.add(at, sent)
            elif packet.stream not in newest or sent > newest[packet.stream]:
                newest[packet.stream] = sent
        for index, sent in newest.items():
            self._streams[index].fit.add(now_ns, sent)
        for stream in self._streams.values():
            stream.fit.update(now_ns)
        return self._placed(timed)

    def _placed(self, timed: Sequence[tuple[Demuxed, int, int]]) -> list[Placed]:
        """The packets by their times (of presentation, of sending) on the sender's clock."""
        placed = []
        for packet, pts, dts in timed:
            stream = self._streams[packet.stream]
            offset = 0 if stream.arrivals else stream.fit.offset_ns or 0
            pts, dts = pts + offset, dts + offset
            if stream.last_dts is not None and dts <= stream.last_dts:
                dts = stream.last_dts + _TICK_NS
            stream.last_dts = dts
            placed.append(Placed(packet, pts if pts > dts else dts, dts, packet.duration_ns or stream.duration_ns))
        return placed

    def disbelieved(self) -> dict[int, Disbelief]:
        """The streams that lie by arrival since the last call, for their clocks cannot be right."""
        found = {index: stream.disbelief for index, stream in self._streams.items() if stream.disbelief is not None}
        for index in found:
            self._streams[index].disbelief = None
        return found

    def _check_clocks(self, batch: Sequence[tuple[Demuxed, int]], now_ns: int) -> None:
        """A stream whose clock cannot be right lies by arrival from now on."""
        for index, stream in self._streams.items():
            own = [packet for packet, _ in batch if packet.stream == index]
            known = [one.pts_ns if one.pts_ns is not None else one.dts_ns for one in own]  # without a call for each
            times = [raw for raw in known if raw is not None]
            if stream.arrivals is not None or not times:
                continue
            lasts_ns = 0 if index in self._video else sum(one.duration_ns or stream.duration_ns for one in own)
            found = stream.check.look(now_ns, max(times), len(own), lasts_ns)
            if found is not None:
                stream.disbelief, distance_ns = found, found.distance_ns or stream.duration_ns
                looked_ns = now_ns if self._looked_ns is None else self._looked_ns
                stream.arrivals = ArrivalPlaces(found.scale, looked_ns, stream.last_dts, distance_ns)
                stream.order.restart()
                if 0 < found.scale < 1:
                    self._leave_fit(stream)
        self._looked_ns = now_ns

    def _leave_fit(self, stream: _Stream) -> None:
        """Others that had a clock in common with this one, which was too fast, follow their own arrivals."""
        fresh, left = ClockFit(), stream.fit
        for other in self._streams.values():
            if other.fit is left:
                other.fit = fresh

    def _places_by_arrival(self, batch: Sequence[tuple[Demuxed, int]], now_ns: int) -> dict[int, Iterator[int]]:
        places = {}
        for index, stream in self._streams.items():
            if stream.arrivals is not None and (packets := sum(packet.stream == index for packet, _ in batch)):
                places[index] = iter(stream.arrivals.of(packets, now_ns))
        return places

    def _shown_after(self, packet: Demuxed) -> int:
        """How long after its decode time a frame that lies by arrival is shown: its order is the sender's."""
        stream = self._streams[packet.stream]
        raw = _raw(packet)
        if stream.arrivals is None or not stream.arrivals.scale or raw is None or packet.stream not in self._video:
            return 0
        if self._trusts_dts and packet.dts_ns is not None:
            dts = packet.dts_ns
        else:
            dts = stream.order.dts_of(raw, packet.duration_ns or stream.duration_ns)
        return stream.arrivals.shown_after(raw - dts)

    def _find_beginnings(self, batch: list[tuple[Demuxed, int]], now_ns: int) -> bool:
        """Give the first packets of a stream times, by the first one that has any. False: wait for one."""
        if self._have_begun:
            return True
        self._have_begun = True
        for index, stream in self._streams.items():
            if stream.last_raw is not None:
                continue
            self._have_begun = False
            own = [packet for packet, _ in batch if packet.stream == index]
            times = [_raw(packet) for packet in own]
            known = next((n for n, time in enumerate(times) if time is not None), None)
            if known is None:
                if own and now_ns - batch[0][1] < NS:
                    self._held = batch
                    return False
                continue
            first = times[known]
            assert first is not None
            for n in range(known):
                own[n].pts_ns = first - (known - n) * (own[n].duration_ns or stream.duration_ns)
            if index in self._video:
                shown = [time for time in times if time is not None][:64]
                stream.order.depth = max(stream.order.depth, DecodeOrder.depth_of(shown))
        return True

    def _join_aligned(self, batch: Sequence[tuple[Demuxed, int]]) -> None:
        """Streams that begin share the clock of the others, if what they say of their zero fits how they arrive."""

        def delay_of(index: int) -> int | None:
            return min(
                (at - raw for one, at in batch if one.stream == index and (raw := _raw(one)) is not None), default=None
            )

        begun = [index for index, stream in self._streams.items() if stream.last_raw is not None]
        for index in sorted(self._streams, key=lambda index: index not in self._video):
            stream = self._streams[index]
            if stream.last_raw is not None or (delay_ns := delay_of(index)) is None:
                continue
            if begun:
                other = self._streams[begun[0]]
                its_delay_ns = delay_of(begun[0]) if other.fit.offset_ns is None else other.fit.offset_ns
                is_near = its_delay_ns is not None and abs(delay_ns - its_delay_ns) < _AGREES_NS
                if is_near and other.shift == 0:
                    stream.fit = other.fit
            begun.append(index)

    def _on_sender_clock(self, packet: Demuxed, arrival_ns: int) -> tuple[int, int]:
        """(pts, dts) on the sender's clock, as it was at the beginning of the connection."""
        stream = self._streams[packet.stream]
        duration_ns = packet.duration_ns or stream.duration_ns
        own = raw = packet.pts_ns if packet.pts_ns is not None else packet.dts_ns
        if raw is None:
            raw = 0 if stream.last_raw is None else stream.last_raw + duration_ns
        elif self._by_wall:
            if packet.sender_ns is not None:
                stream.follow_report(packet.sender_ns - raw, duration_ns)
            raw += stream.wall_offset or 0
        own = raw if own is None else own
        last = stream.last_raw
        if last is not None and not 0 <= raw - last < _AHEAD_NS and self._has_stepped(stream, raw, arrival_ns):
            self._follow_step(stream, raw, arrival_ns)
            if not -_BACK_NS < own - stream.last_own < _AHEAD_NS:  # not its reports alone
                stream.check.step(arrival_ns)
        stream.last_own = own
        pts = raw + stream.shift
        dts = packet.dts_ns if self._trusts_dts else None
        if dts is not None and packet.pts_ns is not None and dts <= packet.pts_ns:
            sent = pts - (packet.pts_ns - dts)
        elif packet.stream in self._video:
            sent = stream.order.dts_of(pts, duration_ns)
        else:
            sent = pts
        stream.last_raw = raw
        end = stream.last_end
        stream.last_end = (end if end is not None and end > sent else sent) + duration_ns
        return pts, sent

    def _has_stepped(self, stream: _Stream, raw: int, arrival_ns: int) -> bool:
        assert stream.last_raw is not None
        moved = raw - stream.last_raw
        if moved < -_BACK_NS:
            return True
        offset = stream.fit.offset_ns
        if abs(moved) < _AHEAD_NS or offset is None:
            return False
        assert stream.last_end is not None
        ahead = abs(raw + stream.shift - stream.last_end)
        for other in self._streams.values():  # as another stream did before it
            if other.shift != stream.shift and abs(raw + other.shift - stream.last_end) < ahead // 2:
                return True
        return raw + stream.shift + offset - arrival_ns > _AHEAD_NS

    def _follow_step(self, stream: _Stream, raw: int, arrival_ns: int) -> None:
        """Continue where the stream ended, or, after a hole, by arrival; as another stream that has stepped already."""
        self.stepped += 1
        assert stream.last_end is not None
        expected = stream.last_end
        if stream.fit.offset_ns is not None:
            by_arrival = arrival_ns - stream.fit.offset_ns
            if by_arrival - expected > _HOLE_NS:
                expected = by_arrival
        shifts = [other.shift for other in self._streams.values() if other is not stream]
        near = [shift for shift in shifts if abs(raw + shift - expected) < _SAME_STEP_NS]
        stream.shift = near[0] if near else expected - raw
        stream.order.restart()

    def _take_reports(self, batch: Sequence[tuple[Demuxed, int]]) -> None:
        """Once sender reports tell the wall time of all streams, that is their common clock.

        The first stream of frames continues seamlessly, the others take their place beside it.
        """
        streams = list(self._streams.values())
        are_aligned = self._is_aligned and len({(id(stream.fit), stream.shift) for stream in streams}) == 1
        for packet, _ in batch:
            raw, stream = _raw(packet), self._streams[packet.stream]
            if raw is None or packet.sender_ns is None:
                continue
            if are_aligned:
                stream.await_agreement(packet.sender_ns - raw, packet.duration_ns or stream.duration_ns)
            elif stream.wall_offset is None:
                stream.wall_offset = packet.sender_ns - raw
        if any(stream.wall_offset is None or stream.arrivals is not None for stream in streams):
            return
        if are_aligned and not self._reports_count(batch[-1][1]):
            return
        first = next((self._streams[index] for index in self._video), streams[0])
        if not self._are_plausible(batch):
            for stream in streams:
                stream.wall_offset = None  # the next ones may be right: a camera that has set its clock
            return
        shared = first.fit
        for stream in streams:
            assert stream.wall_offset is not None
            assert first.wall_offset is not None
            if are_aligned and abs(stream.wall_offset - first.wall_offset) < _REPORT_JITTER_NS:
                stream.wall_offset = first.wall_offset  # from where the reports are followed
            offset = stream.wall_offset or 0
            if stream is first:
                shared.moved(offset - stream.shift)
            if stream.last_raw is not None and stream.last_end is not None:
                stream.last_raw += offset
                stream.last_end += offset - stream.shift
            stream.fit, stream.shift = shared, 0
            stream.order.restart()
        self._shares_clock = self._by_wall = True

    def _reports_count(self, now_ns: int) -> bool:
        """Whether the reports of streams that are aligned agree among themselves, or will not."""
        if self._reported_since_ns is None:
            self._reported_since_ns = now_ns
        if now_ns - self._reported_since_ns > _REPORTS_AGREE_WITHIN_NS:
            return True
        return all(stream.agreed_ns > _AGREED_NS for stream in self._streams.values())

    def _are_plausible(self, batch: Sequence[tuple[Demuxed, int]]) -> bool:
        """Whether the reports say about what arrival says: some cameras report a wall clock for one stream alone, or
        clocks of their own for each."""

        def beside_arrival(index: int) -> int:
            stream = self._streams[index]
            arrived = stream.fit.offset_ns
            if arrived is None:  # the first batch
                delays = [
                    at - raw for packet, at in batch if packet.stream == index and (raw := _raw(packet)) is not None
                ]
                arrived = min(delays, default=0)
            return (stream.wall_offset or 0) - stream.shift - arrived

        places = [beside_arrival(index) for index in self._streams]
        return max(places) - min(places) < _CONTRADICTS_NS


class FileLine:
    """Places the packets of a file, which is played in real time. Belongs to one thread."""

    def __init__(self, streams: dict[int, StreamTimes], clock: Clock, *, trusts_dts: bool = True) -> None:
        self._clock = clock
        self._trusts_dts = trusts_dts
        self._streams = {
            index: _Stream(ClockFit(), times.duration_ns, times.reorder_depth) for index, times in streams.items()
        }
        self._video = {index for index, times in streams.items() if times.is_video}
        self._offset_ns: int | None = None  # monotonic minus the file's time
        self._end_ns = 0  # monotonic end of what was placed
        self._end_of_file_time = 0
        self._begin_of_file_time: int | None = None
        self._next_offset_ns: int | None = None  # where the file begins anew, when its thread is in time
        self._begun_ns = 0  # when the time line last began at the present time: a pause of before does not count
        self._delivered_until_ns = 0

    def look_ahead(self, packets: Sequence[Demuxed]) -> None:
        """What comes next: it tells how far frames are out of order."""
        for index in self._video:
            stream = self._streams[index]
            if stream.last_raw is None:
                shown = [time for packet in packets if packet.stream == index if (time := packet.pts_ns) is not None]
                stream.order.depth = max(stream.order.depth, DecodeOrder.depth_of(shown[:64]))

    def place(self, packet: Demuxed) -> Placed:
        """Times for the packet that follows in the file; none is left out."""
        stream = self._streams[packet.stream]
        duration_ns = packet.duration_ns or stream.duration_ns
        raw = _raw(packet)
        if raw is None:
            raw = stream.last_raw + duration_ns if stream.last_raw is not None else 0
        if stream.last_raw is not None and not -_BACK_NS <= raw - stream.last_raw <= _FILE_JUMP_NS:
            end = self._end_of_file_time
            shifts = [other.shift for other in self._streams.values() if other is not stream]
            near = [shift for shift in shifts if abs(raw + shift - end) < _FILE_JUMP_NS and shift != stream.shift]
            stream.shift = near[0] if near else end - raw
            stream.order.restart()
        pts = raw + stream.shift
        sent = packet.dts_ns if self._trusts_dts else None
        if sent is not None and packet.pts_ns is not None and sent <= packet.pts_ns:
            dts = pts - (packet.pts_ns - sent)
        elif packet.stream in self._video:
            dts = stream.order.dts_of(pts, duration_ns)
        else:
            dts = pts
        stream.last_raw = raw
        if packet.is_hidden:
            return self._place_hidden(packet, pts, dts, duration_ns)
        begin = pts + packet.hidden_ns
        self._end_of_file_time = max(self._end_of_file_time, pts + duration_ns)
        self._begin_of_file_time = begin if self._begin_of_file_time is None else min(begin, self._begin_of_file_time)
        if self._offset_ns is None:
            self._offset_ns = self._begin_offset_ns(dts)
        placed = dts + self._offset_ns
        if stream.last_dts is not None and placed <= stream.last_dts:
            placed = stream.last_dts + _TICK_NS
        stream.last_dts = placed
        self._end_ns = max(self._end_ns, placed + duration_ns)
        return Placed(packet, max(pts + self._offset_ns, placed), placed, duration_ns)

    def _place_hidden(self, packet: Demuxed, pts: int, dts: int, duration_ns: int) -> Placed:
        """In the past: an edit list begins to show a file at its time 0, and what lies before is not waited for."""
        if self._offset_ns is None:
            self._offset_ns = self._begin_offset_ns(max(dts, 0))
        return Placed(packet, max(pts, dts) + self._offset_ns, dts + self._offset_ns, duration_ns)

    def _begin_offset_ns(self, dts: int) -> int:
        """Where the input begins, or begins again: seamlessly, also by a thread that is a little late."""
        now = self._clock.monotonic_ns()
        if self._next_offset_ns is not None and now - self._end_ns < _LATE_NS:
            return self._next_offset_ns
        self._begun_ns = now
        return now - dts

    def is_due_later(self, dts_ns: int) -> bool:
        """Whether to wait before this packet: it lies behind what may be delivered by now."""
        if dts_ns <= self._delivered_until_ns:
            return False
        now = self._clock.monotonic_ns()
        if dts_ns <= now:
            self._delivered_until_ns = now
            return False
        # Wait once for a whole batch: everything up to then follows without another wait.
        self._delivered_until_ns = dts_ns + BATCH_NS
        return True

    def continue_after_rewind(self) -> None:
        """The file begins where it ended, as it is seen and heard: the first frames may be decoded before that."""
        if self._offset_ns is not None and self._begin_of_file_time is not None:
            self._next_offset_ns = self._offset_ns + self._end_of_file_time - self._begin_of_file_time
        self._offset_ns = self._begin_of_file_time = None
        self._end_of_file_time = 0
        for stream in self._streams.values():
            stream.last_raw, stream.shift = None, 0
            stream.order.restart()

    def resume(self, unit: Placed, paused_ns: int, resumed_ns: int) -> Placed:
        """Playing was paused and goes on: this packet, the first behind the pause, and all that follow come later."""
        waited_ns = max(0, resumed_ns - max(paused_ns, self._begun_ns))
        if self._offset_ns is not None:
            self._offset_ns += waited_ns
        self._end_ns += waited_ns
        self._delivered_until_ns = 0
        self._streams[unit.packet.stream].last_dts = unit.dts_ns + waited_ns
        return replace(unit, pts_ns=unit.pts_ns + waited_ns, dts_ns=unit.dts_ns + waited_ns)


def _raw(packet: Demuxed) -> int | None:
    return packet.pts_ns if packet.pts_ns is not None else packet.dts_ns
