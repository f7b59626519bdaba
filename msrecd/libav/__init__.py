"""The only package that imports PyAV: encoders, muxers, demuxers, decoders as thin adaptors. Policy lives elsewhere.

Rules learned the hard way and kept here:
- Outputs are never opened by path: PyAV holds the GIL while it opens, writes headers and closes, so a slow card would
  stop every thread. Muxers write into a callable of ours.
- A started output is always closed; a stream object is never touched after its container was closed (both crash).
- A muxer takes its stream description from a template read out of a tiny NUT file (`StreamParameters.header`):
  `add_stream("h264")` would open an encoder and describe that one.
Every error of libav leaves this package as LibavError.
"""

from __future__ import annotations

from msrecd.libav.decoders import AudioDecoder, FlacFacts, VideoDecoder, flac_facts
from msrecd.libav.demuxer import Demuxer
from msrecd.libav.encoders import PCM_BYTES, AudioEncoder, VideoEncoder, encoder_for, most_channels
from msrecd.libav.muxer import Muxer
from msrecd.libav.pictures import jpeg, picture, planes
from msrecd.libav.streamfacts import stream_info_of_annexb
from msrecd.libav.values import Demuxed, Encoded, LibavError, StreamInfo, encoder_sample_rate

__all__ = [
    "PCM_BYTES",
    "AudioDecoder",
    "AudioEncoder",
    "Demuxed",
    "Demuxer",
    "Encoded",
    "FlacFacts",
    "LibavError",
    "Muxer",
    "StreamInfo",
    "VideoDecoder",
    "VideoEncoder",
    "encoder_for",
    "encoder_sample_rate",
    "flac_facts",
    "jpeg",
    "most_channels",
    "picture",
    "planes",
    "stream_info_of_annexb",
]
