"""What msrecd uses of libcamera's Python binding."""

class StreamRole:
    VideoRecording: StreamRole

class Transform:
    hflip: bool
    vflip: bool
    def __init__(self, *, hflip: bool = ..., vflip: bool = ...) -> None: ...
