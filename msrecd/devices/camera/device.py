"""What CameraSource and its parts want of a camera: `CameraDevice`, which picamera.device is on picamera2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from msrecd.devices.camera.frames import Request
from msrecd.devices.camera.modes import Size
from msrecd.devices.camera.packets import EncodedStream
from msrecd.flow.encoded import StreamParameters

StreamName = Literal["main", "lores"]
Codec = Literal["h264", "mjpeg"]


class ParametersMaker(Protocol):
    """Makes a stream's description out of a key frame (H.264 in Annex B form, or a JPEG); raises what it likes."""

    def __call__(
        self, key_frame: bytes, /, *, codec: str, width: int, height: int, frame_rate: float | None, encoder: str
    ) -> StreamParameters: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamShape:
    """What a configured stream delivers: libav's name of the pixel format, bytes from line to line.

    hflip, vflip: what the camera was to mirror and cannot.
    """

    size: Size
    pixel_format: str
    stride: int
    hflip: bool = False
    vflip: bool = False

    @property
    def is_mirrored_here(self) -> bool:
        return self.hflip or self.vflip


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """What to start an encoder with; key_frame_period in frames, bit_rate 0: picamera2's choice."""

    codec: Codec
    stream: StreamName
    bit_rate: int
    key_frame_period: int
    frame_rate: float | None
    frame_skip: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RawFrame:
    """A frame as the sensor gave it; stride: bytes from line to line, metadata by libcamera's names."""

    buffer: memoryview
    pixel_format: str
    size: Size
    stride: int
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Still:
    """A frame in the still mode, as it was in its buffer."""

    shape: StreamShape
    buffer: memoryview
    raw: RawFrame | None


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
    def start_encoder(
        self, spec: EncoderSpec, output: EncodedStream, before_encode: Callable[[Request], None]
    ) -> EncoderHandle:
        """Start an encoder; `before_encode` is called with each frame right before it is encoded, and may not raise."""

    def stop_encoder(self, encoder: EncoderHandle) -> None: ...
    def change(self, request: Request, stream: StreamName, draw: Callable[[memoryview, int], None]) -> None:
        """Call `draw` with the buffer of a stream of a frame, and its bytes from line to line. Camera's thread."""

    @property
    def still_size(self) -> Size | None:
        """Of its stills, where they are larger than its frames. Any thread."""

    @property
    def no_raw(self) -> str | None:
        """Why there are no raw frames of it; None: there are. Any thread."""

    def take_still(self, timeout_s: float, *, with_raw: bool = False) -> Still:
        """Stop, switch to the still mode, and take one frame in it.

        The camera is stopped then, also after an exception: `configure` and `start` have it go on. No encoder runs.

        Args:
            with_raw: with the sensor's own frame; only where `no_raw` is None.

        Raises:
            TimeoutError: no frame came in time. Else what picamera2 raises.
        """

    def set_controls(self, settings: Mapping[str, Any]) -> None: ...
