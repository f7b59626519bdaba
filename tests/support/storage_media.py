"""Small media files of every container, written as a recorder does: to an object that cannot seek."""

from __future__ import annotations

import functools
from fractions import Fraction

import av
import numpy as np

FORMATS = {
    "mp4": ("mp4", {"movflags": "+empty_moov+default_base_moof", "frag_duration": "200000"}, "mpeg4", "aac"),
    "m4a": ("mp4", {"movflags": "+empty_moov+default_base_moof", "frag_duration": "200000"}, None, "aac"),
    "mkv": ("matroska", {"cluster_time_limit": "200"}, "mpeg4", "libopus"),
    "webm": ("webm", {"cluster_time_limit": "200", "live": "1"}, "libvpx", "libopus"),
    "ogg": ("ogg", {"page_duration": "200000"}, None, "libopus"),
    "flac": ("flac", {}, None, "flac"),
    "wav": ("wav", {}, None, "pcm_s16le"),
}
FRAMES = 20
RATE = 48_000


class _Sink:
    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.parts.append(bytes(data))
        return len(data)


@functools.cache
def make(extension: str) -> bytes:
    """Two seconds: 20 frames of 64x48 at 10 a second where there is a picture, and 96000 samples of a tone."""
    name, options, video_codec, audio_codec = FORMATS[extension]
    sink = _Sink()
    container = av.open(sink, "w", format=name, options=options)
    try:
        video = container.add_stream(video_codec, rate=10) if video_codec else None
        if video is not None:
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            video.codec_context.gop_size = 5
        audio = container.add_stream(audio_codec, rate=RATE, layout="mono")
        step = RATE // 10
        for number in range(FRAMES):
            if video is not None:
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number * 10, np.uint8), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 10)
                container.mux(video.encode(frame))
            wave = np.sin(np.arange(number * step, (number + 1) * step) * 0.05) * 9000
            block = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
            block.sample_rate, block.pts, block.time_base = RATE, number * step, Fraction(1, RATE)
            container.mux(audio.encode(block))
        for stream in (video, audio):
            if stream is not None:
                container.mux(stream.encode(None))
    finally:
        container.close()
    return b"".join(sink.parts)
