"""What each track of a recorder is right now, for `msrecd look`: opened for a moment where the recorder is idle."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

from msrecd import DOMException, MediaDevices, StreamView
from msrecd.errors import CommandError
from msrecd.recorder.input import RecorderInput
from msrecd.recorder.problems import Problem, problem_of
from msrecd.recorder.settings import RecorderSettings

_LEVELS = 10  # a second
_LEVEL_DEADLINE_S = 5.0
_WIDTHS = (1920, 1280, 640)
_JPEG_LIMIT_BYTES = 1 << 20


async def look_at(
    settings: RecorderSettings, open_input: RecorderInput | None, devices: MediaDevices, *, with_jpeg: bool
) -> dict[str, Any]:
    """Tracks with device, settings asked for and got, what is not met, level of a second; `jpeg` (base64) if wanted.

    Args:
        open_input: what the recorder has open; None: it is opened, and closed again.

    Raises:
        CommandError: device_missing, device_busy, bad_args.
    """
    own: RecorderInput | None = None
    try:
        input = open_input
        if input is None:
            input = own = await RecorderInput.open(settings, devices)
            await own.play()
        if not input.tracks:
            raise (input.problem or Problem("device_missing", f"the input of {settings.name} has ended")).error()
        view = StreamView(input.stream)
        tracks = []
        for track in input.tracks:
            got = track.get_settings()
            asked = (settings.constraints or {}).get(track.kind)
            facts: dict[str, Any] = {
                "kind": track.kind,
                "device_id": got.get("device_id") or None,
                "label": track.label,
                "muted": track.muted,
                "asked": dict(asked) if isinstance(asked, Mapping) else {},
                "settings": {name: value for name, value in got.items() if name not in ("device_id", "group_id")},
                "unmet": [entry for entry in input.unmet if entry["kind"] == track.kind],
            }
            if track.kind == "audio":
                facts["level"] = await _level(view)
            tracks.append(facts)
        found: dict[str, Any] = {"recorder": settings.name, "tracks": tracks}
        if with_jpeg:
            found["jpeg"] = base64.b64encode(await _jpeg(view, settings.name)).decode()
        return found
    except DOMException as exc:
        raise problem_of(exc, is_input=settings.url is not None).error() from exc
    finally:
        if own is not None:
            own.close()


async def _level(view: StreamView) -> dict[str, list[float]] | None:
    """The loudest of a second, by channel; None when no sound came."""
    found: dict[str, list[float]] | None = None
    count = 0
    levels = view.levels()
    try:
        async with asyncio.timeout(_LEVEL_DEADLINE_S):
            async for level in levels:
                rms, peak = list(level.rms), list(level.peak)
                if found is not None:
                    rms, peak = list(map(max, found["rms"], rms)), list(map(max, found["peak"], peak))
                found = {"rms": rms, "peak": peak}
                count += 1
                if count >= _LEVELS:
                    break
    except TimeoutError:
        pass
    finally:
        await levels.aclose()  # type: ignore[attr-defined]
    return found


async def _jpeg(view: StreamView, name: str) -> bytes:
    if not view.stream.get_video_tracks():
        raise CommandError("bad_args", f"{name} has no video")
    jpeg = b""
    for width in _WIDTHS:
        jpeg = await view.jpeg(width)
        if len(jpeg) <= _JPEG_LIMIT_BYTES:
            break
    return jpeg
