"""A camera on picamera2: the only importer of picamera2 and libcamera.

What there is in the way, and is dealt with here: `Picamera2(n)` takes the position in `global_camera_info()`, not the
`Num` in it. `H264Encoder` is another class on a Pi 5, with other arguments. The libav encoder's `force_key_frame()`
ends the camera's thread with the PyAV versions of today. Cameras without `FrameDurationLimits` make `start_encoder`
fail. A USB camera gives another pixel format than it was asked for, silently. And every call may hang: all are made in
a `DeadlineWorker`, by who uses this.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from msrecd.devices.camera.controls import to_libcamera
from msrecd.devices.camera.device import EncoderSpec, StreamShape
from msrecd.devices.camera.frames import PIXEL_FORMATS, Request, format_order, jpeg_of
from msrecd.devices.camera.modes import CameraFacts, CameraPlan, Size, sensor_modes, video_modes
from msrecd.devices.camera.packets import EncodedStream
from msrecd.devices.picamera.guard import check_version, guard_release, steady_preview
from msrecd.dom.exceptions import NotFoundError, NotReadableError

os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:WARN")
try:
    import libcamera
    from picamera2 import CompletedRequest, Picamera2
    from picamera2.encoders import Encoder, H264Encoder, LibavH264Encoder, MJPEGEncoder
    from picamera2.outputs import Output
    from picamera2.previews import NullPreview
except Exception as exc:  # also an ABI mismatch of numpy, a missing /dev node, …: without them there is no camera
    if isinstance(exc, ModuleNotFoundError) and exc.name in ("libcamera", "picamera2"):
        raise  # it is not installed, which is no fault
    raise RuntimeError(f"picamera2 cannot be used: {exc}") from exc

log = logging.getLogger(__name__)

check_version("picamera2", (0, 3, 32))  # from here on its encoders can be asked for a key frame
guard_release(CompletedRequest)
_EventLoop = steady_preview(NullPreview)

BUFFERS = 4
HARDWARE_ENCODER = Path("/dev/video11")


def listed() -> list[dict[str, Any]]:
    """What libcamera knows of the cameras that are there, in the order that `probe` counts them by."""
    return [dict(info) for info in Picamera2.global_camera_info()]


def has_hardware_encoder(node: Path = HARDWARE_ENCODER) -> bool:
    """Whether picamera2 has its V4L2 encoder and the device is there; picamera2 alone guesses from the board."""
    return H264Encoder is not LibavH264Encoder and node.exists()  # type: ignore[comparison-overlap]


class _Output(Output):
    """picamera2's end of an EncodedStream; runs in picamera2's threads, must neither raise nor block."""

    def __init__(self, encoder: Encoder, stream: EncodedStream, *, is_intra: bool) -> None:
        """is_intra: every frame is a key frame, whatever the driver says."""
        super().__init__()
        self._encoder = encoder
        self._is_intra = is_intra
        self._stream = stream

    def outputframe(
        self,
        frame: bytes,
        keyframe: bool = True,
        timestamp: int | None = None,
        packet: Any = None,
        audio: bool = False,
    ) -> None:
        first = self._encoder.firsttimestamp
        if frame and timestamp is not None and first is not None and not audio:
            self._offer(bytes(frame), bool(keyframe) or self._is_intra, first + timestamp)

    def _offer(self, data: bytes, is_keyframe: bool, timestamp_us: int) -> None:
        self._stream.offer(data, is_keyframe, timestamp_us)


class _JpegOutput(_Output):
    """Of a camera that gives JPEGs, each in a buffer that has room for more."""

    def _offer(self, data: bytes, is_keyframe: bool, timestamp_us: int) -> None:
        try:
            jpeg = jpeg_of(data)
        except ValueError:  # torn on the way; its absence is counted where times have a hole
            return
        super()._offer(jpeg, is_keyframe, timestamp_us)


class Camera:
    """camera.device.CameraDevice on a Picamera2."""

    def __init__(self, camera: Picamera2, camera_id: str, plan: CameraPlan, *, is_hardware_encoder: bool) -> None:
        self._camera = camera
        self._id = camera_id
        self._plan = plan
        self.is_hardware_encoder = is_hardware_encoder
        self.encoder_name = "v4l2" if is_hardware_encoder else "libx264"
        self.has_lores = "ColorFilterArrangement" in camera.camera_properties  # a sensor behind a Raspberry Pi's ISP

    def configure(self, *, lores: Size | None) -> StreamShape:
        """
        Raises:
            NotReadableError: it gives nothing that anybody here knows. Else what picamera2 raises.
        """
        got = ""
        for name in self._formats():
            got = self._configure(name, lores)
            if got == name:
                break  # otherwise libcamera has taken another one, without a word
        if got not in PIXEL_FORMATS:
            raise NotReadableError(f"the camera gives {got} only; one of {', '.join(PIXEL_FORMATS)} is needed")
        main = self._camera.camera_configuration()["main"]
        return StreamShape(size=tuple(main["size"]), pixel_format=PIXEL_FORMATS[got], stride=int(main["stride"]))

    def _formats(self) -> list[str]:
        """What to ask for, one after the other."""
        if self.has_lores:
            return ["YUV420"]  # the ISP makes it
        return format_order(_offered(self._camera), self._plan.size) or ["YUV420"]

    def _configure(self, pixel_format: str, lores: Size | None) -> str:
        """The format that came of it."""
        camera, plan = self._camera, self._plan
        options: dict[str, Any] = {}
        if plan.mode is not None:
            options["sensor"] = {"output_size": plan.mode.size, "bit_depth": plan.mode.bit_depth}
        config = camera.create_video_configuration(
            main={"format": pixel_format, "size": plan.size},
            lores=None if lores is None else {"format": "YUV420", "size": lores},
            raw=None,
            buffer_count=BUFFERS,
            queue=False,
            controls=to_libcamera({**plan.settings, "frame_rate": plan.frame_rate}, camera.camera_controls),
            **options,
        )
        camera.configure(config)
        return str(camera.camera_configuration()["main"]["format"])

    def start(self) -> None:
        self._camera.start(show_preview=_EventLoop())  # of no effect when it runs already, after a stop

    def stop(self) -> None:
        self._camera.stop()

    def close(self) -> None:
        self._camera.close()

    def is_listed(self) -> bool:
        return any(info["Id"] == self._id for info in listed())

    def watch_requests(self, seen: Callable[[Request], None] | None) -> None:
        if seen is None:
            self._camera.pre_callback = None
            return
        failed = False

        def callback(request: Request) -> None:
            nonlocal failed
            try:
                seen(request)
            except Exception as exc:  # would end the camera's thread
                if not failed:
                    log.error("a frame of the camera could not be taken: %s", exc)
                failed = True

        self._camera.pre_callback = callback

    def start_encoder(self, spec: EncoderSpec, output: EncodedStream) -> Encoder:
        stream = self._camera.camera_configuration()[spec.stream]
        is_jpeg = stream["format"] == "MJPEG"
        if is_jpeg:
            encoder = Encoder()  # passes on what the camera gives
            encoder.frame_skip_count = spec.frame_skip
            sink: _Output = _JpegOutput(encoder, output, is_intra=True)
        else:
            encoder = make_encoder(spec, is_hardware=self.is_hardware_encoder)
            sink = _Output(encoder, output, is_intra=spec.codec == "mjpeg")
        if not is_jpeg and "FrameDurationLimits" in self._camera.camera_controls:
            self._camera.start_encoder(encoder, sink, name=spec.stream)
            return encoder
        encoder.output = sink
        encoder.name = spec.stream
        encoder.size = tuple(stream["size"])
        if not is_jpeg:  # refused, though nobody would look at it
            encoder.format = stream["format"]
        encoder.stride = stream["stride"]
        encoder.start()
        with self._camera.lock:  # the camera's thread walks through the set
            self._camera.encoders = encoder
        return encoder

    def stop_encoder(self, encoder: Any) -> None:
        self._camera.stop_encoder(encoder)

    def set_controls(self, settings: Mapping[str, Any]) -> None:
        controls = to_libcamera(settings, self._camera.camera_controls)
        if controls:
            self._camera.set_controls(controls)


def make_encoder(spec: EncoderSpec, *, is_hardware: bool) -> Encoder:
    """The encoder for `spec`, given only the arguments that its class knows."""
    h264: type[Encoder] = H264Encoder if is_hardware else LibavH264Encoder
    encoder_class: type[Encoder] = MJPEGEncoder if spec.codec == "mjpeg" else h264
    rate = Fraction(spec.frame_rate or 30.0).limit_denominator(1001)
    wanted: dict[str, Any] = {
        "bitrate": spec.bit_rate or None,
        "repeat": True,  # SPS and PPS before every key frame: each chunk begins with one
        "iperiod": spec.key_frame_period,
        "framerate": float(rate) if is_hardware else rate,
        "enable_sps_framerate": True,
    }
    known = inspect.signature(encoder_class).parameters
    encoder = encoder_class(**{name: value for name, value in wanted.items() if name in known})
    encoder.frame_skip_count = spec.frame_skip
    return encoder


def open_camera(camera_id: str, plan: CameraPlan, *, is_hardware_encoder: bool) -> Camera:
    """Open the camera of that id; configure and start it then.

    Raises:
        NotFoundError: it is not there any more. Else what picamera2 raises.
    """
    for position, info in enumerate(listed()):
        if info["Id"] == camera_id:
            return Camera(Picamera2(position), camera_id, plan, is_hardware_encoder=is_hardware_encoder)
    raise NotFoundError("the camera is not there any more")


def probe(position: int) -> CameraFacts:
    """Modes and controls; opens the camera for a moment."""
    camera = Picamera2(position)
    try:
        modes = tuple(sensor_modes(camera.sensor_modes))
        controls = dict(camera.camera_controls)
        sizes = set() if modes else {size for sizes in _offered(camera).values() for size in sizes}
        limits = controls.get("FrameDurationLimits")
        max_rate = round(1_000_000 / limits[0], 2) if limits and limits[0] else None
    finally:
        close_quietly(camera)
    modes_found = video_modes(modes, sorted(sizes, reverse=True), max_rate)
    return CameraFacts(modes=modes_found, sensor_modes=modes, controls=controls)


def close_quietly(camera: Camera | Picamera2) -> None:
    """Close after a failure: that is what is to be told, not that closing failed as well."""
    try:
        camera.close()
    except Exception as exc:
        log.warning("closing a camera failed: %s", exc)


def _offered(camera: Picamera2) -> dict[str, set[Size]]:
    """Pixel formats and sizes of a camera that has no sensor modes (USB)."""
    formats = camera.camera.generate_configuration([libcamera.StreamRole.VideoRecording]).at(0).formats
    return {str(pixel): {(size.width, size.height) for size in formats.sizes(pixel)} for pixel in formats.pixel_formats}
