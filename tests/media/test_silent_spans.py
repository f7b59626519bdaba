"""Sound that is switched off and on, or whose microphone is muted: silence, and not a sample more or less than time."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from itertools import groupby, pairwise

import av
import numpy as np
import pytest
from recording import Log, Scene, run

from msrecd import MediaRecorder, MediaStreamTrack

TYPES = [
    "audio/mp4;codecs=mp4a.40.2",
    "audio/webm;codecs=opus",
    "audio/x-matroska;codecs=flac",
    "audio/x-matroska;codecs=pcm",
]
WINDOW_S = 0.05


def loudness(data: bytes) -> tuple[np.ndarray, float]:
    """Peak in each window of all decoded sound, and the length of the sound in seconds."""
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(audio=0))
        rate = frames[0].sample_rate
        parts = [np.abs(frame.to_ndarray().astype(float)).max(axis=0) for frame in frames]
    sound = np.concatenate(parts)
    if frames[0].format.is_packed:
        sound = sound[:: frames[0].layout.nb_channels]
    step = round(rate * WINDOW_S)
    peaks = np.array([sound[at : at + step].max() for at in range(0, len(sound) - step, step)])
    return peaks / peaks.max(), len(sound) / rate


def assert_packets_join(data: bytes) -> float:
    """Each packet begins where the one before it ended; where the last one ends, in seconds."""
    with av.open(io.BytesIO(data)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.pts is not None and packet.size]
    for before, after in pairwise(packets[2:]):  # each libav tells in its own way what an encoder needs to begin
        hole_s = float((after.pts - before.pts - before.duration) * before.time_base)
        assert abs(hole_s) < 0.0021, f"{hole_s:.3f} s at {float(after.pts * after.time_base):.3f} s"
    return float((packets[-1].pts + packets[-1].duration - packets[0].pts) * packets[-1].time_base)


def spans(peaks: np.ndarray) -> list[tuple[bool, float]]:
    """(is there sound, for how many seconds) in order."""
    return [(bool(heard), len(list(windows)) * WINDOW_S) for heard, windows in groupby(peaks > 0.001)]


async def recorded(mime_type: str, switch: Callable[[Scene, MediaStreamTrack, bool], None]) -> bytes:
    """Some half a second of each: heard, silent, heard, silent, heard."""
    with Scene("a", signal="tone") as scene:
        (track,) = scene.stream.get_audio_tracks()
        recorder = MediaRecorder(scene.stream, {"mime_type": mime_type})
        log = Log(recorder)
        recorder.start(100)
        for is_heard in (True, False, True, False, True):
            switch(scene, track, is_heard)
            await log.until_media(0.45)
        recorder.stop()
        await log.until("stop")
        return log.data()


def enable(_: Scene, track: MediaStreamTrack, is_heard: bool) -> None:
    track.enabled = is_heard


def mute(scene: Scene, _: MediaStreamTrack, is_heard: bool) -> None:
    """A muted device gives nothing at all."""
    if is_heard:
        scene.microphone.unmute()
    else:
        scene.microphone.mute()


@pytest.mark.parametrize("mime_type", TYPES)
def test_disabled_sound_leaves_no_hole(mime_type: str) -> None:
    async def main() -> None:
        data = await recorded(mime_type, enable)
        end_s = assert_packets_join(data)
        peaks, length_s = loudness(data)
        assert length_s == pytest.approx(end_s, abs=0.025)  # what the encoder needs to begin
        found = spans(peaks)
        assert [heard for heard, _ in found] == [True, False, True, False, True]
        assert all(seconds >= 0.35 for _, seconds in found), found

    run(main())


@pytest.mark.parametrize("mime_type", ["audio/mp4;codecs=mp4a.40.2", "audio/x-matroska;codecs=pcm"])
def test_a_muted_microphone_is_silent_for_as_long(mime_type: str) -> None:
    async def main() -> None:
        data = await recorded(mime_type, mute)
        assert_packets_join(data)
        peaks, length_s = loudness(data)
        assert length_s > 5 * 0.4
        found = [heard for heard, seconds in spans(peaks)]
        assert found == [True, False, True, False, True]

    run(main())


def test_switched_faster_than_an_encoder_works() -> None:
    async def main() -> None:
        with Scene("a", signal="tone") as scene:
            (track,) = scene.stream.get_audio_tracks()
            recorder = MediaRecorder(scene.stream, {"mime_type": "audio/webm;codecs=opus"})
            log = Log(recorder)
            recorder.start(100)
            await log.until("start")
            for number in range(101):
                track.enabled = number % 2 == 0
                await asyncio.sleep(0.01)
            await log.until_media(0.5)
            recorder.stop()
            await log.until("stop")
            end_s = assert_packets_join(log.data())
            peaks, length_s = loudness(log.data())
            assert length_s == pytest.approx(end_s, abs=0.025)
            assert peaks[-1] > 0.9

    run(main())
