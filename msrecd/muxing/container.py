"""One chunk being written into memory: a muxer with the options that make its file survive a cut anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msrecd import libav
from msrecd.flow.encoded import StreamParameters
from msrecd.flow.units import Packet
from msrecd.muxing.flacframes import FrameNumbers
from msrecd.muxing.fragments import FragmentShifter
from msrecd.muxing.heads import with_presentation
from msrecd.vocabulary.formats import Container

NS = 1_000_000_000
_VIDEO_TIME_SCALE = 90_000
_FRAGMENT_BYTES = 1 << 18  # no more than this waits in the muxer (and in each copy of it), whatever the bit rate


class ChunkContainer:
    """Muxes packets of one chunk; `take` hands over the bytes that became whole since the last call.

    Bytes come out fragment by fragment, never half of one. Belongs to the worker's thread; always close it.

    Raises:
        LibavError: from every method: the muxer refused.
    """

    def __init__(
        self,
        container: Container,
        streams: Sequence[StreamParameters],
        *,
        fragment_ns: int,
        duration_ns: int | None = None,
    ) -> None:
        """
        Args:
            duration_ns: of the whole file, where it is known already; the head says it then.
        """
        self._parts: list[bytes] = []
        self._streams = streams
        self._first_dts: list[int | None] = [None] * len(streams)
        self.written_bytes = 0
        self.taken_bytes = 0
        head: list[bytes] = []
        self._write: Callable[[bytes], None] = head.append
        self._is_mp4 = container.muxer == "mp4"
        # Its players seek by the numbers of the frames; the other containers have times of their own.
        is_numbered = container.muxer in ("flac", "ogg") and streams[0].codec == "flac"
        self._numbers = FrameNumbers() if is_numbered else None
        self._muxer = libav.Muxer(
            lambda data: self._write(data),
            format=container.muxer,
            headers=[stream.header for stream in streams],
            presentations=[stream.presentation for stream in streams],
            options=_options(container.muxer, fragment_ns),
        )
        self._closed = False
        found = b"".join(head)
        written = with_presentation(container.muxer, found, streams, duration_ns)
        moved = len(written) - len(found)
        self._write = FragmentShifter(self._append, self._shift_of, moved).feed if self._is_mp4 else self._append
        self._write(written)

    def write(self, stream: int, packet: Packet, *, pts_ns: int, dts_ns: int, duration_ns: int) -> None:
        """Mux a packet at these times of the chunk."""
        if self._is_mp4:  # libav starts every track at 0; the shifter puts the difference back
            first = self._first_dts[stream]
            if first is None:
                self._first_dts[stream] = first = dts_ns
            pts_ns -= first
            dts_ns -= first
        self._muxer.write(
            stream,
            packet.data if self._numbers is None else self._numbers.renumber(packet.data),
            pts_ns=pts_ns,
            dts_ns=dts_ns,
            duration_ns=duration_ns,
            is_keyframe=packet.is_keyframe,
        )

    @property
    def pending_bytes(self) -> int:
        """Bytes that `take` would give."""
        return self.written_bytes - self.taken_bytes

    def take(self) -> list[bytes]:
        parts, self._parts = self._parts, []
        self.taken_bytes = self.written_bytes
        return parts

    def close(self) -> None:
        """Finish the file; what is still to be taken then is all of it."""
        if not self._closed:
            self._closed = True
            self._muxer.close()

    def _append(self, data: bytes) -> None:
        self._parts.append(data)
        self.written_bytes += len(data)

    def _shift_of(self, track_id: int) -> int:
        stream = self._streams[track_id - 1]
        first = self._first_dts[track_id - 1] or 0
        scale = stream.sample_rate if stream.kind == "audio" else _VIDEO_TIME_SCALE
        return max(0, (first * scale + NS // 2) // NS)


def _options(muxer: str, fragment_ns: int) -> dict[str, str]:
    # Sound and frame come interleaved already; a track that gives nothing must not hold back the other.
    common = {"max_interleave_delta": "500000"}
    if muxer == "mp4":
        return common | {
            "movflags": "+empty_moov+default_base_moof",
            "frag_duration": str(fragment_ns // 1000),
            "frag_size": str(_FRAGMENT_BYTES),
            "video_track_timescale": str(_VIDEO_TIME_SCALE),
        }
    if muxer in ("webm", "matroska"):
        return common | {"cluster_time_limit": str(max(1, fragment_ns // 1_000_000))}
    if muxer == "ogg":
        return common | {"page_duration": str(fragment_ns // 1000)}
    return common
