"""StreamPlayer: what a media element does with a MediaStream.

https://w3c.github.io/mediacapture-main/#mediastreams-in-media-elements

Nothing is shown or heard. Frames are taken only while somebody asks for them, and once to know that something comes.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msrecd.clock import MS, NS, SYSTEM_CLOCK
from msrecd.media.generators import VideoFrame
from msrecd.media.reader import FrameData, MediaStreamTrackReader
from msrecd.media.stream import MediaStream
from msrecd.media.track import MediaStreamTrack, ReadyState

if TYPE_CHECKING:
    from msrecd.media.element import MediaElement

FrameCallback = Callable[[float, Mapping[str, Any]], object]


class StreamPlayer:
    """Plays one stream for one element. Belongs to the loop's thread."""

    def __init__(self, stream: MediaStream, screen: MediaElement) -> None:
        self.stream = stream
        self.width = self.height = 0
        self.is_loaded = False
        self._screen = screen
        self._playing_since_ns: int | None = None
        self._played_ns = 0
        self._callbacks: dict[int, FrameCallback] = {}
        self._numbers = itertools.count(1)
        self._presented = 0
        self._changed = asyncio.Event()
        self._observed: list[MediaStreamTrack] = []
        stream._observe(self._tracks_changed)
        self._tracks_changed(stream)
        self._task = asyncio.ensure_future(self._run())

    @property
    def position_s(self) -> float:
        """Seconds that were played."""
        since = self._playing_since_ns
        return (self._played_ns + (0 if since is None else SYSTEM_CLOCK.monotonic_ns() - since)) / NS

    def play(self) -> None:
        if self._playing_since_ns is None:
            self._playing_since_ns = SYSTEM_CLOCK.monotonic_ns()
            self._changed.set()

    def pause(self) -> None:
        if self._playing_since_ns is not None:
            self._played_ns += SYSTEM_CLOCK.monotonic_ns() - self._playing_since_ns
            self._playing_since_ns = None

    def ask_frame(self, callback: FrameCallback) -> int:
        """Call back with the next frame, once; the number is for `forget_frame`."""
        number = next(self._numbers)
        self._callbacks[number] = callback
        self._changed.set()
        return number

    def forget_frame(self, number: int) -> None:
        self._callbacks.pop(number, None)

    def close(self) -> None:
        """Stop. Idempotent."""
        self.pause()
        self.stream._unobserve(self._tracks_changed)
        for track in self._observed:
            track._unobserve(self._track_ended)
        self._observed.clear()
        self._task.cancel()

    def _tracks_changed(self, stream: MediaStream) -> None:
        for track in stream.get_tracks():
            if track not in self._observed and track.ready_state is ReadyState.LIVE:
                self._observed.append(track)
                track._observe(self._track_ended)
        self._changed.set()

    def _track_ended(self, _: MediaStreamTrack) -> None:
        self._changed.set()

    @property
    def _wants_frames(self) -> bool:
        return bool(self._callbacks) and self._playing_since_ns is not None

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            tracks = [*self.stream.get_video_tracks(), *self.stream.get_audio_tracks()]
            live = [track for track in tracks if track.ready_state is ReadyState.LIVE]
            if self.is_loaded and not live:
                self.pause()
                self._screen._stream_ended()
                return
            if (not self.is_loaded and live) or (live and live[0].kind == "video" and self._wants_frames):
                await self._read(live[0])
            else:
                await self._changed.wait()

    async def _read(self, track: MediaStreamTrack) -> None:
        """Until nobody wants more, or the track has ended."""
        async with MediaStreamTrackReader(track) as reader:
            async for data in reader:
                if isinstance(data, FrameData):
                    self.height, self.width = data.array.shape[:2]
                    if self._wants_frames:
                        self._present(data)
                if not self.is_loaded:
                    self.is_loaded = True
                    self._screen._stream_loaded()
                if not (self._wants_frames and track.kind == "video"):
                    return
                if track not in self.stream.get_tracks():
                    return

    def _present(self, data: FrameData) -> None:
        """https://wicg.github.io/video-rvfc/#video-frame-callback-metadata-attributes, and the frame itself."""
        self._presented += 1
        now_ms = SYSTEM_CLOCK.monotonic_ns() / MS
        metadata = {
            "presentation_time": now_ms,
            "expected_display_time": now_ms,
            "width": self.width,
            "height": self.height,
            "media_time": self.position_s,
            "presented_frames": self._presented,
            "capture_time": data.timestamp_ns / MS,
            "frame": VideoFrame(data.array, timestamp_ns=data.timestamp_ns),
        }
        callbacks, self._callbacks = self._callbacks, {}  # what they ask for is the frame after this one
        for callback in callbacks.values():
            try:
                callback(now_ms, metadata)
            except Exception as exc:
                context = {"message": "exception in a video frame callback", "exception": exc}
                asyncio.get_running_loop().call_exception_handler(context)
