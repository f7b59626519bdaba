"""What only the end of a file knows, written into it before it gets its name.

A chunk is written in one go, to what cannot seek: its head says neither how long it is nor where its key frames are.
`finish` writes that down in place, and appends the cues of Matroska. It may be called again on a file that a power cut
left half finished: what it writes depends on the media alone.

- WAV: the two sizes in the head (libav writes 0xFFFFFFFF, which ffprobe calls invalid).
- FLAC: number of samples, sizes of frames and MD5 of the samples in STREAMINFO (RFC 9639, 8.2).
- Matroska and WebM: Duration, Cues, SeekHead and the size of the segment (RFC 9559), where `heads` has left room.
- MP4 and Ogg say it themselves.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from msrecd.muxing import ebml
from msrecd.muxing.heads import DURATION_BYTES, seek_head

_LARGEST_WAV = 0xFFFFFFFF
_HEAD_BYTES = 1 << 16
_HEADER_BYTES = 12  # of an element, at most
_BLOCK_BYTES = 32  # what is read of a block: its header, and what tells whether it is a key frame
_STREAMINFO_BYTES = 34
_CUE_DISTANCE_NS = 500_000_000  # of sound alone, every packet of which is a key frame


CHANGED = (".wav", ".flac", ".mkv", ".mka", ".webm")  # suffixes of what `finish` may change


def finish(fd: int, size: int, suffix: str, *, is_foreign: bool = False) -> int:
    """Complete a file of whole fragments; its size from then on. Blocking; a second or so for an hour of FLAC.

    Args:
        fd: open for reading and writing; its position is not used.
        suffix: of the file's name, with the dot.
        is_foreign: it was found on a card: what decodes it does so in a process of its own.

    Raises:
        OSError: the file cannot be read or written; it still holds all of its media.
    """
    try:
        if suffix == ".wav":
            _finish_wav(fd, size)
        elif suffix == ".flac":
            _finish_flac(fd, is_foreign=is_foreign)
        elif suffix in (".mkv", ".mka", ".webm"):
            return _Matroska(fd, size).finish()
    except (struct.error, IndexError, ValueError):
        return size  # not what we write: it stays as it is
    return size


# --- WAV -------------------------------------------------------------------------------------------------------------


def _finish_wav(fd: int, size: int) -> None:
    """A file of 4 GiB and more keeps the largest size there is."""
    head = os.pread(fd, 4096, 0)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return
    at = 12
    while at + 8 <= len(head):
        kind, length = struct.unpack_from("<4sI", head, at)
        if kind == b"data":
            for place, value in ((at + 4, size - at - 8), (4, size - 8)):
                os.pwrite(fd, struct.pack("<I", min(value, _LARGEST_WAV)), place)
            return
        at += 8 + length + (length & 1)


# --- FLAC ------------------------------------------------------------------------------------------------------------


def _finish_flac(fd: int, *, is_foreign: bool) -> None:
    from msrecd.inputs.flac import facts_of_flac  # what decodes; a program that writes no FLAC need not load it
    from msrecd.libav.values import LibavError

    head = bytearray(os.pread(fd, 8 + _STREAMINFO_BYTES, 0))
    if head[:4] != b"fLaC" or head[4] & 0x7F or len(head) < 8 + _STREAMINFO_BYTES:
        return
    try:
        facts = facts_of_flac(fd, is_foreign=is_foreign)
    except LibavError:
        return  # damaged: a sum that says so would only keep others from reading the rest
    if not facts.samples or max(facts.smallest, facts.largest) >= 1 << 24:
        return
    head[12:15], head[15:18] = facts.smallest.to_bytes(3, "big"), facts.largest.to_bytes(3, "big")
    packed = int.from_bytes(head[18:26], "big") & ~((1 << 36) - 1) | min(facts.samples, (1 << 36) - 1)
    head[18:26] = packed.to_bytes(8, "big")
    head[26:42] = facts.md5
    os.pwrite(fd, bytes(head), 0)


# --- Matroska --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Track:
    is_video: bool
    default_ns: int = 0
    blocks: int = 0
    first: int = 0  # ticks
    last: int = 0
    last_duration: int = 0

    def add(self, time: int, duration: int) -> None:
        if not self.blocks:
            self.first = time
        self.blocks += 1
        if time >= self.last:
            self.last, self.last_duration = time, duration

    def end(self, scale_ns: int) -> float:
        """In ticks: as the last block says, else as long as the others are."""
        duration = float(self.last_duration) or self.default_ns / scale_ns
        if not duration and self.blocks > 1:
            duration = (self.last - self.first) / (self.blocks - 1)
        return self.last + duration


@dataclass(frozen=True, slots=True)
class _Element:
    id: int
    at: int
    begin: int
    end: int


class _Matroska:
    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        self._scale_ns = ebml.USUAL_SCALE_NS
        self._tracks: dict[int, _Track] = {}
        self._cues: list[tuple[int, int, int]] = []  # (ticks, track, place of the cluster)
        self._first_video: int | None = None

    def finish(self) -> int:
        head = os.pread(self._fd, _HEAD_BYTES, 0)
        first = ebml.element_header(head, 0)
        if first is None or first[0] != ebml.HEADER or first[2] is None:
            return self._size
        segment_at = first[1] + first[2]
        segment = ebml.element_header(head, segment_at)
        if segment is None or segment[0] != ebml.SEGMENT or segment[1] - segment_at != 12:
            return self._size
        zero = segment[1]
        top: list[_Element] = []
        is_cued = False
        for found in self._elements(zero, self._size):
            if found.id == ebml.CLUSTER:
                self._read_cluster(found, zero)
            elif found.id == ebml.CUES:
                is_cued = True
            else:
                top.append(found)
                content = os.pread(self._fd, found.end - found.begin, found.begin)
                if found.id == ebml.INFO:
                    self._read_info(content)
                elif found.id == ebml.TRACKS:
                    self._read_tracks(content)
        ends = [track.end(self._scale_ns) for track in self._tracks.values() if track.blocks]
        place = self._duration_place(top)
        if not ends or place is None:
            return self._size  # nothing to say, or not written by us
        if not is_cued:
            self._append_cues()
        self._write_seek_head(top, zero)
        os.pwrite(self._fd, ebml.element(ebml.DURATION, struct.pack(">d", max(ends))), place)
        os.pwrite(self._fd, (1 << 56 | self._size - zero).to_bytes(8, "big"), zero - 8)
        return self._size

    def _elements(self, at: int, end: int) -> Iterator[_Element]:
        while at < end:
            header = ebml.element_header(os.pread(self._fd, _HEADER_BYTES, at), 0)
            if header is None or header[2] is None or at + header[1] + header[2] > end:
                return
            found = _Element(header[0], at, at + header[1], at + header[1] + header[2])
            yield found
            at = found.end

    def _read_info(self, content: bytes) -> None:
        scale = dict(ebml.elements(content)).get(ebml.TIMESTAMP_SCALE)
        self._scale_ns = int.from_bytes(scale, "big") if scale else self._scale_ns

    def _read_tracks(self, content: bytes) -> None:
        for id, inner in ebml.elements(content):
            if id == ebml.TRACK_ENTRY:
                entry = dict(ebml.elements(inner))
                number = int.from_bytes(entry.get(ebml.TRACK_NUMBER, b""), "big")
                track = _Track(is_video=entry.get(ebml.TRACK_TYPE, b"")[-1:] == b"\x01")
                track.default_ns = int.from_bytes(entry.get(ebml.DEFAULT_DURATION, b""), "big")
                self._tracks[number] = track
                if track.is_video and self._first_video is None:
                    self._first_video = number

    def _read_cluster(self, cluster: _Element, zero: int) -> None:
        cluster_time = 0
        is_cued = False
        for found in self._elements(cluster.begin, cluster.end):
            if found.id == ebml.TIMESTAMP:
                cluster_time = int.from_bytes(os.pread(self._fd, found.end - found.begin, found.begin), "big")
                continue
            if found.id not in (ebml.SIMPLE_BLOCK, ebml.BLOCK_GROUP):
                continue
            number, time, is_key, duration = self._block(found)
            track = self._tracks.get(number)
            if track is None:
                continue
            time += cluster_time
            track.add(time, duration)
            if is_key and not is_cued and (number == self._first_video or self._first_video is None):
                is_cued = True
                if self._first_video is not None or self._is_distant(time):
                    self._cues.append((time, number, cluster.at - zero))

    def _is_distant(self, time: int) -> bool:
        return not self._cues or (time - self._cues[-1][0]) * self._scale_ns >= _CUE_DISTANCE_NS

    def _block(self, found: _Element) -> tuple[int, int, bool, int]:
        """(track, time in the cluster, whether a key frame, duration or 0) of a SimpleBlock or BlockGroup."""
        duration, is_key, at = 0, True, found.begin
        if found.id == ebml.BLOCK_GROUP:
            for inner in self._elements(found.begin, found.end):
                if inner.id == ebml.BLOCK:
                    at = inner.begin
                elif inner.id == ebml.BLOCK_DURATION:
                    duration = int.from_bytes(os.pread(self._fd, inner.end - inner.begin, inner.begin), "big")
                elif inner.id == ebml.REFERENCE_BLOCK:
                    is_key = False
        data = os.pread(self._fd, _BLOCK_BYTES, at)
        length = 9 - data[0].bit_length()
        number = int.from_bytes(data[:length], "big") & ((1 << 7 * length) - 1)
        (time,) = struct.unpack_from(">h", data, length)
        if found.id == ebml.SIMPLE_BLOCK:
            is_key = bool(data[length + 2] & 0x80)
        return number, time, is_key, duration

    def _append_cues(self) -> None:
        cues = b"".join(
            ebml.element(
                ebml.CUE_POINT,
                ebml.unsigned(ebml.CUE_TIME, time)
                + ebml.element(
                    ebml.CUE_TRACK_POSITIONS,
                    ebml.unsigned(ebml.CUE_TRACK, track) + ebml.unsigned(ebml.CUE_CLUSTER_POSITION, place),
                ),
            )
            for time, track, place in self._cues
        )
        if cues:
            data = ebml.element(ebml.CUES, cues)
            os.pwrite(self._fd, data, self._size)
            self._size += len(data)

    def _write_seek_head(self, top: list[_Element], zero: int) -> None:
        """Over the one that is there and the room behind it: where everything is, the cues too."""
        if len(top) < 2 or top[0].id != ebml.SEEK_HEAD or top[1].id != ebml.VOID:
            return
        places = [(found.id, found.at - zero) for found in top if found.id not in (ebml.SEEK_HEAD, ebml.VOID)]
        cues = next((found for found in self._elements(zero, self._size) if found.id == ebml.CUES), None)
        if cues is not None:
            places.append((ebml.CUES, cues.at - zero))
        written = seek_head(places)
        left = top[1].end - top[0].at - len(written)
        if left == 0 or left >= 9:
            os.pwrite(self._fd, written + (ebml.void(left) if left else b""), top[0].at)

    def _duration_place(self, top: list[_Element]) -> int | None:
        """Where the free place in the segment's information is, or the duration that was written over it."""
        for info in top:
            for found in self._elements(info.begin, info.end) if info.id == ebml.INFO else ():
                if found.id in (ebml.VOID, ebml.DURATION) and found.end - found.at == DURATION_BYTES:
                    return found.at
        return None
