"""Payloads of states and events, from what the recorders know. Pure but for the clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msrecd.recorder.controller import RecorderController
    from msrecd.recorder.problems import Problem

_CHUNK = (
    *("seq", "file", "bytes", "sha256", "mime_type", "started", "ended", "duration_s", "clock", "final"),
    *("recovered", "lost_s", "tracks", "gaps"),
)
Stamp = Callable[[int], str]  # monotonic ns -> RFC 3339 UTC with Z


def recorder_state(unit: RecorderController, stamp: Stamp) -> dict[str, Any]:
    """state/recorder/<rec>, but for `rev`."""
    files = unit.files
    last = files.last_chunk
    idle = unit.status.state == "inactive"  # a start is published when it has succeeded
    return {
        "state": unit.status.state,
        "since": stamp(unit.status.since_ns),
        "recording_id": files.recording_id,
        "cause": None if idle else unit.status.cause,
        "armed": unit.is_armed,
        "unmet": unit.unmet,
        "tracks": unit.tracks,
        "mime_type": unit.mime_type or None,
        "chunks": files.chunks,
        "bytes": files.bytes + files.open_bytes,
        "dropped_frames": files.dropped_frames,
        "last_chunk": None if last is None else {"seq": last["seq"], "file": last["file"], "ended": last["ended"]},
        "until": None if idle or unit.status.until_ns is None else stamp(unit.status.until_ns),
        "error": error(unit.status.problem, stamp),
    }


def rates(unit: RecorderController) -> dict[str, Any]:
    """A recorder in state/health: the rates of its newest chunk while it records, and how long its data waits."""
    line = (unit.files.last_chunk or {}) if unit.is_recording and unit.files.chunks else {}
    duration = float((line.get("time_lapse") or line).get("captured_s") or line.get("duration_s") or 0.0)
    video = (line.get("tracks") or {}).get("video") or {}
    return {
        "state": unit.status.state,
        "fps": round(video["frames"] / duration, 2) if duration and "frames" in video else None,
        "bitrate_bps": round(8 * line["bytes"] / duration) if duration else None,
        "queue_ms": round(1000 * unit.files.queue_s),
        "discarded_bytes": unit.files.discarded_bytes,
        "pre_roll_bytes": unit.pre_roll_bytes,
        **({"triggers": triggers} if (triggers := unit.triggers) else {}),
    }


def error(problem: Problem | None, stamp: Stamp) -> dict[str, Any] | None:
    if problem is None:
        return None
    return {
        "code": problem.code,
        "message": problem.message,
        "since": None if problem.since_ns is None else stamp(problem.since_ns),
    }


def recorder_event(unit: RecorderController, event_type: str, facts: Mapping[str, Any], now: str) -> dict[str, Any]:
    """event/recorder/<rec>; for a chunk the manifest line without what concerns only the manifest."""
    event: dict[str, Any] = {"event_type": event_type, "ts": now, "recorder": unit.name}
    if event_type == "chunk":
        return event | _chunk(facts)
    return {**event, "recording_id": unit.files.recording_id, **facts}


def late_chunk_event(recorder: str, line: Mapping[str, Any], now: str) -> dict[str, Any]:
    """event/recorder/<rec> of a chunk that no running recorder finished, from its manifest line."""
    return {"event_type": "chunk", "ts": now, "recorder": recorder} | _chunk(line)


def offload_event(recorder: str, facts: Mapping[str, Any], now: str) -> dict[str, Any]:
    """event/recorder/<rec> of a file that a store has proven."""
    return {"event_type": "offload", "ts": now, "recorder": recorder, **facts}


def _chunk(line: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest line without what concerns only the manifest. The id is the file's: on another medium a recording
    continues under a new one."""
    chunk = {name: line[name] for name in _CHUNK if name in line}
    chunk["recording_id"] = PurePosixPath(str(line["file"])).name.rsplit("-", 1)[0]
    return chunk


def device_event(event_type: str, device: Mapping[str, Any], now: str) -> dict[str, Any]:
    """event/device: one that was added or removed."""
    return {"event_type": event_type, "ts": now} | {
        name: device[name] for name in ("device_id", "kind", "label", "group_id")
    }
