"""Silence, encoded once: what stands in for the packets of a sound track that is disabled or muted."""

from __future__ import annotations

from dataclasses import dataclass

from msrecd import libav
from msrecd.clock import NS
from msrecd.flow.encoded import EncodingRequest, StreamParameters
from msrecd.flow.units import AudioFormat

_SECONDS = 0.3  # encoded; a packet from the middle has neither the encoder's beginning in it nor its end


@dataclass(frozen=True, slots=True)
class Silence:
    """One packet's worth; is_pcm: zeros, of which any number will do."""

    duration_ns: int
    data: bytes
    is_pcm: bool = False


def encoded_silence(
    request: EncodingRequest, parameters: StreamParameters, format: AudioFormat | None = None
) -> Silence:
    """Silence for a stream, encoded as it is; blocks for some milliseconds.

    Args:
        format: of the PCM that the stream is encoded from, where that is known.

    Raises:
        LibavError: there is no encoder for its codec, or it refuses.
    """
    if format is None:
        format = AudioFormat(sample_rate=parameters.sample_rate, channels=parameters.channels)
    if parameters.codec in libav.PCM_BYTES:
        samples = parameters.sample_rate // 50
        zeros = bytes(samples * libav.PCM_BYTES[parameters.codec] * parameters.channels)
        return Silence(samples * NS // parameters.sample_rate, zeros, is_pcm=True)
    encoder = libav.AudioEncoder(
        codec=parameters.codec,
        source=format,
        bit_rate=request.bit_rate,
        constant_bit_rate=request.bitrate_mode == "constant",
    )
    try:
        samples = round(_SECONDS * format.sample_rate)
        packets = encoder.encode(bytes(samples * format.frame_bytes), 0) + encoder.flush()
        middle = packets[len(packets) // 2]
        return Silence(middle.duration * NS // encoder.sample_rate, middle.data)
    finally:
        encoder.close()
