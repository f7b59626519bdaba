"""MediaRecorderOptions: conversion and defaults. Pure.

https://w3c.github.io/mediacapture-record/#mediarecorderoptions-section
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from msrecd.dom.dictionaries import warn_of_unknown
from msrecd.dom.exceptions import NotSupportedError
from msrecd.flow.encoded import Overlay
from msrecd.vocabulary.lapse import TimeLapse

DEFAULT_VIDEO_BITS_PER_SECOND = 2_500_000
DEFAULT_AUDIO_BITS_PER_SECOND = 128_000
DEFAULT_MAX_BUFFERED = 64 << 20
DEFAULT_LAPSE_RATE = 25.0
SHORTEST_INTERVAL = 1000.0  # ms
POSITIONS = ("top-left", "top-right", "bottom-left", "bottom-right")
_LEAST_AUDIO, _LEAST_VIDEO = 6_000, 10_000
_UNSIGNED_LONG = 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderOptions:
    """The converted options; None where absent. Times in ms as in the specification, the extensions likewise."""

    mime_type: str = ""
    audio_bits_per_second: int | None = None
    video_bits_per_second: int | None = None
    bits_per_second: int | None = None
    audio_bitrate_mode: str = "variable"
    video_key_frame_interval_duration: float | None = None
    video_key_frame_interval_count: int | None = None
    chunk_duration: float | None = None
    chunk_max_size: int | None = None
    pre_roll: float = 0.0
    max_buffered: int = DEFAULT_MAX_BUFFERED
    overlay: Overlay | None = None
    time_lapse: TimeLapse | None = None
    eager: bool = False


def convert(options: Mapping[str, object] | None) -> RecorderOptions:
    """Options as WebIDL would convert them; unknown members are ignored with a warning, None counts as absent.

    Raises:
        TypeError: a member has a wrong type or an enum an unknown value.
        NotSupportedError: both key-frame intervals are given (decision C1), or a chunk limit is not positive.
    """
    if options is None:
        return RecorderOptions()
    if not isinstance(options, Mapping):
        raise TypeError(f"options must be a mapping, not {type(options).__name__}")
    warn_of_unknown("MediaRecorder", options, [field.name for field in fields(RecorderOptions)], stacklevel=4)
    mime_type = options.get("mime_type")
    if mime_type is None:
        mime_type = ""
    if not isinstance(mime_type, str):
        raise TypeError(f"mime_type must be a str, not {type(mime_type).__name__}")
    mode = options.get("audio_bitrate_mode")
    if mode is None:
        mode = "variable"
    if mode not in ("constant", "variable"):
        raise TypeError(f"audio_bitrate_mode must be 'constant' or 'variable', not {mode!r}")
    converted = RecorderOptions(
        mime_type=mime_type,
        audio_bits_per_second=_unsigned(options, "audio_bits_per_second"),
        video_bits_per_second=_unsigned(options, "video_bits_per_second"),
        bits_per_second=_unsigned(options, "bits_per_second"),
        audio_bitrate_mode=mode,
        video_key_frame_interval_duration=_number(options, "video_key_frame_interval_duration"),
        video_key_frame_interval_count=_unsigned(options, "video_key_frame_interval_count"),
        chunk_duration=_number(options, "chunk_duration"),
        chunk_max_size=_unsigned(options, "chunk_max_size"),
        pre_roll=_number(options, "pre_roll") or 0.0,
        max_buffered=_unsigned(options, "max_buffered") or DEFAULT_MAX_BUFFERED,
        overlay=_overlay(options.get("overlay")),
        time_lapse=_time_lapse(options.get("time_lapse")),
        eager=bool(options.get("eager")),
    )
    if converted.video_key_frame_interval_duration is not None and converted.video_key_frame_interval_count is not None:
        raise NotSupportedError(
            "video_key_frame_interval_duration and video_key_frame_interval_count exclude each other"
        )
    for name, value in (("chunk_duration", converted.chunk_duration), ("chunk_max_size", converted.chunk_max_size)):
        if value is not None and value <= 0:
            raise NotSupportedError(f"{name} must be greater than 0")
    if converted.pre_roll < 0:
        raise NotSupportedError("pre_roll must not be negative")
    if converted.pre_roll and converted.time_lapse is not None:
        raise NotSupportedError("pre_roll and time_lapse exclude each other")
    return converted


def _overlay(value: object) -> Overlay | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"overlay must be a mapping with text and position, not {type(value).__name__}")
    warn_of_unknown("overlay", value, ("text", "position"), stacklevel=6)
    text, position = value.get("text"), value.get("position", "bottom-left")
    if isinstance(text, str):
        line = text
        text = lambda at_ns: line  # noqa: E731 - the text is the same for all frames
    if not callable(text):
        raise TypeError("overlay.text must be a str, or a function from ns on CLOCK_MONOTONIC to one")
    if position not in POSITIONS:
        raise TypeError(f"overlay.position must be one of {', '.join(POSITIONS)}, not {position!r}")
    return Overlay(text, position)


def _time_lapse(value: object) -> TimeLapse | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"time_lapse must be a mapping with interval and frame_rate, not {type(value).__name__}")
    warn_of_unknown("time_lapse", value, ("interval", "frame_rate"), stacklevel=6)
    interval, rate = _number(value, "interval"), _number(value, "frame_rate")
    if interval is None:
        raise TypeError("time_lapse.interval is missing")
    if interval < SHORTEST_INTERVAL:
        raise NotSupportedError(f"time_lapse.interval must be {SHORTEST_INTERVAL:g} ms at least")
    if rate is not None and not 1 <= rate <= 120:
        raise NotSupportedError("time_lapse.frame_rate must be 1 to 120")
    return TimeLapse(interval / 1000, DEFAULT_LAPSE_RATE if rate is None else rate)


def bit_rates(options: RecorderOptions) -> tuple[int, int]:
    """(video, audio) bits a second right after construction, whatever tracks there are."""
    if options.bits_per_second is not None:
        return split_both(options.bits_per_second)
    video, audio = options.video_bits_per_second, options.audio_bits_per_second
    return (
        DEFAULT_VIDEO_BITS_PER_SECOND if video is None else video,
        DEFAULT_AUDIO_BITS_PER_SECOND if audio is None else audio,
    )


def split_both(total: int) -> tuple[int, int]:
    """(video, audio) shares of a total; neither is 0, the sum is the total unless that is below what a codec can do."""
    audio = max(_LEAST_AUDIO, min(DEFAULT_AUDIO_BITS_PER_SECOND, total // 10))
    return max(_LEAST_VIDEO, total - audio), audio


def _unsigned(options: Mapping[str, object], name: str) -> int | None:
    value = options.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not math.isfinite(value):
        raise TypeError(f"{name} must be a finite number")
    return int(value) % _UNSIGNED_LONG if value < 0 else int(value)


def _number(options: Mapping[str, object], name: str) -> float | None:
    value = options.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    if not math.isfinite(value):
        raise TypeError(f"{name} must be a finite number")
    return float(value)
