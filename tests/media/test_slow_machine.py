"""A machine that has no time makes recordings late, not wrong."""

from __future__ import annotations

import time
from typing import Any

import pytest
from recording import Log, Scene, delivered, judged, run

import msrecd
from msrecd import libav
from msrecd.flow.encoded import EncodedFeed, EncodingRequest
from msrecd.flow.feed import Feed
from msrecd.flow.source import Source
from msrecd.flow.units import Kind, VideoFormat
from msrecd.media.track import MediaStreamTrack
from msrecd.muxing import worker


@pytest.mark.parametrize("encoder", ["VideoEncoder", "AudioEncoder"])
def test_an_encoder_that_opens_late_is_waited_for(encoder: str, monkeypatch: Any) -> None:
    made = getattr(libav, encoder)

    class Late(made):  # type: ignore[misc]
        def __init__(self, **keywords: Any) -> None:
            time.sleep(1.5)
            super().__init__(**keywords)

    monkeypatch.setattr(libav, encoder, Late)
    monkeypatch.setattr(worker, "PARAMETERS_DEADLINE_NS", 200_000_000)

    async def main() -> None:
        with Scene("av") as scene:
            recorder = msrecd.MediaRecorder(scene.stream)
            log = Log(recorder)
            recorder.start()
            await log.until("start")
            await delivered(scene.stream, 0.5)
            recorder.stop()
            await log.until("stop")
            assert log.types == ["start", "dataavailable", "stop"]
            found = judged(log.data())
            assert len(found.numbers) >= 5
            assert found.samples is not None

    run(main())


class SilentSource(Source):
    """Delivers packets, as it says, but none comes."""

    kind: Kind = "video"

    def __init__(self, frame_rate: float | None = None) -> None:
        super().__init__(label="silent")
        self._feed = EncodedFeed()
        self._frame_rate = frame_rate

    @property
    def format(self) -> VideoFormat:
        return VideoFormat(width=64, height=48, frame_rate=self._frame_rate)

    def raw(self) -> Feed[Any]:
        return Feed()

    def encoded(self, request: EncodingRequest) -> EncodedFeed:
        return self._feed

    def native_codec(self) -> str:
        return "h264"

    def close(self) -> None:
        self._feed.feed.end()


@pytest.mark.parametrize(("frame_rate", "limit_s"), [(None, "0.2"), (5.0, "0.8")], ids=["usual", "slow"])
def test_a_source_that_gives_nothing_is_given_up(frame_rate: float | None, limit_s: str, monkeypatch: Any) -> None:
    """A camera of one frame in many seconds gets the time of some frames."""
    monkeypatch.setattr(worker, "PARAMETERS_DEADLINE_NS", 200_000_000)

    async def main() -> None:
        source = SilentSource(frame_rate)
        track = MediaStreamTrack._create(source, settings={}, capabilities={}, on_last_ended=source.close)
        recorder = msrecd.MediaRecorder(msrecd.MediaStream([track]))
        log = Log(recorder)
        recorder.start()
        await log.until("stop")
        assert log.types == ["start", "error", "dataavailable", "stop"]
        assert isinstance(log.error(), msrecd.UnknownError)
        assert f"the video source 'silent' gave nothing for {limit_s} s" in log.error().message
        track.stop()

    run(main())
