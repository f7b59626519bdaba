"""Losses: what a recording lacks, told as gaps of the chunk at hand as soon as it is known. In the worker's thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msrecd.clock import MS, NS
from msrecd.flow.encoded import EncodingError
from msrecd.flow.units import Packet
from msrecd.muxing.chunk import ChunkWriter
from msrecd.muxing.facts import Fact, Gap, GapReason, GapSeen
from msrecd.muxing.input import TrackInput
from msrecd.muxing.late import LateSound
from msrecd.muxing.timeline import Timeline

_ROUGH_END_NS = 150 * MS  # tracks of one recording do not end at the same instant


class Losses:
    """Posts a GapSeen for each, and notes it in the chunk. Without a chunk (the recording is over) nothing is told."""

    def __init__(self, inputs: Sequence[TrackInput], timeline: Timeline, post: Callable[[Fact], None]) -> None:
        self.late = LateSound()
        self._inputs = inputs
        self._timeline = timeline
        self._post = post
        self._video = next((i for i, track in enumerate(inputs) if track.kind == "video"), None)
        self._told_until_ns = 0  # dts of the packet behind the last hole that is told already
        self._gap_samples = [track.output.facts.gap_samples for track in inputs]

    def shed(self, chunk: ChunkWriter | None, since_ns: int, packet: Packet) -> None:
        """Nothing was kept from `since_ns` up to this packet, because nobody took the blobs."""
        self._tell(chunk, since_ns, packet.pts_ns - since_ns, "slow_consumer")
        self._told_until_ns = packet.dts_ns

    def look_at_picture(self, chunk: ChunkWriter | None, packet: Packet, duration_ns: int) -> None:
        """A picture that stands much longer than it should says that others did not come."""
        nominal = packet.duration_ns or duration_ns
        next_ns = packet.dts_ns + duration_ns
        if nominal and duration_ns > max(5 * nominal, NS) and next_ns > self._told_until_ns:
            self._tell(chunk, packet.pts_ns + nominal, duration_ns - nominal, "no_frames")

    def account_gone_devices(self, chunk: ChunkWriter) -> None:
        """Tell what this chunk lacks of a device that went away while others went on."""
        for index, track in enumerate(self._inputs):
            if not track.ended or not track.source.device_id:  # a file may end its tracks one after the other
                continue
            if isinstance(track.error, EncodingError):  # the device is well; the recording ends with that error
                continue
            end_ns = max(self._timeline.track_end_ns(index), chunk.zero_ns)
            missing_ns = self._timeline.end_ns - end_ns
            if missing_ns > _ROUGH_END_NS:
                self._tell(chunk, self._timeline.capture_of(end_ns), missing_ns, "device_missing")

    def account_late_pictures(self, chunk: ChunkWriter) -> None:
        """At the end: tell of pictures that did not come in time while the sound did."""
        video = self._video
        if video is None or self._inputs[video].ended or not self._timeline.track_end_ns(video):
            return
        end_ns = max(self._timeline.track_end_ns(video), chunk.zero_ns)
        missing_ns = self._timeline.end_ns - end_ns
        if missing_ns > NS:
            self._tell(chunk, self._timeline.capture_of(end_ns), missing_ns, "no_frames")

    def tell_late_sound(self, chunk: ChunkWriter | None) -> None:
        """Tell of sound that came after its place was written, once it is known how much of it there was."""
        late = self.late.take()
        if late is not None:
            self._tell(chunk, *late, "encoder")

    def tell_lost_sound(self, chunk: ChunkWriter | None) -> None:
        """Tell of sound that the encodings have replaced by silence since the last call."""
        for index, track in enumerate(self._inputs):
            lost = track.output.facts.gap_samples - self._gap_samples[index]
            if lost > 0 and track.parameters is not None:
                self._gap_samples[index] += lost
                if self._timeline.started:
                    at_ns = self._timeline.capture_of(self._timeline.track_end_ns(index))
                    self._tell(chunk, at_ns, lost * NS // (track.parameters.sample_rate or 48_000), "lost_sound")

    def _tell(self, chunk: ChunkWriter | None, at_ns: int, duration_ns: int, reason: GapReason) -> None:
        if chunk is None or duration_ns <= 0:
            return
        at_s = max(0.0, (self._timeline.place(at_ns) - chunk.zero_ns) / NS)
        gap = Gap(at_s=round(at_s, 3), duration_s=round(duration_ns / NS, 3), reason=reason)
        chunk.gaps.append(gap)
        self._post(GapSeen(at_ns=at_ns, gap=gap))
