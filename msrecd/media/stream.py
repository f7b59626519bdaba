"""MediaStream: a set of tracks (https://w3c.github.io/mediacapture-main/#mediastream)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable

from msrecd.dom.events import EventTarget, event_handler, queue_task
from msrecd.media.events import MediaStreamTrackEvent
from msrecd.media.track import MediaStreamTrack, ReadyState


class MediaStream(EventTarget):
    """Tracks that belong together. Belongs to the loop's thread.

    Events: addtrack and removetrack (MediaStreamTrackEvent), for changes that the program did not make itself.
    """

    onaddtrack = event_handler("addtrack")
    onremovetrack = event_handler("removetrack")

    def __init__(self, tracks: MediaStream | Iterable[MediaStreamTrack] | None = None) -> None:
        """
        Args:
            tracks: a stream or tracks to share; tracks that come twice are taken once, ended ones are taken too.

        Raises:
            TypeError: it is neither.
        """
        super().__init__()
        self._id = str(uuid.uuid4())
        self._tracks: list[MediaStreamTrack] = []
        self._observers: tuple[Callable[[MediaStream], None], ...] = ()
        if tracks is None:
            return
        if isinstance(tracks, MediaStreamTrack) or not isinstance(tracks, (MediaStream, Iterable)):
            raise TypeError(f"a MediaStream is made of a stream or a list of tracks, not of {type(tracks).__name__}")
        for track in tracks.get_tracks() if isinstance(tracks, MediaStream) else tracks:
            if _checked(track) not in self._tracks:
                self._tracks.append(track)

    @property
    def id(self) -> str:
        """Unique, 36 characters."""
        return self._id

    @property
    def active(self) -> bool:
        """Whether at least one track has not ended."""
        return any(track.ready_state is ReadyState.LIVE for track in self._tracks)

    def get_tracks(self) -> list[MediaStreamTrack]:
        """All tracks, in a list of its own."""
        return list(self._tracks)

    def get_audio_tracks(self) -> list[MediaStreamTrack]:
        return [track for track in self._tracks if track.kind == "audio"]

    def get_video_tracks(self) -> list[MediaStreamTrack]:
        return [track for track in self._tracks if track.kind == "video"]

    def get_track_by_id(self, track_id: str) -> MediaStreamTrack | None:
        """The track with this id, or None."""
        return next((track for track in self._tracks if track.id == track_id), None)

    def add_track(self, track: MediaStreamTrack) -> None:
        """Add a track, unless it is there; no event is fired.

        Raises:
            TypeError: it is no MediaStreamTrack.
        """
        if _checked(track) not in self._tracks:
            self._tracks.append(track)
            self._changed()

    def remove_track(self, track: MediaStreamTrack) -> None:
        """Remove a track, if it is there; it goes on living, and no event is fired.

        Raises:
            TypeError: it is no MediaStreamTrack.
        """
        if _checked(track) in self._tracks:
            self._tracks.remove(track)
            self._changed()

    def clone(self) -> MediaStream:
        """A stream with a clone of each track."""
        return MediaStream([track.clone() for track in self._tracks])

    def _implementation_add(self, track: MediaStreamTrack) -> None:
        """A source has got a new track: as `add_track`, with an `addtrack` event in a later turn of the loop."""
        if track not in self._tracks:
            self.add_track(track)
            self._announce("addtrack", track)

    def _implementation_remove(self, track: MediaStreamTrack) -> None:
        """A source has lost a track: as `remove_track`, with a `removetrack` event in a later turn of the loop."""
        if track in self._tracks:
            self.remove_track(track)
            self._announce("removetrack", track)

    def _announce(self, type: str, track: MediaStreamTrack) -> None:
        if (loop := track._shared.loop) is not None:
            queue_task(lambda: self._fire(MediaStreamTrackEvent(type, {"track": track})), loop)

    def _observe(self, callback: Callable[[MediaStream], None]) -> None:
        """Call `callback(stream)` on the loop at the moment the set of tracks changes, whoever changes it."""
        self._observers = (*self._observers, callback)

    def _unobserve(self, callback: Callable[[MediaStream], None]) -> None:
        self._observers = tuple(known for known in self._observers if known != callback)

    def _changed(self) -> None:
        for callback in self._observers:
            callback(self)

    def __repr__(self) -> str:
        return f"<MediaStream {self._id[:8]} {self._tracks!r}>"


def _checked(track: object) -> MediaStreamTrack:
    if not isinstance(track, MediaStreamTrack):
        raise TypeError(f"a stream holds MediaStreamTracks, not {type(track).__name__}")
    return track
