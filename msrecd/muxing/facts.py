"""What a worker tells its recorder: facts, in order, from the worker's thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from msrecd.flow.units import Kind

GapReason = Literal["no_frames", "slow_consumer", "encoder", "lost_sound", "device_missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Media that should be there and is not; at_s from the chunk's beginning."""

    at_s: float
    duration_s: float
    reason: GapReason


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackFacts:
    """One track in one chunk.

    units: frames (video) or samples (audio) written; dropped: frames (video) or packets (audio) lost on the way; xruns:
    how often sound was lost; gap_s: seconds that the track lacks, each once; drift_ppm, offset_ms: of the sound card's
    clock against the monotonic one.
    """

    kind: Kind
    units: int
    dropped: int = 0
    xruns: int = 0
    gap_s: float = 0.0
    drift_ppm: float = 0.0
    offset_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkInfo:
    """A finished chunk: begin and end on CLOCK_MONOTONIC, length on its own time line, what is in it and what lacks.

    captured_s: the time of capture that is in it, without pauses: `duration_s`, unless it is a time-lapse. Gaps are
    counted in that time. lost_s: for how long all tracks lack at once.
    """

    chunk: int
    started_ns: int
    ended_ns: int
    duration_s: float
    bytes: int
    tracks: tuple[TrackFacts, ...]
    gaps: tuple[Gap, ...] = ()
    captured_s: float = 0.0
    lost_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The header is written; codec strings by kind."""

    codec_strings: Mapping[Kind, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Bytes for a blob.

    created_ns: when its first media was captured (or when it was asked for); started_ns: when its chunk's first was;
    request: the number of the request_data call it answers, None otherwise; info: with the last of a chunk.
    """

    parts: tuple[bytes, ...]
    created_ns: int
    chunk: int
    started_ns: int
    chunk_end: bool = False
    request: int | None = None
    info: ChunkInfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GapSeen:
    """A gap, as soon as it is known; at_ns on CLOCK_MONOTONIC."""

    at_ns: int
    gap: Gap


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The last fact: everything is delivered. error: why it ended by itself; None: stop(), or all tracks have ended."""

    data: Data | None = None  # the last blob's
    error: BaseException | None = None


Fact = Ready | Data | GapSeen | Finished
