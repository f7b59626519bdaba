"""RecorderWorker: the thread of one recording. Packets in, facts out; it never touches the disk."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msrecd.clock import MS, NS, SYSTEM_CLOCK, Clock
from msrecd.flow.encoded import EncodingError
from msrecd.flow.queue import UnitQueue
from msrecd.flow.shutdown import end_with_process
from msrecd.muxing.facts import Data, Fact, Finished, Ready
from msrecd.muxing.input import Arrival, TrackInput
from msrecd.muxing.interleave import Interleaver
from msrecd.muxing.poll_interval import BATCHED_S, POLL_S, poll_interval_s
from msrecd.muxing.preroll import PreRoll
from msrecd.muxing.recording import SHORT_TIMESLICE_NS, Recording, WorkerOptions

log = logging.getLogger(__name__)

PARAMETERS_DEADLINE_NS = 15 * NS  # for a source that delivers packets
ENCODER_DEADLINE_NS = 120 * NS  # for an encoder to be opened
DRAIN_DEADLINE_NS = 1 * NS  # for a track that gives nothing more
LAGGING_DEADLINE_NS = 8 * NS  # for an encoder that is late but at work: what it was given belongs to the recording
OPENING_DEADLINE_NS = 4 * NS  # for black whose encoder is still being opened; it begins in the past
EMPTY_TRACK_DEADLINE_NS = 250 * MS  # for one that gives frames when it likes, and has given none so far
_MISTAKES = (LookupError, TypeError, AttributeError, AssertionError, ArithmeticError)  # never raised on purpose
_BATCH = 128
_MAX_UNITS = 20_000
_MAX_ABSENCES = 64  # that are remembered; a pre-roll is short


# libav's muxer lets other threads run with each packet: those that mux as well would take turns packet by packet.
_TURN = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Command:
    verb: str
    at_ns: int = 0
    number: int = 0
    is_lost: bool = False


@dataclass(frozen=True, slots=True)
class _Begin:
    options: WorkerOptions
    post: Callable[[Fact], None]
    at_ns: int


class RecorderWorker(threading.Thread):
    """Commands (`begin`, `pause`, `resume`, `split`, `request_data`, `stop`, `gate_changed`) come from the loop, at
    once and in order; facts go out through `post`, one after the other, and end with exactly one Finished. Where all
    tracks come in batches, the thread that brings one records it: waking this one would cost more than muxing.

    A worker that is started before `begin` keeps the packets of the last `pre_roll_ns` in memory until then; if it is
    stopped, or all tracks end, before `begin`, it just ends and posts nothing.
    """

    def __init__(
        self,
        options: WorkerOptions,
        inputs: Sequence[TrackInput],
        *,
        pre_roll_ns: int = 0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(name=f"record-{options.name}", daemon=True)
        end_with_process(self, lambda worker: worker.stop(0))
        self._options = options
        self._inputs = list(inputs)
        self._clock = clock
        self._queue: UnitQueue[Arrival] = UnitQueue(
            max_units=_MAX_UNITS,
            max_bytes=options.max_buffered_bytes,
            size=lambda arrival: 0 if arrival.packet is None else len(arrival.packet.data),
            batch=_BATCH,
        )
        # Without a bound of its own: each is a call that must be answered with an event, and whoever calls for others
        # (MQTT) has one. They are small, and taken with every packet.
        self._commands: deque[_Command] = deque()
        self._interleaver = Interleaver(
            len(self._inputs),
            max_bytes=options.max_buffered_bytes // 2,
            coming=lambda track: self._inputs[track].coming_ns(),
        )
        self._created_ns = clock.monotonic_ns()
        video = next((i for i, track in enumerate(self._inputs) if track.kind == "video"), None)
        self._pre_roll = PreRoll(duration_ns=pre_roll_ns, max_bytes=options.max_buffered_bytes, video=video)
        self._begin: _Begin | None = None
        self._begin_lock = threading.Lock()
        self._is_over = False  # too late for `begin`
        self._recording: Recording | None = None
        self._failure: EncodingError | None = None
        self._stop_ns: int | None = None
        self._stop_seen_ns = 0
        self._late_ns = 0  # when the last packet came that a stopped recording still lacked
        self._absent: dict[int, int] = {}  # tracks whose source gives nothing: since when
        self._returning: dict[int, int] = {}  # tracks whose source is to give again: since when it did not
        self._past_absences: deque[tuple[int, int, int]] = deque(maxlen=_MAX_ABSENCES)  # within the pre-roll
        self.outstanding_bytes = 0  # written by the loop: what the consumer of the blobs has not finished with
        self._asked: list[_Command] = []
        self._comes_in_batches = False
        self._stepping = threading.Lock()  # one thread at a time is in `_step`
        self._may_step = False  # also one that brings a batch
        self._stepped_to_end = False
        self._broken: Exception | None = None  # what `_step` raised in another thread

    @property
    def pre_roll_bytes(self) -> int:
        """What is kept for the pre-roll. Any thread."""
        return self._pre_roll.size_bytes

    # --- from the loop -----------------------------------------------------------------------------------------------

    def begin(self, options: WorkerOptions, post: Callable[[Fact], None], at_ns: int) -> bool:
        """Record what is captured from `at_ns` on, and what the pre-roll holds. False: the worker has ended already."""
        with self._begin_lock:
            if self._is_over or self._begin is not None:
                return False
            self._begin = _Begin(options, post, at_ns)
        self._queue.nudge()
        return True

    def pause(self, at_ns: int) -> None:
        self._command(_Command("pause", at_ns))

    def resume(self, at_ns: int) -> None:
        self._command(_Command("resume", at_ns))

    def split(self) -> None:
        """End the chunk at the next key frame, and ask for one."""
        self._command(_Command("split"))

    def request_data(self, number: int) -> None:
        """Answer with a Data fact that carries this number: what is there, perhaps nothing."""
        self._command(_Command("data", self._clock.monotonic_ns(), number))

    def stop(self, at_ns: int) -> None:
        """Record what was captured before `at_ns`, then finish."""
        self._command(_Command("stop", at_ns))

    def gate_changed(self, track: int, is_open: bool, *, is_lost: bool = False) -> None:
        """A track's gate moved. is_lost: it is closed because the source gives nothing: what stands in is a loss."""
        self._command(_Command("open" if is_open else "close", self._clock.monotonic_ns(), track, is_lost))

    def _command(self, command: _Command) -> None:
        self._commands.append(command)
        self._queue.nudge()

    # --- the thread --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        error: BaseException | None = None
        try:
            self._record()
            error = self._failure
        except Exception as exc:
            error = exc
            if isinstance(exc, _MISTAKES):
                log.error("internal error, recording stopped", exc_info=exc)
            else:
                log.debug("recording stopped: %s", exc)
        with self._stepping:
            self._may_step = False
        last: Data | None = None
        recording = self._recording
        if recording is not None:
            last, failure = recording.finish()
            error = error or failure
            self._obey(recording)
        for track in self._inputs:
            track.disconnect()
        with self._begin_lock:
            self._is_over = True
            begin = self._begin
        if begin is not None:
            begin.post(Finished(data=last, error=error))
        elif error is not None:
            log.warning("%s keeps no pre-roll: %s", self.name, error)

    def _record(self) -> None:
        for track in self._inputs:
            track.connect(self._queue.offer, self._queue.nudge, self._batch_came, self._queue.offer_all)
            # A frame of before the start, which the encoder may still have, would be of no use as a key frame.
            track.request_key_frame(0 if self._begin is None else self._begin.at_ns)
        self._comes_in_batches = all(track.output.feed.gives_batches for track in self._inputs)
        if not self._wait_for_parameters():
            return
        for index, track in enumerate(self._inputs):
            self._move_gate(index, track.began_open, 0)
        begin = self._wait_for_begin()
        if begin is None:
            return
        recording = self._start_recording(begin)
        timeslice_ns = begin.options.timeslice_ns
        recording.emit_slice(batch_over=recording.gives_batches)  # of what was kept
        self._may_step = self._comes_in_batches
        while True:
            if timeslice_ns is not None and timeslice_ns < SHORT_TIMESLICE_NS:
                for track in self._inputs:
                    track.hurry(self._clock.monotonic_ns() + NS)  # an encoder's batches are longer than that
            self._queue.wait_for_batch(self._poll_interval_s(recording))
            with self._stepping:
                if self._broken is not None:
                    raise self._broken
                if self._stepped_to_end or self._step(recording):
                    return

    def _step(self, recording: Recording) -> bool:
        """Record what has arrived and obey what was asked for. True: that was all."""
        arrivals = self._queue.take_now()
        recording.outstanding_bytes = self.outstanding_bytes
        self._obey(recording)  # first: nothing that was captured after a gate closed may pass it
        self._take(arrivals)
        recording.holes.count(self._clock.monotonic_ns())
        drained = self._is_drained()
        for index, packet in self._interleaver.ready(flush=drained):
            recording.write(index, packet)
            if not recording.gives_batches:
                recording.emit_slice()  # packets may come many at a time; a blob ends where its timeslice does
        self._answer(recording)
        recording.emit_slice(batch_over=recording.gives_batches)
        return drained

    def _wait_for_parameters(self) -> bool:
        """True when all are known; False when stopped before."""
        while any(track.parameters is None for track in self._inputs):
            self._queue.wait(0.1)  # what comes stays there until it is known which gates are closed
            failed = next(
                (track for track in self._inputs if track.parameters is None and track.output.feed.ended), None
            )
            if failed is not None:
                raise failed.output.feed.error or RuntimeError(f"the {failed.kind} track ended before it gave anything")
            begin = self._begin
            stop = next((one for one in tuple(self._commands) if one.verb == "stop"), None)  # the loop may append
            if stop is not None and (begin is None or not self._is_coming(stop.at_ns)):
                return False
            waited = self._clock.monotonic_ns() - (self._created_ns if begin is None else begin.at_ns)
            if begin is not None:
                self._check_parameters(waited)
        self._queue.nudge()  # perhaps packets wait already
        return True

    def _is_coming(self, stop_ns: int) -> bool:
        """Whether an encoder that is still being opened has been given something of before the stop; for a while."""
        now_ns = self._clock.monotonic_ns()
        self._stop_seen_ns = self._stop_seen_ns or now_ns
        coming_ns = [track.coming_ns() for track in self._inputs]
        is_given = any(one is not None and one < stop_ns for one in coming_ns)
        return is_given and now_ns - self._stop_seen_ns < LAGGING_DEADLINE_NS

    def _check_parameters(self, waited_ns: int) -> None:
        """Give up a source that gives nothing; a machine that opens an encoder slowly gets its time.

        Raises:
            TimeoutError: it is given up.
        """
        for track in self._inputs:
            if track.parameters is not None:
                continue
            is_ours = track.output.has_encoder
            deadline_ns = ENCODER_DEADLINE_NS if is_ours else PARAMETERS_DEADLINE_NS
            deadline_ns += 3 * track.frame_interval_ns
            if waited_ns > deadline_ns:
                what = f"the {track.kind} {'encoder of' if is_ours else 'source'} {track.source.label!r}"
                raise TimeoutError(f"{what} gave nothing for {deadline_ns / NS:g} s")

    def _wait_for_begin(self) -> _Begin | None:
        """Keep the pre-roll until the recording begins; None when it never will."""
        while self._begin is None:
            arrivals = self._queue.take(POLL_S)
            self._obey(None)
            self._take(arrivals)
            for index, packet in self._interleaver.ready():
                self._pre_roll.push(index, packet)
            if self._stop_ns is not None or self._failure is not None or self._interleaver.all_ended:
                with self._begin_lock:
                    if self._begin is None:
                        self._is_over = True
                        return None
        return self._begin

    def _batch_came(self) -> None:
        """In a producer's thread: nothing follows for a while. Where all tracks come so, no timer is needed."""
        if not self._comes_in_batches or self._queue.is_empty:
            return
        if not self._may_step or not self._stepping.acquire(blocking=False):
            self._queue.flush()
            return
        try:
            if self._may_step and self._recording is not None:
                with _TURN:
                    self._stepped_to_end = self._step(self._recording)
        except Exception as exc:
            self._broken = exc
        finally:
            if self._stepped_to_end or self._broken is not None:
                self._may_step = False
            self._stepping.release()
        if not self._may_step:
            self._queue.nudge()

    def _poll_interval_s(self, recording: Recording) -> float:
        if self._comes_in_batches and self._stop_ns is None and not any(track.is_blank for track in self._inputs):
            return BATCHED_S
        is_filled = any(track.is_blank for track in self._inputs)  # by the time that passes, not by what arrives
        return poll_interval_s(recording.options.timeslice_ns, None if is_filled else recording.slice_lacks_ns)

    def _start_recording(self, begin: _Begin) -> Recording:
        kept = self._pre_roll.take()
        options = begin.options
        started_ns = kept[0][1].dts_ns if kept else begin.at_ns
        self._recording = recording = Recording(
            options,
            self._inputs,
            begin.post,
            started_ns=min(started_ns, begin.at_ns),
            clock=self._clock,
            gives_batches=self._comes_in_batches and options.is_eager,
        )
        recording.outstanding_bytes = self.outstanding_bytes
        parameters = [track.parameters for track in self._inputs if track.parameters is not None]
        begin.post(Ready(codec_strings={known.kind: known.codec_string for known in parameters}))
        for index, track in enumerate(self._inputs):
            if index in self._absent or track.gate.is_lost:
                recording.holes.begin_stand_in(index, self._absent.setdefault(index, begin.at_ns))
            elif index in self._returning:
                recording.holes.begin_stand_in(index, self._returning[index])
        for index, since_ns, until_ns in self._past_absences:
            recording.holes.note_stand_in(index, since_ns, until_ns)
        for index, packet in kept:
            recording.write(index, packet)
        return recording

    def _take(self, arrivals: list[Arrival]) -> None:
        for arrival in arrivals:
            track = self._inputs[arrival.track]
            if arrival.packet is None:
                self._end_track(arrival.track, arrival.error)
                continue
            packets = track.accept(arrival)
            if arrival.track in self._returning and packets and not arrival.blank:
                self._end_absence(arrival.track, self._returning.pop(arrival.track), packets[-1].pts_ns)
            for packet in packets:
                if self._stop_ns is not None and packet.dts_ns < self._stop_ns:
                    self._late_ns = self._clock.monotonic_ns()
                self._interleaver.push(arrival.track, packet)
        self._fill()
        if not arrivals:  # an end may not have found room in the queue
            for index, track in enumerate(self._inputs):
                if not track.ended and track.parameters is not None and track.output.feed.ended:
                    self._end_track(index, track.output.feed.error)

    def _fill(self) -> None:
        """What takes the place of a source that gives nothing."""
        for index, track in enumerate(self._inputs):
            if track.is_blank and not track.ended:
                for packet in track.fill(self._clock.monotonic_ns()):
                    self._interleaver.push(index, packet)

    def _end_track(self, index: int, error: BaseException | None) -> None:
        """A source that ends by itself, even broken, ends its tracks; only an encoder's failure ends the recording."""
        track = self._inputs[index]
        track.ended, track.error = True, error
        self._interleaver.end(index)
        if isinstance(error, EncodingError) and self._failure is None:
            self._failure = error

    def _obey(self, recording: Recording | None) -> None:
        while self._commands:
            command = self._commands.popleft()
            if command.verb in ("open", "close"):
                self._move_gate(command.number, command.verb == "open", command.at_ns)
                self._note_absence(command)
            elif command.verb == "stop":
                if self._stop_ns is None:
                    self._stop_ns = command.at_ns
                    self._stop_seen_ns = self._clock.monotonic_ns()
                    self._hurry(command.at_ns)
                    if recording is not None:
                        recording.stop(command.at_ns)
            elif recording is None:
                continue
            elif command.verb == "pause":
                recording.pause(command.at_ns)
            elif command.verb == "resume":
                recording.pauses.resume(command.at_ns)
                self._ask_for_key_frames(command.at_ns)
            elif command.verb == "split":
                recording.split()
                self._ask_for_key_frames(0)
            elif command.verb == "data":
                self._asked.append(command)

    def _answer(self, recording: Recording) -> None:
        for command in self._asked:
            recording.answer(command.number, command.at_ns)
        self._asked.clear()

    def _ask_for_key_frames(self, at_ns: int) -> None:
        for track in self._inputs:
            track.request_key_frame(at_ns)

    def _move_gate(self, index: int, is_open: bool, at_ns: int) -> None:
        self._inputs[index].set_gate(is_open, at_ns)

    def _note_absence(self, command: _Command) -> None:
        """What stands in for a source that gives nothing is a loss, from its last packet to its next one."""
        index, end_ns = command.number, self._interleaver.end_of(command.number)
        if command.verb == "close" and command.is_lost:
            lost_ns = min(command.at_ns, end_ns) if end_ns else command.at_ns
            self._absent[index] = self._returning.pop(index, lost_ns)
            if self._recording is not None:
                self._recording.holes.begin_stand_in(index, self._absent[index])
        elif (since_ns := self._absent.pop(index, None)) is not None:
            if command.verb == "open":
                self._returning[index] = since_ns
            else:  # disabled meanwhile: from here on nothing is lost
                self._end_absence(index, since_ns, command.at_ns)

    def _end_absence(self, index: int, since_ns: int, at_ns: int) -> None:
        if self._recording is not None:
            self._recording.holes.end_stand_in(index, at_ns)
        else:
            self._past_absences.append((index, since_ns, at_ns))

    def _hurry(self, stop_ns: int) -> None:
        """The end is awaited: packets are no longer gathered in batches."""
        self._queue.set_batch(1)
        for track in self._inputs if stop_ns > 0 else ():
            track.hurry(stop_ns)
            if track.source.written_until_ns is not None and stop_ns > track.source.written_until_ns:
                track.let_go()

    def _is_drained(self) -> bool:
        """Whether everything that belongs to the recording has arrived, or will not any more."""
        if self._interleaver.all_ended or self._failure is not None:
            return True
        if self._stop_ns is None:
            return False
        now_ns = self._clock.monotonic_ns()
        if now_ns - self._stop_seen_ns >= LAGGING_DEADLINE_NS:
            return True
        waited_ns = now_ns - max(self._stop_seen_ns, self._late_ns)
        is_opening = any(track.is_blank and self._interleaver.newest(i) is None for i, track in enumerate(self._inputs))
        deadline_ns = OPENING_DEADLINE_NS if is_opening else DRAIN_DEADLINE_NS
        return all(
            self._has_all(index, track, self._stop_ns, waited_ns, deadline_ns)
            for index, track in enumerate(self._inputs)
        )

    def _has_all(self, index: int, track: TrackInput, stop_ns: int, waited_ns: int, deadline_ns: int) -> bool:
        """Whether everything of a track that was captured before the stop is here, or is not worth waiting for."""
        newest = self._interleaver.newest(index)
        if track.ended or (newest is not None and newest >= stop_ns):
            return True
        until_ns = track.source.written_until_ns
        if until_ns is not None and newest is not None and newest >= until_ns:
            return True  # its program has written no more
        if track.kind == "audio" and self._interleaver.end_of(index) >= min(stop_ns, until_ns or stop_ns):
            return True  # sound knows where it ends; a frame ends where the next one begins
        coming_ns = track.coming_ns()
        if coming_ns is not None and coming_ns < stop_ns:
            return False
        flows = track.kind == "audio" or track.request.frame_rate is not None
        is_still = newest is None and not flows and not track.is_blank  # a canvas that was not painted on
        return waited_ns >= (EMPTY_TRACK_DEADLINE_NS if is_still else deadline_ns)
