"""ChunkWriter: one chunk of a recording, its container and its accounts. Belongs to the worker's thread."""

from __future__ import annotations

from collections.abc import Sequence

from msrecd.flow.encoded import StreamParameters
from msrecd.flow.units import Packet
from msrecd.muxing.container import ChunkContainer
from msrecd.muxing.facts import ChunkInfo, TrackFacts
from msrecd.muxing.input import TrackInput
from msrecd.muxing.losses import ChunkLosses
from msrecd.vocabulary.formats import Container
from msrecd.vocabulary.lapse import TimeLapse

NS = 1_000_000_000
_TRAILER_BYTES = 500  # of a file, about
_PACKET_BYTES = 24  # what the containers add to a packet, about
_CUE_BYTES = 24  # what a key frame adds to the end of Matroska, about


class ChunkWriter:
    """Takes packets at times of the recording's line and writes them at times of the chunk's.

    With `time_lapse` that is the time at which they are played: one after the other, whenever they were captured.
    """

    def __init__(
        self,
        *,
        number: int,
        container: Container,
        streams: Sequence[StreamParameters],
        inputs: Sequence[TrackInput],
        fragment_ns: int,
        started_ns: int,
        time_lapse: TimeLapse | None = None,
        is_flushed: bool = False,
    ) -> None:
        self.number = number
        self.zero_ns = 0  # on the recording's line
        self.started_ns = started_ns  # on CLOCK_MONOTONIC
        self._lapse = time_lapse
        self._streams = streams
        self._inputs = inputs
        self._units = [0] * len(streams)
        self._cue_bytes = 0
        self._kept_bytes = 0  # payload that the muxer has not given yet
        self._end_ns = 0
        self._last_capture_ns = started_ns
        self._container = ChunkContainer(container, streams, fragment_ns=fragment_ns, is_flushed=is_flushed)
        self._header_bytes = self._container.written_bytes

    def begins_at(self, capture_ns: int) -> None:
        """The recording's first packet: the line is zero here."""
        self.started_ns = self._last_capture_ns = capture_ns

    def continues(self, line_ns: int, capture_ns: int) -> None:
        """A later chunk begins at `line_ns` of the recording."""
        self.zero_ns = self._end_ns = line_ns
        self.begins_at(capture_ns)

    @property
    def written_bytes(self) -> int:
        return self._container.written_bytes

    @property
    def expected_bytes(self) -> int:
        """Size of the file if it ended here: what is written and what the muxer still keeps, as far as can be told."""
        return self._container.written_bytes + self._kept_bytes + self._cue_bytes + _TRAILER_BYTES

    def holds(self, index: int) -> bool:
        """Whether something of this track is in it."""
        return self._units[index] > 0

    @property
    def pending_bytes(self) -> int:
        container = self._container
        return container.written_bytes - container.taken_bytes

    @property
    def has_media(self) -> bool:
        """Whether something came out of the muxer besides the header."""
        return self._container.written_bytes > self._header_bytes

    def write(self, index: int, packet: Packet, *, pts_ns: int, dts_ns: int, duration_ns: int) -> None:
        before = self._container.written_bytes
        at_ns, shown_at_ns, lasts_ns = dts_ns - self.zero_ns, pts_ns - self.zero_ns, duration_ns
        if self._lapse is not None:
            at_ns = shown_at_ns = self._lapse.playing_ns(self._units[index])
            lasts_ns = self._lapse.playing_ns(self._units[index] + 1) - at_ns
        self._container.write(index, packet, pts_ns=shown_at_ns, dts_ns=at_ns, duration_ns=lasts_ns)
        if self._container.written_bytes != before:
            self._kept_bytes = 0
        self._kept_bytes += len(packet.data) + _PACKET_BYTES
        stream = self._streams[index]
        self._cue_bytes += _CUE_BYTES * (stream.kind == "video" and packet.is_keyframe)
        self._units[index] += 1 if stream.kind == "video" else round(packet.duration_ns * stream.sample_rate / NS)
        if (end_ns := dts_ns + duration_ns) > self._end_ns:
            self._end_ns = end_ns
        if (end_ns := packet.pts_ns + duration_ns) > self._last_capture_ns:
            self._last_capture_ns = end_ns

    def flush(self) -> None:
        """A batch of packets is over: they can be taken, where the muxer needs nothing that follows."""
        before = self._container.written_bytes
        self._container.flush()
        if self._container.written_bytes != before:
            self._kept_bytes = 0

    def take(self) -> list[bytes]:
        return self._container.take()

    def close(self) -> None:
        self._container.close()

    @property
    def end_ns(self) -> int:
        """Where on the recording's line it ends so far."""
        return self._end_ns

    def info(self, losses: ChunkLosses, until_ns: int) -> ChunkInfo:
        """The accounts; call after `close`.

        Args:
            until_ns: the recording, or the time, has come so far (CLOCK_MONOTONIC): the last frame of a time-lapse,
                which stands for a whole interval, ends then.
        """
        tracks = []
        ended_ns = self._last_capture_ns
        length_ns = captured_ns = max(0, self._end_ns - self.zero_ns)
        if self._lapse is not None:
            length_ns = self._lapse.playing_ns(max(self._units))
            early_ns = max(0, ended_ns - max(self.started_ns, until_ns))
            ended_ns -= early_ns
            captured_ns = max(0, captured_ns - early_ns)
        for index, track in enumerate(self._inputs):
            facts = track.output.facts
            tracks.append(
                TrackFacts(
                    kind=track.kind,
                    units=self._units[index],
                    dropped=losses.dropped[index],
                    xruns=losses.xruns[index],
                    gap_s=round(losses.gap_ns[index] / NS, 6),
                    drift_ppm=round(facts.drift_ppm, 1),
                    offset_ms=round(facts.offset_ms, 2),
                )
            )
        return ChunkInfo(
            chunk=self.number,
            started_ns=self.started_ns,
            ended_ns=ended_ns,
            duration_s=round(length_ns / NS, 6),
            captured_s=round(captured_ns / NS, 6),
            bytes=self._container.written_bytes,
            tracks=tuple(tracks),
            gaps=tuple(losses.gaps),
            lost_s=round(losses.lost_ns / NS, 3),
        )
