"""What a recorder will do with the tracks at hand: types, codecs, rates. Decided before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msrecd.clock import MS
from msrecd.codecs.table import Selection, Unsupported, select
from msrecd.dom.exceptions import NotSupportedError
from msrecd.flow.encoded import EncodingRequest
from msrecd.flow.shape import same_shape
from msrecd.flow.units import AudioFormat, Kind
from msrecd.libav import most_channels
from msrecd.media.options import RecorderOptions, bit_rates, split_both
from msrecd.media.track import MediaStreamTrack
from msrecd.muxing.recording import WorkerOptions
from msrecd.muxing.rotation import ChunkLimits


@dataclass(frozen=True, slots=True)
class Plan:
    """Tracks and, in the same order, what is asked of their encodings. Equal plans can use the same encodings."""

    tracks: tuple[MediaStreamTrack, ...]
    requests: tuple[EncodingRequest, ...]
    selection: Selection
    video_bits_per_second: int
    audio_bits_per_second: int


def make_plan(options: RecorderOptions, tracks: Sequence[MediaStreamTrack]) -> Plan:
    """
    Args:
        options: of the recorder.
        tracks: live ones.

    Raises:
        NotSupportedError: they cannot be recorded with these options.
    """
    kinds: frozenset[Kind] = frozenset(track.kind for track in tracks)
    native: dict[Kind, str | None] = {}
    for track in tracks:
        native.setdefault(track.kind, track._source.native_codec())
    try:
        selection = select(options.mime_type, kinds, native)
    except Unsupported as exc:
        raise NotSupportedError(str(exc)) from exc
    if options.time_lapse is not None and kinds != {"video"}:
        raise NotSupportedError("time_lapse: it has no sound; record video only, or remove time_lapse")
    if selection.container.is_single_track and len(tracks) > 1:
        raise NotSupportedError(f"{selection.essence} holds one audio track, the stream has {len(tracks)}")
    video, audio = rates_for(options, kinds)
    return Plan(
        tracks=tuple(tracks),
        requests=tuple(_request(options, track, selection, video, audio) for track in tracks),
        selection=selection,
        video_bits_per_second=video,
        audio_bits_per_second=audio,
    )


def rates_for(options: RecorderOptions, kinds: frozenset[Kind]) -> tuple[int, int]:
    """(video, audio) bits a second; bits_per_second is split over the kinds that are there (step 6 of start())."""
    total = options.bits_per_second
    if total is None:
        return bit_rates(options)
    if len(kinds) == 2:
        return split_both(total)
    return (total, 0) if "video" in kinds else (0, total)


def worker_options(options: RecorderOptions, plan: Plan, *, timeslice_ns: int | None, name: str) -> WorkerOptions:
    """What the recording's thread must know."""
    return WorkerOptions(
        container=plan.selection.container,
        timeslice_ns=timeslice_ns,
        limits=ChunkLimits(
            duration_ns=None if options.chunk_duration is None else int(options.chunk_duration * MS),
            size_bytes=options.chunk_max_size,
        ),
        max_buffered_bytes=options.max_buffered,
        is_eager=options.eager,
        name=name,
    )


def _request(
    options: RecorderOptions, track: MediaStreamTrack, selection: Selection, video: int, audio: int
) -> EncodingRequest:
    format = track._source.format
    if isinstance(format, AudioFormat):
        codec = selection.audio or ""
        if codec == "pcm_s16le" and format.sample_format == "s32" and track._source.native_codec() != codec:
            codec = "pcm_s24le" if format.bits == 24 else "pcm_s32le"  # as many bits as the card has
        if track._source.native_codec() != codec and format.channels > (most := most_channels(codec)):
            raise NotSupportedError(
                f"{codec} holds {most} channels, {track.label!r} has {format.channels}: "
                'ask for "audio/wav" or "video/x-matroska;codecs=pcm", or for fewer channels (channel_count)'
            )
        return EncodingRequest(
            kind="audio",
            codec=codec,
            bit_rate=audio,
            bitrate_mode="constant" if options.audio_bitrate_mode == "constant" else "variable",
            sample_rate=format.sample_rate,
            channels=format.channels,
        )
    if options.overlay is not None and track._source.native_codec() == selection.video:
        raise NotSupportedError(
            f"overlay: {track.label!r} passes through as it is encoded ({selection.video}), so nothing can be drawn "
            "into it; name another codec in mime_type, or remove overlay"
        )
    if options.time_lapse is not None and track._source.native_codec() == selection.video:
        raise NotSupportedError(
            f"time_lapse: {track.label!r} passes through as it is encoded ({selection.video}), so no frame can be left "
            "out; name another codec in mime_type, or remove time_lapse"
        )
    settings = track.get_settings()
    rate = settings.get("frame_rate")
    size = (int(settings.get("width") or format.width), int(settings.get("height") or format.height))
    return EncodingRequest(
        kind="video",
        codec=selection.video or "",
        bit_rate=video,
        width=size[0],
        height=size[1],
        crops=not same_shape(size, (format.width, format.height)),
        frame_rate=None if format.frame_rate is None or rate is None else float(rate),
        key_frame_interval_ns=int((options.video_key_frame_interval_duration or 0) * MS),
        key_frame_interval_count=options.video_key_frame_interval_count or 0,
        overlay=options.overlay,
        time_lapse=options.time_lapse,
    )
