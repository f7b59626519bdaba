"""PicameraSource: one camera that picamera2 has opened. Knows no picamera2: that is behind `CameraDevice`.

Threads: picamera2's own (they only enqueue), one for calls into picamera2 (any of which may hang), one for packets per
encoder, one for raw pictures while they are wanted, and one that watches the age of the last frame. When frames stop,
picamera2 raises nothing: the watch alone tells. Its ladder: muted, one restart of the stream, the end with an error.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from msrecd.clock import MS, NS, SYSTEM_CLOCK, Clock
from msrecd.devices.deadline import CallTimeout, DeadlineWorker
from msrecd.devices.picamera_modes import Size, even, fits_hardware_encoder, frame_skip, key_frame_period, unpad
from msrecd.devices.picamera_raw import RawPictures, Request
from msrecd.devices.picamera_stream import EncodedStream, SensorTimes
from msrecd.dom.exceptions import NotReadableError
from msrecd.flow.encoded import EncodedFeed, EncodingRequest, StreamParameters
from msrecd.flow.feed import Feed
from msrecd.flow.source import Source, SourceThread, ZombieThread
from msrecd.flow.units import Kind, VideoFormat, VideoFrame

log = logging.getLogger(__name__)

StreamName = Literal["main", "lores"]
_TICK_S = 0.25
_LONGEST_STEP_NS = 500 * MS
LOOK_AFTER_NS = NS  # is it still there?
MUTED_AFTER_NS = 2 * NS
RESTART_AFTER_NS = 5 * NS
FAILED_AFTER_NS = 12 * NS
STUCK_AFTER_NS = 10 * NS
CLOSE_TIMEOUT_S = 5.0
_MAX_ENCODERS = 2
_MAX_ASKED = 16  # key frames to come


class ParametersMaker(Protocol):
    """Makes a stream's description out of a key frame (H.264 in Annex B form, or a JPEG); raises what it likes."""

    def __call__(
        self, picture: bytes, *, codec: str, width: int, height: int, frame_rate: float | None, encoder: str
    ) -> StreamParameters: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamShape:
    """What a configured stream delivers: libav's name of the pixel format, bytes from line to line."""

    size: Size
    pixel_format: str
    stride: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """What to start an encoder with; key_frame_period in frames, bit_rate 0: picamera2's choice."""

    codec: Literal["h264", "mjpeg"]
    stream: StreamName
    bit_rate: int
    key_frame_period: int
    frame_rate: float | None
    frame_skip: int


class EncoderHandle(Protocol):
    """A running encoder."""

    def force_key_frame(self) -> None:
        """Any thread; takes effect with the next frame."""


class CameraDevice(Protocol):
    """An opened camera; every method but `set_controls` may take long or hang and is called in the worker only."""

    encoder_name: str
    is_hardware_encoder: bool
    has_lores: bool

    def configure(self, *, lores: Size | None) -> StreamShape: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...
    def is_listed(self) -> bool: ...
    def watch_requests(self, seen: Callable[[Request], None] | None) -> None: ...
    def start_encoder(self, spec: EncoderSpec, output: EncodedStream) -> EncoderHandle: ...
    def stop_encoder(self, encoder: EncoderHandle) -> None: ...
    def set_controls(self, settings: Mapping[str, Any]) -> None: ...


class _Encoding:
    """One encoding that was asked for; its encoder runs while the feed has sinks. Worker thread, but for `feed`."""

    def __init__(self, spec: EncoderSpec, size: Size, feed: EncodedFeed) -> None:
        self.spec = spec
        self.size = size
        self.feed = feed
        self.handle: EncoderHandle | None = None
        self.stream: EncodedStream | None = None

        self._asked: list[int] = []

    def key_frame_at(self, at_ns: int) -> None:
        """Make the first frame at or after `at_ns` a key frame. Any thread; several may ask."""
        if at_ns not in self._asked and len(self._asked) < _MAX_ASKED:
            self._asked.append(at_ns)

    @property
    def is_asked(self) -> bool:
        return bool(self._asked)

    def frame_is_at(self, pts_ns: int) -> None:
        """The frame of that time is about to be encoded. picamera2's thread."""
        due = [at_ns for at_ns in self._asked if at_ns <= pts_ns]
        if due and (handle := self.handle) is not None:
            for at_ns in due:
                self._asked.remove(at_ns)
            handle.force_key_frame()


class PicameraSource(Source):
    """A running camera. All public methods return at once, but `close`, which takes up to a few seconds."""

    kind: Kind = "video"

    def __init__(
        self,
        device: CameraDevice,
        shape: StreamShape,
        *,
        worker: DeadlineWorker,
        frame_rate: float | None,
        make_parameters: ParametersMaker | None,
        label: str,
        device_id: str = "",
        group_id: str = "",
        closed: Callable[[], None] = lambda: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """
        Args:
            device: configured and started.
            worker: the thread that opened it; the source stops it.
            closed: called once when the device is free again (or given up).
        """
        super().__init__(label=label, device_id=device_id, group_id=group_id)
        self._device = device
        self._shape = shape
        self._lores: Size | None = None
        self._can_add_stream = device.has_lores
        self._frame_rate = frame_rate
        self._worker = worker
        self._make_parameters = make_parameters
        self._closed = closed
        self._clock = clock
        self._times = SensorTimes(label)
        self._lock = threading.Lock()
        self._encodings: dict[EncodingRequest, _Encoding] = {}
        self._running: tuple[_Encoding, ...] = ()
        self._is_shut = False
        self._last_frame_ns = clock.monotonic_ns()
        self._raw = RawPictures(label, self.stats, self._picture)
        self.restarts = 0
        device.watch_requests(self._seen)
        self._watch = SourceThread(f"camera {label}", self._watch_frames, self._fail)
        self._watch.start()

    @property
    def format(self) -> VideoFormat:
        width, height = self._shape.size
        return VideoFormat(
            width=width, height=height, pixel_format=self._shape.pixel_format, frame_rate=self._frame_rate
        )

    @property
    def frame_age_ns(self) -> int:
        """How long ago the last frame came, whatever became of it."""
        return self._clock.monotonic_ns() - self._last_frame_ns

    def raw(self) -> Feed[VideoFrame]:
        return self._raw.feed

    def encoded(self, request: EncodingRequest) -> EncodedFeed | None:
        codec = self._codec_of(request)
        if codec is None or self._make_parameters is None:
            return None
        if request.crops:
            return None  # its second stream shows the whole picture in any size, which would stretch it
        with self._lock:
            known = self._encodings.get(request)
            if known is not None:
                return known.feed
            size = even((request.width or self._shape.size[0], request.height or self._shape.size[1]))
            stream = self._stream_for(size)
            skip = frame_skip(self._frame_rate, request.frame_rate)
            if stream is None or skip is None or len(self._encodings) >= _MAX_ENCODERS:
                log.info(
                    "camera %s: no encoder of the camera's for %dx%d at %s frames a second",
                    self.label,
                    *size,
                    request.frame_rate or "all",
                )
                return None
            rate = self._frame_rate / skip if self._frame_rate else None
            spec = EncoderSpec(
                codec=codec,
                stream=stream,
                bit_rate=request.bit_rate,
                key_frame_period=key_frame_period(
                    rate, request.key_frame_interval_ns, request.key_frame_interval_count
                ),
                frame_rate=rate,
                frame_skip=skip,
            )
            encoding: _Encoding

            def wanted(is_wanted: bool) -> None:
                self._encoder_wanted(request, encoding, is_wanted=is_wanted)

            def key_frame_at(at_ns: int) -> None:
                encoding.key_frame_at(at_ns)

            can_force = self._device.is_hardware_encoder and codec == "h264"
            feed = EncodedFeed(on_demand=wanted, key_frame_at=key_frame_at if can_force else None)
            encoding = _Encoding(spec, size, feed)
            self._encodings[request] = encoding
            return feed

    def apply_controls(self, settings: Mapping[str, Any]) -> None:
        """Exposure, white balance, focus, zoom and so on while the camera runs; W3C names and units. Any thread."""
        self._device.set_controls(settings)

    def close(self) -> None:
        try:
            self._watch.stop(2.0)
        except ZombieThread as exc:
            log.error("%s", exc)
        self._end_feeds(None)
        try:
            self._worker.call("closing the camera", self._shut, CLOSE_TIMEOUT_S)
        except CallTimeout as exc:
            log.error(
                "camera %s: %s (in %s); it stays blocked until this process ends",
                self.label,
                exc,
                self._worker.running_name() or "nothing",
            )
            self._worker.leave_behind(self.label)
            return
        self._worker.stop(1.0)

    # Encoders; in the worker unless said otherwise.

    def _codec_of(self, request: EncodingRequest) -> Literal["h264", "mjpeg"] | None:
        """Any thread. MJPEG by the hardware only: in software it is libav's, of the raw pictures."""
        if request.kind == "video" and request.codec == "h264":
            return "h264"
        if request.kind == "video" and request.codec == "mjpeg" and self._device.is_hardware_encoder:
            return "mjpeg"
        return None

    def _stream_for(self, size: Size) -> StreamName | None:
        """Any thread, under the lock. A second stream comes only while nothing is encoded: later it would interrupt."""
        if self._device.is_hardware_encoder and not fits_hardware_encoder(size):
            return None
        if size == self._shape.size:
            return "main"
        if self._lores is not None or not self._can_add_stream or self._encodings:
            return "lores" if size == self._lores else None
        if size[0] > self._shape.size[0] or size[1] > self._shape.size[1]:
            return None
        self._lores = size
        self._submit("adding a second stream", lambda: self._reconfigure(size), self._fail)
        return "lores"

    def _encoder_wanted(self, request: EncodingRequest, encoding: _Encoding, *, is_wanted: bool) -> None:
        """Any thread, also the event loop: must not wait."""

        def failed(exc: Exception) -> None:
            log.warning("camera %s: its encoder cannot be started: %s", self.label, exc)
            with self._lock:
                self._encodings.pop(request, None)
            encoding.feed.feed.end(NotReadableError(f"the encoder of {self.label} cannot be started: {exc}"))

        if is_wanted:
            self._submit("starting the encoder", lambda: self._start_encoder(encoding), failed)
        elif not self._watch.stopping.is_set():
            self._submit("stopping the encoder", lambda: self._stop_encoder(encoding), _log_failure)

    def _start_encoder(self, encoding: _Encoding) -> None:
        if self._is_shut or encoding.handle is not None:
            return
        width, height = encoding.size

        def parameters(key_frame: bytes) -> StreamParameters:
            assert self._make_parameters is not None  # or there would be no encoding
            return self._make_parameters(
                key_frame,
                codec=encoding.spec.codec,
                width=width,
                height=height,
                frame_rate=encoding.spec.frame_rate,
                encoder=self._device.encoder_name,
            )

        stream = EncodedStream(
            encoding.feed,
            name=self.label,
            times=self._times,
            frame_ns=round(NS / (encoding.spec.frame_rate or 30.0)),
            make_parameters=parameters,
            is_rate_fixed=encoding.spec.frame_rate is not None,
            clock=self._clock,
        )
        try:
            encoding.handle = self._device.start_encoder(encoding.spec, stream)
        except BaseException:
            stream.stop()
            raise
        encoding.stream = stream
        self._running = (*self._running, encoding)

    def _stop_encoder(self, encoding: _Encoding) -> None:
        self._running = tuple(known for known in self._running if known is not encoding)
        handle, encoding.handle = encoding.handle, None
        stream, encoding.stream = encoding.stream, None
        try:
            if handle is not None:
                self._device.stop_encoder(handle)
        finally:
            if stream is not None:
                stream.stop()

    def _reconfigure(self, lores: Size) -> None:
        self._device.stop()
        try:
            self._shape = self._device.configure(lores=lores)
        except Exception as exc:
            log.warning("camera %s has no second stream of %dx%d: %s", self.label, *lores, exc)
            self._can_add_stream = False
            self._lores = None
            self._shape = self._device.configure(lores=None)
        self._device.start()

    def _restart(self) -> None:
        if self._is_shut:
            return
        log.warning("camera %s: no frame for %d s, restarting it", self.label, self.frame_age_ns // NS)
        self._device.stop()
        self._device.start()

    def _look(self) -> None:
        if not self._is_shut and not self._device.is_listed():
            log.info("camera %s was unplugged", self.label)
            self._end(None)

    def _shut(self) -> None:
        """Stop and free everything; each step even when the one before failed."""
        if self._is_shut:
            return
        self._is_shut = True
        self._device.watch_requests(None)
        with self._lock:
            encodings = list(self._encodings.values())
        steps: list[Callable[[], None]] = [self._device.stop]
        steps.extend(lambda encoding=encoding: self._stop_encoder(encoding) for encoding in encodings)  # type: ignore[misc]
        steps.append(self._device.close)
        for step in steps:
            try:
                step()
            except Exception as exc:
                log.warning("camera %s: closing it: %s", self.label, exc)
        self._closed()

    def _submit(self, name: str, run: Callable[[], object], failed: Callable[[Exception], None]) -> None:
        try:
            self._worker.submit(name, run, failed)
        except CallTimeout as exc:
            failed(NotReadableError(str(exc)))

    # Frames; in picamera2's thread.

    def _seen(self, request: Request) -> None:
        """Called before the encoders get the frame: a key frame that is asked for here is this very frame."""
        self._last_frame_ns = self._clock.monotonic_ns()
        asked = [encoding for encoding in self._running if encoding.is_asked]
        if asked:
            pts_ns = self._pts_ns(request)
            for encoding in asked:
                encoding.frame_is_at(pts_ns)
        self._raw.offer(request)

    def _picture(self, request: Request) -> VideoFrame:
        shape = self._shape
        data = unpad(memoryview(request.make_buffer("main")).cast("B"), shape.size, shape.stride, shape.pixel_format)
        return VideoFrame(pts_ns=self._pts_ns(request), format=self.format, data=data)

    def _pts_ns(self, request: Request) -> int:
        return self._times.to_monotonic(int(request.get_metadata()["SensorTimestamp"]), self._clock.monotonic_ns())

    # The watch; in a thread of its own.

    def _watch_frames(self, stop: threading.Event) -> None:
        looked_ns, restarted = 0, False  # age at the last look
        before_ns, seen_ns, age_ns = self._clock.monotonic_ns(), self._last_frame_ns, 0
        while not stop.wait(_TICK_S):
            now_ns = self._clock.monotonic_ns()
            step_ns = min(now_ns - before_ns, _LONGEST_STEP_NS)  # a stop of the whole process counts for little
            age_ns = age_ns + step_ns if self._last_frame_ns == seen_ns else 0
            before_ns, seen_ns = now_ns, self._last_frame_ns
            if self._worker.running_ns() > STUCK_AFTER_NS:
                raise NotReadableError(f"{self.label} hangs in {self._worker.running_name()}")
            if age_ns > FAILED_AFTER_NS:
                raise NotReadableError(f"{self.label} gave no frame for {age_ns // NS} s")
            if age_ns <= LOOK_AFTER_NS:
                looked_ns, restarted = 0, False
                self._set_muted(False)
            elif age_ns - looked_ns >= LOOK_AFTER_NS and not self._worker.running_ns():
                looked_ns = age_ns  # again and again: libcamera may hear of it later than we
                self._submit("looking for the camera", self._look, _log_failure)
            if age_ns > MUTED_AFTER_NS:
                self._set_muted(True)
            if age_ns > RESTART_AFTER_NS and not restarted:
                restarted = True
                self.restarts += 1
                self.on_restarted(age_ns / NS)
                self._submit("restarting the camera", self._restart, self._fail)

    def _set_muted(self, muted: bool) -> None:
        if muted != self.muted:
            self.muted = muted
            if muted:
                log.warning("camera %s gives no frames", self.label)
            self.on_muted(muted)

    def _fail(self, exc: Exception) -> None:
        """Any thread: the camera is of no use any more."""
        error = exc if isinstance(exc, NotReadableError) else NotReadableError(f"{self.label} failed: {exc}")
        log.warning("camera %s ended: %s", self.label, error.message)
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._watch.stopping.is_set():
            return
        self._watch.stopping.set()
        self._end_feeds(error)
        self._submit("closing the camera", self._shut, _log_failure)
        self.on_ended(error)

    def _end_feeds(self, error: Exception | None) -> None:
        self._raw.end(error)
        with self._lock:
            encodings = list(self._encodings.values())
        for encoding in encodings:
            encoding.feed.feed.end(error)


def _log_failure(exc: Exception) -> None:
    log.warning("camera: %s", exc)
