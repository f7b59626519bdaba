"""BaseAudioContext and OfflineAudioContext (https://webaudio.github.io/web-audio-api/#BaseAudioContext).

What the two kinds of context share: the graph, its plan, the factory methods. Changes are made on the loop; blocks are
rendered in one thread; the lock keeps a block and a change of the graph apart.
"""

from __future__ import annotations

import asyncio
import math
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from msrecd.dom.events import Event, event_handler
from msrecd.dom.exceptions import IndexSizeError, InvalidStateError, NotSupportedError
from msrecd.webaudio.dsp import QUANTUM, Samples
from msrecd.webaudio.generators import (
    AudioBuffer,
    AudioBufferSourceNode,
    AudioScheduledSourceNode,
    ConstantSourceNode,
    OscillatorNode,
    PeriodicWave,
)
from msrecd.webaudio.node import AudioNode, GraphOwner, Plan
from msrecd.webaudio.nodes import (
    AnalyserNode,
    BiquadFilterNode,
    ChannelMergerNode,
    ChannelSplitterNode,
    DelayNode,
    DynamicsCompressorNode,
    GainNode,
    StereoPannerNode,
)

ContextState = Literal["suspended", "running", "closed"]
BLOCK = 32 * QUANTUM  # frames rendered at a time, where no loop in the graph asks for single quanta


class AudioDestinationNode(AudioNode):
    """The end of the graph. There is no loudspeaker: in an OfflineAudioContext it is what the buffer gets."""

    _outputs = 0
    _channel_count_mode = "explicit"

    def __init__(self, context: BaseAudioContext, channels: int) -> None:
        self._channel_count = channels
        super().__init__(context)

    @property
    def max_channel_count(self) -> int:
        return self._channel_count

    def _allow_channel_count(self, count: int) -> None:
        if self._context._is_offline and count != self._channel_count:
            raise InvalidStateError("the destination of an OfflineAudioContext keeps its channel_count")
        if count > self._channel_count:
            raise IndexSizeError(f"the destination has at most {self._channel_count} channels")

    def _compute(self, inputs: list[Samples], first_frame: int, frames: int) -> list[Samples]:
        self._heard = inputs[0]
        return []


class BaseAudioContext(GraphOwner):
    """A graph and its time. Belongs to the loop."""

    _is_offline = False
    onstatechange = event_handler("statechange")

    def __init__(self, sample_rate: float, channels: int) -> None:
        super().__init__()
        if not 3000 <= sample_rate <= 768000:
            raise NotSupportedError(f"sample_rate must be 3000 to 768000 Hz, it is {sample_rate!r}")
        self._rate = float(sample_rate)
        self._state: ContextState = "suspended"
        self._lock = threading.RLock()
        self._nodes: weakref.WeakSet[AudioNode] = weakref.WeakSet()
        self._playing: set[AudioScheduledSourceNode] = set()  # started, not over: they sound though nobody holds them
        self._plan: Plan | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rendered_frames = 0
        self._destination = AudioDestinationNode(self, channels)

    @property
    def destination(self) -> AudioDestinationNode:
        return self._destination

    @property
    def sample_rate(self) -> float:
        return self._rate

    @property
    def current_time(self) -> float:
        """Seconds rendered so far."""
        return self._rendered_frames / self._rate

    @property
    def state(self) -> ContextState:
        return self._state

    # --- factory methods ---------------------------------------------------------------------------------------------

    def create_gain(self) -> GainNode:
        return GainNode(self)

    def create_biquad_filter(self) -> BiquadFilterNode:
        return BiquadFilterNode(self)

    def create_delay(self, max_delay_time: float = 1.0) -> DelayNode:
        return DelayNode(self, {"max_delay_time": max_delay_time})

    def create_dynamics_compressor(self) -> DynamicsCompressorNode:
        return DynamicsCompressorNode(self)

    def create_stereo_panner(self) -> StereoPannerNode:
        return StereoPannerNode(self)

    def create_channel_splitter(self, number_of_outputs: int = 6) -> ChannelSplitterNode:
        return ChannelSplitterNode(self, {"number_of_outputs": number_of_outputs})

    def create_channel_merger(self, number_of_inputs: int = 6) -> ChannelMergerNode:
        return ChannelMergerNode(self, {"number_of_inputs": number_of_inputs})

    def create_analyser(self) -> AnalyserNode:
        return AnalyserNode(self)

    def create_oscillator(self) -> OscillatorNode:
        return OscillatorNode(self)

    def create_constant_source(self) -> ConstantSourceNode:
        return ConstantSourceNode(self)

    def create_buffer_source(self) -> AudioBufferSourceNode:
        return AudioBufferSourceNode(self)

    def create_buffer(self, number_of_channels: int, length: int, sample_rate: float) -> AudioBuffer:
        return AudioBuffer({"number_of_channels": number_of_channels, "length": length, "sample_rate": sample_rate})

    def create_periodic_wave(
        self, real: Sequence[float], imag: Sequence[float], constraints: Mapping[str, Any] | None = None
    ) -> PeriodicWave:
        return PeriodicWave(self, {"real": real, "imag": imag, **(constraints or {})})

    # --- for nodes ---------------------------------------------------------------------------------------------------

    def _add(self, node: AudioNode) -> None:
        with self._lock:
            self._nodes.add(node)
            self._plan = None

    def _changed(self) -> None:
        """A connection came or went."""
        self._plan = None

    def _begun(self, node: AudioScheduledSourceNode) -> None:
        with self._lock:
            self._playing.add(node)

    def _queue(self, task: Callable[[], None]) -> None:
        """Run `task` on the loop, from any thread; nobody listens once the loop is closed."""
        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(task)
            except RuntimeError:
                return

    # --- rendering ---------------------------------------------------------------------------------------------------

    def _render(self, frames: int) -> int:
        """One block of at most `frames`; returns how many were rendered. In the rendering thread."""
        with self._lock, np.errstate(over="ignore", invalid="ignore", under="ignore"):
            plan = self._plan
            if plan is None:
                plan = self._plan = Plan(list(self._nodes))
            if plan.has_loop:
                frames = min(frames, QUANTUM)
            first = self._rendered_frames
            self._compute(plan, first, frames)
            self._after_block(plan, first, frames)
            self._rendered_frames = first + frames
            now = self.current_time
            for node in plan.order:
                for param in node._params.values():
                    param._settle(now)
            self._playing = {node for node in self._playing if not node._over}
        return frames

    def _compute(self, plan: Plan, first_frame: int, frames: int) -> None:
        """All nodes of a block."""
        plan.render(first_frame, frames)

    def _after_block(self, plan: Plan, first_frame: int, frames: int) -> None:
        """What becomes of a rendered block."""

    def _set_state(self, state: ContextState) -> None:
        if state != self._state:
            self._state = state
            self._queue(lambda: self._fire(Event("statechange")))


class OfflineAudioCompletionEvent(Event):
    """`complete` of an OfflineAudioContext."""

    def __init__(self, type: str, init: Mapping[str, Any]) -> None:
        super().__init__(type)
        self._buffer: AudioBuffer = init["rendered_buffer"]

    @property
    def rendered_buffer(self) -> AudioBuffer:
        return self._buffer


class OfflineAudioContext(BaseAudioContext):
    """Renders a graph into a buffer, as fast as it can, in a thread of its own."""

    _is_offline = True
    oncomplete = event_handler("complete")

    def __init__(
        self,
        number_of_channels: int | Mapping[str, Any],
        length: int | None = None,
        sample_rate: float | None = None,
    ) -> None:
        """
        Args:
            number_of_channels: of the buffer; or a mapping `{"number_of_channels": 1, "length", "sample_rate"}`.
            length: frames.
            sample_rate: Hz.

        Raises:
            TypeError: a value is missing or no number.
            NotSupportedError: a value is out of range.
        """
        options = number_of_channels if isinstance(number_of_channels, Mapping) else {}
        channels = options.get("number_of_channels", 1) if options else number_of_channels
        length, sample_rate = options.get("length", length), options.get("sample_rate", sample_rate)
        if not isinstance(channels, int) or not isinstance(length, int) or not isinstance(sample_rate, (int, float)):
            raise TypeError("OfflineAudioContext needs number_of_channels, length and sample_rate, all numbers")
        super().__init__(sample_rate, channels)
        self._length = length
        self._buffer = AudioBuffer({"number_of_channels": channels, "length": length, "sample_rate": sample_rate})
        self._written = 0
        self._started = False
        self._suspends: dict[int, asyncio.Future[None]] = {}  # by frame
        self._resumed: asyncio.Event | None = None

    @property
    def length(self) -> int:
        """Frames of the buffer."""
        return self._length

    async def start_rendering(self) -> AudioBuffer:
        """Render all of it.

        Raises:
            InvalidStateError: it was started before.
        """
        if self._started:
            raise InvalidStateError("start_rendering can be called once")
        self._started = True
        self._loop = asyncio.get_running_loop()
        self._set_state("running")
        while self._written < self._length:
            until = min((frame for frame in self._suspends if frame >= self._rendered_frames), default=None)
            if until == self._rendered_frames:
                await self._pause(self._suspends.pop(until))
                continue
            await asyncio.to_thread(self._render_until, until)
        self._set_state("closed")
        for waiting in self._suspends.values():
            if not waiting.done():
                waiting.cancel()
        complete = OfflineAudioCompletionEvent("complete", {"rendered_buffer": self._buffer})
        self._queue(lambda: self._fire(complete))
        return self._buffer

    async def suspend(self, suspend_time: float) -> None:
        """Return when rendering has stopped at `suspend_time` (rounded up to a quantum); `resume` goes on.

        Raises:
            InvalidStateError: that time is over, lies behind the end, or something waits for it already.
        """
        frame = math.ceil(suspend_time * self._rate / QUANTUM - 1e-9) * QUANTUM
        if frame < self._rendered_frames or frame >= self._length or suspend_time < 0 or frame in self._suspends:
            raise InvalidStateError(f"cannot suspend at {suspend_time!r} s")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._suspends[frame] = future
        await future

    async def resume(self) -> None:
        """Raises: InvalidStateError (not suspended)."""
        if self._resumed is None:
            raise InvalidStateError("the context is not suspended")
        self._resumed.set()

    async def _pause(self, waiting: asyncio.Future[None]) -> None:
        self._resumed = asyncio.Event()
        self._set_state("suspended")
        if not waiting.done():
            waiting.set_result(None)
        await self._resumed.wait()
        self._resumed = None
        self._set_state("running")

    def _render_until(self, frame: int | None) -> None:
        while self._written < self._length and (frame is None or self._rendered_frames < frame):
            self._render(BLOCK if frame is None else min(BLOCK, frame - self._rendered_frames))

    def _after_block(self, plan: Plan, first_frame: int, frames: int) -> None:
        begin = first_frame - plan.latency.get(self._destination, 0)  # what the nodes' latency made late
        heard = self._destination._heard
        skip = max(0, -begin)
        room = self._length - max(begin, 0)
        piece = heard[:, skip : skip + max(0, room)]
        if piece.shape[1]:
            at = begin + skip
            self._buffer.channels[:, at : at + piece.shape[1]] = piece
            self._written = at + piece.shape[1]
