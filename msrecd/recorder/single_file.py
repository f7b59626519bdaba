"""One recording into one file, without daemon, storage tree or broker: what `msrecd record` does."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from msrecd import BlobEvent, DOMException, ErrorEvent, MediaDevices, MediaElement, MediaRecorder
from msrecd.errors import StorageError
from msrecd.recorder.writer import BlobData, ChunkWriter
from msrecd.storage.finishing import complete

if TYPE_CHECKING:
    from msrecd import MediaStreamConstraints

_TIMESLICE_MS = 1000
_STOP_DEADLINE_S = 30.0


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
    stream = await devices.get_user_media(cast("MediaStreamConstraints", dict(constraints)))
    try:
        recorder = MediaRecorder(stream, {"mime_type": mime_type})
        file = await asyncio.to_thread(_SingleFile, out)
        return await _record(recorder, file, duration_s, stop, progress)
    finally:
        for track in stream.get_tracks():
            track.stop()


async def record_input(
    url: str,
    out: Path,
    *,
    mime_type: str,
    duration_s: float | None,
    stop: asyncio.Event,
    progress: Callable[[float, int], None],
) -> Recorded:
    """As `record_to_file`, of a file or network stream; a file ends the recording with its own end."""
    element = MediaElement(url, preload="none")
    try:
        await element.load()
        recorder = MediaRecorder(element.capture_stream(), {"mime_type": mime_type})
        file = await asyncio.to_thread(_SingleFile, out)
        return await _record(recorder, file, duration_s, stop, progress, play=element.play)
    finally:
        element.close()


async def _nothing() -> None:
    """Nothing to do: a device runs already."""


async def _record(
    recorder: MediaRecorder,
    file: _SingleFile,
    duration_s: float | None,
    stop: asyncio.Event,
    progress: Callable[[float, int], None],
    *,
    play: Callable[[], Awaitable[None]] = _nothing,
) -> Recorded:
    ended = asyncio.Event()
    failures: list[BaseException] = []
    types: list[str] = []
    dropped: list[int] = []
    seconds: list[float] = []

    def failed(error: BaseException | None) -> None:
        failures.append(error or OSError("recording failed"))
        ended.set()

    def take(event: BlobEvent) -> None:
        types[:] = [event.data.type or mime_type]
        info = event.chunk_info
        if info is not None:
            seconds.append(info.duration_s)
            dropped.append(sum(track.dropped for track in info.tracks))
        event.wait_until(writer.put(_blob(event)))

    def report(event: ErrorEvent) -> None:
        failed(cast(BaseException, event.error))

    mime_type = recorder.mime_type
    writer = ChunkWriter(
        cast(Any, file), make_facts=dict, on_chunk=lambda _: None, on_lost=lambda *_: None, on_error=failed
    )
    recorder.ondataavailable = take
    recorder.onerror = report
    stopped = asyncio.Event()
    recorder.add_event_listener("stop", lambda _: stopped.set())
    recorder.add_event_listener("stop", lambda _: ended.set())
    try:
        recorder.start(_TIMESLICE_MS)
        await play()
        await _until_end(ended, stop, duration_s, lambda elapsed: progress(elapsed, writer.stats.bytes))
        recorder.stop()
        async with asyncio.timeout(_STOP_DEADLINE_S):
            await stopped.wait()
    finally:
        async with asyncio.timeout(_STOP_DEADLINE_S):
            await writer.close()
    if failures:
        error = failures[0] if isinstance(failures[0], DOMException) else failures[0].__cause__ or failures[0]
        raise error if isinstance(error, (DOMException, OSError)) else OSError(str(error))
    return Recorded(
        bytes=file.size,
        duration_s=sum(seconds),
        mime_type=types[0] if types else mime_type,
        dropped=sum(dropped),
    )


async def _until_end(
    ended: asyncio.Event, stop: asyncio.Event, duration_s: float | None, show: Callable[[float], None]
) -> None:
    """Until one of them is set or the time is over; `show` is called with the seconds, once a second."""
    loop = asyncio.get_running_loop()
    begun = loop.time()

    async def show_often() -> None:
        while True:
            show(loop.time() - begun)
            await asyncio.sleep(1.0)

    tasks = [loop.create_task(work) for work in (ended.wait(), stop.wait(), show_often())]
    try:
        await asyncio.wait(tasks, timeout=duration_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _blob(event: BlobEvent) -> BlobData:
    return BlobData(
        parts=event.data.parts,
        chunk_key=(1, event.chunk or 1),
        started_ns=event.chunk_started_ns or 0,
        chunk_end=event.chunk_end,
        info=event.chunk_info,
        may_be_last=event.chunk_end,
    )


class _SingleFile:
    """What ChunkWriter uses of a storage.Recording and of its one chunk. Everything blocks.

    size: bytes of the finished file, which has more than was muxed: where its key frames are, for one.
    """

    seq = 1
    size = 0

    def __init__(self, out: Path) -> None:
        """
        Raises:
            OSError: the `.part` exists already or cannot be created.
        """
        self.recording_id = out.name
        self._out = out
        self._part = out.with_name(out.name + ".part")
        self._file = self._part.open("x+b", buffering=0)

    def open_chunk(self, *, started_ns: int) -> _SingleFile:
        return self

    def write(self, parts: Sequence[bytes]) -> None:
        """
        Raises:
            StorageError: some of it may be missing.
        """
        with _storage_errors():
            for data in parts:
                view = memoryview(data)
                while view:
                    view = view[self._file.write(view) :]

    def sync(self) -> None:
        """
        Raises:
            StorageError: it may not be on the disk.
        """
        with _storage_errors():
            os.fsync(self._file.fileno())

    def finish(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Give the file its final name.

        Raises:
            StorageError: it is still the `.part`.
        """
        with _storage_errors():
            self.size, _ = complete(self._file.fileno(), os.fstat(self._file.fileno()).st_size, self._out.name)
        self.sync()
        with _storage_errors():
            self._part.rename(self._out)
        info = facts["info"]
        return {"duration_s": 0.0 if info is None else info.duration_s}

    def end_line(self, **_: object) -> None:
        """There is no manifest."""

    def abandon(self) -> None:
        """Leave the `.part` as it is."""

    def close(self) -> None:
        """Remove a `.part` that holds nothing."""
        self._file.close()
        with contextlib.suppress(OSError):
            if not self._part.stat().st_size:
                self._part.unlink()


@contextlib.contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StorageError(exc.strerror or str(exc)) from exc
