"""The arithmetic of the nodes: pure functions and small states on float32 arrays of shape (channels, frames).

Coefficients and mixing rules are those of https://webaudio.github.io/web-audio-api/; no function knows of a graph.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Samples: TypeAlias = NDArray[Any]

QUANTUM = 128  # frames of a render quantum
_BLOCK = 64  # frames of a block of a recursive filter; larger products would wake up the threads of a BLAS
_RUN = 64 * _BLOCK  # frames that it takes at a time

BiquadType = Literal["lowpass", "highpass", "bandpass", "lowshelf", "highshelf", "peaking", "notch", "allpass"]
BIQUAD_TYPES: tuple[BiquadType, ...] = (
    "lowpass", "highpass", "bandpass", "lowshelf", "highshelf", "peaking", "notch", "allpass",
)  # fmt: skip
Coefficients: TypeAlias = tuple[float, float, float, float, float]  # b0, b1, b2, a1, a2 with a0 = 1


# --- mixing ----------------------------------------------------------------------------------------------------------

_HALF = math.sqrt(0.5)
# (inputs, outputs) -> matrix of shape (outputs, inputs): "speakers" of the specification, section 4.
_SPEAKERS: dict[tuple[int, int], Samples] = {
    (1, 2): np.array([[1], [1]]),
    (1, 4): np.array([[1], [1], [0], [0]]),
    (1, 6): np.array([[0], [0], [1], [0], [0], [0]]),
    (2, 4): np.array([[1, 0], [0, 1], [0, 0], [0, 0]]),
    (2, 6): np.array([[1, 0], [0, 1], [0, 0], [0, 0], [0, 0], [0, 0]]),
    (4, 6): np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0] * 4, [0] * 4, [0, 0, 1, 0], [0, 0, 0, 1]]),
    (2, 1): np.array([[0.5, 0.5]]),
    (4, 1): np.array([[0.25] * 4]),
    (6, 1): np.array([[_HALF, _HALF, 1, 0, 0.5, 0.5]]),
    (4, 2): np.array([[0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5]]),
    (6, 2): np.array([[1, 0, _HALF, 0, _HALF, 0], [0, 1, _HALF, 0, 0, _HALF]]),
    (6, 4): np.array([[1, 0, _HALF, 0, 0, 0], [0, 1, _HALF, 0, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]]),
}
SPEAKERS = {counts: matrix.astype(np.float32) for counts, matrix in _SPEAKERS.items()}


def remix(samples: Samples, channels: int, interpretation: str = "speakers") -> Samples:
    """The same sound with another number of channels."""
    have = samples.shape[0]
    if have == channels:
        return samples
    matrix = SPEAKERS.get((have, channels)) if interpretation == "speakers" else None
    if matrix is not None:
        mixed: Samples = matrix @ samples
        return mixed
    result = np.zeros((channels, samples.shape[1]), dtype=np.float32)
    shared = min(have, channels)
    result[:shared] = samples[:shared]
    return result


# --- biquad filters --------------------------------------------------------------------------------------------------


def biquad(type: BiquadType, frequency: float, q: float, gain: float, sample_rate: float) -> Coefficients:
    """Coefficients of one of the eight types; `frequency` in Hz, clamped to what the sample rate can carry.

    https://webaudio.github.io/web-audio-api/#filters-characteristics: `q` is in dB for lowpass and highpass.
    """
    nyquist = sample_rate / 2
    normal = min(max(frequency, 0.0), nyquist) / nyquist
    amplitude = 10 ** (gain / 40)
    if normal in (0.0, 1.0) or (q <= 0 and type in ("bandpass", "notch", "allpass", "peaking")):
        return (_at_the_edge(type, normal, q, amplitude), 0.0, 0.0, 0.0, 0.0)
    omega = math.pi * normal
    sine, cosine = math.sin(omega), math.cos(omega)
    alpha_db = sine / (2 * 10 ** (q / 20))
    alpha = sine / (2 * q) if q else 0.0
    shelf = sine / 2 * math.sqrt(2) * 2 * math.sqrt(amplitude)
    match type:
        case "lowpass":
            b = ((1 - cosine) / 2, 1 - cosine, (1 - cosine) / 2)
            a = (1 + alpha_db, -2 * cosine, 1 - alpha_db)
        case "highpass":
            b = ((1 + cosine) / 2, -(1 + cosine), (1 + cosine) / 2)
            a = (1 + alpha_db, -2 * cosine, 1 - alpha_db)
        case "bandpass":
            b, a = (alpha, 0.0, -alpha), (1 + alpha, -2 * cosine, 1 - alpha)
        case "notch":
            b, a = (1.0, -2 * cosine, 1.0), (1 + alpha, -2 * cosine, 1 - alpha)
        case "allpass":
            b, a = (1 - alpha, -2 * cosine, 1 + alpha), (1 + alpha, -2 * cosine, 1 - alpha)
        case "peaking":
            b = (1 + alpha * amplitude, -2 * cosine, 1 - alpha * amplitude)
            a = (1 + alpha / amplitude, -2 * cosine, 1 - alpha / amplitude)
        case "lowshelf":
            up, down = amplitude + 1, amplitude - 1
            b = (
                amplitude * (up - down * cosine + shelf),
                2 * amplitude * (down - up * cosine),
                amplitude * (up - down * cosine - shelf),
            )
            a = (up + down * cosine + shelf, -2 * (down + up * cosine), up + down * cosine - shelf)
        case "highshelf":
            up, down = amplitude + 1, amplitude - 1
            b = (
                amplitude * (up + down * cosine + shelf),
                -2 * amplitude * (down + up * cosine),
                amplitude * (up + down * cosine - shelf),
            )
            a = (up - down * cosine + shelf, 2 * (down - up * cosine), up - down * cosine - shelf)
    return (b[0] / a[0], b[1] / a[0], b[2] / a[0], a[1] / a[0], a[2] / a[0])


def _at_the_edge(type: BiquadType, normal: float, q: float, amplitude: float) -> float:
    """The constant gain that the filter tends to at 0 Hz, at the Nyquist frequency, or without any width."""
    power = amplitude * amplitude
    match type:
        case "lowpass":
            return 1.0 if normal == 1.0 else 0.0
        case "highpass":
            return 1.0 if normal == 0.0 else 0.0
        case "lowshelf":
            return power if normal == 1.0 else 1.0
        case "highshelf":
            return power if normal == 0.0 else 1.0
        case "bandpass":
            return 1.0 if q <= 0 and 0.0 < normal < 1.0 else 0.0
        case "notch":
            return 0.0 if q <= 0 and 0.0 < normal < 1.0 else 1.0
        case "allpass":
            return -1.0 if q <= 0 and 0.0 < normal < 1.0 else 1.0
        case "peaking":
            return power if q <= 0 and 0.0 < normal < 1.0 else 1.0


def frequency_response(coefficients: Coefficients, frequencies: Samples, sample_rate: float) -> tuple[Samples, Samples]:
    """(magnitude, phase in radians), float32; NaN outside of 0 … Nyquist."""
    b0, b1, b2, a1, a2 = coefficients
    z = np.exp(-2j * np.pi * frequencies.astype(np.float64) / sample_rate)
    response = (b0 + (b1 + b2 * z) * z) / (1 + (a1 + a2 * z) * z)
    response[(frequencies < 0) | (frequencies > sample_rate / 2)] = np.nan
    return np.abs(response).astype(np.float32), np.angle(response).astype(np.float32)


class Biquad:
    """A second-order filter with a state for each channel.

    A recursion has no vector form, but blocks of it have: the output of a block is a fixed matrix times its input plus
    another one times the state before it, and the states of a row of blocks are a fixed matrix times what each block
    adds. So a whole run is three matrix products, without a loop.

    Other coefficients go on with what came in and went out before, as the specification's equation does; the state of
    the transposed form that is computed with here would be another one.
    """

    def __init__(self) -> None:
        self._coefficients: Coefficients | None = None
        self._state = np.zeros((0, 2))  # per channel, of the transposed direct form II
        self._last = np.zeros((0, 4))  # per channel: the last two of the input and of the output, newest first
        self._response = np.zeros((0, 0))  # input of a block to its output
        self._free = np.zeros((2, 0))  # state before a block to its output
        self._drive = np.zeros((0, 2))  # input of a block to the state after it
        self._powers: Samples = np.zeros((0, 2, 2))  # state to the state so many frames later
        self._chain = np.zeros((0, 0))  # what blocks add to the state, to the states before each block
        self._fade = np.zeros((2, 0))  # state at the beginning, to the same

    def process(self, samples: Samples, coefficients: Coefficients) -> Samples:
        """One coefficient set for all of `samples`."""
        channels, frames = samples.shape
        self._fit(channels)
        if coefficients != self._coefficients:
            self._prepare(coefficients)
            _, b1, b2, a1, a2 = coefficients
            self._state = self._last @ np.array([[b1, b2], [b2, 0.0], [-a1, -a2], [-a2, 0.0]])
        if coefficients[1:] == (0.0, 0.0, 0.0, 0.0):
            scaled: Samples = samples * np.float32(coefficients[0])
            self._remember(samples, scaled)
            return scaled
        output = np.empty((channels, frames), dtype=np.float32)
        for begin in range(0, frames, _RUN):
            piece = samples[:, begin : begin + _RUN].astype(np.float64)
            filtered = self._run(piece)
            self._remember(piece, filtered)
            output[:, begin : begin + _RUN] = filtered
        return output

    def _remember(self, samples: Samples, output: Samples) -> None:
        for at, newest in ((0, samples), (2, output)):
            both = np.concatenate((self._last[:, at : at + 2][:, ::-1], newest[:, -2:]), axis=1)
            self._last[:, at : at + 2] = both[:, -1:-3:-1]

    def process_varying(self, samples: Samples, coefficients: list[Coefficients]) -> Samples:
        """A coefficient set for each frame."""
        self._fit(samples.shape[0])
        output = np.empty(samples.shape, dtype=np.float32)
        for channel, row in enumerate(samples.tolist()):
            x1, x2, y1, y2 = self._last[channel].tolist()
            result = []
            for value, (b0, b1, b2, a1, a2) in zip(row, coefficients, strict=True):
                out = b0 * value + b1 * x1 + b2 * x2 - a1 * y1 - a2 * y2
                x2, x1, y2, y1 = x1, value, y1, out
                result.append(out)
            output[channel] = result
            self._last[channel] = x1, x2, y1, y2
        self._coefficients = None
        return output

    def _run(self, samples: Samples) -> Samples:
        """At most _RUN frames."""
        channels, frames = samples.shape
        blocks, rest = divmod(frames, _BLOCK)
        parts = []
        if blocks:
            shaped = samples[:, : blocks * _BLOCK].reshape(channels, blocks, _BLOCK)
            added = (shaped @ self._drive).reshape(channels, blocks * 2)
            width = blocks * 2 + 2
            states = added @ self._chain[: blocks * 2, :width] + self._state @ self._fade[:, :width]
            before = states[:, : blocks * 2].reshape(channels, blocks, 2)
            self._state = states[:, blocks * 2 :].copy()
            parts.append((shaped @ self._response + before @ self._free).reshape(channels, -1))
        if rest:
            piece = samples[:, -rest:]
            parts.append(piece @ self._response[:rest, :rest] + self._state @ self._free[:, :rest])
            self._state = self._state @ self._powers[rest] + piece @ self._drive[-rest:]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _fit(self, channels: int) -> None:
        have = self._state.shape[0]
        if have != channels:
            state = np.zeros((channels, 2))
            state[: min(have, channels)] = self._state[:channels]
            self._state = state
            last = np.zeros((channels, 4))
            last[: min(have, channels)] = self._last[:channels]
            self._last = last

    def _prepare(self, coefficients: Coefficients) -> None:
        """The matrices; states are row vectors: state' = state @ step + input * enter."""
        self._coefficients = coefficients
        b0, b1, b2, a1, a2 = coefficients
        step = np.array([[-a1, -a2], [1.0, 0.0]])
        enter = np.array([b1 - a1 * b0, b2 - a2 * b0])
        powers = [np.eye(2)]
        for _ in range(_BLOCK):
            powers.append(powers[-1] @ step)
        self._powers = np.array(powers)
        self._free = self._powers[:_BLOCK, :, 0].T
        impulse = np.concatenate(([b0], (enter @ self._powers[: _BLOCK - 1])[:, 0]))
        at = np.arange(_BLOCK)
        lag = at[None, :] - at[:, None]
        self._response = np.where(lag >= 0, impulse[np.maximum(lag, 0)], 0.0)
        self._drive = (enter @ self._powers[:_BLOCK])[::-1]
        blocks = _RUN // _BLOCK
        leaps = [np.eye(2)]
        for _ in range(blocks):
            leaps.append(leaps[-1] @ self._powers[_BLOCK])
        self._fade = np.concatenate(leaps, axis=1)
        self._chain = np.zeros((blocks * 2, blocks * 2 + 2))
        for block in range(blocks):
            row = np.concatenate(leaps[: blocks - block], axis=1)
            self._chain[block * 2 : block * 2 + 2, block * 2 + 2 :] = row


# --- delay -----------------------------------------------------------------------------------------------------------


class DelayLine:
    """A ring of the latest input; reading between two samples interpolates linearly."""

    def __init__(self, longest_frames: float) -> None:
        self.longest = longest_frames
        self._kept = np.zeros((1, math.ceil(longest_frames) + 2), dtype=np.float32)

    def write(self, samples: Samples) -> None:
        if samples.shape[0] > self._kept.shape[0]:
            self._kept = remix(self._kept, samples.shape[0])
        elif samples.shape[0] < self._kept.shape[0]:
            samples = remix(samples, self._kept.shape[0])
        self._kept = np.concatenate((self._kept[:, samples.shape[1] :], samples), axis=1)[:, -self._kept.shape[1] :]

    def process(self, samples: Samples, delay_frames: Samples) -> Samples:
        """The input `delay_frames` (one for each frame) ago."""
        history = self._kept.shape[1]
        if samples.shape[0] > self._kept.shape[0]:
            self._kept = remix(self._kept, samples.shape[0])
        elif samples.shape[0] < self._kept.shape[0]:
            samples = remix(samples, self._kept.shape[0])
        line = np.concatenate((self._kept, samples), axis=1)
        output = _read(line, history + np.arange(samples.shape[1]) - np.clip(delay_frames, 0.0, self.longest))
        self._kept = line[:, -history:]
        return output

    def read(self, frames: int, delay_frames: Samples) -> Samples:
        """What a loop reads before its own input is there: every delay must be at least `frames` long."""
        at = self._kept.shape[1] + np.arange(frames) - np.clip(delay_frames, frames, self.longest)
        return _read(self._kept, at)


def _read(line: Samples, position: Samples) -> Samples:
    last = line.shape[1] - 1
    low = np.clip(np.floor(position).astype(np.int64), 0, last)
    part = (position - low).astype(np.float32)
    high = np.minimum(low + 1, last)
    read: Samples = line[:, low] * (1 - part) + line[:, high] * part
    return read


# --- panning ---------------------------------------------------------------------------------------------------------


def pan_stereo(samples: Samples, pan: Samples) -> Samples:
    """StereoPannerNode: equal power, from one or two channels to two; `pan` for each frame, or one value for all."""
    pan = pan.astype(np.float64)  # at an end the other side is silent
    if samples.shape[0] == 1:
        angle = (pan + 1) / 2 * (np.pi / 2)
        return np.stack((samples[0] * np.cos(angle), samples[0] * np.sin(angle))).astype(np.float32)
    left, right = samples[0], samples[1]
    angle = np.where(pan <= 0, pan + 1, pan) * (np.pi / 2)
    near, far = np.cos(angle), np.sin(angle)
    to_left = np.where(pan <= 0, left + right * near, left * near)
    to_right = np.where(pan <= 0, right * far, right + left * far)
    return np.stack((to_left, to_right)).astype(np.float32)


# --- compressor ------------------------------------------------------------------------------------------------------


class Compressor:
    """DynamicsCompressorNode: a soft-knee curve on the loudest channel, smoothed by attack and release.

    The gain follows the level in steps of 32 frames and is interpolated in between. It looks `LOOK_AHEAD_S` ahead: the
    output is that much later than the input, which the graph compensates.
    """

    LOOK_AHEAD_S = 0.006
    _STEP = 32

    def __init__(self, sample_rate: float) -> None:
        self.look_ahead = round(self.LOOK_AHEAD_S * sample_rate)
        self._sample_rate = sample_rate
        self._line = DelayLine(self.look_ahead)
        self._gain = 1.0
        self.reduction_db = 0.0

    def process(
        self, samples: Samples, *, threshold: float, knee: float, ratio: float, attack: float, release: float
    ) -> Samples:
        frames = samples.shape[1]
        steps = -(-frames // self._STEP)
        level = np.zeros(steps * self._STEP, dtype=np.float32)
        level[:frames] = np.abs(samples).max(axis=0)
        peaks = level.reshape(steps, self._STEP).max(axis=1)
        wanted = 10 ** ((compression_curve(_db(peaks), threshold, knee, ratio) - _db(peaks)) / 20)
        seconds = self._STEP / self._sample_rate
        down = 1 - math.exp(-seconds / max(attack, 1e-5))
        up = 1 - math.exp(-seconds / max(release, 1e-5))
        gains = np.empty(steps + 1)
        gains[0] = gain = self._gain
        for index, target in enumerate(wanted.tolist()):
            gain += (target - gain) * (down if target < gain else up)
            gains[index + 1] = gain
        self._gain = gain
        self.reduction_db = 20 * math.log10(max(gain, 1e-6))
        smooth = np.interp(np.arange(frames), np.arange(steps + 1) * self._STEP, gains)
        delayed = self._line.process(samples, np.full(frames, float(self.look_ahead)))
        compressed: Samples = (delayed * (smooth * makeup_gain(threshold, knee, ratio))).astype(np.float32)
        return compressed


def compression_curve(level_db: Samples, threshold: float, knee: float, ratio: float) -> Samples:
    """Output level for an input level, both in dB: identity, a quadratic knee above the threshold, then 1 : ratio."""
    over = level_db - threshold
    slope = 1 / ratio
    inside = np.clip(over, 0.0, knee)
    bent = level_db + (slope - 1) * (inside**2 / (2 * knee) if knee > 0 else 0.0 * inside)
    curve: Samples = bent + (slope - 1) * np.maximum(over - knee, 0.0)
    return curve


def makeup_gain(threshold: float, knee: float, ratio: float) -> float:
    """The specification: (1 / gain at full scale) to the power of 0.6."""
    full = float(compression_curve(np.zeros(1), threshold, knee, ratio)[0])
    return float((1 / 10 ** (full / 20)) ** 0.6)


def _db(amplitude: Samples) -> Samples:
    level: Samples = 20 * np.log10(np.maximum(amplitude, 1e-6))
    return level


# --- spectrum --------------------------------------------------------------------------------------------------------


def blackman(length: int) -> Samples:
    """The window of AnalyserNode, alpha = 0.16."""
    at = 2 * np.pi * np.arange(length) / length
    window: Samples = 0.42 - 0.5 * np.cos(at) + 0.08 * np.cos(2 * at)
    return window


def spectrum(samples: Samples) -> Samples:
    """Magnitudes of `samples` (mono), scaled by their number: half as many values as samples."""
    transformed = np.fft.rfft(samples.astype(np.float64) * blackman(len(samples)))
    magnitudes: Samples = np.abs(transformed[: len(samples) // 2]) / len(samples)
    return magnitudes
