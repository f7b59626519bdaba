"""Armed: a recording that has not begun, whose encodings run and whose last seconds are kept."""

from __future__ import annotations

from collections.abc import Callable

from msrecd.clock import Clock
from msrecd.media.plan import Plan
from msrecd.media.track import MediaStreamTrack
from msrecd.muxing.audioinput import AudioInput
from msrecd.muxing.input import TrackInput
from msrecd.muxing.recording import WorkerOptions
from msrecd.muxing.videoinput import VideoInput
from msrecd.muxing.worker import RecorderWorker


class Armed:
    """Runs a worker that keeps the pre-roll until a session takes it, or `release`. Belongs to the loop's thread.

    It lets go by itself when all its tracks have ended.
    """

    def __init__(self, plan: Plan, options: WorkerOptions, *, pre_roll_ns: int, clock: Clock) -> None:
        self.plan = plan
        self.worker = RecorderWorker(options, inputs_of(plan, clock), pre_roll_ns=pre_roll_ns, clock=clock)
        self._gates = watch_gates(plan, self.worker)
        self._open = True
        for track in plan.tracks:
            track._observe(self._track_ended)
        self.worker.start()

    def hand_over(self) -> RecorderWorker:
        """The worker, for who begins it; from now on the gates are that one's affair."""
        self._let_go()
        return self.worker

    def release(self) -> None:
        """Forget what is kept and end the encodings; idempotent, from any thread."""
        if self._let_go():
            self.worker.stop(0)

    def _let_go(self) -> bool:
        was_open, self._open = self._open, False
        if was_open:
            unwatch_gates(self._gates)
            for track in self.plan.tracks:
                track._unobserve(self._track_ended)
        return was_open

    def _track_ended(self, _: MediaStreamTrack) -> None:
        if all(track.ready_state == "ended" for track in self.plan.tracks):
            self.release()


GateWatchers = list[tuple[MediaStreamTrack, Callable[[bool], None]]]


def inputs_of(plan: Plan, clock: Clock) -> list[TrackInput]:
    return [
        (VideoInput if track.kind == "video" else AudioInput)(index, track._source, track._gate, request, clock=clock)
        for index, (track, request) in enumerate(zip(plan.tracks, plan.requests, strict=True))
    ]


def watch_gates(plan: Plan, worker: RecorderWorker) -> GateWatchers:
    """Tell the worker when a track is disabled, muted, or neither again."""

    def watcher(index: int, track: MediaStreamTrack) -> Callable[[bool], None]:
        return lambda is_open: worker.gate_changed(index, is_open, is_lost=track._gate.is_lost)

    watchers = [(track, watcher(index, track)) for index, track in enumerate(plan.tracks)]
    for track, call in watchers:
        track._gate.watch(call)
    return watchers


def unwatch_gates(watchers: GateWatchers) -> None:
    for track, call in watchers:
        track._gate.unwatch(call)
