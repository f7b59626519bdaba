"""Fragmented MP4 for viewers: the header is the container's own, each fragment holds what came since the last one.

A fragment is a `moof` and an `mdat` (ISO/IEC 14496-12 8.8, as https://www.w3.org/TR/mse-byte-stream-format-isobmff/
takes them). Writing one takes some microseconds and waits for nothing, where libav would interleave.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from msrecd.clock import NS
from msrecd.codecs import nal
from msrecd.flow.encoded import StreamParameters
from msrecd.flow.units import Packet
from msrecd.muxing.container import ChunkContainer
from msrecd.vocabulary.formats import CONTAINERS

_VIDEO_TIME_SCALE = 90_000
_DEFAULT_BASE_IS_MOOF = 0x020000
_TRUN_FLAGS = 0x000F01  # offset of the data; of each sample its duration, size, flags, composition offset
_KEY, _NO_KEY = 0x02000000, 0x01010000  # depends on none; depends on others and is no sync sample
_LENGTH_BYTES = 4
_TEMPORAL_DELIMITER = b"\x12\x00"  # AV1: not in files


@dataclass(frozen=True, slots=True)
class Fragment:
    """at_ns: capture time of its first sample; is_key: a viewer may begin with it."""

    data: bytes
    at_ns: int
    is_key: bool


class FragmentWriter:
    """Makes fragments of packets; the time line begins with the first packet of the first stream. One thread."""

    def __init__(self, streams: Sequence[StreamParameters]) -> None:
        """
        Raises:
            LibavError: MP4 cannot hold these streams.
        """
        self._streams = streams
        container = ChunkContainer(CONTAINERS["video/mp4"], streams, fragment_ns=NS)
        self.header = b"".join(container.take())
        container.close()
        self._scales = [_VIDEO_TIME_SCALE if stream.kind == "video" else stream.sample_rate for stream in streams]
        self._sizes = [nal.length_size(stream.extradata, stream.codec) for stream in streams]
        self._zero_ns: int | None = None
        self._number = 0

    def write(self, packets: Sequence[tuple[int, Packet]]) -> Fragment | None:
        """A fragment of these packets, each with the number of its stream, in order; None if all are too early."""
        if self._zero_ns is None:
            self._zero_ns = next((packet.dts_ns for stream, packet in packets if stream == 0), None)
        zero_ns = self._zero_ns
        if zero_ns is None:
            return None
        runs: dict[int, list[tuple[Packet, bytes]]] = {}
        for stream, packet in packets:
            if packet.dts_ns >= zero_ns:
                runs.setdefault(stream, []).append((packet, self._sample(stream, packet)))
        if not runs:
            return None
        self._number += 1
        moof = self._moof(runs, zero_ns)
        samples = [data for run in runs.values() for _, data in run]
        size = sum(map(len, samples))
        first = next(iter(runs.values()))[0][0]
        is_key = 0 in runs and runs[0][0][0].is_keyframe
        data = b"".join((moof, struct.pack(">I4s", 8 + size, b"mdat"), *samples))
        return Fragment(data, first.pts_ns, is_key or self._streams[0].kind == "audio")

    def _moof(self, runs: dict[int, list[tuple[Packet, bytes]]], zero_ns: int) -> bytes:
        sizes = [64 + 16 * len(run) for run in runs.values()]  # of each traf
        offset = 8 + 16 + sum(sizes) + 8  # of the first sample, from the beginning of the moof
        parts = [struct.pack(">I4sI4sII", 24 + sum(sizes), b"moof", 16, b"mfhd", 0, self._number)]
        for size, (stream, run) in zip(sizes, runs.items(), strict=True):
            scale = self._scales[stream]
            at = _units(run[0][0].dts_ns - zero_ns, scale)
            parts.append(
                struct.pack(
                    ">I4s I4sII I4sIQ I4sIIi",
                    *(size, b"traf"),
                    *(16, b"tfhd", _DEFAULT_BASE_IS_MOOF, stream + 1),
                    *(20, b"tfdt", 1 << 24, at),
                    *(size - 44, b"trun", 1 << 24 | _TRUN_FLAGS, len(run), offset),
                )
            )
            for number, (packet, data) in enumerate(run):
                follows = run[number + 1][0].dts_ns if number + 1 < len(run) else packet.dts_ns + packet.duration_ns
                end = max(at + 1, _units(follows - zero_ns, scale))
                shift = _units(packet.pts_ns - packet.dts_ns, scale)
                flags = _KEY if packet.is_keyframe or self._streams[stream].kind == "audio" else _NO_KEY
                parts.append(struct.pack(">IIIi", end - at, len(data), flags, shift))
                at = end
                offset += len(data)
        return b"".join(parts)

    def _sample(self, stream: int, packet: Packet) -> bytes:
        """The packet as the file has it: lengths in place of start codes."""
        data = bytes(packet.data)
        codec = self._streams[stream].codec
        if codec in nal.PARAMETER_SETS and not self._sizes[stream]:
            return nal.join(nal.nal_units(data), _LENGTH_BYTES)
        if codec == "av1" and data.startswith(_TEMPORAL_DELIMITER):
            return data[len(_TEMPORAL_DELIMITER) :]
        return data


def _units(ns: int, scale: int) -> int:
    return (ns * scale + NS // 2) // NS
