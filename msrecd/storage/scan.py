"""What a scan of a media file found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_ELEMENTS = 4_000_000  # of one file: boxes, blocks, pages; ours have less, and what is made up ends somewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackScan:
    """One track up to the cut: `units` are frames of video or samples of audio."""

    kind: str
    units: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """cut: bytes up to the end of the last whole fragment, 0 when there is none."""

    cut: int = 0
    fragments: int = 0
    tracks: Mapping[str, TrackScan] = field(default_factory=dict)

    @property
    def duration_s(self) -> float:
        """Length of the time line that begins at 0."""
        return round(max((track.end_s for track in self.tracks.values()), default=0.0), 6)

    def manifest_tracks(self) -> dict[str, dict[str, float]]:
        """As the manifest says it; what only the recorder knew is 0."""
        found: dict[str, dict[str, float]] = {}
        for kind, track in self.tracks.items():
            if kind == "video":
                found[kind] = {"frames": track.units, "dropped": 0}
            else:
                found[kind] = {"samples": track.units, "xruns": 0, "gap_s": 0.0, "drift_ppm": 0.0, "offset_ms": 0.0}
        return found
