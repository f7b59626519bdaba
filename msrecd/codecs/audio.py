"""AudioEncoding: PCM in, packets out, in a thread of its own; overruns become silence of the same length.

A sound card's second is not the monotonic clock's. For codecs that are lossy anyway the sound is resampled by the few
ppm that are between them, so its samples are as long as they say and every player keeps it in sync. FLAC and PCM keep
the very samples of the card; their time stamps follow the clock instead.
"""

from __future__ import annotations

from msrecd import libav
from msrecd.codecs import parameters
from msrecd.codecs.encoding import Encoding
from msrecd.codecs.soundline import Run, SoundLine
from msrecd.flow.encoded import EncodingRequest, StreamParameters
from msrecd.flow.feed import Feed
from msrecd.flow.queue import UnitQueue
from msrecd.flow.units import AudioBlock, AudioFormat, Packet

NS = 1_000_000_000
_MAX_BLOCKS = 1024
_MAX_BYTES = 16 << 20
_BATCH_MS = 230  # are encoded at a time, which spares wake-ups: twelve blocks of a card, or one of a file
_BATCH_WAIT_S = 0.24
_RESAMPLED = frozenset({"aac", "opus"})
# libav's buffers grow with the pieces that it is given, and each piece costs CPU. PCM becomes packets of the piece's
# length, and they are cut points. AAC in pieces of a quarter of a second takes a megabyte more.
_PIECES_A_SECOND = {"aac": 12, "opus": 4, "flac": 12}
_PCM_PIECES_A_SECOND = 50


class AudioEncoding(Encoding[AudioBlock]):
    """Blocks of a raw feed for one request."""

    def __init__(self, source: Feed[AudioBlock], format: AudioFormat, request: EncodingRequest, *, name: str) -> None:
        self._format = format
        self._request = request
        self._hurry_until_ns = 0
        self._given = 0  # samples that the encoder has
        super().__init__(
            source,
            UnitQueue(
                max_units=_MAX_BLOCKS,
                max_bytes=_MAX_BYTES,
                size=lambda block: len(block.data),
                batch=_MAX_BLOCKS,
                batch_bytes=format.sample_rate * format.frame_bytes * _BATCH_MS // 1000,
            ),
            name=name,
            wait_s=_BATCH_WAIT_S,
        )
        self._line = SoundLine(format, self.output.facts)

    def _hurry(self, until_ns: int) -> None:
        was_patient = self.is_patient
        self._hurry_until_ns = max(until_ns, self._hurry_until_ns)
        if was_patient:
            self._queue.set_batch(1)
            self._queue.nudge()
            self._source.hurry()

    @property
    def is_patient(self) -> bool:
        """Whether no consumer waits: blocks are gathered before they are encoded."""
        return not self._hurry_until_ns

    def _open(self) -> StreamParameters:
        request = self._request
        self._encoder = libav.AudioEncoder(
            codec=request.codec,
            source=self._format,
            bit_rate=request.bit_rate,
            constant_bit_rate=request.bitrate_mode == "constant",
            follows_times=request.codec in _RESAMPLED and not self._source.is_steady,
        )
        return parameters.of_audio_encoder(self._encoder)

    def _take(self, units: list[AudioBlock]) -> None:
        self._give(self._line.add(units))
        if self._hurry_until_ns and units[-1].pts_ns > self._hurry_until_ns + NS // 10:
            self._hurry_until_ns = 0
            self._queue.set_batch(_MAX_BLOCKS)

    def _finish(self) -> None:
        self._give(self._line.end())
        self._deliver(self._encoder.flush())

    def _close(self) -> None:
        self._encoder.close()

    def _give(self, runs: list[Run]) -> None:
        frame_bytes = self._format.frame_bytes
        pieces_a_second = _PIECES_A_SECOND.get(self._request.codec, _PCM_PIECES_A_SECOND)
        for run in runs:
            pieces = max(1, round(run.samples * pieces_a_second / self._format.sample_rate))
            step = max(1, -(-run.samples // pieces))
            for start in range(0, run.samples, step):
                samples = min(step, run.samples - start)
                if run.data is None:
                    pcm = bytes(samples * frame_bytes)
                elif samples == run.samples:
                    pcm = run.data
                else:
                    pcm = run.data[start * frame_bytes : (start + samples) * frame_bytes]
                at_ns = self._line.closed_time_of(self._given) - self._line.origin_ns
                self._deliver(self._encoder.encode(pcm, self._given, at_ns=at_ns))
                self._given += samples
        self.output.facts.offset_ms = (self._line.deviation_ns + self._encoder.behind_ns) / 1e6

    def _deliver(self, packets: list[libav.Encoded]) -> None:
        line, put = self._line, self.output.feed.put
        rate, source_rate = self._encoder.sample_rate, self._format.sample_rate
        follows_times, origin_ns = self._encoder.follows_times, line.origin_ns
        for packet in packets:
            first = packet.pts * source_rate // rate
            if follows_times:
                pts_ns = origin_ns + packet.pts * NS // rate + line.open_before(first)
            else:
                pts_ns = line.time_of(first)
            duration_ns = packet.duration * NS // rate
            put(Packet(pts_ns=pts_ns, dts_ns=pts_ns, duration_ns=duration_ns, is_keyframe=True, data=packet.data))
