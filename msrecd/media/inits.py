"""The dictionaries of the specifications as TypedDicts: what a type checker knows of options and constraints.

At run time they are plain dicts; any mapping does. Unknown members are one warning each, and ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from msrecd.media.stream import MediaStream


class MediaRecorderOptions(TypedDict, total=False):
    """https://w3c.github.io/mediacapture-record/#mediarecorderoptions-section, and the extensions (ms and bytes)."""

    mime_type: str | None
    audio_bits_per_second: int | None
    video_bits_per_second: int | None
    bits_per_second: int | None
    audio_bitrate_mode: Literal["constant", "variable"] | None
    video_key_frame_interval_duration: float | None
    video_key_frame_interval_count: int | None
    chunk_duration: float | None
    chunk_max_size: int | None
    pre_roll: float | None
    max_buffered: int | None
    overlay: Mapping[str, Any] | None
    time_lapse: Mapping[str, float] | None


class ConstrainULongRange(TypedDict, total=False):
    min: int
    max: int
    exact: int
    ideal: int


class ConstrainDoubleRange(TypedDict, total=False):
    min: float
    max: float
    exact: float
    ideal: float


class ConstrainBooleanParameters(TypedDict, total=False):
    exact: bool
    ideal: bool


class ConstrainDOMStringParameters(TypedDict, total=False):
    exact: str | Sequence[str]
    ideal: str | Sequence[str]


class ConstrainBooleanOrDOMStringParameters(TypedDict, total=False):
    exact: bool | str
    ideal: bool | str


ConstrainULong = int | ConstrainULongRange
ConstrainDouble = float | ConstrainDoubleRange
ConstrainBoolean = bool | ConstrainBooleanParameters
ConstrainDOMString = str | Sequence[str] | ConstrainDOMStringParameters
ConstrainBooleanOrDOMString = bool | str | ConstrainBooleanOrDOMStringParameters


class MediaTrackConstraintSet(TypedDict, total=False):
    """https://w3c.github.io/mediacapture-main/#dom-mediatrackconstraintset, with the members of Image Capture."""

    device_id: ConstrainDOMString
    group_id: ConstrainDOMString
    width: ConstrainULong
    height: ConstrainULong
    aspect_ratio: ConstrainDouble
    frame_rate: ConstrainDouble
    facing_mode: ConstrainDOMString
    resize_mode: ConstrainDOMString
    sample_rate: ConstrainULong
    sample_size: ConstrainULong
    echo_cancellation: ConstrainBooleanOrDOMString
    auto_gain_control: ConstrainBoolean
    noise_suppression: ConstrainBoolean
    latency: ConstrainDouble
    channel_count: ConstrainULong
    brightness: ConstrainDouble
    color_temperature: ConstrainDouble
    contrast: ConstrainDouble
    exposure_compensation: ConstrainDouble
    exposure_mode: ConstrainDOMString
    exposure_time: ConstrainDouble
    focus_distance: ConstrainDouble
    focus_mode: ConstrainDOMString
    iso: ConstrainDouble
    pan: bool | ConstrainDouble
    saturation: ConstrainDouble
    sharpness: ConstrainDouble
    tilt: bool | ConstrainDouble
    torch: ConstrainBoolean
    white_balance_mode: ConstrainDOMString
    zoom: bool | ConstrainDouble


class MediaTrackConstraints(MediaTrackConstraintSet, total=False):
    advanced: Sequence[MediaTrackConstraintSet]


class MediaStreamConstraints(TypedDict, total=False):
    audio: bool | MediaTrackConstraints
    video: bool | MediaTrackConstraints


class PhotoSettings(TypedDict, total=False):
    """https://w3c.github.io/mediacapture-image/#photosettings-section"""

    image_width: float | None
    full: bool  # an extension


class MediaElementOptions(TypedDict, total=False):
    """Of a MediaElement's input; an extension."""

    transport: Literal["auto", "tcp", "udp"]
    tracks: Sequence[Literal["audio", "video"]]
    timeout: float
    user: str
    password_file: str


class AudioContextOptions(TypedDict, total=False):
    sample_rate: float


class RTCIceServer(TypedDict, total=False):
    urls: str | list[str]
    username: str
    credential: str


class RTCConfiguration(TypedDict, total=False):
    """https://w3c.github.io/webrtc-pc/#rtcconfiguration-dictionary"""

    ice_servers: Sequence[RTCIceServer]
    ice_transport_policy: Literal["all", "relay"]
    bundle_policy: Literal["balanced", "max-compat", "max-bundle"]


class RTCDataChannelInit(TypedDict, total=False):
    ordered: bool
    max_packet_life_time: int
    max_retransmits: int
    protocol: str
    negotiated: bool
    id: int


class RTCRtpTransceiverInit(TypedDict, total=False):
    direction: Literal["sendrecv", "sendonly", "recvonly", "inactive"]
    streams: Sequence[MediaStream]
    send_encodings: Sequence[dict[str, Any]]
