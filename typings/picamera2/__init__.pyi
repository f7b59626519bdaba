"""What msrecd uses of picamera2 0.3.3x (it ships no types)."""

import threading
from collections.abc import Callable
from typing import Any

from picamera2.allocators import Allocator
from picamera2.encoders import Encoder
from picamera2.outputs import Output

class Picamera2:
    platform: Any
    _cm: Any
    allocator: Any
    camera_idx: int
    notifymeread: Any
    notifyme_w: int
    camera: Any
    lock: threading.Lock
    pre_callback: Callable[[Any], None] | None
    encoders: Any
    def __init__(self, camera_num: int = ..., *, allocator: Allocator | None = ...) -> None: ...
    @staticmethod
    def global_camera_info() -> list[dict[str, Any]]: ...
    sensor_format: str
    @property
    def camera_properties(self) -> dict[str, Any]: ...
    @property
    def camera_controls(self) -> dict[str, tuple[Any, Any, Any]]: ...
    @property
    def sensor_modes(self) -> list[dict[str, Any]]: ...
    def create_video_configuration(
        self,
        main: dict[str, Any] = ...,
        lores: dict[str, Any] | None = ...,
        raw: dict[str, Any] | None = ...,
        *,
        buffer_count: int = ...,
        controls: dict[str, Any] = ...,
        queue: bool = ...,
        transform: Any = ...,
        sensor: dict[str, Any] | None = ...,
    ) -> dict[str, Any]: ...
    def configure(self, camera_config: dict[str, Any] | None = ...) -> None: ...
    def camera_configuration(self) -> dict[str, Any]: ...
    def start(self, show_preview: Any = ...) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...
    def set_controls(self, controls: dict[str, Any]) -> None: ...
    def start_encoder(self, encoder: Encoder, output: Output, *, name: str | None = ...) -> None: ...
    def stop_encoder(self, encoders: Encoder) -> None: ...

class MappedArray:
    array: Any
    def __init__(self, request: Any, stream: str, reshape: bool = ..., write: bool = ...) -> None: ...
    def __enter__(self) -> MappedArray: ...
    def __exit__(self, *exc: object) -> None: ...

class CompletedRequest:
    def release(self) -> None: ...
