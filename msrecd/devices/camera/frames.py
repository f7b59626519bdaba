"""Frames out of a camera's buffers: without padding, in a pixel format that everybody here knows.

CSI cameras give what is asked for. USB cameras give what they have: often YUYV, large frames as JPEG only.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from typing import Any, Protocol

from msrecd import libav
from msrecd.devices.camera.modes import FrameGaps, Size
from msrecd.flow.feed import Feed
from msrecd.flow.source import SourceStats, SourceThread
from msrecd.flow.units import VideoFrame

log = logging.getLogger(__name__)

# picamera2's name -> libav's; picamera2 names bytes from the highest to the lowest. In order of preference: what its
# encoders take, what needs little work, what has to be decoded.
PIXEL_FORMATS = {"YUV420": "yuv420p", "BGR888": "rgb24", "NV12": "nv12", "YUYV": "yuyv422", "MJPEG": "mjpeg"}
ENCODER_FORMATS = frozenset({"yuv420p", "rgb24"})  # libav's names of what picamera2's encoders are given
_LARGEST_RAW = 640 * 480  # pixels; USB 2 carries no more than that 30 times a second without compression
_START_OF_IMAGE, _END_OF_IMAGE = b"\xff\xd8", b"\xff\xd9"
_START_OF_SCAN = 0xDA


def format_order(offered: Mapping[str, Collection[Size]], size: Size) -> list[str]:
    """Which formats to ask a camera for, one after the other, when it is to give frames of that size.

    offered: picamera2's name of a format -> sizes. Formats nobody here knows are left out.
    """
    names = list(PIXEL_FORMATS)
    is_large = size[0] * size[1] > _LARGEST_RAW

    def order(name: str) -> tuple[bool, int]:
        return size not in offered[name], -1 if name == "MJPEG" and is_large else names.index(name)

    return sorted((name for name in offered if name in PIXEL_FORMATS), key=order)


def raw_format(pixel_format: str) -> str:
    """libav's name of what FrameReader makes of frames in this one."""
    return pixel_format if pixel_format in ENCODER_FORMATS else "yuv420p"


class FrameReader:
    """Reads frames out of the buffers of one stream. Belongs to one thread."""

    def __init__(self, size: Size, stride: int, pixel_format: str) -> None:
        """
        Args:
            pixel_format: libav's name, a value of PIXEL_FORMATS. stride: bytes from line to line.
        """
        self._size = size
        self._stride = stride
        self._pixel_format = pixel_format
        self._decoder: libav.VideoDecoder | None = None

    def read(self, buffer: memoryview) -> bytes:
        """Planes one after the other (yuv420p) or lines (rgb24), as `raw_format` says.

        Raises:
            ValueError: there is no such frame in the buffer.
        """
        width, height = self._size
        match self._pixel_format:
            case "mjpeg":
                return self._decoded(jpeg_of(bytes(buffer)))
            case "yuyv422":
                return _yuv420p_of_yuyv422(_lines(buffer, [(self._stride, 2 * width, height)]), width, height)
            case "nv12":
                data = _lines(buffer, [(self._stride, width, height), (self._stride, width, height // 2)])
                luma, chroma = data[: width * height], data[width * height :]
                return luma + chroma[0::2] + chroma[1::2]
            case _:
                return unpad(buffer, self._size, self._stride, self._pixel_format)

    def close(self) -> None:
        decoder, self._decoder = self._decoder, None
        if decoder is not None:
            decoder.close()

    def _decoded(self, jpeg: bytes) -> bytes:
        try:
            if self._decoder is None:
                self._decoder = libav.VideoDecoder(libav.stream_info_of_annexb(jpeg, "mjpeg").header)
            frames = self._decoder.decode(jpeg, 0)
        except libav.LibavError as exc:
            raise ValueError(str(exc)) from exc
        if not frames:
            raise ValueError("a JPEG without a frame")
        return libav.planes(frames[0][1], "yuv420p", size=self._size)


def flip(data: bytes, width: int, height: int, *, hflip: bool, vflip: bool, pixel_format: str = "yuv420p") -> bytes:
    """A frame mirrored left to right (hflip), top to bottom (vflip), or both, which turns it by 180 degrees.

    pixel_format: yuv420p or rgb24.
    """
    if pixel_format == "rgb24":
        shapes, step = [(3 * width, height)], 3
    else:
        shapes, step = [(width, height), *[(-(-width // 2), -(-height // 2))] * 2], 1
    planes = []
    start = 0
    for line, lines in shapes:
        plane = data[start : start + line * lines]
        start += line * lines
        if hflip:  # both at once; the lines go back to their places below
            turned = bytearray(len(plane))
            for component in range(step):
                turned[component::step] = plane[component::step][::-1]
            plane = bytes(turned)
        if hflip != vflip:
            plane = b"".join(plane[at : at + line] for at in range(line * (lines - 1), -1, -line))
        planes.append(plane)
    return b"".join(planes)


def unpad(buffer: memoryview, size: Size, stride: int, pixel_format: str) -> bytes:
    """The frame without the padding at the ends of its lines: yuv420p planes one after the other, or rgb24 lines.

    Raises:
        ValueError: the buffer is smaller than such a frame.
    """
    width, height = size
    if pixel_format == "rgb24":
        return _lines(buffer, [(stride, width * 3, height)])
    return _lines(buffer, [(stride, width, height), *[(stride // 2, width // 2, height // 2)] * 2])


def jpeg_of(buffer: bytes) -> bytes:
    """The JPEG at the start of a buffer; what lies behind it is left of longer ones.

    Raises:
        ValueError: there is none, or its end is missing.
    """
    if not buffer.startswith(_START_OF_IMAGE):
        raise ValueError("no JPEG in the buffer")
    at = 2
    while at + 4 <= len(buffer) and buffer[at] == 0xFF:  # segments, which may hold a small JPEG of their own
        marker = buffer[at + 1]
        at += 2 + int.from_bytes(buffer[at + 2 : at + 4], "big")
        if marker == _START_OF_SCAN:
            break
    end = buffer.find(_END_OF_IMAGE, at)  # in what is encoded, 0xFF is followed by a 0 or a restart marker
    if end < 0:
        raise ValueError("a JPEG without its end")
    return buffer[: end + 2]


def _lines(buffer: memoryview, planes: list[tuple[int, int, int]]) -> bytes:
    """Planes without padding; of each: bytes from line to line, bytes of a line, lines.

    Raises:
        ValueError: the buffer is too small.
    """
    needed = sum(step * lines for step, _, lines in planes)
    if len(buffer) < needed:
        raise ValueError(f"a buffer of {len(buffer)} bytes for a frame of {needed}")
    pieces: list[memoryview] = []
    start = 0
    for step, line, lines in planes:
        if step == line:
            pieces.append(buffer[start : start + step * lines])
        else:
            pieces.extend(buffer[start + row * step : start + row * step + line] for row in range(lines))
        start += step * lines
    return b"".join(pieces)


def _yuv420p_of_yuyv422(data: bytes, width: int, height: int) -> bytes:
    """The colours of every other line."""
    line = 2 * width
    colours = b"".join(data[row * line : (row + 1) * line] for row in range(0, height, 2))
    return data[0::2] + colours[1::4] + colours[3::4]


class Request(Protocol):
    """picamera2's CompletedRequest; each `acquire` needs its `release`, or the camera runs out of buffers."""

    def acquire(self) -> None: ...
    def release(self) -> None: ...
    def make_buffer(self, name: str) -> Any: ...
    def get_metadata(self) -> Mapping[str, Any]: ...


class RequestReader(Protocol):
    """Makes frames out of requests. Belongs to one thread."""

    def read(self, request: Request) -> VideoFrame:
        """A copy of the frame.

        Raises:
            ValueError, KeyError, RuntimeError: this request has none that can be read.
        """

    def close(self) -> None: ...


class _Slot:
    """Room for one request, between picamera2's thread and ours."""

    def __init__(self) -> None:
        self._request: Request | None = None
        self._news = threading.Condition()
        self._ended = False

    def offer(self, request: Request) -> bool:
        """Keep the request; False when there is one already, or nobody takes them any more."""
        with self._news:
            if self._ended or self._request is not None:
                return False
            request.acquire()
            self._request = request
            self._news.notify()
            return True

    def take(self) -> Request | None:
        """The next request, which the caller releases; None at the end."""
        with self._news:
            self._news.wait_for(lambda: self._ended or self._request is not None)
            request, self._request = self._request, None
            return request

    def end(self) -> None:
        with self._news:
            self._ended = True
            self._news.notify()


class RawFrames:
    """The feed of frames; `offer` belongs to picamera2's thread, everything else may be called from any."""

    def __init__(
        self, label: str, stats: SourceStats, open_reader: Callable[[], RequestReader], gaps: FrameGaps
    ) -> None:
        """
        Args:
            gaps: by the times of the frames; those that never came count as dropped.
        """
        self._gaps = gaps
        self.feed: Feed[VideoFrame] = Feed(self._wanted)
        self._label = label
        self._stats = stats
        self._open_reader = open_reader
        self._slot: _Slot | None = None

    def offer(self, request: Request, pts_ns: Callable[[], int]) -> None:
        """Take the frame, if somebody wants it and there is room. Never blocks."""
        slot = self._slot
        if slot is None:
            return
        at_ns = pts_ns()
        self._stats.dropped += self._gaps.missing(at_ns)
        if self.feed.wants(at_ns) and not slot.offer(request):
            self._stats.dropped += 1

    def forget_gap(self) -> None:
        """The frames that did not come are known of otherwise: the source was muted."""
        self._gaps.forget()

    def end(self, error: BaseException | None) -> None:
        """No more frames."""
        self.feed.end(error)
        self._stop()

    def _wanted(self, is_wanted: bool) -> None:
        if is_wanted and not self.feed.ended:
            self._gaps.forget()
            slot = self._slot = _Slot()
            SourceThread(f"frames {self._label}", lambda _: self._read(slot), self._failed).start()
        else:
            self._stop()

    def _stop(self) -> None:
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.end()

    def _read(self, slot: _Slot) -> None:
        with closing(self._open_reader()) as reader:
            self._read_with(reader, slot)

    def _read_with(self, reader: RequestReader, slot: _Slot) -> None:
        while (request := slot.take()) is not None:
            try:
                frame = reader.read(request)
            except (ValueError, KeyError, RuntimeError) as exc:
                self._stats.dropped += 1
                log.debug("camera %s: a frame could not be read: %s", self._label, exc)
                continue
            finally:
                request.release()
            self._stats.delivered += 1
            self.feed.put(frame)

    def _failed(self, exc: Exception) -> None:
        log.error("camera %s: its frames cannot be read: %s", self._label, exc)
        self.feed.end(exc)
