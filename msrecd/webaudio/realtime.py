"""AudioContext: a graph on live tracks (https://webaudio.github.io/web-audio-api/#AudioContext).

Its clock is CLOCK_MONOTONIC: frame n is the sound of one moment, for every device. A thread renders a block once all
live tracks have delivered it, and no later than LATEST_S after its moment; a track that is late is silent for it, which
is counted. There is no loudspeaker: `destination` runs the graph and plays nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from msrecd import pixels
from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.dom.dictionaries import warn_of_unknown
from msrecd.dom.exceptions import InvalidStateError, NotSupportedError
from msrecd.flow.feed import Feed
from msrecd.flow.forgotten import WhenForgotten
from msrecd.flow.shutdown import end_with_process
from msrecd.flow.source import Source
from msrecd.flow.units import AudioBlock, AudioFormat
from msrecd.libav.floats import FixedFilters
from msrecd.libav.values import LibavError
from msrecd.media.element import MediaElement
from msrecd.media.inits import AudioContextOptions
from msrecd.media.sources import SharedSource
from msrecd.media.stream import MediaStream
from msrecd.media.track import _CONSTRUCTION, MediaStreamTrack
from msrecd.webaudio.context import BaseAudioContext
from msrecd.webaudio.dsp import QUANTUM, Samples
from msrecd.webaudio.intake import Intake, in_both, joined
from msrecd.webaudio.node import AudioNode, ChannelCountMode, Plan, sources_of
from msrecd.webaudio.param import checked_number
from msrecd.webaudio.straight import Straight, fades_within, straight

log = logging.getLogger(__name__)

BLOCK_S = 0.08  # rendered at a time: a wake-up costs more than the filters
PATIENT_BLOCK_S = 0.5  # where only recordings listen: their encoders gather sound anyway, and each wake-up costs
LATEST_S = 1.0  # after its moment a block is rendered, whoever is late
_STEP_S = 0.02
_SETTLED_BLOCKS = 20  # without a change before a straight graph is computed in one go again
_SOONER = 0.95  # a block is looked for a little sooner each time, until it is not there yet
_MUTED_S = 1.0  # a destination to which nothing has come for so long is muted, as a device is
_PAUSE_S = 0.002  # between blocks, however late: only while its thread does not hold it can a context be collected
_CLOSE_S = 5.0


class AudioContext(BaseAudioContext):
    """A graph in real time; it runs from the beginning, until `close` or until nobody can reach it any more."""

    def __init__(self, options: AudioContextOptions | None = None) -> None:
        """
        Args:
            options: `sample_rate` (48000); tracks of another rate are resampled.

        Raises:
            NotSupportedError: the rate is not 3000 to 768000 Hz.
        """
        if options is not None and not isinstance(options, Mapping):
            raise TypeError(f"the options of an AudioContext must be a mapping, not {type(options).__name__}")
        given: dict[str, Any] = dict(options or {})
        warn_of_unknown("AudioContext", given, ("sample_rate", "latency_hint"), stacklevel=3)
        hint = given.get("latency_hint", "interactive")
        if isinstance(hint, str) and hint not in ("balanced", "interactive", "playback"):
            raise TypeError(f"latency_hint must be 'balanced', 'interactive', 'playback' or seconds, not {hint!r}")
        super().__init__(checked_number("sample_rate", given.get("sample_rate", 48000.0)), 32)
        self._destination._count = 2
        self._ends: weakref.WeakSet[MediaStreamAudioDestinationNode] = weakref.WeakSet()
        self._taps: weakref.WeakSet[MediaStreamAudioSourceNode] = weakref.WeakSet()
        self._loop = asyncio.get_running_loop()
        self._thread: _Renderer | None = None
        self._origin_ns = 0
        self._plan_seen: Plan | None = None
        self._row: Straight | None = None  # the graph, if it is no more than that
        self._row_in_one: Straight | None = None  # ... and while it is computed in one go
        self._settled_blocks = 0
        self._usual_delay_s = 0.0  # between the moment of a block's end and its sound
        self._run()

    @property
    def base_latency(self) -> float:
        """Seconds of sound that are rendered at a time: longer where only recordings listen."""
        return PATIENT_BLOCK_S if self._is_patient() else BLOCK_S

    @property
    def output_latency(self) -> float:
        return 0.0

    async def suspend(self) -> None:
        """Stop the time of the context. Raises: InvalidStateError (closed)."""
        self._refuse_closed()
        await self._halt("suspended")

    async def resume(self) -> None:
        """Go on. Raises: InvalidStateError (closed)."""
        self._refuse_closed()
        if self._state == "suspended":
            self._run()

    async def close(self) -> None:
        """End the graph for good; tracks of its destinations end. Raises: InvalidStateError (closed already)."""
        self._refuse_closed()
        await self._halt("closed")
        for end in list(self._ends):
            end._source.finish()

    def create_media_stream_source(self, stream: MediaStream) -> MediaStreamAudioSourceNode:
        return MediaStreamAudioSourceNode(self, {"media_stream": stream})

    def create_media_element_source(self, element: MediaElement) -> MediaElementAudioSourceNode:
        return MediaElementAudioSourceNode(self, {"media_element": element})

    def create_media_stream_destination(self) -> MediaStreamAudioDestinationNode:
        return MediaStreamAudioDestinationNode(self)

    def _time_of(self, frame: int) -> int:
        """Moment of a frame in ns of CLOCK_MONOTONIC."""
        return self._origin_ns + round(frame * NS / self._rate)

    def _name_ends(self) -> None:
        """What only devices go into is a device to recorders: what it does not give, also after its end, is lost."""
        ids = [tap._track._source.device_id for tap in list(self._taps)]
        for end in list(self._ends):
            end._source.device_id = ids[0] if ids and all(ids) else ""

    def _refuse_closed(self) -> None:
        if self._state == "closed":
            raise InvalidStateError("the context is closed")

    def _run(self) -> None:
        self._origin_ns = SYSTEM_CLOCK.monotonic_ns() - round(self._rendered_frames * NS / self._rate)
        for tap in list(self._taps):
            tap._begin()
        self._thread = _Renderer(self)
        self._thread.start()
        self._set_state("running")

    async def _halt(self, state: Any) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.to_thread(thread.stop)
        for tap in list(self._taps):
            tap._pause()
        self._set_state(state)

    # --- in the rendering thread -------------------------------------------------------------------------------------

    def _turn(self) -> float:
        """Render the next block if it is due; seconds until the next look.

        No more than one: between them the thread sees that it is to end, also on a machine that never catches up.
        """
        seconds = PATIENT_BLOCK_S if self._is_patient() else BLOCK_S
        until = self._rendered_frames + math.ceil(seconds * self._rate / QUANTUM) * QUANTUM
        late_s = (SYSTEM_CLOCK.monotonic_ns() - self._time_of(until)) / NS
        if late_s < self._usual_delay_s:
            return self._usual_delay_s - late_s
        intakes = [tap._intake for tap in list(self._taps) if tap._intake is not None]
        missing = any(intake.available_until(self._origin_ns) < until and intake.is_live for intake in intakes)
        if missing and late_s < LATEST_S:
            self._usual_delay_s = min(late_s + _STEP_S, LATEST_S / 2)
            return _STEP_S
        self._usual_delay_s *= _SOONER
        while self._rendered_frames < until:
            self._render(until - self._rendered_frames)
        return 0.0

    def _is_patient(self) -> bool:
        """Whether nobody but encoders that gather their sound anyway hears or sees what is rendered."""
        if self._playing or self._plan is None or self._plan.is_watched:
            return False
        heard = [end._source.raw() for end in list(self._ends)]
        heard = [feed for feed in heard if feed.has_sinks]
        return bool(heard) and all(feed.is_patient for feed in heard)

    def _hurry(self) -> None:
        """Somebody waits for what has been heard so far."""
        thread = self._thread
        if thread is not None:
            thread.wake()

    def _compute(self, plan: Plan, first_frame: int, frames: int) -> None:
        if plan is not self._plan_seen:
            self._plan_seen, self._row = plan, self._straight(plan)
        row = self._row
        intake = None if row is None else row.tap._intake
        fixed = None if row is None or intake is None else row.fixed(intake.channels)
        self._settled_blocks = 0 if fixed is None else self._settled_blocks + 1
        old = self._row_in_one
        if old is not None and (old is not row or intake is None or fixed is None or fixed != intake.fixed):
            self._row_in_one, self._settled_blocks = None, 0
            before = old.tap._intake
            old.begin_by_nodes(before.filter_by(None) if before is not None and before.fixed else None)
        if row is not None and intake is not None and fixed is not None and self._row_in_one is None:
            is_time = self._settled_blocks >= _SETTLED_BLOCKS and fades_within(fixed.filters, intake.past_samples)
            if intake.is_whole or is_time:
                self._begin_in_one(row, intake, fixed)
        if row is None or intake is None or self._row_in_one is None:
            plan.render(first_frame, frames)
        else:
            row.end._heard = intake.take(first_frame, frames)

    def _begin_in_one(self, row: Straight, intake: Intake, fixed: FixedFilters) -> None:
        try:
            intake.filter_by(fixed)
        except LibavError as exc:
            log.info("the graph cannot be compiled; computing it node by node: %s", exc)
            self._row = None
        else:
            row.begin_in_one()
            self._row_in_one = row

    def _straight(self, plan: Plan) -> Straight | None:
        taps, ends = list(self._taps), list(self._ends)
        if len(taps) != 1 or len(ends) != 1:
            return None
        nodes = [node for node in plan.order if node is not self._destination or sources_of(node)]
        return straight(nodes, taps[0], ends[0])

    def _after_block(self, plan: Plan, first_frame: int, frames: int) -> None:
        missing = self._missing()
        for end in list(self._ends):
            end._deliver(plan.latency.get(end, 0), first_frame, missing)

    def _missing(self) -> list[tuple[int, int]]:
        """Ranges of the block just rendered in which all tracks lack sound, and nothing else plays."""
        intakes = [tap._intake for tap in list(self._taps) if tap._intake is not None]
        if not intakes or self._playing:
            return []
        missing = intakes[0].missing
        for intake in intakes[1:]:
            missing = in_both(missing, intake.missing)
        return missing

    def _failed(self, error: Exception) -> None:
        log.error("rendering an AudioContext failed; closing it: %s", error, exc_info=error)
        self._set_state("closed")
        for end in list(self._ends):
            end._source.finish(error)


class _Renderer(threading.Thread):
    """Holds its context only while it renders: one that nobody can reach any more is collected, and the thread ends."""

    def __init__(self, context: AudioContext) -> None:
        super().__init__(name="audio graph", daemon=True)
        self._context = weakref.ref(context)
        self._stopping = False
        self._waking = threading.Event()
        end_with_process(self, _Renderer._end)

    def run(self) -> None:
        wait_s = 0.0
        while True:
            if self._waking.wait(max(wait_s, _PAUSE_S)):
                self._waking.clear()
            context = self._context()
            if context is None or self._stopping:
                return
            try:
                wait_s = context._turn()
            except Exception as exc:
                context._failed(exc)
                return
            del context

    def wake(self) -> None:
        """Look now."""
        self._waking.set()

    def _end(self) -> None:
        self._stopping = True
        self._waking.set()

    def stop(self) -> None:
        """End it and wait, unless it is called by the thread itself."""
        self._end()
        if threading.current_thread() is not self:
            self.join(_CLOSE_S)


class MediaStreamAudioSourceNode(AudioNode):
    """The first audio track of a stream, by the order of track ids, as the specification has it."""

    _inputs = 0
    _options: tuple[str, ...] = ("media_stream",)

    def __init__(self, context: AudioContext, options: Mapping[str, Any]) -> None:
        """
        Raises:
            TypeError: `media_stream` is missing or no MediaStream.
            InvalidStateError: the stream has no audio track.
        """
        stream = options.get("media_stream")
        if not isinstance(stream, MediaStream):
            raise TypeError(f"media_stream must be a MediaStream, not {type(stream).__name__}")
        tracks = sorted(stream.get_audio_tracks(), key=lambda track: track.id)
        if not tracks:
            raise InvalidStateError("the stream has no audio track")
        super().__init__(context, options)
        self._stream = stream
        self._track = tracks[0]
        self._realtime = context
        self._intake: Intake | None = None
        self._listening: WhenForgotten[MediaStreamAudioSourceNode] | None = None
        with context._lock:
            context._taps.add(self)
            context._name_ends()
        if context.state != "suspended":
            self._begin()

    @property
    def media_stream(self) -> MediaStream:
        return self._stream

    @property
    def track(self) -> MediaStreamTrack:
        return self._track

    def _begin(self) -> None:
        """Listen to the track, on the loop."""
        if self._intake is not None:
            return
        source = self._track._source
        format = source.format
        assert isinstance(format, AudioFormat)
        intake = Intake(format, self._track._gate, round(self._realtime.sample_rate))
        feed = source.raw()
        feed.add(intake)
        self._intake = intake
        self._listening = WhenForgotten(self, partial(feed.remove, intake))

    def _pause(self) -> None:
        """Listen no more."""
        if self._listening is not None:
            self._listening.now()
        self._listening, self._intake = None, None

    def _compute(self, inputs: list[Samples], first_frame: int, frames: int) -> list[Samples]:
        intake = self._intake
        if intake is None:
            return [np.zeros((1, frames), dtype=np.float32)]
        return [intake.take(first_frame, frames)]


class MediaElementAudioSourceNode(MediaStreamAudioSourceNode):
    """The sound of a MediaElement."""

    _options = ("media_element", "media_stream")

    def __init__(self, context: AudioContext, options: Mapping[str, Any]) -> None:
        """
        Raises:
            TypeError: `media_element` is missing or no MediaElement.
            InvalidStateError: it has no sound, or is not loaded yet.
        """
        element = options.get("media_element")
        if not isinstance(element, MediaElement):
            raise TypeError(f"media_element must be a MediaElement, not {type(element).__name__}")
        super().__init__(context, {"media_stream": element.capture_stream(), **options})
        self._element = element

    @property
    def media_element(self) -> MediaElement:
        return self._element


class MediaStreamAudioDestinationNode(AudioNode):
    """What comes in, as a track of `stream`: 16 bits, at the context's rate, at the times at which it was captured.

    What all tracks that go in have lost is lost here as well: a recorder puts silence there and counts it.
    """

    _outputs = 0
    _channel_count_mode: ChannelCountMode = "explicit"

    def __init__(self, context: AudioContext, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(context, options)
        self._realtime = context
        self._heard: Samples | None = None
        self._missing: list[tuple[int, int]] = []  # frames of the context of which some has not come out yet
        self._source = _GraphSource(self, round(context.sample_rate))
        shared = SharedSource(self._source, self._source.close)
        shared.listen()
        rate = round(context.sample_rate)
        settings = {"sample_rate": rate, "sample_size": 16, "channel_count": self.channel_count}
        self._stream = MediaStream([_GraphTrack(_CONSTRUCTION, shared, settings)._keep(self)])
        with context._lock:
            context._ends.add(self)
            context._name_ends()

    @property
    def stream(self) -> MediaStream:
        return self._stream

    def _allow_channel_count(self, count: int) -> None:
        if getattr(self, "_source", None) is not None and self._source.raw().has_sinks and count != self.channel_count:
            raise NotSupportedError("the channel_count cannot change while the stream is being recorded")

    def _compute(self, inputs: list[Samples], first_frame: int, frames: int) -> list[Samples]:
        self._heard = inputs[0]
        return []

    def _deliver(self, latency_frames: int, first_frame: int, missing: Sequence[tuple[int, int]] = ()) -> None:
        """Give the block that was rendered last to the track, without the frames that are missing."""
        heard = self._heard
        if heard is None:
            return
        frames = heard.shape[1]
        known = joined([*self._missing, *((first_frame + begin, first_frame + end) for begin, end in missing)])
        shift = latency_frames - first_frame  # what a node looks ahead comes out in a later block
        self._missing = [(begin, end) for begin, end in known if end + shift > frames]
        missing = in_both([(begin + shift, end + shift) for begin, end in known], [(0, frames)])
        at = 0
        for begin, end in (*missing, (heard.shape[1], heard.shape[1])):
            if begin > at:
                piece = heard[:, at:begin]
                self._source.put(piece, self._realtime._time_of(first_frame + at - latency_frames))
            self._source.lose(end - begin)
            at = end


class _GraphTrack(MediaStreamTrack):
    """Keeps the graph alive: whoever holds the track, or a clone of it, needs nothing else to hear something."""

    _node: MediaStreamAudioDestinationNode | None = None

    def _keep(self, node: MediaStreamAudioDestinationNode | None) -> _GraphTrack:
        self._node = node
        return self

    def _twin(self) -> MediaStreamTrack:
        return _GraphTrack(_CONSTRUCTION, self._shared, self._settings, self._capabilities)._keep(self._node)


class _GraphSource(Source):
    """What the destination's track is a handle of."""

    kind = "audio"

    def __init__(self, node: MediaStreamAudioDestinationNode, sample_rate: int) -> None:
        super().__init__(label="audio graph")
        self._node = weakref.ref(node)  # a source must not keep its track, or neither is ever collected
        self._rate = sample_rate
        self._feed: Feed[AudioBlock] = Feed(on_hurry=self._hurry)
        self._feed.is_steady = True
        self._lost = 0  # frames since the last block

    @property
    def format(self) -> AudioFormat:
        node = self._node()
        return AudioFormat(sample_rate=self._rate, channels=2 if node is None else node.channel_count)

    def raw(self) -> Feed[AudioBlock]:
        return self._feed

    def put(self, samples: Samples, pts_ns: int) -> None:
        """A block of float32 or 16 bits (channels, frames), in the rendering thread."""
        lost, self._lost = self._lost, 0
        if self.muted:
            self.muted = False
            self.on_muted(False)
        if not self._feed.has_sinks:
            return
        if samples.dtype != np.int16:
            samples = samples.astype(np.float32, copy=False)
        channels, frames, pcm = pixels.packed_s16(samples)
        format = AudioFormat(sample_rate=self._rate, channels=channels)
        self.stats.delivered += 1
        self._feed.put(AudioBlock(pts_ns=pts_ns, format=format, samples=frames, data=pcm, lost_before=lost))

    def _hurry(self) -> None:
        node = self._node()
        if node is not None:
            node._realtime._hurry()

    def lose(self, frames: int) -> None:
        """So many frames are missing here; in the rendering thread."""
        self._lost += frames
        self.stats.lost_samples += frames
        if self._lost > _MUTED_S * self._rate and not self.muted:
            self.muted = True
            self.on_muted(True)

    def finish(self, error: BaseException | None = None) -> None:
        """The context has ended."""
        self._feed.end(error)
        self.on_ended(error)

    def close(self) -> None:
        self._feed.end(None)


__all__ = [
    "AudioContext",
    "MediaElementAudioSourceNode",
    "MediaStreamAudioDestinationNode",
    "MediaStreamAudioSourceNode",
]
