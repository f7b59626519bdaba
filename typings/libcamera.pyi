"""What msrecd uses of libcamera's Python binding."""

class StreamRole:
    VideoRecording: StreamRole
