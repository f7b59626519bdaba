"""Canvas: pictures that a program paints, as a source of video.

https://w3c.github.io/mediacapture-fromelement/#html-canvas-element-media-capture-extensions
"""

from __future__ import annotations

import logging
import math
import operator
import threading
import weakref
from typing import Any

from msrecd.clock import NS, SYSTEM_CLOCK, Clock
from msrecd.dom.exceptions import NotSupportedError
from msrecd.flow.feed import Feed, Sink
from msrecd.flow.source import Source, SourceThread, ZombieThread
from msrecd.flow.units import VideoFormat, VideoFrame
from msrecd.media.sources import SharedSource, close_in_worker
from msrecd.media.stream import MediaStream
from msrecd.media.track import _CONSTRUCTION, MediaStreamTrack

log = logging.getLogger(__name__)

_CLOSE_TIMEOUT_S = 3.0
_LARGEST = 16384  # of what encoders take
_FASTEST = 1000.0  # frames a second; a timer of a higher rate would do nothing but tick


class Canvas:
    """A surface of RGB pixels. One thread paints at a time; which one does not matter."""

    def __init__(self, width: int, height: int) -> None:
        """
        Args:
            width: in pixels.
            height: in pixels.

        Raises:
            TypeError: one of them is no int.
            ValueError: one of them is less than 1 or larger than 16384.
        """
        self._width, self._height = _size(width, height)
        self._picture: bytes | None = None
        self._lock = threading.Lock()  # of the picture and its size
        self._sources: weakref.WeakSet[CanvasSource] = weakref.WeakSet()

    @property
    def width(self) -> int:
        return self._width

    @property
    def height(self) -> int:
        return self._height

    def draw(self, picture: object) -> None:
        """Paint a picture: an ndarray (height, width, 3), uint8, RGB. It is copied.

        Raises:
            TypeError: it is not such an array; the message says what it is instead.
        """
        from msrecd import pixels  # loads numpy, which recorders of devices do without

        self._paint(pixels.rgb24_from_array(picture, self._width, self._height))

    def fill(self, color: tuple[int, int, int]) -> None:
        """Paint everything in one colour: (red, green, blue), 0 to 255 each.

        Raises:
            TypeError: it is not three ints.
            ValueError: one of them is out of range.
        """
        try:
            components = tuple(operator.index(one) for one in color)
        except TypeError:
            components = ()
        if len(components) != 3:
            raise TypeError(f"a colour is three ints (red, green, blue), not {color!r}")
        if not all(0 <= one <= 255 for one in components):
            raise ValueError(f"the parts of a colour are 0 to 255, not {color!r}")
        self._paint(bytes(components) * (self._width * self._height))

    def resize(self, width: int, height: int) -> None:
        """Change the size, which clears the picture: nothing more is captured until something is painted.

        Raises:
            TypeError, ValueError: see the constructor.
        """
        width, height = _size(width, height)
        with self._lock:
            self._width, self._height, self._picture = width, height, None

    def capture_stream(self, frame_rate: float | None = None) -> MediaStream:
        """A stream with one CanvasCaptureMediaStreamTrack.

        Args:
            frame_rate: frames a second at most (1000 where it is more); 0: only what `request_frame` asks for;
                None: every painting.

        Raises:
            TypeError: `frame_rate` is no number.
            NotSupportedError: it is negative.
        """
        if frame_rate is not None:
            if (
                isinstance(frame_rate, bool)
                or not isinstance(frame_rate, (int, float))
                or not math.isfinite(frame_rate)
            ):
                raise TypeError(f"frame_rate must be a finite number or None, not {frame_rate!r}")
            if frame_rate < 0:
                raise NotSupportedError(f"frame_rate must not be negative, it is {frame_rate!r}")
            frame_rate = min(frame_rate, _FASTEST)
        source = CanvasSource(self, frame_rate)
        self._sources.add(source)
        shared = SharedSource(source, lambda: _discard(source))
        shared.listen()
        return MediaStream([CanvasCaptureMediaStreamTrack(_CONSTRUCTION, shared)])

    def _paint(self, picture: bytes) -> None:
        with self._lock:
            self._picture = picture
        for source in list(self._sources):
            source.painted()

    def _frame(self, now_ns: int) -> VideoFrame | None:
        """The picture painted last, None when there is none."""
        with self._lock:
            if self._picture is None:
                return None
            return VideoFrame(
                pts_ns=now_ns,
                format=VideoFormat(width=self._width, height=self._height, pixel_format="rgb24"),
                data=self._picture,
            )

    def __repr__(self) -> str:
        return f"<Canvas {self._width}x{self._height}>"


class CanvasCaptureMediaStreamTrack(MediaStreamTrack):
    """The track of a canvas; its settings follow the canvas's size."""

    @property
    def canvas(self) -> Canvas:
        return self._canvas_source.canvas

    def request_frame(self) -> None:
        """Capture the next painting, or what has been painted since the last capture, now."""
        if self.ready_state == "live":
            self._canvas_source.request()

    def clone(self) -> CanvasCaptureMediaStreamTrack:
        twin = super().clone()
        assert isinstance(twin, CanvasCaptureMediaStreamTrack)
        return twin

    def get_settings(self) -> dict[str, Any]:
        if self.ready_state != "live":
            return {}
        canvas, rate = self.canvas, self._canvas_source.frame_rate
        settings: dict[str, Any] = {
            "width": canvas.width,
            "height": canvas.height,
            "aspect_ratio": canvas.width / canvas.height,
            "resize_mode": "none",
        }
        return settings | {"frame_rate": float(rate)} if rate else settings

    @property
    def _canvas_source(self) -> CanvasSource:
        source = self._source
        assert isinstance(source, CanvasSource)
        return source


class CanvasSource(Source):
    """What one `capture_stream` captures of a canvas. All methods may be called from any thread.

    Pictures are delivered in the thread that paints, or by a timer of its own when there is a rate; the timer runs
    only while somebody takes frames.
    """

    kind = "video"

    def __init__(self, canvas: Canvas, frame_rate: float | None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(label="Canvas")
        self.canvas = canvas
        self.frame_rate = frame_rate
        self._clock = clock
        self._wanted = True  # the specification's frameCaptureRequested
        self._is_new = False  # painted since the last capture
        self._last_ns = 0
        self._is_over = False
        self._lock = threading.RLock()  # around every delivery: frames come in the order of their times
        self._timer: SourceThread | None = None
        self._feed = _CanvasFeed(self)

    @property
    def format(self) -> VideoFormat:
        return VideoFormat(width=self.canvas.width, height=self.canvas.height, pixel_format="rgb24")

    def raw(self) -> Feed[VideoFrame]:
        return self._feed

    def painted(self) -> None:
        """The canvas has a new picture."""
        with self._lock:
            self._is_new = True
            self._capture()

    def request(self) -> None:
        """Capture what is new, or the next thing that will be."""
        with self._lock:
            self._wanted = True
            self._capture()

    def close(self) -> None:
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
            timer, self._timer = self._timer, None
        self._feed.end(None)
        if timer is not None:
            try:
                timer.stop(_CLOSE_TIMEOUT_S)
            except ZombieThread as exc:
                log.error("%s; a consumer of the canvas blocks", exc)

    def _capture(self) -> None:
        if self._is_over or not (self._wanted and self._is_new):
            return
        frame = self.canvas._frame(self._now_ns())
        if frame is None:
            return
        self._is_new = False
        if self.frame_rate is not None:
            self._wanted = False
        self.stats.delivered += 1
        self._feed.put(frame)

    def _now_ns(self) -> int:
        self._last_ns = max(self._clock.monotonic_ns(), self._last_ns + 1)
        return self._last_ns

    def _add(self, sink: Sink[VideoFrame]) -> None:
        """The picture painted last is the first frame of whoever comes later."""
        with self._lock:
            frame = None if self._is_over else self.canvas._frame(self._now_ns())
            if frame is not None:
                if not self._feed.has_sinks:
                    self._is_new = False
                sink.put(frame)

    def _on_demand(self, is_wanted: bool) -> None:
        if not self.frame_rate:
            return
        with self._lock:
            if self._timer is not None:
                self._timer.stopping.set()
                self._timer = None
            if is_wanted and not self._is_over:
                self._timer = SourceThread("canvas timer", self._tick, self._failed)
                self._timer.start()

    def _tick(self, stop: threading.Event) -> None:
        interval_ns = NS / (self.frame_rate or 1.0)
        start_ns, count = self._clock.monotonic_ns(), 0
        while True:
            count = max(count + 1, int((self._clock.monotonic_ns() - start_ns) / interval_ns))
            if self._clock.wait_until(start_ns + round(count * interval_ns), stop):
                return
            with self._lock:
                if not stop.is_set():
                    self._wanted = True
                    self._capture()

    def _failed(self, error: Exception) -> None:
        log.error("the timer of a canvas has failed: %s", error)
        self._feed.end(error)
        self.on_ended(error)


class _CanvasFeed(Feed[VideoFrame]):
    """A feed that begins, for everybody, with the picture painted last."""

    def __init__(self, source: CanvasSource) -> None:
        super().__init__(source._on_demand)
        self._source = source

    def add(self, sink: Sink[VideoFrame]) -> None:
        with self._source._lock:
            self._source._add(sink)
            super().add(sink)

    def remove(self, sink: Sink[VideoFrame]) -> None:
        with self._source._lock:  # always before the feed's own lock, which `on_demand` is called under
            super().remove(sink)


def _discard(source: CanvasSource) -> None:
    source.canvas._sources.discard(source)
    close_in_worker(source)


def _size(width: object, height: object) -> tuple[int, int]:
    for name, value in (("width", width), ("height", height)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an int, not {value!r}")
        if not 1 <= value <= _LARGEST:
            raise ValueError(f"{name} must be 1 to {_LARGEST}, it is {value}")
    assert isinstance(width, int)
    assert isinstance(height, int)
    return width, height
