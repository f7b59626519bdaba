"""Nodes that make sound: oscillator, constant, buffer (https://webaudio.github.io/web-audio-api/#AudioScheduledSourceNode)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from msrecd.dom.events import Event, event_handler
from msrecd.dom.exceptions import IndexSizeError, InvalidStateError, NotSupportedError
from msrecd.webaudio.dsp import Samples
from msrecd.webaudio.node import MAX_CHANNELS, AudioNode
from msrecd.webaudio.param import FLOAT_MAX, checked_number

if TYPE_CHECKING:
    from msrecd.webaudio.context import BaseAudioContext

OscillatorType = Literal["sine", "square", "sawtooth", "triangle", "custom"]
_TABLE = 8192  # samples of one period
_PARTIALS = 2048  # at most; a 10 Hz tone at 48 kHz would have 2400


class AudioBuffer:
    """Sound in memory: float32, one array for each channel."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """
        Args:
            options: `length` (frames), `sample_rate` (Hz), `number_of_channels` (1).

        Raises:
            TypeError: a member is missing or no number.
            NotSupportedError: a member is out of range.
        """
        for name in ("length", "sample_rate"):
            if name not in options:
                raise TypeError(f"AudioBuffer needs {name}")
        channels = int(checked_number("number_of_channels", options.get("number_of_channels", 1)))
        length = int(checked_number("length", options["length"]))
        rate = checked_number("sample_rate", options["sample_rate"])
        if not 1 <= channels <= MAX_CHANNELS or length < 1 or not 3000 <= rate <= 768000:
            raise NotSupportedError(f"no buffer with {channels} channels, {length} frames at {rate:g} Hz")
        self._rate = rate
        self.channels = np.zeros((channels, length), dtype=np.float32)

    @property
    def sample_rate(self) -> float:
        return self._rate

    @property
    def length(self) -> int:
        """Frames."""
        return int(self.channels.shape[1])

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.length / self._rate

    @property
    def number_of_channels(self) -> int:
        return int(self.channels.shape[0])

    def get_channel_data(self, channel: int) -> Samples:
        """The channel's own array, to be read and written; float32, shape (frames,). Raises: IndexSizeError."""
        self._check(channel)
        data: Samples = self.channels[channel]
        return data

    def copy_from_channel(self, destination: Samples, channel: int, offset: int = 0) -> None:
        """Copy as much as there is into `destination`. Raises: IndexSizeError, ValueError."""
        self._check(channel, offset)
        piece = self.channels[channel, offset : offset + len(destination)]
        destination[: len(piece)] = piece

    def copy_to_channel(self, source: Samples, channel: int, offset: int = 0) -> None:
        """Copy as much of `source` as there is room for. Raises: IndexSizeError, ValueError, TypeError."""
        self._check(channel, offset)
        if source is None:
            raise TypeError("source must be an array, not None")
        room = max(0, self.length - offset)
        piece = np.asarray(source, dtype=np.float32)[:room]
        self.channels[channel, offset : offset + len(piece)] = piece

    def _check(self, channel: int, offset: int = 0) -> None:
        if offset < 0:
            raise ValueError(f"offset must not be negative, it is {offset}")
        if not 0 <= channel < self.number_of_channels:
            raise IndexSizeError(f"there is no channel {channel}, the buffer has {self.number_of_channels}")


class PeriodicWave:
    """A period given by its Fourier coefficients."""

    def __init__(self, context: BaseAudioContext, options: Mapping[str, Any] | None = None) -> None:
        """
        Args:
            context: not used beyond its type: a wave belongs to no sample rate.
            options: `real` (cosine) and `imag` (sine) coefficients, `disable_normalization` (False).

        Raises:
            IndexSizeError: the two differ in length, or have fewer than 2 entries.
        """
        del context
        given = dict(options or {})
        real, imag = given.get("real"), given.get("imag")
        if real is None and imag is None:
            real, imag = [0.0, 0.0], [0.0, 1.0]
        first = np.zeros(len(imag)) if real is None else np.array(real, dtype=np.float64)  # type: ignore[arg-type]
        second = np.zeros(len(first)) if imag is None else np.array(imag, dtype=np.float64)
        if len(first) != len(second):
            raise IndexSizeError(f"real and imag must have the same length, not {len(first)} and {len(second)}")
        if len(first) < 2:
            raise IndexSizeError("a wave needs at least 2 coefficients")
        self._real, self._imag = first[: _PARTIALS + 1], second[: _PARTIALS + 1]
        self._scale = 1.0
        self._tables: dict[int, Samples] = {}
        if not given.get("disable_normalization", False):
            peak = float(np.abs(self._period(len(self._real) - 1)).max())
            self._scale = 1 / peak if peak else 1.0

    def _table(self, partials: int) -> Samples:
        """One period, float64, with the first `partials` partials; the first sample again at the end."""
        partials = max(0, min(partials, len(self._real) - 1))
        if partials not in self._tables:
            if len(self._tables) > 64:  # of a long glide
                self._tables.clear()
            period = self._period(partials) * self._scale
            self._tables[partials] = np.append(period, period[0])
        return self._tables[partials]

    def _period(self, partials: int) -> Samples:
        spectrum = np.zeros(_TABLE // 2 + 1, dtype=np.complex128)
        count = min(partials, len(self._real) - 1)
        spectrum[1 : count + 1] = (self._real[1 : count + 1] - 1j * self._imag[1 : count + 1]) * (_TABLE / 2)
        period: Samples = np.fft.irfft(spectrum, _TABLE)
        return period


def standard_wave(context: BaseAudioContext, type: OscillatorType) -> PeriodicWave:
    """https://webaudio.github.io/web-audio-api/#oscillator-coefficients"""
    n = np.arange(1, _PARTIALS + 1)
    match type:
        case "square":
            imag = 2 / (n * np.pi) * (1 - (-1.0) ** n)
        case "sawtooth":
            imag = (-1.0) ** (n + 1) * 2 / (n * np.pi)
        case "triangle":
            imag = 8 * np.sin(n * np.pi / 2) / (np.pi * n) ** 2
        case _:
            imag = np.where(n == 1, 1.0, 0.0)
    return PeriodicWave(context, {"real": np.zeros(_PARTIALS + 1), "imag": np.concatenate(([0.0], imag))})


class AudioScheduledSourceNode(AudioNode):
    """Sounds from `start` to `stop`; `ended` is fired when it is over."""

    _inputs = 0
    onended = event_handler("ended")

    def __init__(self, context: BaseAudioContext, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(context, options)
        self._start: float | None = None
        self._stop = math.inf
        self._over = False

    def start(self, when: float = 0.0) -> None:
        """Raises: InvalidStateError (started already), ValueError (a negative time)."""
        when = _not_negative("when", when)
        if self._start is not None:
            raise InvalidStateError(f"this {type(self).__name__} has been started already")
        self._start = max(when, self._context.current_time)
        self._context._begun(self)

    def stop(self, when: float = 0.0) -> None:
        """Raises: InvalidStateError (not started), ValueError (a negative time)."""
        when = _not_negative("when", when)
        if self._start is None:
            raise InvalidStateError(f"this {type(self).__name__} has not been started")
        if not self._over:
            self._stop = max(when, self._context.current_time)

    def _span(self, first_frame: int, frames: int) -> tuple[int, int]:
        """Which frames of a block sound: from the first at or after the start, up to the last before the stop."""
        if self._start is None or self._over:
            return 0, 0
        rate = self._context.sample_rate
        begin = max(0, math.ceil(self._start * rate - 1e-6) - first_frame)
        end = frames if self._stop == math.inf else min(frames, math.ceil(self._stop * rate - 1e-6) - first_frame)
        if self._stop * rate <= first_frame + frames:
            self._finish()
        return (begin, end) if begin < end else (0, 0)

    def _finish(self) -> None:
        if not self._over:
            self._over = True
            self._context._queue(lambda: self._fire(Event("ended")))


class OscillatorNode(AudioScheduledSourceNode):
    """A periodic wave without partials above the Nyquist frequency."""

    _options = ("type", "frequency", "detune", "periodic_wave")

    def __init__(self, context: BaseAudioContext, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(context, options)
        nyquist = context.sample_rate / 2
        self.frequency = self._param("frequency", 440.0, -nyquist, nyquist)
        self.detune = self._param("detune", 0.0, -153600.0, 153600.0)
        self._phase = 0.0
        self._type: OscillatorType = "sine"
        self._wave: PeriodicWave | None = None
        if "periodic_wave" in self._given:
            self.set_periodic_wave(self._given["periodic_wave"])
        elif self._given.get("type") == "custom":
            raise InvalidStateError("an oscillator of type 'custom' needs periodic_wave")
        elif "type" in self._given:
            self.type = self._given["type"]

    @property
    def type(self) -> OscillatorType:
        return self._type

    @type.setter
    def type(self, type: OscillatorType) -> None:
        if type == "custom":
            raise InvalidStateError("the type becomes 'custom' by set_periodic_wave")
        if type not in ("sine", "square", "sawtooth", "triangle"):
            raise TypeError(f"type must be 'sine', 'square', 'sawtooth' or 'triangle', not {type!r}")
        self._type = type
        self._wave = None if type == "sine" else standard_wave(self._context, type)

    def set_periodic_wave(self, wave: PeriodicWave) -> None:
        """Raises: TypeError."""
        if not isinstance(wave, PeriodicWave):
            raise TypeError(f"periodic_wave must be a PeriodicWave, not {type(wave).__name__}")
        self._type, self._wave = "custom", wave

    def _compute(self, inputs: list[Samples], first_frame: int, frames: int) -> list[Samples]:
        output = np.zeros((1, frames), dtype=np.float32)
        begin, end = self._span(first_frame, frames)
        frequency = self._values("frequency", first_frame, frames).astype(np.float64)
        detune = self._values("detune", first_frame, frames).astype(np.float64)
        if begin == end:
            return [output]
        nyquist = self._context.sample_rate / 2
        hertz = np.clip(frequency * np.exp2(detune / 1200), -nyquist, nyquist)[begin:end]
        if self._start is not None and first_frame + begin - self._start * self._context.sample_rate < 1:
            late = (first_frame + begin) / self._context.sample_rate - self._start
            self._phase = max(0.0, late) * hertz[0]  # a start between two frames
        step = hertz / self._context.sample_rate
        phase = self._phase + np.concatenate(([0.0], np.cumsum(step)))
        self._phase = float(phase[-1] % 1.0)
        phase = phase[:-1]
        if self._wave is None:
            output[0, begin:end] = np.where(np.abs(hertz) < nyquist, np.sin(2 * np.pi * phase), 0.0)
        else:
            highest = float(np.abs(hertz).max())
            table = self._wave._table(int(nyquist / highest) if highest > 0 else _PARTIALS)
            position = (phase % 1.0) * _TABLE
            low = np.minimum(position.astype(np.int64), _TABLE - 1)
            part = position - low
            output[0, begin:end] = table[low] * (1 - part) + table[low + 1] * part
        return [output]


class ConstantSourceNode(AudioScheduledSourceNode):
    """The value of `offset`."""

    _options = ("offset",)

    def __init__(self, context: BaseAudioContext, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(context, options)
        self.offset = self._param("offset", 1.0, -FLOAT_MAX, FLOAT_MAX)

    def _compute(self, inputs: list[Samples], first_frame: int, frames: int) -> list[Samples]:
        output = np.zeros((1, frames), dtype=np.float32)
        values = self._values("offset", first_frame, frames)
        begin, end = self._span(first_frame, frames)
        output[0, begin:end] = values[begin:end]
        return [output]


class AudioBufferSourceNode(AudioScheduledSourceNode):
    """Plays an AudioBuffer, once or in a loop, at any rate; between two frames it interpolates linearly."""

    _options = ("buffer", "detune", "loop", "loop_end", "loop_start", "playback_rate")

    def __init__(self, context: BaseAudioContext, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(context, options)
        self.playback_rate = self._param("playback_rate", 1.0, -FLOAT_MAX, FLOAT_MAX, rate="k-rate", fixed_rate=True)
        self.detune = self._param("detune", 0.0, -FLOAT_MAX, FLOAT_MAX, rate="k-rate", fixed_rate=True)
        self.loop = bool(self._given.get("loop", False))
        self.loop_start = float(self._given.get("loop_start", 0.0))
        self.loop_end = float(self._given.get("loop_end", 0.0))
        self._buffer: AudioBuffer | None = None
        self._had_buffer = False
        self._offset = 0.0
        self._duration = math.inf
        self._position: float | None = None  # in the buffer, in its frames
        self._played = 0.0  # seconds of the buffer
        self._in_loop = False
        if self._given.get("buffer") is not None:
            self.buffer = self._given["buffer"]

    @property
    def buffer(self) -> AudioBuffer | None:
        return self._buffer

    @buffer.setter
    def buffer(self, buffer: AudioBuffer | None) -> None:
        if buffer is not None and not isinstance(buffer, AudioBuffer):
            raise TypeError(f"buffer must be an AudioBuffer, not {type(buffer).__name__}")
        if buffer is not None and self._had_buffer:
            raise InvalidStateError("the buffer has been set already")
        self._had_buffer = self._had_buffer or buffer is not None
        self._buffer = buffer

    def start(self, when: float = 0.0, offset: float = 0.0, duration: float | None = None) -> None:
        """
        Args:
            when: seconds of the context.
            offset: where in the buffer to begin, in seconds.
            duration: seconds of the buffer to play; None: to its end, or for ever in a loop.

        Raises:
            InvalidStateError: started already.
            ValueError: a negative number.
        """
        offset = _not_negative("offset", offset)
        length = math.inf if duration is None else _not_negative("duration", duration)
        super().start(when)
        self._offset, self._duration = offset, length

    def _compute(self, inputs: list[Samples], first_frame: int, frames: int) -> list[Samples]:
        buffer = self._buffer
        channels = 1 if buffer is None else buffer.number_of_channels
        output = np.zeros((channels, frames), dtype=np.float32)
        rates = self._values("playback_rate", first_frame, frames) * np.exp2(
            self._values("detune", first_frame, frames) / 1200
        )
        begin, end = self._span(first_frame, frames)
        if begin == end or buffer is None:
            return [output]
        rate = float(rates[0])
        if rates.min() != rates.max():  # k-rate: one rate a quantum, quanta of a block may differ
            self._play_varying(buffer, rates, output, begin, end)
        else:
            self._play(buffer, rate, output, begin, end, first_frame)
        return [output]

    def _play_varying(self, buffer: AudioBuffer, rates: Samples, output: Samples, begin: int, end: int) -> None:
        changes = [begin, *(np.flatnonzero(np.diff(rates[begin:end])) + begin + 1).tolist(), end]
        for since, until in pairwise(changes):
            if not self._over:
                self._play(buffer, float(rates[since]), output, since, until, None)

    def _play(
        self, buffer: AudioBuffer, rate: float, output: Samples, begin: int, end: int, first_frame: int | None
    ) -> None:
        step = rate * buffer.sample_rate / self._context.sample_rate
        if self._position is None:
            late = 0.0
            if first_frame is not None and self._start is not None:
                late = max(0.0, first_frame + begin - self._start * self._context.sample_rate)
            self._position = min(self._offset, buffer.duration) * buffer.sample_rate + late * step
        count = end - begin
        position = self._position + np.arange(count) * step
        loop_begin, loop_end = self._loop_frames(buffer)
        left = (self._duration - self._played) * buffer.sample_rate
        if self._duration < math.inf:
            allowed = math.ceil(left / abs(step) - 1e-9) if step else count
            if allowed <= count:
                count = max(0, allowed)
                position = position[:count]
                self._finish()
        if self.loop:
            if step >= 0:
                past = position >= loop_end
                position[past] = loop_begin + (position[past] - loop_begin) % (loop_end - loop_begin)
            else:
                past = position < loop_begin
                position[past] = loop_end - (loop_end - position[past]) % (loop_end - loop_begin)
        else:
            inside = (position >= 0) & (position < buffer.length)
            if not inside.all():
                count = int(np.argmin(inside))
                position = position[:count]
                self._finish()
        output[:, begin : begin + count] = _interpolated(buffer.channels, position, loop_begin, loop_end, self.loop)
        if count:
            self._position = float(position[-1] + step)
        self._played += count * abs(step) / buffer.sample_rate

    def _loop_frames(self, buffer: AudioBuffer) -> tuple[float, float]:
        begin, end = self.loop_start, self.loop_end
        if begin >= 0 and end > 0 and begin < end:
            return begin * buffer.sample_rate, min(end, buffer.duration) * buffer.sample_rate
        return 0.0, float(buffer.length)


def _interpolated(data: Samples, position: Samples, loop_begin: float, loop_end: float, loop: bool) -> Samples:
    low = np.floor(position + 1e-9).astype(np.int64)
    part = np.maximum(position - low, 0.0)
    part[part < 1e-6] = 0.0
    low = np.clip(low, 0, data.shape[1] - 1)
    high = low + 1
    if loop:
        high = np.where(high >= loop_end, math.floor(loop_begin), high)
    high = np.clip(high, 0, data.shape[1] - 1)
    samples: Samples = data[:, low] * (1 - part) + data[:, high] * part
    return samples


def _not_negative(name: str, value: float) -> float:
    number = checked_number(name, value)
    if number < 0:
        raise ValueError(f"{name} must not be negative, it is {number!r}")
    return number
