"""MediaElement: a file or network stream as a source of a MediaStream (https://w3c.github.io/mediacapture-fromelement/).

Of HTMLMediaElement it has what a headless program uses: load, play, pause, ended, and the events that belong to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
from collections.abc import Callable
from typing import Literal

from msrecd.dom.events import Event, EventTarget, event_handler, queue_task
from msrecd.dom.exceptions import AbortError, DOMException, InvalidStateError, NotReadableError, NotSupportedError
from msrecd.flow.units import AudioFormat
from msrecd.inputs.address import SourceOptions
from msrecd.media.inits import MediaElementOptions
from msrecd.media.playback import Playback, resolve
from msrecd.media.stream import MediaStream
from msrecd.media.streamplayer import FrameCallback, StreamPlayer
from msrecd.media.streamsource import StreamSource
from msrecd.media.track import MediaStreamTrack

_LOAD_DEADLINE_S = 10.0  # beyond the reader's own


class MediaElement(EventTarget):
    """Plays in real time into the streams that `capture_stream` gave. Belongs to the loop's thread.

    A process of its own reads the input. What is live (a device's stream, whatever its scheme) comes at its own pace,
    and its end is an error; a file is paced, and its end is regular.

    Events: loadedmetadata, play, playing, pause, ended, error. A local file is opened at once, a network stream in the
    background; its tracks join the captured streams (`addtrack`) when they are known. At the end of the media the
    tracks end, then leave the streams; playing again makes new ones.

    As in a page, what plays is kept although the program forgets it or stops its tracks: until its end, or `close`.
    """

    onloadedmetadata = event_handler("loadedmetadata")
    onplay = event_handler("play")
    onplaying = event_handler("playing")
    onpause = event_handler("pause")
    onended = event_handler("ended")
    onerror = event_handler("error")

    def __init__(
        self,
        path_or_url: str | os.PathLike[str] | None = None,
        options: MediaElementOptions | None = None,
        *,
        preload: Literal["auto", "none"] = "auto",
    ) -> None:
        """
        Args:
            path_or_url: of a file, or a URL with the scheme file, rtsp, rtsps, http, https, rtmp, srt or udp; none for
                an element that plays its `src_object`.
            options: `transport` ("auto", "tcp", "udp"), `tracks` (["audio"], ["video"]), `timeout` (seconds),
                `redirects` ("same-host", "any"; of HTTP, RTSP, RTMP),
                `user`, `password_file`.
            preload: "none" opens a local file only with `load` or `play`, too.

        Raises:
            TypeError: neither a str nor a path; an option that is not known.
            NotFoundError, NotReadableError, NotSupportedError: a local file that is missing, broken or no media.
        """
        super().__init__()
        location = "" if path_or_url is None else os.fspath(path_or_url)
        if not isinstance(location, str):
            raise TypeError("path_or_url must be a str or a path")
        self._location = location
        self._options = SourceOptions.of(options or {})
        self.loop = False
        self.muted = False  # concerns a loudspeaker that is not there; capture is unaffected, as specified
        self.volume = 1.0
        self._paused = True
        self._ended = False
        self._error: DOMException | None = None
        self._playback: Playback | None = None
        self._streams: list[tuple[MediaStream, list[MediaStreamTrack]]] = []
        self._loading: asyncio.Task[None] | None = None
        self._is_closed = False
        self._player: StreamPlayer | None = None
        self._source, self._is_live = "", False
        if path_or_url is None:
            return
        address = resolve(self._location, self._options)
        self._source = address.shown
        self._is_live = address.is_streaming
        if address.is_file and preload == "auto":
            self._loaded(Playback(self._location, self._options))

    @property
    def src(self) -> str:
        """The address, without user information and query."""
        return self._source

    @property
    def src_object(self) -> MediaStream | None:
        """A stream that the element plays in place of its address; settable. Nothing is shown or heard.

        Raises:
            TypeError: what is set is neither a MediaStream nor None.
        """
        return None if self._player is None else self._player.stream

    @src_object.setter
    def src_object(self, stream: MediaStream | None) -> None:
        if stream is not None and not isinstance(stream, MediaStream):
            raise TypeError(f"src_object must be a MediaStream or None, not {type(stream).__name__}")
        if self._player is not None:
            self._player.close()
        elif self._playback is not None:
            self.close()
        self._paused, self._ended, self._error = True, False, None
        self._player = None if stream is None else StreamPlayer(stream, self)

    @property
    def video_width(self) -> int:
        """Pixels of a frame; 0 while it is not known, and without frames."""
        return self._size()[0]

    @property
    def video_height(self) -> int:
        return self._size()[1]

    def _size(self) -> tuple[int, int]:
        if self._player is not None:
            return self._player.width, self._player.height
        formats = [] if self._playback is None else [source.format for source in self._playback.sources]
        return next(((one.width, one.height) for one in formats if not isinstance(one, AudioFormat)), (0, 0))

    def request_video_frame_callback(self, callback: FrameCallback) -> int:
        """Call `callback(now_ms, metadata)` with the next frame of `src_object` that is played, once.

        https://wicg.github.io/video-rvfc/; metadata in snake_case, and as an extension `frame`, a VideoFrame.

        Raises:
            TypeError: it is not callable.
            InvalidStateError: there is no `src_object`.
        """
        if not callable(callback):
            raise TypeError(f"callback must be callable, not {type(callback).__name__}")
        if self._player is None:
            raise InvalidStateError("there is no src_object; read a file's frames by capture_stream")
        return self._player.ask_frame(callback)

    def cancel_video_frame_callback(self, handle: int) -> None:
        """Forget a callback; unknown handles are ignored."""
        if self._player is not None:
            self._player.forget_frame(handle)

    @property
    def is_live(self) -> bool:
        """Whether the input cannot wait, and its end is a fault; of HTTP it is known once it is loaded."""
        return self._is_live

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def ended(self) -> bool:
        """Whether the end of the media was reached (or its stream broke off: see `error`)."""
        return self._ended

    @property
    def error(self) -> DOMException | None:
        return self._error

    @property
    def current_time(self) -> float:
        """Position in seconds; of a `src_object` how long it has played."""
        if self._player is not None:
            return self._player.position_s
        return 0.0 if self._playback is None else self._playback.position_s

    async def load(self) -> None:
        """Open the input, unless that is done.

        Raises:
            NotReadableError, NotSupportedError: it cannot be opened, or holds no media.
        """
        if self._playback is not None or self._player is not None:
            return
        if not self._location:
            raise NotSupportedError("the element has no source: set src_object")
        await asyncio.shield(self._loading or self._begin_loading())

    def play(self) -> asyncio.Future[None]:
        """Begin or go on; await the result to know when it runs, or not."""
        self._paused = False
        return asyncio.ensure_future(self._play())

    def pause(self) -> None:
        """Deliver nothing that is captured from now on until `play`; what was captured before comes within a moment."""
        if self._paused:
            return
        self._paused = True
        if self._player is not None:
            self._player.pause()
        if self._playback is not None:
            self._playback.pause()
        queue_task(lambda: self._fire(Event("pause")))

    def capture_stream(self) -> MediaStream:
        """A new stream with a track of each kind that the media has, now or as soon as that is known.

        https://w3c.github.io/mediacapture-fromelement/#dom-htmlmediaelement-capturestream
        """
        if self._player is not None:
            return self._player.stream.clone()
        stream = MediaStream()
        self._streams.append((stream, []))
        if self._playback is not None and not self._ended:
            self._add_tracks(stream)
        elif self._playback is None and self._loading is None:
            self._begin_loading()
        return stream

    def close(self) -> None:
        """Stop playing and end all tracks; an extension, for programs without a garbage-collected page."""
        self._is_closed = True
        if self._player is not None:
            self._player.close()
        playback, self._playback = self._playback, None
        if playback is not None:
            playback.close()
        for _, tracks in self._streams:
            for track in tracks:
                track.stop()
        self._streams.clear()

    def _begin_loading(self) -> asyncio.Task[None]:
        """It goes on when whoever awaits `load` is cancelled; its failure is taken then, too."""
        self._loading = asyncio.ensure_future(self._load())
        self._loading.add_done_callback(_consume)
        return self._loading

    async def _load(self) -> None:
        try:
            async with asyncio.timeout(_LOAD_DEADLINE_S + 2 * self._options.timeout_s):
                playback = await _in_thread(lambda: Playback(self._location, self._options))
        except DOMException as exc:
            self._fail(exc)
            raise
        except TimeoutError as exc:
            error = NotReadableError(f"{self._source} gave no answer")
            self._fail(error)
            raise error from exc
        if self._is_closed:
            playback.close()
            raise AbortError(f"{self._source} was closed before it was open")
        self._loaded(playback)
        for stream, _ in self._streams:
            self._add_tracks(stream)
        self._fire(Event("loadedmetadata"))

    def _loaded(self, playback: Playback) -> None:
        self._playback = playback
        self._is_live = playback.is_live
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # made outside of a loop: `_play` connects it
        self._connect(playback, loop)

    def _connect(self, playback: Playback, loop: asyncio.AbstractEventLoop) -> None:
        def ended(error: BaseException | None) -> None:
            try:
                loop.call_soon_threadsafe(self._played_out, playback, error)
            except RuntimeError:
                return  # the loop is closed, nobody listens

        def muted_in_thread(source: StreamSource, muted: bool) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, nobody listens
                loop.call_soon_threadsafe(self._muted_by_input, source, muted)

        playback.on_end = ended
        for source in playback.sources:
            source.on_muted = functools.partial(muted_in_thread, source)

    def _muted_by_input(self, source: StreamSource, muted: bool) -> None:
        for _, tracks in self._streams:
            for track in tracks:
                if track._source is source:
                    track._shared.mute_all(muted)

    def _stream_loaded(self) -> None:
        """Something has come of `src_object`."""
        queue_task(lambda: self._fire(Event("loadedmetadata")))
        if not self._paused:
            self._start_playing()

    def _start_playing(self) -> None:
        if self._player is not None and self._player.is_loaded:
            self._player.play()
            queue_task(lambda: self._fire(Event("playing")))

    def _stream_ended(self) -> None:
        """All tracks of `src_object` have ended."""
        self._ended = self._paused = True
        queue_task(lambda: self._fire(Event("ended")))

    async def _play(self) -> None:
        if self._player is not None:
            self._fire(Event("play"))
            self._start_playing()
            return
        if self._ended:  # from the beginning again, with new tracks
            self._ended, self._error = False, None
            self._playback = None
            self._loading = None
        await self.load()
        playback = self._playback
        if playback is None:
            raise AbortError(f"{self._source} was closed before it played")
        self._connect(playback, asyncio.get_running_loop())
        if self._paused:
            return  # pause() was called in the meantime
        playback.loop = self.loop
        playback.play()
        self._fire(Event("play"))
        queue_task(lambda: self._fire(Event("playing")))

    def _add_tracks(self, stream: MediaStream) -> None:
        playback = self._playback
        if playback is None:
            return
        tracks = next(tracks for known, tracks in self._streams if known is stream)
        for source in playback.sources:
            track = MediaStreamTrack._create(
                source, settings=_settings(source), capabilities={}, on_last_ended=_nothing
            )
            tracks.append(track)
            stream._implementation_add(track)

    def _played_out(self, playback: Playback, error: BaseException | None) -> None:
        if playback is not self._playback:
            return
        self._ended, self._paused = True, True
        if error is not None:
            self._error = error if isinstance(error, DOMException) else NotReadableError(str(error))
        gone = [(stream, track) for stream, tracks in self._streams for track in tracks]
        for _, tracks in self._streams:
            tracks.clear()
        for _, track in gone:
            track._end_by_implementation()  # its `ended` is fired in a turn of its own, before what is queued below
        queue_task(lambda: self._leave(gone))

    def _leave(self, gone: list[tuple[MediaStream, MediaStreamTrack]]) -> None:
        """The tracks leave their streams; the element's own event is the last of all."""
        for stream, track in gone:
            stream._implementation_remove(track)
        queue_task(lambda: self._fire(Event("error" if self._error is not None else "ended")))

    def _fail(self, error: DOMException) -> None:
        self._error = error
        self._fire(Event("error"))


def _settings(source: StreamSource) -> dict[str, object]:
    format = source.format
    if isinstance(format, AudioFormat):
        return {"sample_rate": format.sample_rate, "channel_count": format.channels, "sample_size": 16}
    settings: dict[str, object] = {"width": format.width, "height": format.height, "resize_mode": "none"}
    if format.frame_rate:
        settings["frame_rate"] = format.frame_rate
    if format.height:
        settings["aspect_ratio"] = format.width / format.height
    return settings


async def _in_thread(open_: Callable[[], Playback]) -> Playback:
    """Open in a thread of its own: the pool of `asyncio.to_thread` must not fill with openings that hang.

    What is opened for nobody is closed.
    """
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[Playback] = loop.create_future()

    def give(playback: Playback | None, error: Exception | None) -> None:
        if opened.done():  # cancelled, or too late
            if playback is not None:
                playback.close()
        elif error is not None:
            opened.set_exception(error)
        elif playback is not None:
            opened.set_result(playback)

    def run() -> None:
        playback = error = None
        try:
            playback = open_()
        except Exception as exc:
            error = exc
        try:
            loop.call_soon_threadsafe(give, playback, error)
        except RuntimeError:  # the loop is closed
            if playback is not None:
                playback.close()

    threading.Thread(target=run, name="open input", daemon=True).start()
    return await opened


def _nothing() -> None:
    return None


def _consume(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # it was told by the `error` event


__all__ = ["MediaElement"]
