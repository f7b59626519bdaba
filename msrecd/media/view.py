"""StreamView: what a `<video>` in another machine's browser needs of a stream. An extension."""

from __future__ import annotations

import asyncio
import importlib
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any

from msrecd.clock import NS, SYSTEM_CLOCK
from msrecd.codecs import hub
from msrecd.dom.exceptions import AbortError, InvalidStateError, NotSupportedError
from msrecd.flow.encoded import EncodingRequest
from msrecd.media.imagecapture import ImageCapture
from msrecd.media.levels import Level, LevelMeter
from msrecd.media.options import RecorderOptions, convert
from msrecd.media.plan import make_plan
from msrecd.media.stream import MediaStream
from msrecd.media.track import MediaStreamTrack
from msrecd.muxing.audioinput import AudioInput
from msrecd.muxing.input import TrackInput
from msrecd.muxing.videoinput import VideoInput
from msrecd.muxing.viewing import Viewer, ViewWorker

BUSY_S = 5.0
_ANSWERING = "msrecd.rtc.answer"  # an extra that stands above this package, bound when it is wanted
# What browsers play out of MP4 with Media Source Extensions; everything else is encoded for them.
_PLAYABLE = {"video": ("h264", "hevc", "av1", "vp9"), "audio": ("aac", "opus", "flac")}
_ENCODED = {"video": "video/mp4;codecs=avc1", "audio": "audio/mp4;codecs=mp4a.40.2"}


class StreamView:
    """Shows the first video and the first audio track of a stream to any number of viewers.

    They share one muxing and, with recorders of the same stream and options, one encoding. They are dropped before a
    recorder loses a frame. Nothing runs without a viewer. Belongs to the loop of the stream, but for `fmp4`, `viewers`
    and `mime_type`.
    """

    def __init__(self, stream: MediaStream, options: Mapping[str, object] | None = None) -> None:
        """
        Args:
            options: those of a MediaRecorder. With the options of one that records the stream, and a codec that
                browsers play, its encoding is shared.

        Raises:
            TypeError: `stream` is no MediaStream, or an option has a wrong type.
            NotSupportedError: options exclude each other.
        """
        if not isinstance(stream, MediaStream):
            raise TypeError(f"stream must be a MediaStream, not {type(stream).__name__}")
        self._stream = stream
        self._options = convert(options)
        self._lock = threading.Lock()
        self._worker: ViewWorker | None = None
        self._unwatch: list[tuple[ViewWorker, Callable[[], None]]] = []
        self._busy_until_ns = 0
        self._type = "video/mp4" if stream.get_video_tracks() else "audio/mp4"

    @property
    def stream(self) -> MediaStream:
        return self._stream

    @property
    def mime_type(self) -> str:
        """What `fmp4` gives; with its codecs once the first piece has come."""
        return self._type

    @property
    def viewers(self) -> int:
        """How many read `fmp4` now."""
        worker = self._worker
        return 0 if worker is None else worker.viewers

    async def fmp4(self) -> AsyncIterator[bytes]:
        """Fragmented MP4 without end: the initialisation segment, then a fragment for each frame, from a key frame on.

        Any loop. A reader that is two seconds behind loses all up to the next key frame. Ends when all tracks have.

        Raises:
            InvalidStateError: no track is live.
            NotSupportedError: the tracks cannot be shown so.
            AbortError: this machine has no time for viewers at present; try again after BUSY_S.
        """
        viewer = Viewer(asyncio.get_running_loop())
        worker = self._join(viewer)
        try:
            while (data := await viewer.read()) is not None:
                self._type = _type_of(worker) or self._type
                yield data
            if viewer.error is not None:
                raise viewer.error
        finally:
            worker.remove(viewer)

    async def jpeg(self, width: int | None = None) -> bytes:
        """The next frame as a JPEG, at most `width` pixels wide. On the stream's loop.

        Raises:
            InvalidStateError: there is no video track, or it gives no frames.
            UnknownError: no frame came in time.
        """
        track = next((track for track in self._stream.get_video_tracks() if track.ready_state == "live"), None)
        if track is None:
            raise InvalidStateError("there is no live video track")
        blob = await ImageCapture(track).take_photo(None if width is None else {"image_width": width})
        return bytes(blob)

    def figures(self) -> dict[str, float | str]:
        """What the camera itself says of the newest frame of the first video track: W3C names and units, and
        `focus_figure`, `focus_state`, `lux`. Empty for cameras that say nothing, and at the first question."""
        track = next((track for track in self._stream.get_video_tracks() if track.ready_state == "live"), None)
        return {} if track is None else dict(track._source.figures())

    async def levels(self) -> AsyncIterator[Level]:
        """The level of the first audio track, ten times a second, until it ends. On the stream's loop.

        Raises:
            InvalidStateError: there is no live audio track.
        """
        track = next((track for track in self._stream.get_audio_tracks() if track.ready_state == "live"), None)
        if track is None:
            raise InvalidStateError("there is no live audio track")
        async for level in LevelMeter(track._source, track._gate).read():
            yield level

    async def answer(self, sdp_offer: str) -> Any:
        """Show it over WebRTC: an answer to an offer (SDP), in a session with `.sdp` and `await .close()`.

        Raises:
            NotSupportedError: the extra `rtc` (aiortc) is not installed.
            OperationError: the offer cannot be used.
            InvalidStateError: there is no live track.
        """
        return await importlib.import_module(_ANSWERING).answer(self._stream, sdp_offer)

    # --- the worker --------------------------------------------------------------------------------------------------

    def _join(self, viewer: Viewer) -> ViewWorker:
        """
        Raises:
            InvalidStateError, NotSupportedError, AbortError: see `fmp4`.
        """
        with self._lock:
            if SYSTEM_CLOCK.monotonic_ns() < self._busy_until_ns:
                raise self._busy()
            if self._worker is not None and self._worker.add(viewer):
                return self._worker
            inputs = self._inputs()
            worker = ViewWorker(inputs, on_end=lambda error: self._ended(worker, error), busy=self._busy)
            worker.add(viewer)
            for track in inputs:
                self._watch(worker, track)
            self._worker = worker
            worker.start()
            return worker

    def _watch(self, worker: ViewWorker, track: TrackInput) -> None:
        def moved(is_open: bool) -> None:
            worker.gate_changed(track.track, is_open)

        track.gate.watch(moved)
        self._unwatch.append((worker, lambda: track.gate.unwatch(moved)))

    def _ended(self, worker: ViewWorker, error: Exception | None) -> None:
        """In the worker's thread."""
        with self._lock:
            if isinstance(error, AbortError):
                self._busy_until_ns = SYSTEM_CLOCK.monotonic_ns() + round(BUSY_S * NS)
            if self._worker is worker:
                self._worker = None
            over = [call for known, call in self._unwatch if known is worker]
            self._unwatch = [entry for entry in self._unwatch if entry[0] is not worker]
        for call in over:
            call()

    @staticmethod
    def _busy() -> AbortError:
        return AbortError("the device has no time for viewers: recording comes first")

    def _inputs(self) -> list[TrackInput]:
        """What is shown, that of frames first."""
        live = [track for track in self._stream.get_tracks() if track.ready_state == "live"]
        requests = _requests(self._options, live)
        shown = [next((track for track in live if track.kind == kind), None) for kind in ("video", "audio")]
        tracks = [track for track in shown if track is not None]
        if not tracks:
            raise InvalidStateError("no track of the stream is live")
        return [
            (_ViewedVideo if track.kind == "video" else _ViewedSound)(
                index, track._source, track._gate, requests[track.id], clock=SYSTEM_CLOCK
            )
            for index, track in enumerate(tracks)
        ]


class _ViewedVideo(VideoInput):
    def _acquire(self) -> hub.Lease:
        return hub.share(self.source, self.request, clock=self._clock)


class _ViewedSound(AudioInput):
    def _acquire(self) -> hub.Lease:
        return hub.share(self.source, self.request, clock=self._clock)


def _requests(options: RecorderOptions, tracks: list[MediaStreamTrack]) -> dict[str, EncodingRequest]:
    """By track id: the encoding that a recorder with these options would ask for, if browsers play that."""
    found: dict[str, EncodingRequest] = {}
    try:
        plan = make_plan(options, tracks) if tracks else None
    except NotSupportedError:
        plan = None  # a recorder could not take all these tracks; each of them may be shown
    if plan is not None:
        found = {track.id: request for track, request in zip(plan.tracks, plan.requests, strict=True)}
    for track in tracks:
        request = found.get(track.id)
        if request is None or request.codec not in _PLAYABLE[track.kind]:
            native = track._source.native_codec()
            mime_type = "" if native in _PLAYABLE[track.kind] else _ENCODED[track.kind]
            found[track.id] = make_plan(replace(options, mime_type=mime_type), [track]).requests[0]
    return found


def _type_of(worker: ViewWorker) -> str:
    """The MIME type with its codecs; "" before they are known."""
    parameters = worker.parameters
    if not parameters:
        return ""
    codecs = ",".join(stream.codec_string for stream in parameters)
    return f'{parameters[0].kind}/mp4; codecs="{codecs}"'
