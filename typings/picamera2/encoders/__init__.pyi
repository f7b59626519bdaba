from typing import Any

from picamera2.outputs import Output

class Encoder:
    firsttimestamp: int | None
    frame_skip_count: int
    output: Output
    name: str
    size: tuple[int, int]
    format: str
    stride: int
    def start(self, quality: Any = ...) -> None: ...
    def stop(self) -> None: ...
    def force_key_frame(self) -> None: ...

class H264Encoder(Encoder):
    def __init__(self, **kwargs: Any) -> None: ...

class LibavH264Encoder(Encoder):
    def __init__(self, **kwargs: Any) -> None: ...

class MJPEGEncoder(Encoder):
    def __init__(self, **kwargs: Any) -> None: ...
