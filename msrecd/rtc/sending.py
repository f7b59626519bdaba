"""Outgoing: what one sender sends of one track: packets that recorders have too, or an encoding of its own.

A peer that is slow, or gone, is nobody else's affair: what it does not take in time is dropped up to the next key
frame, and counted.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.codecs import hub
from msrecd.dom.exceptions import DOMException
from msrecd.flow.encoded import EncodingRequest, StreamParameters
from msrecd.flow.feed import Feed
from msrecd.flow.source import Gate, Source
from msrecd.flow.units import AudioFormat, Kind, Packet, VideoFormat
from msrecd.muxing.audioinput import AudioInput
from msrecd.muxing.input import Arrival, TrackInput
from msrecd.muxing.videoinput import VideoInput
from msrecd.rtc.loop import RtcLoop, Spaced
from msrecd.rtc.packetize import access_unit, h264_payloads, vp8_payloads

log = logging.getLogger(__name__)

CLOCK_RATES = {"h264": 90_000, "vp8": 90_000, "opus": 48_000}
_MOST_PACKETS, _MOST_BYTES = 256, 8 << 20  # that wait for the loop: seconds
_FILL_S = 0.5  # how often a track that gives nothing is looked at: silence may be due
_HURRY_NS = 2 * NS  # sound is encoded without batches for so long, again and again


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A track as it is sent; taken of it on the loop that it belongs to."""

    source: Source
    gate: Gate
    width: int = 0
    height: int = 0
    frame_rate: float | None = None
    crops: bool = False
    video_bit_rate: int = 2_500_000
    audio_bit_rate: int = 128_000

    @property
    def kind(self) -> Kind:
        return self.source.kind

    def request(self, codec: str) -> EncodingRequest:
        """The encoding that is begun where none runs: what a recorder without options would ask for."""
        format = self.source.format
        if isinstance(format, AudioFormat):
            return EncodingRequest(
                kind="audio",
                codec=codec,
                bit_rate=self.audio_bit_rate,
                sample_rate=format.sample_rate,
                channels=format.channels,
            )
        return EncodingRequest(
            kind="video",
            codec=codec,
            bit_rate=self.video_bit_rate,
            width=self.width or format.width,
            height=self.height or format.height,
            crops=self.crops,
            frame_rate=None if format.frame_rate is None else self.frame_rate,
        )


@dataclass(frozen=True, slots=True)
class Unit:
    """One encoded unit as it goes out: payloads of its packets, RTP time before the sender's random origin."""

    payloads: list[bytes]
    rtp_time: int


@dataclass(slots=True)
class SendingStats:
    """Counts of one sender; written in the thread of WebRTC."""

    frames: int = 0
    key_frames: int = 0
    dropped: int = 0
    key_frames_asked: int = 0
    key_frames_ignored: int = 0


class _Decoded(Source):
    """A source without its own encoded units: those with B-frames cannot be sent, browsers drop them."""

    def __init__(self, source: Source) -> None:
        super().__init__(label=source.label, device_id=source.device_id)
        self.kind = source.kind
        self._of = source

    @property
    def format(self) -> VideoFormat | AudioFormat:
        return self._of.format

    def raw(self) -> Feed[Any]:
        return self._of.raw()

    def close(self) -> None:
        """It is another's to close."""


_decoded: WeakKeyDictionary[Source, _Decoded] = WeakKeyDictionary()


def _without_reordering(source: Source) -> Source:
    return _decoded.setdefault(source, _Decoded(source)) if source.reorders else source


class _Viewed:
    """What makes a TrackInput a viewer's."""

    source: Source
    request: EncodingRequest

    def _acquire(self) -> hub.Lease:
        return hub.share(self.source, self.request, clock=SYSTEM_CLOCK)


class _ViewedVideo(_Viewed, VideoInput):
    pass


class _ViewedAudio(_Viewed, AudioInput):
    pass


class Outgoing:
    """Made and let go of on the loop of its track; everything else in the thread of WebRTC, where it was handed to."""

    def __init__(self, sent: Sent, loop: RtcLoop) -> None:
        self.sent = sent
        self.stats = SendingStats()
        self._loop = loop
        self._lock = threading.Lock()  # of what has arrived
        self._codec = ""
        self._input: TrackInput | None = None
        self._arrived: deque[Arrival] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._is_waking = False
        self._ready: deque[Packet] = deque()
        self._began = False  # with a key frame
        self._frame_id = 0
        self._next_rtp: int | None = None
        self._requests = Spaced(self._request_now)
        self._is_closed = False
        sent.gate.watch(self._gate_moved)

    def let_go(self) -> None:
        """Send nothing more; idempotent."""
        self.sent.gate.unwatch(self._gate_moved)
        self._loop.post(self.close)

    # --- in the threads of encoders and, for the gate, on the loop of the track ---------------------------------------

    def _deliver(self, arrival: Arrival) -> bool:
        packet = arrival.packet
        size = 0 if packet is None else len(packet.data)
        with self._lock:
            if packet is not None and (len(self._arrived) >= _MOST_PACKETS or self._bytes + size > _MOST_BYTES):
                return False  # the lane lets nothing through until the next key frame, and counts
            self._arrived.append(arrival)
            self._bytes += size
        self._nudge()
        return True

    def _nudge(self) -> None:
        if not self._is_waking:
            self._is_waking = True
            self._loop.post(self._woken)

    def _gate_moved(self, is_open: bool) -> None:
        at_ns = SYSTEM_CLOCK.monotonic_ns()
        self._loop.post(lambda: self._move_gate(is_open, at_ns))

    # --- in the loop of WebRTC ---------------------------------------------------------------------------------------

    def _woken(self) -> None:
        self._is_waking = False
        self._wake.set()

    def _move_gate(self, is_open: bool, at_ns: int) -> None:
        if self._input is not None:
            self._input.set_gate(is_open, at_ns)

    async def _begin(self, codec: str) -> None:
        """Join an encoding, or begin one. Feeds may have to start a device: that is done beside the loop."""
        self._codec = codec
        sent = self.sent
        source = _without_reordering(sent.source)
        make = _ViewedVideo if sent.kind == "video" else _ViewedAudio
        self._input = input = make(0, source, sent.gate, sent.request(codec))
        await asyncio.to_thread(input.connect, self._deliver, self._nudge)
        if self._is_closed:
            await asyncio.to_thread(input.disconnect)
            return
        if not sent.gate.is_open:
            input.output.when_parameters(lambda _: self._gate_moved(sent.gate.is_open))
        self.request_key_frame()

    def request_key_frame(self) -> None:
        """The peer needs a key frame. An encoding that a recorder uses is left alone: the next one is on its way."""
        self.stats.key_frames_asked += 1
        if self.sent.kind == "video":
            self._requests.ask()

    def _request_now(self) -> None:
        lease = None if self._input is None else self._input._live
        if self._input is None or lease is None or self._is_closed:
            return
        self.stats.key_frames_ignored += lease.is_recorded
        self._input.request_key_frame()

    async def next(self, codec: str) -> Unit:
        """The next unit to be sent; waits for it.

        Raises:
            EOFError: nothing follows: the track has ended, its source failed, or `close` was called.
        """
        if self._input is None:
            try:
                await self._begin(codec)
            except DOMException as exc:
                log.warning("%s cannot be sent: %s", self.sent.source.label or "a track", exc)
                raise EOFError from exc
        while True:
            while not self._ready:
                await self._gather()
            unit = self._unit(self._ready.popleft())
            if unit is not None:
                return unit

    async def _gather(self) -> None:
        """Take what has arrived, or wait for it."""
        input = self._input
        if self._is_closed or input is None:
            raise EOFError
        with self._lock:
            arrived, self._arrived = self._arrived, deque()
            self._bytes = 0
        for arrival in arrived:
            if arrival.packet is None and not arrival.blank:
                raise EOFError
            self._ready.extend(input.accept(arrival))
        self.stats.dropped += len(input.take_refused())
        if self._ready:
            return
        self._wake.clear()
        if self._arrived or self._is_closed:
            return
        if self.sent.kind == "audio":
            now_ns = SYSTEM_CLOCK.monotonic_ns()
            input.hurry(now_ns + _HURRY_NS)
            self._ready.extend(input.fill(now_ns))
            if self._ready:
                return
        try:
            async with asyncio.timeout(_FILL_S):
                await self._wake.wait()
        except TimeoutError:
            return

    def _unit(self, packet: Packet) -> Unit | None:
        parameters = None if self._input is None else self._input.parameters
        if parameters is None:
            return None
        if not self._began:
            if not packet.is_keyframe:
                return None
            self._began = True
        payloads = self._payloads(packet, parameters)
        if not payloads:
            return None
        self.stats.frames += 1
        self.stats.key_frames += packet.is_keyframe
        return Unit(payloads, self._rtp_time(packet))

    def _payloads(self, packet: Packet, parameters: StreamParameters) -> list[bytes]:
        if self._codec == "h264":
            return h264_payloads(access_unit(packet, parameters))
        if self._codec == "vp8":
            self._frame_id += 1
            return vp8_payloads(bytes(packet.data), self._frame_id)
        return [bytes(packet.data)]

    def _rtp_time(self, packet: Packet) -> int:
        """Capture time in ticks. Rounding must not make a sample of difference between packets of sound that join."""
        rate = CLOCK_RATES[self._codec]
        ticks = (packet.pts_ns * rate + NS // 2) // NS
        if self.sent.kind == "audio":
            if self._next_rtp is not None and abs(ticks - self._next_rtp) <= 2:
                ticks = self._next_rtp
            self._next_rtp = ticks + round(packet.duration_ns * rate / NS)
        return ticks

    def rtp_time_of(self, monotonic_ns: int) -> int:
        """The RTP time of what is captured at this moment, for sender reports."""
        return monotonic_ns * CLOCK_RATES[self._codec] // NS if self._codec else 0

    def close(self) -> None:
        """Send nothing more and give the encoding back. Idempotent; the loop does not wait for a device."""
        if self._is_closed:
            return
        self._is_closed = True
        self._wake.set()
        if self._input is not None and self._input._live is not None:
            self._loop.tasks.spawn(asyncio.to_thread(self._input.disconnect), "giving an encoding back")
