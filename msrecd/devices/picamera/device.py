"""A camera on picamera2: the only importer of picamera2 and libcamera.

What there is in the way, and is dealt with here: `Picamera2(n)` takes the position in `global_camera_info()`, not the
`Num` in it. `H264Encoder` is another class on a Pi 5, with other arguments. The libav encoder's `force_key_frame()`
ends the camera's thread with the PyAV versions of today. Cameras without `FrameDurationLimits` make `start_encoder`
fail. A USB camera gives another pixel format than it was asked for, silently. Ranges of controls before `configure()`
are not the camera's. A constructor that fails keeps a pipe open. And every call may hang: all are made in a
`DeadlineWorker`, by who uses this.
"""

from __future__ import annotations

import inspect
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from msrecd.devices.board import read_board
from msrecd.devices.camera.controls import to_libcamera
from msrecd.devices.camera.device import EncoderSpec, RawFrame, Still, StreamName, StreamShape
from msrecd.devices.camera.dng import parse_format, unpacked
from msrecd.devices.camera.frames import PIXEL_FORMATS, Request, format_order, jpeg_of
from msrecd.devices.camera.modes import (
    BUFFERS,
    HARDWARE_MAX_BIT_RATE,
    STILL_BUFFERS,
    CameraFacts,
    CameraPlan,
    SensorMode,
    Size,
    StillPlan,
    sensor_modes,
    video_modes,
)
from msrecd.devices.camera.packets import EncodedStream
from msrecd.devices.picamera.guard import (
    check_platform,
    check_version,
    close_quietly,
    construct,
    guard_release,
    steady_preview,
    wait_for_pisp,
)
from msrecd.dom.exceptions import NotFoundError, NotReadableError

os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:WARN")
wait_for_pisp(read_board())  # picamera2 decides what board this is when it is imported, by the video nodes there are
try:
    import libcamera
    from picamera2 import CompletedRequest, MappedArray, Picamera2
    from picamera2.allocators import Allocator
    from picamera2.encoders import Encoder, H264Encoder, LibavH264Encoder, MJPEGEncoder
    from picamera2.outputs import Output
    from picamera2.previews import NullPreview
except Exception as exc:  # also an ABI mismatch of numpy, a missing /dev node, …: without them there is no camera
    if isinstance(exc, ModuleNotFoundError):
        raise  # it tells which one
    raise RuntimeError(f"picamera2 cannot be used: {exc}") from exc

log = logging.getLogger(__name__)

check_version("picamera2", (0, 3, 32))  # from here on its encoders can be asked for a key frame
check_platform(Picamera2.platform.name, read_board())
guard_release(CompletedRequest)
_EventLoop = steady_preview(NullPreview)

HARDWARE_ENCODER = Path("/dev/video11")


def listed() -> list[dict[str, Any]]:
    """What libcamera knows of the cameras that are there, in the order that `Picamera2(n)` counts them by."""
    return [dict(info) for info in Picamera2.global_camera_info()]


def has_hardware_encoder(node: Path = HARDWARE_ENCODER) -> bool:
    """Whether picamera2 has its V4L2 encoder and the device is there; picamera2 alone guesses from the board."""
    return H264Encoder is not LibavH264Encoder and node.exists()  # type: ignore[comparison-overlap]


def use_tuning_files(files: Mapping[str, Path]) -> None:
    """Have libcamera read `files` (sensor's model -> tuning file) from now on; no camera may be open.

    libcamera reads them when its camera manager starts (ipa_proxy.cpp, ipaConfigurationFile). Of its two variables the
    one for a single file holds for all cameras, and picamera2 deletes it; the folder holds one file for each model.
    """
    folder = Path(tempfile.mkdtemp(prefix="msrecd-tuning-"))
    for platform in ("vc4", "pisp"):
        place = folder / "rpi" / platform
        place.mkdir(parents=True)
        for model, file in files.items():
            for name in (model, f"{model}_mono"):
                (place / f"{name}.json").symlink_to(file)
    os.environ["LIBCAMERA_IPA_CONFIG_PATH"] = str(folder)
    Picamera2._cm.reset()


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
    """Of a camera that gives JPEGs."""

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
        self._streams = 1
        self._altered: dict[str, Any] = {}  # settings since it was opened; a second stream must not lose them
        self.is_hardware_encoder = is_hardware_encoder
        self.encoder_name = "v4l2" if is_hardware_encoder else "libx264"
        self.has_lores = "ColorFilterArrangement" in camera.camera_properties  # a sensor behind a Raspberry Pi's ISP
        self.no_raw = _why_no_raw(camera, has_sensor=self.has_lores)

    def configure(self, *, lores: Size | None) -> StreamShape:
        """
        Raises:
            NotReadableError: it gives nothing that anybody here knows. Else what picamera2 raises.
        """
        return self._configure(self._plan.size, self._plan.mode, lores, BUFFERS)

    def _configure(
        self, size: Size, mode: SensorMode | None, lores: Size | None, buffers: int, *, raw: Size | None = None
    ) -> StreamShape:
        got = ""
        for name in self._formats(size):
            got = self._try_format(name, size, mode, lores, buffers, raw)
            if got == name:
                break  # otherwise libcamera has taken another one, without a word
        if got not in PIXEL_FORMATS:
            raise NotReadableError(f"the camera gives {got} only; one of {', '.join(PIXEL_FORMATS)} is needed")
        self._streams = 1 if lores is None else 2
        self._send({**self._plan.settings, **self._altered})
        configuration = self._camera.camera_configuration()
        main, done = configuration["main"], configuration["transform"]
        return StreamShape(
            size=tuple(main["size"]),
            pixel_format=PIXEL_FORMATS[got],
            stride=int(main["stride"]),
            hflip=self._plan.hflip != bool(done.hflip),
            vflip=self._plan.vflip != bool(done.vflip),
        )

    def _formats(self, size: Size) -> list[str]:
        """What to ask for, one after the other."""
        if self.has_lores:
            return ["YUV420"]  # the ISP makes it
        return format_order(_offered(self._camera), size) or ["YUV420"]

    def _try_format(
        self,
        pixel_format: str,
        size: Size,
        mode: SensorMode | None,
        lores: Size | None,
        buffers: int,
        raw: Size | None,
    ) -> str:
        """The format that came of it."""
        camera, plan = self._camera, self._plan
        options: dict[str, Any] = {}
        if mode is not None:
            options["sensor"] = {"output_size": mode.size, "bit_depth": mode.bit_depth}
        config = camera.create_video_configuration(
            main={"format": pixel_format, "size": size},
            lores=None if lores is None else {"format": "YUV420", "size": lores},
            raw=None if raw is None else {"size": raw, "format": unpacked(camera.sensor_format)},
            buffer_count=buffers,
            queue=False,
            transform=libcamera.Transform(hflip=plan.hflip, vflip=plan.vflip),
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

    def start_encoder(
        self, spec: EncoderSpec, output: EncodedStream, before_encode: Callable[[Request], None]
    ) -> Encoder:
        stream = self._camera.camera_configuration()[spec.stream]
        is_jpeg = stream["format"] == "MJPEG"
        if is_jpeg:
            encoder: Encoder = _PassJpegs()
            encoder.frame_skip_count = spec.frame_skip
            sink: _Output = _JpegOutput(encoder, output, is_intra=True)
        else:
            encoder = make_encoder(spec, is_hardware=self.is_hardware_encoder, before_encode=before_encode)
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

    def change(self, request: Request, stream: StreamName, draw: Callable[[memoryview, int], None]) -> None:
        stride = int(self._camera.camera_configuration()[stream]["stride"])
        with MappedArray(request, stream, reshape=False, write=True) as mapped:
            draw(memoryview(mapped.array).cast("B"), stride)

    def stop_encoder(self, encoder: Any) -> None:
        self._camera.stop_encoder(encoder)

    @property
    def still_size(self) -> Size | None:
        return None if self._plan.still is None else self._plan.still.size

    def take_still(self, timeout_s: float, *, with_raw: bool = False) -> Still:
        still = self._plan.still or StillPlan(size=self._plan.size, mode=self._plan.mode)
        taken: SimpleQueue[Request] = SimpleQueue()

        def take(request: Request) -> None:
            if taken.empty():
                request.acquire()
                taken.put(request)

        self.stop()
        raw = (still.mode.size if still.mode is not None else still.size) if with_raw else None
        shape = self._configure(still.size, still.mode, None, STILL_BUFFERS, raw=raw)
        self.watch_requests(take)
        self.start()
        try:
            request = taken.get(timeout=timeout_s)
            try:
                buffer = memoryview(request.make_buffer("main")).cast("B")
                return Still(shape=shape, buffer=buffer, raw=self._raw_frame(request) if with_raw else None)
            finally:
                request.release()
        except Empty:
            raise TimeoutError(f"no frame within {timeout_s:g} s") from None
        finally:
            self.watch_requests(None)
            self.stop()

    def _raw_frame(self, request: Request) -> RawFrame:
        raw = self._camera.camera_configuration()["raw"]
        return RawFrame(
            buffer=memoryview(request.make_buffer("raw")).cast("B"),
            pixel_format=str(raw["format"]),
            size=tuple(raw["size"]),
            stride=int(raw["stride"]),
            metadata=request.get_metadata(),
        )

    def set_controls(self, settings: Mapping[str, Any]) -> None:
        self._altered |= settings
        self._send(settings)

    def _send(self, settings: Mapping[str, Any]) -> None:
        controls = to_libcamera(settings, self._camera.camera_controls, streams=self._streams)
        if controls:
            self._camera.set_controls(controls)


def _why_no_raw(camera: Picamera2, *, has_sensor: bool) -> str | None:
    if not has_sensor:
        return "it gives finished frames only; a DNG needs a camera at the board's own connector"
    known = parse_format(unpacked(camera.sensor_format))
    return None if known is not None and known.bits > 8 else f"its sensor gives {camera.sensor_format}"


class _PassJpegs(Encoder):
    """Passes on what a camera gives that makes JPEGs itself: of each buffer only as much as the frame takes."""

    def _encode(self, stream: Any, request: Any) -> None:
        timestamp_us = self._timestamp(request)
        buffer = request.request.buffers[request.stream_map[stream]]
        used = sum(plane.bytes_used for plane in buffer.metadata.planes)
        with MappedArray(request, stream, reshape=False, write=False) as mapped:
            data = mapped.array[: used or None].tobytes()
        self.outputframe(data, keyframe=True, timestamp=timestamp_us)


def make_encoder(
    spec: EncoderSpec, *, is_hardware: bool, before_encode: Callable[[Request], None] = lambda request: None
) -> Encoder:
    """The encoder for `spec`, given only the arguments that its class knows.

    picamera2 runs `pre_callback` for all frames of a batch before it encodes the first one, so what belongs to one
    frame (a key frame that is forced) is done here, right before that frame is encoded.
    """
    h264: type[Encoder] = H264Encoder if is_hardware else LibavH264Encoder
    encoder_class: type[Encoder] = MJPEGEncoder if spec.codec == "mjpeg" else h264

    class Observed(encoder_class):  # type: ignore[misc, valid-type]
        def encode(self, stream: Any, request: Any) -> None:
            before_encode(request)
            super().encode(stream, request)

    rate = Fraction(spec.frame_rate or 30.0).limit_denominator(1001)
    bit_rate = spec.bit_rate
    if is_hardware and bit_rate > HARDWARE_MAX_BIT_RATE:
        log.warning("the camera's encoder makes at most 25 Mbit/s, not the %g asked for", bit_rate / 1e6)
        bit_rate = HARDWARE_MAX_BIT_RATE
    wanted: dict[str, Any] = {
        "bitrate": bit_rate or None,
        "repeat": True,  # SPS and PPS before every key frame: each chunk begins with one
        "iperiod": spec.key_frame_period,
        "framerate": float(rate) if is_hardware else rate,
        "enable_sps_framerate": True,
    }
    known = inspect.signature(encoder_class).parameters
    encoder: Encoder = Observed(**{name: value for name, value in wanted.items() if name in known})
    encoder.frame_skip_count = spec.frame_skip
    return encoder


def open_camera(camera_id: str, plan: CameraPlan, *, is_hardware_encoder: bool) -> Camera:
    """Open the camera of that id; configure and start it then.

    Raises:
        NotFoundError: it is not there any more. Else what picamera2 raises.
    """
    return Camera(_open(camera_id), camera_id, plan, is_hardware_encoder=is_hardware_encoder)


def probe(camera_id: str) -> CameraFacts:
    """Modes and controls; opens the camera for a moment, and allocates nothing.

    Raises:
        NotFoundError: it is not there any more. Else what picamera2 raises.
    """
    # `sensor_modes` configures every mode: with picamera2's own allocator four buffers for each, 70 MiB for an IMX477.
    camera = _open(camera_id, allocator=Allocator())
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


def _open(camera_id: str, **options: Any) -> Picamera2:
    for position, info in enumerate(listed()):
        if info["Id"] != camera_id:
            continue
        try:
            camera: Picamera2 = construct(Picamera2, Allocator, position, info["Num"], **options)
            return camera
        except BaseException:
            if not any(other["Id"] == camera_id for other in listed()):
                break  # unplugged meanwhile: not what the constructor makes of it
            raise
    raise NotFoundError("the camera is not there any more")


def _offered(camera: Picamera2) -> dict[str, set[Size]]:
    """Pixel formats and sizes of a camera that has no sensor modes (USB)."""
    formats = camera.camera.generate_configuration([libcamera.StreamRole.VideoRecording]).at(0).formats
    return {str(pixel): {(size.width, size.height) for size in formats.sizes(pixel)} for pixel in formats.pixel_formats}
