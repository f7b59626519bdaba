"""AudioNode and the rendering of a graph (https://webaudio.github.io/web-audio-api/#AudioNode).

A graph is described on the loop and rendered, block by block, in one thread of its context. A block is any number of
render quanta. Parallel paths stay aligned: a connection whose path has less latency than another one into the same
place delays its sound by the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import numpy as np

from msrecd.dom.dictionaries import warn_of_unknown
from msrecd.dom.events import EventTarget
from msrecd.dom.exceptions import IndexSizeError, InvalidAccessError, NotSupportedError
from msrecd.webaudio.dsp import DelayLine, Samples, remix
from msrecd.webaudio.param import AudioParam, AutomationRate

if TYPE_CHECKING:
    from msrecd.webaudio.context import BaseAudioContext

ChannelCountMode = Literal["max", "clamped-max", "explicit"]
ChannelInterpretation = Literal["speakers", "discrete"]
MAX_CHANNELS = 32
N = TypeVar("N", bound="AudioNode")


class GraphOwner(EventTarget):
    """What nodes know a context by: the base of BaseAudioContext."""


class Connection:
    """From one output of a node to an input of another one, or to a parameter."""

    __slots__ = ("_line", "entries", "output", "pad", "source", "target", "target_input")

    def __init__(
        self,
        source: AudioNode,
        output: int,
        target: AudioNode | AudioParam,
        target_input: int,
        entries: list[Connection],
    ) -> None:
        self.entries = entries  # where the target keeps it
        self.source = source
        self.output = output
        self.target = target
        self.target_input = target_input
        self.pad = 0  # frames by which this path is delayed, to arrive with the slowest one
        self._line: DelayLine | None = None

    def pull(self) -> Samples:
        """What the source gives for the present block."""
        samples = self.source._rendered[self.output]
        if not self.pad:
            return samples
        if self._line is None or self._line.longest != self.pad:
            self._line = DelayLine(self.pad)
        return self._line.process(samples, np.full(samples.shape[1], float(self.pad)))


class AudioNode(EventTarget):
    """Base of all nodes. Connect and set on the loop; `process` runs in the rendering thread."""

    _inputs = 1
    _outputs = 1
    _channel_count = 2
    _channel_count_mode: ChannelCountMode = "max"
    _channel_interpretation: ChannelInterpretation = "speakers"
    _is_watched = False  # whether a program looks at it while it renders: then blocks stay short
    _options: tuple[str, ...] = ()  # members of the options that a subclass takes, beside the channel options

    def __init__(self, context: BaseAudioContext, options: Mapping[str, Any] | None = None) -> None:
        """
        Args:
            context: whose graph it belongs to.
            options: those of the specification's dictionary, in snake_case.

        Raises:
            TypeError: `options` is no mapping; a value has the wrong type.
        """
        super().__init__()
        if not isinstance(context, GraphOwner):
            raise TypeError(f"a {type(self).__name__} needs a context, not {type(context).__name__}")
        self._context = context
        self._count = self._channel_count
        self._mode: ChannelCountMode = self._channel_count_mode
        self._interpretation: ChannelInterpretation = self._channel_interpretation
        self._connections_in: list[list[Connection]] = [[] for _ in range(self._inputs)]
        self._connections_out: list[Connection] = []
        self._rendered: list[Samples] = []
        self._params: dict[str, AudioParam] = {}
        self._given = self._checked(options)
        context._add(self)
        for name, setter in (
            ("channel_count", "channel_count"),
            ("channel_count_mode", "channel_count_mode"),
            ("channel_interpretation", "channel_interpretation"),
        ):
            if name in self._given:
                setattr(self, setter, self._given[name])

    def _checked(self, options: Mapping[str, Any] | None) -> dict[str, Any]:
        if options is None:
            return {}
        if not isinstance(options, Mapping):
            raise TypeError(f"the options of {type(self).__name__} must be a mapping, not {type(options).__name__}")
        known = (*self._options, "channel_count", "channel_count_mode", "channel_interpretation")
        warn_of_unknown(type(self).__name__, options, known, stacklevel=5)
        return dict(options)

    def _param(
        self,
        name: str,
        default: float,
        minimum: float,
        maximum: float,
        *,
        rate: AutomationRate = "a-rate",
        fixed_rate: bool = False,
    ) -> AudioParam:
        context = self._context
        param = AudioParam(
            name,
            default,
            minimum,
            maximum,
            rate=rate,
            fixed_rate=fixed_rate,
            context=context,
        )
        self._params[name] = param
        if name in self._given:
            param._begin_with(self._given[name])
        return param

    # --- attributes --------------------------------------------------------------------------------------------------

    @property
    def context(self) -> BaseAudioContext:
        return self._context

    @property
    def number_of_inputs(self) -> int:
        return len(self._connections_in)

    @property
    def number_of_outputs(self) -> int:
        return self._outputs

    @property
    def channel_count(self) -> int:
        return self._count

    @channel_count.setter
    def channel_count(self, count: int) -> None:
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(f"channel_count must be an int, not {type(count).__name__}")
        if count >= 1:
            self._allow_channel_count(count)
        if not 1 <= count <= MAX_CHANNELS:
            raise NotSupportedError(f"channel_count must be 1 to {MAX_CHANNELS}, it is {count}")
        self._count = count

    @property
    def channel_count_mode(self) -> ChannelCountMode:
        return self._mode

    @channel_count_mode.setter
    def channel_count_mode(self, mode: ChannelCountMode) -> None:
        if mode not in ("max", "clamped-max", "explicit"):
            raise TypeError(f"channel_count_mode must be 'max', 'clamped-max' or 'explicit', not {mode!r}")
        self._allow_mode(mode)
        self._mode = mode

    @property
    def channel_interpretation(self) -> ChannelInterpretation:
        return self._interpretation

    @channel_interpretation.setter
    def channel_interpretation(self, interpretation: ChannelInterpretation) -> None:
        if interpretation not in ("speakers", "discrete"):
            raise TypeError(f"channel_interpretation must be 'speakers' or 'discrete', not {interpretation!r}")
        self._allow_interpretation(interpretation)
        self._interpretation = interpretation

    def _allow_channel_count(self, count: int) -> None:
        """A subclass refuses what its specification forbids."""

    def _allow_mode(self, mode: ChannelCountMode) -> None:
        """A subclass refuses what its specification forbids."""

    def _allow_interpretation(self, interpretation: ChannelInterpretation) -> None:
        """A subclass refuses what its specification forbids."""

    # --- connecting --------------------------------------------------------------------------------------------------

    @overload
    def connect(self, destination: N, output: int = 0, input: int = 0) -> N: ...

    @overload
    def connect(self, destination: AudioParam, output: int = 0) -> None: ...

    def connect(self, destination: AudioNode | AudioParam, output: int = 0, input: int = 0) -> AudioNode | None:
        """Send an output to a node's input, or to a parameter. Connecting twice has no effect.

        Returns:
            The node that was connected to; None for a parameter.

        Raises:
            IndexSizeError: there is no such output or input.
            InvalidAccessError: `destination` belongs to another context.
        """
        if not 0 <= output < self.number_of_outputs:
            raise IndexSizeError(f"{type(self).__name__} has no output {output}")
        if isinstance(destination, AudioParam):
            if destination._context is not self._context:
                raise InvalidAccessError("the parameter belongs to another context")
            inputs = destination._connections
        elif isinstance(destination, AudioNode):
            if destination._context is not self._context:
                raise InvalidAccessError("the two nodes belong to different contexts")
            if not 0 <= input < destination.number_of_inputs:
                raise IndexSizeError(f"{type(destination).__name__} has no input {input}")
            inputs = destination._connections_in[input]
        else:
            raise TypeError(f"destination must be an AudioNode or an AudioParam, not {type(destination).__name__}")
        with self._context._lock:
            if not any(known.source is self and known.output == output for known in inputs):
                connection = Connection(self, output, destination, input, inputs)
                inputs.append(connection)
                self._connections_out.append(connection)
                self._context._changed()
        return destination if isinstance(destination, AudioNode) else None

    def disconnect(
        self,
        destination: AudioNode | AudioParam | int | None = None,
        output: int | None = None,
        input: int | None = None,
    ) -> None:
        """Undo connections: all, those of an output (an int as the first argument), or those to `destination`.

        Raises:
            IndexSizeError: there is no such output.
            InvalidAccessError: there is no such connection.
        """
        if isinstance(destination, int):
            destination, output = None, destination
        if output is not None and not 0 <= output < self.number_of_outputs:
            raise IndexSizeError(f"{type(self).__name__} has no output {output}")
        with self._context._lock:
            gone = [
                connection
                for connection in self._connections_out
                if (destination is None or connection.target is destination)
                and (output is None or connection.output == output)
                and (input is None or connection.target_input == input)
            ]
            if not gone and destination is not None:
                raise InvalidAccessError("the two are not connected")
            for connection in gone:
                self._connections_out.remove(connection)
                connection.entries.remove(connection)
            if gone:
                self._context._changed()

    # --- rendering (in the context's thread) -------------------------------------------------------------------------

    @property
    def _latency_frames(self) -> int:
        """By how much the output is later than the input that it belongs to; not the delay of a DelayNode."""
        return 0

    @property
    def _breaks_cycle(self) -> bool:
        """Whether a loop may go through it."""
        return False

    def _compute(self, inputs: list[Samples], first_frame: int, frames: int) -> list[Samples]:
        """Outputs (channels, frames) for mixed inputs; `first_frame` counts from the context's beginning."""
        raise NotImplementedError

    def _render(self, first_frame: int, frames: int) -> None:
        """Fill `rendered` for a block; the nodes before it have rendered theirs."""
        self._rendered = self._compute(
            [self._mixed(index, frames) for index in range(len(self._connections_in))], first_frame, frames
        )

    def _mixed(self, index: int, frames: int) -> Samples:
        """The sum of what is connected to an input, with the number of channels that the node computes with."""
        parts = [connection.pull() for connection in self._connections_in[index]]
        return _sum(parts, frames, self._channels_of([part.shape[0] for part in parts]), self._interpretation)

    def _channels_of(self, widths: Sequence[int]) -> int:
        """With how many channels the node computes when connections of these widths come in."""
        widest = max(widths, default=1)
        if self._mode == "explicit":
            return self._count
        return min(widest, self._count) if self._mode == "clamped-max" else widest

    def _values(self, name: str, first_frame: int, frames: int) -> Samples:
        """A parameter's values for a block, connected sound included."""
        param = self._params[name]
        summed = None
        if param._connections:
            summed = _sum([one.pull() for one in param._connections], frames, 1, "speakers")[0]
        return param._render(first_frame, frames, summed)


def _sum(parts: list[Samples], frames: int, channels: int, interpretation: ChannelInterpretation) -> Samples:
    if not parts:
        return np.zeros((channels, frames), dtype=np.float32)
    if len(parts) == 1:
        return remix(parts[0], channels, interpretation)
    total = remix(parts[0], channels, interpretation).astype(np.float32, copy=True)
    for part in parts[1:]:
        total += remix(part, channels, interpretation)
    return total


def sources_of(node: AudioNode) -> list[Connection]:
    """What a node depends on: its inputs and those of its parameters."""
    direct = [connection for entries in node._connections_in for connection in entries]
    return direct + [connection for param in node._params.values() for connection in param._connections]


class Plan:
    """The order in which a graph is rendered, with the latency of each path evened out. Made anew after each change."""

    def __init__(self, nodes: list[AudioNode]) -> None:
        """
        Args:
            nodes: all that something can hear: ends of the graph and what leads to them.
        """
        self.is_watched = any(node._is_watched for node in nodes)
        self.order: list[AudioNode] = []
        self.looped: set[AudioNode] = set()  # nodes of loops without a delay: they are silent
        self.breakers: set[AudioNode] = set()  # delays through which a loop goes
        for strong in _components(nodes):
            if len(strong) == 1 and all(connection.source is not strong[0] for connection in sources_of(strong[0])):
                self.order += strong
                continue
            delays = [node for node in strong if node._breaks_cycle]
            self.breakers.update(delays)
            inner = _ordered(strong, without=set(delays))
            if inner is None:
                self.looped.update(strong)
                self.order += strong
            else:
                self.order += delays + inner
        self.latency: dict[AudioNode, int] = {}
        for node in self.order:
            known = [connection for connection in sources_of(node) if connection.source in self.latency]
            arriving = max((self.latency[connection.source] for connection in known), default=0)
            for connection in known:
                connection.pad = 0 if node in self.breakers else arriving - self.latency[connection.source]
            self.latency[node] = arriving + node._latency_frames

    @property
    def has_loop(self) -> bool:
        return bool(self.breakers or self.looped)

    def render(self, first_frame: int, frames: int) -> None:
        """One block of all nodes; with a loop, `frames` must be one render quantum."""
        for node in self.order:
            if node in self.looped:
                node._rendered = [np.zeros((1, frames), dtype=np.float32)] * node.number_of_outputs
            elif node in self.breakers:
                node._read_ahead(first_frame, frames)  # type: ignore[attr-defined]
            else:
                node._render(first_frame, frames)
        for node in self.breakers - self.looped:
            node._write_behind(frames)  # type: ignore[attr-defined]


def _components(nodes: list[AudioNode]) -> list[list[AudioNode]]:
    """Strongly connected components, each after those that it depends on (Tarjan, without recursion)."""
    index: dict[AudioNode, int] = {}
    low: dict[AudioNode, int] = {}
    open_: list[AudioNode] = []
    is_open: set[AudioNode] = set()
    found: list[list[AudioNode]] = []
    for root in nodes:
        if root in index:
            continue
        work = [(root, iter([connection.source for connection in sources_of(root)]))]
        index[root] = low[root] = len(index)
        open_.append(root)
        is_open.add(root)
        while work:
            node, rest = work[-1]
            for before in rest:
                if before not in index:
                    index[before] = low[before] = len(index)
                    open_.append(before)
                    is_open.add(before)
                    work.append((before, iter([connection.source for connection in sources_of(before)])))
                    break
                if before in is_open:
                    low[node] = min(low[node], index[before])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    strong: list[AudioNode] = []
                    while not strong or strong[-1] is not node:
                        strong.append(open_.pop())
                        is_open.discard(strong[-1])
                    found.append(strong[::-1])
    return found


def _ordered(nodes: list[AudioNode], without: set[AudioNode]) -> list[AudioNode] | None:
    """The nodes but those of `without`, each after what it depends on; None when a loop remains."""
    waiting = [node for node in nodes if node not in without]
    inside = set(waiting)
    order: list[AudioNode] = []
    while waiting:
        ready = [n for n in waiting if not any(c.source in inside for c in sources_of(n))]
        if not ready:
            return None
        order += ready
        inside.difference_update(ready)
        waiting = [node for node in waiting if node in inside]
    return order


def fill(array: Samples | None, values: Samples) -> Samples:
    """Methods that fill an array in the W3C fill a given one, and return a new one when none is given."""
    if array is None:
        return values
    if not isinstance(array, np.ndarray):
        raise TypeError(f"the array must be an ndarray, not {type(array).__name__}")
    count = min(len(array), len(values))
    array[:count] = values[:count]
    return array
