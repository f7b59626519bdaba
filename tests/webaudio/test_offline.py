"""Offline rendering of each node against an independent computation (scipy, or the specification's formula)."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import numpy as np
import pytest

import msrecd
from msrecd import (
    AudioBuffer,
    AudioWorkletNode,
    BiquadFilterNode,
    ConstantSourceNode,
    DelayNode,
    GainNode,
    OfflineAudioContext,
    StereoPannerNode,
)
from msrecd.webaudio import dsp

RATE = 48000
RNG = np.random.default_rng(20260301)


def noise(frames: int = RATE // 2, channels: int = 1) -> Any:
    return RNG.uniform(-1, 1, (channels, frames)).astype(np.float32)


def player(context: OfflineAudioContext, samples: Any, rate: float = RATE) -> Any:
    buffer = AudioBuffer({"number_of_channels": len(samples), "length": samples.shape[1], "sample_rate": rate})
    buffer.channels[:] = samples
    source = context.create_buffer_source()
    source.buffer = buffer
    source.start()
    return source


def rendered(context: OfflineAudioContext) -> Any:
    return asyncio.run(context.start_rendering()).channels


@pytest.mark.parametrize("type", dsp.BIQUAD_TYPES)
@pytest.mark.parametrize(("frequency", "q", "gain"), [(200, 1, 6), (5000, 0.3, -12), (18000, 12, 20)])
def test_a_filter_is_that_of_the_specification(type: Any, frequency: float, q: float, gain: float) -> None:
    """The coefficients are computed here anew, from the formulas of the specification, and filtered by scipy."""
    from scipy import signal  # here: a second of importing, for two tests

    samples = noise(channels=2)
    context = OfflineAudioContext(2, samples.shape[1], RATE)
    node = BiquadFilterNode(context, {"type": type, "frequency": frequency, "Q": q, "gain": gain})
    player(context, samples).connect(node).connect(context.destination)
    b, a = coefficients_by_the_book(type, frequency, float(np.float32(q)), float(np.float32(gain)))
    expected = signal.lfilter(b, a, samples.astype(np.float64), axis=1)
    assert np.abs(rendered(context) - expected).max() < 1e-5 * max(1.0, np.abs(expected).max())


def coefficients_by_the_book(type: str, frequency: float, q: float, gain: float) -> tuple[list[float], list[float]]:
    """https://webaudio.github.io/web-audio-api/#filters-characteristics"""
    A = 10 ** (gain / 40)  # noqa: N806 - the specification's names
    w0 = 2 * math.pi * frequency / RATE
    aq, aqdb = math.sin(w0) / (2 * q) if q else 0.0, math.sin(w0) / (2 * 10 ** (q / 20))
    aS = math.sin(w0) / 2 * math.sqrt((A + 1 / A) * (1 / 1 - 1) + 2)  # noqa: N806
    c = math.cos(w0)
    return {
        "lowpass": ([(1 - c) / 2, 1 - c, (1 - c) / 2], [1 + aqdb, -2 * c, 1 - aqdb]),
        "highpass": ([(1 + c) / 2, -(1 + c), (1 + c) / 2], [1 + aqdb, -2 * c, 1 - aqdb]),
        "bandpass": ([aq, 0, -aq], [1 + aq, -2 * c, 1 - aq]),
        "notch": ([1, -2 * c, 1], [1 + aq, -2 * c, 1 - aq]),
        "allpass": ([1 - aq, -2 * c, 1 + aq], [1 + aq, -2 * c, 1 - aq]),
        "peaking": ([1 + aq * A, -2 * c, 1 - aq * A], [1 + aq / A, -2 * c, 1 - aq / A]),
        "lowshelf": (
            [
                A * ((A + 1) - (A - 1) * c + 2 * aS * math.sqrt(A)),
                2 * A * ((A - 1) - (A + 1) * c),
                A * ((A + 1) - (A - 1) * c - 2 * aS * math.sqrt(A)),
            ],
            [
                (A + 1) + (A - 1) * c + 2 * aS * math.sqrt(A),
                -2 * ((A - 1) + (A + 1) * c),
                (A + 1) + (A - 1) * c - 2 * aS * math.sqrt(A),
            ],
        ),
        "highshelf": (
            [
                A * ((A + 1) + (A - 1) * c + 2 * aS * math.sqrt(A)),
                -2 * A * ((A - 1) + (A + 1) * c),
                A * ((A + 1) + (A - 1) * c - 2 * aS * math.sqrt(A)),
            ],
            [
                (A + 1) - (A - 1) * c + 2 * aS * math.sqrt(A),
                2 * ((A - 1) - (A + 1) * c),
                (A + 1) - (A - 1) * c - 2 * aS * math.sqrt(A),
            ],
        ),
    }[type]


def test_the_response_is_what_the_filter_does() -> None:
    from scipy import signal  # here: a second of importing, for two tests

    context = OfflineAudioContext(1, RATE, RATE)
    node = BiquadFilterNode(context, {"type": "peaking", "frequency": 1000, "Q": 5, "gain": 12})
    frequencies = np.array([10, 500, 1000, 4000, 23000, -1, 24001], dtype=np.float32)
    magnitude, phase = np.zeros(7, dtype=np.float32), np.zeros(7, dtype=np.float32)
    assert node.get_frequency_response(frequencies, magnitude, phase)[0] is magnitude
    b, a = coefficients_by_the_book("peaking", 1000, 5, 12)
    _, expected = signal.freqz(b, a, worN=frequencies[:5].astype(np.float64), fs=RATE)
    assert np.allclose(magnitude[:5], np.abs(expected), atol=1e-5)
    assert np.allclose(phase[:5], np.angle(expected), atol=1e-5)
    assert np.isnan(magnitude[5:]).all()


def test_a_swept_filter_is_exact_to_the_sample() -> None:
    samples = noise(4096)
    context = OfflineAudioContext(1, 4096, RATE)
    node = BiquadFilterNode(context, {"type": "lowpass", "Q": 0})
    node.frequency.set_value_at_time(100, 0)
    node.frequency.exponential_ramp_to_value_at_time(10000, 4096 / RATE)
    player(context, samples).connect(node).connect(context.destination)
    x1 = x2 = y1 = y2 = 0.0
    expected = []
    for n, x in enumerate(samples[0].astype(np.float64)):
        b, a = coefficients_by_the_book("lowpass", 100 * 100 ** (n / 4096), 0, 0)
        (b0, b1, b2), (_, a1, a2) = [part / a[0] for part in b], [part / a[0] for part in a]
        y = b0 * x + b1 * x1 + b2 * x2 - a1 * y1 - a2 * y2  # the specification's equation
        x2, x1, y2, y1 = x1, x, y1, y
        expected.append(y)
    assert np.abs(rendered(context)[0] - expected).max() < 1e-5


@pytest.mark.parametrize("delay_s", [0.0, 100 / RATE, 0.01, 100.5 / RATE])
def test_a_delay_is_of_its_length(delay_s: float) -> None:
    samples = noise(4800)
    context = OfflineAudioContext(1, 9600, RATE)
    node = DelayNode(context, {"delay_time": delay_s, "max_delay_time": 0.1})
    player(context, samples).connect(node).connect(context.destination)
    frames = float(np.float32(delay_s)) * RATE
    at = np.arange(9600) - frames
    expected = np.interp(at, np.arange(4800), samples[0].astype(np.float64), left=0, right=0)
    inside = (at >= 0) & (at < 4799)
    assert np.abs(rendered(context)[0] - expected)[inside].max() < 2e-3  # a delay is a float32: 1e-5 of a frame


def test_a_loop_with_a_delay_is_an_echo_and_one_without_is_silent() -> None:
    impulse = np.zeros((1, 10), dtype=np.float32)
    impulse[0, 0] = 1.0
    context = OfflineAudioContext(1, 4096, RATE)
    delay = DelayNode(context, {"delay_time": 1000 / RATE, "max_delay_time": 1})
    half = GainNode(context, {"gain": 0.5})
    source = player(context, impulse)
    source.connect(context.destination)
    source.connect(delay)
    delay.connect(half).connect(delay)
    delay.connect(context.destination)
    got = rendered(context)[0]
    assert np.flatnonzero(np.abs(got) > 1e-3).tolist() == [0, 1000, 2000, 3000, 4000]
    assert got[[1000, 2000, 3000]] == pytest.approx([1, 0.5, 0.25], abs=1e-3)

    context = OfflineAudioContext(1, 1024, RATE)
    first, second = GainNode(context), GainNode(context)
    player(context, impulse).connect(first).connect(second).connect(first)
    second.connect(context.destination)
    assert not rendered(context).any()


def test_parallel_paths_stay_aligned_beside_a_compressor() -> None:
    """A node's latency is compensated: the compressor's path and the direct one lie on each other."""
    clicks = np.zeros((1, 9600), dtype=np.float32)
    clicks[0, ::960] = 0.001  # far below the threshold: only the make-up gain
    context = OfflineAudioContext(1, 9600, RATE)
    compressor = context.create_dynamics_compressor()
    source = player(context, clicks)
    source.connect(compressor).connect(context.destination)
    source.connect(context.destination)
    got = rendered(context)[0]
    assert np.flatnonzero(np.abs(got) > 1e-4).tolist() == list(range(0, 9600, 960))


def test_a_compressor_lowers_what_is_loud_by_its_curve() -> None:
    level = dsp.compression_curve(np.array([-60.0, -24.0, 0.0]), -24.0, 0.0, 12.0)
    assert level == pytest.approx([-60, -24, -22])
    loud = np.ones((1, 2 * RATE), dtype=np.float32)
    context = OfflineAudioContext(1, RATE, RATE)
    compressor = context.create_dynamics_compressor()
    compressor.knee.value = 0
    player(context, loud).connect(compressor).connect(context.destination)
    settled = rendered(context)[0, RATE // 2]
    wanted = 10 ** (-22 / 20) * (10 ** (22 / 20)) ** 0.6
    assert settled == pytest.approx(wanted, rel=0.01)
    assert compressor.reduction == pytest.approx(-22, abs=0.2)


@pytest.mark.parametrize("pan", [-1.0, -0.3, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("channels", [1, 2])
def test_panning_keeps_the_power(pan: float, channels: int) -> None:
    samples = noise(1280, channels)
    context = OfflineAudioContext(2, 1280, RATE)
    player(context, samples).connect(StereoPannerNode(context, {"pan": pan})).connect(context.destination)
    got = rendered(context)
    if channels == 1:
        angle = (pan + 1) / 2 * math.pi / 2
        assert np.abs(got - [samples[0] * math.cos(angle), samples[0] * math.sin(angle)]).max() < 1e-6
    else:
        angle = (pan + 1 if pan <= 0 else pan) * math.pi / 2
        left, right = samples
        if pan <= 0:
            expected = [left + right * math.cos(angle), right * math.sin(angle)]
        else:
            expected = [left * math.cos(angle), right + left * math.sin(angle)]
        assert np.abs(got - expected).max() < 1e-6


@pytest.mark.parametrize(("have", "want"), sorted(dsp.SPEAKERS))
def test_channels_are_mixed_as_speakers(have: int, want: int) -> None:
    samples = noise(256, have)
    mixed = dsp.remix(samples, want)
    assert mixed.shape == (want, 256)
    if (have, want) == (6, 2):  # L, R, C, LFE, SL, SR
        left = samples[0] + math.sqrt(0.5) * (samples[2] + samples[4])
        assert np.abs(mixed[0] - left).max() < 1e-6
    if want > have and want != 4:  # a quadraphonic sound is halved on its way down
        assert np.abs(dsp.remix(mixed, have) - samples).max() < 1e-6  # up and down again is the same


def test_splitter_and_merger_swap_channels() -> None:
    samples = noise(1280, 2)
    context = OfflineAudioContext(2, 1280, RATE)
    splitter, merger = context.create_channel_splitter(2), context.create_channel_merger(2)
    player(context, samples).connect(splitter)
    splitter.connect(merger, 0, 1)
    splitter.connect(merger, 1, 0)
    merger.connect(context.destination)
    assert np.abs(rendered(context) - samples[::-1]).max() == 0


@pytest.mark.parametrize("type", ["sine", "square", "sawtooth", "triangle"])
def test_an_oscillator_has_its_partials_and_none_above_nyquist(type: Any) -> None:
    frequency = 1000.0
    context = OfflineAudioContext(1, RATE, RATE)
    oscillator = context.create_oscillator()
    oscillator.type = type
    oscillator.frequency.value = frequency
    oscillator.connect(context.destination)
    oscillator.start()
    spectrum = np.abs(np.fft.rfft(rendered(context)[0])) * 2 / RATE
    n = np.arange(1, 24)
    book = {
        "sine": np.where(n == 1, 1.0, 0.0),
        "square": np.where(n % 2 == 1, 4 / (n * np.pi), 0.0),
        "sawtooth": 2 / (n * np.pi),
        "triangle": np.where(n % 2 == 1, 8 / (n * np.pi) ** 2, 0.0),
    }[type]
    found = spectrum[(n * 1000).astype(int)]
    assert found / found[0] == pytest.approx(book / book[0], abs=2e-3)
    others = np.delete(spectrum, np.concatenate(([0], n * 1000)))
    assert others.max() < 1e-3


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (lambda p: p.set_value_at_time(3, 0.01), lambda t: np.where(t < 0.01, 1, 3)),
        (
            lambda p: p.set_value_at_time(1, 0).linear_ramp_to_value_at_time(5, 0.02),
            lambda t: np.minimum(1 + 200 * t, 5),
        ),
        (
            lambda p: p.set_value_at_time(1, 0).exponential_ramp_to_value_at_time(100, 0.02),
            lambda t: np.minimum(100 ** (t / 0.02), 100),
        ),
        (
            lambda p: p.set_value_at_time(1, 0).set_target_at_time(0, 0.01, 0.005),
            lambda t: np.where(t < 0.01, 1, np.exp(-(t - 0.01) / 0.005)),
        ),
        (
            lambda p: p.set_value_curve_at_time([1, 3, 2], 0.005, 0.01),
            lambda t: np.interp(t, [0, 0.005, 0.010, 0.015, 1], [1, 1, 3, 2, 2]),
        ),
        (
            lambda p: p.set_value_at_time(1, 0).linear_ramp_to_value_at_time(5, 0.02).cancel_and_hold_at_time(0.01),
            lambda t: np.minimum(1 + 200 * t, 3),
        ),
        (
            lambda p: p.set_value_at_time(2, 0.005).set_value_at_time(7, 0.01).cancel_scheduled_values(0.01),
            lambda t: np.where(t < 0.005, 1, 2),
        ),
    ],
)
def test_automation_is_exact_to_the_sample(schedule: Any, expected: Any) -> None:
    frames = 1408  # not a multiple of a block
    context = OfflineAudioContext(1, frames, RATE)
    source = ConstantSourceNode(context)
    schedule(source.offset)
    source.connect(context.destination)
    source.start()
    assert np.abs(rendered(context)[0] - expected(np.arange(frames) / RATE)).max() < 1e-4


def test_automation_survives_the_borders_of_blocks() -> None:
    """A ramp of two seconds spans many blocks; events that are over are forgotten meanwhile."""
    context = OfflineAudioContext(1, 2 * RATE, RATE)
    source = ConstantSourceNode(context)
    source.offset.set_value_at_time(0, 0.1).linear_ramp_to_value_at_time(1, 1.1).set_target_at_time(0, 1.5, 0.2)
    source.connect(context.destination)
    source.start()
    t = np.arange(2 * RATE) / RATE
    wanted = np.interp(t, [0, 0.1, 0.1, 1.1, 2], [1, 1, 0, 1, 1])
    wanted = np.where(t < 1.5, wanted, np.exp(-(t - 1.5) / 0.2))
    got = rendered(context)[0]
    assert np.abs(got - wanted)[np.abs(t - 0.1) > 1e-4].max() < 1e-4


def test_a_signal_drives_a_parameter() -> None:
    context = OfflineAudioContext(1, 4800, RATE)
    gain = GainNode(context, {"gain": 0})
    ConstantSourceNode(context, {"offset": 2})
    carrier, modulator = ConstantSourceNode(context), context.create_oscillator()
    modulator.connect(gain.gain)
    carrier.connect(gain).connect(context.destination)
    carrier.start()
    modulator.start()
    expected = np.sin(2 * np.pi * 440 * np.arange(4800) / RATE)
    assert np.abs(rendered(context)[0] - expected).max() < 1e-5


@pytest.mark.parametrize(("rate", "playback"), [(RATE, 1.0), (RATE, 0.5), (24000, 1.0), (RATE, 2.0)])
def test_a_buffer_is_played_at_its_rate(rate: float, playback: float) -> None:
    tone = np.sin(2 * np.pi * 100 * np.arange(int(rate)) / rate)[None].astype(np.float32)
    context = OfflineAudioContext(1, RATE // 4, RATE)
    source = player(context, tone, rate)
    source.playback_rate.value = playback
    source.connect(context.destination)
    expected = np.sin(2 * np.pi * 100 * playback * np.arange(RATE // 4) / RATE)
    assert np.abs(rendered(context)[0] - expected).max() < 1e-3


def test_a_buffer_loops_and_ends() -> None:
    async def run() -> tuple[Any, list[str]]:
        context = OfflineAudioContext(1, 1000, RATE)
        buffer = context.create_buffer(1, 100, RATE)
        buffer.copy_to_channel(np.arange(100, dtype=np.float32), 0)
        source = context.create_buffer_source()
        source.buffer, source.loop, source.loop_start, source.loop_end = buffer, True, 50 / RATE, 60 / RATE
        ended: list[str] = []
        source.onended = lambda event: ended.append(event.type)
        source.connect(context.destination)
        source.start(0, 45 / RATE, 35 / RATE)
        samples = (await context.start_rendering()).channels[0]
        await asyncio.sleep(0)
        return samples, ended

    samples, ended = asyncio.run(run())
    expected = [45, 46, 47, 48, 49] + [50 + n % 10 for n in range(30)]
    assert samples[:35].tolist() == expected
    assert not samples[35:].any()
    assert ended == ["ended"]


def test_an_analyser_finds_a_tone() -> None:
    context = OfflineAudioContext(1, RATE, RATE)
    oscillator, analyser = context.create_oscillator(), context.create_analyser()
    oscillator.frequency.value = 64 * RATE / 2048
    analyser.smoothing_time_constant = 0
    oscillator.connect(analyser)  # goes nowhere, and is rendered all the same
    oscillator.start()
    rendered(context)
    spectrum = analyser.get_float_frequency_data()
    assert spectrum.shape == (1024,)
    assert int(np.argmax(spectrum)) == 64
    assert spectrum[64] == pytest.approx(20 * math.log10(0.42 / 2), abs=0.1)  # half of the window's mean
    levels = np.zeros(1024, dtype=np.uint8)
    assert analyser.get_byte_frequency_data(levels) is levels
    assert levels[64] == 255
    wave = analyser.get_float_time_domain_data()
    assert wave.shape == (2048,)
    assert np.abs(wave).max() == pytest.approx(1, abs=0.01)


def test_a_worklet_computes_and_one_that_raises_is_silent() -> None:
    async def run() -> None:
        context = OfflineAudioContext(1, 4800, RATE)
        calls = []

        def invert(inputs: list[Any], outputs: list[Any], parameters: Any) -> None:
            calls.append(outputs[0].shape)
            outputs[0][:] = -inputs[0] * parameters["amount"]

        worklet = AudioWorkletNode(context, invert, {"parameters": {"amount": (2.0, 0.0, 10.0)}})
        source = ConstantSourceNode(context)
        source.connect(worklet).connect(context.destination)
        source.start()
        assert (await context.start_rendering()).channels[0] == pytest.approx(-2.0)
        assert all(shape[0] == 1 for shape in calls)

        context = OfflineAudioContext(1, 48000, RATE)
        count, errors = [0], []

        def broken(inputs: list[Any], outputs: list[Any], parameters: Any) -> None:
            count[0] += 1
            raise RuntimeError("no")

        worklet = AudioWorkletNode(context, broken)
        worklet.onprocessorerror = lambda event: errors.append(str(event.error))
        source = ConstantSourceNode(context)
        source.connect(worklet).connect(context.destination)
        source.start()
        assert not (await context.start_rendering()).channels.any()
        await asyncio.sleep(0)
        assert errors == ["no"]
        assert count == [1]

    asyncio.run(run())


def test_rendering_is_suspended_at_a_quantum_and_goes_on() -> None:
    async def run() -> None:
        context = OfflineAudioContext(1, RATE, RATE)
        source, gain = ConstantSourceNode(context), GainNode(context)
        source.connect(gain).connect(context.destination)
        source.start()

        async def change() -> None:
            await context.suspend(0.5)
            assert context.state == "suspended"
            assert context.current_time == pytest.approx(0.5, abs=128 / RATE)
            gain.gain.value = 3
            await context.resume()

        task = asyncio.ensure_future(change())
        await asyncio.sleep(0)
        samples = (await context.start_rendering()).channels[0]
        await task
        step = -(-int(0.5 * RATE) // 128) * 128
        assert (samples[:step] == 1).all()
        assert (samples[step:] == 3).all()
        assert context.state == "closed"

    asyncio.run(run())


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda c: GainNode(c).gain.set_value_at_time(1, -1), ValueError),
        (lambda c: GainNode(c).gain.exponential_ramp_to_value_at_time(0, 1), ValueError),
        (lambda c: GainNode(c).gain.set_value_at_time(float("nan"), 0), TypeError),
        (lambda c: GainNode(c).connect(c.destination, 1), msrecd.IndexSizeError),
        (lambda c: GainNode(c).connect(GainNode(OfflineAudioContext(1, 1, RATE))), msrecd.InvalidAccessError),
        (lambda c: GainNode(c).disconnect(c.destination), msrecd.InvalidAccessError),
        (lambda c: c.create_delay(180), msrecd.NotSupportedError),
        (lambda c: c.create_channel_splitter(0), msrecd.IndexSizeError),
        (lambda c: setattr(c.create_analyser(), "fft_size", 100), msrecd.IndexSizeError),
        (lambda c: setattr(c.create_oscillator(), "type", "custom"), msrecd.InvalidStateError),
        (lambda c: c.create_oscillator().stop(), msrecd.InvalidStateError),
        (lambda c: setattr(c.create_dynamics_compressor(), "channel_count", 3), msrecd.NotSupportedError),
        (lambda c: OfflineAudioContext(0, 1, RATE), msrecd.NotSupportedError),
        (lambda c: OfflineAudioContext(1, 1, 1), msrecd.NotSupportedError),
    ],
)
def test_what_the_specification_refuses_is_refused(make: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        make(OfflineAudioContext(1, RATE, RATE))


def test_an_unknown_option_is_one_warning_at_the_callers_line() -> None:
    context = OfflineAudioContext(1, RATE, RATE)
    with pytest.warns(UserWarning, match="no option 'gian'; did you mean gain") as warned:
        GainNode(context, {"gian": 2})
    assert [one.filename for one in warned] == [__file__]
