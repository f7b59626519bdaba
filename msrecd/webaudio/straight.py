"""Straight graphs: one track, filters and gains in a row, one destination, nothing that changes.

Such a graph, the usual one before a recorder, is computed by libav in one go: a quarter of what it costs node by node.
Everything in it is linear and the same for all channels, so channels may be mixed before they are filtered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from msrecd.libav.floats import FixedFilters
from msrecd.webaudio.dsp import Biquad, Coefficients, Samples, remix
from msrecd.webaudio.node import AudioNode, sources_of
from msrecd.webaudio.nodes import BiquadFilterNode, GainNode

_MOST_CHANNELS = 2  # more have places, and mixes of their own
_FADED = 1e-4  # a filter that begins in the middle has forgotten its state but for so much


@dataclass(frozen=True, slots=True)
class _Known:
    """state: all that the nodes' arithmetic depends on; steps: each node, its channels, its factor or coefficients."""

    state: list[object]
    fixed: FixedFilters | None
    steps: tuple[tuple[AudioNode, int, Any], ...]


@dataclass(slots=True, eq=False)
class Straight:
    """The nodes between a tap and the end, in order; the end is one of them, the last."""

    tap: Any  # MediaStreamAudioSourceNode
    nodes: tuple[AudioNode, ...]
    end: Any  # MediaStreamAudioDestinationNode
    _known: _Known | None = None
    _began_with: _Known | None = None

    def fixed(self, channels: int) -> FixedFilters | None:
        """What the nodes do to sound with so many channels; None where that is not for libav, or changes just now."""
        state: list[object] = [channels]
        for node in self.nodes:
            state += (node._count, node._mode, node._interpretation, getattr(node, "_type", ""))
            for param in node._params.values():
                if not param._is_constant:
                    return None
                state.append(param._value)
        if self._known is None or state != self._known.state:
            self._known = self._describe(state, channels)
        return self._known.fixed

    def begin_in_one(self) -> None:
        """What `fixed` said last is what is done from now on."""
        self._began_with = self._known

    def begin_by_nodes(self, past: Samples | None) -> None:
        """The nodes compute themselves from now on: give their filters the state that they have after `past`."""
        for node in self.nodes:
            if isinstance(node, BiquadFilterNode):
                node._filter = Biquad()
        if past is None or self._began_with is None:
            return
        for node, channels, what in self._began_with.steps:
            past = remix(past, channels, node.channel_interpretation)
            past = node._filter.process(past, what) if isinstance(node, BiquadFilterNode) else past * what

    def _describe(self, state: list[object], channels: int) -> _Known:
        mix: Samples = np.eye(channels, dtype=np.float32)
        steps: list[tuple[AudioNode, int, Any]] = []
        for node in self.nodes:
            count = node._channels_of([mix.shape[0]])
            if max(count, channels) > _MOST_CHANNELS:
                return _Known(state, None, ())
            mix = remix(mix, count, node.channel_interpretation)
            what: Any = np.float32(1)
            if isinstance(node, GainNode):
                what = np.float32(node.gain.value)
                mix = mix * what
            elif isinstance(node, BiquadFilterNode):
                what = node._coefficients()
            steps.append((node, count, what))
        filters = tuple(what for _, _, what in steps if isinstance(what, tuple))
        rows = tuple(tuple(map(float, row)) for row in mix)
        return _Known(state, FixedFilters(rows, filters) if np.isfinite(mix).all() else None, tuple(steps))


def straight(nodes: Sequence[AudioNode], tap: AudioNode, end: AudioNode) -> Straight | None:
    """The row from `tap` to `end`, when `nodes` are no more than that."""
    row: list[AudioNode] = [end]
    while row[-1] is not tap:
        sources = sources_of(row[-1])
        if len(sources) != 1 or sources[0].source in row:
            return None
        row.append(sources[0].source)
    between = row[1:-1]
    if set(row) != set(nodes) or any(type(node) not in (GainNode, BiquadFilterNode) for node in between):
        return None
    return Straight(tap, tuple(row[-2::-1]), end)


def fades_within(filters: Sequence[Coefficients], frames: int) -> bool:
    """Whether after so many frames nothing is left of the state that filters had before."""
    for *_, a1, a2 in filters:
        radius = max(abs(root) for root in np.roots([1.0, a1, a2])) if a1 or a2 else 0.0
        if radius >= 1 or radius**frames > _FADED:
            return False
    return True
