"""CameraSource: one camera that picamera2 has opened. Knows no picamera2: that is behind `CameraDevice`.

Threads: picamera2's own (they only enqueue), one for calls into picamera2 (any of which may hang), one for packets per
encoder, one for raw frames while they are wanted, and one that watches the age of the last frame.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from msrecd.clock import NS, SYSTEM_CLOCK, Clock
from msrecd.devices.camera.controls import exposure_s, figures
from msrecd.devices.camera.device import CameraDevice, ParametersMaker, RawFrame, StreamShape
from msrecd.devices.camera.dng import make_dng
from msrecd.devices.camera.encodings import CameraEncodings
from msrecd.devices.camera.frames import FrameReader, RawFrames, Request, flip, raw_format
from msrecd.devices.camera.modes import FrameGaps, Size
from msrecd.devices.camera.packets import SensorTimes
from msrecd.devices.camera.watch import FrameWatch
from msrecd.devices.deadline import CallTimeout, DeadlineWorker
from msrecd.dom.exceptions import NotReadableError, NotSupportedError, OverconstrainedError
from msrecd.flow.encoded import EncodedFeed, EncodingRequest
from msrecd.flow.feed import Feed
from msrecd.flow.source import RawStill, Source, ZombieThread
from msrecd.flow.units import UPRIGHT, Kind, Presentation, VideoFormat, VideoFrame

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0
_FIGURES_NS = 3 * NS  # so long after the last question the metadata of frames are read
STILL_FRAME_S = 4.0  # for a frame in the still mode: a 64 megapixel sensor gives 2.7 a second
_STILL_S = 9.0  # for all of it; the watch ends a camera that hangs for longer


def _format(shape: StreamShape, frame_rate: float | None, presentation: Presentation) -> VideoFormat:
    width, height = shape.size
    return VideoFormat(
        width=width,
        height=height,
        pixel_format=raw_format(shape.pixel_format),
        frame_rate=frame_rate,
        presentation=presentation,
    )


class _RequestReader:
    """frames.RequestReader of the main stream, also when a second stream has changed its shape."""

    def __init__(
        self,
        streams: CameraEncodings,
        pts_ns: Callable[[Request], int],
        format_of: Callable[[StreamShape], VideoFormat],
    ) -> None:
        self._streams = streams
        self._pts_ns = pts_ns
        self._format_of = format_of
        self._shape: StreamShape | None = None
        self._reader: FrameReader | None = None

    def read(self, request: Request) -> VideoFrame:
        shape = self._streams.shape
        if self._reader is None or shape != self._shape:
            self.close()
            self._shape, self._reader = shape, FrameReader(shape.size, shape.stride, shape.pixel_format)
        data = self._reader.read(memoryview(request.make_buffer("main")).cast("B"))
        if shape.is_mirrored_here:
            to_flip = {"hflip": shape.hflip, "vflip": shape.vflip}
            data = flip(data, *shape.size, **to_flip, pixel_format=raw_format(shape.pixel_format))
        return VideoFrame(pts_ns=self._pts_ns(request), format=self._format_of(shape), data=data)

    def close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()


class CameraSource(Source):
    """A running camera. All public methods return at once, but `close`, which takes up to a few seconds."""

    kind: Kind = "video"
    draws_overlays = True

    def __init__(
        self,
        device: CameraDevice,
        shape: StreamShape,
        *,
        worker: DeadlineWorker,
        frame_rate: float | None,
        slowest_rate: float | None = None,
        is_rate_fixed: bool = True,
        presentation: Presentation = UPRIGHT,
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
            frame_rate: the highest it delivers. slowest_rate: the lowest, if that is another.
            is_rate_fixed: it keeps `frame_rate`; a frame that is late is a frame that is lost.
            presentation: how its frames are to be shown.
            closed: called once when the device is free again (or given up).
        """
        super().__init__(label=label, device_id=device_id, group_id=group_id)
        self._device = device
        self._frame_rate = frame_rate
        self._slowest_rate = slowest_rate
        self._presentation = presentation
        self._worker = worker
        self._closed = closed
        self._clock = clock
        self._times = SensorTimes(label)
        self._is_shut = False
        self._is_held = False  # a still is taken: that there are no frames is no news
        self.last_frame_ns = clock.monotonic_ns()
        frame_ns = round(NS / (slowest_rate or frame_rate or 30.0))
        self._raw = RawFrames(
            label,
            self.stats,
            lambda: _RequestReader(self._encodings, self._pts_ns, self._format_of),
            FrameGaps(round(NS / (frame_rate or 30.0)), is_fixed=is_rate_fixed),
        )
        self._encodings = CameraEncodings(
            device,
            shape,
            label=label,
            frame_rate=frame_rate,
            make_parameters=make_parameters,
            times=self._times,
            pts_ns=self._pts_ns,
            is_rate_fixed=is_rate_fixed,
            rotation=presentation.rotation,
            submit=self._submit,
            failed=self._fail,
            clock=clock,
        )
        self.restarts = 0
        self._figures: Mapping[str, float | str] = {}
        self._figures_until_ns = 0
        device.watch_requests(self._seen)
        self._watch = FrameWatch(self, self._fail, clock, frame_ns)
        self._watch.start()

    @property
    def format(self) -> VideoFormat:
        return self._format_of(self._encodings.shape)

    def _format_of(self, shape: StreamShape) -> VideoFormat:
        return _format(shape, self._frame_rate, self._presentation)

    @property
    def frame_age_ns(self) -> int:
        """How long ago the last frame came, whatever became of it."""
        return self._clock.monotonic_ns() - self.last_frame_ns

    def figures(self) -> Mapping[str, float | str]:
        now_ns = self._clock.monotonic_ns()
        is_fresh, self._figures_until_ns = now_ns < self._figures_until_ns, now_ns + _FIGURES_NS
        return self._figures if is_fresh else {}

    def raw(self) -> Feed[VideoFrame]:
        return self._raw.feed

    def encoded(self, request: EncodingRequest) -> EncodedFeed | None:
        return self._encodings.feed_for(request)

    def apply_controls(self, settings: Mapping[str, Any]) -> None:
        """Exposure, white balance, focus, zoom and so on while the camera runs; W3C names and units. Any thread.

        Raises:
            OverconstrainedError: the exposure is longer than a frame, and the rate is fixed while the camera runs.
        """
        exposure, rate = exposure_s(settings), self._slowest_rate or self._frame_rate
        if exposure is not None and rate and exposure > 1 / rate:
            raise OverconstrainedError(
                "exposure_time",
                f"an exposure of {exposure:g} s needs a frame rate of {1 / exposure:g} or less; {self.label} runs at"
                f" {rate:g}: open it with that exposure, or with a lower frame_rate",
            )
        self._device.set_controls(settings)

    @property
    def still_size(self) -> Size | None:
        return self._device.still_size

    def take_still(self) -> VideoFrame:
        """See Source.take_still; for a thread that may wait."""
        frame, _ = self._take(with_raw=False)
        return frame

    def _take(self, *, with_raw: bool) -> tuple[VideoFrame, RawFrame | None]:
        self._is_held = True
        try:
            self._change_muted(True)
            return self._worker.call("taking a still", lambda: self._still(with_raw=with_raw), _STILL_S)
        except NotReadableError:
            raise
        except Exception as exc:
            raise NotReadableError(f"{self.label}: no still of full resolution: {exc}") from exc
        finally:
            self._change_muted(False)
            self._is_held = False

    def take_raw_still(self) -> RawStill:
        """See Source.take_raw_still; the camera goes on while the DNG is made."""
        if self._device.no_raw is not None:
            raise NotSupportedError(f"{self.label} gives no DNG: {self._device.no_raw}")
        frame, raw = self._take(with_raw=True)
        assert raw is not None
        try:
            dng = make_dng(
                raw.buffer,
                pixel_format=raw.pixel_format,
                size=raw.size,
                stride=raw.stride,
                metadata=raw.metadata,
                model=self.label,
                rotation=self._presentation.rotation,
            )
        except ValueError as exc:
            raise NotReadableError(f"{self.label}: no DNG: {exc}") from exc
        return RawStill(frame, dng)

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

    # In picamera2's thread.

    def _seen(self, request: Request) -> None:
        """Called with each frame, before the encoders get it."""
        self.last_frame_ns = self._clock.monotonic_ns()
        if self.last_frame_ns < self._figures_until_ns:
            self._figures = figures(request.get_metadata())
        if self.muted:
            self._raw.forget_gap()
        self._raw.offer(request, lambda: self._pts_ns(request))

    def _pts_ns(self, request: Request) -> int:
        return self._times.to_monotonic(int(request.get_metadata()["SensorTimestamp"]), self._clock.monotonic_ns())

    # In the worker.

    def _submit(self, name: str, run: Callable[[], object], failed: Callable[[Exception], None]) -> None:
        try:
            self._worker.submit(name, run, failed)
        except CallTimeout as exc:
            failed(NotReadableError(str(exc)))

    def _restart(self) -> None:
        if self._is_shut:
            return
        log.warning("camera %s: no frame for %d s, restarting it", self.label, self.frame_age_ns // NS)
        self._device.stop()
        self._device.start()

    def _still(self, *, with_raw: bool) -> tuple[VideoFrame, RawFrame | None]:
        if self._is_shut:
            raise NotReadableError(f"{self.label} has ended")
        try:
            self._encodings.pause()
            still = self._device.take_still(STILL_FRAME_S, with_raw=with_raw)
        finally:
            self._go_on()
        shape = still.shape
        with closing(FrameReader(shape.size, shape.stride, shape.pixel_format)) as reader:
            data = reader.read(still.buffer)
        if shape.is_mirrored_here:
            to_flip = {"hflip": shape.hflip, "vflip": shape.vflip}
            data = flip(data, *shape.size, **to_flip, pixel_format=raw_format(shape.pixel_format))
        frame = VideoFrame(pts_ns=self._clock.monotonic_ns(), format=self._format_of(shape), data=data)
        return frame, still.raw

    def _go_on(self) -> None:
        """After a still, or the attempt to take one."""
        try:
            self._device.stop()
            self._encodings.configure()
            self._device.watch_requests(self._seen)
            self._device.start()
            self._encodings.resume()
        except Exception as exc:
            self._fail(exc)
            raise
        self.last_frame_ns = self._clock.monotonic_ns()

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
        for step in (self._device.stop, *self._encodings.stop_all(), self._device.close):
            try:
                step()
            except Exception as exc:
                log.warning("camera %s: closing it: %s", self.label, exc)
        self._closed()

    # The watch's ladder (watch.Watched), in its thread.

    def call_under_way(self) -> tuple[str, int]:
        return self._worker.running_name(), self._worker.running_ns()

    def look(self) -> None:
        self._submit("looking for the camera", self._look, self._log_failure)

    def set_muted(self, muted: bool) -> None:
        if not self._is_held:
            self._change_muted(muted)

    def _change_muted(self, muted: bool) -> None:
        if muted != self.muted:
            self.muted = muted
            if muted and not self._is_held:
                log.warning("camera %s gives no frames", self.label)
            self.on_muted(muted)

    def restart(self, age_ns: int) -> None:
        if self._is_held:
            return
        self.restarts += 1
        self.on_restarted(age_ns / NS)
        self._submit("restarting the camera", self._restart, self._fail)

    # The end. Any thread.

    def _fail(self, exc: Exception) -> None:
        """The camera is of no use any more."""
        error = exc if isinstance(exc, NotReadableError) else NotReadableError(f"{self.label} failed: {exc}")
        log.warning("camera %s ended: %s", self.label, error.message)
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._watch.stopping.is_set():
            return
        self._watch.stopping.set()
        self._end_feeds(error)
        self._submit("closing the camera", self._shut, self._log_failure)
        self.on_ended(error)

    def _end_feeds(self, error: Exception | None) -> None:
        self._raw.end(error)
        self._encodings.end(error)

    def _log_failure(self, exc: Exception) -> None:
        log.warning("camera %s: %s", self.label, exc)
