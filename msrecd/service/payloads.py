"""What the daemon publishes: payloads of section 6 of the contract, from what the units know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msrecd.service.problems import Problem
from msrecd.service.unit import RecorderUnit

Stamp = Callable[[int], str]  # monotonic ns -> RFC 3339 UTC with Z


def recorder_state(unit: RecorderUnit, stamp: Stamp) -> dict[str, Any]:
    """state/recorder/<rec>."""
    last = unit.last_chunk
    idle = unit.state == "inactive"  # a start that is under way is not told before it has succeeded
    return {
        "state": unit.state,
        "since": stamp(unit.since_ns),
        "recording_id": unit.recording_id,
        "cause": None if idle else unit.cause,
        "tracks": tracks(unit),
        "mime_type": unit.mime_type or None,
        "chunks": unit.chunks,
        "bytes": unit.bytes + unit.open_bytes,
        "dropped_frames": unit.dropped_frames,
        "last_chunk": None if last is None else {"seq": last["seq"], "file": last["file"], "ended": last["ended"]},
        "until": None if idle or unit.until_ns is None else stamp(unit.until_ns),
        "error": error(unit.problem, stamp),
        "rev": unit.rev,
    }


def tracks(unit: RecorderUnit) -> list[dict[str, Any]]:
    capture = unit.capture
    if capture is None or unit.state == "inactive":  # a stream that is just being opened or closed
        return []
    return [
        {"kind": track.kind, "label": track.label, "settings": dict(track.get_settings())}
        for track in capture.stream.get_tracks()
        if track.ready_state == "live"
    ]


def error(problem: Problem | None, stamp: Stamp) -> dict[str, Any] | None:
    if problem is None:
        return None
    return {
        "code": problem.code,
        "message": problem.message,
        "since": None if problem.since_ns is None else stamp(problem.since_ns),
    }


def recorder_event(unit: RecorderUnit, event_type: str, facts: Mapping[str, Any], now: str) -> dict[str, Any]:
    """event/recorder/<rec>; for a chunk the manifest line without what concerns only the manifest."""
    event: dict[str, Any] = {"event_type": event_type, "ts": now, "recorder": unit.name}
    if event_type == "chunk":
        names = ("seq", "file", "bytes", "sha256", "mime_type", "started", "ended", "duration_s", "clock", "final")
        event |= {name: facts[name] for name in names if name in facts}
        event |= {name: facts[name] for name in ("recovered", "lost_s", "tracks", "gaps") if name in facts}
    else:
        event |= facts
    event["recording_id"] = facts.get("recording_id", unit.recording_id)
    return event


def device_event(event_type: str, device: Mapping[str, Any], now: str) -> dict[str, Any]:
    """event/device: one that was added or removed."""
    return {"event_type": event_type, "ts": now} | {
        name: device[name] for name in ("device_id", "kind", "label", "group_id")
    }
