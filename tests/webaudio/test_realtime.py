"""Graphs on live tracks: what went in at t comes out at t, and a graph that nobody holds is gone."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import msrecd
from msrecd.clock import SYSTEM_CLOCK
from msrecd.devices.virtual import VirtualBackend, VirtualMicrophone
from msrecd.flow.source import Gate
from msrecd.flow.units import AudioBlock, AudioFormat
from msrecd.webaudio.intake import Intake, in_both


async def until(holds: Callable[[], bool]) -> None:
    """Wait until it holds; looks 50 times a second, for half a minute."""
    for _ in range(1500):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come")


def test_a_graph_without_a_track_runs_by_the_clock_and_is_suspended() -> None:
    async def run() -> None:
        context = msrecd.AudioContext()
        oscillator, analyser = context.create_oscillator(), context.create_analyser()
        oscillator.connect(analyser).connect(context.destination)
        states: list[str] = []
        context.onstatechange = lambda _: states.append(context.state)
        oscillator.start()
        await until(lambda: abs(analyser.get_float_time_domain_data()).max() > 0.9)
        await context.suspend()
        at = context.current_time
        assert at > 0
        await asyncio.sleep(0.3)  # nothing may happen in it
        assert context.current_time == at
        await context.resume()
        await until(lambda: context.current_time > at)
        await context.close()
        with pytest.raises(msrecd.InvalidStateError):
            await context.resume()
        await asyncio.sleep(0)
        assert states == ["running", "suspended", "running", "closed"]

    asyncio.run(run())


def test_blocks_are_long_only_where_nobody_waits_for_them() -> None:
    async def run() -> None:
        backend = VirtualBackend([VirtualMicrophone("Microphone", signal="tone")])
        stream = await msrecd.MediaDevices(backends=[backend]).get_user_media({"audio": True})
        context = msrecd.AudioContext()
        end = context.create_media_stream_destination()
        context.create_media_stream_source(stream).connect(context.create_gain()).connect(end)
        assert context.base_latency < 0.1
        recorder = msrecd.MediaRecorder(end.stream, {"mime_type": "audio/mp4"})
        recorder.start()
        await until(lambda: context.base_latency == 0.5)
        async with msrecd.MediaStreamTrackReader(end.stream.get_audio_tracks()[0]):
            await until(lambda: context.base_latency < 0.1)
        await until(lambda: context.base_latency == 0.5)
        context.create_analyser()
        await until(lambda: context.base_latency < 0.1)
        recorder.stop()
        await recorder.stopped
        await context.close()
        for track in stream.get_tracks():
            track.stop()

    asyncio.run(run())


@pytest.mark.parametrize("channels", [1, 2])
def test_a_straight_graph_in_one_go_sounds_as_its_nodes_do(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a parameter moves: then its nodes compute until it has been still for a while."""
    noise = np.random.default_rng(17).integers(-9000, 9000, size=(200 * 960, channels), dtype=np.int16)
    format = AudioFormat(sample_rate=48000, channels=channels)

    async def run() -> tuple[np.ndarray[Any, Any], list[bool]]:
        stream = msrecd.MediaStreamTrackGenerator({"kind": "audio", "channel_count": channels}).track
        context = msrecd.AudioContext()
        end = context.create_media_stream_destination()
        end.channel_count = 1
        source = context.create_media_stream_source(msrecd.MediaStream([stream]))
        filters = [
            msrecd.BiquadFilterNode(context, {"type": "highpass", "frequency": 60}),
            msrecd.BiquadFilterNode(context, {"type": "peaking", "frequency": 900, "gain": 9}),
        ]
        gain = msrecd.GainNode(context, {"gain": -1.5})
        source.connect(filters[0]).connect(gain).connect(filters[1]).connect(end)
        await context.suspend()
        context._origin_ns, context._rendered_frames = 0, 0
        source._intake = intake = Intake(format, Gate(), 48000)
        heard = []
        for at in range(200):
            block = noise[at * 960 : (at + 1) * 960].tobytes()
            intake.put(AudioBlock(pts_ns=at * 20_000_000, format=format, samples=960, data=block))
            if intake.available_until(0) >= context._rendered_frames + 3840:
                if len(heard) == 12:
                    gain.gain.value = -0.8
                context._render(3840)
                assert end._heard is not None
                heard.append(end._heard)
        await context.close()
        whole = np.concatenate([one / 32768 if one.dtype == np.int16 else one for one in heard], axis=1)
        return whole, [one.dtype == np.int16 for one in heard]

    sound, in_one_go = asyncio.run(run())
    assert in_one_go[4:12] == [True] * 8
    assert not any(in_one_go[13:20])
    assert all(in_one_go[40:])
    with monkeypatch.context() as patched:
        patched.setattr(msrecd.AudioContext, "_straight", lambda *_: None)
        expected, by_nodes = asyncio.run(run())
    assert not any(by_nodes)
    assert abs(expected).max() > 0.2
    assert abs(sound - expected).max() < 1.0 / 32768


def test_closing_ends_the_tracks_of_its_destinations() -> None:
    async def run() -> None:
        context = msrecd.AudioContext()
        [track] = context.create_media_stream_destination().stream.get_tracks()
        ended = asyncio.Event()
        track.onended = lambda _: ended.set()
        await context.close()
        async with asyncio.timeout(10):
            await ended.wait()
        assert track.ready_state == "ended"

    asyncio.run(run())


def test_graphs_that_nobody_holds_leave_nothing_behind() -> None:
    async def run() -> None:
        backend = VirtualBackend([VirtualMicrophone("Microphone")])
        stream = await msrecd.MediaDevices(backends=[backend]).get_user_media({"audio": True})
        gone: list[weakref.ref[Any]] = []
        for round_ in range(30):
            context = msrecd.AudioContext()
            end = context.create_media_stream_destination()
            context.create_media_stream_source(stream).connect(context.create_gain()).connect(end)
            if round_ % 2:
                await context.close()
            gone.append(weakref.ref(context))
            del context, end

        def nothing_is_left() -> bool:
            gc.collect()
            return all(one() is None for one in gone) and all(
                thread.name != "audio graph" for thread in threading.enumerate()
            )

        await until(nothing_is_left)
        [track] = stream.get_tracks()
        assert not track._source.raw()._sinks
        track.stop()

    asyncio.run(run())


def test_a_graph_that_is_always_late_can_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that renders slower than time passes never has nothing to do."""
    compute = msrecd.AudioContext._compute

    def slow(self: Any, plan: Any, first_frame: int, frames: int) -> None:
        compute(self, plan, first_frame, frames)
        time.sleep(2 * frames / 48_000)

    monkeypatch.setattr(msrecd.AudioContext, "_compute", slow)

    async def run() -> None:
        context = msrecd.AudioContext()
        context.create_oscillator().connect(context.create_media_stream_destination())
        await until(lambda: context.current_time > 0.3)
        thread = context._thread
        assert thread is not None
        await context.close()
        assert not thread.is_alive()

    asyncio.run(run())


def test_a_disabled_track_is_silent_in_the_graph() -> None:
    async def run() -> None:
        backend = VirtualBackend([VirtualMicrophone("Microphone", signal="tone")])
        stream = await msrecd.MediaDevices(backends=[backend]).get_user_media({"audio": True})
        context = msrecd.AudioContext()
        analyser = context.create_analyser()
        context.create_media_stream_source(stream).connect(analyser)
        await until(lambda: abs(analyser.get_float_time_domain_data()).max() > 0.4)
        [track] = stream.get_tracks()
        track.enabled = False
        await until(lambda: not analyser.get_float_time_domain_data().any())
        await context.close()
        track.stop()

    asyncio.run(run())


@pytest.mark.promise("losses-in-a-graph")
def test_what_a_device_loses_is_lost_behind_the_graph() -> None:
    """Silence that stands for sound is not given as sound: a recorder counts it, where it is."""
    rate = 48_000
    format = AudioFormat(sample_rate=rate, channels=1)
    intake = Intake(format, Gate(), rate)
    one = (b"\x00\x40") * 480
    at_ns = 5 * 10**9
    for number in range(40):
        lost = 960 if number == 20 else 0
        at_ns += lost * 10**9 // rate
        intake.put(AudioBlock(pts_ns=at_ns, format=format, samples=480, data=one, lost_before=lost))
        at_ns += 480 * 10**9 // rate
    begin_ns = 5 * 10**9 - 10**7  # the context is 10 ms older than the sound
    assert intake.available_until(begin_ns) >= 15_000
    heard = intake.take(0, 15_000)
    assert [end - begin for begin, end in intake.missing] == [480, 960]
    assert intake.missing[0] == (0, 480)
    (begin, end) = intake.missing[1]
    assert abs(begin - (480 + 20 * 480)) <= 2
    assert not heard[0, begin + 64 : end - 64].any()
    assert heard[0, begin - 480 : begin - 64].any()


@pytest.mark.parametrize("looks_ahead", [False, True])
@pytest.mark.promise("losses-in-a-graph")
def test_what_comes_too_late_is_a_gap_of_the_recording(looks_ahead: bool) -> None:
    """A track stands still for 1.8 s: of what it gives then some comes too late, silence was rendered for it."""

    async def record() -> msrecd.ChunkInfo:
        generator = msrecd.MediaStreamTrackGenerator({"kind": "audio", "sample_rate": 48_000, "channel_count": 1})
        context = msrecd.AudioContext()
        end = context.create_media_stream_destination()
        node: msrecd.AudioNode = context.create_media_stream_source(msrecd.MediaStream([generator.track]))
        if looks_ahead:
            node = node.connect(context.create_dynamics_compressor())
        node.connect(end)
        recorder = msrecd.MediaRecorder(end.stream, {"mime_type": "audio/x-matroska;codecs=pcm"})
        infos: list[msrecd.ChunkInfo] = []
        recorder.ondataavailable = lambda event: infos.append(event.chunk_info) if event.chunk_info else None
        recorder.start()
        begin_ns, loop = SYSTEM_CLOCK.monotonic_ns(), asyncio.get_running_loop()
        begin_s = loop.time()
        for number in range(28):
            await asyncio.sleep(begin_s + (number / 10 if number < 10 else 2.8) - loop.time())
            sound = np.full((1, 4800), 0.5, np.float32)
            at_ns = begin_ns + number * 10**8
            await generator.write(msrecd.AudioData(sound, sample_rate=48_000, timestamp_ns=at_ns))
        recorder.stop()
        await recorder.stopped
        await context.close()
        return infos[-1]

    info = asyncio.run(record())
    (sound,) = info.tracks
    assert 0.1 < sound.gap_s < 1.8
    assert sum(one.duration_s for one in info.gaps) == pytest.approx(sound.gap_s, abs=0.1)


def test_ranges_that_two_rows_share() -> None:
    assert in_both([(0, 10), (20, 30)], [(5, 25)]) == [(5, 10), (20, 25)]
    assert in_both([(0, 10)], []) == []
