"""What an input gives at once is in the blob that follows, but for a fragment: so much is lost when a process dies."""

from __future__ import annotations

import io
import queue

import av
import pytest
from still_camera import StillCamera

from msrecd.clock import MS, SYSTEM_CLOCK
from msrecd.codecs import parameters
from msrecd.flow.encoded import EncodedFeed, EncodingRequest
from msrecd.flow.source import Gate
from msrecd.flow.units import Packet
from msrecd.libav.streamfacts import stream_info_of_annexb
from msrecd.muxing.facts import Data, Fact, Finished
from msrecd.muxing.recording import WorkerOptions
from msrecd.muxing.videoinput import VideoInput
from msrecd.muxing.worker import RecorderWorker
from msrecd.vocabulary.formats import CONTAINERS
from tests.inputs.cameras import RATE, clip

BATCH = 7  # frames, 280 ms
TIMESLICE_MS = 250
IN_LIBAV = 5  # frames: a fragment of 125 ms and the frame that waits for its successor
DEADLINE_S = 30.0


def frames_in(parts: list[bytes]) -> int:
    try:
        with av.open(io.BytesIO(b"".join(parts))) as container:
            return sum(1 for packet in container.demux() if packet.size)
    except av.error.FFmpegError:
        return 0


def recorded(monkeypatch: pytest.MonkeyPatch, mime_type: str, batches: list[int], most_waiting: int | None) -> bytes:
    """The file of so many frames a batch; all but so many are given when a batch is over."""
    frames = [b"".join(b"\0\0\0\1" + unit for unit in units) for units in clip(seconds=2).frames]
    output = EncodedFeed()
    output.feed.gives_batches = True
    output.set_parameters(parameters.of_input(stream_info_of_annexb(frames[0])))
    source = StillCamera(label="Front")
    monkeypatch.setattr(source, "encoded", lambda request: output)
    track = VideoInput(0, source, Gate(), EncodingRequest(kind="video", codec="h264"))
    options = WorkerOptions(container=CONTAINERS[mime_type], timeslice_ns=TIMESLICE_MS * MS, is_eager=True)
    worker = RecorderWorker(options, [track])
    facts: queue.Queue[Fact] = queue.Queue()
    begun_ns = SYSTEM_CLOCK.monotonic_ns()
    assert worker.begin(options, facts.put, begun_ns)
    worker.start()
    facts.get(timeout=DEADLINE_S)  # Ready: it listens
    interval_ns = 1000 * MS // RATE
    parts: list[bytes] = []
    sent = 0
    for batch in batches:
        for _ in range(batch):
            at_ns = begun_ns + sent * interval_ns
            output.feed.put(
                Packet(
                    pts_ns=at_ns, dts_ns=at_ns, duration_ns=interval_ns, is_keyframe=sent % RATE == 0, data=frames[sent]
                )
            )
            sent += 1
        output.feed.flush()
        while most_waiting is not None and frames_in(parts) < sent - most_waiting:
            fact = facts.get(timeout=DEADLINE_S)
            assert isinstance(fact, Data)
            parts += fact.parts
    worker.stop(begun_ns + sent * interval_ns)
    while not isinstance(fact := facts.get(timeout=DEADLINE_S), Finished):
        assert isinstance(fact, Data)
        parts += fact.parts
    worker.join(DEADLINE_S)
    assert fact.data is not None
    parts += fact.data.parts
    assert frames_in(parts) == sent
    return b"".join(parts)


@pytest.mark.parametrize(("mime_type", "most_waiting"), [("video/mp4", 1), ("video/x-matroska", IN_LIBAV)])
def test_what_comes_in_a_batch_is_given_with_it(
    monkeypatch: pytest.MonkeyPatch, mime_type: str, most_waiting: int
) -> None:
    recorded(monkeypatch, mime_type, [BATCH] * 6, most_waiting)


def test_small_batches_share_a_fragment(monkeypatch: pytest.MonkeyPatch) -> None:
    data = recorded(monkeypatch, "video/mp4", [1] * 42, None)
    assert 4 <= data.count(b"moof") <= 42 * 40 // (TIMESLICE_MS // 2)
