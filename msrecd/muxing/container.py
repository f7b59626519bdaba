"""One chunk being written into memory: a muxer with the options that make its file survive a cut anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msrecd import libav
from msrecd.flow.encoded import StreamParameters
from msrecd.flow.units import Packet
from msrecd.muxing.flacframes import FrameNumbers
from msrecd.muxing.fragments import FragmentShifter
from msrecd.muxing.heads import with_presentation
from msrecd.muxing.moof import CODECS, VIDEO_TIME_SCALE, Contents, Fragments
from msrecd.vocabulary.formats import Container

NS = 1_000_000_000
_FRAGMENT_BYTES = 1 << 18  # no more than this waits in libav's muxer (and in each copy of it), whatever the bit rate
_OWN_FRAGMENT_BYTES = 1 << 20  # ... and in ours, which keeps no copy of it
_LONGEST_FRAGMENT_NS = NS


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
        is_flushed: bool = False,
    ) -> None:
        """
        Args:
            duration_ns: of the whole file, where it is known already; the head says it then.
            is_flushed: the owner calls `flush` where a fragment is to end: none ends earlier, unless it is large.
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
        self._fragments: Fragments | None = None
        if self._is_mp4 and all(stream.codec in CODECS for stream in streams):
            self._write = lambda _: None
            self._muxer.close()  # its head was all that was wanted of it
            self._fragments, self._contents = Fragments(streams), Contents()
            self._fragment_ns = _LONGEST_FRAGMENT_NS if is_flushed else fragment_ns
            self._begun_ns = 0  # where the fragment at hand begins
            self._append(written)
            return
        self._write = FragmentShifter(self._append, self._shift_of, moved).feed if self._is_mp4 else self._append
        self._write(written)

    def write(self, stream: int, packet: Packet, *, pts_ns: int, dts_ns: int, duration_ns: int) -> None:
        """Mux a packet at these times of the chunk."""
        if (fragments := self._fragments) is not None:
            if not fragments.size:
                self._begun_ns = dts_ns
            elif dts_ns - self._begun_ns >= self._fragment_ns or fragments.size > _OWN_FRAGMENT_BYTES:
                self.flush()
                self._begun_ns = dts_ns
            fragments.add(stream, packet, pts_ns=pts_ns, dts_ns=dts_ns, duration_ns=duration_ns)
            return
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

    def flush(self) -> None:
        """End the fragment at hand, where that costs nothing: what was written can be taken."""
        if self._fragments is not None and (firsts := self._fragments.first_shown()):
            self._contents.add(firsts, self.written_bytes)
            self._append(self._fragments.take())

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
        if self._closed:
            return
        self._closed = True
        if self._fragments is not None:
            self.flush()
            self._append(self._contents.written())
        else:
            self._muxer.close()

    def _append(self, data: bytes) -> None:
        self._parts.append(data)
        self.written_bytes += len(data)

    def _shift_of(self, track_id: int) -> int:
        stream = self._streams[track_id - 1]
        first = self._first_dts[track_id - 1] or 0
        scale = stream.sample_rate if stream.kind == "audio" else VIDEO_TIME_SCALE
        return max(0, (first * scale + NS // 2) // NS)


def _options(muxer: str, fragment_ns: int) -> dict[str, str]:
    # Sound and frame come interleaved already; a track that gives nothing must not hold back the other.
    common = {"max_interleave_delta": "500000"}
    if muxer == "mp4":
        return common | {
            "movflags": "+empty_moov+default_base_moof",
            "frag_duration": str(fragment_ns // 1000),
            "frag_size": str(_FRAGMENT_BYTES),
            "video_track_timescale": str(VIDEO_TIME_SCALE),
        }
    if muxer in ("webm", "matroska"):
        return common | {"cluster_time_limit": str(max(1, fragment_ns // 1_000_000))}
    if muxer == "ogg":
        return common | {"page_duration": str(fragment_ns // 1000)}
    return common
