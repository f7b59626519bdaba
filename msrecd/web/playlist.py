"""HLS playlists (RFC 8216) over chunk files as they lie on the medium. Pure.

A chunk is complete in itself: it has an initialisation segment of its own and its times begin at 0, so each one begins
behind a discontinuity. Time that was not recorded is left out and shows in the dates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from msrecd.vocabulary.times import format_utc
from msrecd.web.segments import Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaylistChunk:
    """A chunk in a playlist; url: relative to the playlist; init_bytes: the length of its initialisation segment."""

    url: str
    started_ns: int
    duration_s: float
    bytes: int
    init_bytes: int


def playlist(chunks: Sequence[PlaylistChunk]) -> str:
    """All of these chunks, each one a segment."""
    lines = _head(chunk.duration_s for chunk in chunks)
    for chunk in chunks:
        rest = chunk.bytes - chunk.init_bytes
        lines += [
            "#EXT-X-DISCONTINUITY",
            *_chunk_head(chunk),
            f"#EXTINF:{chunk.duration_s:.6f},",
            f"#EXT-X-BYTERANGE:{rest}@{chunk.init_bytes}",
            chunk.url,
        ]
    return _text(lines)


def chunk_playlist(chunk: PlaylistChunk, segments: Sequence[Segment]) -> str:
    """One chunk, in segments that each begin with a fragment that has a key frame."""
    lines = [*_head(segment.duration_s for segment in segments), *_chunk_head(chunk)]
    for segment in segments:
        lines += [
            f"#EXTINF:{segment.duration_s:.6f},",
            f"#EXT-X-BYTERANGE:{segment.bytes}@{segment.offset}",
            chunk.url,
        ]
    return _text(lines)


def _head(durations: Iterable[float]) -> list[str]:
    longest = max(durations, default=0.0)
    return [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        f"#EXT-X-TARGETDURATION:{max(1, math.floor(longest + 0.5))}",  # the longest, rounded to the nearest (4.3.3.1)
    ]


def _chunk_head(chunk: PlaylistChunk) -> list[str]:
    return [
        f'#EXT-X-MAP:URI="{chunk.url}",BYTERANGE="{chunk.init_bytes}@0"',
        f"#EXT-X-PROGRAM-DATE-TIME:{format_utc(chunk.started_ns)}",
    ]


def _text(lines: Iterable[str]) -> str:
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""])
