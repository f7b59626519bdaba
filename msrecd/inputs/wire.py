"""What the reading process says to the program: frames of bytes over a socket, checked when they arrive.

A frame is a kind (one byte), a length (four bytes, little endian) and a body. Nothing in it is trusted: the process
that wrote it has parsed what came from a network. So the bodies are JSON of known fields and packed numbers, never
pickles, and every length has a bound.
"""

from __future__ import annotations

import base64
import json
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from msrecd.flow.units import Presentation
from msrecd.libav.values import Demuxed, StreamInfo

HEADER = struct.Struct("<cI")
DESCRIPTION, PACKETS, END = b"D", b"P", b"E"
REQUEST = b"Q"  # the other way
MAX_FRAME = 32 << 20  # a batch, or one packet that is larger
MAX_TEXT_FRAME = 1 << 20  # of a description: JSON takes some twenty times its length in memory
MAX_BATCH = 10_000  # packets
MAX_EXTRADATA = 64 << 10
MAX_PARAMETER_SETS = 64  # of H.264 and HEVC; a muxer counts them in a field that can overflow (CVE-2026-75141)
MAX_STREAMS = 16
_MAX_TEXT = 1000
_COUNT = struct.Struct("<I")
_NONE = -(1 << 63)
_FAR = 1 << 61  # times beyond some thousand years cannot be counted with
# stream, flags (1 key frame, 2 damaged, 4 hidden), bytes, pts, dts, duration, the sender's clock, hidden ns
_PACKET = struct.Struct("<HHIqqqqI")
_MOST_HIDDEN = (1 << 32) - 1


class WireError(Exception):
    """What came is no frame of this protocol, or the other side has gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """An opened input. The fields are those of `libav.Demuxer`."""

    streams: tuple[StreamInfo, ...]
    is_live: bool
    times: str
    skipped: tuple[str, ...] = ()


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
        {"streams": streams, "is_live": value.is_live, "times": value.times, "skipped": list(value.skipped)},
    )


def read_description(body: bytes) -> Description:
    """
    Raises:
        WireError: it is none.
    """
    try:
        value = json.loads(body)
        streams = tuple(_stream(item) for item in value["streams"])
        times, skipped = str(value["times"])[:20], tuple(str(item)[:200] for item in value["skipped"][:MAX_STREAMS])
        is_live = value["is_live"] is True
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as exc:
        raise WireError("no description of an input") from exc
    if len(streams) > MAX_STREAMS or len({info.index for info in streams}) != len(streams):
        raise WireError("too many streams, or one twice")
    return Description(streams=streams, is_live=is_live, times=times, skipped=skipped)


# Largest numbers of a description.
_BOUNDS = {"index": 1 << 15, "width": 1 << 15, "height": 1 << 15, "sample_rate": 1 << 20, "channels": 64}
_BOUND = 1 << 20


def _stream(item: dict[str, Any]) -> StreamInfo:
    """
    Raises:
        ValueError, KeyError: a field that is none, or is out of bounds.
    """
    types = {field.name: str(field.type) for field in fields(StreamInfo)}
    values = {name: _checked(name, types[name], value) for name, value in item.items()}
    if values.get("kind") not in ("audio", "video"):
        raise ValueError("kind")
    if values.get("codec") in ("h264", "hevc") and values["extradata"].count(b"\0\0\1") > MAX_PARAMETER_SETS:
        raise ValueError("extradata")
    return StreamInfo(**values)


def _presentation(item: dict[str, Any]) -> Presentation:
    types = {field.name: str(field.type) for field in fields(Presentation)}
    value = Presentation(**{name: _checked(name, types[name], part) for name, part in item.items()})
    colors = (value.color_primaries, value.color_transfer, value.color_matrix)
    if value.rotation not in (0, 90, 180, 270) or len(value.pixel_aspect) != 2 or not all(value.pixel_aspect):
        raise ValueError("rotation or pixel_aspect")
    if value.color_range not in (None, "limited", "full") or not all(0 <= color < 256 for color in colors):
        raise ValueError("colors")
    return value


def _checked(name: str, type_: str, value: Any) -> Any:
    if type_ == "Presentation" and isinstance(value, dict):
        return _presentation(value)
    if type_ == "bytes":
        value = base64.b64decode(str(value), validate=True)
        good = len(value) <= (MAX_EXTRADATA if name == "extradata" else 2 * MAX_EXTRADATA)
    elif value is None:
        good = "None" in type_
    elif isinstance(value, bool):
        good = "bool" in type_
    elif isinstance(value, str):
        good = (
            any(word in type_ for word in ("str", "Kind", "Literal", "ColorRange"))
            and len(value) < 100
            and value.isprintable()
        )
    elif isinstance(value, int):
        good = any(word in type_ for word in ("int", "float", "Rotation")) and 0 <= value <= _BOUNDS.get(name, _BOUND)
    elif isinstance(value, list):  # a fraction, as two numbers
        value = tuple(value)
        good = "tuple" in type_ and all(type(part) is int and 0 <= part < _BOUND for part in value)
    else:
        good = "float" in type_ and isinstance(value, float) and 0 <= value < 1e6
    if not good:
        raise ValueError(name)
    return value


def packets(batch: Sequence[Demuxed]) -> list[bytes | memoryview]:
    """The parts of one frame, for `sendmsg`: data are not copied."""
    heads = bytearray(_COUNT.pack(len(batch)))
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
        )
        size += len(packet.data)
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
        at = _COUNT.size + count * _PACKET.size
        view = memoryview(body)
        batch = []
        for stream, flags, size, pts, dts, duration, sender, hidden in _PACKET.iter_unpack(view[_COUNT.size : at]):
            if stream not in streams or at + size > len(body) or not 0 <= duration < 1 << 50:
                raise WireError("a packet out of bounds")
            batch.append(
                Demuxed(
                    stream, view[at : at + size],
                    pts if -_FAR < pts < _FAR else None, dts if -_FAR < dts < _FAR else None, duration,
                    flags & 1 == 1, sender if -_FAR < sender < _FAR else None, flags & 2 == 2, flags & 4 == 4, hidden,
                )
            )  # fmt: skip
            at += size
    except struct.error as exc:
        raise WireError("no batch of packets") from exc
    if len(batch) != count:
        raise WireError("no batch of packets")
    return batch


class FrameReader:
    """Reads frames from a socket. Belongs to one thread."""

    def __init__(self, connection: socket.socket, kinds: Sequence[bytes] = (DESCRIPTION, PACKETS, END)) -> None:
        self._socket = connection
        self._kinds = kinds
        self._timeout_s: float | None = -1.0

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
        kind, size = HEADER.unpack(self._filled(HEADER.size))
        if kind not in self._kinds or size > (MAX_TEXT_FRAME if kind in (DESCRIPTION, END) else MAX_FRAME):
            raise WireError("no frame")
        return kind, self._filled(size)

    def _filled(self, size: int) -> bytes:
        """So many bytes."""
        body = self._received(size)
        if len(body) == size:
            return body
        parts, missing = [body], size - len(body)
        while missing:  # a signal came between, or the time-out when a part was there
            parts.append(self._received(missing))
            missing -= len(parts[-1])
        return b"".join(parts)

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
