"""RecorderInput: the stream of one recorder while it is wanted: devices or a played input, opened and closed as one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from msrecd.dom.exceptions import DOMException
from msrecd.media.devices import MediaDevices
from msrecd.media.element import MediaElement
from msrecd.media.stream import MediaStream
from msrecd.media.track import MediaStreamTrack
from msrecd.recorder.settings import RecorderSettings

log = logging.getLogger(__name__)

_OPEN_DEADLINE_S = 30.0


class RecorderInput:
    """An open stream; `close` when nobody records it any more. Lives on the loop."""

    def __init__(self, stream: MediaStream, element: MediaElement | None) -> None:
        self.stream = stream
        self._element = element

    @classmethod
    async def open(cls, settings: RecorderSettings, devices: MediaDevices) -> RecorderInput:
        """
        Raises:
            DOMException: as get_user_media: the device is missing, busy, denied; or the input cannot be played.
            TimeoutError: it took too long.
        """
        async with asyncio.timeout(_OPEN_DEADLINE_S):
            if settings.url is None:
                stream = await devices.get_user_media(dict(settings.constraints or {}))
                return cls(stream, None)
            element = MediaElement(settings.url, settings.source_options, preload="none")
            element.loop = settings.loop
            await element.load()
            return cls(element.capture_stream(), element)

    @property
    def is_played(self) -> bool:
        return self._element is not None

    @property
    def has_played_out(self) -> bool:
        """Whether the input came to its regular end."""
        return self._element is not None and self._element.ended and self._element.error is None

    @property
    def error(self) -> DOMException | None:
        return None if self._element is None else self._element.error

    async def begin(self) -> None:
        """Let a played input run; called when the recorder listens, so that its first picture is recorded."""
        if self._element is not None:
            await self._element.play()

    def on_track_ended(self, call: Callable[[MediaStreamTrack], None]) -> None:
        for track in self.stream.get_tracks():
            track.add_event_listener("ended", lambda event: call(event.target))

    def on_track_trouble(
        self, muted: Callable[[MediaStreamTrack, bool], None], restarted: Callable[[MediaStreamTrack, float], None]
    ) -> None:
        """`muted(track, is_muted)`: a device gives nothing, or gives again; `restarted(track, seconds of nothing)`."""
        for track in self.stream.get_tracks():
            track.add_event_listener("mute", lambda event: muted(event.target, True))
            track.add_event_listener("unmute", lambda event: muted(event.target, False))
            track.add_event_listener("restart", lambda event: restarted(event.target, event.silent_s))

    def close(self) -> None:
        """End the tracks; the devices close with their last one."""
        if self._element is not None:
            self._element.close()
        for track in self.stream.get_tracks():
            track.stop()
