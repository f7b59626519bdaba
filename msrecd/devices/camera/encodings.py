"""CameraEncodings: what recorders want encoded by the camera, its second stream, and the encoders that run.

Encoders run while their feed has sinks. They are started and stopped in the worker: any of these calls may hang.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from msrecd.clock import NS, SYSTEM_CLOCK, Clock
from msrecd.devices.camera.device import (
    CameraDevice,
    Codec,
    EncoderHandle,
    EncoderSpec,
    ParametersMaker,
    StreamName,
    StreamShape,
)
from msrecd.devices.camera.frames import ENCODER_FORMATS, Request
from msrecd.devices.camera.modes import Size, even, fits_hardware_encoder, frame_skip, key_frame_period
from msrecd.devices.camera.packets import EncodedStream, SensorTimes
from msrecd.dom.exceptions import NotReadableError
from msrecd.flow.encoded import EncodedFeed, EncodingRequest, Overlay, StreamParameters
from msrecd.flow.keyframes import KeyFrameRequests
from msrecd.flow.overlay import draw_into
from msrecd.flow.units import Rotation

log = logging.getLogger(__name__)

_MAX_ENCODERS = 2
_ROUNDING_NS = 1000  # encoders count microseconds


class Submit(Protocol):
    """Make a call in the worker some time later; its exception goes to `failed`, in the worker's thread."""

    def __call__(self, name: str, run: Callable[[], object], failed: Callable[[Exception], None]) -> None: ...


class _Encoding:
    """One encoding that was asked for. Worker thread, but for `feed` and where said."""

    def __init__(self, spec: EncoderSpec, size: Size, feed: EncodedFeed, overlay: Overlay | None = None) -> None:
        self.overlay = overlay
        self.has_drawn_badly = False
        self.spec = spec
        self.size = size
        self.feed = feed
        self.handle: EncoderHandle | None = None
        self.stream: EncodedStream | None = None
        self._asked = KeyFrameRequests()
        self._forced_ns: int | None = None  # the frame that was to be a key frame, until one has come

    def key_frame_at(self, at_ns: int) -> None:
        """Make the first frame at or after `at_ns` a key frame. Any thread; several may ask."""
        self._asked.ask(at_ns)

    def frame_comes(self, pts_ns: Callable[[], int]) -> None:
        """A frame is about to be encoded: a key frame that is asked for here is this very one. picamera2's thread."""
        handle = self.handle
        if handle is not None and self._asked.is_any and self._asked.take(at_ns := pts_ns()):
            handle.force_key_frame()
            self._forced_ns = at_ns

    def delivered(self, pts_ns: int, is_keyframe: bool) -> None:
        """A packet has come: one that was to be a key frame and is none is asked for again. The stream's thread."""
        forced_ns = self._forced_ns
        if forced_ns is None or pts_ns < forced_ns - _ROUNDING_NS:
            return
        self._forced_ns = None
        if not is_keyframe:
            log.debug("the encoder made no key frame where it was asked to; asking again")
            self._asked.ask(pts_ns)


class CameraEncodings:
    """The encodings of one camera. `shape` is what its main stream delivers; it may change with a second stream."""

    def __init__(
        self,
        device: CameraDevice,
        shape: StreamShape,
        *,
        label: str,
        frame_rate: float | None,
        make_parameters: ParametersMaker | None,
        times: SensorTimes,
        pts_ns: Callable[[Request], int],
        is_rate_fixed: bool,
        rotation: Rotation,
        submit: Submit,
        failed: Callable[[Exception], None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """
        Args:
            make_parameters: describes a stream by its first key frame; without it nothing is encoded here.
            pts_ns: when a frame was taken. is_rate_fixed: whether the camera keeps `frame_rate`.
            rotation: what is left for the player to turn.
            failed: the camera is of no use any more, for it could not be configured again; in the worker.
        """
        self.shape = shape
        self._device = device
        self._label = label
        self._frame_rate = frame_rate
        self._make_parameters = make_parameters
        self._times = times
        self._pts_ns = pts_ns
        self._is_rate_fixed = is_rate_fixed
        self._rotation: Rotation = rotation
        self._submit = submit
        self._failed = failed
        self._clock = clock
        self._lores: Size | None = None
        self._can_add_stream = device.has_lores
        self._lock = threading.RLock()  # a worker that is stuck says so at once, in the caller's thread
        self._encodings: dict[EncodingRequest, _Encoding] = {}
        self._running: tuple[_Encoding, ...] = ()
        self._is_ending = False
        self._is_shut = False

    def feed_for(self, request: EncodingRequest) -> EncodedFeed | None:
        """The feed of what the camera encodes as `request` wants it, None when it cannot. Any thread."""
        codec = self._codec_of(request)
        if codec is None or self._make_parameters is None:
            return None
        if request.crops:
            return None  # its second stream shows the whole frame in any size, which would stretch it
        with self._lock:
            known = self._encodings.get(request)
            if known is not None:
                return known.feed
            encoding = self._make(request, codec)
            if encoding is None:
                return None
            self._encodings[request] = encoding
            return encoding.feed

    def end(self, error: BaseException | None) -> None:
        """No more packets; encoders are left to `stop_all`. Any thread."""
        with self._lock:
            self._is_ending = True
            encodings = list(self._encodings.values())
        for encoding in encodings:
            encoding.feed.feed.end(error)

    def stop_all(self) -> list[Callable[[], None]]:
        """What stops the encoders, one step for each; from now on none is started. Worker."""
        self._is_shut = True
        with self._lock:
            encodings = list(self._encodings.values())
        return [lambda encoding=encoding: self._stop(encoding) for encoding in encodings]  # type: ignore[misc]

    def pause(self) -> None:
        """Stop the encoders for a while; who is fed by them waits. Worker."""
        for encoding in self._running:
            handle, encoding.handle = encoding.handle, None
            if handle is not None:
                self._device.stop_encoder(handle)

    def configure(self) -> None:
        """Have the device give what it gave before something else was taken with it. Worker."""
        self.shape = self._device.configure(lores=self._lores)

    def resume(self) -> None:
        """Start the encoders again that `pause` has stopped, each with a key frame. Worker."""
        for encoding in self._running:
            if encoding.handle is None and encoding.stream is not None and not self._is_shut:
                encoding.handle = self._start_encoder(encoding, encoding.stream)

    def _codec_of(self, request: EncodingRequest) -> Codec | None:
        """MJPEG of the hardware, or of a camera that gives it: in software it is libav's, of the raw frames."""
        if request.kind != "video" or self.shape.is_mirrored_here:
            return None
        if request.codec == "mjpeg" and self.shape.pixel_format == "mjpeg":
            return "mjpeg"
        if self.shape.pixel_format not in ENCODER_FORMATS:
            return None
        if request.codec == "h264":
            return "h264"
        return "mjpeg" if request.codec == "mjpeg" and self._device.is_hardware_encoder else None

    def _make(self, request: EncodingRequest, codec: Codec) -> _Encoding | None:
        """Under the lock."""
        size = even((request.width or self.shape.size[0], request.height or self.shape.size[1]))
        stream = self._stream_for(size) if request.overlay is None else self._stream_to_draw_into(size)
        skip = frame_skip(self._frame_rate, request.frame_rate)
        if stream is None or skip is None or len(self._encodings) >= _MAX_ENCODERS:
            log.info(
                "camera %s: no encoder of the camera's for %dx%d at %s frames a second",
                self._label,
                *size,
                request.frame_rate or "all",
            )
            return None
        rate = self._frame_rate / skip if self._frame_rate else None
        period = key_frame_period(rate, request.key_frame_interval_ns, request.key_frame_interval_count)
        spec = EncoderSpec(
            codec=codec,
            stream=stream,
            bit_rate=request.bit_rate,
            key_frame_period=period,
            frame_rate=rate,
            frame_skip=skip,
        )
        encoding: _Encoding

        def wanted(is_wanted: bool) -> None:
            self._wanted(request, encoding, is_wanted=is_wanted)

        def key_frame_at(at_ns: int) -> None:
            encoding.key_frame_at(at_ns)

        can_force = self._device.is_hardware_encoder and codec == "h264"
        feed = EncodedFeed(on_demand=wanted, key_frame_at=key_frame_at if can_force else None)
        encoding = _Encoding(spec, size, feed, request.overlay)
        return encoding

    def _stream_for(self, size: Size) -> StreamName | None:
        """Under the lock. A second stream comes only while nothing is encoded: later it would interrupt."""
        main = self.shape.size
        if self.shape.pixel_format == "mjpeg":
            return "main" if size == main else None
        if self._device.is_hardware_encoder and not fits_hardware_encoder(size):
            return None
        if size == main:
            return "main"
        if self._lores is not None or not self._can_add_stream or self._encodings:
            return "lores" if size == self._lores and not self._is_drawn_into else None
        return self._second_stream(size)

    def _stream_to_draw_into(self, size: Size) -> StreamName | None:
        """A second stream of its own, whatever its size: what is drawn into the main one all would see. Under the lock.

        Where picamera2 encodes in software nothing is won by drawing here.
        """
        if not self._device.is_hardware_encoder or not fits_hardware_encoder(size):
            return None
        if self._lores is not None or not self._can_add_stream or self._encodings:
            is_free = all(encoding.spec.stream != "lores" for encoding in self._encodings.values())
            return "lores" if size == self._lores and is_free else None
        return self._second_stream(size)

    @property
    def _is_drawn_into(self) -> bool:
        """Whether the second stream is one encoding's, which draws into it. Under the lock."""
        return any(encoding.overlay is not None for encoding in self._encodings.values())

    def _second_stream(self, size: Size) -> StreamName | None:
        main = self.shape.size
        if size[0] > main[0] or size[1] > main[1]:
            return None
        self._lores = size
        self._submit("adding a second stream", lambda: self._add_stream(size), self._failed)
        return "lores"

    def _wanted(self, request: EncodingRequest, encoding: _Encoding, *, is_wanted: bool) -> None:
        """Any thread, also the event loop: must not wait."""

        def failed(exc: Exception) -> None:
            log.warning("camera %s: its encoder cannot be started: %s", self._label, exc)
            with self._lock:
                self._encodings.pop(request, None)
            encoding.feed.feed.end(NotReadableError(f"the encoder of {self._label} cannot be started: {exc}"))

        def stopping_failed(exc: Exception) -> None:
            log.warning("camera %s: its encoder cannot be stopped: %s", self._label, exc)

        if is_wanted:
            self._submit("starting the encoder", lambda: self._start(encoding), failed)
        elif not self._is_ending:
            self._submit("stopping the encoder", lambda: self._stop(encoding), stopping_failed)

    # In the worker.

    def _start(self, encoding: _Encoding) -> None:
        if self._is_shut or encoding.handle is not None:
            return
        spec = encoding.spec
        width, height = encoding.size

        def parameters(key_frame: bytes) -> StreamParameters:
            assert self._make_parameters is not None  # or there would be no encoding
            made = self._make_parameters(
                key_frame,
                codec=spec.codec,
                width=width,
                height=height,
                frame_rate=spec.frame_rate,
                encoder="camera" if self.shape.pixel_format == "mjpeg" else self._device.encoder_name,
            )
            return replace(made, presentation=replace(made.presentation, rotation=self._rotation))

        stream = EncodedStream(
            encoding.feed,
            name=self._label,
            times=self._times,
            frame_ns=round(NS / (spec.frame_rate or 30.0)),
            make_parameters=parameters,
            is_rate_fixed=self._is_rate_fixed and spec.frame_rate is not None,
            delivered=encoding.delivered,
            clock=self._clock,
        )
        try:
            encoding.handle = self._start_encoder(encoding, stream)
        except BaseException:
            stream.stop()
            raise
        encoding.stream = stream
        self._running = (*self._running, encoding)

    def _start_encoder(self, encoding: _Encoding, stream: EncodedStream) -> EncoderHandle:
        return self._device.start_encoder(encoding.spec, stream, lambda request: self._before_encode(encoding, request))

    def _before_encode(self, encoding: _Encoding, request: Request) -> None:
        """In the camera's thread."""
        encoding.frame_comes(lambda: self._pts_ns(request))
        overlay, (width, height) = encoding.overlay, encoding.size
        if overlay is None:
            return

        def draw(buffer: memoryview, stride: int) -> None:
            pts_ns = self._pts_ns(request)
            draw_into(buffer, width=width, height=height, stride=stride, overlay=overlay, pts_ns=pts_ns)

        try:
            self._device.change(request, encoding.spec.stream, draw)
        except Exception as exc:  # would end the camera's thread
            if not encoding.has_drawn_badly:
                log.error("camera %s: its frames have no overlay: %s: %s", self._label, type(exc).__name__, exc)
            encoding.has_drawn_badly = True

    def _stop(self, encoding: _Encoding) -> None:
        self._running = tuple(known for known in self._running if known is not encoding)
        handle, encoding.handle = encoding.handle, None
        stream, encoding.stream = encoding.stream, None
        try:
            if handle is not None:
                self._device.stop_encoder(handle)
        finally:
            if stream is not None:
                stream.stop()

    def _add_stream(self, lores: Size) -> None:
        self._device.stop()
        try:
            self.shape = self._device.configure(lores=lores)
        except Exception as exc:
            log.warning("camera %s has no second stream of %dx%d: %s", self._label, *lores, exc)
            self._can_add_stream = False
            self._lores = None
            self.shape = self._device.configure(lores=None)
        self._device.start()
