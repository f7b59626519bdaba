"""AudioParam: a value and its automation (https://webaudio.github.io/web-audio-api/#AudioParam).

Automation is exact to the sample for a-rate parameters in every context; k-rate parameters take one value for each
render quantum of 128 frames.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from msrecd.dom.exceptions import InvalidStateError, NotSupportedError
from msrecd.webaudio.dsp import QUANTUM, Samples

if TYPE_CHECKING:
    from msrecd.webaudio.context import BaseAudioContext
    from msrecd.webaudio.node import Connection

AutomationRate = Literal["a-rate", "k-rate"]
FLOAT_MAX = float(np.finfo(np.float32).max)


@dataclass(slots=True)
class _Event:
    """One entry of the time line; `time` in seconds of the context, `value` reached at (or approached from) it."""

    kind: Literal["set", "linear", "exponential", "target", "curve"]
    time: float
    value: float = 0.0
    time_constant: float = 0.0
    curve: Samples | None = None
    duration: float = 0.0
    cut: float | None = None  # where a curve ends before its end

    @property
    def end(self) -> float:
        return self.time + self.duration if self.cut is None else self.cut


class AudioParam:
    """Made by nodes only. May be changed on the loop while the graph renders in another thread."""

    def __init__(
        self,
        name: str,
        default: float,
        minimum: float,
        maximum: float,
        *,
        rate: AutomationRate = "a-rate",
        fixed_rate: bool = False,
        context: BaseAudioContext,
    ) -> None:
        """
        Args:
            name: for messages.
            default: the value at the beginning.
            minimum: nominal; what is rendered is clamped to it.
            maximum: nominal, likewise.
            rate: a-rate or k-rate.
            fixed_rate: whether `automation_rate` cannot be changed.
            context: whose time it follows.
        """
        self._name = name
        self._default = _float32(default)
        self._minimum = _float32(minimum)
        self._maximum = _float32(maximum)
        self._rate: AutomationRate = rate
        self._fixed_rate = fixed_rate
        self._context = context
        self._sample_rate = context.sample_rate
        self._value = self._default
        self._settled_at: float | None = None  # time of the last event that is forgotten
        self._events: tuple[_Event, ...] = ()  # replaced, never changed: the rendering thread reads it
        self._connections: list[Connection] = []

    def _now(self) -> float:
        """The context's time in seconds."""
        return self._context.current_time

    @property
    def default_value(self) -> float:
        return self._default

    @property
    def min_value(self) -> float:
        return self._minimum

    @property
    def max_value(self) -> float:
        return self._maximum

    @property
    def automation_rate(self) -> AutomationRate:
        return self._rate

    @automation_rate.setter
    def automation_rate(self, rate: AutomationRate) -> None:
        if rate not in ("a-rate", "k-rate"):
            raise TypeError(f"automation_rate must be 'a-rate' or 'k-rate', not {rate!r}")
        if self._fixed_rate and rate != self._rate:
            raise InvalidStateError(f"the automation rate of {self._name} cannot be changed")
        self._rate = rate

    @property
    def value(self) -> float:
        """The value in the quantum rendered last; setting it equals `set_value_at_time(value, current_time)`.

        Raises: as `set_value_at_time`; also where a curve has just begun.
        """
        return self._value

    @value.setter
    def value(self, value: float) -> None:
        value, now = _float32(checked_number("value", value)), self._now()
        if any(known.kind == "curve" and known.time == now for known in self._events):
            raise NotSupportedError(f"{self._name}: {now:g} s lies inside of a value curve")
        self.set_value_at_time(value, now)
        self._value = value

    def _begin_with(self, value: float) -> None:
        """What an option of the constructor says; no event."""
        self._value = _float32(checked_number("value", value))

    # --- scheduling --------------------------------------------------------------------------------------------------

    def set_value_at_time(self, value: float, start_time: float) -> AudioParam:
        """Raises: TypeError, ValueError (a negative time), NotSupportedError (inside of a value curve)."""
        self._insert(_Event("set", self._time("start_time", start_time), _float32(checked_number("value", value))))
        return self

    def linear_ramp_to_value_at_time(self, value: float, end_time: float) -> AudioParam:
        """From the event before to `value` at `end_time`. Raises: as `set_value_at_time`."""
        self._ramp(_Event("linear", self._time("end_time", end_time), _float32(checked_number("value", value))))
        return self

    def exponential_ramp_to_value_at_time(self, value: float, end_time: float) -> AudioParam:
        """As the linear ramp. Raises: also ValueError when `value` is 0."""
        value = _float32(checked_number("value", value))
        if value == 0.0:
            raise ValueError("an exponential ramp cannot reach 0")
        self._ramp(_Event("exponential", self._time("end_time", end_time), value))
        return self

    def set_target_at_time(self, target: float, start_time: float, time_constant: float) -> AudioParam:
        """Approach `target` exponentially from `start_time` on. Raises: as `set_value_at_time`."""
        constant = checked_number("time_constant", time_constant)
        if constant < 0:
            raise ValueError(f"time_constant must not be negative, it is {constant!r}")
        event = _Event(
            "target", self._time("start_time", start_time), _float32(checked_number("target", target)), constant
        )
        self._insert(event)
        return self

    def set_value_curve_at_time(self, values: Sequence[float], start_time: float, duration: float) -> AudioParam:
        """Follow `values`, evenly spaced over `duration` seconds. Raises: InvalidStateError (less than two values)."""
        curve = np.array([checked_number("values", value) for value in values], dtype=np.float32)
        if len(curve) < 2:
            raise InvalidStateError(f"a value curve needs at least 2 values, not {len(curve)}")
        length = checked_number("duration", duration)
        if length <= 0:
            raise ValueError(f"duration must be positive, it is {length!r}")
        time = self._time("start_time", start_time)
        event = _Event("curve", time, float(curve[-1]), curve=curve, duration=length)
        if any(time < known.time < event.end for known in self._events if known.kind != "curve"):
            raise NotSupportedError(f"{self._name}: a value curve must not overlap with another event")
        self._insert(event)
        return self

    def cancel_scheduled_values(self, cancel_time: float) -> AudioParam:
        """Remove every event at or after `cancel_time`, and a curve that is under way then."""
        time = self._time("cancel_time", cancel_time)
        kept = [event for event in self._events if event.time < time]
        self._events = tuple(event for event in kept if not (event.kind == "curve" and event.end > time))
        return self

    def cancel_and_hold_at_time(self, cancel_time: float) -> AudioParam:
        """Remove what lies behind `cancel_time` and keep the value that the automation has then."""
        time = self._time("cancel_time", cancel_time)
        held = float(self._intrinsic(np.array([time]), self._events)[0])
        before = [event for event in self._events if event.time <= time]
        behind = next((event for event in self._events if event.time > time), None)
        if behind is not None and behind.kind in ("linear", "exponential"):
            before.append(_Event(behind.kind, time, held))  # the same ramp, cut off
        elif before and before[-1].kind == "curve" and before[-1].end > time:
            before[-1] = replace(before[-1], value=held, cut=time)
        elif before:
            before.append(_Event("set", time, held))
        self._events = tuple(before)
        return self

    # --- rendering ---------------------------------------------------------------------------------------------------

    def _render(self, first_frame: int, frames: int, summed: Samples | None) -> Samples:
        """Values for `frames` frames, float32; shape (frames,) for a-rate, one repeated for each quantum for k-rate.

        Args:
            first_frame: of the block, counted from the context's beginning.
            frames: of the block.
            summed: the mono sum of what is connected to this parameter; None for nothing.
        """
        events = self._events
        if not events and summed is None:
            return np.full(frames, self._clamp(self._value), dtype=np.float32)
        step = 1 if self._rate == "a-rate" else QUANTUM
        times = (first_frame + np.arange(0, frames, step)) / self._sample_rate
        values = self._intrinsic(times, events)
        if len(values):
            self._value = _float32(float(values[-1]))
        if summed is not None:
            values = values + summed[::step][: len(values)]
        values = np.nan_to_num(values, nan=self._default, posinf=self._maximum, neginf=self._minimum)
        values = np.clip(values, self._minimum, self._maximum).astype(np.float32)
        return values if step == 1 else np.repeat(values, step)[:frames]

    @property
    def _is_constant(self) -> bool:
        """Whether every sample from now on is `value`: nothing scheduled, nothing connected."""
        return not self._events and not self._connections

    def _settle(self, now: float) -> None:
        """Forget events whose effect is over; called by the rendering thread between blocks."""
        events = self._events
        index = bisect_right([event.time for event in events], now) - 1
        if index < 0:
            return
        last = events[index]
        follows = index + 1 < len(events) and events[index + 1].kind in ("linear", "exponential")
        if last.kind in ("set", "linear", "exponential") and index + 1 == len(events):
            self._value, self._settled_at = last.value, last.time
            keep: tuple[_Event, ...] = ()
        elif last.kind == "curve" and last.end <= now and not follows:
            keep = (_Event("set", last.end, last.value), *events[index + 1 :])
        elif last.kind == "target":
            return  # its beginning is the value of what stands before it
        else:
            keep = events[index:]
        if self._events is events:  # nobody has scheduled meanwhile
            self._events = keep

    def _clamp(self, value: float) -> float:
        return min(max(value, self._minimum), self._maximum)

    def _intrinsic(self, times: Samples, events: tuple[_Event, ...]) -> Samples:
        """The automation's values at `times` (ascending, seconds), float64."""
        values = np.full(len(times), self._value, dtype=np.float64)
        start = self._value  # the value with which the segment begins
        for index, event in enumerate(events):
            following = events[index + 1] if index + 1 < len(events) else None
            until = following.time if following is not None else math.inf
            ramp = following if following is not None and following.kind in ("linear", "exponential") else None
            begin = int(np.searchsorted(times, event.time - 1e-12, side="left"))
            end = int(np.searchsorted(times, until - 1e-12, side="left")) if until < math.inf else len(times)
            inside = times[begin:end]
            if event.kind == "target" and ramp is None:
                values[begin:end] = _approach(start, event, inside)
                start = float(_approach(start, event, np.array([until]))[0]) if until < math.inf else event.value
                continue
            if event.kind == "curve":
                values[begin:end] = _on_curve(event, inside)
                from_time, start = event.end, event.value
            else:
                from_time = event.time
                if event.kind != "target":  # a ramp that follows a target which never began replaces it
                    start = event.value
                values[begin:end] = start
            if ramp is not None:
                late = int(np.searchsorted(times, from_time, side="left"))
                behind = times[late:end]
                values[late:end] = _on_ramp(start, from_time, ramp, behind)
        return values

    # --- the time line -----------------------------------------------------------------------------------------------

    def _insert(self, event: _Event) -> None:
        for known in self._events:
            if known.kind == "curve" and known.time < event.time < known.end:
                raise NotSupportedError(f"{self._name}: {event.time:g} s lies inside of a value curve")
            if known.kind == "curve" and event.kind == "curve" and event.time < known.end and known.time < event.end:
                raise NotSupportedError(f"{self._name}: two value curves overlap")
        events = [
            known for known in self._events if not (known.time == event.time and known.kind == event.kind == "set")
        ]
        index = bisect_right([known.time for known in events], event.time)
        events.insert(index, event)
        self._events = tuple(events)

    def _ramp(self, event: _Event) -> None:
        """A ramp begins at the event before it, however long ago; without one, or during a target, it begins now."""
        now = self._now()
        before = [known for known in self._events if known.time <= event.time]
        if not before:
            self._insert(_Event("set", now if self._settled_at is None else self._settled_at, self._value))
        elif before[-1].kind == "target" and before[-1].time < now:
            held = float(self._intrinsic(np.array([now]), self._events)[0])
            self._insert(_Event("set", now, held))
        self._insert(event)

    def _time(self, name: str, value: float) -> float:
        """What should have happened already happens now."""
        time = checked_number(name, value)
        if time < 0:
            raise ValueError(f"{name} must not be negative, it is {time!r}")
        return max(time, self._now())


def _approach(start: float, event: _Event, times: Samples) -> Samples:
    if event.time_constant == 0:
        return np.full(len(times), event.value)
    past = np.maximum(times - event.time, 0.0)
    decay: Samples = event.value + (start - event.value) * np.exp(-past / event.time_constant)
    return decay


def _on_curve(event: _Event, times: Samples) -> Samples:
    curve = event.curve
    assert curve is not None
    position = (times - event.time) * (len(curve) - 1) / event.duration
    values: Samples = np.interp(position, np.arange(len(curve)), curve)
    return values if event.cut is None else np.where(times < event.cut, values, event.value)


def _on_ramp(start: float, from_time: float, ramp: _Event, times: Samples) -> Samples:
    length = ramp.time - from_time
    if length <= 0:
        return np.full(len(times), ramp.value)
    part = (times - from_time) / length
    if ramp.kind == "linear":
        linear: Samples = start + (ramp.value - start) * part
        return linear
    if start == 0 or (start < 0) != (ramp.value < 0):  # the specification: stay until the end of the ramp
        return np.full(len(times), start)
    exponential: Samples = start * np.power(ramp.value / start, part)
    return exponential


def checked_number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    number = float(value)
    if not math.isfinite(number):
        raise TypeError(f"{name} must be finite, not {number!r}")
    return number


def _float32(value: float) -> float:
    """As an IDL float keeps it."""
    return float(np.float32(value))
