"""The processing nodes of Web Audio: gain, filter, delay, dynamics, panning, channels, analysis, worklet."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from msrecd.dom.events import ErrorEvent, event_handler
from msrecd.dom.exceptions import IndexSizeError, InvalidAccessError, InvalidStateError, NotSupportedError
from msrecd.webaudio import dsp
from msrecd.webaudio.dsp import BIQUAD_TYPES, QUANTUM, BiquadType, Samples
from msrecd.webaudio.node import MAX_CHANNELS, AudioNode, ChannelCountMode, ChannelInterpretation, fill
from msrecd.webaudio.param import FLOAT_MAX, AudioParam, checked_number

if TYPE_CHECKING:
    from msrecd.webaudio.context import BaseAudioContext

Process = Callable[[list[Samples], list[Samples], Mapping[str, Samples]], object]


class GainNode(AudioNode):
    """Multiplies by `gain`."""

    _options = ("gain",)

    def __init__(self, context: BaseAudioContext, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(context, options)
        self.gain = self._param("gain", 1.0, -FLOAT_MAX, FLOAT_MAX)

    def _compute(self, inputs: list[Samples], first_frame: int, frames: int) -> list[Samples]:
        if self.gain._is_constant:
            return [inputs[0] * np.float32(self.gain.value)]
        return [inputs[0] * self._values("gain", first_frame, frames)]


class BiquadFilterNode(AudioNode):
    """One of eight second-order filters.

    In an OfflineAudioContext automation is exact to the sample; in real time the coefficients change once in a quantum.
    """

    _options = ("type", "Q", "detune", "frequency", "gain")

    def __init__(self, context: BaseAudioContext, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(context, options)
        nyquist = context.sample_rate / 2
        self.frequency = self._param("frequency", 350.0, 0.0, nyquist)
        self.detune = self._param("detune", 0.0, -153600.0, 153600.0)
        self.Q = self._param("Q", 1.0, -FLOAT_MAX, FLOAT_MAX)
        self.gain = self._param("gain", 0.0, -FLOAT_MAX, 1541.0)
        self._type: BiquadType = "lowpass"
        self.type = self._given.get("type", "lowpass")
        self._filter = dsp.Biquad()

    @property
    def type(self) -> BiquadType:
        return self._type

    @type.setter
    def type(self, type: BiquadType) -> None:
        if type not in BIQUAD_TYPES:
            raise TypeError(f"type must be one of {', '.join(BIQUAD_TYPES)}, not {type!r}")
        self._type = type

    def get_frequency_response(
        self, frequency_hz: Samples, mag_response: Samples | None = None, phase_response: Samples | None = None
    ) -> tuple[Samples, Samples]:
        """(magnitude, phase in radians) at frequencies in Hz; fills the arrays given, and makes those that are not.

        Raises:
            InvalidAccessError: the arrays differ in length.
        """
        frequencies = np.asarray(frequency_hz, dtype=np.float32)
        for array in (mag_response, phase_response):
            if array is not None and len(array) != len(frequencies):
                raise InvalidAccessError("the three arrays must have the same length")
        magnitude, phase = dsp.frequency_response(self._coefficients(), frequencies, self._context.sample_rate)
        return fill(mag_response, magnitude), fill(phase_response, phase)

    def _coefficients(self) -> dsp.Coefficients:
        frequency = self.frequency.value * 2 ** (self.detune.value / 1200)
        return dsp.biquad(self._type, frequency, self.Q.value, self.gain.value, self._context.sample_rate)

    def _compute(self, inputs: list[Samples], first_frame: int, frames: int) -> list[Samples]:
        samples = inputs[0]
        if all(param._is_constant for param in self._params.values()):
            return [self._filter.process(samples, self._coefficients())]
        frequency = self._values("frequency", first_frame, frames) * np.exp2(
            self._values("detune", first_frame, frames) / 1200
        )
        q, gain = self._values("Q", first_frame, frames), self._values("gain", first_frame, frames)
        step = 1 if self._context._is_offline else QUANTUM
        sets = [
            dsp.biquad(self._type, float(f), float(r), float(g), self._context.sample_rate)
            for f, r, g in zip(frequency[::step], q[::step], gain[::step], strict=True)
        ]
        if step == 1:
            return [self._filter.process_varying(samples, sets)]
        pieces = [
            self._filter.process(samples[:, at * step : (at + 1) * step], coefficients)
            for at, coefficients in enumerate(sets)
        ]
        return [np.concatenate(pieces, axis=1)]


class DelayNode(AudioNode):
    """Delays by `delay_time` seconds, up to `max_delay_time`; may stand in a loop."""

    _options = ("delay_time", "max_delay_time")

    def __init__(self, context: BaseAudioContext, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(context, options)
        longest = self._given.get("max_delay_time", 1.0)
        longest = checked_number("max_delay_time", longest)
        if not 0 < longest < 180:
            raise NotSupportedError(f"max_delay_time must be more than 0 and less than 180 s, it is {longest!r}")
        self.delay_time = self._param("delay_time", 0.0, 0.0, float(longest))
        self._line = dsp.DelayLine(max(longest * context.sample_rate, QUANTUM))

    @property
    def _breaks_cycle(self) -> bool:
        return True

    def _compute(self, inputs: list[Samples], first_frame: int, frames: int) -> list[Samples]:
        delay = self._values("delay_time", first_frame, frames) * np.float64(self._context.sample_rate)
        return [self._line.process(inputs[0], delay)]

    def _read_ahead(self, first_frame: int, frames: int) -> None:
        """In a loop: the output comes before the input of the same quantum, so it is a quantum late at least."""
        delay = self._values("delay_time", first_frame, frames) * np.float64(self._context.sample_rate)
        self._rendered = [self._line.read(frames, delay)]

    def _write_behind(self, frames: int) -> None:
        """In a loop: the input of this quantum, once it is there."""
        self._line.write(self._mixed(0, frames))


class DynamicsCompressorNode(AudioNode):
    """Lowers loud sound; `reduction` is what it takes away at present, in dB."""

    _options = ("attack", "knee", "ratio", "release", "threshold")
    _channel_count_mode = "clamped-max"

    def __init__(self, context: BaseAudioContext, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(context, options)
        self.threshold = self._param("threshold", -24.0, -100.0, 0.0, rate="k-rate", fixed_rate=True)
        self.knee = self._param("knee", 30.0, 0.0, 40.0, rate="k-rate", fixed_rate=True)
        self.ratio = self._param("ratio", 12.0, 1.0, 20.0, rate="k-rate", fixed_rate=True)
        self.attack = self._param("attack", 0.003, 0.0, 1.0, rate="k-rate", fixed_rate=True)
        self.release = self._param("release", 0.25, 0.0, 1.0, rate="k-rate", fixed_rate=True)
        self._compressor = dsp.Compressor(context.sample_rate)

    @property
    def reduction(self) -> float:
        return self._compressor.reduction_db

    @property
    def _latency_frames(self) -> int:
        return self._compressor.look_ahead

    def _allow_channel_count(self, count: int) -> None:
        if count > 2:
            raise NotSupportedError("a DynamicsCompressorNode has at most 2 channels")

    def _allow_mode(self, mode: ChannelCountMode) -> None:
        if mode == "max":
            raise NotSupportedError("the channel_count_mode of a DynamicsCompressorNode cannot be 'max'")

    def _compute(self, inputs: list[Samples], first_frame: int, frames: int) -> list[Samples]:
        values = {name: self._values(name, first_frame, frames) for name in self._params}
        step = frames if all(param._is_constant for param in self._params.values()) else QUANTUM
        pieces = [
            self._compressor.process(
                inputs[0][:, at : at + step], **{name: float(array[at]) for name, array in values.items()}
            )
            for at in range(0, frames, step)
        ]
        return [pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)]


class StereoPannerNode(AudioNode):
    """Places its input between left (-1) and right (1)."""

    _options = ("pan",)
    _channel_count_mode = "clamped-max"

    def __init__(self, context: BaseAudioContext, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(context, options)
        self.pan = self._param("pan", 0.0, -1.0, 1.0)

    def _allow_channel_count(self, count: int) -> None:
        if count > 2:
            raise NotSupportedError("a StereoPannerNode has at most 2 channels")

    def _allow_mode(self, mode: ChannelCountMode) -> None:
        if mode == "max":
            raise NotSupportedError("the channel_count_mode of a StereoPannerNode cannot be 'max'")

    def _compute(self, inputs: list[Samples], first_frame: int, frames: int) -> list[Samples]:
        pan = self._values("pan", first_frame, frames)
        return [dsp.pan_stereo(inputs[0], pan[:1] if self.pan._is_constant else pan)]


class ChannelSplitterNode(AudioNode):
    """One mono output for each channel."""

    _options = ("number_of_outputs",)
    _channel_count_mode = "explicit"
    _channel_interpretation = "discrete"

    def __init__(self, context: BaseAudioContext, options: Mapping[str, Any] | None = None) -> None:
        count = _channels("number_of_outputs", options, 6)
        self._outputs = count
        self._channel_count = count
        super().__init__(context, options)

    def _allow_channel_count(self, count: int) -> None:
        if count != self._outputs:
            raise InvalidStateError("the channel_count of a ChannelSplitterNode is its number of outputs")

    def _allow_mode(self, mode: ChannelCountMode) -> None:
        if mode != "explicit":
            raise InvalidStateError("the channel_count_mode of a ChannelSplitterNode is 'explicit'")

    def _allow_interpretation(self, interpretation: ChannelInterpretation) -> None:
        if interpretation != "discrete":
            raise InvalidStateError("the channel_interpretation of a ChannelSplitterNode is 'discrete'")

    def _compute(self, inputs: list[Samples], first_frame: int, frames: int) -> list[Samples]:
        return [inputs[0][index : index + 1] for index in range(self._outputs)]


class ChannelMergerNode(AudioNode):
    """One channel for each mono input."""

    _options = ("number_of_inputs",)
    _channel_count = 1
    _channel_count_mode = "explicit"

    def __init__(self, context: BaseAudioContext, options: Mapping[str, Any] | None = None) -> None:
        self._inputs = _channels("number_of_inputs", options, 6)
        super().__init__(context, options)

    def _allow_channel_count(self, count: int) -> None:
        if count != 1:
            raise InvalidStateError("the channel_count of a ChannelMergerNode is 1")

    def _allow_mode(self, mode: ChannelCountMode) -> None:
        if mode != "explicit":
            raise InvalidStateError("the channel_count_mode of a ChannelMergerNode is 'explicit'")

    def _compute(self, inputs: list[Samples], first_frame: int, frames: int) -> list[Samples]:
        return [np.concatenate(inputs, axis=0)]


def _channels(name: str, options: Mapping[str, Any] | None, default: int) -> int:
    count = options.get(name, default) if isinstance(options, Mapping) else default
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{name} must be an int, not {type(count).__name__}")
    if not 1 <= count <= MAX_CHANNELS:
        raise IndexSizeError(f"{name} must be 1 to {MAX_CHANNELS}, it is {count}")
    return count


class AnalyserNode(AudioNode):
    """Passes its input on and lets a program look at it: wave form, spectrum."""

    _is_watched = True
    _options = ("fft_size", "max_decibels", "min_decibels", "smoothing_time_constant")

    def __init__(self, context: BaseAudioContext, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(context, options)
        self._fft_size = 2048
        self._minimum, self._maximum = -100.0, -30.0
        self._smoothing = 0.8
        self._kept = np.zeros(32768, dtype=np.float32)  # mono, the latest; replaced, never changed
        self._smoothed = np.zeros(1024)
        self._taken_at = -1
        if "max_decibels" in self._given or "min_decibels" in self._given:
            self._set_range(self._given.get("min_decibels", -100.0), self._given.get("max_decibels", -30.0))
        if "fft_size" in self._given:
            self.fft_size = self._given["fft_size"]
        if "smoothing_time_constant" in self._given:
            self.smoothing_time_constant = self._given["smoothing_time_constant"]

    @property
    def fft_size(self) -> int:
        return self._fft_size

    @fft_size.setter
    def fft_size(self, size: int) -> None:
        if size not in [1 << power for power in range(5, 16)]:
            raise IndexSizeError(f"fft_size must be a power of 2 from 32 to 32768, it is {size!r}")
        if size != self._fft_size:
            self._fft_size, self._smoothed = size, np.zeros(size // 2)

    @property
    def frequency_bin_count(self) -> int:
        return self._fft_size // 2

    @property
    def min_decibels(self) -> float:
        return self._minimum

    @min_decibels.setter
    def min_decibels(self, value: float) -> None:
        self._set_range(value, self._maximum)

    @property
    def max_decibels(self) -> float:
        return self._maximum

    @max_decibels.setter
    def max_decibels(self, value: float) -> None:
        self._set_range(self._minimum, value)

    @property
    def smoothing_time_constant(self) -> float:
        return self._smoothing

    @smoothing_time_constant.setter
    def smoothing_time_constant(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise IndexSizeError(f"smoothing_time_constant must be 0 to 1, it is {value!r}")
        self._smoothing = float(value)

    def _set_range(self, minimum: float, maximum: float) -> None:
        if not minimum < maximum:
            raise IndexSizeError(f"min_decibels ({minimum!r}) must be less than max_decibels ({maximum!r})")
        self._minimum, self._maximum = float(minimum), float(maximum)

    def get_float_time_domain_data(self, array: Samples | None = None) -> Samples:
        """The latest `fft_size` samples, all channels mixed into one; float32, shape (fft_size,)."""
        return fill(array, self._kept[-self._fft_size :].copy())

    def get_byte_time_domain_data(self, array: Samples | None = None) -> Samples:
        """The same as bytes: 128 is silence."""
        wave = np.floor(128 * (1 + self._kept[-self._fft_size :].astype(np.float64)))
        return fill(array, np.clip(wave, 0, 255).astype(np.uint8))

    def get_float_frequency_data(self, array: Samples | None = None) -> Samples:
        """The spectrum in dB, smoothed over calls; float32, shape (frequency_bin_count,). Silence is -inf."""
        return fill(array, self._decibels().astype(np.float32))

    def get_byte_frequency_data(self, array: Samples | None = None) -> Samples:
        """The same as bytes between `min_decibels` (0) and `max_decibels` (255)."""
        scaled = np.floor(255 * (self._decibels() - self._minimum) / (self._maximum - self._minimum))
        return fill(array, np.clip(np.nan_to_num(scaled, neginf=0.0), 0, 255).astype(np.uint8))

    def _decibels(self) -> Samples:
        now = self._context._rendered_frames
        if now != self._taken_at:  # the same data within one quantum, as the specification wants it
            self._taken_at = now
            fresh = dsp.spectrum(self._kept[-self._fft_size :])
            self._smoothed = self._smoothing * self._smoothed + (1 - self._smoothing) * fresh
        with np.errstate(divide="ignore"):
            decibels: Samples = 20 * np.log10(self._smoothed)
        return decibels

    def _compute(self, inputs: list[Samples], first_frame: int, frames: int) -> list[Samples]:
        mono = dsp.remix(inputs[0], 1)[0]
        self._kept = np.concatenate((self._kept, mono))[-len(self._kept) :]
        return [inputs[0]]


class AudioWorkletNode(AudioNode):
    """A program's own node: `process(inputs, outputs, parameters)` in the rendering thread.

    `inputs` and `outputs` are lists of float32 arrays (channels, frames), the outputs zero and to be filled;
    `parameters` maps names to float32 arrays (frames,). A block is one quantum or many: take `frames` from the arrays.

    An exception ends it: one `processorerror` (ErrorEvent), silence from then on. A call that takes longer than the
    sound that it makes is counted in `late_blocks`; recordings of the raw track do not feel it.
    """

    _is_watched = True
    _options = ("number_of_inputs", "number_of_outputs", "output_channel_count", "parameter_data", "parameters")
    onprocessorerror = event_handler("processorerror")

    def __init__(self, context: BaseAudioContext, process: Process, options: Mapping[str, Any] | None = None) -> None:
        """
        Args:
            context: whose graph it belongs to.
            process: called for each block.
            options: `number_of_inputs`, `number_of_outputs` (1 each), `output_channel_count` (a list, one for each
                output), `parameters` ({name: (default, minimum, maximum)}), `parameter_data` ({name: first value}).

        Raises:
            TypeError: `process` cannot be called.
            NotSupportedError: neither inputs nor outputs; a channel count that is not 1 to 32.
            IndexSizeError: `output_channel_count` does not have one entry for each output.
        """
        if not callable(process):
            raise TypeError(f"process must be callable, not {type(process).__name__}")
        given = dict(options or {})
        self._inputs = int(given.get("number_of_inputs", 1))
        self._outputs = int(given.get("number_of_outputs", 1))
        if self._inputs == 0 and self._outputs == 0:
            raise NotSupportedError("an AudioWorkletNode needs an input or an output")
        counts = given.get("output_channel_count")
        if counts is not None:
            if any(not 1 <= count <= MAX_CHANNELS for count in counts):
                raise NotSupportedError(f"each of output_channel_count must be 1 to {MAX_CHANNELS}")
            if len(counts) != self._outputs:
                raise IndexSizeError(f"output_channel_count must have {self._outputs} entries, it has {len(counts)}")
        super().__init__(context, options)
        self._process: Process | None = process
        self._counts: list[int] | None = None if counts is None else list(counts)
        self.late_blocks = 0
        first = given.get("parameter_data") or {}
        for name, (default, minimum, maximum) in (given.get("parameters") or {}).items():
            param = self._param(name, default, minimum, maximum)
            if name in first:
                param._begin_with(first[name])

    @property
    def parameters(self) -> Mapping[str, AudioParam]:
        return self._params

    def _compute(self, inputs: list[Samples], first_frame: int, frames: int) -> list[Samples]:
        counts = self._counts or [
            inputs[0].shape[0] if self._inputs == self._outputs == 1 else 1 for _ in range(self._outputs)
        ]
        outputs = [np.zeros((count, frames), dtype=np.float32) for count in counts]
        process = self._process
        if process is None:
            return outputs
        parameters = {name: self._values(name, first_frame, frames) for name in self._params}
        began = time.monotonic()
        try:
            process([samples.copy() for samples in inputs], outputs, parameters)
            for output, count in zip(outputs, counts, strict=True):
                if output.shape != (count, frames):
                    raise ValueError(f"an output has the shape {output.shape}, not {(count, frames)}")
        except Exception as exc:
            self._process = None
            init = {"error": exc, "message": str(exc)}
            self._context._queue(lambda: self._fire(ErrorEvent("processorerror", init)))
            return [np.zeros((count, frames), dtype=np.float32) for count in counts]
        if time.monotonic() - began > frames / self._context.sample_rate:
            self.late_blocks += 1
        return outputs
