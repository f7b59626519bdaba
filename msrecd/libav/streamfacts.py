"""What a stream is: its codec, its facts, and the description that a muxer takes."""

from __future__ import annotations

import io
from typing import Any

import av
import av.error

from msrecd.libav.colors import presentation_of_stream
from msrecd.libav.common import Writer, close_quietly, plain, put_template_packet
from msrecd.libav.headers import without_flac_sums
from msrecd.libav.values import LibavError, StreamInfo


def stream_info_of_annexb(key_frame: bytes, codec: str = "h264", extradata: bytes | None = None) -> StreamInfo:
    """What a raw H.264 (or "hevc") key frame with in-band parameter sets says about its stream; `extradata` in place
    of what libav takes out of it.

    Raises:
        LibavError: there are no parameter sets in it.
    """
    try:
        container = av.open(io.BytesIO(key_frame), format=codec)
    except (av.error.FFmpegError, ValueError) as exc:
        raise LibavError(f"not a {codec} key frame with parameter sets: {plain(exc)}") from exc
    try:
        info = stream_info(container.streams[0], extradata)
    finally:
        close_quietly(container)
    if info is None or not info.width:
        raise LibavError(f"not a {codec} key frame with parameter sets")
    return info


def stream_info(stream: Any, extradata: bytes | None = None) -> StreamInfo | None:
    """The facts of a stream; `extradata` in place of the container's.

    Raises:
        LibavError: it is sound or video, and its facts are not known.
    """
    context = getattr(stream, "codec_context", None)
    if stream.type not in ("video", "audio"):
        return None
    if context is None:
        raise LibavError("its codec is not known")
    codec = context.codec.canonical_name if hasattr(context.codec, "canonical_name") else context.name
    # A muxer divides by these.
    if stream.type == "audio" and not (context.sample_rate > 0 and context.layout.nb_channels > 0):
        raise LibavError(f"nothing is known of its {codec} sound")
    if stream.type == "video" and not (context.width > 0 and context.height > 0):
        raise LibavError(f"nothing is known of its {codec} frames")
    if not extradata:
        extradata = bytes(context.extradata or b"")
    if codec == "flac":
        extradata = without_flac_sums(extradata)
    common: dict[str, Any] = {
        "index": stream.index,
        "codec": {"libvpx-vp9": "vp9", "libdav1d": "av1"}.get(codec, codec),
        "extradata": extradata,
        "header": _description_of(stream, extradata),
    }
    if stream.type == "video":
        rate = stream.average_rate or stream.guessed_rate
        return StreamInfo(
            kind="video",
            width=context.width,
            height=context.height,
            frame_rate=float(rate) if rate else None,
            reorder_depth=2 if context.has_b_frames else 0,
            presentation=presentation_of_stream(stream),
            **common,
        )
    layout = context.layout.name
    return StreamInfo(
        kind="audio",
        sample_rate=context.sample_rate,
        channels=len(context.layout.channels),
        frame_samples=int(getattr(context, "frame_size", 0) or 0),
        layout=layout if not layout[:1].isdigit() or "." in layout else "",  # "3 channels" is no layout
        bits=_bits_of(codec, extradata),
        **common,
    )


def _bits_of(codec: str, extradata: bytes) -> int:
    """Significant bits of a sample where there are more than 16; 0 otherwise."""
    if codec.startswith(("pcm_s24", "pcm_s32", "pcm_f32")):
        return 24 if "24" in codec else 32
    if codec == "flac" and len(extradata) >= 34:  # STREAMINFO, RFC 9639, 8.2
        bits = ((extradata[-22] & 1) << 4 | extradata[-21] >> 4) + 1
        return bits if bits > 16 else 0
    return 0


def _description_of(stream: Any, extradata: bytes) -> bytes:
    try:
        return _described_in("nut", stream, extradata)
    except LibavError:
        return _described_in("matroska", stream, extradata)  # NUT knows neither ALAC nor ProRes


def _described_in(format: str, stream: Any, extradata: bytes) -> bytes:
    """
    Raises:
        LibavError: this format does not take the stream.
    """
    description = bytearray()
    container = av.open(Writer(description.extend), "w", format=format)
    try:
        twin = container.add_stream_from_template(stream, opaque=True)
        if extradata != bytes(stream.codec_context.extradata or b""):
            twin.codec_context.extradata = extradata
        container.start_encoding()
        put_template_packet(container, twin, extradata)
    except (av.error.FFmpegError, ValueError) as exc:
        raise LibavError(f"cannot describe the {stream.type} stream: {plain(exc)}") from exc
    finally:
        close_quietly(container)
    return bytes(description)


def is_still(stream: Any) -> bool:
    """A cover, or another picture that accompanies sound."""
    disposition = stream.disposition
    return bool(disposition & (type(disposition).attached_pic | type(disposition).timed_thumbnails))


def may_be_adts(stream: Any) -> bool:
    context = getattr(stream, "codec_context", None)
    return stream.type == "audio" and context is not None and context.name == "aac" and not context.extradata
