"""What sound that comes without a container is."""

from __future__ import annotations

import io
from collections.abc import Sequence

import av
import av.error

from msrecd.libav.common import close_quietly, plain
from msrecd.libav.streamfacts import stream_info
from msrecd.libav.values import LibavError, StreamInfo

_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "7.1"}  # ISO/IEC 14496-3, 1.6.3.4
_RAW = {"pcm_mulaw": "mulaw", "pcm_alaw": "alaw"}


def sound_info(codec: str, packets: Sequence[bytes], *, clock_rate: int, channels: int, config: bytes) -> StreamInfo:
    """Of AAC, by its AudioSpecificConfig and a few packets; of G.711. Without packets as of one of silence.

    Raises:
        LibavError: nothing can be said of it.
    """
    if codec == "aac":
        data, format, options = _with_headers(packets or _silent_aac(config), config), "aac", {}
    else:
        packets = packets or [bytes(160)]
        data, format = b"".join(packets), _RAW[codec]
        options = {"sample_rate": str(clock_rate), "ch_layout": "mono" if channels == 1 else "stereo"}
    try:
        container = av.open(io.BytesIO(data), format=format, options=options)
    except (av.error.FFmpegError, ValueError) as exc:
        raise LibavError(f"not {codec}: {plain(exc)}") from exc
    try:
        info = stream_info(container.streams[0], config if codec == "aac" else None)
    finally:
        close_quietly(container)
    if info is None:
        raise LibavError(f"not {codec}")
    return info


def _silent_aac(config: bytes) -> list[bytes]:
    """Of the channels of a configuration.

    Raises:
        LibavError: they are not known.
    """
    layout = _LAYOUTS.get(config[1] >> 3 & 15) if len(config) > 1 else None
    if layout is None:
        raise LibavError("nothing of it comes, and its description does not tell what it is")
    try:
        encoder = av.CodecContext.create("aac", "w")
        encoder.sample_rate, encoder.layout, encoder.format = 48_000, layout, "fltp"  # the rate stands in the header
        frame = av.AudioFrame("fltp", layout, 1024)
        frame.sample_rate = 48_000
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        packets = [bytes(packet) for unit in (frame, None) for packet in encoder.encode(unit)]
    except (av.error.FFmpegError, ValueError) as exc:
        raise LibavError(f"nothing of it comes, and it cannot be told what it is: {plain(exc)}") from exc
    return packets


def _with_headers(packets: Sequence[bytes], config: bytes) -> bytes:
    """AAC with ADTS headers (ISO/IEC 13818-7, 6.2).

    Raises:
        LibavError: the configuration is none that such a header can tell.
    """
    if len(config) < 2:
        raise LibavError("its configuration is missing")
    object_type, rate, channels = config[0] >> 3, (config[0] & 7) << 1 | config[1] >> 7, config[1] >> 3 & 15
    if rate > 12 or not 0 < channels < 8:
        raise LibavError("its configuration is not known")
    profile = (object_type if object_type in (1, 2, 3, 4) else 2) - 1
    parts = []
    for packet in packets:
        size = len(packet) + 7
        parts.append(
            bytes((
                0xFF, 0xF1, profile << 6 | rate << 2 | channels >> 2, (channels & 3) << 6 | size >> 11 & 3,
                size >> 3 & 255, (size & 7) << 5 | 0x1F, 0xFC,
            )) + packet
        )  # fmt: skip
    return b"".join(parts)
