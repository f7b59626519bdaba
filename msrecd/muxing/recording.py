"""Recording: what becomes of the packets of all tracks: pauses, cuts, gaps, chunks, blobs. In the worker's thread."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from msrecd.clock import MS, NS, SYSTEM_CLOCK, Clock
from msrecd.flow.units import Packet
from msrecd.muxing.chunk import ChunkWriter
from msrecd.muxing.earlysound import EarlySound
from msrecd.muxing.facts import ChunkInfo, Data, Fact
from msrecd.muxing.holes import Holes
from msrecd.muxing.input import TrackInput
from msrecd.muxing.losses import LossLedger
from msrecd.muxing.pauses import Pauses, join_after_pause
from msrecd.muxing.rotation import ChunkLimits, cut_before, wants_key_frame_at
from msrecd.muxing.shedding import Shedding
from msrecd.muxing.sidetracks import SideTracks
from msrecd.muxing.timeline import Timeline
from msrecd.vocabulary.formats import Container

log = logging.getLogger(__name__)

FIRST_VIDEO_DEADLINE_NS = 3 * NS
KEY_FRAME_LEAD_NS = 5 * NS  # frames wait for their sound: the encoder may be that far ahead of what is written
LONGEST_OVERLAP_NS = 10 * NS  # of a chunk with the one before it, when a second video track has no key frame for long
_LONGEST_TAIL_NS = 10 * NS  # of sound behind the last frame of a file
_STUMP_NS = NS // 4  # so little is no chunk of its own
_FOREVER_NS = 1 << 62  # a stop that waits for the end of the sources
SHORT_TIMESLICE_NS = 250 * MS  # what audio encoders gather, which spares wake-ups
_SHORTEST_FRAGMENT_NS = 20 * MS
_LONGEST_FRAGMENT_NS = 500 * MS
_UNASKED_FRAGMENT_NS = 200 * MS  # without a timeslice: what request_data can give lags by this at most


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """timeslice_ns: a blob at least every so much media (None: only at the end of a chunk).

    max_buffered_bytes: what may wait between the sources and the consumer of the blobs before whole GOPs are dropped.
    is_eager: the first blob comes when anything can be played; what came in a batch is given with it, from half a
    timeslice on.
    """

    container: Container
    timeslice_ns: int | None = None
    limits: ChunkLimits = field(default_factory=ChunkLimits)
    max_buffered_bytes: int = 64 << 20
    is_eager: bool = False
    name: str = "recorder"

    @property
    def fragment_ns(self) -> int:
        """Longest piece of media that the muxer keeps before it gives bytes."""
        if self.timeslice_ns is None:
            return _UNASKED_FRAGMENT_NS
        return max(_SHORTEST_FRAGMENT_NS, min(_LONGEST_FRAGMENT_NS, self.timeslice_ns // 2))


class Recording:
    """Takes packets in rising dts over all tracks; posts Data and GapSeen facts."""

    def __init__(
        self,
        options: WorkerOptions,
        inputs: Sequence[TrackInput],
        post: Callable[[Fact], None],
        *,
        started_ns: int,
        clock: Clock = SYSTEM_CLOCK,
        gives_batches: bool = False,
    ) -> None:
        """All inputs know their parameters; the first chunk is opened, its header written.

        Args:
            gives_batches: packets come many at a time, and `emit_slice` hears where a batch is over.

        Raises:
            LibavError: the container refuses the streams.
        """
        self.options = options
        self.pauses = Pauses()
        self.outstanding_bytes = 0  # what the consumer of the blobs has not finished with, as far as its owner knows
        self._inputs = inputs
        self._post = post
        self._clock = clock
        self._started_ns = started_ns
        self.gives_batches = gives_batches
        self._timeline = Timeline(len(inputs))
        self._video = next((i for i, track in enumerate(inputs) if track.kind == "video"), None)
        self._audio = next((i for i, track in enumerate(inputs) if track.kind == "audio"), None)
        self._held: list[Packet | None] = [None] * len(inputs)  # frames, until the successor tells their duration
        self._chunk: ChunkWriter | None = None
        self._side = SideTracks(inputs, self._video)
        self._has_side_tracks = sum(track.kind == "video" for track in inputs) > 1
        self._can_ask = self._has_side_tracks or any(
            track.kind == "video" and track.output.can_force_key_frames for track in inputs
        )
        self._before: ChunkWriter | None = None  # the chunk before, while a side track still belongs to it
        self._before_end_ns = 0  # where that one ends on the line
        self._chunks = 0
        self._blob_capture_ns: int | None = None
        self._newest_ns = 0
        self._sliced_until_ns = 0  # capture time up to which the last blob reaches
        self._split_asked = False
        self._key_asked_ns = -1
        self._wait_for_key = self._video is not None
        self._resumed_ns = 0
        self._skipped_audio: deque[Packet] = deque(maxlen=2)
        self._early_sound = EarlySound(inputs)
        self._shedding = Shedding(options.max_buffered_bytes)
        self._lapse = None if self._video is None else inputs[self._video].request.time_lapse
        self._losses = LossLedger(inputs, self._timeline, post, counts_sources=self._lapse is None)
        self._stop_ns: int | None = None
        self.holes = Holes(inputs, self._timeline, self._losses)
        self._open_chunk(started_ns)

    # --- packets -----------------------------------------------------------------------------------------------------

    def write(self, index: int, packet: Packet) -> None:
        if not self._is_wanted(index, packet):
            return
        is_cut_point = packet.is_keyframe and (index == self._video or self._video_is_gone())
        if not self._timeline.started:
            if self._wait_for_key and not self._can_begin(index, packet):
                self._early_sound.keep(index, packet)
                return
            self._begin(packet)
        elif self._wait_for_key:
            if not is_cut_point and not self._video_is_gone():
                if index == self._audio:
                    self._skipped_audio.append(packet)
                return
            self._continue(packet)
        if self._before is not None and self._may_close_before():
            self._close_before()
        if self._has_side_tracks and not self._side.has_begun(index, packet):
            if self._before is not None:
                self._put(index, packet, packet.duration_ns, self._before)
            return
        chunk = self._chunk
        assert chunk is not None, "the recording has ended"
        if (
            is_cut_point
            and self._before is None
            and cut_before(
                self._limits(chunk, packet),
                elapsed_ns=self._timeline.place(packet.dts_ns) - chunk.zero_ns,
                written_bytes=chunk.expected_bytes,
                packet_bytes=len(packet.data) + self._held_bytes,
                is_cut_point=True,
                asked=self._split_asked,
            )
        ):
            chunk = self._next_chunk(packet)
            self._side.has_begun(index, packet)  # when the first track is gone, it may be a side track's own
        if index == self._video:
            if self._lapse is None:
                self._hold(index, packet)
            else:  # what it lasts is known, and the next one may be an hour away
                self._put(index, packet, packet.duration_ns)
            if self._can_ask or self._inputs[index].is_blank:  # else there is no encoder to ask
                self._foresee_cut(chunk, packet)
        else:
            self._put(index, packet, packet.duration_ns)

    def _limits(self, chunk: ChunkWriter, packet: Packet) -> ChunkLimits:
        """When the chunk ends. What little comes before the stop stays with what is there already, and so does sound
        that outlasts the frames a little: players refuse a chunk whose video track is empty.
        """
        limits = self.options.limits
        if self._stop_ns is not None and self._stop_ns - packet.pts_ns < _STUMP_NS:
            return replace(limits, duration_ns=None)
        if (
            self._video is None
            or limits.duration_ns is None
            or not self._video_is_gone()
            or not chunk.holds(self._video)
        ):
            return limits
        is_device = bool(self._inputs[self._video].source.device_id)
        grace_ns = min(NS // 2, limits.duration_ns // 2) if is_device else max(limits.duration_ns, _LONGEST_TAIL_NS)
        return replace(limits, duration_ns=limits.duration_ns + grace_ns)

    @property
    def _held_bytes(self) -> int:
        """Of frames that belong to the chunk and wait for their successor."""
        return sum(len(held.data) for held in self._held if held is not None)

    def split(self) -> None:
        """The chunk ends at the next key frame."""
        self._split_asked = True

    def pause(self, at_ns: int) -> None:
        self._begin_with_sound()
        self.pauses.pause(at_ns)
        self._timeline.pause(at_ns)

    def stop(self, at_ns: int) -> None:
        """What is captured from `at_ns` on is not part of the recording."""
        self.holes.count(min(at_ns, self._clock.monotonic_ns()))  # what comes later is no loss
        self._stop_ns = self._losses.until_ns = at_ns

    def _last_end_ns(self) -> int:
        """Where on the line the recording ends: where it was stopped, unless all that it records ended before."""
        end_ns = self._timeline.end_ns
        if self._stop_ns is None or self._stop_ns >= _FOREVER_NS or all(track.ended for track in self._inputs):
            return end_ns
        return max(end_ns, self._timeline.line_of(self._stop_ns))

    def _is_cut_point(self, index: int, packet: Packet) -> bool:
        return packet.is_keyframe and (index == self._video or self._video_is_gone())

    def _is_wanted(self, index: int, packet: Packet) -> bool:
        is_plain = packet.pts_ns >= self._started_ns and self._stop_ns is None and self.pauses.is_idle  # nearly always
        return (is_plain or self._is_within(index, packet)) and not self._sheds(index, packet)

    def _is_within(self, index: int, packet: Packet) -> bool:
        """Whether it lies behind the start, before the stop and in no pause."""
        takes_past = self._inputs[index].takes_past
        if packet.pts_ns < self._started_ns and not (packet.is_keyframe or takes_past):
            return False
        if packet.pts_ns + packet.duration_ns <= self._started_ns and not takes_past:
            if packet.is_keyframe and self._inputs[index].kind == "video":
                self._inputs[index].request_key_frame(self._started_ns)  # this one came too early
            return False
        if self._stop_ns is not None and packet.pts_ns >= self._stop_ns:
            return False
        if not self.pauses.is_idle:
            if self.pauses.covers(packet.dts_ns):
                if index == self._audio:
                    self._skipped_audio.append(packet)
                return False
            resumed_ns = self.pauses.passed(packet.dts_ns)
            if resumed_ns is not None:
                self._wait_for_key = True
                self._resumed_ns = resumed_ns
        return True

    def _sheds(self, index: int, packet: Packet) -> bool:
        """Whether the packet is dropped because the consumer does not take the blobs."""
        if self.options.timeslice_ns is None:
            return False  # everything is kept for the one blob at the end, as the specification has it
        chunk = self._chunk
        waiting = self.outstanding_bytes + (chunk.pending_bytes if chunk is not None else 0)
        if self._shedding.since_ns is None and waiting <= self.options.max_buffered_bytes:
            return False  # nearly always
        was_shedding = self._shedding.since_ns is not None
        drops, since_ns = self._shedding.decide(waiting, packet.pts_ns, is_cut_point=self._is_cut_point(index, packet))
        if since_ns is not None:
            self._losses.lose(None, since_ns, packet.pts_ns, "slow_consumer")
            self.holes.may_begin_anywhere()
            self._side.begin_anew()
        if not drops:
            return False
        if not was_shedding:
            log.warning(
                "%s: %d KiB of blobs are unread; dropping until the consumer catches up",
                self.options.name,
                waiting >> 10,
            )
        self._losses.drop(index, packet.pts_ns)
        if self._video is not None and self._shedding.may_end(waiting):
            self._inputs[self._video].request_key_frame(0)
        return True

    def _can_begin(self, index: int, packet: Packet) -> bool:
        if index == self._video:
            return packet.is_keyframe
        # Sound alone begins only when the frame does not come.
        return self._video_is_gone() or (
            self._clock.monotonic_ns() - self._started_ns > FIRST_VIDEO_DEADLINE_NS
            and packet.pts_ns - self._started_ns > FIRST_VIDEO_DEADLINE_NS // 2
        )

    def _video_is_gone(self) -> bool:
        return self._video is None or self._inputs[self._video].ended

    def _begin_with_sound(self) -> None:
        """No frame comes, or not before a pause."""
        if not self._timeline.started:
            self._begin(None)

    def _begin(self, packet: Packet | None) -> None:
        """With this packet, or the sound that stands before it in a file; None: with that alone, if there is any."""
        sound = self._early_sound.take(None if packet is None else packet.dts_ns)
        first = sound[0][1] if sound else packet
        if first is None:
            return
        self._timeline.start(first.dts_ns)
        self._wait_for_key = packet is None and self._wait_for_key
        self._side.begin_anew()
        self._the_chunk.begins_at(first.dts_ns)
        for index, kept in sound:
            self._put(index, kept, kept.duration_ns)

    def _continue(self, packet: Packet) -> None:
        """After a pause: this packet joins what was written before."""
        self._release_held()
        self._wait_for_key = False
        self.holes.may_begin_anywhere()
        self._side.begin_anew()
        timeline, audio, video = self._timeline, self._audio, self._video
        skipped = list(self._skipped_audio)
        self._skipped_audio.clear()
        if video is None or audio is None or not timeline.track_end_ns(audio) or not skipped or self._video_is_gone():
            end_ns = timeline.end_ns if video is None else timeline.track_end_ns(video) or timeline.end_ns
            timeline.resume(packet.dts_ns, end_ns)
            return
        following_ns = skipped[-1].dts_ns + skipped[-1].duration_ns
        skipped = [kept for kept in skipped if kept.pts_ns + kept.duration_ns > self._resumed_ns]
        at_ns, first = join_after_pause(
            key_ns=packet.dts_ns,
            last_video_ns=timeline.track_last_ns(video),
            video_end_ns=timeline.track_end_ns(video),
            audio_end_ns=timeline.track_end_ns(audio),
            audio_starts_ns=[following_ns, *(kept.dts_ns for kept in reversed(skipped))],
        )
        timeline.resume(packet.dts_ns, at_ns)
        for kept in skipped[len(skipped) - first :]:
            self._put(audio, kept, kept.duration_ns)

    def _hold(self, index: int, packet: Packet) -> None:
        """Write the packet before this one, whose duration is known now."""
        before = self._held[index]
        self._held[index] = packet
        if before is not None:
            self._put(index, before, packet.dts_ns - before.dts_ns)

    def _put(self, index: int, packet: Packet, duration_ns: int, chunk: ChunkWriter | None = None) -> None:
        chunk = chunk or self._chunk
        assert chunk is not None, "the recording has ended"
        timeline = self._timeline
        if duration_ns <= 0:
            duration_ns = packet.duration_ns or duration_ns
        dts_ns = packet.dts_ns - timeline.zero_ns
        if not timeline.accepts(index, dts_ns, duration_ns) or dts_ns < chunk.zero_ns:
            self._losses.drop(index, packet.pts_ns)
            self.holes.note_refused(index)
            return
        self.holes.look(index, packet, dts_ns, duration_ns)
        timeline.written(index, dts_ns, dts_ns + duration_ns)
        pts_ns = packet.pts_ns - packet.dts_ns + dts_ns
        chunk.write(index, packet, pts_ns=pts_ns, dts_ns=dts_ns, duration_ns=duration_ns)
        if (end_ns := packet.pts_ns + duration_ns) > self._newest_ns:
            self._newest_ns = end_ns
        if self._blob_capture_ns is None:
            self._blob_capture_ns = packet.pts_ns

    def _release_held(self, following: Packet | None = None) -> None:
        for index, packet in enumerate(self._held):
            if packet is not None:
                self._held[index] = None
                joins = following is not None and index == self._video and not self._video_is_gone()
                self._put(
                    index, packet, following.dts_ns - packet.dts_ns if joins and following else packet.duration_ns
                )

    def _foresee_cut(self, chunk: ChunkWriter, packet: Packet) -> None:
        elapsed = packet.pts_ns - chunk.started_ns
        wanted = wants_key_frame_at(
            self.options.limits,
            chunk_start_ns=self._timeline.capture_of(chunk.zero_ns),
            written_bytes=chunk.expected_bytes,
            bytes_per_ns=chunk.expected_bytes / elapsed if elapsed > 0 else 0.0,
        )
        if wanted is None or wanted <= self._key_asked_ns:
            return
        assert self._video is not None
        track = self._inputs[self._video]
        # A source that can only make the next frame a key frame is asked when the next one is the one. Others are not
        # asked much sooner than needed: what is asked for stays with an encoder that others share, also when this
        # recording has ended.
        lead_ns = KEY_FRAME_LEAD_NS if track.output.can_time_key_frames else 0
        if packet.pts_ns + 2 * packet.duration_ns + lead_ns >= wanted:
            self._key_asked_ns = wanted
            track.request_key_frame(wanted)
            self._side.ask_at(wanted)

    # --- chunks and blobs --------------------------------------------------------------------------------------------

    @property
    def _the_chunk(self) -> ChunkWriter:
        assert self._chunk is not None, "the recording has ended"
        return self._chunk

    def _open_chunk(self, started_ns: int) -> None:
        self._chunks += 1
        self._chunk = ChunkWriter(
            number=self._chunks,
            container=self.options.container,
            streams=[track.parameters for track in self._inputs if track.parameters is not None],
            inputs=self._inputs,
            fragment_ns=self._fragment_ns,
            started_ns=started_ns,
            time_lapse=self._lapse,
            is_flushed=self.gives_batches,
        )

    @property
    def _fragment_ns(self) -> int:
        """Short timeslices of sound alone are kept to a packet; with video a fragment for each would cost too much.

        A frame of a time-lapse is one: the next may come much later.
        """
        if self._lapse is not None:
            return self._lapse.playing_ns(1) // 2
        timeslice_ns = self.options.timeslice_ns
        if self._video is None and timeslice_ns is not None and timeslice_ns < SHORT_TIMESLICE_NS:
            return _SHORTEST_FRAGMENT_NS
        return self.options.fragment_ns

    def _next_chunk(self, packet: Packet) -> ChunkWriter:
        self._release_held(packet)
        self.holes.count(self._clock.monotonic_ns())
        self.holes.look_at_end(self._the_chunk.zero_ns, self._timeline.end_ns, is_last=False)
        self._before, self._chunk = self._chunk, None
        self._before_end_ns = self._timeline.place(packet.dts_ns)
        if not self._side.begin_anew():
            self._close_before()
        self._open_chunk(packet.dts_ns)
        self._the_chunk.continues(self._timeline.place(packet.dts_ns), packet.dts_ns)
        self._split_asked = False
        return self._the_chunk

    def _may_close_before(self) -> bool:
        """Whether nothing more comes for the chunk before; a side track without key frames is not waited for."""
        late_ns = self._timeline.end_ns - self._the_chunk.zero_ns
        return not self._side.is_waiting or late_ns > LONGEST_OVERLAP_NS

    def _close_before(self) -> None:
        chunk, self._before = self._before, None
        if chunk is None:
            return
        failure = self._close(chunk)
        losses = self._losses.account(chunk.zero_ns, self._before_end_ns)
        self._post(self._data(chunk, info=chunk.info(losses, self._clock.monotonic_ns())))
        if failure is not None:
            raise failure

    def _close(self, chunk: ChunkWriter) -> Exception | None:
        try:
            chunk.close()
        except Exception as exc:
            return exc
        return None

    def finish(self) -> tuple[Data | None, Exception | None]:
        """Write what is held and close; the last data, and what went wrong on the way."""
        chunk = self._chunk
        if chunk is None:
            return None, None
        failure: Exception | None = None
        for step in (
            self._begin_with_sound,
            self._close_before,
            self._release_held,
            lambda: self.holes.count(self._clock.monotonic_ns()),
            lambda: self.holes.look_at_end(chunk.zero_ns, self._last_end_ns(), is_last=True),
        ):
            try:
                step()
            except Exception as exc:
                failure = failure or exc
        closing = self._close(chunk)
        losses = self._losses.account(chunk.zero_ns, self._last_end_ns(), is_last=True)
        self._chunk = None
        until_ns = self._clock.monotonic_ns() if self._stop_ns is None else self._stop_ns
        return self._data(chunk, info=chunk.info(losses, until_ns)), failure or closing

    def emit_slice(self, *, batch_over: bool = False) -> None:
        """Give a blob when there is enough for one.

        Args:
            batch_over: nothing comes for about as long as it took this to come.
        """
        chunk, timeslice = self._before or self._chunk, self.options.timeslice_ns
        if chunk is None or timeslice is None or self._blob_capture_ns is None:
            return
        if self.options.is_eager:
            if not self._sliced_until_ns:
                if batch_over:
                    chunk.flush()
                timeslice = 0 if chunk.has_media else timeslice
            elif batch_over:
                timeslice //= 2
        if self._newest_ns - self._slice_begin_ns < timeslice:
            return
        if batch_over:
            chunk.flush()
        if chunk.pending_bytes:
            self._sliced_until_ns = self._newest_ns
            self._post(self._data(chunk))

    @property
    def _slice_begin_ns(self) -> int:
        """Where the blob at hand begins: tracks overlap by a frame where one has just been given."""
        return max(self._blob_capture_ns or 0, self._sliced_until_ns)

    @property
    def slice_lacks_ns(self) -> int | None:
        """How much media is missing until `emit_slice` has something to give; None when that cannot be told."""
        timeslice = self.options.timeslice_ns
        if timeslice is None or self._wait_for_key or not self._timeline.started:
            return None
        if self._blob_capture_ns is None or self._lapse is not None:
            return timeslice
        return max(0, timeslice - (self._newest_ns - self._slice_begin_ns))

    def answer(self, request: int, asked_ns: int) -> None:
        """Give what there is, perhaps nothing."""
        chunk = self._before or self._chunk  # its blobs come first
        if chunk is not None:
            if self.gives_batches:
                chunk.flush()
            self._post(self._data(chunk, request=request, asked_ns=asked_ns))

    def _data(
        self, chunk: ChunkWriter, *, info: ChunkInfo | None = None, request: int | None = None, asked_ns: int = 0
    ) -> Data:
        created, self._blob_capture_ns = self._blob_capture_ns, None
        return Data(
            parts=tuple(chunk.take()),
            created_ns=created if created is not None else (asked_ns or chunk.started_ns),
            chunk=chunk.number,
            started_ns=chunk.started_ns,
            chunk_end=info is not None,
            request=request,
            info=info,
        )
