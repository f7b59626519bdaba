"""Movie fragments: a `moof` that says what its samples are, and the `mdat` that holds them (ISO/IEC 14496-12, 8.8).

Made of whole batches of packets without libav, which copies each packet four times and looks at every byte of it twice.
As https://www.w3.org/TR/mse-byte-stream-format-isobmff/ takes them; each says the decode time of its first samples, so
tracks need not begin together. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from msrecd.clock import NS
from msrecd.flow.encoded import StreamParameters
from msrecd.flow.units import Packet
from msrecd.vocabulary import nal

CODECS = frozenset({"h264", "hevc", "aac", "opus"})  # whose packets go into files as they are, but for start codes
VIDEO_TIME_SCALE = 90_000
_MOST = (1 << 32) - 1
_HEAD, _MOVIE = struct.Struct(">I4s"), struct.Struct(">I4sI4sII")
_TRACK = struct.Struct(">I4s I4sIIIII I4sIQ I4sIIi")
# of a tfhd: default duration, size and flags of a sample, places counted from the moof
_DEFAULTS = 0x020000 | 0x08 | 0x10 | 0x20
_PLACE, _DURATIONS, _SIZES, _FLAGS, _SHIFTS = 0x001, 0x100, 0x200, 0x400, 0x800  # what a trun says
_KEY, _NO_KEY = 0x02000000, 0x01010000  # depends on none; depends on others and is no sync sample
_LENGTH = struct.Struct(">I")
_TEMPORAL_DELIMITER = b"\x12\x00"  # AV1: not in files


class _Track:
    """The samples of one track that wait for their fragment; times in units of its scale."""

    def __init__(self, number: int, stream: StreamParameters) -> None:
        self.number = number
        self.scale = VIDEO_TIME_SCALE if stream.kind == "video" else stream.sample_rate
        self.is_sound = stream.kind == "audio"
        self.is_av1 = stream.codec == "av1"
        is_in_units = stream.codec in nal.PARAMETER_SETS
        self.has_start_codes = is_in_units and not nal.length_size(stream.extradata, stream.codec)
        self.last = -1  # decode time of the last sample so far
        self.end_ns = 0  # where that one ends
        self.samples: list[tuple[int, int, int, int]] = []  # (decode time, how much later it is shown, bytes, flags)
        self.parts: list[bytes | memoryview] = []

    def take(self) -> tuple[tuple[int, ...], list[int], list[bytes | memoryview], int]:
        """(what a fragment says of its samples: fields of `_TRACK`, numbers of each sample; samples, their bytes)."""
        times, shifts, sizes, flags = ([one[n] for one in self.samples] for n in range(4))
        count, first = len(times), times[0]
        end = max(self.last + 1, (self.end_ns * self.scale + NS // 2) // NS)
        durations = [min(after - at, _MOST) for at, after in zip(times, [*times[1:], end], strict=True)]
        says = _PLACE
        columns: list[list[int]] = []
        for mark, column in ((_DURATIONS, durations), (_SIZES, sizes), (_FLAGS, flags)):
            if column.count(column[0]) != count:
                says |= mark
                columns.append(column)
        if any(shifts):
            says |= _SHIFTS
            columns.append([one & _MOST for one in shifts])
        numbers = [0] * (len(columns) * count)
        for place, column in enumerate(columns):
            numbers[place :: len(columns)] = column
        parts, self.samples, self.parts = self.parts, [], []
        return (self.number, durations[0], sizes[0], flags[0], first, says, count), numbers, parts, sum(sizes)


class Fragments:
    """Packets in, fragments out. Belongs to one thread."""

    def __init__(self, streams: Sequence[StreamParameters]) -> None:
        self._tracks = [_Track(number, stream) for number, stream in enumerate(streams, 1)]
        self._number = 0
        self.size = 0  # bytes of samples that wait

    def add(self, stream: int, packet: Packet, *, pts_ns: int, dts_ns: int, duration_ns: int) -> None:
        """A packet, at times behind the zero of the file."""
        track, data = self._tracks[stream], packet.data
        scale, size, units = track.scale, len(data), packet.units
        at = (dts_ns * scale + NS // 2) // NS
        if at <= track.last:
            at = track.last + 1
        shift = (pts_ns * scale + NS // 2) // NS - at if pts_ns != dts_ns else 0
        track.last, track.end_ns = at, dts_ns + duration_ns
        if not track.has_start_codes:
            if track.is_av1 and data[:2] == _TEMPORAL_DELIMITER:
                data, size = data[2:], size - 2
            track.parts.append(data)
        elif units:  # of a camera nearly always: lengths take the place of start codes, and no byte is looked at
            view, begin = memoryview(data), 4
            for unit in units:
                track.parts += (_LENGTH.pack(unit), view[begin : begin + unit])
                begin += unit + 4
        else:
            data = nal.join(nal.nal_units(bytes(data)), _LENGTH.size)
            size = len(data)
            track.parts.append(data)
        track.samples.append((at, shift, size, _KEY if packet.is_keyframe or track.is_sound else _NO_KEY))
        self.size += size

    def first_shown(self) -> list[tuple[int, int]]:
        """(number of the track, when its first sample that waits is shown, in its units)."""
        return [(one.number, one.samples[0][0] + one.samples[0][1]) for one in self._tracks if one.samples]

    def take(self) -> bytes:
        """A fragment of all that waits, sorted by track; b"" for nothing."""
        taken = [track.take() for track in self._tracks if track.samples]
        if not taken:
            return b""
        self._number += 1
        self.size = 0
        length = _MOVIE.size + sum(_TRACK.size + 4 * len(numbers) for _, numbers, _, _ in taken)
        place = length + _HEAD.size  # of the samples, from the beginning of the moof
        parts: list[bytes | memoryview] = [_MOVIE.pack(length, b"moof", 16, b"mfhd", 0, self._number)]
        samples: list[bytes | memoryview] = []
        for (number, duration, size, flags, first, says, count), numbers, data, data_bytes in taken:
            more = 4 * len(numbers)
            parts.append(
                _TRACK.pack(
                    *(_TRACK.size + more, b"traf"),
                    *(28, b"tfhd", _DEFAULTS, number, duration, size, flags),
                    *(20, b"tfdt", 1 << 24, first),
                    *(20 + more, b"trun", 1 << 24 | says, count, place),
                )
            )
            parts.append(struct.pack(f">{len(numbers)}I", *numbers))
            samples += data
            place += data_bytes
        parts.append(_HEAD.pack(place - length, b"mdat"))
        return b"".join(parts + samples)


class Contents:
    """The table of contents behind the last fragment (`mfra`, 8.8.9): where each begins, and when."""

    def __init__(self) -> None:
        self._rows: dict[int, bytearray] = {}

    def add(self, firsts: Sequence[tuple[int, int]], place: int) -> None:
        """A fragment at this place of the file; `firsts` as `Fragments.first_shown` says them."""
        for number, at in firsts:
            self._rows.setdefault(number, bytearray()).extend(struct.pack(">QQBBB", max(0, at), place, 1, 1, 1))

    def written(self) -> bytes:
        tables = []
        for number, rows in sorted(self._rows.items()):
            tables.append(struct.pack(">I4sIIII", 24 + len(rows), b"tfra", 1 << 24, number, 0, len(rows) // 19) + rows)
        size = 8 + sum(map(len, tables)) + 16
        return b"".join((_HEAD.pack(size, b"mfra"), *tables, struct.pack(">I4sII", 16, b"mfro", 0, size)))
