"""MediaRecorder (https://w3c.github.io/mediacapture-record/).

The state machine lives on the asyncio loop; a RecorderWorker collects the data. Everything that happens by itself (an
encoder fails, the last track ends, the track set changes) ends the recording through the one terminal sequence of its
Session: inactivate, `error` where there is one, `dataavailable`, `stop`.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Awaitable, Generator
from enum import StrEnum
from functools import partial
from typing import Any

from msrecd.clock import MS, SYSTEM_CLOCK, Clock
from msrecd.codecs.table import Unsupported, can_encode, check_type, is_type_supported
from msrecd.dom.events import EventTarget, event_handler
from msrecd.dom.exceptions import InvalidStateError, NotSupportedError
from msrecd.flow.forgotten import WhenForgotten
from msrecd.media.inits import MediaRecorderOptions
from msrecd.media.options import RecorderOptions, bit_rates, convert
from msrecd.media.plan import Plan, make_plan, rates_for, worker_options
from msrecd.media.preroll import Armed, inputs_of
from msrecd.media.session import Session
from msrecd.media.stream import MediaStream
from msrecd.media.track import MediaStreamTrack
from msrecd.muxing.worker import RecorderWorker
from msrecd.tasks import running_loop

# The specification lets an implementation have a least timeslice; shorter blobs would be all overhead.
LEAST_TIMESLICE_MS = 50


class RecordingState(StrEnum):
    """https://w3c.github.io/mediacapture-record/#recordingstate"""

    INACTIVE = "inactive"
    RECORDING = "recording"
    PAUSED = "paused"


class MediaRecorder(EventTarget):
    """Records the tracks that a stream has when `start` is called. Belongs to the loop's thread.

    Events: start, stop, dataavailable (BlobEvent), pause, resume, error (ErrorEvent); an extension: gap (GapEvent),
    when media that should have been recorded is known to be lost.
    """

    onstart = event_handler("start")
    onstop = event_handler("stop")
    ondataavailable = event_handler("dataavailable")
    onpause = event_handler("pause")
    onresume = event_handler("resume")
    onerror = event_handler("error")
    ongap = event_handler("gap")

    def __init__(self, stream: MediaStream, options: MediaRecorderOptions | None = None) -> None:
        """
        Args:
            stream: what to record; may be empty or inactive until `start`.
            options: `mime_type, audio_bits_per_second, video_bits_per_second, bits_per_second, audio_bitrate_mode,
                video_key_frame_interval_duration` (ms), `video_key_frame_interval_count`; extensions: `chunk_duration`
                (ms), `chunk_max_size` (bytes), `pre_roll` (ms: the encodings run from now on, and `start` reaches back
                by so much, until the tracks end, the recorder is forgotten, or `stop` is called without a recording),
                `max_buffered` (bytes that may wait for listeners that called `BlobEvent.wait_until`; also the bound of
                the pre-roll), `eager` (blobs as soon as possible: the first one when anything can be played, the
                others from half a timeslice on where an input comes in batches), `overlay` ({"text": a str, or a
                function from a frame's capture time in ns on CLOCK_MONOTONIC to one, called in the encoder's thread;
                "position": "bottom-left", …}: drawn into the frames that are encoded for this recorder), `time_lapse`
                ({"interval": ms, 1000 at least, "frame_rate": 25}: one frame an interval, played at that rate; video
                alone, and no `pre_roll`).

        Raises:
            TypeError: `stream` is no MediaStream, or an option has a wrong type.
            NotSupportedError: the type cannot be recorded, or options exclude each other.
        """
        super().__init__()
        if not isinstance(stream, MediaStream):
            raise TypeError(f"stream must be a MediaStream, not {type(stream).__name__}")
        self._options: RecorderOptions = convert(options)
        natives = {
            codec
            for track in stream.get_tracks()
            if track.ready_state == "live" and (codec := track._source.native_codec())
        }
        try:
            check_type(self._options.mime_type, can_provide=lambda codec: codec in natives or can_encode(codec))
        except Unsupported as exc:
            raise NotSupportedError(str(exc)) from exc
        self._stream = stream
        self._mime_type = self._options.mime_type
        self._state = RecordingState.INACTIVE
        self._video_bits_per_second, self._audio_bits_per_second = bit_rates(self._options)
        self._clock: Clock = SYSTEM_CLOCK
        self._session: Session | None = None
        self._ending: Session | None = None
        self._armed: Armed | None = None
        self._forgotten: WhenForgotten[MediaRecorder] | None = None  # releases what is armed
        if self._options.pre_roll:
            self._keep_armed()

    @staticmethod
    def is_type_supported(type: str) -> bool:
        """Whether a recorder can be made for this MIME type; the truth about this libav build (decision C2).

        Raises:
            TypeError: `type` is not a str.
        """
        if not isinstance(type, str):
            raise TypeError(f"type must be a str, not {type.__class__.__name__}")
        return is_type_supported(type)

    @property
    def stream(self) -> MediaStream:
        return self._stream

    @property
    def mime_type(self) -> str:
        """The constrained type; from the `start` event to the end of the recording the full one with codecs."""
        return self._mime_type

    @property
    def state(self) -> str:
        """ "inactive", "recording" or "paused"."""
        return self._state

    @property
    def video_bits_per_second(self) -> int:
        return self._video_bits_per_second

    @property
    def audio_bits_per_second(self) -> int:
        return self._audio_bits_per_second

    @property
    def audio_bitrate_mode(self) -> str:
        return self._options.audio_bitrate_mode

    @property
    def stopped(self) -> Awaitable[None]:
        """The end of the recording: `await recorder.stopped` returns once its `stop` event has been delivered.

        At once when nothing is under way; may be awaited as often as wanted. An extension.
        """
        return _Stopped(self)

    @property
    def pre_roll_bytes(self) -> int:
        """What the pre-roll holds in memory while nothing is recorded; an extension."""
        return 0 if self._armed is None else self._armed.worker.pre_roll_bytes

    def start(self, timeslice: float | None = None) -> None:
        """Begin to record the live tracks of the stream.

        Args:
            timeslice: ms of media per blob; None, or negative (decision C11): one blob a chunk; the least is 50.

        Raises:
            TypeError: `timeslice` is no number.
            InvalidStateError: already recording or paused.
            NotSupportedError: the stream is inactive, or its tracks cannot be recorded with these options.
            RuntimeError: this is not the thread of the loop that the tracks live on, or it has no running loop.
        """
        timeslice_ns = _timeslice_ns(timeslice)
        loop = _running_loop("start")
        tracks = self._live_tracks()
        if self._state is not RecordingState.INACTIVE:
            raise InvalidStateError(f"start() while {self._state}")
        if not tracks:
            raise NotSupportedError("the stream is inactive: it has no live track")
        for track in tracks:
            if (home := track._shared.loop) is not loop and home is not None:
                raise RuntimeError(f"{track!r} belongs to another asyncio loop, and its recorder as well")
        self._video_bits_per_second, self._audio_bits_per_second = rates_for(
            self._options, frozenset(track.kind for track in tracks)
        )
        plan = make_plan(self._options, tracks)
        self._state = RecordingState.RECORDING
        self._session = session = Session(self, plan, self._clock, self._ending)
        options = worker_options(self._options, plan, timeslice_ns=timeslice_ns, name=self._stream.id[:8])
        armed = self._take_armed()
        if armed is not None and armed.plan == plan and session.begin(armed.worker, options):
            armed.hand_over()
            return
        if armed is not None:
            armed.release()
        worker = RecorderWorker(options, inputs_of(plan, self._clock), clock=self._clock)
        session.begin(worker, options)
        worker.start()

    def stop(self) -> None:
        """End the recording; the last blob and `stop` follow as events.

        Nothing happens when there is none, except that a pre-roll is forgotten until the next recording has ended.

        Raises:
            RuntimeError: this is not the thread of the recording's loop; so with the methods below.
        """
        if self._state is RecordingState.INACTIVE:
            self._disarm()
            return
        session = self._active("stop")
        self._inactivate()
        session.end(None)

    def pause(self) -> None:
        """Leave out what comes until `resume`.

        Raises:
            InvalidStateError: not recording.
        """
        session = self._active("pause")
        if self._state is RecordingState.PAUSED:
            return
        self._state = RecordingState.PAUSED
        session.pause()

    def resume(self) -> None:
        """Go on after `pause`; the paused time is absent from the time line.

        Raises:
            InvalidStateError: not recording.
        """
        session = self._active("resume")
        if self._state is RecordingState.RECORDING:
            return
        self._state = RecordingState.RECORDING
        session.resume()

    def request_data(self) -> None:
        """Have what is collected so far delivered as a blob, even an empty one (decision C10: empty before `start`).

        Raises:
            InvalidStateError: not recording.
        """
        self._active("request_data").request_data()

    def split(self) -> None:
        """End the chunk at the next key frame, which is asked for; an extension.

        Raises:
            InvalidStateError: not recording.
        """
        self._active("split").worker.split()

    def _active(self, call: str) -> Session:
        session = self._session
        if self._state is RecordingState.INACTIVE or session is None:
            raise InvalidStateError(f"{call}() while inactive")
        if not session.loop.is_closed() and _running_loop(call) is not session.loop:
            raise RuntimeError(f"{call}() on another asyncio loop than the recording; {_FROM_ELSEWHERE.format(call)}")
        return session

    def _live_tracks(self) -> list[MediaStreamTrack]:
        return [track for track in self._stream.get_tracks() if track.ready_state == "live"]

    def _inactivate(self) -> None:
        """https://w3c.github.io/mediacapture-record/#inactivate-the-recorder"""
        self._mime_type = self._options.mime_type
        self._state = RecordingState.INACTIVE
        self._ending, self._session = self._session, None
        if self._options.bits_per_second is not None:
            self._video_bits_per_second, self._audio_bits_per_second = bit_rates(self._options)

    # --- what a session tells ----------------------------------------------------------------------------------------

    def _session_started(self, session: Session, mime_type: str) -> None:
        if self._session is session:
            self._mime_type = mime_type or self._mime_type

    def _session_over(self, session: Session) -> None:
        """The terminal sequence begins."""
        if self._session is session:
            self._inactivate()
        if self._options.pre_roll and self._session is None:
            self._arm()

    # --- pre-roll ----------------------------------------------------------------------------------------------------

    def _keep_armed(self) -> None:
        """Keep a pre-roll from now on, also of tracks that come later; the stream must not keep the recorder alive."""
        this = weakref.ref(self)

        def changed(_: MediaStream) -> None:
            recorder = this()
            if recorder is not None and recorder._session is None:
                recorder._arm()

        self._stream._observe(changed)
        WhenForgotten(self, partial(self._stream._unobserve, changed), loop=running_loop())
        self._arm()

    def _arm(self) -> None:
        self._disarm()
        tracks = self._live_tracks()
        if not tracks:
            return
        try:
            plan: Plan = make_plan(self._options, tracks)
        except NotSupportedError:
            return  # start() will say it
        options = worker_options(self._options, plan, timeslice_ns=None, name=self._stream.id[:8])
        self._armed = Armed(plan, options, pre_roll_ns=int(self._options.pre_roll * MS), clock=self._clock)
        self._forgotten = WhenForgotten(self, self._armed.release, loop=running_loop())

    def _take_armed(self) -> Armed | None:
        """What is armed, for who begins or releases it."""
        armed, self._armed = self._armed, None
        if self._forgotten is not None:
            self._forgotten.cancel()
            self._forgotten = None
        return armed

    def _disarm(self) -> None:
        armed = self._take_armed()
        if armed is not None:
            armed.release()


_FROM_ELSEWHERE = "from elsewhere: loop.call_soon_threadsafe(recorder.{})"


def _running_loop(call: str) -> asyncio.AbstractEventLoop:
    """The loop of this thread.

    Raises:
        RuntimeError: there is none.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(f"{call}() needs the running asyncio loop; {_FROM_ELSEWHERE.format(call)}") from None


def _timeslice_ns(timeslice: float | None) -> int | None:
    if timeslice is None:
        return None
    if isinstance(timeslice, bool) or not isinstance(timeslice, (int, float)):
        raise TypeError(f"timeslice must be a number of milliseconds, not {type(timeslice).__name__}")
    if not math.isfinite(timeslice):
        raise TypeError("timeslice must be finite")
    if timeslice < 0:
        return None
    return int(max(timeslice, LEAST_TIMESLICE_MS) * MS)


class _Stopped:
    """Awaitable as often as wanted, for the recording that is under way when it is awaited."""

    def __init__(self, recorder: MediaRecorder) -> None:
        self._recorder = recorder

    def __await__(self) -> Generator[Any, None, None]:
        session = self._recorder._session or self._recorder._ending
        if session is not None:
            yield from session.over.wait().__await__()
