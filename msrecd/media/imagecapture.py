"""ImageCapture: a photo of a track (https://w3c.github.io/mediacapture-image/#imagecapturesection)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from msrecd import libav
from msrecd.dom.blob import Blob
from msrecd.dom.exceptions import InvalidStateError, NotReadableError, NotSupportedError, UnknownError
from msrecd.flow import units
from msrecd.flow.units import VideoFormat
from msrecd.media.generators import VideoFrame
from msrecd.media.inits import PhotoSettings
from msrecd.media.track import MediaStreamTrack, ReadyState

FRAME_DEADLINE_S = 10.0
DNG = "image/x-adobe-dng"


class ImageCapture:
    """Takes photos of a video track, without disturbing whoever records it. Belongs to the loop's thread."""

    def __init__(self, track: MediaStreamTrack) -> None:
        """
        Raises:
            TypeError: `track` is no MediaStreamTrack.
            NotSupportedError: it is not a video track.
        """
        if not isinstance(track, MediaStreamTrack):
            raise TypeError(f"track must be a MediaStreamTrack, not {type(track).__name__}")
        if track.kind != "video":
            raise NotSupportedError("only a video track can be photographed")
        self._track = track

    @property
    def track(self) -> MediaStreamTrack:
        return self._track

    async def take_photo(self, settings: PhotoSettings | None = None) -> Blob:
        """The next frame as a JPEG, or a still of the camera's own.

        A still has the sensor's full resolution. For it the camera switches its mode, unless its frames are as large;
        its tracks are muted for a second or so, which a recording has as a gap.

        Args:
            settings: `{"image_width": pixels}`: scaled down to it, in the frame's proportions. `{"full": True}` (an
                extension): a still, or the next frame where the camera has none that is larger.

        Raises:
            TypeError: `image_width` is no positive number.
            InvalidStateError: the track is not live, is muted or disabled, or ends before a frame comes.
            UnknownError: no frame came within FRAME_DEADLINE_S and two frame intervals, it could not be encoded, or the
                camera gave no still.
        """
        width = dict(settings or {}).get("image_width")
        if width is not None and (isinstance(width, bool) or not isinstance(width, (int, float)) or width < 1):
            raise TypeError(f"image_width must be a positive number, not {width!r}")
        is_full = bool(dict(settings or {}).get("full")) and self._track._source.still_size is not None
        frame = await (self._still() if is_full else self._next_frame())
        try:
            jpeg = await asyncio.to_thread(_encode, frame, None if width is None else int(width))
        except libav.LibavError as exc:
            raise UnknownError(f"the photo could not be encoded: {exc}") from exc
        return Blob([jpeg], {"type": "image/jpeg"})

    async def take_raw_photo(self) -> tuple[Blob, Blob]:
        """A still of the camera's own as a JPEG, and the sensor's raw frame of it as a DNG (an extension).

        The camera switches its mode for that, and its tracks are muted meanwhile, as with `{"full": True}`.

        Raises:
            NotSupportedError: the camera gives no raw frames; the message says why.
            InvalidStateError, UnknownError: as `take_photo`.
        """
        self._check_live()
        try:
            still = await asyncio.to_thread(self._track._source.take_raw_still)
            jpeg = await asyncio.to_thread(_encode, still.frame, None)
        except NotReadableError as exc:
            raise UnknownError(exc.message) from exc
        except libav.LibavError as exc:
            raise UnknownError(f"the photo could not be encoded: {exc}") from exc
        return Blob([jpeg], {"type": "image/jpeg"}), Blob([still.dng], {"type": DNG})

    async def grab_frame(self) -> VideoFrame:
        """The next frame as it is, in I420 or RGB.

        Raises:
            InvalidStateError, UnknownError: as `take_photo`.
        """
        frame = await self._next_frame()
        if frame.format.pixel_format not in ("rgb24", "yuv420p"):
            frame = await asyncio.to_thread(_converted, frame)
        return VideoFrame._of(frame)

    async def get_photo_capabilities(self) -> dict[str, dict[str, int]]:
        """What `take_photo` can do: `image_width` and `image_height` as ranges in pixels.

        Raises:
            InvalidStateError: the track has ended.
        """
        if self._track.ready_state is not ReadyState.LIVE:
            raise InvalidStateError("the track has ended")
        width, height = self._track._source.still_size or self._frame_size()
        return {
            "image_width": {"min": 1, "max": width, "step": 1},
            "image_height": {"min": 1, "max": height, "step": 1},
        }

    def _frame_size(self) -> tuple[int, int]:
        format = self._track._source.format
        assert isinstance(format, VideoFormat)
        return format.width, format.height

    def _check_live(self) -> None:
        """
        Raises:
            InvalidStateError: the track gives no frames.
        """
        track = self._track
        if track.ready_state is not ReadyState.LIVE or track.muted or not track.enabled:
            raise InvalidStateError("the track gives no frames: it has ended, is muted or disabled")

    async def _still(self) -> units.VideoFrame:
        self._check_live()
        try:
            return await asyncio.to_thread(self._track._source.take_still)
        except NotReadableError as exc:
            raise UnknownError(exc.message) from exc

    async def _next_frame(self) -> units.VideoFrame:
        self._check_live()
        track = self._track
        sink = _FirstFrame(asyncio.get_running_loop())
        feed = track._source.raw()
        rate = track.get_settings().get("frame_rate")
        await asyncio.to_thread(feed.add, sink)
        try:
            async with asyncio.timeout(FRAME_DEADLINE_S + (2 / rate if rate else 0)):
                return await sink.frame
        except TimeoutError as exc:
            raise UnknownError("no frame came in time") from exc
        finally:
            await asyncio.to_thread(feed.remove, sink)
            if not sink.frame.done():
                sink.frame.cancel()


class _FirstFrame:
    """A sink that keeps the first frame it gets."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.frame: asyncio.Future[units.VideoFrame] = loop.create_future()

    def put(self, unit: units.VideoFrame) -> None:
        self._loop.call_soon_threadsafe(self._set, unit)

    def end(self, error: BaseException | None) -> None:
        self._loop.call_soon_threadsafe(self._fail)

    def _set(self, unit: units.VideoFrame) -> None:
        if not self.frame.done():
            self.frame.set_result(unit)

    def _fail(self) -> None:
        if not self.frame.done():
            self.frame.set_exception(InvalidStateError("the track ended before a frame came"))


def _encode(frame: units.VideoFrame, width: int | None) -> bytes:
    format = VideoFormat(width=frame.format.width, height=frame.format.height, pixel_format=frame.format.pixel_format)
    return libav.jpeg(libav.picture(format, frame.data), max_width=width or frame.format.width)


def _converted(frame: units.VideoFrame) -> units.VideoFrame:
    data = libav.planes(libav.picture(frame.format, frame.data), "yuv420p")
    return replace(frame, format=replace(frame.format, pixel_format="yuv420p"), data=data)
