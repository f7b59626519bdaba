"""When a chunk ends. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkLimits:
    """duration_ns: cut at the first key frame at or after it; size_bytes: at the first that would exceed it."""

    duration_ns: int | None = None
    size_bytes: int | None = None


def cut_before(
    limits: ChunkLimits, *, elapsed_ns: int, written_bytes: int, packet_bytes: int, is_cut_point: bool, asked: bool
) -> bool:
    """Whether the packet at `elapsed_ns` of the chunk begins a new one.

    `is_cut_point`: a key frame of the video, or any packet where there is no video. `asked`: split() was called.
    The size counts what came out of the muxer; half a second of key-frame distance is left as margin by the caller.
    """
    if not is_cut_point or elapsed_ns <= 0:
        return False
    if asked:
        return True
    # Half a millisecond of grace: a frame grid seldom falls on the limit to the nanosecond.
    if limits.duration_ns is not None and elapsed_ns + 500_000 >= limits.duration_ns:
        return True
    return limits.size_bytes is not None and written_bytes + packet_bytes > limits.size_bytes


def wants_key_frame_at(
    limits: ChunkLimits, *, chunk_start_ns: int, written_bytes: int, bytes_per_ns: float
) -> int | None:
    """Capture time at which a key frame is wanted for the next cut, None while none is foreseeable.

    For the size limit it is foreseen from the rate so far, two seconds ahead.
    """
    wanted: int | None = None
    if limits.duration_ns is not None:
        wanted = chunk_start_ns + limits.duration_ns
    if limits.size_bytes is not None and bytes_per_ns > 0:
        left_ns = int((limits.size_bytes * 0.98 - written_bytes) / bytes_per_ns)
        if left_ns < 2_000_000_000:
            at = chunk_start_ns + int(written_bytes / bytes_per_ns) + max(0, left_ns - 100_000_000)
            wanted = at if wanted is None else min(wanted, at)
    return wanted
