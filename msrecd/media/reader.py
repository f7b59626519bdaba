"""MediaStreamTrackReader: frames and blocks for analysis, as numpy arrays.

Modelled on https://w3c.github.io/mediacapture-transform/#track-processor: what is not read in time is dropped.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

from msrecd.clock import NS
from msrecd.flow.feed import Feed
from msrecd.flow.shape import Size, reshaped, same_shape
from msrecd.flow.units import AudioBlock, VideoFormat, VideoFrame
from msrecd.media.track import MediaStreamTrack, ReadyState

if TYPE_CHECKING:
    from msrecd.pixels import FrameArray, Sound

Unit: TypeAlias = VideoFrame | AudioBlock


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameData:
    """One frame.

    array: (height, width, 3) uint8 RGB, or (height, width) uint8 luma; yours to change.
    timestamp_ns: start of the exposure, CLOCK_MONOTONIC.
    """

    array: FrameArray
    timestamp_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundData:
    """One block of sound.

    array: (samples, channels), int16 or int32, yours to change.
    timestamp_ns: of the first sample, CLOCK_MONOTONIC.
    lost_before: samples known to be lost before it.
    """

    array: Sound
    timestamp_ns: int
    sample_rate: int
    lost_before: int = 0


class MediaStreamTrackReader:
    """An asynchronous iterator over what a track delivers, from the first `anext` on until the track ends.

    At most `max_buffered` units wait; when more come, the oldest go and are counted in `dropped`. A disabled or muted
    track gives black and zeros. Frames have the size and the rate of the track's settings. Belongs to the loop's
    thread; the source delivers from its own. Close it, or use it with `async with`, when the track lives on.
    """

    def __init__(
        self,
        track: MediaStreamTrack,
        *,
        max_buffered: int | None = None,
        frame_rate: float | None = None,
        luma_width: int | None = None,
        key_frames: bool = False,
    ) -> None:
        """
        Args:
            track: live or ended.
            max_buffered: units; default 1 frame, 50 blocks.
            frame_rate: at most so many frames a second; the source does nothing for the others.
            luma_width: luma only, of every n-th pixel and line, about so many pixels wide: cheap, for analysis.
            key_frames: of a stream that is decoded for this reader, its key frames are enough.

        Raises:
            TypeError: `track` is no MediaStreamTrack.
            ValueError: a number is not positive.
        """
        if not isinstance(track, MediaStreamTrack):
            raise TypeError(f"track must be a MediaStreamTrack, not {type(track).__name__}")
        if max_buffered is None:
            max_buffered = 1 if track.kind == "video" else 50
        if max_buffered < 1:
            raise ValueError(f"max_buffered must be at least 1, it is {max_buffered}")
        if (frame_rate is not None and not frame_rate > 0) or (luma_width is not None and luma_width < 1):
            raise ValueError("frame_rate and luma_width must be positive")
        self._track = track
        self._frame_rate = frame_rate
        self._luma_width = luma_width
        self._takes_key_frames = key_frames
        self._pace = _Pace()
        self._sink = _Buffer(max_buffered, self._pace)
        self._attached = False
        self._closed = False
        self._settings = track.get_settings()

    @property
    def track(self) -> MediaStreamTrack:
        return self._track

    @property
    def dropped(self) -> int:
        """Units that were not read in time."""
        return self._sink.dropped

    def __aiter__(self) -> MediaStreamTrackReader:
        return self

    async def __anext__(self) -> FrameData | SoundData:
        """The next unit.

        Raises:
            StopAsyncIteration: the track has ended, or the reader is closed.
        """
        self._attach()
        self._pace.rate = self._wanted_rate()
        unit = await self._sink.next()
        if unit is None:
            self.close()
            raise StopAsyncIteration
        return self._audio(unit) if isinstance(unit, AudioBlock) else await self._video(unit)

    def close(self) -> None:
        """Read no more; what waits is thrown away."""
        if self._closed:
            return
        self._closed = True
        self._track._unobserve(self._ended)
        if self._attached:
            self._feed().remove(self._sink)
        self._sink.end(None)
        self._sink.clear()

    async def __aenter__(self) -> MediaStreamTrackReader:
        self._attach()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _attach(self) -> None:
        if self._attached or self._closed:
            return
        self._attached = True
        self._sink.loop = asyncio.get_running_loop()
        if self._track.ready_state is ReadyState.ENDED:
            self._sink.end(None)
            return
        self._pace.rate = self._wanted_rate()
        self._track._observe(self._ended)
        self._feed().add(self._sink)

    def _feed(self) -> Feed[Any]:
        source = self._track._source
        return (source.key_frames() if self._takes_key_frames else None) or source.raw()

    def _ended(self, _: MediaStreamTrack) -> None:
        self._sink.end(None)

    def _wanted_rate(self) -> float | None:
        """Frames a second of the track, None when it takes what comes."""
        native = getattr(self._track._source.format, "frame_rate", None)
        rate: float | None = self._track.get_settings().get("frame_rate")
        if self._frame_rate is not None and (rate is None or self._frame_rate < rate):
            return self._frame_rate
        return rate if rate is not None and native is not None and rate < native * 0.999 else None

    async def _video(self, frame: VideoFrame) -> FrameData:
        from msrecd import pixels

        if self._track.ready_state is ReadyState.LIVE:
            self._settings = self._track.get_settings()  # an ended track, whose last frames wait here, has no size
        width = int(self._settings.get("width", frame.format.width))
        height = int(self._settings.get("height", frame.format.height))
        if not self._track._gate.is_open:
            black = pixels.solid_rgb24(width, height, (0, 0, 0))
            format = VideoFormat(width=width, height=height, pixel_format="rgb24")
            frame = VideoFrame(pts_ns=frame.pts_ns, format=format, data=black)
        if self._luma_width is not None:
            return FrameData(array=pixels.luma_of(frame, self._luma_width), timestamp_ns=frame.pts_ns)
        native = self._track._source.format
        crops = isinstance(native, VideoFormat) and not same_shape((width, height), (native.width, native.height))
        array = await asyncio.to_thread(_convert, frame, (width, height), crops)
        return FrameData(array=array, timestamp_ns=frame.pts_ns)

    def _audio(self, block: AudioBlock) -> SoundData:
        from msrecd import pixels

        array = pixels.array_from_block(block)
        if not self._track._gate.is_open:
            array[:] = 0
        return SoundData(
            array=array,
            timestamp_ns=block.pts_ns,
            sample_rate=block.format.sample_rate,
            lost_before=block.lost_before,
        )


def _convert(frame: VideoFrame, size: Size, crops: bool) -> FrameArray:
    """The frame as an array of this size, cropped and scaled as the encoders do it."""
    from msrecd import pixels

    frame = reshaped(frame, size, crops=crops)
    if (frame.format.width, frame.format.height) != size:
        from msrecd import libav

        scaled = libav.planes(libav.picture(frame.format, frame.data), "rgb24", size=size)
        format = VideoFormat(width=size[0], height=size[1], pixel_format="rgb24")
        frame = replace(frame, format=format, data=scaled)
    return pixels.array_from_frame(frame)


class _Pace:
    """Which frames to take for a rate below the source's: the first at or after each multiple of the interval.

    `rate` is set on the loop and read by the source's thread; None takes all.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        self._slot: int | None = None

    def wants(self, pts_ns: int) -> bool:
        """Whether the next frame is to be taken if it has this time."""
        rate = self.rate
        return rate is None or self._slot_of(pts_ns, rate) != self._slot

    def takes(self, pts_ns: int) -> bool:
        rate = self.rate
        if rate is None:
            self._slot = None
            return True
        slot = self._slot_of(pts_ns, rate)
        if slot == self._slot:
            return False
        self._slot = slot
        return True

    @staticmethod
    def _slot_of(pts_ns: int, rate: float) -> int:
        return int((pts_ns + NS / rate / 100) * rate / NS)  # one that is early by jitter belongs to the next slot


class _Buffer:
    """A sink with a bound; put by the source's thread, read on the loop."""

    def __init__(self, max_units: int, pace: _Pace) -> None:
        self._pace = pace
        self.loop: asyncio.AbstractEventLoop | None = None
        self.dropped = 0
        self._units: deque[Unit] = deque()
        self._max_units = max_units
        self._lock = threading.Lock()
        self._ended = False
        self._waiting: asyncio.Future[None] | None = None

    def wants(self, pts_ns: int) -> bool:
        """See Feed.wants."""
        return self._pace.wants(pts_ns)

    def put(self, unit: Any) -> None:
        if not self._pace.takes(unit.pts_ns):
            return
        with self._lock:
            if self._ended:
                return
            if len(self._units) >= self._max_units:
                self._units.popleft()
                self.dropped += 1
            self._units.append(unit)
            first = len(self._units) == 1
        if first:
            self._wake()

    def end(self, error: BaseException | None) -> None:
        del error  # the track reports it
        with self._lock:
            self._ended = True
        self._wake()

    def clear(self) -> None:
        with self._lock:
            self._units.clear()

    async def next(self) -> Unit | None:
        while True:
            with self._lock:
                if self._units:
                    return self._units.popleft()
                if self._ended:
                    return None
                self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting

    def _wake(self) -> None:
        if self.loop is not None:
            try:
                self.loop.call_soon_threadsafe(self._go_on)
            except RuntimeError:
                return  # the loop is closed, nobody reads

    def _go_on(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
