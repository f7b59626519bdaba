"""Thumbnails: the first frame of a chunk as a small JPEG. The last ones are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from msrecd import libav
from msrecd.errors import StorageError
from msrecd.inputs.decoding import ConfinedVideoDecoder
from msrecd.inputs.recorded import RecordedFile

WIDTH = 320
CACHE_LIMIT_BYTES = 2 << 20
_PACKETS_LIMIT = 32  # until a decoder has given its first frame
_PACKET_LIMIT_BYTES = 16 << 20


class Thumbnails:
    """Those made last, by a key of their own. Any thread."""

    def __init__(self, limit_bytes: int = CACHE_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        """One that is kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def make(self, key: str, path: Path) -> bytes:
        """Decode the first frame of a chunk, and keep it.

        Raises:
            StorageError: it has no frames, or cannot be read.
        """
        try:
            jpeg = first_frame(path)
        except libav.LibavError as exc:
            raise StorageError(f"no thumbnail: {exc}", "damaged") from exc
        with self._lock:
            self._bytes += len(jpeg) - len(self._kept.pop(key, b""))
            self._kept[key] = jpeg
            while self._bytes > self._limit_bytes and self._kept:
                _, dropped = self._kept.popitem(last=False)
                self._bytes -= len(dropped)
        return jpeg


def first_frame(path: Path, width: int = WIDTH) -> bytes:
    """The first frame of a file as JPEG.

    Raises:
        libav.LibavError: it cannot be read or decoded, has no frames, or has ended a process that reads or decodes it.
    """
    source = RecordedFile(path)
    try:
        video = next((info for info in source.streams if info.kind == "video"), None)
        if video is None:
            raise libav.LibavError("a recording of sound has no frames")
        decoder = ConfinedVideoDecoder(video, path.name)  # a card may have been elsewhere
        try:
            for count, packet in enumerate(source.packets([video.index])):
                if count >= _PACKETS_LIMIT or len(packet.data) > _PACKET_LIMIT_BYTES:
                    break
                for frame in decoder.decode(packet.data, packet.pts_ns or 0):
                    return libav.jpeg(libav.picture(frame.format, frame.data), max_width=width)
            for frame in decoder.flush():
                return libav.jpeg(libav.picture(frame.format, frame.data), max_width=width)
        finally:
            decoder.close()
    finally:
        source.close()
    raise libav.LibavError("the first frames give no picture")
