"""StreamDecoding: a played stream for those who want raw frames or sound. Belongs to the playback's thread."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from msrecd import libav
from msrecd.clock import MS, NS, SYSTEM_CLOCK, Clock
from msrecd.codecs.g711 import G711, pcm_of_g711
from msrecd.codecs.opus import packet_samples
from msrecd.flow.feed import Feed
from msrecd.flow.source import SourceStats
from msrecd.flow.units import AudioFormat, Packet
from msrecd.inputs.decoding import ConfinedAudioDecoder, ConfinedVideoDecoder
from msrecd.inputs.limits import BYTES_A_SECOND, PIXELS_A_SECOND, Allowance, board_bytes, pixels_that_fit
from msrecd.inputs.processes import ReaderError
from msrecd.media.soundblocks import SoundBlocks

log = logging.getLogger(__name__)

_KEY_FRAME_NS = 180 * MS  # at most five key frames a second, also of a stream that has nothing else
_HIDDEN = -1  # the time of frames that are decoded and not shown
_GATHERED = 16  # packets of sound that are decoded together: each time costs two changes of the process


class StreamDecoding:
    """Decodes packets in a process of its own (inputs/decoding.py), which begins with the first and ends with `forget`.

    Raises:
        ReaderError (from all methods): the process died or hung; the input has to be opened again.
    """

    def __init__(
        self,
        info: libav.StreamInfo,
        name: str,
        put: Feed[Any],
        stats: SourceStats,
        sound: AudioFormat | None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._info = info
        self._name = name
        self._put = put.put
        self._stats = stats
        self._clock = clock
        self._video: ConfinedVideoDecoder | None = None
        self._audio: ConfinedAudioDecoder | None = None
        self._blocks = None if sound is None else SoundBlocks(sound, put.put)
        self._frame_bytes = 1 if sound is None else sound.frame_bytes
        self._gathered: list[tuple[int, bytes | memoryview, int]] = []
        self._allowance = Allowance(PIXELS_A_SECOND if info.kind == "video" else BYTES_A_SECOND)
        self._waits_for_key = False  # more came than is decoded
        self._last_pcm = 0

    def take(self, packet: Packet, before: Sequence[Packet], hidden_ns: int = 0) -> None:
        """Decode a packet.

        Args:
            before: of a video stream: the packets since the key frame, for a decoder that begins here.
            hidden_ns: so much of the beginning of the packet is not shown or heard, but what follows needs it.
        """
        if self._info.kind == "video":
            self._take_frame(replace(packet, pts_ns=_HIDDEN) if hidden_ns else packet, before)
        elif self._info.codec == "pcm_s16le":
            self._add(packet.pts_ns, bytes(packet.data), hidden_ns)
        elif self._info.codec in G711:
            self._add(packet.pts_ns, pcm_of_g711(packet.data, self._info.codec), hidden_ns)
        else:
            self._gathered.append((packet.pts_ns, packet.data, hidden_ns))
            if len(self._gathered) >= _GATHERED:
                self._decode_gathered()

    def give(self) -> None:
        """Nothing follows for a while: put what is gathered."""
        if self._gathered:
            self._decode_gathered()
        if self._blocks is not None:
            self._blocks.give()

    def finish(self) -> None:
        """The stream has ended: put what the decoder still holds."""
        self.give()
        if self._video is not None:
            self._put_frames(self._video.flush())

    def forget(self) -> None:
        """What was begun is not finished; the process ends. Idempotent."""
        self._gathered.clear()
        if self._blocks is not None:
            self._blocks.forget()
        self.close()
        self._video = self._audio = None

    def close(self) -> None:
        """End the process; a call that waits for it comes back. Any thread."""
        for decoder in (self._video, self._audio):
            if decoder is not None:
                decoder.close()

    # --- frames ------------------------------------------------------------------------------------------------------

    def _take_frame(self, packet: Packet, before: Sequence[Packet]) -> None:
        if packet.is_keyframe:
            self._waits_for_key = False
        if self._video is None:
            if self._info.width * self._info.height > pixels_that_fit(board_bytes()):
                size = f"{self._info.width}x{self._info.height}"
                log.warning("%s: frames of %s are too large to be decoded with this board's memory", self._name, size)
            self._video = ConfinedVideoDecoder(self._info, self._name)
            if not packet.is_keyframe:  # nobody sees the frames before, but this one refers to them
                for frame in before:
                    self._decode_frame(frame)
        self._put_frames(self._decode_frame(packet))

    def _put_frames(self, frames: Sequence[Any]) -> None:
        for frame in frames:
            if frame.pts_ns != _HIDDEN:
                self._put(frame)

    def _decode_frame(self, packet: Packet) -> list[Any]:
        decoder = self._video
        if decoder is None or self._waits_for_key or not self._is_allowed(decoder):
            self._stats.dropped += 1
            return []
        try:
            return list(decoder.decode(packet.data, packet.pts_ns))
        except libav.LibavError as exc:
            self._failed(exc)
            return []

    def _is_allowed(self, decoder: ConfinedVideoDecoder) -> bool:
        width, height = decoder.size
        if self._allowance.try_take(max(1, width * height), self._clock.monotonic_ns()):
            return True
        log.warning("%s: frames arrive faster than they can be decoded; resuming with the next key frame", self._name)
        self._waits_for_key = True
        return False

    # --- sound -------------------------------------------------------------------------------------------------------

    def _decode_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        if not self._allowance.try_take(self._last_pcm, self._clock.monotonic_ns()):
            self._stats.dropped += len(gathered)
            return
        if self._audio is None:
            self._audio = ConfinedAudioDecoder(self._info, self._name)
        self._last_pcm = 0
        sound = self._audio.decode([data for _, data, _ in gathered])
        for (pts_ns, data, hidden_ns), pcm in zip(gathered, sound, strict=True):
            if pcm is None:
                self._stats.dropped += 1
            else:
                self._last_pcm += len(pcm)
                samples = packet_samples(data) if hidden_ns and self._info.codec == "opus" else 0
                self._add(pts_ns, pcm, hidden_ns, samples)

    def _add(self, pts_ns: int, pcm: bytes, hidden_ns: int, samples: int = 0) -> None:
        if self._blocks is None:
            return
        hidden = (hidden_ns * self._info.sample_rate + NS // 2) // NS
        if hidden:
            pts_ns += hidden * NS // self._info.sample_rate
        if hidden and self._info.codec == "opus":  # its decoder leaves out by itself what its header says
            hidden = max(0, hidden - samples + len(pcm) // self._frame_bytes)
        end = len(pcm) - len(pcm) % self._frame_bytes  # a packet may end within a sample
        self._blocks.add(pts_ns, pcm[hidden * self._frame_bytes : end])

    def _failed(self, exc: libav.LibavError) -> None:
        if isinstance(exc, ReaderError):
            raise exc
        self._stats.dropped += 1
        log.debug("%s: a packet could not be decoded: %s", self._name, exc)


class KeyFrameDecoding:
    """Key frames alone, for those who only look at a stream now and then. Belongs to the playback's thread.

    Raises:
        ReaderError (from `take`): the process died or hung; the input has to be opened again.
    """

    def __init__(self, info: libav.StreamInfo, name: str) -> None:
        self.feed: Feed[Any] = Feed()
        self._info = info
        self._name = name
        self._decoder: ConfinedVideoDecoder | None = None
        self._last_ns = 0

    def take(self, packet: Packet) -> None:
        """Decode it if it is a key frame and somebody wants it."""
        if not self.feed.has_sinks:
            self.close()
        elif packet.is_keyframe and packet.pts_ns - self._last_ns >= _KEY_FRAME_NS:
            self._last_ns = packet.pts_ns
            if self._decoder is None:
                self._decoder = ConfinedVideoDecoder(self._info, self._name)
            try:
                # A decoder with threads would give the frame only when others follow.
                for frame in (*self._decoder.decode(packet.data, packet.pts_ns), *self._decoder.flush()):
                    self.feed.put(frame)
            except ReaderError:
                raise
            except libav.LibavError as exc:
                log.debug("%s: a key frame could not be decoded: %s", self._name, exc)

    def close(self) -> None:
        """End the process; idempotent."""
        decoder, self._decoder = self._decoder, None
        if decoder is not None:
            decoder.close()
