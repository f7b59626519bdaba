"""What the reading process says to the program: frames of bytes over a socket, checked when they arrive.

A frame is a kind (one byte), a length (four bytes, little endian) and a body. Nothing in it is trusted: the process
that wrote it has parsed what came from a network. So the bodies are JSON of known fields and packed numbers, never
pickles, and every length has a bound.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

from msrecd.flow.units import Presentation
from msrecd.libav.values import Demuxed, StreamInfo, Times

HEADER = struct.Struct("<cI")
DESCRIPTION, PACKETS, END, HANDOVER = b"D", b"P", b"E", b"H"
REQUEST = b"Q"  # the other way
MAX_FRAME = 32 << 20  # a batch, or one packet that is larger
MAX_TEXT_FRAME = 1 << 20  # of a description: JSON takes some twenty times its length in memory
MAX_BATCH = 10_000  # packets
MAX_UNITS = 32  # NAL units of a packet whose places are known, on average
MAX_EXTRADATA = 64 << 10
MAX_PARAMETER_SETS = 64  # of H.264 and HEVC; a muxer counts them in a field that can overflow (CVE-2026-75141)
MAX_STREAMS = 16
MAX_HANDED = 8 << 20  # of what one process gives to another
_COUNT = struct.Struct("<I")
_LENGTHS = struct.Struct("<II")
_NONE = -(1 << 63)
_FAR = 1 << 61  # times beyond some thousand years cannot be counted with
# stream, flags (1 key frame, 2 damaged, 4 hidden), bytes, pts, dts, duration, the sender's clock, hidden ns, NAL units;
# behind all of these the bytes of each unit, then the data
_PACKET = struct.Struct("<HHIqqqqII")
_MOST_HIDDEN = (1 << 32) - 1


class WireError(Exception):
    """What came is no frame of this protocol, or the other side has gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """An opened input. The fields are those of `libav.Demuxer`; absent: streams that have given nothing so far."""

    streams: tuple[StreamInfo, ...]
    is_live: bool
    times: str
    skipped: tuple[str, ...] = ()
    absent: tuple[int, ...] = ()


def frame(kind: bytes, body: bytes) -> bytes:
    return HEADER.pack(kind, len(body)) + body


def text(kind: bytes, value: dict[str, Any]) -> bytes:
    return frame(kind, json.dumps(value).encode())


def description(value: Description) -> bytes:
    streams = [
        {
            name: base64.b64encode(fact).decode() if isinstance(fact, bytes) else fact
            for name, fact in asdict(info).items()
        }
        for info in value.streams
    ]
    return text(
        DESCRIPTION,
        {
            "streams": streams,
            "is_live": value.is_live,
            "times": value.times,
            "skipped": list(value.skipped),
            "absent": list(value.absent),
        },
    )


def read_description(body: bytes) -> Description:
    """
    Raises:
        WireError: it is none.
    """
    try:
        value = _object(json.loads(body))
        streams, skipped, times = value["streams"], value["skipped"], value["times"]
        absent = value["absent"]
        if not all(isinstance(part, list) for part in (streams, skipped, absent)) or times not in get_args(Times):
            raise ValueError("streams, skipped, absent or times")
        if len(streams) > MAX_STREAMS:
            raise ValueError("too many streams")
        infos = tuple(_stream(_object(item)) for item in streams)
        is_live = value["is_live"] is True
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise WireError("no description of an input") from exc
    if len({info.index for info in infos}) != len(infos):
        raise WireError("a stream that is there twice")
    reasons = tuple(str(item)[:200] for item in skipped[:MAX_STREAMS])
    missing = tuple(info.index for info in infos if info.index in absent)
    return Description(streams=infos, is_live=is_live, times=times, skipped=reasons, absent=missing)


# The numbers of a description: (least, most). A stream of frames has a size, sound a rate and channels; see `_stream`.
_NUMBERS: dict[str, tuple[float, float]] = {
    "index": (0, 1 << 15), "width": (0, 1 << 15), "height": (0, 1 << 15), "frame_rate": (1e-5, 1e6),
    "sample_rate": (0, 1 << 20), "channels": (0, 64), "bits": (0, 64), "frame_samples": (0, 1 << 20),
    "reorder_depth": (0, 64), "rotation": (0, 270), "color_primaries": (0, 255), "color_transfer": (0, 255),
    "color_matrix": (0, 255),
}  # fmt: skip
_BYTES = {"extradata": MAX_EXTRADATA, "header": 2 * MAX_EXTRADATA}
_WORDS = {
    "kind": r"audio|video",
    "codec": r"[a-z0-9_]{1,40}",
    "layout": r"[\w().+ -]{0,60}",
    "color_range": r"limited|full",
}
_FLAGS = ("needs_hidden", "comes_with_next")
_MAY_BE_NONE = ("frame_rate", "color_range")
_BEGINS = (b"nut/multimedia container", b"\x1a\x45\xdf\xa3")  # of the small file that describes a stream


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("no object")
    return value


def _stream(item: dict[str, Any]) -> StreamInfo:
    """
    Raises:
        ValueError, KeyError, TypeError: a field that is none, is missing or out of bounds.
    """
    info = StreamInfo(**{name: _checked(name, value) for name, value in item.items()})
    has_shape = info.width and info.height if info.kind == "video" else info.sample_rate and info.channels
    if not has_shape or not info.header.startswith(_BEGINS):
        raise ValueError("a stream without a shape, or without a header")
    if info.codec in ("h264", "hevc") and info.extradata.count(b"\0\0\1") > MAX_PARAMETER_SETS:
        raise ValueError("extradata")
    return info


def _checked(name: str, value: Any) -> Any:
    """
    Raises:
        ValueError, KeyError, TypeError: it is none of this field.
    """
    if name == "presentation":
        return Presentation(**{part: _checked(part, fact) for part, fact in _object(value).items()})
    if name == "pixel_aspect":
        if len(value) != 2 or not all(type(part) is int and 0 < part < 1 << 20 for part in value):
            raise ValueError(name)
        return tuple(value)
    if value is None and name in _MAY_BE_NONE:
        return None
    if name in _FLAGS and isinstance(value, bool):
        return value
    if name in _BYTES:
        data = base64.b64decode(value, validate=True)
        if len(data) > _BYTES[name]:
            raise ValueError(name)
        return data
    if name in _WORDS:
        if not re.fullmatch(_WORDS[name], value, re.ASCII):
            raise ValueError(name)
        return value
    least, most = _NUMBERS[name]
    if type(value) is not int and not (name == "frame_rate" and type(value) is float):
        raise ValueError(name)
    if not least <= value <= most or (name == "rotation" and value % 90):
        raise ValueError(name)
    return value


def packets(batch: Sequence[Demuxed]) -> list[bytes | memoryview]:
    """The parts of one frame, for `sendmsg`: data are not copied."""
    heads = bytearray(_COUNT.pack(len(batch)))
    units: list[int] = []
    size = 0
    for packet in batch:
        heads += _PACKET.pack(
            packet.stream,
            packet.is_keyframe | packet.is_damaged << 1 | packet.is_hidden << 2,
            len(packet.data),
            _NONE if packet.pts_ns is None else packet.pts_ns,
            _NONE if packet.dts_ns is None else packet.dts_ns,
            packet.duration_ns,
            _NONE if packet.sender_ns is None else packet.sender_ns,
            min(packet.hidden_ns, _MOST_HIDDEN),
            len(packet.units),
        )
        units += packet.units
        size += len(packet.data)
    heads += struct.pack(f"<{len(units)}I", *units)
    return [HEADER.pack(PACKETS, len(heads) + size) + heads, *(packet.data for packet in batch)]


def read_packets(body: bytes, streams: set[int]) -> list[Demuxed]:
    """
    Raises:
        WireError: it is no batch of packets of these streams.
    """
    try:
        (count,) = _COUNT.unpack_from(body)
        if count > MAX_BATCH:
            raise WireError("too many packets at once")
        view = memoryview(body)
        heads = list(_PACKET.iter_unpack(view[_COUNT.size : _COUNT.size + count * _PACKET.size]))
        at = _COUNT.size + count * _PACKET.size
        total = sum([head[-1] for head in heads])
        if total > MAX_UNITS * count:
            raise WireError("too many units")
        units = struct.unpack_from(f"<{total}I", body, at)
        at += 4 * len(units)
        first = 0
        batch = []
        for stream, flags, size, pts, dts, duration, sender, hidden, of_it in heads:
            if stream not in streams or at + size > len(body) or not 0 <= duration < 1 << 50:
                raise WireError("a packet out of bounds")
            its_units: tuple[int, ...] = ()
            if of_it:
                its_units = units[first : first + of_it]
                first += of_it
                if sum(its_units) + 4 * of_it != size:
                    raise WireError("units out of bounds")
            batch.append(
                Demuxed(
                    stream, view[at : at + size],
                    pts if -_FAR < pts < _FAR else None, dts if -_FAR < dts < _FAR else None, duration,
                    flags & 1 == 1, sender if -_FAR < sender < _FAR else None, flags & 2 == 2, flags & 4 == 4, hidden,
                    its_units,
                )
            )  # fmt: skip
            at += size
    except struct.error as exc:
        raise WireError("no batch of packets") from exc
    if len(batch) != count:
        raise WireError("no batch of packets")
    return batch


def handover(facts: bytes, times: bytes, raw: bytes) -> bytes:
    """What one process knows of a camera that plays, for another one.

    facts: JSON, as `inputs/rtspinput.py` writes and reads it. times: JSON: [stream, last time] of those that have given
    something, where the connection goes on anywhere; b"": `raw` is all that has come so far.
    """
    return _LENGTHS.pack(len(facts), len(times)) + facts + times + raw


def read_handover(body: bytes) -> tuple[bytes, bytes, bytes]:
    """(facts, times, raw).

    Raises:
        WireError: it is none.
    """
    if len(body) < _LENGTHS.size:
        raise WireError("nothing is handed over")
    facts, times = _LENGTHS.unpack_from(body)
    behind = _LENGTHS.size + facts
    if facts > MAX_EXTRADATA or behind + times > len(body):
        raise WireError("nothing is handed over")
    return body[_LENGTHS.size : behind], body[behind : behind + times], body[behind + times :]


_MOST_BYTES = {DESCRIPTION: MAX_TEXT_FRAME, END: MAX_TEXT_FRAME, HANDOVER: MAX_HANDED}


class FrameReader:
    """Reads frames from a socket. Belongs to one thread. After a TimeoutError it goes on where it was."""

    def __init__(self, connection: socket.socket, kinds: Sequence[bytes] = (DESCRIPTION, PACKETS, END)) -> None:
        self._socket = connection
        self._kinds = kinds
        self._timeout_s: float | None = -1.0
        self._kind, self._size = b"", 0  # of the frame whose body is coming
        self._parts: list[bytes] = []

    def read(self, timeout_s: float | None) -> tuple[bytes, bytes]:
        """(kind, body) of the next frame.

        Raises:
            TimeoutError: nothing came for so long.
            WireError: the other side has gone, or sends something else.
        """
        if timeout_s != self._timeout_s:  # the kernel's own time-out: no polling before each piece
            self._timeout_s = timeout_s
            self._socket.settimeout(None)
            _set_receive_timeout(self._socket, timeout_s)
        if not self._kind:
            kind, size = HEADER.unpack(self._filled(HEADER.size))
            if kind not in self._kinds or size > _MOST_BYTES.get(kind, MAX_FRAME):
                raise WireError("no frame")
            self._kind, self._size = kind, size
        body = self._filled(self._size)
        kind, self._kind = self._kind, b""
        return kind, body

    def _filled(self, size: int) -> bytes:
        """So many bytes."""
        if not self._parts:
            body = self._received(size)
            if len(body) == size:
                return body
            self._parts.append(body)
        while missing := size - sum(map(len, self._parts)):  # a signal came between, or the time-out
            self._parts.append(self._received(missing))
        body = b"".join(self._parts)
        self._parts.clear()
        return body

    def _received(self, size: int) -> bytes:
        if not size:
            return b""
        try:
            body = self._socket.recv(size, socket.MSG_WAITALL)
        except (BlockingIOError, TimeoutError):
            raise TimeoutError from None
        except OSError as exc:
            raise WireError("the reading process is gone") from exc
        if not body:
            raise WireError("the reading process is gone")
        return body


def _set_receive_timeout(connection: socket.socket, timeout_s: float | None) -> None:
    parts = divmod(round((timeout_s or 0.0) * 1e6), 1_000_000)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", *parts))
    except OSError:  # times of 64 bits on a machine of 32
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@qq", *parts))


def send_parts(connection: socket.socket, parts: Sequence[bytes | memoryview]) -> None:
    """All of the parts, one after the other.

    Raises:
        OSError: nobody reads any more.
    """
    for chunk in _chunks(parts):
        waiting = [memoryview(part).cast("B") for part in chunk]
        while waiting:
            sent = connection.sendmsg(waiting)
            while waiting and sent >= len(waiting[0]):
                sent -= len(waiting.pop(0))
            if sent:
                waiting[0] = waiting[0][sent:]


def _chunks(parts: Sequence[bytes | memoryview]) -> Iterator[Sequence[bytes | memoryview]]:
    for at in range(0, len(parts), 500):  # IOV_MAX is 1024
        yield parts[at : at + 500]
