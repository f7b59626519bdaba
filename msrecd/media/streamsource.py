"""StreamSource: one stream of an input that is played, for those who want its packets, its frames or its sound."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from msrecd import libav
from msrecd.clock import NS, Clock
from msrecd.codecs import parameters
from msrecd.codecs.opus import packet_samples
from msrecd.flow.encoded import EncodedFeed, EncodingRequest, Loss
from msrecd.flow.feed import Feed
from msrecd.flow.source import Source
from msrecd.flow.units import AudioFormat, Packet, VideoFormat
from msrecd.inputs.processes import ReaderError
from msrecd.inputs.timeline import Placed
from msrecd.media.joiningfeed import FramesSinceKey, JoiningFeed
from msrecd.media.keyframefacts import KeyFrameFacts
from msrecd.media.lostframes import LostFrames
from msrecd.media.streamdecoding import KeyFrameDecoding, StreamDecoding

log = logging.getLogger(__name__)

_PASSES_THROUGH = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "aac", "opus", "flac"})


class StreamSource(Source):
    """One audio or video stream of an input that is played.

    Encoded units pass through untouched to those who want them as they are; they are decoded only while a consumer
    wants raw ones.
    """

    def __init__(
        self, info: libav.StreamInfo, label: str, clock: Clock, leave: Callable[[StreamSource], None], *, is_live: bool
    ) -> None:
        """
        Args:
            leave: called when the source is closed: it is not wanted any more.
            is_live: what comes does not wait, and its description may change.
        """
        super().__init__(label=label)
        self.kind = info.kind
        self.has_past = is_live  # what was sent while it was opened
        self.is_file = not is_live
        self.info = info
        self._leave = leave
        self._raw: Feed[Any] = Feed()
        self._format = _format_of(info)
        self._gop = FramesSinceKey() if info.kind == "video" else None
        self.passing = EncodedFeed()
        self.passing.feed = self._joining = JoiningFeed(self._gop, clock)
        self.passing.set_parameters(parameters.of_input(info))
        self._passed: list[Packet] = []  # until nothing follows for a while
        self._is_decoding = False
        self._facts = KeyFrameFacts(info.codec) if is_live else None
        self._broken = True  # until the first key frame
        self._lost = LostFrames(usual_duration_ns(info))
        self._keys = KeyFrameDecoding(info, label) if info.kind == "video" else None
        sound = self._format if isinstance(self._format, AudioFormat) else None
        self._decoding = StreamDecoding(info, label, self._raw, self.stats, sound, clock)

    @property
    def format(self) -> VideoFormat | AudioFormat:
        return self._format

    def raw(self) -> Feed[Any]:
        return self._raw

    def key_frames(self) -> Feed[Any] | None:
        return None if self._keys is None else self._keys.feed

    def encoded(self, request: EncodingRequest) -> EncodedFeed | None:
        info = self.info
        if request.codec != info.codec or not self._passes_through:
            return None
        if info.kind == "video" and (request.width, request.height) not in ((0, 0), (info.width, info.height)):
            return None
        if request.frame_rate and info.frame_rate and request.frame_rate < info.frame_rate * 0.99:
            return None
        return self.passing

    @property
    def reorders(self) -> bool:
        return self.info.reorder_depth > 0

    def native_codec(self) -> str | None:
        return self.info.codec if self._passes_through else None

    @property
    def _passes_through(self) -> bool:
        """Whether its packets can be recorded as they are: no container that we write can hide frames in its middle."""
        return self.info.codec in _PASSES_THROUGH and not self.info.needs_hidden

    def close(self) -> None:
        """The playback goes on for its other streams; it ends with the last one."""
        self._leave(self)

    # --- in the playback's thread ------------------------------------------------------------------------------------

    def deliver(self, unit: Placed) -> None:
        packet = unit.packet
        if self.muted:
            self.muted = False
            log.info("%s: its %s has come", self.label, "sound" if self.kind == "audio" else "first frame")
            self.on_muted(False)
        if packet.is_hidden:
            self._deliver_hidden(unit)
            return
        if self.kind == "video":
            if not self._follows(packet):
                self._refuse(unit)
                return
            missing, due_ns = self._lost.missing_before(unit.dts_ns)
            if missing:
                self._count_lost(due_ns, missing)
        if packet.is_keyframe and self._facts is not None:
            self._facts.check(packet.data)
        duration_ns = unit.duration_ns
        if self.info.codec == "opus" and not packet.duration_ns and (samples := packet_samples(packet.data)):
            duration_ns = samples * NS // 48_000
        passed = Packet(
            pts_ns=unit.pts_ns,
            dts_ns=unit.dts_ns,
            duration_ns=duration_ns,
            is_keyframe=packet.is_keyframe or self.kind == "audio",
            data=packet.data,
            units=packet.units,
        )
        if self._joining.waiting:
            self._joining.put(passed)
        else:
            self._passed.append(passed)
        if self._raw.has_sinks:
            self._is_decoding = True
            self._decoding.take(passed, () if self._gop is None else self._gop.frames, packet.hidden_ns)
        elif self._is_decoding:
            self._is_decoding = False
            self._decoding.forget()  # nobody wants raw units any more
        if packet.is_keyframe and self._keys is not None:
            self._keys.take(passed)
        if self._gop is not None:
            self._gop.add(passed)
        self.stats.delivered += 1

    def _deliver_hidden(self, unit: Placed) -> None:
        """What an edit list hides: what follows may need it decoded; nobody sees it."""
        packet = unit.packet
        if self.kind == "video":
            self._broken = self._broken and not packet.is_keyframe
            if self._broken:
                return
        hidden = Packet(
            pts_ns=unit.pts_ns, dts_ns=unit.dts_ns, duration_ns=unit.duration_ns, is_keyframe=packet.is_keyframe,
            data=packet.data,
        )  # fmt: skip
        if self._raw.has_sinks:
            self._is_decoding = True
            self._decoding.take(hidden, () if self._gop is None else self._gop.frames, hidden_ns=NS)
        if self._gop is not None and self.info.needs_hidden:  # for a decoder that begins later
            self._gop.add(hidden)

    def _refuse(self, unit: Placed) -> None:
        if self._lost.has_begun:
            self._count_lost(unit.dts_ns, 1)
        else:
            self.stats.dropped += 1
        self._lost.refuse()

    def _count_lost(self, at_ns: int, frames: int) -> None:
        """For those who want raw frames, and for those who record them as they come."""
        self.stats.dropped += frames
        self.passing.facts.losses.add(Loss(at_ns, frames=frames))

    def interrupt(self, *, is_loss: bool = True) -> None:
        """Something was left out here: nothing follows until the next key frame."""
        self._broken = True
        self._lost.interrupt(is_loss=is_loss)
        if self._gop is not None:
            self._gop.forget()
        self._decoding.forget()

    def _follows(self, packet: libav.Demuxed) -> bool:
        """Whether a frame can be decoded: not behind one that is missing or damaged, up to the next key frame."""
        if packet.is_damaged:
            self.interrupt()
        elif packet.is_keyframe:
            self._broken = False
        return not self._broken

    def give_gathered(self) -> None:
        """Nothing follows for a while; `flush` tells the sinks, once all sources have given."""
        self._decoding.give()
        self._pass_on()

    def flush(self) -> None:
        self._joining.flush()

    def _pass_on(self) -> None:
        """What was gathered goes out in one go."""
        if self._passed:
            passed, self._passed = self._passed, []
            self._joining.put_all(passed)

    def finish(self, error: BaseException | None) -> None:
        """The input has ended."""
        try:
            if self._raw.has_sinks and error is None:
                self._decoding.finish()
        except ReaderError as exc:
            log.debug("%s: its last frames are lost: %s", self.label, exc)
        self._decoding.forget()
        self._pass_on()
        self.passing.feed.end(error)
        self._raw.end(error)
        if self._keys is not None:
            self._keys.close()
            self._keys.feed.end(error)

    def end_decoding(self) -> None:
        """What waits for the decoding process comes back. Any thread."""
        self._decoding.close()


def _format_of(info: libav.StreamInfo) -> VideoFormat | AudioFormat:
    if info.kind == "audio":
        return AudioFormat(
            sample_rate=info.sample_rate,
            channels=info.channels,
            sample_format="s32" if info.bits > 16 else "s16",
            layout=info.layout,
            bits=info.bits if info.bits > 16 else 0,
        )
    return VideoFormat(width=info.width, height=info.height, frame_rate=info.frame_rate, presentation=info.presentation)


def usual_duration_ns(info: libav.StreamInfo) -> int:
    """Of a packet that does not tell."""
    if info.kind == "video":
        return round(NS / (info.frame_rate or 25.0))
    return round((info.frame_samples or 1024) * NS / (info.sample_rate or 48000))
