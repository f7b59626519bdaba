"""A recording without threads and without waiting: hours in minutes, through the product's own line from PCM to file.

Virtual picture and sound of a simulated clock go through the encodings, the interleaver and the recording as they are;
only the threads between them are missing. Chunks are files of their own, given to the caller as they are finished.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from msrecd.codecs.audio import AudioEncoding
from msrecd.codecs.video import VideoEncoding
from msrecd.devices.virtual.testframe import FrameGrid, TestFrame, is_flash
from msrecd.devices.virtual.testsound import SampleTimes, Signal, TestSound
from msrecd.flow.encoded import EncodedFeed, EncodingRequest
from msrecd.flow.feed import Feed
from msrecd.flow.source import Gate, SourceStats
from msrecd.flow.units import AudioBlock, AudioFormat, Packet, VideoFormat, VideoFrame
from msrecd.muxing.facts import ChunkInfo, Data, Fact, GapSeen
from msrecd.muxing.interleave import Interleaver
from msrecd.muxing.recording import Recording, WorkerOptions
from msrecd.muxing.rotation import ChunkLimits
from msrecd.vocabulary.formats import CONTAINERS

NS = 1_000_000_000
MS = 1_000_000
START_NS = 1_000 * NS


def steady(ppm: float) -> Callable[[float], float]:
    return lambda _: ppm


def warming(ppm: float) -> Callable[[float], float]:
    """A crystal in the sun: some ppm over the day, some over the minutes, and quick after switching on."""
    return lambda seconds: (
        ppm
        + 15 * math.sin(2 * math.pi * seconds / 86_400)
        + 3 * math.sin(2 * math.pi * seconds / 1_200)
        - 10 * math.exp(-seconds / 300)
    )


class _Now:
    """The simulation's time, as a recording asks for it."""

    ns = START_NS

    def monotonic_ns(self) -> int:
        return self.ns


class _Port:
    """What a recording sees of a track."""

    def __init__(self, kind: str, output: EncodedFeed) -> None:
        self.kind, self.output = kind, output
        self.request = EncodingRequest(kind="video" if kind == "video" else "audio", codec="")  # no time-lapse
        self.ended, self.refused = False, 0
        self.source = self
        self.device_id = ""
        self.stats, self.has_past, self.takes_past, self.is_whole = SourceStats(), False, False, False
        self.gate, self.began_open, self.is_blank, self.frame_interval_ns = Gate(), True, False, 0
        self.arrived: list[Packet] = []
        output.feed.add(self)

    @property
    def parameters(self) -> Any:
        return self.output.parameters

    def request_key_frame(self, at_ns: int = 0) -> None:
        self.output.request_key_frame(at_ns)

    def take_refused(self) -> list[int]:
        return []

    def put(self, unit: Packet) -> None:
        self.arrived.append(unit)

    def end(self, error: BaseException | None) -> None:
        self.ended = True


@dataclass
class Microphone:
    """A simulated card: its clock by `ppm` of the time since the beginning, its stamps late by `jitter_ns`, losses.

    overruns: (seconds, length in seconds, whether the driver tells of it).
    """

    sample_rate: int
    ppm: Callable[[float], float]
    signal: Signal = Signal.BEEP
    block_ms: int = 100
    channels: int = 1
    overruns: list[tuple[float, float, bool]] = field(default_factory=list)
    jitter_ns: float = 300_000
    seed: int = 1

    def blocks(self) -> Iterator[tuple[int, AudioBlock]]:
        """(when it is delivered, the block), for ever."""
        rng = random.Random(self.seed)
        format = AudioFormat(sample_rate=self.sample_rate, channels=self.channels)
        size = self.sample_rate * self.block_ms // 1000
        ppm = self.ppm(0)
        times = SampleTimes(sample_rate=self.sample_rate, origin_ns=START_NS, ppm=ppm)
        sound = TestSound(self.signal, sample_rate=self.sample_rate, channels=self.channels, block_samples=size)
        overruns = sorted(self.overruns, reverse=True)
        next_ppm_ns = START_NS
        sample = 0
        while True:
            now_ns = times.time_of(sample)
            if now_ns >= next_ppm_ns:
                next_ppm_ns = now_ns + 10 * NS
                wanted = self.ppm((now_ns - START_NS) / NS)
                if wanted != ppm:
                    ppm = wanted
                    times = times.change_speed(sample_rate=self.sample_rate, ppm=ppm, sample=sample)
            lost = 0
            if overruns and (now_ns - START_NS) / NS >= overruns[-1][0]:
                _, length_s, is_told = overruns.pop()
                gone = round(length_s * self.sample_rate)
                sample += gone
                lost = gone + rng.randint(-4, 4) if is_told else 0  # a driver knows it by its stamps
            stamp = times.time_of(sample) + round(abs(rng.gauss(0, self.jitter_ns)))
            data = sound.block(sample, size, times)
            yield (
                times.time_of(sample + size),
                AudioBlock(pts_ns=stamp, format=format, samples=size, data=data, lost_before=lost),
            )
            sample += size


@dataclass
class Camera:
    """A simulated camera of small pictures; None as `frame_rate`: no camera."""

    frame_rate: float | None = 2.0
    width: int = 64
    height: int = 48
    codec: str = "h264"

    def frames(self) -> Iterator[tuple[int, VideoFrame]]:
        assert self.frame_rate is not None
        format = VideoFormat(width=self.width, height=self.height, frame_rate=self.frame_rate)
        grid, picture = FrameGrid(self.frame_rate), TestFrame(self.width, self.height)
        first = grid.index_at_or_after(START_NS)
        number = 0
        while True:
            at_ns = grid.time_of(first + number)
            data = picture.paint(number, flash=is_flash(at_ns))
            yield at_ns, VideoFrame(pts_ns=at_ns, format=format, data=data)
            number += 1


class SimulatedRecording:
    """Records a camera and a microphone into chunks; `pauses` are (begin, end) in seconds."""

    def __init__(
        self,
        microphone: Microphone,
        camera: Camera,
        *,
        mime_type: str = "video/mp4",
        audio: str = "aac",
        chunk_s: float = 600.0,
        bit_rate: int = 24_000,
        pauses: list[tuple[float, float]] | None = None,
        batch: int = 12,
    ) -> None:
        self.gaps: list[GapSeen] = []
        self._microphone, self._camera = microphone, camera
        self._batch = batch
        self._pauses = sorted(pauses or [], reverse=True)
        self._parts: list[bytes] = []
        self._done: list[tuple[ChunkInfo, bytes]] = []
        self._ports: list[_Port] = []
        self._pictures: VideoEncoding | None = None
        if camera.frame_rate is not None:
            request = EncodingRequest(
                kind="video", codec=camera.codec, bit_rate=200_000, width=camera.width, height=camera.height,
                frame_rate=camera.frame_rate, key_frame_interval_ns=5 * NS,
            )  # fmt: skip
            self._pictures = VideoEncoding(Feed(), request, name="simulated")
            self._pictures.output.set_parameters(self._pictures._open())
            self._ports.append(_Port("video", self._pictures.output))
        format = AudioFormat(sample_rate=microphone.sample_rate, channels=microphone.channels)
        request = EncodingRequest(
            kind="audio", codec=audio, bit_rate=bit_rate, sample_rate=format.sample_rate, channels=format.channels
        )
        self._sound = AudioEncoding(Feed(), format, request, name="simulated")
        self._sound.output.set_parameters(self._sound._open())
        self._ports.append(_Port("audio", self._sound.output))
        self._interleaver = Interleaver(len(self._ports))
        options = WorkerOptions(
            container=CONTAINERS[mime_type], timeslice_ns=5 * NS, limits=ChunkLimits(duration_ns=round(chunk_s * NS))
        )
        self._now = _Now()
        self._recording = Recording(
            options,
            self._ports,  # type: ignore[arg-type]
            self._post,
            started_ns=START_NS,
            clock=self._now,  # type: ignore[arg-type]
        )

    def run(self, seconds: float) -> Iterator[tuple[ChunkInfo, bytes]]:
        """Record so long; gives every chunk as it is finished."""
        end_ns = START_NS + round(seconds * NS)
        self._recording.stop_ns = end_ns
        sound = self._microphone.blocks()
        pictures = self._camera.frames() if self._pictures is not None else None
        frame = next(pictures) if pictures is not None else None
        blocks: list[AudioBlock] = []
        now_ns = 0
        while now_ns < end_ns + 3 * NS:
            now_ns, block = next(sound)
            blocks.append(block)
            while frame is not None and pictures is not None and frame[0] <= now_ns and self._pictures is not None:
                self._pictures._take([frame[1]])
                frame = next(pictures)
            if len(blocks) >= self._batch:
                self._sound._take(blocks)
                blocks.clear()
                self._pause_until(now_ns)
                self._pass_on(flush=False)
                self._now.ns = now_ns
                self._recording.holes.count(now_ns)
                self._recording.emit_slice()
                yield from self._take_done()
        self._now.ns = now_ns
        self._pass_on(flush=True)
        data, failure = self._recording.finish()
        if failure is not None:
            raise failure
        assert data is not None
        self._post(data)
        yield from self._take_done()
        self._sound._close()
        if self._pictures is not None:
            self._pictures._close()

    def _pause_until(self, now_ns: int) -> None:
        """Commands come when their time has come, as from a user: the packets of that time are still under way."""
        while self._pauses and START_NS + self._pauses[-1][1] * NS <= now_ns:
            begin_s, end_s = self._pauses.pop()
            self._recording.pauses.pause(START_NS + round(begin_s * NS))
            self._recording.pauses.resume(START_NS + round(end_s * NS))

    def _pass_on(self, *, flush: bool) -> None:
        for index, port in enumerate(self._ports):
            for packet in port.arrived:
                self._interleaver.push(index, packet)
            port.arrived.clear()
        for index, packet in self._interleaver.ready(flush=flush):
            self._recording.write(index, packet)

    def _take_done(self) -> Iterator[tuple[ChunkInfo, bytes]]:
        done, self._done = self._done, []
        yield from done

    def _post(self, fact: Fact) -> None:
        if isinstance(fact, GapSeen):
            self.gaps.append(fact)
        elif isinstance(fact, Data):
            self._parts += fact.parts
            if fact.info is not None:
                self._done.append((fact.info, b"".join(self._parts)))
                self._parts.clear()
