"""Joining chunks into one file without encoding again. Blocking; belongs to one thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from msrecd import libav
from msrecd.codecs.opus import packet_samples
from msrecd.codecs.parameters import of_input
from msrecd.errors import MsrecdError
from msrecd.flow.units import Packet
from msrecd.inputs.recorded import RecordedFile
from msrecd.muxing.container import ChunkContainer
from msrecd.muxing.seams import Ends, Piece, SampleLine, Step, length_ns, plan_join, seam_ns
from msrecd.vocabulary.formats import CONTAINER_OF_SUFFIX, Container

NS = 1_000_000_000
_FRAGMENT_NS = 2 * NS
_WRITE_BYTES = 1 << 20
_AAC_FRAME_SAMPLES = 1024
_OPUS_RATE = 48_000
_ADVICE = "export the time before and after it separately"

# Only these can express a gap.
_BY_SUFFIX = {suffix: one for suffix, one in CONTAINER_OF_SUFFIX.items() if not one.is_single_track}


class JoinError(MsrecdError):
    """The chunks cannot be joined; the message says which, why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What was written: length on the time line, frames, samples, and how many chunks gave something."""

    duration_s: float
    frames: int
    samples: int
    chunks: int


def _holds(container: Container, info: libav.StreamInfo) -> bool:
    codec = "pcm_s16le" if info.codec in libav.PCM_BYTES else info.codec  # PCM of any width goes where PCM goes
    return codec in (container.video if info.kind == "video" else container.audio)


def _others(infos: Sequence[libav.StreamInfo]) -> str:
    """The suffixes of the formats that hold these streams: those of sound for sound alone."""
    suffixes = (".mp4", ".webm", ".mkv") if any(info.kind == "video" for info in infos) else (".m4a", ".mka")
    return " or ".join(
        suffix for suffix in suffixes if all(_holds(CONTAINER_OF_SUFFIX[suffix], info) for info in infos)
    )


def container_for(path: Path) -> Container:
    """The container that a file name asks for.

    Raises:
        JoinError: none that can hold the gaps of a time line.
    """
    try:
        return _BY_SUFFIX[path.suffix.lower()]
    except KeyError:
        raise JoinError(f"{path.name}: write to a file that ends in {', '.join(_BY_SUFFIX)}") from None


class Joiner:
    """Writes the packets of pieces, between two moments of the wall clock, into one container."""

    def __init__(
        self,
        pieces: Sequence[Piece],
        container: Container,
        write: Callable[[bytes], object],
        *,
        from_ns: int | None = None,
        to_ns: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """
        Args:
            write: takes the file's bytes in order; what it raises ends the joining.
            from_ns, to_ns: nothing of before the last key frame at or before `from_ns`, and nothing from `to_ns` on.
            progress: called with (bytes read, bytes to read).
        """
        self._steps = plan_join(pieces, from_ns)
        self._container = container
        self._write = write
        self._from_ns, self._to_ns = from_ns, to_ns
        self._progress = progress
        self._total = sum(piece.bytes for piece in pieces)
        self._done = 0
        self._output: ChunkContainer | None = None
        self._streams: list[libav.StreamInfo] = []
        self._line_end_ns = 0
        self._last_dts: list[int] = []
        self._sound = SampleLine()
        self._frames = 0
        self._samples = 0
        self._chunks = 0

    def run(self) -> Joined:
        """Write it all.

        Raises:
            JoinError: a chunk cannot be read, or was recorded otherwise than the first.
            OSError: of `write`.
        """
        zero_ns = 0  # of the piece, on the line
        before: Ends | None = None
        previous: Step | None = None
        try:
            for step in self._steps:
                source = _open(step.piece)
                try:
                    infos = _streams(source)
                    begin_ns = 0 if previous is not None else self._begin_of(step.piece, source, infos)
                    self._check(step.piece, infos, begin_ns)
                    if previous is not None:
                        zero_ns = self._zero_of(step, previous, before, zero_ns, source, infos)
                    before = self._copy(step.piece, source, infos, zero_ns - begin_ns)
                    if previous is None:
                        zero_ns = -begin_ns
                finally:
                    source.close()
                previous = step
            if self._output is None or not self._chunks:
                raise JoinError("nothing was recorded in this range")
            self._output.close()
            self._flush(0)
        except libav.LibavError as exc:
            raise JoinError(f"joining failed: {exc}") from exc
        finally:
            self._abandon()
        return Joined(
            duration_s=self._line_end_ns / NS, frames=self._frames, samples=self._samples, chunks=self._chunks
        )

    def _abandon(self) -> None:
        """A container that was begun is always closed."""
        output, self._output = self._output, None
        if output is not None:
            try:
                output.close()
            except libav.LibavError:
                return  # the first error is being reported already

    def _check(self, piece: Piece, infos: list[libav.StreamInfo], begin_ns: int) -> None:
        """Make sure that the streams of a piece are those of the output, which the first piece opens."""
        if self._output is None:
            self._streams = infos
            self._output = self._open_output(piece, infos, begin_ns)
            self._last_dts = [-1] * len(infos)
            return
        if [known.kind for known in self._streams] != [info.kind for info in infos]:
            raise JoinError(f"{piece.path.name} has other tracks than what is before it; {_ADVICE}")
        for known, info in zip(self._streams, infos, strict=True):
            if _form(known) != _form(info):
                was = f"{_describe(info)}, but what is before it is {_describe(known)}"
                if _describe(info) == _describe(known):
                    was = f"{_describe(info)} with other settings of the encoder than what is before it"
                raise JoinError(f"{piece.path.name} is {was}; {_ADVICE}")

    def _open_output(self, piece: Piece, infos: list[libav.StreamInfo], begin_ns: int) -> ChunkContainer:
        if not infos:
            raise JoinError(f"{piece.path.name} holds neither picture nor sound")
        for info in infos:
            if not _holds(self._container, info):
                raise JoinError(f"this file format cannot hold {info.codec}; write to {_others(infos)}")
        return ChunkContainer(
            self._container,
            [of_input(info) for info in infos],
            fragment_ns=_FRAGMENT_NS,
            duration_ns=length_ns(self._steps, begin_ns, self._to_ns),
        )

    def _zero_of(
        self,
        step: Step,
        previous: Step,
        before: Ends | None,
        zero_ns: int,
        source: RecordedFile,
        infos: list[libav.StreamInfo],
    ) -> int:
        if step.gap_ns is None and before is not None:
            return zero_ns + seam_ns(before, previous.piece, _audio_begin(source, infos))
        return max(self._line_end_ns, zero_ns + previous.piece.duration_ns + (step.gap_ns or 0))

    def _begin_of(self, piece: Piece, source: RecordedFile, infos: list[libav.StreamInfo]) -> int:
        """Where in the first piece the line begins: at the last key frame that is not too late."""
        wanted_ns = 0 if self._from_ns is None else self._from_ns - piece.started_ns
        if wanted_ns <= 0 or not infos:
            return 0
        begin_ns, base_ns = 0, _base(source, infos)
        for packet in source.packets([infos[0].index]):
            at_ns = _dts(packet) - base_ns
            if at_ns > wanted_ns:
                break
            if packet.is_keyframe:
                begin_ns = at_ns
        return begin_ns

    def _copy(self, piece: Piece, source: RecordedFile, infos: list[libav.StreamInfo], offset_ns: int) -> Ends:
        """Write the packets of a piece at `offset_ns` of the line; the ends of what it holds, on its own line."""
        number = {info.index: i for i, info in enumerate(infos)}
        stop_ns = None if self._to_ns is None else self._to_ns - piece.started_ns
        base_ns = _base(source, infos)
        sound = SampleLine()
        video_end_ns = audio_begin_ns = None
        read = written = 0
        for packet in source.packets([info.index for info in infos]):
            read += len(packet.data)
            index = number[packet.stream]
            dts_ns = _dts(packet) - base_ns
            if infos[index].kind == "video":
                video_end_ns = dts_ns + packet.duration_ns if packet.duration_ns else None
            else:
                audio_begin_ns = dts_ns if audio_begin_ns is None else audio_begin_ns
                dts_ns = sound.place(dts_ns, _samples(infos[index], packet), infos[index].sample_rate)
            if stop_ns is None or dts_ns < stop_ns:
                written += self._put(index, packet, dts_ns + offset_ns)
            self._report(read, piece)
        self._done += piece.bytes
        self._chunks += bool(written)
        return Ends(video_end_ns=video_end_ns, audio_begin_ns=audio_begin_ns, audio_end_ns=sound.end_ns)

    def _put(self, index: int, packet: libav.Demuxed, dts_ns: int) -> bool:
        """Write a packet at this time of the line; whether it has a place there."""
        info = self._streams[index]
        duration_ns = packet.duration_ns
        if dts_ns < 0:
            return False
        if info.kind == "audio":
            samples = _samples(info, packet)
            dts_ns = self._sound.place(dts_ns, samples, info.sample_rate)
            duration_ns = (self._sound.end_ns or 0) - dts_ns
            self._samples += samples
        if dts_ns <= self._last_dts[index]:
            return False
        self._last_dts[index] = dts_ns
        shift_ns = packet.pts_ns - _dts(packet) if packet.pts_ns is not None else 0
        unit = Packet(
            data=packet.data,
            pts_ns=dts_ns + shift_ns,
            dts_ns=dts_ns,
            duration_ns=duration_ns,
            is_keyframe=packet.is_keyframe,
        )
        assert self._output is not None
        self._output.write(index, unit, pts_ns=unit.pts_ns, dts_ns=dts_ns, duration_ns=duration_ns)
        self._line_end_ns = max(self._line_end_ns, dts_ns + duration_ns)
        self._frames += info.kind == "video"
        self._flush(_WRITE_BYTES)
        return True

    def _flush(self, least_bytes: int) -> None:
        assert self._output is not None
        if self._output.pending_bytes >= least_bytes:
            for part in self._output.take():
                self._write(part)

    def _report(self, read: int, piece: Piece) -> None:
        if self._progress is not None:
            self._progress(min(self._total, self._done + min(read, piece.bytes)), self._total)


def _open(piece: Piece) -> RecordedFile:
    try:
        return RecordedFile(piece.path)
    except libav.LibavError as exc:
        raise JoinError(f"{piece.path.name} cannot be read: {exc}; `msrecd recordings verify` tells more") from exc


def _streams(source: RecordedFile) -> list[libav.StreamInfo]:
    """Frame first, one of each kind."""
    found: dict[str, libav.StreamInfo] = {}
    for info in source.streams:
        found.setdefault(info.kind, info)
    return [found[kind] for kind in ("video", "audio") if kind in found]


def _form(info: libav.StreamInfo) -> tuple[object, ...]:
    return (info.kind, info.codec, info.width, info.height, info.sample_rate, info.channels, info.extradata)


def _describe(info: libav.StreamInfo) -> str:
    if info.kind == "video":
        return f"{info.codec} of {info.width}x{info.height}"
    return f"{info.codec} of {info.sample_rate} Hz and {info.channels} channels"


def _audio_begin(source: RecordedFile, infos: list[libav.StreamInfo]) -> int | None:
    """The time of a chunk's first sound, on the chunk's own line."""
    audio = next((info for info in infos if info.kind == "audio"), None)
    if audio is None:
        return None
    first = _first(source, audio)
    return None if first is None else first - _base(source, infos)


def _base(source: RecordedFile, infos: list[libav.StreamInfo]) -> int:
    """Where the container has the zero of the chunk's line.

    Sound alone begins there; some formats (FLAC, Ogg) number it on from the chunk before.
    """
    return 0 if infos[0].kind == "video" else _first(source, infos[0]) or 0


def _first(source: RecordedFile, info: libav.StreamInfo) -> int | None:
    packet = next(source.packets([info.index]), None)
    return None if packet is None else _dts(packet)


def _dts(packet: libav.Demuxed) -> int:
    if packet.dts_ns is not None:
        return packet.dts_ns
    return packet.pts_ns or 0


def _samples(info: libav.StreamInfo, packet: libav.Demuxed) -> int:
    """Samples of a packet of sound: not from its duration where the container rounds that."""
    if info.codec == "aac":
        return info.frame_samples or _AAC_FRAME_SAMPLES
    if info.codec == "opus":
        return packet_samples(packet.data) * info.sample_rate // _OPUS_RATE
    if info.codec in libav.PCM_BYTES:
        return len(packet.data) // (libav.PCM_BYTES[info.codec] * max(1, info.channels))
    return round(packet.duration_ns * info.sample_rate / NS)
