"""Tracks that a program makes: frames and sound with times of the program's own.

https://w3c.github.io/mediacapture-transform/#video-track-generator. Times are CLOCK_MONOTONIC and reach the file as
they are, so that what was processed (reader, arithmetic, generator) stays in sync with what was not.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.dom.exceptions import InvalidStateError, NotSupportedError
from msrecd.flow import units
from msrecd.flow.feed import Feed
from msrecd.flow.source import Source
from msrecd.flow.units import AudioBlock, AudioFormat, Kind, VideoFormat
from msrecd.media.sources import SharedSource
from msrecd.media.track import _CONSTRUCTION, MediaStreamTrack

if TYPE_CHECKING:
    from msrecd.pixels import Frame, Waves

PixelFormat = Literal["RGB", "I420"]
_OTHER_CLOCK_S = 60.0  # such timestamps are counted from somewhere else
_CONNECT_S = 30.0  # a recorder connects; on a machine that has other things to do that may take a while


class VideoFrame:
    """One frame and the moment of its capture."""

    def __init__(
        self,
        array: Frame | Sequence[Frame],
        *,
        timestamp_ns: int | None = None,
        format: PixelFormat = "RGB",
    ) -> None:
        """
        Args:
            array: (height, width, 3) uint8 RGB; with `format="I420"` the planes Y (height, width), U and V (half of
                both, rounded up) as a sequence, or one below the other as libav has them: (height * 3 / 2, width).
                It is copied.
            timestamp_ns: CLOCK_MONOTONIC; now by default.
            format: of the array.

        Raises:
            TypeError: the array has another shape or type.
        """
        from msrecd import pixels

        if format not in ("RGB", "I420"):
            raise TypeError(f"format must be 'RGB' or 'I420', not {format!r}")
        self._timestamp_ns = _timestamp(timestamp_ns)
        self._format: PixelFormat = format
        if format == "RGB":
            height, width, data = pixels.packed_rgb(array)
        else:
            height, width, data = pixels.packed_i420(array)
        pixel_format = "rgb24" if format == "RGB" else "yuv420p"
        self._frame: units.VideoFrame | None = units.VideoFrame(
            pts_ns=self._timestamp_ns,
            format=VideoFormat(width=width, height=height, pixel_format=pixel_format),
            data=data,
        )

    @classmethod
    def _of(cls, frame: units.VideoFrame) -> VideoFrame:
        """A frame of a source."""
        self = cls.__new__(cls)
        self._timestamp_ns = frame.pts_ns
        self._format = "RGB" if frame.format.pixel_format == "rgb24" else "I420"
        self._frame = frame
        return self

    @property
    def timestamp_ns(self) -> int:
        return self._timestamp_ns

    @property
    def format(self) -> PixelFormat:
        return self._format

    @property
    def coded_width(self) -> int:
        """Pixels; 0 once it is closed."""
        return 0 if self._frame is None else self._frame.format.width

    @property
    def coded_height(self) -> int:
        """Pixels; 0 once it is closed."""
        return 0 if self._frame is None else self._frame.format.height

    @property
    def array(self) -> Frame:
        """(height, width, 3) uint8 RGB, a copy. Raises: InvalidStateError: it is closed."""
        from msrecd import pixels

        return pixels.array_from_frame(self._unit())

    def clone(self) -> VideoFrame:
        """Another handle of the same frame. Raises: InvalidStateError: it is closed."""
        return VideoFrame._of(self._unit())

    def close(self) -> None:
        """Let go of the memory; idempotent."""
        self._frame = None

    def _unit(self) -> units.VideoFrame:
        if self._frame is None:
            raise InvalidStateError("the frame is closed")
        return self._frame


class AudioData:
    """Some sound and the moment of its first sample."""

    def __init__(self, array: Waves, *, sample_rate: float, timestamp_ns: int | None = None) -> None:
        """
        Args:
            array: (channels, frames), float32 between -1 and 1, or int16. It is copied.
            sample_rate: Hz, a whole number.
            timestamp_ns: CLOCK_MONOTONIC; now by default.

        Raises:
            TypeError: the array has another shape or type, or the rate is no positive whole number.
        """
        from msrecd import pixels

        if (
            isinstance(sample_rate, bool)
            or not isinstance(sample_rate, (int, float))
            or sample_rate != int(sample_rate)
        ):
            raise TypeError(f"sample_rate must be a whole number, not {sample_rate!r}")
        if sample_rate < 1:
            raise TypeError(f"sample_rate must be positive, it is {sample_rate!r}")
        self._timestamp_ns = _timestamp(timestamp_ns)
        self._rate = int(sample_rate)
        self._channels, self._frames, self._pcm = pixels.packed_s16(array)

    @property
    def timestamp_ns(self) -> int:
        return self._timestamp_ns

    @property
    def sample_rate(self) -> int:
        return self._rate

    @property
    def number_of_channels(self) -> int:
        return self._channels

    @property
    def number_of_frames(self) -> int:
        return self._frames

    @property
    def duration_ns(self) -> int:
        return self._frames * NS // self._rate

    def close(self) -> None:
        """Let go of the memory; idempotent."""
        self._pcm = b""
        self._frames = 0


class _Generator:
    """What the two generators share: one source, one track, times that rise."""

    def __init__(self, source: _GeneratedSource) -> None:
        self._source = source
        shared = SharedSource(source, source.close)
        shared.listen()
        self._track = MediaStreamTrack(_CONSTRUCTION, shared)
        self._last_ns: int | None = None
        self._is_clock_checked = False
        self._turn = asyncio.Lock()  # writes come in their order, also while one waits

    @property
    def track(self) -> MediaStreamTrack:
        return self._track

    @property
    def muted(self) -> bool:
        """Whether the track is muted; settable."""
        return self._source.muted

    @muted.setter
    def muted(self, muted: bool) -> None:
        if bool(muted) != self._source.muted:
            self._source.muted = bool(muted)
            self._source.on_muted(bool(muted))

    def close(self) -> None:
        """Nothing follows: the track ends; idempotent."""
        self._source.finish()

    async def _put(self, unit: Any, timestamp_ns: int) -> None:
        """Give a unit to all who use the track, also to a recorder that has just been started and connects yet."""
        if not self._is_clock_checked and self._source.is_used:
            self._is_clock_checked = True
            _warn_of_another_clock(timestamp_ns)
        async with self._turn:
            self._check(timestamp_ns)
            if self._source.is_awaited:
                await asyncio.to_thread(self._source.wait_for_announced, _CONNECT_S)
                self._check(timestamp_ns)
            self._last_ns = timestamp_ns
            self._source.put(unit)
        await asyncio.sleep(0)

    def _check(self, timestamp_ns: int) -> None:
        if self._source.is_over:
            raise InvalidStateError("the track has ended")
        if self._last_ns is not None and timestamp_ns <= self._last_ns:
            raise ValueError(f"timestamps must rise: {timestamp_ns} follows {self._last_ns}")


class VideoTrackGenerator(_Generator):
    """Frames as a track: `await generator.write(frame)`. A recorder that is too slow drops frames and counts them."""

    def __init__(self, init: Mapping[str, Any] | None = None) -> None:
        """
        Args:
            init: extension: `{"width", "height"}` in pixels, for a recorder that is started before the first frame is
                written: it scales everything to the size that the track has at its start. 640x480 by default.

        Raises:
            TypeError: one of them is no positive int.
        """
        super().__init__(_GeneratedSource("video"))
        given = dict(init or {})
        size = [given.get("width", 640), given.get("height", 480)]
        if any(isinstance(one, bool) or not isinstance(one, int) or one < 1 for one in size):
            raise TypeError(f"width and height must be positive ints, not {size!r}")
        self._source.set_size(size[0], size[1])

    async def write(self, frame: VideoFrame) -> None:
        """Give a frame to all who use the track; it may be closed afterwards.

        Raises:
            TypeError: it is no VideoFrame.
            ValueError: its timestamp is not later than that of the frame before.
            InvalidStateError: the frame is closed, or the track has ended.
        """
        if not isinstance(frame, VideoFrame):
            raise TypeError(f"a VideoTrackGenerator writes VideoFrames, not {type(frame).__name__}")
        unit = frame._unit()
        await self._put(unit, frame.timestamp_ns)


class MediaStreamTrackGenerator(_Generator):
    """A generator of either kind, in the form that Chromium has: `MediaStreamTrackGenerator({"kind": "audio"})`."""

    def __init__(self, init: Mapping[str, Any]) -> None:
        """
        Args:
            init: `{"kind": "audio" | "video"}`; for audio also `sample_rate` and `channel_count`, which are those of
                the first data otherwise.

        Raises:
            TypeError: `kind` is neither.
        """
        kind = init.get("kind") if isinstance(init, Mapping) else None
        if kind not in ("audio", "video"):
            raise TypeError(f"kind must be 'audio' or 'video', not {kind!r}")
        super().__init__(_GeneratedSource(kind))
        if kind == "audio" and ("sample_rate" in init or "channel_count" in init):
            self._source.set_format(
                AudioFormat(sample_rate=int(init.get("sample_rate", 48000)), channels=int(init.get("channel_count", 2)))
            )

    async def write(self, data: VideoFrame | AudioData) -> None:
        """Give data to all who use the track.

        Sound may have holes: what is missing by the timestamps is silence in a recording, and reported as a gap.

        Raises:
            TypeError: it is of the other kind.
            ValueError: its timestamp is not later than that of what came before.
            NotSupportedError: its rate or its number of channels is another than before.
            InvalidStateError: it is closed, or the track has ended.
        """
        if self._source.kind == "video":
            if not isinstance(data, VideoFrame):
                raise TypeError(f"a video generator writes VideoFrames, not {type(data).__name__}")
            unit: Any = data._unit()
        else:
            if not isinstance(data, AudioData):
                raise TypeError(f"an audio generator writes AudioData, not {type(data).__name__}")
            if not data.number_of_frames:
                raise InvalidStateError("the data is closed")
            format = AudioFormat(sample_rate=data.sample_rate, channels=data.number_of_channels)
            self._source.set_format(format)
            unit = AudioBlock(
                pts_ns=data.timestamp_ns, format=format, samples=data.number_of_frames, data=data._pcm, lost_before=0
            )
        await self._put(unit, data.timestamp_ns)


class _GeneratedSource(Source):
    """Gives what is written; lives as long as its track. Everything on the loop."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(label="generator")
        self.kind = kind
        self.is_over = False
        self._feed: Feed[Any] = Feed()
        self._sound: AudioFormat | None = None
        self._shape: VideoFormat | None = None
        self._written_until_ns = 0

    @property
    def is_used(self) -> bool:
        return self.is_awaited or self._feed.has_sinks

    @property
    def written_until_ns(self) -> int | None:
        return self._written_until_ns

    @property
    def format(self) -> VideoFormat | AudioFormat:
        """Before the first data: what is likely."""
        if self.kind == "audio":
            return self._sound or AudioFormat(sample_rate=48000, channels=2)
        return self._shape or VideoFormat(width=640, height=480)

    @property
    def holds_last_frame(self) -> bool:
        return False  # times are the program's: nothing is put between its frames

    def set_size(self, width: int, height: int) -> None:
        """Of the frames that will come."""
        self._shape = VideoFormat(width=width, height=height)

    def set_format(self, format: AudioFormat) -> None:
        """The format of all sound that comes. Raises: NotSupportedError: it is another one already."""
        if self._sound is not None and format != self._sound:
            raise NotSupportedError(
                f"the track has {self._sound.channels} channels at {self._sound.sample_rate} Hz, "
                f"the data {format.channels} at {format.sample_rate} Hz"
            )
        self._sound = format

    def raw(self) -> Feed[Any]:
        return self._feed

    def put(self, unit: Any) -> None:
        if self.kind == "video":
            self._shape = unit.format
            self._written_until_ns = unit.pts_ns
        else:
            self._written_until_ns = unit.pts_ns + unit.samples * NS // unit.format.sample_rate
        self.stats.delivered += 1
        self._feed.put(unit)

    def finish(self) -> None:
        if not self.is_over:
            self.is_over = True
            self._feed.end(None)
            self.on_ended(None)

    def close(self) -> None:
        self.is_over = True
        self._feed.end(None)


def _warn_of_another_clock(timestamp_ns: int) -> None:
    off_s = (timestamp_ns - SYSTEM_CLOCK.monotonic_ns()) / NS
    if abs(off_s) > _OTHER_CLOCK_S:
        warnings.warn(
            f"timestamp_ns is {abs(off_s):.0f} s {'ahead of' if off_s > 0 else 'behind'} time.monotonic_ns(), which it "
            "counts by: a recorder leaves out what lies before its start",
            UserWarning,
            stacklevel=4,  # the caller of write()
        )


def _timestamp(timestamp_ns: int | None) -> int:
    if timestamp_ns is None:
        return SYSTEM_CLOCK.monotonic_ns()
    if isinstance(timestamp_ns, bool) or not isinstance(timestamp_ns, int):
        raise TypeError(f"timestamp_ns must be an int, not {type(timestamp_ns).__name__}")
    return timestamp_ns
