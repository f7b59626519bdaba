"""One recording into one file, without daemon, storage tree or broker: what `msrecd record` does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msrecd.dom.exceptions import DOMException
from msrecd.media.devices import MediaDevices
from msrecd.media.events import BlobEvent
from msrecd.media.recorder import MediaRecorder

_TIMESLICE_MS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What came of it."""

    bytes: int
    duration_s: float
    mime_type: str
    dropped: int


async def record_to_file(
    devices: MediaDevices,
    constraints: Mapping[str, Any],
    out: Path,
    *,
    mime_type: str,
    duration_s: float | None,
    stop: asyncio.Event,
    progress: Callable[[float, int], None],
) -> Recorded:
    """Record until `duration_s` is over, `stop` is set, or the devices end.

    The file has the suffix `.part` until it is whole and on the disk.

    Raises:
        DOMException: the devices or the type; the part recorded before a fault is kept under the final name.
        OSError: the file cannot be written.
    """
    stream = await devices.get_user_media(dict(constraints))
    part = out.with_name(out.name + ".part")
    try:
        recorder = MediaRecorder(stream, {"mime_type": mime_type})
        with part.open("xb", buffering=0) as file:
            result = await _record(recorder, file.fileno(), duration_s, stop, progress)
            await asyncio.to_thread(os.fsync, file.fileno())
        await asyncio.to_thread(part.rename, out)
    except BaseException:
        if part.exists() and not part.stat().st_size:
            part.unlink()
        raise
    finally:
        for track in stream.get_tracks():
            track.stop()
    return result


async def _record(
    recorder: MediaRecorder,
    fd: int,
    duration_s: float | None,
    stop: asyncio.Event,
    progress: Callable[[float, int], None],
) -> Recorded:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    failure: list[BaseException] = []
    facts: dict[str, Any] = {"bytes": 0, "type": "", "duration_s": 0.0, "dropped": 0}

    def write(parts: tuple[bytes, ...]) -> None:
        for data in parts:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]

    async def save(event: BlobEvent) -> None:
        try:
            await asyncio.to_thread(write, event.data.parts)
        except OSError as exc:
            failure.append(exc)
            stop.set()

    pending: list[asyncio.Task[None]] = []
    order = asyncio.Lock()

    async def in_order(event: BlobEvent) -> None:
        async with order:
            await save(event)

    def take(event: BlobEvent) -> None:
        facts["bytes"] += event.data.size
        facts["type"] = event.data.type or facts["type"]
        task = loop.create_task(in_order(event))
        pending.append(task)
        event.wait_until(task)
        if event.chunk_info is not None:
            facts["duration_s"] += event.chunk_info.duration_s
            facts["dropped"] += sum(track.dropped for track in event.chunk_info.tracks)

    recorder.ondataavailable = take
    recorder.onerror = lambda event: failure.append(event.error)
    recorder.onstop = lambda _: ended.set()
    recorder.start(_TIMESLICE_MS)
    begun = loop.time()
    while not ended.is_set() and not stop.is_set():
        elapsed = loop.time() - begun
        progress(elapsed, facts["bytes"])
        if duration_s is not None and elapsed >= duration_s:
            break
        wait = 0.2 if duration_s is None else min(0.2, max(0.01, duration_s - elapsed))
        done, rest = await asyncio.wait(
            [loop.create_task(ended.wait()), loop.create_task(stop.wait())],
            timeout=wait,
            return_when=asyncio.FIRST_COMPLETED,
        )
        for task in rest:
            task.cancel()
        del done
    recorder.stop()
    async with asyncio.timeout(30):
        await ended.wait()
    if pending:
        await asyncio.wait(pending, timeout=30)
    if failure:
        error = failure[0]
        raise error if isinstance(error, (DOMException, OSError)) else OSError(str(error))
    return Recorded(
        bytes=facts["bytes"], duration_s=facts["duration_s"], mime_type=facts["type"], dropped=facts["dropped"]
    )
