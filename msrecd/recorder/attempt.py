"""Attempt: one MediaRecorder on one open stream, from the opening of the devices to its `stop` event.

A recording has one of them after the other: each fault that costs a device ends one, and the return begins the next.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from msrecd.codecs.table import Unsupported, check_type
from msrecd.dom.exceptions import DOMException
from msrecd.errors import CommandError
from msrecd.media.devices import MediaDevices
from msrecd.media.events import BlobEvent, GapEvent
from msrecd.media.recorder import MediaRecorder
from msrecd.media.track import MediaStreamTrack
from msrecd.recorder.input import RecorderInput
from msrecd.recorder.problems import Problem, problem_of
from msrecd.recorder.settings import RecorderSettings
from msrecd.vocabulary.formats import DEFAULT_TYPES

START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 20.0


class AttemptListener(Protocol):
    """Who is told what a run gives; called on the loop."""

    def run_gave(self, run: Attempt, event: BlobEvent) -> None: ...
    def run_missed(self, event: GapEvent) -> None: ...
    def run_lost_track(self, track: MediaStreamTrack) -> None: ...
    def run_muted(self, track: MediaStreamTrack, muted: bool) -> None: ...
    def run_restarts(self, track: MediaStreamTrack, silent_s: float) -> None: ...
    def run_stopped(self, run: Attempt) -> None: ...


class Attempt:
    """`begin` it once; after its end, whoever began it closes it. Lives on the loop."""

    def __init__(self, number: int, settings: RecorderSettings, listener: AttemptListener) -> None:
        """
        Args:
            number: of this run within its recording; the first is 1.
            settings: what is recorded, and how.
            listener: told everything from `begin` on.
        """
        self.number = number
        self.capture: RecorderInput | None = None
        self._settings = settings
        self._listener = listener
        self._recorder: MediaRecorder | None = None
        self._problem: Problem | None = None
        self._started = asyncio.Event()
        self._stopped = asyncio.Event()

    @property
    def state(self) -> str:
        """inactive, recording or paused: that of the MediaRecorder."""
        return "inactive" if self._recorder is None else self._recorder.state

    @property
    def is_active(self) -> bool:
        return self.state != "inactive"

    @property
    def has_started(self) -> bool:
        return self._started.is_set()

    @property
    def mime_type(self) -> str:
        """As far as it is known: with its codecs from the `start` event on."""
        return "" if self._recorder is None else self._recorder.mime_type

    @property
    def file_type(self) -> str:
        """The type of its files: what it records without pictures is no video."""
        kinds = set() if self.capture is None else {track.kind for track in self.capture.stream.get_tracks()}
        mime_type = self.mime_type or DEFAULT_TYPES["video"]
        return mime_type if "video" in kinds else mime_type.replace("video/", "audio/", 1)

    @property
    def has_lost_track(self) -> bool:
        """Whether one of its devices is away."""
        tracks = () if self.capture is None else self.capture.stream.get_tracks()
        return any(track.ready_state == "ended" for track in tracks)

    @property
    def has_played_out(self) -> bool:
        """Whether it recorded an input that came to its regular end."""
        return self.capture is not None and self.capture.has_played_out

    @property
    def problem(self) -> Problem | None:
        """Why it ended by itself, where that is known."""
        if self._problem is not None or self.capture is None or self.capture.error is None:
            return self._problem
        return problem_of(self.capture.error)

    async def begin(self, devices: MediaDevices, capture: RecorderInput | None = None) -> None:
        """Open the stream (or take an open one) and record it; returns when it has started, or has ended already.

        Raises:
            CommandError: it could not begin; everything is closed then.
        """
        self.capture = capture
        try:
            if self._settings.options.get("mime_type"):
                check_type(str(self._settings.options["mime_type"]), can_provide=lambda _: True)
            if self.capture is None:
                self.capture = await RecorderInput.open(self._settings, devices)
            self._recorder = self._listening(self.capture)
            self._recorder.start(self._settings.timeslice_ms)
            await self.capture.begin()
            async with asyncio.timeout(START_DEADLINE_S):
                await _first(self._started, self._stopped)
        except (DOMException, TimeoutError, Unsupported, TypeError) as exc:
            problem = problem_of(exc)
            self.stop()
            self.close()
            raise CommandError(problem.code, problem.message) from exc

    def _listening(self, capture: RecorderInput) -> MediaRecorder:
        recorder = MediaRecorder(capture.stream, self._settings.options)
        recorder.onstart = lambda _: self._started.set()
        recorder.ondataavailable = lambda event: self._listener.run_gave(self, event)
        recorder.ongap = self._listener.run_missed
        recorder.onerror = lambda event: self._failed(event.error)
        recorder.onstop = lambda _: self._ended()
        capture.on_track_ended(self._listener.run_lost_track)
        capture.on_track_trouble(self._listener.run_muted, self._listener.run_restarts)
        return recorder

    def pause(self) -> None:
        if self._recorder is not None and self.is_active:
            self._recorder.pause()

    def resume(self) -> None:
        if self._recorder is not None and self.is_active:
            self._recorder.resume()

    def split(self) -> None:
        """A new chunk from the next key frame on."""
        if self._recorder is not None and self.is_active:
            self._recorder.split()

    def stop(self) -> None:
        """Ask for its end; `wait_stopped` waits for it."""
        if self._recorder is not None and self.is_active:
            self._recorder.stop()

    async def wait_stopped(self) -> None:
        """Until the last blob was given; at once when it never recorded. Has no deadline of its own."""
        if self._recorder is not None:
            await self._stopped.wait()

    async def end(self) -> None:
        """Stop it, wait for its last blob (no longer than STOP_DEADLINE_S), close its devices."""
        self.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_DEADLINE_S):
                await self.wait_stopped()
        self.close()

    def close(self) -> None:
        """Close the devices, as far as nobody else has them."""
        if self.capture is not None:
            self.capture.close()
            self.capture = None

    def _failed(self, error: BaseException | None) -> None:
        self._problem = problem_of(error if error is not None else RuntimeError("unknown"))

    def _ended(self) -> None:
        self._stopped.set()
        self._listener.run_stopped(self)


async def _first(*events: asyncio.Event) -> None:
    """Until one of them is set."""
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
