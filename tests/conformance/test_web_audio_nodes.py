"""What web-platform-tests (webaudio/the-audio-api) ask of nodes beside their sound; each test names its file."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import msrecd
from msrecd import OfflineAudioContext
from msrecd.webaudio import dsp

RATE = 16384
NODES = (
    *("AnalyserNode", "AudioBufferSourceNode", "BiquadFilterNode", "ChannelMergerNode", "ChannelSplitterNode"),
    *("ConstantSourceNode", "DelayNode", "DynamicsCompressorNode", "GainNode", "OscillatorNode", "StereoPannerNode"),
)


def context(frames: int = 256, channels: int = 1) -> OfflineAudioContext:
    return OfflineAudioContext(channels, frames, RATE)


def rendered(of: OfflineAudioContext) -> np.ndarray[Any, Any]:
    return asyncio.run(of.start_rendering()).channels


@pytest.mark.parametrize("name", NODES)
def test_a_node_needs_a_context_and_a_mapping(name: str) -> None:
    """ctor-gain.html and its like."""
    with pytest.raises(TypeError):
        getattr(msrecd, name)(1)
    with pytest.raises(TypeError):
        getattr(msrecd, name)(context(), 42)


def second_buffer() -> None:
    node = context().create_buffer_source()
    node.buffer = context().create_buffer(1, 8, RATE)
    node.buffer = None
    node.buffer = context().create_buffer(1, 8, RATE)


def value_in_a_curve() -> None:
    param = context().create_gain().gain
    param.set_value_curve_at_time([1, 2], 0, 1)
    param.value = 3


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (second_buffer, msrecd.InvalidStateError),  # audiobuffersource-channels.html
        (value_in_a_curve, msrecd.NotSupportedError),  # audioparam-setValueCurve-exceptions.html
        (lambda: context().create_gain().connect(context().create_gain().gain), msrecd.InvalidAccessError),
        (
            lambda: msrecd.ChannelSplitterNode(context(), {"channel_interpretation": "speakers"}),
            msrecd.InvalidStateError,
        ),
        (lambda: context().create_delay(math.nan), TypeError),  # delaynode-maxdelaylimit.html
        (lambda: msrecd.OscillatorNode(context(), {"periodic_wave": None}), TypeError),  # ctor-oscillator.html
        (lambda: context().create_buffer(1, 8, RATE).copy_to_channel(None, 0), TypeError),  # type: ignore[arg-type]
        (lambda: context().create_buffer(1, 8, RATE).copy_from_channel(np.zeros(4), 0, -1), ValueError),
    ],
)
def test_what_is_refused(call: Callable[[], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        call()


@pytest.mark.parametrize("options", [{"latency_hint": "fast"}, "interactive", {"sample_rate": "high"}])
def test_wrong_options_of_a_context(options: Any) -> None:
    """audiocontextoptions.html"""

    async def run() -> None:
        with pytest.raises(TypeError):
            msrecd.AudioContext(options)
        with pytest.raises(msrecd.NotSupportedError):
            msrecd.AudioContext({"sample_rate": 0})
        live = msrecd.AudioContext({"latency_hint": "playback"})
        with pytest.raises(msrecd.IndexSizeError):  # destination.html
            live.destination.channel_count = live.destination.max_channel_count + 1
        assert live.output_latency == 0
        await live.close()

    asyncio.run(run())


def test_other_coefficients_go_on_with_what_went_out() -> None:
    """biquad-automation.html, the-biquadfilternode-interface/no-dezippering.html"""
    sound = np.random.default_rng(3).random((1, 600)).astype(np.float32) - 0.5
    low, high = (dsp.biquad("lowpass", hertz, 4.0, 0.0, RATE) for hertz in (300.0, 3000.0))
    filter_, by_the_book = dsp.Biquad(), dsp.Biquad()
    parts = [filter_.process(sound[:, :251], low), filter_.process(sound[:, 251:], high)]
    expected = by_the_book.process_varying(sound, [low] * 251 + [high] * 349)
    assert np.abs(np.concatenate(parts, axis=1) - expected).max() < 1e-6


@pytest.mark.parametrize("kind", ["linear", "exponential"])
def test_of_ramps_to_one_time_the_first_one_leads(kind: str) -> None:
    """event-insertion.html"""
    of = context()
    source = of.create_constant_source()
    ramp = getattr(source.offset, f"{kind}_ramp_to_value_at_time")
    source.offset.set_value_at_time(1, 0)
    for value in (2, 10):
        ramp(value, 64 / RATE)
    source.connect(of.destination)
    source.start()
    heard = rendered(of)[0]
    assert heard[63] == pytest.approx(1 + 63 / 64 if kind == "linear" else 2 ** (63 / 64), rel=1e-6)
    assert (heard[64:] == 10).all()


def test_a_curve_that_is_cut_holds_its_value() -> None:
    """audioparam-cancel-and-hold.html"""
    of = context()
    source = of.create_constant_source()
    source.offset.set_value_curve_at_time([0, 1], 0, 128 / RATE)
    source.offset.cancel_and_hold_at_time(32 / RATE)
    source.connect(of.destination)
    source.start()
    heard = rendered(of)[0]
    assert np.allclose(heard[:32], np.arange(32) / 128, atol=1e-7)
    assert (heard[32:] == 0.25).all()


def test_a_tone_at_the_highest_frequency_is_silent() -> None:
    """detune-limiting.html"""
    of = context()
    tone = msrecd.OscillatorNode(of, {"frequency": RATE / 2})
    tone.connect(of.destination)
    tone.start()
    assert not rendered(of).any()


def test_at_an_end_the_other_side_is_silent() -> None:
    """the-stereopanner-interface/no-dezippering.html"""
    of = context(channels=2)
    source, panner = of.create_constant_source(), msrecd.StereoPannerNode(of, {"pan": 1})
    source.connect(panner).connect(of.destination)
    source.start()
    left, right = rendered(of)
    assert np.abs(left).max() < 1e-16
    assert (right == 1).all()


def test_members_of_parameters_buffers_and_waves() -> None:
    """audioparam-nominal-range.html, audiobuffer-copy-channel.html, periodicWave.html, realtimeanalyser-basic.html"""
    of = context()
    pan = of.create_stereo_panner().pan
    assert (pan.default_value, pan.min_value, pan.max_value) == (0, -1, 1)
    buffer = of.create_buffer(1, 4, RATE)
    buffer.copy_to_channel(np.array([1, 2, 3, 4], np.float32), 0)
    out = np.zeros(2, np.float32)
    buffer.copy_from_channel(out, 0, 1)
    assert out.tolist() == [2, 3]
    tone, analyser = of.create_oscillator(), of.create_analyser()
    tone.set_periodic_wave(of.create_periodic_wave([0, 0], [0, 1]))
    tone.connect(analyser).connect(of.destination)
    tone.start()
    told: list[msrecd.AudioBuffer] = []

    async def run() -> msrecd.AudioBuffer:
        of.oncomplete = lambda event: told.append(event.rendered_buffer)
        found = await of.start_rendering()
        await asyncio.sleep(0)
        return found

    assert asyncio.run(run()) is told[0]
    loudest = analyser.get_byte_time_domain_data()
    assert (loudest.min(), loudest.max()) == (pytest.approx(0, abs=2), pytest.approx(255, abs=2))
