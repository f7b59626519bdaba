"""A JPEG of what a recorder's camera sees, without disturbing a recording."""

from __future__ import annotations

import asyncio

from msrecd import libav
from msrecd.dom.exceptions import DOMException
from msrecd.errors import CommandError
from msrecd.flow.units import VideoFormat, VideoFrame
from msrecd.media.devices import MediaDevices
from msrecd.media.track import MediaStreamTrack
from msrecd.recorder.controller import RecorderController
from msrecd.recorder.input import RecorderInput
from msrecd.recorder.problems import problem_of

_FRAME_DEADLINE_S = 10.0
_LIMIT_BYTES = 256 << 10


class _FirstFrame:
    """A sink that keeps the first picture it gets."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.frame: asyncio.Future[VideoFrame] = loop.create_future()

    def put(self, unit: VideoFrame) -> None:
        self._loop.call_soon_threadsafe(self._set, unit)

    def end(self, error: BaseException | None) -> None:
        self._loop.call_soon_threadsafe(self._fail)

    def _set(self, unit: VideoFrame) -> None:
        if not self.frame.done():
            self.frame.set_result(unit)

    def _fail(self) -> None:
        if not self.frame.done():
            self.frame.set_exception(CommandError("device_missing", "the camera went away"))


async def take_snapshot(unit: RecorderController, devices: MediaDevices) -> bytes:
    """
    Raises:
        CommandError: no video, device missing or busy, no picture in time.
    """
    opened: RecorderInput | None = None
    capture = unit.capture
    try:
        if capture is None:
            opened = capture = await RecorderInput.open(unit.settings, devices)
            await opened.begin()
        tracks = [track for track in capture.stream.get_video_tracks() if track.ready_state == "live"]
        if not tracks:
            raise CommandError("bad_args", f"{unit.name} has no video")
        frame = await _first_frame(tracks[0])
        return await asyncio.to_thread(_encode, frame)
    except DOMException as exc:
        problem = problem_of(exc)
        raise CommandError(problem.code, problem.message) from exc
    except (TimeoutError, libav.LibavError) as exc:
        raise CommandError("device_busy", f"no picture: {exc or 'the camera gave none in time'}") from exc
    finally:
        if opened is not None:
            opened.close()


async def _first_frame(track: MediaStreamTrack) -> VideoFrame:
    sink = _FirstFrame(asyncio.get_running_loop())
    feed = track._source.raw()
    await asyncio.to_thread(feed.add, sink)
    try:
        async with asyncio.timeout(_FRAME_DEADLINE_S):
            return await sink.frame
    finally:
        await asyncio.to_thread(feed.remove, sink)
        if not sink.frame.done():
            sink.frame.cancel()


def _encode(frame: VideoFrame) -> bytes:
    format = VideoFormat(width=frame.format.width, height=frame.format.height, pixel_format=frame.format.pixel_format)
    picture = libav.picture(format, frame.data)
    for width in (1920, 1280, 640, 320):
        jpeg = libav.jpeg(picture, max_width=width)
        if len(jpeg) <= _LIMIT_BYTES:
            break
    return jpeg
