"""What waits has a bound: for an encoder that is slow to open, and for the end of the recording before."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from still_camera import StillCamera

from msrecd.clock import SYSTEM_CLOCK
from msrecd.codecs import hub
from msrecd.dom.events import Event
from msrecd.flow.encoded import EncodedFeed, EncodingRequest
from msrecd.flow.source import Gate
from msrecd.flow.units import Packet
from msrecd.media.events import BlobEvent
from msrecd.media.session import Session
from msrecd.muxing.facts import Data, Fact, Finished
from msrecd.muxing.recording import WorkerOptions
from msrecd.muxing.videoinput import VideoInput
from msrecd.muxing.worker import RecorderWorker
from msrecd.vocabulary.formats import CONTAINERS

PACKET = Packet(pts_ns=0, dts_ns=0, duration_ns=1, is_keyframe=True, data=bytes(1000))
ROOM = 100  # packets


def test_packets_wait_within_the_bound_while_an_encoder_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    output = EncodedFeed()  # its parameters never come
    lease = SimpleNamespace(output=output, close=lambda: None, request_key_frame=output.request_key_frame)
    monkeypatch.setattr(hub, "acquire", lambda *_, **__: lease)
    track = VideoInput(0, StillCamera(label="Front"), Gate(), EncodingRequest(kind="video", codec="h264"))
    options = WorkerOptions(container=CONTAINERS["video/mp4"], max_buffered_bytes=ROOM * len(PACKET.data))
    worker = RecorderWorker(options, [track])
    facts: list[Fact] = []
    assert worker.begin(options, facts.append, SYSTEM_CLOCK.monotonic_ns())
    worker.start()
    deadline = time.monotonic() + 30
    while not output.feed.has_sinks and time.monotonic() < deadline:
        time.sleep(0.001)
    for _ in range(ROOM):
        output.feed.put(PACKET)
    assert track.take_refused() == []
    for _ in range(10):  # a worker that took them away meanwhile would have room again
        time.sleep(0.05)
        output.feed.put(PACKET)
        assert track.take_refused() == [PACKET.pts_ns]
    worker.stop(0)
    worker.join(30)
    (finished,) = facts
    assert isinstance(finished, Finished)


def test_blobs_that_wait_for_the_end_of_the_recording_before_count_as_buffered() -> None:
    asyncio.run(blobs_that_wait())


async def blobs_that_wait() -> None:
    fired: list[Event] = []
    owner = SimpleNamespace(stream=None, mime_type="", _fire=fired.append)
    session = Session(cast(Any, owner), cast(Any, SimpleNamespace()), SYSTEM_CLOCK, None)
    worker = SimpleNamespace(outstanding_bytes=0)
    session._worker = cast(Any, worker)
    session._after = cast(Any, SimpleNamespace(is_over=False))
    for number in range(3):
        session._take(Data(parts=(b"abc", b"d"), created_ns=number, chunk=1, started_ns=0))
    assert (worker.outstanding_bytes, fired) == (12, [])
    session._go_on()
    await asyncio.sleep(0)
    assert worker.outstanding_bytes == 0
    assert [bytes(event.data) for event in fired if isinstance(event, BlobEvent)] == [b"abcd"] * 3
