"""In the decoding process: packets of one stream to frames or PCM. decoding.py (flac.py) is the other side.

A frame goes into the memory that both processes have mapped, which holds one: when a packet gives more of them, the
next one is written once the program has taken the one before.
"""

from __future__ import annotations

import base64
import mmap
import os
import socket
import struct
import time
from typing import Any

from msrecd.inputs import wire
from msrecd.inputs.confine import confine
from msrecd.libav.common import MAX_PIXELS
from msrecd.libav.decoders import AudioDecoder, VideoDecoder, flac_facts
from msrecd.libav.pictures import decoded_colors, planes_into
from msrecd.libav.values import LibavError

PACKET, FLUSH = b"K", b"F"  # from the program
FRAME, SOUND, DONE, FAILED = b"V", b"S", b"N", b"X"  # to it
TAKEN = b"T"
PTS = struct.Struct("<q")
FACTS = struct.Struct("<QII16s")  # of a FLAC file: samples, smallest and largest frame, MD5
FRAME_HEAD = struct.Struct("<qHHBBB")  # pts, width, height, whether the range was full, matrix, whether more follow
SHARED_BYTES = MAX_PIXELS * 3 // 2 + (1 << 16)  # planes of odd sizes are rounded up; what is not touched costs nothing
MAX_SOUND = 4 << 20
_MEMORY = 128 << 20
_FRAMES = 24  # that a decoder and its threads hold, at most 16 of them because others refer to them
_MOST_MEMORY = 768 << 20


def memory_for(width: int, height: int) -> int:
    """Bytes that a decoder of such frames may take: 128 MiB, and 24 frames of two bytes a sample."""
    return min(_MOST_MEMORY, _MEMORY + _FRAMES * 3 * width * height)


def decode_input(connection: socket.socket, request: dict[str, Any], shared_fd: int | None) -> None:
    """Answer until the program closes the connection.

    Raises:
        OSError: it has.
    """
    shared = None if shared_fd is None else mmap.mmap(shared_fd, SHARED_BYTES)
    if shared_fd is not None:
        os.close(shared_fd)
    confine(memory=memory_for(int(request["width"]), int(request["height"])))
    header = base64.b64decode(request["header"])
    try:
        if shared is not None:
            _decode_frames(connection, header, memoryview(shared), int(request["max_pixels"]))
        else:
            decoder = AudioDecoder(
                header,
                request["sample_format"],
                channels=int(request["channels"]),
                sample_rate=int(request["sample_rate"]),
                layout=request["layout"],
            )
            _decode_sound(connection, decoder)
    except MemoryError:
        connection.sendall(wire.frame(FAILED, b"it needs more memory than a decoder may have"))
    except LibavError as exc:
        connection.sendall(wire.frame(FAILED, str(exc).encode()[:300]))


def decode_flac(connection: socket.socket, fd: int) -> None:
    """Decode a file of FLAC and say what it has in it (flac.py); a sign of life each second.

    Raises:
        OSError: the program has closed the connection.
    """
    confine()
    said = time.monotonic()

    def alive() -> None:
        nonlocal said
        if time.monotonic() - said > 1.0:
            said = time.monotonic()
            connection.sendall(wire.frame(DONE, b""))

    try:
        facts = flac_facts(fd, alive)
    except (LibavError, MemoryError):
        connection.sendall(wire.frame(FAILED, b""))
        return
    body = FACTS.pack(facts.samples, facts.smallest, facts.largest, facts.md5)
    connection.sendall(wire.frame(SOUND, body))


def _decode_frames(connection: socket.socket, header: bytes, shared: memoryview, max_pixels: int) -> None:
    decoder = VideoDecoder(header, max_pixels)
    reader = wire.FrameReader(connection, (PACKET, FLUSH, TAKEN))
    while True:
        kind, body = _next(reader)
        try:
            if kind == PACKET:
                frames = decoder.decode(memoryview(body)[PTS.size :], PTS.unpack_from(body)[0])
            else:
                frames = decoder.flush()
        except LibavError as exc:
            connection.sendall(wire.frame(FAILED, str(exc).encode()[:300]))
            continue
        if not frames:
            connection.sendall(wire.frame(DONE, b""))
        for left, (pts_ns, frame) in zip(range(len(frames) - 1, -1, -1), frames, strict=True):
            planes_into(frame, shared)
            head = FRAME_HEAD.pack(pts_ns, frame.width, frame.height, *decoded_colors(frame), left > 0)
            connection.sendall(wire.frame(FRAME, head))
            if left and _next(reader)[0] != TAKEN:
                raise OSError("out of step")


def _decode_sound(connection: socket.socket, decoder: AudioDecoder) -> None:
    reader = wire.FrameReader(connection, (PACKET,))
    while True:
        _, body = _next(reader)
        try:
            pcm = decoder.decode(memoryview(body)[PTS.size :])
        except LibavError as exc:
            connection.sendall(wire.frame(FAILED, str(exc).encode()[:300]))
        else:
            connection.sendall(wire.frame(SOUND, pcm))


def _next(reader: wire.FrameReader) -> tuple[bytes, bytes]:
    try:
        return reader.read(None)
    except wire.WireError as exc:
        raise OSError(str(exc)) from exc
