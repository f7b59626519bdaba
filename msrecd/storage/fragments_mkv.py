"""Whole clusters of Matroska and WebM; inside a cluster of unknown size whole blocks (RFC 8794, RFC 9559)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from msrecd.storage.scan import MAX_ELEMENTS, Scan, TrackScan

_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_INFO, _TIMESTAMP_SCALE, _TRACKS = 0x1549A966, 0x2AD7B1, 0x1654AE6B
_ENTRY, _NUMBER, _TYPE, _DEFAULT_DURATION = 0xAE, 0xD7, 0x83, 0x23E383
_AUDIO, _RATE = 0xE1, 0xB5
_TIMESTAMP, _SIMPLE_BLOCK, _GROUP, _BLOCK = 0xE7, 0xA3, 0xA0, 0xA1
_TOP = {_CLUSTER, _INFO, _TRACKS, 0x1C53BB6B, 0x114D9B74, 0x1254C367, 0x1043A770, 0x1941A469}
_IN_CLUSTER = {_TIMESTAMP, _SIMPLE_BLOCK, _GROUP, 0xA7, 0xAB, 0xEC, 0xBF}
_MAX_HEADER_BYTES = 16 * 1024 * 1024


@dataclass(slots=True)
class _Track:
    kind: str
    default_ns: int = 0
    rate: float = 0.0
    blocks: int = 0
    first_ns: int | None = None
    last_ns: int = 0

    def add(self, time_ns: int) -> None:
        self.blocks += 1
        self.first_ns = time_ns if self.first_ns is None else min(self.first_ns, time_ns)
        self.last_ns = max(self.last_ns, time_ns)


def scan_matroska(file: BinaryIO, size: int) -> Scan:
    """The end of the last whole cluster (or block), or of a whole element behind it."""
    state = _Scanner(file, size)
    return state.run()


class _Scanner:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._scale_ns = 1_000_000
        self._tracks: dict[int, _Track] = {}
        self._cut = 0
        self._fragments = 0
        self._left = MAX_ELEMENTS

    def run(self) -> Scan:
        element = self._element(0)
        if element is None or element[0] != _EBML or element[2] is None:
            return Scan()
        element = self._element(element[2])
        if element is None or element[0] != _SEGMENT:
            return Scan()
        at = element[1]
        while (element := self._element(at)) is not None:
            kind, begin, end = element
            if kind == _CLUSTER:
                done = self._cluster(begin, end)
                if done is None:
                    break
                at = done
                continue
            if end is None or end > self._size or (kind not in _TOP and kind not in (0xEC, 0xBF)):
                break
            if kind in (_INFO, _TRACKS):
                if end - begin > _MAX_HEADER_BYTES:
                    break
                self._header(kind, self._read(begin, end - begin))
            if self._fragments:
                self._cut = end
            at = end
        if not self._fragments or not self._cut:
            return Scan()
        tracks = {track.kind: _track_scan(track) for track in self._tracks.values() if track.blocks}
        return Scan(cut=self._cut, fragments=self._fragments, tracks=tracks)

    def _cluster(self, begin: int, end: int | None) -> int | None:
        """Count a cluster; where to go on, None at the end of what is whole."""
        if end is not None and end > self._size:
            return None
        time = 0
        at = begin
        pending: list[tuple[int, int]] = []
        is_first = True
        while at < (self._size if end is None else end):
            element = self._element(at)
            if element is None:
                return None
            kind, inner, stop = element
            if end is None and kind in _TOP:
                return at
            if stop is None or stop > self._size or kind not in _IN_CLUSTER:
                return None
            if kind == _TIMESTAMP:
                time = _number(self._read(inner, min(9, stop - inner)))
            elif kind in (_SIMPLE_BLOCK, _GROUP):
                block = self._block(kind, inner, stop)
                if block is not None:
                    pending.append((block[0], (time + block[1]) * self._scale_ns))
            at = stop
            if end is None and kind in (_SIMPLE_BLOCK, _GROUP):
                self._fragments += is_first
                is_first = False
                self._count(pending)
                self._cut = at
        if end is not None:
            self._fragments += 1
            self._count(pending)
            self._cut = end
        return at

    def _count(self, pending: list[tuple[int, int]]) -> None:
        for number, time_ns in pending:
            if number in self._tracks:
                self._tracks[number].add(time_ns)
        pending.clear()

    def _block(self, kind: int, begin: int, end: int) -> tuple[int, int] | None:
        """Track number and time relative to the cluster."""
        while kind == _GROUP and begin < end:
            element = self._element(begin)
            if element is None or element[2] is None:
                return None
            if element[0] == _BLOCK:
                kind, begin = _BLOCK, element[1]
                break
            begin = element[2]
        if begin >= end:
            return None
        data = self._read(begin, min(12, end - begin))
        number, length = _vint(data, 0)
        return number, struct.unpack_from(">h", data, length)[0]

    def _header(self, kind: int, data: bytes) -> None:
        for inner, value in _elements(data):
            if kind == _INFO and inner == _TIMESTAMP_SCALE:
                self._scale_ns = _number(value) or 1_000_000
            elif kind == _TRACKS and inner == _ENTRY:
                entry = dict(_elements(value))
                name = {1: "video", 2: "audio"}.get(_number(entry.get(_TYPE, b"")))
                if name is None:
                    continue
                track = _Track(kind=name, default_ns=_number(entry.get(_DEFAULT_DURATION, b"")))
                rate = dict(_elements(entry.get(_AUDIO, b""))).get(_RATE, b"")
                if len(rate) in (4, 8):
                    (track.rate,) = struct.unpack(">f" if len(rate) == 4 else ">d", rate)
                self._tracks[_number(entry.get(_NUMBER, b""))] = track

    def _read(self, at: int, length: int) -> bytes:
        self._file.seek(at)
        return self._file.read(length)

    def _element(self, at: int) -> tuple[int, int, int | None] | None:
        """Id, begin and end (None: unknown) of the element at `at`; None when its header is not whole."""
        self._left -= 1
        if at + 2 > self._size or self._left < 0:
            return None
        data = self._read(at, min(12, self._size - at))
        if not data or not data[0]:
            return None
        id_length = 9 - data[0].bit_length()
        if id_length > 4 or len(data) <= id_length or not data[id_length]:
            return None
        size_length = 9 - data[id_length].bit_length()
        if len(data) < id_length + size_length:
            return None
        size, _ = _vint(data, id_length)  # of 56 bits at most
        begin = at + id_length + size_length
        unknown = size == (1 << (7 * size_length)) - 1
        return int.from_bytes(data[:id_length], "big"), begin, None if unknown else begin + size


def _number(data: bytes) -> int:
    """An unsigned integer of at most 8 bytes (RFC 8794 7.2).

    Raises:
        ValueError: it is longer.
    """
    if len(data) > 8:
        raise ValueError("integer")
    return int.from_bytes(data, "big")


def _vint(data: bytes, at: int) -> tuple[int, int]:
    """Value and length of the variable-length integer at `at`."""
    length = 9 - data[at].bit_length()
    if length > 8 or at + length > len(data):
        raise IndexError("vint")
    return int.from_bytes(data[at : at + length], "big") & ((1 << (7 * length)) - 1), length


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    at = 0
    while at < len(data) and data[at]:
        id_length = 9 - data[at].bit_length()
        if at + id_length >= len(data):
            break
        size, length = _vint(data, at + id_length)
        begin = at + id_length + length
        found.append((int.from_bytes(data[at : at + id_length], "big"), data[begin : begin + size]))
        at = begin + size
    return found


def _track_scan(track: _Track) -> TrackScan:
    first_ns = track.first_ns or 0
    last_duration_ns = track.default_ns
    if not last_duration_ns and track.blocks > 1:
        last_duration_ns = (track.last_ns - first_ns) // (track.blocks - 1)
    end_ns = track.last_ns + last_duration_ns
    units = track.blocks if track.kind == "video" else round((end_ns - first_ns) * track.rate / 1e9)
    return TrackScan(kind=track.kind, units=units, start_s=first_ns / 1e9, end_s=end_ns / 1e9)
