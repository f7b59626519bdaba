"""LossLedger: everything that one recording lacks, entered once and read by its chunks. In the worker's thread.

Who enters: the sources' and encoders' counters (`poll`), the queue between them and the worker, the writing itself
(holes between packets, packets that have no place), blobs that the consumer does not take, black and silence that
stand in for a device that gives nothing, and tracks that ended while others go on. Times are those of capture
(CLOCK_MONOTONIC); they become places on the recording's time line, where pauses have no length. A loss that was entered
already, by whomever, is not entered again: of overlapping ones only the rest counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msrecd.clock import MS, NS
from msrecd.flow.encoded import LossReader
from msrecd.muxing.facts import Fact, Gap, GapReason, GapSeen
from msrecd.muxing.input import TrackInput
from msrecd.muxing.timeline import Timeline

_MAX_SPANS = 1000  # that wait for their chunk; beyond that, neighbours become one
_NEIGHBOURS_NS = 5 * MS  # losses of one reason that are no further apart are one
_LEAST_GAP_NS = 1 * MS  # less is rounding


@dataclass(slots=True)
class _Span:
    """A loss on the recording's line; end_ns None: it still goes on. track None: of all tracks."""

    track: int | None
    reason: GapReason
    begin_ns: int
    end_ns: int | None
    accounted_ns: int  # up to here it stands in the accounts of a chunk
    published_ns: int  # up to here it was published


@dataclass(slots=True)
class ChunkLosses:
    """What a chunk lacks; the lists have an entry for each track; lost_ns: for how long all tracks lack at once."""

    gaps: list[Gap] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    xruns: list[int] = field(default_factory=list)
    gap_ns: list[int] = field(default_factory=list)
    lost_ns: int = 0


class LossLedger:
    """Posts a GapSeen once for each loss: when it is over, or when a chunk ends before that, for what lies in it."""

    def __init__(
        self,
        inputs: Sequence[TrackInput],
        timeline: Timeline,
        post: Callable[[Fact], None],
        *,
        counts_sources: bool = True,
    ) -> None:
        """
        Args:
            counts_sources: frames that a source loses are lost; of a time-lapse few would have been kept, and where one
                of those lacks there is a hole.
        """
        self._inputs = inputs
        self._timeline = timeline
        self._post = post
        self._spans: deque[_Span] = deque()
        self._drops: list[deque[tuple[int, int]]] = [deque() for _ in inputs]  # (place, frames)
        self._xruns: list[deque[tuple[int, int]]] = [deque() for _ in inputs]
        self._counts_sources = counts_sources
        self._counted = [_counters(track, counts_sources) for track in inputs]
        self._logs = [LossReader(track.output.facts.losses) for track in inputs]
        self._zero_ns = 0  # of the chunk at hand, on the line
        self.until_ns: int | None = None  # capture time from which on nothing belongs to the recording

    # --- entering ----------------------------------------------------------------------------------------------------

    def poll(self, now_ns: int) -> None:
        """Enter what sources, encoders and queues have counted since the last call.

        What has a place in time counts where that lies in the recording, which may begin before it is asked for
        (pre-roll): it waits until it is known where the line begins.
        """
        for index, track in enumerate(self._inputs):
            counted = _counters(track, self._counts_sources)
            self.drop(index, now_ns, counted - self._counted[index])
            self._counted[index] = counted
            if not self._timeline.started:
                continue
            for loss in self._logs[index].take():
                self.drop(index, loss.at_ns, loss.frames)
                if loss.duration_ns:
                    self._count(self._xruns[index], loss.at_ns, 1)
                    self.lose(index, loss.at_ns, loss.at_ns + loss.duration_ns, "lost_sound")
            for at_ns in track.take_refused():
                self.drop(index, at_ns)

    def drop(self, track: int, at_ns: int, frames: int = 1) -> None:
        """So many frames (packets of sound) of a track, captured at this time, are lost."""
        self._count(self._drops[track], at_ns, frames)

    def lose(self, track: int | None, begin_ns: int, end_ns: int, reason: GapReason) -> None:
        """Nothing is there from `begin_ns` to `end_ns`."""
        if self.until_ns is not None:
            end_ns = min(end_ns, self.until_ns)
        line = self._timeline
        if not line.started or end_ns <= begin_ns:
            return
        for begin, end in self._unknown(track, line.line_of(begin_ns), line.line_of(end_ns)):
            if end - begin >= _LEAST_GAP_NS:
                self._add(_Span(track, reason, begin, end, begin, begin))

    def begin(self, track: int, at_ns: int, reason: GapReason) -> None:
        """From `at_ns` on nothing of this track is there, until `end`."""
        if self._timeline.started and self._open_span(track) is None:
            at = self._timeline.line_of(at_ns)
            self._spans.append(_Span(track, reason, at, None, at, at))

    def end(self, track: int, at_ns: int) -> None:
        """The track is there again from `at_ns` on."""
        span = self._open_span(track)
        if span is not None:
            self._finish(span, self._timeline.line_of(at_ns))

    def is_open(self, track: int) -> bool:
        """Whether `begin` was called for this track, and not `end`."""
        return self._open_span(track) is not None

    # --- reading -----------------------------------------------------------------------------------------------------

    def account(self, zero_ns: int, end_ns: int, *, is_last: bool = False) -> ChunkLosses:
        """What lacks between two places of the line, the chunk's begin and end. Once for each chunk, in order.

        Args:
            is_last: no chunk follows: losses that still go on end here, and what lies behind is this chunk's too.
        """
        found = ChunkLosses(gap_ns=[0] * len(self._inputs))
        limit_ns = None if is_last else end_ns
        kept: deque[_Span] = deque()
        missing: list[list[tuple[int, int]]] = [[] for _ in self._inputs]
        for span in self._spans:
            if is_last and span.end_ns is None:
                self._finish(span, max(end_ns, span.begin_ns))
            stop_ns = end_ns if span.end_ns is None else span.end_ns
            if limit_ns is not None:
                stop_ns = min(stop_ns, limit_ns)
            begin_ns = max(span.begin_ns, span.accounted_ns)
            if stop_ns > begin_ns:
                gap = _gap(begin_ns, stop_ns, span.reason, zero_ns)
                found.gaps.append(gap)
                for index in range(len(self._inputs)) if span.track is None else (span.track,):
                    found.gap_ns[index] += stop_ns - begin_ns
                    missing[index].append((begin_ns, stop_ns))
                span.accounted_ns = stop_ns
                self._publish(span, stop_ns)
            if span.end_ns is None or span.accounted_ns < span.end_ns:
                kept.append(span)
        self._spans = kept
        found.lost_ns = _common_ns(missing)
        found.gaps.sort(key=lambda gap: gap.at_s)
        found.dropped = [_take(drops, limit_ns) for drops in self._drops]
        found.xruns = [_take(xruns, limit_ns) for xruns in self._xruns]
        self._zero_ns = end_ns
        return found

    # --- the spans ---------------------------------------------------------------------------------------------------

    def _count(self, counts: deque[tuple[int, int]], at_ns: int, number: int) -> None:
        line = self._timeline
        if number <= 0 or not line.holds(at_ns) or (self.until_ns is not None and at_ns >= self.until_ns):
            return
        place = line.line_of(at_ns)
        if counts and (len(counts) >= _MAX_SPANS or counts[-1][0] == place):
            counts[-1] = (counts[-1][0], counts[-1][1] + number)
        else:
            counts.append((place, number))

    def _open_span(self, track: int) -> _Span | None:
        return next((span for span in self._spans if span.track == track and span.end_ns is None), None)

    def _unknown(self, track: int | None, begin_ns: int, end_ns: int) -> list[tuple[int, int]]:
        """The parts that no span of this track, or of all tracks, covers yet."""
        parts = [(begin_ns, end_ns)] if end_ns > begin_ns else []
        for span in self._spans:
            if span.track is not None and span.track != track:
                continue
            stop_ns = 1 << 62 if span.end_ns is None else span.end_ns
            parts = [
                (begin, end)
                for low, high in parts
                for begin, end in ((low, min(high, span.begin_ns)), (max(low, stop_ns), high))
                if end > begin
            ]
        return parts

    def _add(self, span: _Span) -> None:
        assert span.end_ns is not None
        before = next((known for known in reversed(self._spans) if known.track == span.track), None)
        if before is not None and before.end_ns is not None and before.reason == span.reason:
            apart_ns = span.begin_ns - before.end_ns
            if 0 <= apart_ns <= _NEIGHBOURS_NS or len(self._spans) >= _MAX_SPANS:
                before.end_ns = max(before.end_ns, span.end_ns)
                self._publish(before, before.end_ns)
                return
        self._spans.append(span)
        self._publish(span, span.end_ns)

    def _finish(self, span: _Span, end_ns: int) -> None:
        span.end_ns = max(span.begin_ns, end_ns)
        self._publish(span, span.end_ns)

    def _publish(self, span: _Span, until_ns: int) -> None:
        begin_ns = max(span.begin_ns, span.published_ns)
        if until_ns - begin_ns >= _LEAST_GAP_NS:
            span.published_ns = until_ns
            gap = _gap(begin_ns, until_ns, span.reason, self._zero_ns)
            self._post(GapSeen(at_ns=self._timeline.capture_of(begin_ns), gap=gap))


def _gap(begin_ns: int, end_ns: int, reason: GapReason, zero_ns: int) -> Gap:
    at_s = max(0.0, (begin_ns - zero_ns) / NS)
    return Gap(at_s=round(at_s, 3), duration_s=round((end_ns - begin_ns) / NS, 3), reason=reason)


def _common_ns(missing: Sequence[Sequence[tuple[int, int]]]) -> int:
    """For how long all tracks lack; the spans of one track do not overlap."""
    common = sorted(missing[0]) if missing else []
    for spans in missing[1:]:
        pairs = ((max(a, c), min(b, d)) for a, b in common for c, d in spans)
        common = [(begin, end) for begin, end in pairs if end > begin]
    return sum(end - begin for begin, end in common)


def _take(counts: deque[tuple[int, int]], limit_ns: int | None) -> int:
    """The sum of what lies before the limit; it is gone then."""
    total = 0
    while counts and (limit_ns is None or counts[0][0] < limit_ns):
        total += counts.popleft()[1]
    return total


def _counters(track: TrackInput, counts_sources: bool) -> int:
    """Frames that were lost before or in the encoding; what a source loses before `raw()` does not touch its own."""
    facts = track.output.facts
    return facts.dropped + (track.source.stats.dropped if track.output.has_encoder and counts_sources else 0)
