"""StreamParameters from encoders, from inputs, and from a camera's first key frame."""

from __future__ import annotations

from dataclasses import replace

from msrecd import libav
from msrecd.codecs.strings import codec_string
from msrecd.flow.encoded import StreamParameters
from msrecd.vocabulary.nal import is_parameter_set, nal_units


def of_video_encoder(encoder: libav.VideoEncoder, frame_rate: float | None) -> StreamParameters:
    return StreamParameters(
        kind="video",
        codec=encoder.codec,
        header=encoder.header,
        codec_string=codec_string(encoder.codec, encoder.extradata, width=encoder.width, height=encoder.height),
        extradata=encoder.extradata,
        width=encoder.width,
        height=encoder.height,
        frame_rate=frame_rate,
        presentation=encoder.presentation,
        encoder=encoder.name,
    )


def of_audio_encoder(encoder: libav.AudioEncoder) -> StreamParameters:
    return StreamParameters(
        kind="audio",
        codec=encoder.codec,
        header=encoder.header,
        codec_string=codec_string(encoder.codec, encoder.extradata),
        extradata=encoder.extradata,
        sample_rate=encoder.sample_rate,
        channels=encoder.channels,
        layout=encoder.layout,
        bits=encoder.bits,
        frame_samples=encoder.frame_samples,
        encoder=encoder.name,
    )


def of_input(info: libav.StreamInfo) -> StreamParameters:
    """Of a stream that is passed through as it is."""
    return StreamParameters(
        kind=info.kind,
        codec=info.codec,
        header=info.header,
        codec_string=codec_string(info.codec, info.extradata, width=info.width, height=info.height),
        extradata=info.extradata,
        width=info.width,
        height=info.height,
        frame_rate=info.frame_rate,
        presentation=info.presentation,
        sample_rate=info.sample_rate,
        channels=info.channels,
        layout=info.layout,
        bits=info.bits,
        frame_samples=info.frame_samples,
        encoder="passthrough",
    )


def camera_parameters(
    key_frame: bytes, *, codec: str, width: int, height: int, frame_rate: float | None, encoder: str
) -> StreamParameters:
    """Of what a camera's encoder makes, from its first key frame: H.264 in Annex B form with SPS and PPS, or a JPEG.

    Raises:
        LibavError: the key frame has no parameter sets.
    """
    info = libav.stream_info_of_annexb(key_frame, codec)
    extradata = info.extradata
    if codec == "h264" and not extradata:
        sets = [unit for unit in nal_units(key_frame) if is_parameter_set(unit, "h264")]
        extradata = b"".join(b"\0\0\0\1" + unit for unit in sets)
    return replace(
        of_input(info),
        codec_string=codec_string(codec, extradata),
        extradata=extradata,
        width=width,
        height=height,
        frame_rate=frame_rate,
        encoder=encoder,
    )
