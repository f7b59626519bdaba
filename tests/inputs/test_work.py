"""How much the program does for each second of a network camera that passes through: Python calls and wake-ups.

Counted, not timed: whatever else the machine does, the figures are the same. docs/performance.md says what they cost.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import Counter
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from msrecd.clock import MS, NS
from msrecd.flow.encoded import EncodingRequest
from msrecd.flow.source import Gate
from msrecd.inputs import wire
from msrecd.libav import Demuxer
from msrecd.libav.values import Demuxed
from msrecd.media import playback
from msrecd.muxing.audioinput import AudioInput
from msrecd.muxing.facts import Data, Fact, Finished
from msrecd.muxing.recording import WorkerOptions
from msrecd.muxing.videoinput import VideoInput
from msrecd.muxing.worker import RecorderWorker
from msrecd.vocabulary.formats import CONTAINERS
from msrecd.vocabulary.nal import nal_units
from tests.inputs.cameras import RtspCamera, clip

MEDIA_S = 16
BATCH_NS = 250 * MS
DEADLINE_S = 60.0


class Replay:
    """In the place of a Reader: what a camera sent, over and over, a quarter of a second at a time."""

    def __init__(self, description: wire.Description, packets: list[Demuxed], length_ns: int) -> None:
        self.description = description
        self._packets, self._length_ns = packets, length_ns
        self.now_ns = 1000 * NS
        self.batches_given = 0
        self.go_on = threading.Semaphore(0)

    def batches(self, indexes: list[int]) -> Iterator[list[Demuxed]]:
        at_ns = 0
        while at_ns < MEDIA_S * NS:
            batch = []
            for one in self._packets:
                for again in (at_ns // self._length_ns, at_ns // self._length_ns + 1):
                    pts = (one.pts_ns or 0) + again * self._length_ns
                    if at_ns <= pts < at_ns + BATCH_NS:
                        batch.append(
                            Demuxed(one.stream, one.data, pts, None, one.duration_ns, one.is_keyframe, units=one.units)
                        )
            batch.sort(key=lambda packet: packet.pts_ns or 0)
            at_ns += BATCH_NS
            self.now_ns += BATCH_NS
            self.batches_given += 1
            body = b"".join(bytes(part) for part in wire.packets(batch))[wire.HEADER.size :]
            yield wire.read_packets(body, set(indexes))
            assert self.go_on.acquire(timeout=DEADLINE_S)

    def close(self) -> None:
        self.go_on.release()


@pytest.fixture(scope="module")
def sent() -> tuple[wire.Description, list[Demuxed], int]:
    """What a camera sends in two seconds, and how it describes itself."""
    with RtspCamera(clip()) as camera:
        demuxer = Demuxer(camera.url, timeout_s=20.0)
        description = wire.Description(streams=tuple(demuxer.streams), is_live=True, times="rtp")
        indexes = [info.index for info in demuxer.streams]
        packets: list[Demuxed] = []
        for packet in demuxer.packets(indexes):
            data = bytes(packet.data)
            units = tuple(len(unit) for unit in nal_units(data)) if packet.stream == 0 else ()
            if sum(units) + 4 * len(units) != len(data):
                units = ()
            packets.append(
                Demuxed(packet.stream, data, packet.pts_ns, None, packet.duration_ns, packet.is_keyframe, units=units)
            )
            if len(packets) > 200:
                break
        demuxer.close()
    for packet in packets[:1]:
        packet.pts_ns = packet.pts_ns or 0
    kept = [packet for packet in packets if packet.pts_ns is not None and packet.pts_ns < 2 * NS]
    return description, kept, 2 * NS


class Calls:
    """Counts the calls of Python functions, and of built-in ones, in threads that begin from now on."""

    def __init__(self) -> None:
        self.python: Counter[str] = Counter()
        self.builtin = 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            code = frame.f_code
            self.python[f"{code.co_filename.rsplit('/', 1)[-1]}:{code.co_qualname}"] += 1
        elif event == "c_call":
            self.builtin += 1

    def __enter__(self) -> Calls:
        threading.setprofile(self)
        return self

    def __exit__(self, *_: object) -> None:
        threading.setprofile(None)


def run(monkeypatch: pytest.MonkeyPatch, sent: tuple[wire.Description, list[Demuxed], int]) -> tuple[Calls, int, int]:
    """(calls, blobs, packets) of MEDIA_S seconds."""
    replay = Replay(*sent)
    monkeypatch.setattr(playback, "Reader", lambda *_, **__: replay)
    clock = _Clock(replay)
    played = playback.Playback("rtsp://camera/x", clock=clock)  # type: ignore[arg-type]
    inputs: list[Any] = []
    for number, source in enumerate(played.sources):
        made = VideoInput if source.kind == "video" else AudioInput
        inputs.append(
            made(number, source, Gate(), EncodingRequest(kind=source.kind, codec=source.info.codec), clock=clock)  # type: ignore[arg-type]
        )
    options = WorkerOptions(container=CONTAINERS["video/mp4"], timeslice_ns=250 * MS, is_eager=True)
    facts: queue.Queue[Fact] = queue.Queue()
    with Calls() as calls:
        worker = RecorderWorker(options, inputs, clock=clock)  # type: ignore[arg-type]
        assert worker.begin(options, facts.put, clock.monotonic_ns())
        worker.start()
        facts.get(timeout=DEADLINE_S)
        played.play()
        blobs = 0
        fact: Fact | None = None
        while not isinstance(fact, Finished):
            with contextlib.suppress(queue.Empty):
                fact = facts.get(timeout=0.02)
                blobs += isinstance(fact, Data)
                continue
            replay.go_on.release()  # the recording has done what it does with the last batch
        worker.join(DEADLINE_S)
    played.close()
    packets = sum(source.stats.delivered for source in played.sources)
    return calls, blobs, packets


class _Clock:
    def __init__(self, replay: Replay) -> None:
        self._replay = replay

    def monotonic_ns(self) -> int:
        return self._replay.now_ns

    def wait_until(self, at_ns: int, stopping: threading.Event) -> None:
        return


@pytest.mark.promise("work-of-a-packet")
def test_calls_and_wake_ups_of_a_second_of_a_camera(
    monkeypatch: pytest.MonkeyPatch, sent: tuple[wire.Description, list[Demuxed], int]
) -> None:
    """41 and 34 calls a packet; it was 78 and 45 when each packet went through the threads by itself."""
    calls, blobs, packets = run(monkeypatch, sent)
    handovers = calls.python["input.py:Lane.put_all"]
    python = sum(calls.python.values()) - sum(n for name, n in calls.python.items() if name.startswith("test_work"))
    print(f"{python / packets:.1f} Python calls and {calls.builtin / packets:.1f} built-in ones for each packet")
    for name, number in calls.python.most_common(12):
        print(f"  {number / packets:6.2f} {name}")
    assert packets > MEDIA_S * 60
    assert python < 43 * packets
    assert calls.builtin < 36 * packets
    batches = MEDIA_S * NS // BATCH_NS
    assert handovers <= 2 * batches  # one for each track and batch
    # The thread that brings a batch records it: the recording's own one wakes for commands, and once a second.
    assert calls.python["queue.py:UnitQueue.wait_for_batch"] < batches / 2
    assert blobs <= batches + 2  # each is written by itself
