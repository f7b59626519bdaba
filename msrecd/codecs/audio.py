"""AudioEncoding: PCM in, packets out, in a thread of its own; overruns become silence of the same length."""

from __future__ import annotations

import logging
import threading

from msrecd import libav
from msrecd.codecs import parameters
from msrecd.codecs.sampleclock import SampleClock
from msrecd.flow.encoded import EncodedFeed, EncodingError, EncodingRequest
from msrecd.flow.feed import Feed
from msrecd.flow.queue import UnitQueue
from msrecd.flow.source import SourceThread
from msrecd.flow.units import AudioBlock, AudioFormat, Packet

log = logging.getLogger(__name__)

NS = 1_000_000_000
_MAX_BLOCKS = 1024
_MAX_BYTES = 16 << 20
_BATCH = 12  # blocks of 20 ms: some 240 ms are encoded at a time, which spares wake-ups
_BATCH_WAIT_S = 0.24
_MAX_SILENCE_S = 60  # a longer hole is left open: the time stamps jump


class AudioEncoding:
    """Encodes one raw feed for one request; `start` and `close` are the hub's, `output` is everybody's."""

    def __init__(
        self, source: Feed[AudioBlock], format: AudioFormat, request: EncodingRequest, *, name: str, batch: int = _BATCH
    ) -> None:
        self._source = source
        self._format = format
        self._request = request
        self._queue: UnitQueue[AudioBlock] = UnitQueue(
            max_units=_MAX_BLOCKS, max_bytes=_MAX_BYTES, size=lambda block: len(block.data), batch=batch
        )
        self._clock = SampleClock(format.sample_rate)
        self._samples = 0  # given to the encoder so far: the number of the next one
        self.output = EncodedFeed()
        self._thread = SourceThread(f"encode-{name}", self._run, self._failed)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop taking blocks; what is under way is encoded and delivered by the encoding's own thread."""
        self._source.remove(self._queue)
        self._thread.stopping.set()
        self._queue.nudge()

    def join(self, timeout: float) -> bool:
        """Wait until the thread has ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _failed(self, exc: Exception) -> None:
        if not isinstance(exc, libav.LibavError):
            log.error("audio encoder stopped", exc_info=exc)
        self._source.remove(self._queue)
        error = EncodingError(str(exc) or type(exc).__name__)
        error.__cause__ = exc
        self.output.feed.end(error)

    def _run(self, stopping: threading.Event) -> None:
        request = self._request
        encoder = libav.AudioEncoder(
            codec=request.codec,
            source=self._format,
            bit_rate=request.bit_rate,
            constant_bit_rate=request.bitrate_mode == "constant",
        )
        try:
            self.output.set_parameters(parameters.of_audio_encoder(encoder, self._format.channels))
            self._source.add(self._queue)
            refused = 0
            while True:
                blocks = self._queue.take(_BATCH_WAIT_S)
                self._encode(encoder, blocks)
                if self._queue.refused != refused:
                    self.output.facts.dropped += self._queue.refused - refused
                    refused = self._queue.refused
                if stopping.is_set() or (self._queue.ended and not blocks):
                    break
            for packet in encoder.flush():
                self._deliver(encoder, packet)
        finally:
            self._source.remove(self._queue)  # `close` may have come before the encoder was open
            encoder.close()
        self.output.feed.end(self._queue.error)

    def _encode(self, encoder: libav.AudioEncoder, blocks: list[AudioBlock]) -> None:
        """One call of the encoder for all blocks that join."""
        pending = bytearray()
        for block in blocks:
            data = self._joined(block, pending)
            if data is not None:
                pending += data
        self._give(encoder, pending)

    def _joined(self, block: AudioBlock, pending: bytearray) -> bytes | None:
        """The block's PCM, with the silence before it put into `pending`; None when nothing of it is wanted."""
        frame_bytes = self._format.frame_bytes
        sample = self._samples + len(pending) // frame_bytes
        missing = block.lost_before or self._clock.missing(sample, block.pts_ns)
        facts = self.output.facts
        if missing > 0:
            facts.gap_samples += missing
            facts.xruns += 1
            silence = min(missing, _MAX_SILENCE_S * self._format.sample_rate)
            pending += bytes(silence * frame_bytes)
            sample += silence
        elif missing < 0:  # more sound than time: the excess goes
            skip = min(-missing, block.samples)
            facts.dropped += 1
            if skip == block.samples:
                return None
            return block.data[skip * frame_bytes :]
        self._clock.observe(sample, block.pts_ns)
        facts.drift_ppm = self._clock.drift_ppm
        facts.offset_ms = self._clock.deviation_ns / 1e6
        return block.data

    def _give(self, encoder: libav.AudioEncoder, pcm: bytearray) -> None:
        # A second at a time, also of a long silence; PCM becomes packets of the length given, and they are cut points.
        samples = self._format.sample_rate if encoder.frame_samples else self._format.sample_rate // 50
        step = self._format.frame_bytes * samples
        for start in range(0, len(pcm), step):
            part = bytes(pcm[start : start + step])
            for packet in encoder.encode(part, self._samples):
                self._deliver(encoder, packet)
            self._samples += len(part) // self._format.frame_bytes

    def _deliver(self, encoder: libav.AudioEncoder, packet: libav.Encoded) -> None:
        rate = encoder.sample_rate
        first = packet.pts * self._format.sample_rate // rate
        pts_ns = self._clock.time_of(first)
        self.output.feed.put(
            Packet(
                pts_ns=pts_ns,
                dts_ns=pts_ns,
                duration_ns=packet.duration * NS // rate,
                is_keyframe=True,
                data=packet.data,
            )
        )
